"""A valid DeepLesion release out of any lake: slices as 16-bit PNG, `DL_info.csv`, and what our names became.

A lake that came from a release gives its own names and row order back. Other patients are numbered behind them, in
the order of their pseudonyms; their studies by day. A row needs both diameters and an image: lesions without are
counted and left out.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from etl.export.selection import (
    Choice,
    Lesion,
    Progress,
    Series,
    chosen_series,
    prepare_folder,
    seal_folder,
    with_progress,
)
from etl.release_format import csv_text, png_of_slice
from lesionary.anatomy import code_from_lesion_type
from lesionary.artifacts import atomic_write_bytes
from lesionary.lake import Lake
from lesionary.recist import RELEASE_PADDING_PX, measure_points, padded_box
from lesionary.schema import RELEASE_COLUMNS
from lesionary.slices import SliceReader
from lesionary.splits import SPLITS

KIND = "deeplesion"
_RELEASE_NAME = re.compile(r"[a-z0-9]+-(\d{6})_(\d{2})_(\d{2})", re.ASCII)
_SOFT_TISSUE_HU = (-175.0, 275.0)
_UNKNOWN_SPLIT_CODE = 1


@dataclass(frozen=True, slots=True)
class ReleaseExport:
    """What was written, and what was left out, by reason."""

    series: int
    slices: int
    lesions: int
    left_out: Mapping[str, int]


@dataclass(slots=True)
class _Numbers:
    """Numbers for patients, studies and series that have none of their own."""

    taken: set[int]
    patients: dict[str, int] = field(default_factory=dict)
    studies: dict[str, dict[str, int]] = field(default_factory=dict)
    series: Counter[str] = field(default_factory=Counter)

    def name(self, one: Series) -> tuple[int, int, int]:
        """Patient, study and series number."""
        published = _RELEASE_NAME.fullmatch(one.series_id)
        if published:
            return int(published[1]), int(published[2]), int(published[3])
        patient, study = str(one.row["patient_id"]), str(one.row["study_id"])
        if patient not in self.patients:
            number = max(self.taken, default=0) + 1
            self.taken.add(number)
            self.patients[patient] = number
        own = self.studies.setdefault(patient, {})
        index = own.setdefault(study, len(own) + 1)
        self.series[study] += 1
        return self.patients[patient], index, self.series[study]


def export_deeplesion(
    lake: Lake, folder: Path, choice: Choice, *, force: bool = False, progress: Progress | None = None
) -> ReleaseExport:
    """Write a release.

    Raises:
        UsageError: the folder is not empty.
        LakeError: nothing matches, or a slice cannot be read.
    """
    chosen = chosen_series(lake, choice)
    prepare_folder(folder, KIND, force=force)
    published = [match for one in chosen if (match := _RELEASE_NAME.fullmatch(one.series_id))]
    numbers = _Numbers({int(match[1]) for match in published})
    rows: list[tuple[float, list[str], str]] = []
    names: list[tuple[str, str, str]] = []
    left_out: Counter[str] = Counter()
    slices = series_count = 0
    with SliceReader(lake) as reader:
        for one in with_progress(chosen, progress):
            reason = _unwritable(one)
            if reason:
                left_out[reason] += len(one.lesions)
                continue
            number = numbers.name(one)
            name = f"{number[0]:06d}_{number[1]:02d}_{number[2]:02d}"
            names.append(("series", one.series_id, name))
            series_count += 1
            for index in one.slices:
                path = folder / "Images_png" / name / f"{index:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write_bytes(path, png_of_slice(reader.read(one.series_id, index)))
                slices += 1
            for lesion in one.lesions:
                reason = _unexportable(one, lesion)
                if reason:
                    left_out[reason] += 1
                else:
                    order = lesion.number("row_number") or math.inf
                    rows.append((order, _cells(one, lesion, number, name), lesion.lesion_id))
    # A release's own order first; the others as their series stand.
    rows.sort(key=lambda row: row[0])
    names += [("lesion", lesion_id, str(place)) for place, (_, _, lesion_id) in enumerate(rows, start=1)]
    atomic_write_bytes(folder / "lesionary_ids.csv", csv_text(("kind", "lesionary_id", "release_name"), names).encode())
    # Last: where the table is, the release is whole.
    table = csv_text(RELEASE_COLUMNS, (cells for _, cells, _ in rows))
    atomic_write_bytes(folder / "DL_info.csv", table.encode())
    seal_folder(folder, KIND)
    return ReleaseExport(series_count, slices, len(rows), dict(sorted(left_out.items())))


def _unwritable(one: Series) -> str:
    if not one.slices:
        return "series without images"
    if max(one.slices) > 9999:
        return "series with more slices than names"
    return ""


def _unexportable(one: Series, lesion: Lesion) -> str:
    if lesion.slice_index not in one.slices:
        return "no image"
    return "" if lesion.has_short_axis else "no short axis"


def _cells(one: Series, lesion: Lesion, number: Sequence[int], name: str) -> list[str]:
    points = lesion.points("one_based")
    measured = measure_points(points, (1.0, 1.0))
    low, high = _pair(lesion, "window_low_hu", "window_high_hu") or _SOFT_TISSUE_HU
    first, last = _slice_range(one, lesion)
    age = one.number("age_years")
    split = lesion.row["split"]
    return [
        f"{name}_{lesion.slice_index:03d}.png",
        *(str(part) for part in number),
        str(lesion.slice_index),
        _together(points.ravel()),
        _together(padded_box(measured.box_xyxy_px, RELEASE_PADDING_PX)),
        _together((measured.long_px, measured.short_px)),
        _together(_location(lesion)),
        str(code_from_lesion_type(str(lesion.row["lesion_type"]) if lesion.row["lesion_type"] else None)),
        str(int(bool(lesion.row["possibly_noisy"]))),
        _together((first, last)),
        _together(one.number(f"spacing_{axis}_mm") for axis in "xyz"),
        _together((one.number("columns"), one.number("rows"))),
        _together((low, high)),
        str(one.row["sex"] or ""),
        "NaN" if age is None else f"{age:.1f}",
        str(SPLITS.index(str(split)) + 1 if split in SPLITS else _UNKNOWN_SPLIT_CODE),
    ]


def _location(lesion: Lesion) -> tuple[float | None, float | None, float | None]:
    """As the release gave it, or across the body as ingest found it; a height that nobody measured stays open."""
    own = tuple(lesion.number(f"release_{axis}") for axis in "xyz")
    if any(value is not None for value in own):
        return own[0], own[1], own[2]
    return lesion.number("body_x"), lesion.number("body_y"), None


def _slice_range(one: Series, lesion: Lesion) -> tuple[int, int]:
    stated = _pair(lesion, "range_first_slice", "range_last_slice")
    if stated:
        return int(stated[0]), int(stated[1])
    stretch = next(stretch for stretch in one.stretches() if lesion.slice_index in stretch)
    return stretch.start, stretch.stop - 1


def _pair(lesion: Lesion, first: str, second: str) -> tuple[float, float] | None:
    values = lesion.number(first), lesion.number(second)
    return None if values[0] is None or values[1] is None else (values[0], values[1])


def _together(values: Iterable[float | None]) -> str:
    """Ten digits: the published six would move a point by up to half a thousandth of a pixel."""
    return ", ".join("NaN" if value is None or math.isnan(value) else f"{value:.10g}" for value in values)
