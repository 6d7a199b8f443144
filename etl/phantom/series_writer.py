"""Draws one series of a release: its slice files, its rows, and what only the truth knows about it.

One call is one worker's task, so memory holds one slice at a time. The files are written beside their place and
appear with the renaming of their folder: a series is whole or absent.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from etl.phantom.anatomy import body_height
from etl.phantom.plan import KeySlice, SeriesPlan
from etl.phantom.reading import DrawnSlice, Reading, draw_slice, read_key
from etl.phantom.release_table import ReleaseRow
from etl.phantom.slice_files import edited_file
from etl.phantom.true_masks import TrueMask, lesion_name, masks_on_slice
from lesionary.anatomy import UNKNOWN_TYPE_CODE, code_from_lesion_type

_STREAM = 7103

# Spread of the release's heights around the truth: they came from a regressor, not from a ruler.
HEIGHT_NOISE = 0.01

_TRAIN_CODE = 1
_LUNG_WINDOW_HU = (-1500.0, 500.0)
_SOFT_WINDOW_HU = (-175.0, 275.0)
_OTHER_SOFT_WINDOW_HU = (-160.0, 240.0)
_OTHER_WINDOW_SHARE = 0.02


@dataclass(frozen=True, slots=True)
class SliceTruth:
    """Where a written slice lies."""

    slice_index: int
    z_mm: float
    height: float
    """0 neck … 1 upper thigh."""


@dataclass(frozen=True, slots=True)
class UnmarkedLesion:
    """A lesion that is to be seen on a written slice and has no row."""

    lesion_id: str
    lesion_type: str
    slice_index: int
    points: tuple[float, ...]
    """x1, y1, … x4, y4 as a reader would have marked it; one-based px."""
    growth: float


@dataclass(frozen=True, slots=True)
class SeriesResult:
    """What became of one series."""

    plan: SeriesPlan
    rows: tuple[ReleaseRow, ...]
    slices: tuple[SliceTruth, ...]
    unmarked: tuple[UnmarkedLesion, ...]
    masks: tuple[TrueMask, ...]
    files: int
    bytes: int


def write_series(plan: SeriesPlan, folder: Path, png_level: int) -> SeriesResult:
    """Write a series' slice files into `folder/<series name>`.

    Args:
        plan: the series, with its sub-volumes.
        folder: where series' folders go; an older folder of this series is replaced.
        png_level: zlib level of the slice files, 0 to 9.
    """
    rows: list[ReleaseRow] = []
    truths: list[SliceTruth] = []
    unmarked: list[UnmarkedLesion] = []
    masks: list[TrueMask] = []
    files = written = 0
    part_folder = folder / f".{plan.name}.part"
    shutil.rmtree(part_folder, ignore_errors=True)
    part_folder.mkdir(parents=True)
    for part in plan.sub_volumes:
        for slice_index in part.slice_indices:
            drawn = draw_slice(plan, slice_index)
            actions = tuple(edit.action for edit in plan.edits if edit.slice_index == slice_index)
            data = edited_file(drawn.hu, png_level, actions)
            if data is not None:
                (part_folder / f"{slice_index:03d}.png").write_bytes(data)
                files, written = files + 1, written + len(data)
            z_mm = part.z_mm(slice_index)
            truths.append(SliceTruth(slice_index, z_mm, body_height(plan.patient, z_mm)))
            rows += _rows_of_slice(plan, slice_index, drawn, truths[-1].height)
            unmarked += _unmarked_on_slice(plan, slice_index, drawn)
            masks += masks_on_slice(plan, slice_index, drawn)
    shutil.rmtree(folder / plan.name, ignore_errors=True)
    part_folder.rename(folder / plan.name)
    return SeriesResult(plan, tuple(rows), tuple(truths), tuple(unmarked), tuple(masks), files, written)


def _rows_of_slice(plan: SeriesPlan, slice_index: int, drawn: DrawnSlice, height: float) -> list[ReleaseRow]:
    rows = []
    for key in plan.keys:
        if key.slice_index != slice_index:
            continue
        reading = read_key(plan, key, drawn)
        if reading is not None:
            rows.append(_row(plan, key, reading, height))
    return rows


def _row(plan: SeriesPlan, key: KeySlice, reading: Reading, height: float) -> ReleaseRow:
    spot = [_STREAM, plan.patient.seed, plan.patient.index, plan.study_index, plan.series.index, key.lesion_id]
    rng = np.random.default_rng(spot)
    part = plan.part_of(key.slice_index)
    state = plan.state(key.lesion_id)
    spacing = plan.series.spacing_xy_mm
    released_height = float(np.clip(height + rng.normal() * HEIGHT_NOISE, 0.0, 1.0))
    return ReleaseRow(
        series_name=plan.name,
        patient_index=plan.patient.index,
        study_index=plan.study_index,
        series_index=plan.series.index,
        slice_index=key.slice_index,
        points=reading.points,
        location_xyz=(*reading.relative_xy, released_height),
        type_code=UNKNOWN_TYPE_CODE if plan.split_code == _TRAIN_CODE else code_from_lesion_type(key.stated_type),
        noisy=key.noisy,
        slice_range=(part.first_index, part.last_index),
        spacing_xyz_mm=(spacing, spacing, part.interval_mm),
        image_size_px=plan.series.image_size,
        window_low_high_hu=_window(rng, state.lesion.lesion_type),
        sex=plan.patient.sex,
        age_years=float(plan.age_years),
        split_code=plan.split_code,
        lesion_id=lesion_name(plan, key.lesion_id),
        true_type=state.lesion.lesion_type,
        true_height=height,
        growth=state.growth,
        quirks=key.quirks,
    )


def _window(rng: np.random.Generator, lesion_type: str) -> tuple[float, float]:
    if lesion_type == "lung":
        return _LUNG_WINDOW_HU
    return _OTHER_SOFT_WINDOW_HU if rng.random() < _OTHER_WINDOW_SHARE else _SOFT_WINDOW_HU


def _unmarked_on_slice(plan: SeriesPlan, slice_index: int, drawn: DrawnSlice) -> list[UnmarkedLesion]:
    marked = {key.lesion_id for key in plan.keys}
    part = plan.part_of(slice_index)
    found = []
    for state in plan.states:
        lesion = state.lesion
        center_z_mm = lesion.z_mm + state.shift_xyz_mm[2]
        if lesion.identifier in marked or abs(part.z_mm(slice_index) - center_z_mm) > part.interval_mm / 2:
            continue
        reading = read_key(plan, KeySlice(lesion.identifier, slice_index, lesion.lesion_type), drawn)
        if reading is not None:
            found.append(
                UnmarkedLesion(
                    lesion_name(plan, lesion.identifier), lesion.lesion_type, slice_index, reading.points, state.growth
                )
            )
    return found


def total_slices(plans: Sequence[SeriesPlan]) -> int:
    """How many slices some series will draw."""
    return sum(len(part.slice_indices) for plan in plans for part in plan.sub_volumes)
