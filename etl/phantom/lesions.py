"""Lesions: where they find room, what they look like, and drawing one into a slice.

A lesion is a turned ellipsoid whose surface is waved by plane waves. Its place is drawn from the label map that the
renderer itself makes, so every type lands in its own tissue without a rule for each organ.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.phantom.anatomy import draw_anatomy
from etl.phantom.outline import Scene
from etl.phantom.painting import Image, make_grid
from etl.phantom.patient import Patient
from etl.phantom.study import Study, make_study
from etl.phantom.tissues import Tissue

_STREAM = 19
_ATTEMPTS = 12
# The label map that finds room: a coarse slice every 6 mm.
_MAP_SIZE, _MAP_SPACING_MM, _MAP_STEP_MM = 112, 4.2, 6.0
_FEWEST_ROOM_PIXELS = 6
_NEAR_SHARE, _NEAR_SIGMA_T = 0.6, 0.02
# How far beyond its radius a lesion's waves and edge may reach.
_REACH = 1.9

_HEIGHTS: dict[str, tuple[float, float]] = {
    "bone": (0.10, 0.93), "abdomen": (0.47, 0.74), "mediastinum": (0.13, 0.46), "liver": (0.42, 0.66),
    "lung": (0.13, 0.53), "kidney": (0.52, 0.68), "soft_tissue": (0.04, 0.98), "pelvis": (0.73, 0.93),
}  # fmt: skip
_HOSTS: dict[str, tuple[Tissue, ...]] = {
    "bone": (Tissue.BONE,),
    "abdomen": (Tissue.FAT_ABDOMEN, Tissue.SPLEEN, Tissue.PANCREAS, Tissue.BOWEL, Tissue.ADRENAL, Tissue.STOMACH),
    "mediastinum": (Tissue.FAT_MEDIASTINUM, Tissue.HILUM),
    "liver": (Tissue.LIVER,),
    "lung": (Tissue.LUNG,),
    "kidney": (Tissue.KIDNEY,),
    "soft_tissue": (Tissue.FAT_UNDER_SKIN, Tissue.MUSCLE, Tissue.BREAST),
    "pelvis": (Tissue.FAT_PELVIS, Tissue.PELVIC_ORGAN, Tissue.BLADDER),
}
_UPTAKE = {"none": 0.0, "arterial": 0.6, "portal": 1.0, "delayed": 0.8}


@dataclass(frozen=True, slots=True)
class Look:
    """What a lesion is made of, in HU."""

    native_hu: float
    """Without contrast; relative to `organ` when one is named."""
    enhanced_hu: float
    """In the portal phase; relative to `organ` when one is named."""
    organ: str | None = None
    """liver, spleen or kidney: the lesion brightens and darkens with it."""
    arterial_hu: float | None = None
    """Instead of the share of enhancement reached by then."""
    texture: float = 6.0
    core_hu: float = 0.0
    rim_hu: float = 0.0
    softness: float = 1.5
    """Width of the edge in pixels."""
    opacity: float = 1.0
    confined: tuple[Tissue, ...] = ()
    """Tissues it stays within; empty = anywhere in the body."""

    def hu(self, study: Study) -> float:
        """Its value in a study's contrast phase."""
        base = 0.0 if self.organ is None else float(getattr(study.hu, self.organ))
        if study.phase == "arterial" and self.arterial_hu is not None:
            return base + self.arterial_hu
        return base + self.native_hu + (self.enhanced_hu - self.native_hu) * _UPTAKE[study.phase]


@dataclass(frozen=True, slots=True)
class Lesion:
    """A lesion at home in its patient's body."""

    identifier: int
    lesion_type: str
    x_mm: float
    y_mm: float
    z_mm: float
    long_diameter_mm: float
    shape: tuple[tuple[float, ...], ...]
    """Three rows of three: from mm over the radius to the unit ball."""
    waves: tuple[tuple[float, float, float, float, float], ...]
    """Wave vector, phase and amplitude of each wave of the surface."""
    look: Look


@dataclass(frozen=True, slots=True)
class LesionState:
    """A lesion as it is in one study."""

    lesion: Lesion
    growth: float
    """Its long diameter over the one it was placed with."""
    shift_xyz_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class _Room:
    """A coarse slice: labels, and where its pixels lie in the patient's own frame."""

    labels: NDArray[np.uint8]
    x_mm: Image
    y_mm: Image


def place_lesion(
    patient: Patient,
    lesion_type: str,
    identifier: int,
    long_diameter_mm: float,
    near: Lesion | None = None,
) -> Lesion | None:
    """A new lesion of a type and size somewhere in its tissue; None when the patient has no room for it.

    Args:
        patient: whose body.
        lesion_type: one of `lesionary.anatomy.LESION_TYPES`.
        identifier: the lesion's number among the patient's; with the seed it decides everything about it.
        long_diameter_mm: its largest extent.
        near: another lesion of the type that it tends to lie close to.
    """
    rng = np.random.default_rng([_STREAM, patient.seed, patient.index, identifier, round(long_diameter_mm * 100)])
    low, high = _HEIGHTS[lesion_type]
    for _ in range(_ATTEMPTS):
        if near is not None and rng.random() < _NEAR_SHARE:
            t = near.z_mm / patient.trunk_length_mm + rng.normal() * _NEAR_SIGMA_T
        else:
            t = rng.uniform(low, high)
        if not low <= t <= high:
            continue
        level = int(t * patient.trunk_length_mm / _MAP_STEP_MM)
        room = _room(patient, level)
        found = _spot(rng, room, lesion_type)
        if found is None:
            continue
        row, column = found
        host = Tissue(int(room.labels[row, column]))
        return Lesion(
            identifier=identifier,
            lesion_type=lesion_type,
            x_mm=float(room.x_mm[row, column] + rng.uniform(-2, 2)),
            y_mm=float(room.y_mm[row, column] + rng.uniform(-2, 2)),
            z_mm=(level + 0.5) * _MAP_STEP_MM,
            long_diameter_mm=long_diameter_mm,
            shape=_shape(rng),
            waves=_waves(rng, lesion_type),
            look=_look(rng, lesion_type, host, long_diameter_mm / 2),
        )
    return None


def draw_lesion(scene: Scene, state: LesionState) -> Image | None:
    """Paint a lesion and give the part of each pixel it fills; None when this slice does not meet it."""
    lesion, canvas = state.lesion, scene.canvas
    radius = lesion.long_diameter_mm * state.growth / 2
    dx, dy, dz = state.shift_xyz_mm
    below = scene.z_mm - lesion.z_mm - dz
    if abs(below) > radius * 1.2:
        return None
    x, y = lesion.x_mm + dx, lesion.y_mm + dy
    window = canvas.window(x, y, radius * _REACH)
    if window is None:
        return None
    u = (canvas.x[window] - np.float32(x)) / np.float32(radius)
    v = (canvas.y[window] - np.float32(y)) / np.float32(radius)
    w = np.float32(below / radius)
    a, b, c = (np.float32(p) * u + np.float32(q) * v + np.float32(r) * w for p, q, r in lesion.shape)
    wave = np.float32(1)
    for ka, kb, kc, phase, amplitude in lesion.waves:
        angle = np.float32(ka) * a + np.float32(kb) * b + np.float32(kc) * c + np.float32(phase)
        wave = wave + np.float32(amplitude) * np.sin(angle)
    distance = np.sqrt(a * a + b * b + c * c) * wave
    edge_mm = lesion.look.softness * max(canvas.grid.spacing_mm, 0.6)
    covered = np.clip((np.float32(1) - distance) * np.float32(radius / edge_mm) + np.float32(0.5), 0, 1)
    labels = canvas.labels[window]
    covered = covered * (np.isin(labels, lesion.look.confined) if lesion.look.confined else labels > 0)
    if not covered.any():
        return None
    look = lesion.look
    content = np.float32(look.hu(scene.study)) + np.float32(look.texture) * canvas.grain[window]
    content = content + np.float32(look.core_hu) * np.clip(np.float32(0.55) - distance, 0, 0.55) / np.float32(0.55)
    content = content + np.float32(look.rim_hu) * np.exp(-(((distance - np.float32(0.88)) / np.float32(0.12)) ** 2))
    image = canvas.hu[window]
    image += covered * np.float32(look.opacity) * (content - image)
    mask = np.zeros_like(canvas.hu)
    mask[window] = covered
    return mask


@functools.lru_cache(maxsize=256)
def _room(patient: Patient, level: int) -> _Room:
    """The coarse slice at a level."""
    study = make_study(patient, 1)
    grid = make_grid(_MAP_SIZE, _MAP_SPACING_MM, (study.shift_x_mm, study.shift_y_mm))
    canvas = draw_anatomy(patient, study, grid, (level + 0.5) * _MAP_STEP_MM).canvas
    return _Room(canvas.labels, canvas.x, canvas.y)


def _spot(rng: np.random.Generator, room: _Room, lesion_type: str) -> tuple[int, int] | None:
    allowed = np.isin(room.labels, _HOSTS[lesion_type])
    if lesion_type == "abdomen" and rng.random() < 0.55:  # mostly nodes in the mesentery
        allowed = room.labels == Tissue.FAT_ABDOMEN
    if lesion_type == "soft_tissue" and rng.random() < 0.5:
        allowed = room.labels == Tissue.MUSCLE
    rows, columns = np.nonzero(allowed)
    if rows.size < _FEWEST_ROOM_PIXELS:
        return None
    chosen = int(rng.integers(rows.size))
    return int(rows[chosen]), int(columns[chosen])


def _shape(rng: np.random.Generator) -> tuple[tuple[float, ...], ...]:
    """A random turn of a random ellipsoid whose longest half axis is 1."""
    axes = np.exp(rng.normal(size=3) * 0.22)
    axes /= axes.max()
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return tuple(tuple(float(value) for value in row) for row in turn @ np.diag(1 / axes) @ turn.T)


def _waves(rng: np.random.Generator, lesion_type: str) -> tuple[tuple[float, float, float, float, float], ...]:
    roughness = float(rng.choice([0.03, 0.08, 0.16]))
    waves = []
    for number in (1.5, 2.5, 4.0, 6.0):
        ka, kb, kc = (float(k) for k in rng.normal(size=3) * number)
        amplitude = float(np.clip(roughness * rng.normal() / number**0.5 * 1.2, -0.2, 0.2))
        waves.append((ka, kb, kc, float(rng.uniform(0, 2 * np.pi)), amplitude))
    if lesion_type == "lung" and rng.random() < 0.3:  # spiculated
        ka, kb, kc = (float(k) for k in rng.normal(size=3) * 9)
        waves.append((ka, kb, kc, float(rng.uniform(0, 2 * np.pi)), 0.12))
    return tuple(waves)


def _look(  # noqa: PLR0911 (one return for each kind of lesion)
    rng: np.random.Generator, lesion_type: str, host: Tissue, radius_mm: float
) -> Look:
    """Density, enhancement, core and rim as they go with the type."""
    kind, one, two = float(rng.random()), float(rng.normal()), float(rng.normal())
    softness, texture = float(rng.uniform(1, 2)), float(rng.uniform(3, 10))
    gain, core, rim = float(rng.uniform(12, 70)), float(rng.uniform(0, 60)), float(rng.uniform(0, 20))
    if lesion_type == "lung":
        return _lung_look(kind, one, gain, radius_mm, softness, texture)
    if lesion_type == "liver":
        return _liver_look(kind, one, core, rim, 1.6 + 2.9 * (softness - 1), texture)
    if lesion_type == "kidney":
        confined = (Tissue.KIDNEY, Tissue.FAT_ABDOMEN) if kind < 0.6 else (Tissue.KIDNEY,)
        if kind < 0.5:  # cyst
            return Look(8 + 6 * one, 8 + 6 * one, texture=3, softness=softness, confined=confined)
        return Look(38 + 5 * one, 38 + gain, texture=texture, core_hu=-core * 0.6, softness=softness, confined=confined)
    if lesion_type == "bone":
        around = (Tissue.MUSCLE, Tissue.FAT_MEDIASTINUM, Tissue.FAT_ABDOMEN, Tissue.FAT_PELVIS) if kind > 0.75 else ()
        hu = 560 + 140 * two if one > 0 else 55 + 22 * two
        return Look(hu, hu + 8, texture=25, softness=softness + 0.5, confined=(Tissue.BONE, *around))
    if lesion_type == "soft_tissue" and kind < 0.08:  # lipoma
        return Look(-85, -85, texture=texture, softness=softness)
    if kind < 0.07:  # cystic
        return Look(12 + 8 * one, 12 + 8 * one, texture=3, softness=softness)
    if host is Tissue.SPLEEN:
        dark = -float(np.clip(45 + 15 * one, 15, 90))
        return Look(dark * 0.4, dark, "spleen", texture=texture, softness=softness, confined=(Tissue.SPLEEN,))
    # In muscle it would be seen only by its texture: such lesions are darker.
    native, large = 36 + 9 * one - (22 if host is Tissue.MUSCLE else 0), radius_mm > 12
    return Look(
        native, native + gain, texture=texture, core_hu=-core if large else 0.0, rim_hu=rim if large else 0.0,
        softness=softness,
    )  # fmt: skip


def _lung_look(kind: float, one: float, gain: float, radius_mm: float, softness: float, texture: float) -> Look:
    inside = (Tissue.LUNG,)
    if kind < 0.16:  # ground glass
        return Look(-560 + 90 * one, -560 + 90 * one, texture=45, softness=4, opacity=0.8, confined=inside)
    if kind < 0.23:  # cavity
        return Look(-920, -920, texture=texture, rim_hu=900, softness=softness, confined=inside)
    native = float(np.clip(25 + 18 * one - (60 if radius_mm < 4 else 0), -150, 70))
    return Look(native, native + gain * 0.8, texture=texture, softness=softness, confined=inside)


def _liver_look(kind: float, one: float, core: float, rim: float, softness: float, texture: float) -> Look:
    inside = (Tissue.LIVER,)
    if kind < 0.22:  # cyst
        return Look(8 + 4 * one, 8 + 4 * one, texture=3, softness=1.3, confined=inside)
    if kind < 0.34:  # bright in the arterial phase, hard to see later
        return Look(-14, 6, "liver", arterial_hu=45, texture=texture, softness=softness, confined=inside)
    dark = -float(np.clip(38 + 16 * one, 14, 85))
    ringed = kind > 0.6
    return Look(
        dark * 0.45, dark, "liver", texture=texture, core_hu=-core * 0.4 if ringed else 0.0,
        rim_hu=rim * 1.3 if ringed else 0.0, softness=softness, confined=inside,
    )  # fmt: skip
