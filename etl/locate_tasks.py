"""Scoring slices: which series a model has not scored yet, in tasks for one worker each (`etl/inference.py`)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.volumes import shrink
from lesionary.errors import InternalError
from lesionary.lake import Lake
from lesionary.schema import SLICE_HEIGHTS
from lesionary.slices import SliceReader

# A model takes so many at once; pixels of 128 × 128 are 4 MB.
_SLICES_AT_ONCE = 128


class ScoreSlices(Protocol):
    """Turns shrunk slices (n, side, side) of int16 HU into heights (n,)."""

    def __call__(self, images: NDArray[np.int16], /) -> NDArray[np.float32]:
        """Heights, 0 to 1 from head to foot."""


class LeftOut(StrEnum):
    """Why a series is not scored."""

    NO_IMAGES = "no images in the lake"
    NOT_AXIAL = "not axial"


@dataclass(frozen=True, slots=True)
class SeriesSlices:
    """A series' slices in the lake, in the order of their numbers."""

    series_id: str
    counted: bool
    """Places are numbers times an interval, as in a release."""
    spacing_z_mm: float | None
    fingerprint: str
    slice_indices: tuple[int, ...]
    z_mm: tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class LakeSeries:
    """The lake's series: those that can be scored, and how many others there are, by reason."""

    found: int
    scorable: tuple[SeriesSlices, ...]
    left_out: Mapping[str, int]
    ids_left_out: frozenset[str]


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """One worker's share: neighbouring series; an `InferenceTask`."""

    lake_url: str
    model_id: str
    side: int
    series: tuple[SeriesSlices, ...]

    def run(self, model: ScoreSlices) -> pa.Table:
        """Read, shrink and score; rows of `slice_heights`.

        Raises:
            LakeError: a slice cannot be read.
            InternalError: the model gives no finite height.
        """
        wanted = [(one.series_id, index) for one in self.series for index in one.slice_indices]
        heights = np.empty(len(wanted), np.float32)
        with SliceReader(Lake.open(self.lake_url)) as reader:
            for start in range(0, len(wanted), _SLICES_AT_ONCE):
                batch = wanted[start : start + _SLICES_AT_ONCE]
                images = np.stack([shrink(reader.read(series, index), self.side) for series, index in batch])
                heights[start : start + len(batch)] = model(images)
        if not np.isfinite(heights).all():
            raise InternalError(
                "the model gives slices heights that are no numbers", where=self.model_id, next_step="train it again"
            )
        return self._rows(heights)

    def _rows(self, heights: NDArray[np.float32]) -> pa.Table:
        repeated = [(one, at) for one in self.series for at in range(len(one.slice_indices))]
        columns = {
            "unit_id": [unit_of(self.model_id, one.series_id) for one, _ in repeated],
            "model_id": [self.model_id] * len(repeated),
            "series_id": [one.series_id for one, _ in repeated],
            "slice_index": [one.slice_indices[at] for one, at in repeated],
            "z_mm": [one.z_mm[at] for one, at in repeated],
            "height": heights,
            "fingerprint": [one.fingerprint for one, _ in repeated],
        }
        return pa.table(columns, schema=SLICE_HEIGHTS.schema)


def unit_of(model_id: str, series_id: str) -> str:
    """Names a series' heights by a model, which are replaced together."""
    return f"{model_id}/{series_id}"


def lake_series(lake: Lake) -> LakeSeries:
    """All series of the lake with their slices, by their names."""
    slices = _slices_by_series(lake)
    columns = ["series_id", "source", "axial", "spacing_z_mm", "fingerprint"]
    rows = lake.read("series", columns=columns).sort_by("series_id").to_pylist()
    scorable: list[SeriesSlices] = []
    left_out: Counter[str] = Counter()
    ids: set[str] = set()
    for row in rows:
        name = row["series_id"]
        reason = LeftOut.NO_IMAGES if name not in slices else LeftOut.NOT_AXIAL if row["axial"] is False else None
        if reason:
            left_out[reason.value] += 1
            ids.add(name)
            continue
        indices, z_mm = slices[name]
        counted = row["source"] == "deeplesion"
        scorable.append(SeriesSlices(name, counted, row["spacing_z_mm"], row["fingerprint"], indices, z_mm))
    return LakeSeries(len(rows), tuple(scorable), dict(sorted(left_out.items())), frozenset(ids))


def not_scored(lake: Lake, model_id: str, series: Sequence[SeriesSlices]) -> list[SeriesSlices]:
    """Those that the model has not scored, or in another state."""
    scored = scored_rows(lake, model_id, ["series_id", "fingerprint"])
    counted = scored.group_by(["series_id", "fingerprint"]).aggregate([([], "count_all")])
    held = {(row["series_id"], row["fingerprint"]): row["count_all"] for row in counted.to_pylist()}
    return [one for one in series if held.get((one.series_id, one.fingerprint)) != len(one.slice_indices)]


def scored_rows(lake: Lake, model_id: str, columns: Sequence[str]) -> pa.Table:
    """Rows of one model in `slice_heights`."""
    return lake.read(SLICE_HEIGHTS.name, columns=columns, where=pc.field("model_id") == model_id)


def cut_score_tasks(
    lake: Lake,
    model_id: str,
    side: int,
    series: Sequence[SeriesSlices],
    slices_per_task: int,
) -> Iterator[ScoreTask]:
    """Neighbouring series in tasks of about equal numbers of slices."""
    group: list[SeriesSlices] = []
    filled = 0
    for one in series:
        if group and filled + len(one.slice_indices) > slices_per_task:
            yield ScoreTask(lake.url, model_id, side, tuple(group))
            group, filled = [], 0
        group.append(one)
        filled += len(one.slice_indices)
    if group:
        yield ScoreTask(lake.url, model_id, side, tuple(group))


def _slices_by_series(lake: Lake) -> dict[str, tuple[tuple[int, ...], tuple[float | None, ...]]]:
    """Numbers, ascending, and places of every series' slices."""
    order = [("series_id", "ascending"), ("slice_index", "ascending")]
    rows = lake.read("slices", columns=["series_id", "slice_index", "z_mm"]).sort_by(order)
    if rows.num_rows == 0:
        return {}
    # Rows of a series stand together now, so that runs are series.
    runs = pc.run_end_encode(rows["series_id"].combine_chunks())
    ends = runs.run_ends.to_pylist()
    indices, z_mm = rows["slice_index"].to_pylist(), rows["z_mm"].to_pylist()
    return {
        name: (tuple(indices[start:end]), tuple(z_mm[start:end]))
        for name, start, end in zip(runs.values.to_pylist(), [0, *ends[:-1]], ends, strict=True)
    }
