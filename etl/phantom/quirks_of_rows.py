"""Quirks of rows: what a table says wrongly or oddly about files that are in order.

Every function takes all rows in the release's order and gives them back with one place changed; a touched row
carries the quirk's name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.phantom.release_table import ReleaseRow
from lesionary.recist import RELEASE_PADDING_PX, measure_points, padded_box

Rows = list[ReleaseRow]

# A short axis is clearly shorter below this ratio, so that exchanging the two is an error and not a tie.
_CLEARLY_SHORTER = 0.95
# The short axis ends so far from the long one when the two do not cross.
_APART_PX = 2.0
# The angle of oblique axes; the release has three rows below 60 degrees.
_OBLIQUE_TURN_DEG = 35.0
_FRACTIONAL_WINDOW_HU = (-182.5, 322.5)


@dataclass(frozen=True, slots=True)
class RowQuirk:
    """A change to measured rows."""

    name: str
    sentence: str
    apply: Callable[[Rows, np.random.Generator, str], Rows]


def _pick(rows: Rows, rng: np.random.Generator, fits: Callable[[ReleaseRow], bool]) -> int | None:
    """A row that fits, untouched by other quirks where there is one."""
    fitting = [number for number, row in enumerate(rows) if fits(row)]
    untouched = [number for number in fitting if not rows[number].quirks]
    if not fitting:
        return None
    return int(rng.choice(untouched or fitting))


def _changed(
    rows: Rows,
    rng: np.random.Generator,
    change: Callable[[ReleaseRow], ReleaseRow],
    fits: Callable[[ReleaseRow], bool] = lambda _: True,
) -> Rows:
    number = _pick(rows, rng, fits)
    if number is None:
        return rows
    return [*rows[:number], change(rows[number]), *rows[number + 1 :]]


def _short_exceeds_long(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    def clearly_shorter(row: ReleaseRow) -> bool:
        recist = measure_points(_points(row), (1.0, 1.0))
        return recist.short_px < _CLEARLY_SHORTER * recist.long_px

    return _changed(
        rows, rng, lambda row: row.with_quirk(name, points=row.points[4:] + row.points[:4]), clearly_shorter
    )


def _axes_apart(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed_points(rows, rng, name, _pushed_apart)


def _axes_oblique(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed_points(rows, rng, name, _leaning)


def _window_fraction(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed(rows, rng, lambda row: row.with_quirk(name, window_low_high_hu=_FRACTIONAL_WINDOW_HU))


def _age_missing(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed(rows, rng, lambda row: row.with_quirk(name, age_years=math.nan))


def _age_falls(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    """All rows of a patient's last study are a year younger than his first."""
    studies: dict[int, set[int]] = {}
    for row in rows:
        studies.setdefault(row.patient_index, set()).add(row.study_index)

    def in_last_of_several(row: ReleaseRow) -> bool:
        known = studies[row.patient_index]
        return len(known) > 1 and row.study_index == max(known)

    number = _pick(rows, rng, in_last_of_several)
    if number is None:
        return rows
    patient, study = rows[number].patient_index, rows[number].study_index
    youngest = min(row.age_years for row in rows if row.patient_index == patient and not math.isnan(row.age_years))
    return [
        row.with_quirk(name, age_years=youngest - 1.0)
        if (row.patient_index, row.study_index) == (patient, study)
        else row
        for row in rows
    ]


def _spacing_negative(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed(rows, rng, lambda row: row.with_quirk(name, spacing_xyz_mm=_with_z(row, -row.spacing_xyz_mm[2])))


def _spacing_missing(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed(rows, rng, lambda row: row.with_quirk(name, spacing_xyz_mm=_with_z(row, math.nan)))


def _windows_separator(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed(rows, rng, lambda row: row.with_quirk(name, file_separator="\\"))


def _key_outside_range(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    """The range starts right behind the key slice."""
    return _changed(
        rows,
        rng,
        lambda row: row.with_quirk(name, slice_range=(row.slice_index + 1, row.slice_range[1])),
        lambda row: row.slice_index < row.slice_range[1],
    )


def _duplicate_row(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    number = _pick(rows, rng, lambda _: True)
    if number is None:
        return rows
    again = rows[number].with_quirk(name)
    return [*rows[:number], again, again, *rows[number + 1 :]]


def _height_missing(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    return _changed(rows, rng, lambda row: row.with_quirk(name, location_xyz=(*row.location_xyz[:2], math.nan)))


def _diameters_in_mm(rows: Rows, rng: np.random.Generator, name: str) -> Rows:
    def in_mm(row: ReleaseRow) -> ReleaseRow:
        recist = measure_points(_points(row), row.spacing_xyz_mm[:2])
        return row.with_quirk(name, stated_diameters_px=(recist.long_mm, recist.short_mm))

    return _changed(rows, rng, in_mm)


def _changed_points(
    rows: Rows,
    rng: np.random.Generator,
    name: str,
    move: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> Rows:
    """One row with other points, where the box stays inside the image and the long axis stays the longer one."""

    def fits(row: ReleaseRow) -> bool:
        recist = measure_points(move(_points(row)), (1.0, 1.0))
        box = padded_box(recist.box_xyxy_px, RELEASE_PADDING_PX)
        return min(box) >= 1.0 and max(box) <= row.image_size_px and not recist.short_exceeds_long

    def moved(row: ReleaseRow) -> ReleaseRow:
        return row.with_quirk(name, points=tuple(move(_points(row)).ravel().tolist()))

    return _changed(rows, rng, moved, fits)


def _pushed_apart(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The short axis moved along itself until it misses the long one."""
    long_axis, short_axis = points[1] - points[0], points[3] - points[2]
    direction = short_axis / np.linalg.norm(short_axis)
    normal = np.array([-long_axis[1], long_axis[0]]) / np.linalg.norm(long_axis)
    to_long_axis = float((points[0] - points[2]) @ normal) / float(direction @ normal)
    moved = points.copy()
    moved[2:] += direction * (to_long_axis + _APART_PX)
    return moved


def _leaning(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The short axis turned about the place where it crosses the long one."""
    long_axis = (points[1] - points[0]) / np.linalg.norm(points[1] - points[0])
    middle = points[2:].mean(axis=0)
    crossing = points[0] + long_axis * float((middle - points[0]) @ long_axis)
    cosine, sine = math.cos(math.radians(_OBLIQUE_TURN_DEG)), math.sin(math.radians(_OBLIQUE_TURN_DEG))
    turned = points.copy()
    turned[2:] = crossing + (points[2:] - crossing) @ np.array([[cosine, sine], [-sine, cosine]])
    return turned


def _points(row: ReleaseRow) -> NDArray[np.float64]:
    return np.array(row.points, dtype=np.float64).reshape(4, 2)


def _with_z(row: ReleaseRow, interval_mm: float) -> tuple[float, float, float]:
    return (*row.spacing_xyz_mm[:2], interval_mm)


ROW_QUIRKS: tuple[RowQuirk, ...] = (
    RowQuirk("short-exceeds-long", "a row's short diameter is longer than its long one", _short_exceeds_long),
    RowQuirk("axes-apart", "a row's two diameters do not cross", _axes_apart),
    RowQuirk("axes-oblique", "a row's two diameters meet at 55 degrees", _axes_oblique),
    RowQuirk("window-fraction", "a row's display window is not a whole number", _window_fraction),
    RowQuirk("age-missing", "a row has no age (NaN)", _age_missing),
    RowQuirk("age-falls", "a patient is younger in his last study than in his first", _age_falls),
    RowQuirk("spacing-negative", "a row's slice interval is negative", _spacing_negative),
    RowQuirk("spacing-missing", "a row's slice interval is NaN", _spacing_missing),
    RowQuirk("windows-separator", "a row's file name has a backslash before the slice number", _windows_separator),
    RowQuirk("key-outside-range", "a row's slice range does not hold its key slice", _key_outside_range),
    RowQuirk("duplicate-row", "a row stands twice", _duplicate_row),
    RowQuirk("height-missing", "a row's body height is NaN", _height_missing),
    RowQuirk("diameters-in-mm", "a row's diameters are millimetres by mistake", _diameters_in_mm),
)
