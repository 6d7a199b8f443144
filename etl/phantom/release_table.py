"""`DL_info.csv`: the release's 18 columns in its order and its way of writing them.

Numbers carry six significant digits without trailing zeros (`90.0204`, `24`), ages one decimal (`62.0`), values that
belong together share a quoted cell ("a, b"). Coordinates are one-based, diameters are pixels whatever the reader
expects, boxes are the marks' extent grown by five pixels.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from etl.release_format import csv_text
from lesionary.recist import RELEASE_PADDING_PX, measure_points, padded_box
from lesionary.schema import RELEASE_COLUMNS


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """One row of the release, and what only the truth file may say about it."""

    series_name: str
    patient_index: int
    study_index: int
    series_index: int
    slice_index: int
    points: tuple[float, ...]
    """x1, y1, … x4, y4: one-based px."""
    location_xyz: tuple[float, float, float]
    type_code: int
    noisy: bool
    slice_range: tuple[int, int]
    spacing_xyz_mm: tuple[float, float, float]
    image_size_px: int
    window_low_high_hu: tuple[float, float]
    sex: str
    age_years: float
    split_code: int
    lesion_id: str
    true_type: str
    true_height: float
    growth: float
    quirks: tuple[str, ...] = ()
    stated_diameters_px: tuple[float, float] | None = None
    """What the row says instead of the points' own lengths."""
    file_separator: str = "_"

    @property
    def file_name(self) -> str:
        """The picture's name as the row gives it."""
        return f"{self.series_name}{self.file_separator}{self.slice_index:03d}.png"

    def with_quirk(self, name: str, **changes: object) -> Self:
        """The row changed by a quirk, which the truth file will name."""
        return replace(self, quirks=(*self.quirks, name), **changes)  # type: ignore[arg-type]


def sort_key(row: ReleaseRow) -> tuple[int, int, int, int, str]:
    """The release's order of rows."""
    return row.patient_index, row.study_index, row.series_index, row.slice_index, row.lesion_id


def cells(row: ReleaseRow) -> list[str]:
    """A row's cells as the release writes them, in the order of `RELEASE_COLUMNS`."""
    recist = measure_points(np.array(row.points).reshape(4, 2), (1.0, 1.0))
    return [
        row.file_name,
        str(row.patient_index),
        str(row.study_index),
        str(row.series_index),
        str(row.slice_index),
        _together(row.points),
        _together(padded_box(recist.box_xyxy_px, RELEASE_PADDING_PX)),
        _together(row.stated_diameters_px or (recist.long_px, recist.short_px)),
        _together(row.location_xyz),
        str(row.type_code),
        str(int(row.noisy)),
        _together(row.slice_range),
        _together(row.spacing_xyz_mm),
        _together((row.image_size_px, row.image_size_px)),
        _together(row.window_low_high_hu),
        row.sex,
        "NaN" if math.isnan(row.age_years) else f"{row.age_years:.1f}",
        str(row.split_code),
    ]


def table_text(rows: Iterable[ReleaseRow]) -> str:
    """The whole `DL_info.csv`, header first, lines ending in a line feed."""
    return csv_text(RELEASE_COLUMNS, (cells(row) for row in rows))


def _together(values: Iterable[float]) -> str:
    return ", ".join("NaN" if math.isnan(value) else f"{value:.6g}" for value in values)
