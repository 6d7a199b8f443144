"""Masks of the lake's lesions, or of a model's detections, made in tasks and committed every minute.

A series is a unit: where its marks and its own state are those that its rows were made from, nothing is done again.
Every lesion ends with a row in `masked_lesions`, which says what its mask measures or why there is none.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from etl.mask_making import METHOD
from etl.mask_tasks import (
    READER,
    SOURCES,
    MaskResult,
    SeriesMarks,
    cut_mask_tasks,
    marks_of_detections,
    marks_of_lesions,
    unit_of,
)
from etl.running import RunnerChoice, always_here
from lesionary.detection_tables import MASKED_LESIONS, MASKS
from lesionary.lake import Lake
from lesionary.results import write_results

_COMMIT_SECONDS = 60.0
# A second or two of work.
_MARKS_PER_TASK = 64
# A lesion's own slices, about: what is read decides whether Ray is worth starting.
_SLICES_PER_MARK = 8

Progress = Callable[[int, int], None]
"""Called with lesions done and lesions to do."""


@dataclass(frozen=True, slots=True)
class MeasureSummary:
    """What a run did, and what the lake now holds."""

    method: str
    marked_by: str
    lesions_found: int
    """Masked now, masked before and left out add up to it."""
    lesions_masked: int
    lesions_kept: int
    """Masked by an earlier run."""
    lesions_left_out: Mapping[str, int]
    """By reason, now and before."""
    series_found: int
    series_due: int
    """Worked on by this run."""
    masks: int
    """Slices with a mask, of all these lesions."""
    with_volume: int
    cut_short: int
    """Lesions whose slices end before they do."""
    seconds: float


def measure(
    lake: Lake,
    *,
    detections_of: str | None = None,
    chosen: Collection[str] | None = None,
    choose_runner: RunnerChoice = always_here,
    progress: Progress | None = None,
    commit_seconds: float = _COMMIT_SECONDS,
) -> MeasureSummary:
    """Make the masks that are not there yet; safe to run again after any interruption.

    Args:
        lake: whose lesions and slices.
        detections_of: a model whose detections get masks, instead of the marked lesions.
        chosen: only series with one of these lesions.
        choose_runner: what runs the tasks.
        progress: told after every task.
        commit_seconds: a crash loses at most so much work.

    Raises:
        LakeError: a slice cannot be read, or the lake not be written.
    """
    started = time.monotonic()
    marked_by = detections_of or READER
    # In this order: marks of an older version have their series and slices in newer ones.
    series = marks_of_lesions(lake) if detections_of is None else marks_of_detections(lake, detections_of)
    versions = {name: lake.shards(name)[0] for name in SOURCES}
    held = _held(lake, marked_by)
    if chosen is None:
        _forget(lake, held.keys() - {unit_of(marked_by, one.series_id) for one in series})
    else:
        wanted = frozenset(chosen)
        series = [one for one in series if any(mark.lesion_id in wanted for mark in one.marks)]
    due = [one for one in series if held.get(unit_of(marked_by, one.series_id)) != _made_from(one)]
    total = sum(len(one.marks) for one in due)
    if due:
        runner, _ = choose_runner(_bytes_to_read(lake, versions, total))
        tasks = cut_mask_tasks(lake, versions, marked_by, due, _MARKS_PER_TASK)
        _commit_results(lake, runner(tasks), commit_seconds, lambda done: progress and progress(done, total))
    return _summary(lake, marked_by, series, due, time.monotonic() - started)


def _made_from(series: SeriesMarks) -> dict[str, str]:
    return {mark.lesion_id: mark.fingerprint for mark in series.marks}


def _held(lake: Lake, marked_by: str) -> dict[str, dict[str, str]]:
    """Unit to its lesions, each with what its row was made from."""
    found: dict[str, dict[str, str]] = {}
    for row in _rows(lake, marked_by, ["unit_id", "lesion_id", "fingerprint"]).to_pylist():
        found.setdefault(row["unit_id"], {})[row["lesion_id"]] = row["fingerprint"]
    return found


def _rows(lake: Lake, marked_by: str, columns: Sequence[str]) -> pa.Table:
    ours = (pc.field("method") == METHOD) & (pc.field("marked_by") == marked_by)
    return lake.read(MASKED_LESIONS.name, columns=columns, where=ours)


def _forget(lake: Lake, units: Collection[str]) -> None:
    """Take out rows of series that have no marks any more."""
    if units:
        write_results(lake, units, {MASKS.name: [], MASKED_LESIONS.name: []})


def _commit_results(
    lake: Lake, results: Iterable[MaskResult], commit_seconds: float, done: Callable[[int], object]
) -> None:
    """Commit results as they come, every `commit_seconds` and at the end."""
    waiting: list[MaskResult] = []
    lesions = 0
    last = time.monotonic()
    for result in results:
        waiting.append(result)
        lesions += result.lesions.num_rows
        done(lesions)
        if time.monotonic() - last >= commit_seconds:
            _commit(lake, waiting)
            waiting, last = [], time.monotonic()
    if waiting:
        _commit(lake, waiting)


def _commit(lake: Lake, waiting: Sequence[MaskResult]) -> None:
    order = [("unit_id", "ascending"), ("lesion_id", "ascending")]
    masks = pa.concat_tables([one.masks for one in waiting]).sort_by([*order, ("slice_index", "ascending")])
    lesions = pa.concat_tables([one.lesions for one in waiting]).sort_by(order)
    units = pc.unique(lesions["unit_id"]).to_pylist()
    # Lesions last: their rows say that the masks are there.
    write_results(lake, units, {MASKS.name: [masks], MASKED_LESIONS.name: [lesions]})


def _bytes_to_read(lake: Lake, versions: Mapping[str, int], marks: int) -> int:
    _, shards = lake.shards("slices", versions["slices"])
    per_slice = sum(shard.bytes for shard in shards) / max(1, sum(shard.rows for shard in shards))
    return int(per_slice * _SLICES_PER_MARK * marks)


def _summary(
    lake: Lake, marked_by: str, series: Sequence[SeriesMarks], due: Sequence[SeriesMarks], seconds: float
) -> MeasureSummary:
    names = {mark.lesion_id for one in series for mark in one.marks}
    now = {mark.lesion_id for one in due for mark in one.marks}
    columns = ["lesion_id", "left_out", "slices", "volume_mm3", "cut_short"]
    rows = [row for row in _rows(lake, marked_by, columns).to_pylist() if row["lesion_id"] in names]
    masked = [row for row in rows if row["left_out"] is None]
    return MeasureSummary(
        method=METHOD,
        marked_by=marked_by,
        lesions_found=len(names),
        lesions_masked=sum(row["lesion_id"] in now for row in masked),
        lesions_kept=sum(row["lesion_id"] not in now for row in masked),
        lesions_left_out=dict(sorted(Counter(row["left_out"] for row in rows if row["left_out"]).items())),
        series_found=len(series),
        series_due=len(due),
        masks=sum(row["slices"] for row in masked),
        with_volume=sum(row["volume_mm3"] is not None for row in masked),
        cut_short=sum(row["cut_short"] is True for row in masked),
        seconds=seconds,
    )
