"""Stacks: what a detector is trained on, cut from the lake's slices once and kept as a cache.

One stack for every slice that carries a mark, and as many without as are asked for: slices of the same series far from
every mark. Tasks are runs of whole series, and what a part holds follows from the recipe and the lake's versions
alone. Every marked slice ends as a stack or is counted by the reason why not.
"""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.patch_cutting import LeftOut, Series, read_rows, read_series
from etl.running import RunnerChoice, always_here
from etl.stack_geometry import StackFrame, StackMaker, frame_for, is_possible_spacing
from lesionary.caches import Cache, CachePart, CacheWriter, find_cache, write_part
from lesionary.errors import LakeError
from lesionary.lake import Lake
from lesionary.pixels import encode_slice
from lesionary.recist import FIRST_CENTERS
from lesionary.schema import COORDINATE_COLUMNS
from lesionary.settings import require_ranges
from lesionary.slices import SliceReader
from lesionary.splits import split_of_patient
from lesionary.stack_schema import STACK_KIND, STACKS, StackSettings

# Raised when the same recipe and lake would give other stacks than before.
_FORMAT = 1

# Marked slices of one task and part: some 40 MB of stacks of three.
_STACKS_PER_PART = 64

_SOURCES = ("lesions", "series", "slices")
_LESION_COLUMNS = (
    "lesion_id", "patient_id", "study_id", "series_id", "slice_index", "box_xyxy_px", "coord_convention", "lesion_type",
    "split", "long_mm", "short_mm", "possibly_noisy", *COORDINATE_COLUMNS,
)  # fmt: skip

Progress = Callable[[int, int], None]
"""Called with marked slices done and marked slices to do."""


@dataclass(frozen=True, slots=True)
class TrainingStacks:
    """Which stacks serve, and how they are made."""

    stack: StackSettings
    empty_share: float = 0.25
    """Slices without a mark, for each one with marks; fewer where a series has none that lie far enough off."""
    clear_mm: float = 8.0
    """A slice without a mark lies further than this from where any lesion of its series should end."""

    def __post_init__(self) -> None:
        """Refuse what could not be made.

        Raises:
            UsageError: a value is out of its range.
        """
        require_ranges(self, ("empty_share", 0.0, 10.0), ("clear_mm", 0.0, 500.0))


def make_stacks(
    lake: Lake,
    settings: TrainingStacks,
    *,
    choose_runner: RunnerChoice = always_here,
    progress: Progress | None = None,
) -> Cache:
    """The cache of the lake's stacks: the one there is, or a new one.

    Its counts are `lesions`, `marked` (stacks with marks), `empty` (stacks without) and `left_out`: marked slices that
    gave none, by reason.

    Raises:
        LakeError: no marked slice of the lake has an image, or a slice cannot be read.
    """
    versions = {name: lake.shards(name)[0] for name in _SOURCES}
    recipe: dict[str, object] = {"format": _FORMAT, "stacks_per_part": _STACKS_PER_PART, **asdict(settings)}
    known = find_cache(lake, STACK_KIND, recipe, versions)
    if known is not None:
        return known
    with CacheWriter(lake, STACK_KIND, recipe, versions, STACKS) as writer:
        tasks = list(_tasks(lake, settings, versions, writer.url))
        total = sum(task.marked for task in tasks)
        runner, _ = choose_runner(total * settings.stack.slices * settings.stack.max_side_px**2)
        counts: Counter[str] = Counter()
        left_out: Counter[str] = Counter()
        for result in runner(tasks):
            writer.add(result.part)
            counts.update(result.counts)
            left_out.update(result.left_out)
            if progress:
                progress(counts["marked"] + left_out.total(), total)
        if not counts["marked"]:
            raise LakeError(
                "none of the lake's marked slices has an image that a detector could learn from",
                where=lake.url,
                next_step="ingest images as well",
            )
        numbers = {name: counts[name] for name in ("lesions", "marked", "empty")}
        return writer.finish({**numbers, "left_out": dict(sorted(left_out.items()))})


@dataclass(frozen=True, slots=True)
class StackResult:
    """What a worker brings back."""

    part: CachePart
    counts: Mapping[str, int]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class StackTask:
    """One worker's share: the marked slices of some whole series, one part of the cache."""

    number: int
    lake_url: str
    cache_url: str
    versions: Mapping[str, int]
    settings: TrainingStacks
    series_ids: tuple[str, ...]
    marked: int

    def run(self) -> StackResult:
        """Cut the task's stacks and write its part."""
        lake = Lake.open(self.lake_url)
        lesions: dict[str, dict[int, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
        for row in read_rows(lake, "lesions", self.series_ids, _LESION_COLUMNS, self.versions).to_pylist():
            lesions[row["series_id"]][row["slice_index"]].append(row)
        series = read_series(lake, self.series_ids, self.versions)
        rows: list[dict[str, Any]] = []
        left_out: Counter[str] = Counter()
        with SliceReader(lake, self.versions["slices"]) as reader:
            for name in self.series_ids:
                rows += _series_rows(reader, series[name], lesions[name], self.settings, left_out)
        part = write_part(self.cache_url, self.number, pa.Table.from_pylist(rows, schema=STACKS))
        counts = {
            "lesions": sum(len(row["lesion_ids"]) for row in rows),
            "marked": sum(bool(row["lesion_ids"]) for row in rows),
            "empty": sum(not row["lesion_ids"] for row in rows),
        }
        return StackResult(part, counts, left_out)


def _tasks(lake: Lake, settings: TrainingStacks, versions: Mapping[str, int], url: str) -> Iterator[StackTask]:
    """Neighbouring series in tasks of about equal numbers of marked slices."""
    names = lake.read("lesions", version=versions["lesions"], columns=("series_id", "slice_index"))
    marked = names.group_by(["series_id"]).aggregate([("slice_index", "count_distinct")]).sort_by("series_id")
    group: list[str] = []
    filled = number = 0
    pairs = zip(marked["series_id"].to_pylist(), marked["slice_index_count_distinct"].to_pylist(), strict=True)
    for series_id, slices in pairs:
        if group and filled + slices > _STACKS_PER_PART:
            yield StackTask(number, lake.url, url, versions, settings, tuple(group), filled)
            group, filled, number = [], 0, number + 1
        group.append(series_id)
        filled += slices
    if group:
        yield StackTask(number, lake.url, url, versions, settings, tuple(group), filled)


def _series_rows(
    reader: SliceReader,
    series: Series,
    lesions: Mapping[int, Sequence[Mapping[str, Any]]],
    settings: TrainingStacks,
    left_out: Counter[str],
) -> Iterator[dict[str, Any]]:
    """The stacks of one series, in the order of their slices."""
    there = set(series.places.indices.tolist())
    missing = [index for index in lesions if index not in there]
    left_out[LeftOut.KEY_SLICE_MISSING.value] += len(missing)
    marked = sorted(set(lesions) & there)
    if not is_possible_spacing(series.spacing_xy_mm):
        unknown = any(math.isnan(one) for one in series.spacing_xy_mm)
        reason = LeftOut.NO_PIXEL_SPACING if unknown else LeftOut.ODD_PIXEL_SPACING
        left_out[reason.value] += len(marked)
        return
    empty = _empty_slices(series, lesions, settings.empty_share * len(marked), settings.clear_mm)
    owner = next(iter(next(iter(lesions.values()))))
    for index in sorted({*marked, *empty}):
        frame = frame_for([reader.read(series.series_id, index)], series.spacing_xy_mm, settings.stack)
        maker = StackMaker(reader, series.series_id, series.places, series.spacing_z_mm, frame, settings.stack)
        (stack,) = maker.stacks([index])
        yield {
            "series_id": series.series_id,
            "patient_id": owner["patient_id"],
            "study_id": owner["study_id"],
            "slice_index": index,
            "split": owner["split"] or split_of_patient(owner["patient_id"]),
            "rows": frame.rows,
            "columns": frame.columns,
            "scale_x": frame.scale_x,
            "scale_y": frame.scale_y,
            **_marks(sorted(lesions.get(index, ()), key=lambda row: str(row["lesion_id"])), frame),
            "pixels": [encode_slice(image) for image in stack],
        }


def _marks(rows: Sequence[Mapping[str, Any]], frame: StackFrame) -> dict[str, Any]:
    """What is marked on a slice, as it lies on its stack."""

    def on_stack(row: Mapping[str, Any], points: Sequence[float | None]) -> list[float]:
        pairs = np.array([math.nan if one is None else one for one in points], np.float64)
        placed: list[float] = frame.to_stack(pairs - FIRST_CENTERS[row["coord_convention"]]).tolist()
        return placed

    return {
        "lesion_ids": [row["lesion_id"] for row in rows],
        "boxes": [on_stack(row, row["box_xyxy_px"]) for row in rows],
        "axes": [on_stack(row, [row[name] for name in COORDINATE_COLUMNS]) for row in rows],
        "types": [row["lesion_type"] for row in rows],
        "long_mm": [math.nan if row["long_mm"] is None else row["long_mm"] for row in rows],
        "short_mm": [math.nan if row["short_mm"] is None else row["short_mm"] for row in rows],
        "noisy": [row["possibly_noisy"] for row in rows],
    }


def _empty_slices(
    series: Series, lesions: Mapping[int, Sequence[Mapping[str, Any]]], wanted: float, clear_mm: float
) -> list[int]:
    """Slices on which no lesion that is marked in the series should be seen; the same ones every time."""
    z_mm: NDArray[np.float64] = series.places.z_mm
    clear = np.isfinite(z_mm)
    for index, rows in lesions.items():
        at = int(np.searchsorted(series.places.indices, index))
        if at == len(z_mm) or series.places.indices[at] != index:
            # How far it reaches is unknown.
            return []
        reach = max((row["long_mm"] or 0.0) for row in rows) / 2 + clear_mm
        clear &= np.abs(z_mm - z_mm[at]) > reach
    candidates = series.places.indices[clear]
    seed = int.from_bytes(hashlib.sha256(series.series_id.encode()).digest()[:8], "big")
    rng = np.random.default_rng(seed)
    # Most series have few marks: what is left of a whole number is the chance of one more.
    chosen = rng.permutation(candidates)[: int(wanted + rng.random())]
    return sorted(int(one) for one in chosen)
