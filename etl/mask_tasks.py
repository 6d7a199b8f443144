"""Which lesions are to get masks, and a worker's share of them."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.mask_making import METHOD, LeftOut, Mark, Masked, make_masks
from etl.patch_cutting import read_series
from lesionary.detection_tables import DETECTIONS, MASKED_LESIONS, MASKS
from lesionary.lake import Lake
from lesionary.recist import FIRST_CENTERS
from lesionary.schema import COORDINATE_COLUMNS, LESIONS
from lesionary.slices import SliceReader

READER = "reader"
"""Who marked the lake's lesions; detections are their model's."""

SOURCES = ("series", "slices")
"""Tables that tasks read, at the versions they are given."""

# Slices kept decoded: lesions of one series share them.
_SLICES_HELD = 64

_LESION_COLUMNS = ("lesion_id", "series_id", "slice_index", "box_xyxy_px", "coord_convention", *COORDINATE_COLUMNS)
_DETECTION_COLUMNS = ("detection_id", "series_id", "slice_index", "box_xyxy_px")


@dataclass(frozen=True, slots=True)
class SeriesMarks:
    """One unit of work: all marks of one source in one series."""

    series_id: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True, slots=True)
class MaskResult:
    """What a worker brings back: rows of both tables."""

    masks: pa.Table
    lesions: pa.Table


@dataclass(frozen=True, slots=True)
class MaskTask:
    """One worker's share: some series with their marks."""

    lake_url: str
    versions: Mapping[str, int]
    marked_by: str
    series: tuple[SeriesMarks, ...]

    def run(self) -> MaskResult:
        """Make the masks.

        Raises:
            LakeError: a slice cannot be read.
        """
        lake = Lake.open(self.lake_url)
        described = read_series(lake, [one.series_id for one in self.series], self.versions)
        masks: list[dict[str, Any]] = []
        lesions: list[dict[str, Any]] = []
        with SliceReader(lake, self.versions["slices"]) as reader:
            for one in self.series:
                held = _HeldSlices(reader, one.series_id)
                for mark in one.marks:
                    made = make_masks(mark, described[one.series_id], held.read)
                    masks += _mask_rows(self.marked_by, one.series_id, mark, made)
                    lesions.append(_lesion_row(self.marked_by, one.series_id, mark, made))
        return MaskResult(
            pa.Table.from_pylist(masks, schema=MASKS.schema),
            pa.Table.from_pylist(lesions, schema=MASKED_LESIONS.schema),
        )


class _HeldSlices:
    """A series' slices, the last few of them decoded."""

    def __init__(self, reader: SliceReader, series_id: str) -> None:
        self._reader = reader
        self._series_id = series_id
        self._held: OrderedDict[int, NDArray[np.int16]] = OrderedDict()

    def read(self, slice_index: int) -> NDArray[np.int16]:
        """One slice by its number."""
        if slice_index not in self._held:
            if len(self._held) >= _SLICES_HELD:
                self._held.popitem(last=False)
            self._held[slice_index] = self._reader.read(self._series_id, slice_index)
        self._held.move_to_end(slice_index)
        return self._held[slice_index]


def unit_of(marked_by: str, series_id: str) -> str:
    """Names the masks of one source in one series, which are replaced together."""
    return f"{METHOD}/{series_id}" if marked_by == READER else f"{METHOD}/{marked_by}/{series_id}"


def marks_of_lesions(lake: Lake) -> list[SeriesMarks]:
    """All marked lesions of the lake, series by series."""
    rows = lake.read(LESIONS.name, columns=_LESION_COLUMNS).to_pylist()
    prints = _series_fingerprints(lake)
    marks: dict[str, list[Mark]] = {}
    for row in rows:
        first = FIRST_CENTERS[row["coord_convention"]]
        box, points = _shifted(row["box_xyxy_px"], first), _shifted([row[name] for name in COORDINATE_COLUMNS], first)
        marks.setdefault(row["series_id"], []).append(_mark(row["lesion_id"], row, box, points, prints))
    return _by_series(marks)


def marks_of_detections(lake: Lake, model_id: str) -> list[SeriesMarks]:
    """All detections of a model, series by series."""
    where = pc.field("model_id") == model_id
    rows = lake.read(DETECTIONS.name, columns=_DETECTION_COLUMNS, where=where).to_pylist()
    prints = _series_fingerprints(lake)
    marks: dict[str, list[Mark]] = {}
    for row in rows:
        box = _shifted(row["box_xyxy_px"], 0.0)
        marks.setdefault(row["series_id"], []).append(_mark(row["detection_id"], row, box, (), prints))
    return _by_series(marks)


def cut_mask_tasks(
    lake: Lake, versions: Mapping[str, int], marked_by: str, series: Sequence[SeriesMarks], marks: int
) -> list[MaskTask]:
    """Neighbouring series in tasks of about so many marks, none above unless a single series is."""
    groups: list[list[SeriesMarks]] = []
    filled = 0
    for one in series:
        if not groups or filled + len(one.marks) > marks:
            groups.append([])
            filled = 0
        groups[-1].append(one)
        filled += len(one.marks)
    return [MaskTask(lake.url, versions, marked_by, tuple(group)) for group in groups]


def _by_series(marks: Mapping[str, list[Mark]]) -> list[SeriesMarks]:
    return [
        SeriesMarks(series_id, tuple(sorted(marks[series_id], key=lambda mark: (mark.slice_index, mark.lesion_id))))
        for series_id in sorted(marks)
    ]


def _mark(
    name: str,
    row: Mapping[str, Any],
    box: tuple[float, ...],
    points: tuple[float, ...],
    prints: Mapping[str, str],
) -> Mark:
    made_from = [prints.get(row["series_id"]), row["slice_index"], box, points]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]
    return Mark(name, row["slice_index"], (box[0], box[1], box[2], box[3]), points, digest)


def _shifted(values: Sequence[float | None], first: float) -> tuple[float, ...]:
    return tuple(value - first for value in values if value is not None)


def _series_fingerprints(lake: Lake) -> dict[str, str]:
    rows = lake.read("series", columns=["series_id", "fingerprint"])
    return dict(zip(rows["series_id"].to_pylist(), rows["fingerprint"].to_pylist(), strict=True))


def _mask_rows(marked_by: str, series_id: str, mark: Mark, made: Masked | LeftOut) -> list[dict[str, Any]]:
    if isinstance(made, LeftOut):
        return []
    return [
        {
            "unit_id": unit_of(marked_by, series_id),
            "method": METHOD,
            "lesion_id": mark.lesion_id,
            "series_id": series_id,
            "slice_index": index,
            "left_px": mask.left_px,
            "top_px": mask.top_px,
            "columns": mask.columns,
            "rows": mask.rows,
            "runs": mask.runs,
        }
        for index, mask in made.masks
    ]


def _lesion_row(marked_by: str, series_id: str, mark: Mark, made: Masked | LeftOut) -> dict[str, Any]:
    row: dict[str, Any] = {
        "unit_id": unit_of(marked_by, series_id),
        "method": METHOD,
        "lesion_id": mark.lesion_id,
        "marked_by": marked_by,
        "series_id": series_id,
        "slice_index": mark.slice_index,
        "slices": 0,
        "fingerprint": mark.fingerprint,
    }
    if isinstance(made, LeftOut):
        return row | {"left_out": made.value}
    return row | {
        "long_axis_px": made.calipers.long_ends_px,
        "short_axis_px": made.calipers.short_ends_px,
        "long_mm": made.calipers.long_mm if made.has_spacing else None,
        "short_mm": made.calipers.short_mm if made.has_spacing else None,
        "area_mm2": made.area_mm2,
        "volume_mm3": made.volume_mm3,
        "slices": len(made.masks),
        "cut_short": made.cut_short,
    }
