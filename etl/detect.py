"""Detecting: a detector over the lake's series, and the lesions it sees as rows of the lake.

What is seen is committed every minute, series by series: a crash loses at most so much, and a rerun looks only at
series that are new, have changed, or of which less was asked before.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from etl.detect_slices import DetectSettings
from etl.detect_tasks import (
    SOURCES,
    DetectorModel,
    DetectResult,
    SeriesChoice,
    choose_series,
    cut_detect_tasks,
    not_looked_at,
)
from etl.inference import InferenceChoice, always_infer_here
from lesionary.detection_tables import CATEGORIES, DETECTION_BOXES, DETECTION_SERIES, DETECTIONS
from lesionary.lake import Lake
from lesionary.results import write_results

_COMMIT_SECONDS = 60.0
# Tasks are as large as leaves several for each worker, between these.
_TASKS_PER_WORKER = 8
_FEWEST_SLICES, _MOST_SLICES = 32, 256


@dataclass(frozen=True, slots=True)
class DetectSummary:
    """What a run did, and what the lake holds of it."""

    model_id: str
    scope: str
    series_found: int
    """Those that were meant: looked at now, looked at before and left out add up to it."""
    series_looked_at: int
    series_kept: int
    """By an earlier run."""
    series_left_out: Mapping[str, int]
    """By reason."""
    slices_looked_at: int
    detections: int
    """Found now."""
    boxes: int
    """On single slices; each belongs to one detection."""
    seconds: float


Progress = Callable[[int, int], None]
"""Called with slices looked at and slices to look at."""


def detect(
    lake: Lake,
    model: DetectorModel,
    settings: DetectSettings | None = None,
    *,
    choice: SeriesChoice | None = None,
    choose_inference: InferenceChoice = always_infer_here,
    progress: Progress = lambda _done, _total: None,
    slices_per_task: int | None = None,
    commit_seconds: float = _COMMIT_SECONDS,
) -> DetectSummary:
    """Look through every series that is due; safe to run again after any interruption.

    Args:
        lake: whose series.
        model: what looks.
        settings: which boxes are kept and linked.
        choice: which series and slices are meant; all of them unless given.
        choose_inference: what runs the model.
        progress: told after every task.
        slices_per_task: by the number of workers unless given; series are kept whole, so that a task may hold more.
        commit_seconds: a crash loses at most so much work.

    Raises:
        UsageError: the choice names what the lake does not have.
        LakeError: a slice cannot be read, or the lake not be written.
        InternalError: the model gives no numbers.
    """
    started = time.monotonic()
    settings, choice = settings or DetectSettings(), choice or SeriesChoice()
    # In this order: the lesions of an older version have their series and slices in newer ones.
    versions = {name: lake.shards(name)[0] for name in SOURCES}
    chosen = choose_series(lake, choice, settings, versions)
    todo = not_looked_at(lake, model.model_id, choice.scope, chosen.usable)
    total = sum(len(one.slice_indices) for one in todo)
    detections = boxes = 0
    if todo:
        _name_own_categories(lake, model)
        infer, workers = choose_inference(total)
        size = slices_per_task or max(_FEWEST_SLICES, min(_MOST_SLICES, total // (workers * _TASKS_PER_WORKER)))
        tasks = cut_detect_tasks(lake, versions, model, settings, choice.scope, todo, size)
        detections, boxes = _commit_all(
            lake, infer(tasks, model.maker), commit_seconds, lambda done: progress(done, total)
        )
    return DetectSummary(
        model_id=model.model_id,
        scope=choice.scope.value,
        series_found=chosen.found,
        series_looked_at=len(todo),
        series_kept=len(chosen.usable) - len(todo),
        series_left_out=chosen.left_out,
        slices_looked_at=total,
        detections=detections,
        boxes=boxes,
        seconds=time.monotonic() - started,
    )


def _name_own_categories(lake: Lake, model: DetectorModel) -> None:
    """A detector that was taught readers' types sorts into categories that no categoriser has named."""
    of_model = pc.field("model_id") == model.model_id
    if not model.own_categories or lake.read(CATEGORIES.name, columns=["category"], where=of_model).num_rows:
        return
    now = datetime.now(UTC)
    rows = [
        {"model_id": model.model_id, "category": number, "name": name, "lesions": 0, "created_at": now}
        for number, name in enumerate(model.own_categories)
    ]
    write_results(lake, model.model_id, {CATEGORIES.name: [pa.Table.from_pylist(rows, schema=CATEGORIES.schema)]})


def _commit_all(
    lake: Lake, results: Iterable[DetectResult], commit_seconds: float, looked_at: Callable[[int], object]
) -> tuple[int, int]:
    """Commit what is seen as it comes, every `commit_seconds` and at the end; detections, and boxes."""
    waiting: list[DetectResult] = []
    slices = detections = boxes = 0
    last = time.monotonic()
    for result in results:
        waiting.append(result)
        slices += result.slices
        detections += result.detections.num_rows
        boxes += result.boxes.num_rows
        looked_at(slices)
        if time.monotonic() - last >= commit_seconds:
            _commit(lake, waiting)
            waiting, last = [], time.monotonic()
    if waiting:
        _commit(lake, waiting)
    return detections, boxes


def _commit(lake: Lake, waiting: Sequence[DetectResult]) -> None:
    """Write whole series; the table that says a series is done comes last."""
    series = _in_order([one.series for one in waiting], "unit_id")
    tables = {
        DETECTION_BOXES.name: [_in_order([one.boxes for one in waiting], "unit_id", "detection_id", "slice_index")],
        DETECTIONS.name: [_in_order([one.detections for one in waiting], "unit_id", "detection_id")],
        DETECTION_SERIES.name: [series],
    }
    write_results(lake, pc.unique(series["unit_id"]).to_pylist(), tables)


def _in_order(parts: Sequence[pa.Table], *columns: str) -> pa.Table:
    return pa.concat_tables(parts).sort_by([(column, "ascending") for column in columns])
