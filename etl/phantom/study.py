"""One visit to the scanner: posture, breath, contrast, what is in stomach, bowel and bladder."""

from dataclasses import dataclass

import numpy as np

from etl.phantom.patient import Patient

_STREAM = 13

# aorta, veins, liver, spleen, kidney, other soft tissue, in HU.
_PHASES = {
    "none": (42, 42, 58, 45, 34, 42),
    "arterial": (290, 170, 72, 105, 150, 65),
    "portal": (155, 150, 112, 122, 175, 90),
    "delayed": (120, 118, 98, 102, 150, 78),
}
_PHASE_SHARES = (0.22, 0.10, 0.56, 0.12)
_FATTY_LIVER_GAIN = 2.2


@dataclass(frozen=True, slots=True)
class Enhancement:
    """HU of what contrast changes."""

    aorta: float
    vein: float
    liver: float
    spleen: float
    kidney: float
    kidney_medulla: float
    soft: float
    urine: float


@dataclass(frozen=True, slots=True)
class Study:
    """How the patient lay in the scanner this time."""

    index: int
    phase: str
    """none, arterial, portal or delayed."""
    hu: Enhancement
    arms_up: bool
    oral_contrast: bool
    breath: float
    """Shift of the diaphragm in heights t."""
    shift_x_mm: float
    shift_y_mm: float
    turn: float
    fat: float
    gas: float
    bladder: float
    heart: float
    bowel_x_mm: float
    bowel_y_mm: float
    bowel_dt: float
    texture_corner: int


def make_study(patient: Patient, study_index: int) -> Study:
    """The patient's study with this number, from 1."""
    rng = np.random.default_rng([_STREAM, patient.seed, patient.index, study_index])
    arms_up = bool(rng.random() >= 0.14)
    phase = str(rng.choice(list(_PHASES), p=_PHASE_SHARES))
    bowel = rng.normal(size=3) * [14, 8, 0.012]
    return Study(
        index=study_index,
        phase=phase,
        hu=_enhancement(rng, patient, phase),
        arms_up=arms_up,
        oral_contrast=bool(rng.random() < 0.55),
        breath=float(rng.normal() * 0.011),
        shift_x_mm=float(rng.normal() * 9),
        shift_y_mm=float(rng.normal() * 9 + 8),
        turn=float(rng.normal() * 0.035),
        fat=float(np.exp(rng.normal() * 0.06)),
        gas=float(rng.random()),
        bladder=float(np.exp(rng.normal() * 0.25)),
        heart=float(rng.normal() * 0.03),
        bowel_x_mm=float(bowel[0]),
        bowel_y_mm=float(bowel[1]),
        bowel_dt=float(bowel[2]),
        texture_corner=int(rng.integers(512)),
    )


def _enhancement(rng: np.random.Generator, patient: Patient, phase: str) -> Enhancement:
    strength = 1.0 if phase == "none" else float(np.exp(rng.normal() * 0.08))
    aorta, vein, liver, spleen, kidney, soft = (value * strength for value in _PHASES[phase])
    return Enhancement(
        aorta=aorta,
        vein=vein,
        liver=liver - patient.fatty_liver_hu * _FATTY_LIVER_GAIN,
        spleen=spleen,
        kidney=kidney,
        kidney_medulla=kidney * (0.55 if phase == "arterial" else 1.0),
        soft=soft,
        urine=350.0 if phase == "delayed" else 6.0,
    )
