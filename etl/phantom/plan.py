"""The phantom's patients through time: studies, series, lesions that come, grow, drift and go, and who marks them.

Nothing is drawn here except where a lesion finds room (`lesions.place_lesion`); a plan is small and pickles. What
would surprise:

* the figure everyone quotes for the release, a median of 15.6 mm, is over both diameters of every row. The long
  diameter's own median is 19 mm (the release's test part); sizes here aim at that, type by type;
* most plans hold lesions that are there and not marked: the release's labels are as incomplete;
* a patient's plan depends on the seed and his number alone, never on how many others there are.
"""

import math
from dataclasses import dataclass

import numpy as np

from etl.phantom.coverage import SliceGrid, SubVolume, slice_grid, whole_series
from etl.phantom.lesions import Lesion, LesionState, place_lesion
from etl.phantom.patient import Patient, make_patient
from etl.phantom.scanner import Series, make_series
from etl.phantom.study import Study, make_study
from lesionary.anatomy import LESION_TYPES

# Keeps this module's random numbers apart from those of the anatomy.
_STREAM = 7101

# Shares and medians of the long diameter per type, as in the release's test part (`LESION_TYPES` order).
_TYPE_SHARES = np.array([0.025, 0.238, 0.175, 0.142, 0.222, 0.047, 0.068, 0.083])
_MEDIAN_LONG_MM = np.array([16.3, 20.5, 18.9, 23.8, 13.1, 19.8, 22.1, 21.8])
_LOG_SIGMA = 0.62
# One lesion in 25 belongs to the long tail that reaches the release's largest, 343 mm.
_TAIL_SHARE = 0.04
_TAIL_LOG_SIGMA = 1.1
_SMALLEST_LONG_MM = 2.0
_LARGEST_LONG_MM = 343.0
# A lesion that finds no room is tried again smaller.
_ROOM_ATTEMPTS = (1.0, 0.7, 0.45)

_STUDY_SHARES = (0.45, 0.23, 0.13, 0.09, 0.10)
_SERIES_SHARES = (0.69, 0.26, 0.05)
_LESION_COUNT_P = 0.22
_MOST_LESIONS = 12
# Lesions of one patient tend to be of one type and close together: metastases of one disease.
_SAME_TYPE_SHARE = 0.45

_GROWTH_LOG_SIGMA = 0.22
_PATIENT_TREND_LOG_SIGMA = 0.12
_GROWTH_RANGE = (0.2, 5.0)
_DRIFT_XY_MM = 1.3
_DRIFT_Z_MM = 2.0
_LATE_SHARE = 0.2
_LATE_GROWTH = 0.6
_VANISHING_SHARE = 0.15

_MARKED_SHARE = 0.72
_MARKED_AGAIN_SHARE = 0.6
_TYPE_NOISE_SHARE = 0.03
# 35 of 32,735 rows of the release are noisy.
_NOISY_SHARE = 0.001
# Two marked lesions whose centres lie closer than this part of the smaller radius share a key slice.
_SHARED_SLICE_RADII = 0.5

# A golden-ratio walk spreads any few consecutive patients over the parts and keeps 70/15/15 in the long run.
_GOLDEN_STEP = (math.sqrt(5) - 1) / 2
_SPLIT_UPPER_ENDS = (0.70, 0.85, 1.0)

# Scan ranges in parts of the trunk (0 neck … 1 upper thigh): chest, abdomen, abdomen and pelvis, trunk, with neck.
_SCAN_RANGES = ((0.08, 0.56), (0.40, 0.72), (0.41, 0.93), (0.09, 0.93), (0.01, 0.97))
_SCAN_SHARES = (0.22, 0.12, 0.28, 0.30, 0.08)
_SCAN_SLACK = 0.03
# A scan that marks a lesion reaches at least so far beyond it.
_SCAN_MARGIN_MM = 35.0

# A lesion through a patient's studies; None where it is not there.
_Course = tuple[LesionState | None, ...]


@dataclass(frozen=True, slots=True)
class KeySlice:
    """One measurement to be made: a lesion on a slice."""

    lesion_id: int
    slice_index: int
    stated_type: str
    """What the release says; now and then not what the lesion is."""
    noisy: bool = False
    """The reader's diameters miss the lesion."""
    quirks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SliceEdit:
    """What happens to one slice's file: `action` is one of `etl/phantom/slice_files.py`."""

    slice_index: int
    action: str
    quirk: str


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """One series of the release: everything a worker needs to draw and measure it."""

    patient: Patient
    study: Study
    study_index: int
    series: Series
    age_years: int
    split_code: int
    grid: SliceGrid
    states: tuple[LesionState, ...]
    """Every lesion that is there, marked or not."""
    keys: tuple[KeySlice, ...] = ()
    sub_volumes: tuple[SubVolume, ...] = ()
    edits: tuple[SliceEdit, ...] = ()
    shift_xy_px: tuple[int, int] = (0, 0)
    """The whole image moved to the right and down, as if the patient lay off centre."""

    @property
    def name(self) -> str:
        """The release's name for the series: patient, study, series."""
        return f"{self.patient.index:06d}_{self.study_index:02d}_{self.series.index:02d}"

    def state(self, lesion_id: int) -> LesionState:
        """The state of a lesion that is there."""
        return next(state for state in self.states if state.lesion.identifier == lesion_id)

    def part_of(self, slice_index: int) -> SubVolume:
        """The sub-volume that holds a slice."""
        return next(part for part in self.sub_volumes if slice_index in part.slice_indices)


def split_code(seed: int, index: int) -> int:
    """The part a patient belongs to: 1 train, 2 val, 3 test; 70/15/15 however many patients there are."""
    start = float(np.random.default_rng([_STREAM, seed]).random())
    position = (start + index * _GOLDEN_STEP) % 1.0
    return next(code for code, end in enumerate(_SPLIT_UPPER_ENDS, start=1) if position < end)


def draw_long_diameter_mm(rng: np.random.Generator, lesion_type: str) -> float:
    """The long diameter of a new lesion: log-normal around its type's median, with a heavy tail."""
    log_size = math.log(_MEDIAN_LONG_MM[LESION_TYPES.index(lesion_type)]) + rng.normal() * _LOG_SIGMA
    if rng.random() < _TAIL_SHARE:
        log_size += abs(rng.normal()) * _TAIL_LOG_SIGMA
    return float(np.clip(math.exp(log_size), _SMALLEST_LONG_MM, _LARGEST_LONG_MM))


def plan_patient(seed: int, index: int, image_size: int) -> tuple[SeriesPlan, ...]:
    """A patient's series through all his studies, with the key slices someone would mark.

    Sub-volumes are still empty: which key slices show their lesion is known once they were drawn (`reading.py`).

    Args:
        seed: the release's seed.
        index: the patient's number, from 1.
        image_size: rows and columns of the images, px.
    """
    rng = np.random.default_rng([_STREAM, seed, index])
    patient = make_patient(seed, index)
    studies = 1 + int(rng.choice(len(_STUDY_SHARES), p=_STUDY_SHARES))
    courses = _plan_courses(rng, patient, studies)
    code = split_code(seed, index)
    series: list[SeriesPlan] = []
    days = 0.0
    for number in range(1, studies + 1):
        states = tuple(state for course in courses if (state := course[number - 1]) is not None)
        study = make_study(patient, number)
        age = patient.age_years + int(days // 365)
        series += _plan_study(rng, patient, study, number, image_size, age, code, states)
        days += float(np.exp(rng.normal(math.log(150.0), 0.8)))
    return tuple(series)


def plan_volume(seed: int, index: int, image_size: int) -> SeriesPlan:
    """A whole scan without a single mark: the first series of a patient's first study, all its slices kept."""
    rng = np.random.default_rng([_STREAM, seed, index])
    patient = make_patient(seed, index)
    courses = _plan_courses(rng, patient, studies=1)
    study = make_study(patient, 1)
    series = make_series(patient, study, 1, image_size)
    states = tuple(state for course in courses for state in course if state is not None)
    low, high = _scan_range_mm(rng, patient, [])
    grid = slice_grid(low, high, series.slice_interval_mm)
    return SeriesPlan(
        patient, study, 1, series, patient.age_years, split_code(seed, index), grid, states,
        sub_volumes=(whole_series(grid),),
    )  # fmt: skip


def _plan_courses(rng: np.random.Generator, patient: Patient, studies: int) -> tuple[_Course, ...]:
    trend = float(rng.normal(-0.03, _PATIENT_TREND_LOG_SIGMA))
    lesions: list[Lesion] = []
    for identifier in range(1, min(int(rng.geometric(_LESION_COUNT_P)), _MOST_LESIONS) + 1):
        lesion = _place(rng, patient, identifier, lesions)
        if lesion is not None:
            lesions.append(lesion)
    return tuple(_plan_states(rng, lesion, studies, trend) for lesion in lesions)


def _place(rng: np.random.Generator, patient: Patient, identifier: int, others: list[Lesion]) -> Lesion | None:
    lesion_type = LESION_TYPES[int(rng.choice(len(LESION_TYPES), p=_TYPE_SHARES))]
    near = None
    if others and rng.random() < _SAME_TYPE_SHARE:
        lesion_type = others[0].lesion_type
        near = others[int(rng.choice([i for i, other in enumerate(others) if other.lesion_type == lesion_type]))]
    long_mm = draw_long_diameter_mm(rng, lesion_type)
    for scale in _ROOM_ATTEMPTS:
        lesion = place_lesion(patient, lesion_type, identifier, max(long_mm * scale, _SMALLEST_LONG_MM), near)
        if lesion is not None:
            return lesion
    return None


def _plan_states(rng: np.random.Generator, lesion: Lesion, studies: int, trend: float) -> _Course:
    """Growth by a random walk, drift, a late first appearance and an early end."""
    late, vanishing = rng.random() < _LATE_SHARE, rng.random() < _VANISHING_SHARE
    first = int(rng.integers(1, studies + 1)) if late else 1
    last = int(rng.integers(first, studies + 1)) if vanishing else studies
    walk = np.cumsum(rng.normal(trend, _GROWTH_LOG_SIGMA, size=studies))
    drift = rng.normal(size=(studies, 3)) * (_DRIFT_XY_MM, _DRIFT_XY_MM, _DRIFT_Z_MM)
    start = _LATE_GROWTH if first > 1 else 1.0
    states: list[LesionState | None] = []
    for number in range(1, studies + 1):
        if not first <= number <= last:
            states.append(None)
            continue
        growth = float(np.clip(start * np.exp(walk[number - 1] - walk[first - 1]), *_GROWTH_RANGE))
        # Its first appearance defines where a lesion is; later ones drift around that.
        moved = drift[number - 1] if number > first else np.zeros(3)
        states.append(LesionState(lesion, growth, (float(moved[0]), float(moved[1]), float(moved[2]))))
    return tuple(states)


def _plan_study(
    rng: np.random.Generator,
    patient: Patient,
    study: Study,
    study_index: int,
    image_size: int,
    age_years: int,
    code: int,
    states: tuple[LesionState, ...],
) -> list[SeriesPlan]:
    """The study's series; none when nothing is there to mark (the release holds no such study)."""
    marked = [state for state in states if rng.random() < _MARKED_SHARE] or list(states[:1])
    low, high = _scan_range_mm(rng, patient, [_center_z_mm(state) for state in marked])
    planned = []
    for series_index in range(1, 2 + int(rng.choice(len(_SERIES_SHARES), p=_SERIES_SHARES))):
        again = [state for state in marked if series_index == 1 or rng.random() < _MARKED_AGAIN_SHARE]
        series = make_series(patient, study, series_index, image_size)
        grid = slice_grid(low, high, series.slice_interval_mm)
        keys = _plan_keys(rng, grid, again)
        if keys:
            planned.append(SeriesPlan(patient, study, study_index, series, age_years, code, grid, states, keys))
    return planned


def _plan_keys(rng: np.random.Generator, grid: SliceGrid, marked: list[LesionState]) -> tuple[KeySlice, ...]:
    keys: list[KeySlice] = []
    previous: LesionState | None = None
    for state in sorted(marked, key=_center_z_mm):
        slice_index = grid.nearest(_center_z_mm(state))
        if previous is not None and _share_a_slice(previous, state):
            slice_index = keys[-1].slice_index
        stated = state.lesion.lesion_type
        if rng.random() < _TYPE_NOISE_SHARE:
            stated = str(rng.choice([name for name in LESION_TYPES if name != stated]))
        keys.append(KeySlice(state.lesion.identifier, slice_index, stated, noisy=bool(rng.random() < _NOISY_SHARE)))
        previous = state
    return tuple(keys)


def _share_a_slice(one: LesionState, other: LesionState) -> bool:
    radius_mm = min(_long_mm(one), _long_mm(other)) / 2
    return abs(_center_z_mm(one) - _center_z_mm(other)) < _SHARED_SLICE_RADII * radius_mm


def _long_mm(state: LesionState) -> float:
    return state.lesion.long_diameter_mm * state.growth


def _center_z_mm(state: LesionState) -> float:
    return state.lesion.z_mm + state.shift_xyz_mm[2]


def _scan_range_mm(rng: np.random.Generator, patient: Patient, marked_z_mm: list[float]) -> tuple[float, float]:
    low, high = _SCAN_RANGES[int(rng.choice(len(_SCAN_RANGES), p=_SCAN_SHARES))]
    slack = rng.uniform(-_SCAN_SLACK, _SCAN_SLACK, size=2)
    length = patient.trunk_length_mm
    low_mm, high_mm = float((low + slack[0]) * length), float((high + slack[1]) * length)
    wanted = [z + side for z in marked_z_mm for side in (-_SCAN_MARGIN_MM, _SCAN_MARGIN_MM)]
    return max(0.0, min([low_mm, *wanted])), min(length, max([high_mm, *wanted]))
