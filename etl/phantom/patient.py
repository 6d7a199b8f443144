"""One made-up patient: body, organs and their peculiarities, drawn once from a seed."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from etl.phantom.keyframes import along
from etl.phantom.painting import Harmonic
from etl.phantom.structures import Rib, Tube, make_bowel, make_colon, make_nodes, make_ribs, make_vessels

_STREAM = 11
_ORGANS = (
    "liver", "spleen", "left_kidney", "right_kidney", "stomach", "heart", "aorta", "bladder", "pancreas",
    "gallbladder", "lung", "ilium", "sternum", "thyroid", "pelvic_organ", "rectum", "colon", "psoas",
)  # fmt: skip
_MEAN_TRUNK_LENGTH_MM = 860.0
_WARP_WAVES = 8


@dataclass(frozen=True, slots=True)
class Organ:
    """How one organ departs from the average: shift, height, size, outline, turn."""

    dx: float
    dy: float
    dt: float
    scale: float
    harmonics: tuple[Harmonic, ...]
    turn: float


@dataclass(frozen=True, slots=True)
class Wave:
    """One plane wave of the patient's in-plane warp."""

    kx: float
    ky: float
    kz: float
    phase: float
    amplitude_mm: float


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """A body. Lengths in mm, heights t from 0 (neck) to 1 (upper thigh).

    Seed and number say everything: patients compare by them and travel to other processes as them.
    """

    seed: int
    index: int
    sex: str
    age_years: int
    trunk_length_mm: float
    skeleton: float
    """In-plane scale of the skeleton, 1 = average."""
    depth: float
    """Depth of the trunk over its width, 1 = average."""
    fat_mm: float
    visceral_fat: float
    belly_mm: float
    muscle: float
    bone_density: float
    scoliosis_mm: float
    scoliosis_phase: float
    height_waves: tuple[tuple[float, float, int], ...]
    warp: tuple[Wave, ...]
    organs: Mapping[str, Organ]
    missing_kidney: str | None
    fatty_liver_hu: float
    effusion: tuple[float, float]
    ascites: bool
    emphysema: float
    gallbladder_removed: bool
    vertebra_phase: float
    lung_vessels: NDArray[np.float32]
    liver_vessels: NDArray[np.float32]
    mesenteric_vessels: NDArray[np.float32]
    nodes: NDArray[np.float32]
    bowel: tuple[Tube, ...]
    colon: NDArray[np.float32]
    colon_content: NDArray[np.float32]
    ribs: tuple[Rib, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patient) and (self.seed, self.index) == (other.seed, other.index)

    def __hash__(self) -> int:
        return hash((self.seed, self.index))

    def __reduce__(self) -> tuple[Callable[[int, int], "Patient"], tuple[int, int]]:
        return make_patient, (self.seed, self.index)

    @property
    def is_male(self) -> bool:
        """Whether the phantom draws a male body."""
        return self.sex == "M"

    def height(self, t: float) -> float:
        """Canonical height of a place at `t` of the trunk: every patient's organs sit a little elsewhere."""
        return t + sum(a * float(np.sin(k * np.pi * t + phase)) for a, phase, k in self.height_waves)

    def spine_xy(self, t: float) -> tuple[float, float]:
        """Centre of the vertebral bodies."""
        y = along(
            t, (0, 8), (0.08, 20), (0.14, 42), (0.22, 62), (0.32, 68), (0.42, 62), (0.52, 48), (0.6, 36), (0.68, 32),
            (0.74, 46), (0.8, 66), (0.86, 72), (0.9, 60),
        )  # fmt: skip
        x = self.scoliosis_mm * float(np.sin(5 * t + self.scoliosis_phase)) if t < 0.8 else 0.0
        return x * self.skeleton, y * self.skeleton * self.depth

    def cavity_half_axes(self, t: float) -> tuple[float, float]:
        """Half width and half depth of the thoracic and abdominal cavity, inside its wall."""
        a = along(
            t, (0.07, 34), (0.10, 56), (0.14, 88), (0.2, 114), (0.28, 127), (0.38, 132), (0.48, 132), (0.56, 128),
            (0.64, 120), (0.70, 112), (0.76, 104), (0.84, 88), (0.92, 70),
        )  # fmt: skip
        b = along(
            t, (0.07, 34), (0.10, 46), (0.14, 62), (0.2, 78), (0.28, 88), (0.38, 94), (0.48, 94), (0.56, 88),
            (0.64, 80), (0.70, 76), (0.76, 78), (0.84, 76), (0.92, 55),
        )  # fmt: skip
        return a * self.skeleton, b * self.skeleton * self.depth


@functools.lru_cache(maxsize=64)
def make_patient(seed: int, index: int) -> Patient:
    """The patient with this number; the same bytes for the same seed and number."""
    rng = np.random.default_rng([_STREAM, seed, index])
    male = rng.random() < 0.55
    age = int(np.clip(rng.normal(56, 15), 8, 88))
    skeleton = float(np.clip(1 + rng.normal() * 0.065 + (0.03 if male else -0.05), 0.8, 1.18))
    stretch = float(np.clip(1 + rng.normal() * 0.06 + (0.02 if male else -0.03), 0.8, 1.15))
    fat = float(np.clip(np.exp(rng.normal(2.85, 0.5)), 4, 60))
    visceral = float(np.clip(fat / 18 * np.exp(rng.normal() * 0.3), 0.3, 2.0))
    organs = {name: _make_organ(rng) for name in _ORGANS}
    bowel = make_bowel(rng)
    colon, content = make_colon(rng, organs["colon"].scale)
    return Patient(
        seed=seed,
        index=index,
        sex="M" if male else "F",
        age_years=age,
        trunk_length_mm=_MEAN_TRUNK_LENGTH_MM * stretch,
        skeleton=skeleton,
        depth=float(np.clip(1 + rng.normal() * 0.07, 0.82, 1.2)),
        fat_mm=fat,
        visceral_fat=visceral,
        belly_mm=float(np.clip((visceral - 1) * 22 + rng.normal() * 6, -10, 45)),
        muscle=float(np.clip(1 + rng.normal() * 0.15 + (0.08 if male else -0.06), 0.6, 1.4)),
        bone_density=float(np.clip(1 - 0.006 * (age - 50) + rng.normal() * 0.12, 0.5, 1.4)),
        scoliosis_mm=float(rng.normal() * 7),
        scoliosis_phase=float(rng.uniform(0, 2 * np.pi)),
        height_waves=tuple((float(rng.normal() * 0.010), float(rng.uniform(0, 2 * np.pi)), k) for k in (1, 2, 3)),
        warp=tuple(_make_wave(rng) for _ in range(_WARP_WAVES)),
        organs=MappingProxyType(organs),
        missing_kidney=str(rng.choice(["left_kidney", "right_kidney"])) if rng.random() < 0.04 else None,
        fatty_liver_hu=float(max(0.0, rng.normal() * 8)),
        effusion=(float(max(0.0, rng.normal() * 0.035 - 0.03)), float(max(0.0, rng.normal() * 0.035 - 0.03))),
        ascites=bool(rng.random() < 0.07),
        emphysema=float(max(0.0, rng.normal() * 25 - 10)),
        gallbladder_removed=bool(rng.random() < 0.15),
        vertebra_phase=float(rng.uniform(0, 1)),
        lung_vessels=make_vessels(rng, "lung"),
        liver_vessels=make_vessels(rng, "liver"),
        mesenteric_vessels=make_vessels(rng, "mesentery"),
        nodes=make_nodes(rng),
        bowel=bowel,
        colon=colon,
        colon_content=content,
        ribs=make_ribs(rng),
    )


def _make_organ(rng: np.random.Generator) -> Organ:
    return Organ(
        dx=float(rng.normal() * 5),
        dy=float(rng.normal() * 5),
        dt=float(rng.normal() * 0.010),
        scale=float(np.clip(1 + rng.normal() * 0.11, 0.7, 1.4)),
        harmonics=tuple((k, float(rng.normal() * 0.055), float(rng.uniform(0, 2 * np.pi))) for k in (2, 3, 4, 5)),
        turn=float(rng.normal() * 0.15),
    )


def _make_wave(rng: np.random.Generator) -> Wave:
    direction = rng.uniform(0, 2 * np.pi)
    return Wave(
        kx=float(rng.uniform(0.006, 0.016) * np.cos(direction)),
        ky=float(rng.uniform(0.006, 0.016) * np.sin(direction)),
        kz=float(rng.uniform(-0.01, 0.01)),
        phase=float(rng.uniform(0, 2 * np.pi)),
        amplitude_mm=float(rng.normal() * 2.6),
    )
