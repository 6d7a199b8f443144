"""Embedding: the vectors that a model has not made yet, into its feature set, until every lesion with a patch has one.

A model's feature set carries the model's name and number. Vectors are committed every few minutes, so that a crash
loses at most that much and a rerun goes on from there; lesions of later ingests join the same set, and a lesion whose
row was taken in anew gets a new vector. The row that describes the set comes last: a set that was never finished is
nobody's yet.

Patches come from the cache that training made where there is one of the lake as it is, are cut on the spot where few
are missing, and are made into a cache otherwise.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.embed_tasks import CachedPatches, CutPatches, Wanted, cached_tasks, cut_tasks
from etl.inference import InferenceChoice, ModelMaker, always_infer_here
from etl.match_thresholds import MarksOf, match_thresholds
from etl.patch_cutting import PatchSettings
from etl.patches import find_patches, make_patches
from etl.running import RunnerChoice, always_here
from lesionary.caches import Cache
from lesionary.errors import LakeError, UsageError
from lesionary.lake import Lake
from lesionary.results import GrowingUnit, write_results
from lesionary.schema import EMBEDDINGS, FEATURE_SETS

COMMIT_SECONDS = 60.0
# Vectors in memory before they are committed, whatever the time: 128 MB of 1,024 numbers.
_COMMIT_ROWS = 32_768
# Tasks are as large as leaves several for each worker, between these.
_TASKS_PER_WORKER = 8
_FEWEST_PATCHES, _MOST_PATCHES = 64, 2_048
# A smaller share of the lake's lesions is cut on the spot instead of making a cache of all of them.
_CUT_ON_THE_SPOT = 0.25
# Marks that thresholds are taken from: whole patients, drawn by their names' digests.
_THRESHOLD_MARKS = 20_000
EUCLIDEAN = "euclidean"

_LESION_COLUMNS = ("lesion_id", "patient_id", "study_id", "series_id", "ingest_id")


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """What embedding has to know of a model."""

    model_id: str
    set_name: str
    set_version: int
    maker: ModelMaker
    """Makes a `etl.embed_tasks.Embedder`."""
    patches: PatchSettings = field(default_factory=PatchSettings)

    @property
    def set_id(self) -> str:
        """Name and version of its feature set."""
        return f"{self.set_name}@{self.set_version}"


@dataclass(frozen=True, slots=True)
class EmbedSummary:
    """What a run did, and what the lake now holds of the model."""

    model_id: str
    feature_set_id: str
    lesions: int
    """All of the lake: kept, embedded and left out add up to it."""
    kept: int
    """Had a vector before."""
    embedded: int
    left_out: Mapping[str, int]
    """Lesions without a patch, by reason."""
    dimension: int | None
    """None where nothing has a vector."""
    t1: float | None
    t2: float | None
    seconds: float
    """Of the model's run, patches that were cut on the spot included."""


Progress = Callable[[str, int, int], None]
"""Called with what is made (`patches` or `vectors`), how many are done, and how many there are to do."""


def embed(
    lake: Lake,
    model: EmbeddingModel,
    *,
    choose_inference: InferenceChoice = always_infer_here,
    choose_runner: RunnerChoice = always_here,
    progress: Progress = lambda _what, _done, _total: None,
    commit_seconds: float = COMMIT_SECONDS,
) -> EmbedSummary:
    """Give every lesion that can have one a vector; safe to run again after any interruption.

    Args:
        lake: whose lesions.
        model: what makes the vectors.
        choose_inference: what runs the model.
        choose_runner: what cuts patches into a cache, where that has to be made.
        progress: told after every task.
        commit_seconds: a crash loses at most so much work.

    Raises:
        UsageError: the model's feature set belongs to somebody else.
        LakeError: the lake has no lesion, cannot be read, or not be written.
    """
    row_there = described(lake, model)
    unit = GrowingUnit(lake, EMBEDDINGS.name, model.set_id, "lesion_id", "lesion_ingest_id")
    plan = _planned(lake, model, unit, choose_runner, progress)
    missing = len(plan.wanted.sources)
    started = time.monotonic()
    embedded, left_out = 0, plan.left_out
    if missing:
        infer, workers = choose_inference(missing)
        tasks = _tasks(lake, model, plan, workers)
        committer = VectorCommitter(unit, commit_seconds)
        for result in infer(tasks, model.maker):
            embedded += result.rows.num_rows
            left_out = left_out + Counter(result.left_out)
            progress("vectors", embedded, missing)
            committer.take(result.rows)
        committer.commit()
    seconds = time.monotonic() - started
    if embedded or (row_there is None and missing < plan.lesions.num_rows):
        row_there = _describe(lake, model, plan)
    row = row_there or {}
    return EmbedSummary(
        model_id=model.model_id,
        feature_set_id=model.set_id,
        lesions=plan.lesions.num_rows,
        kept=plan.lesions.num_rows - missing,
        embedded=embedded,
        left_out=dict(sorted(left_out.items())),
        dimension=row.get("dimension"),
        t1=row.get("t1"),
        t2=row.get("t2"),
        seconds=seconds,
    )


@dataclass(frozen=True, slots=True)
class _Plan:
    """What there is to do, of one state of the lake."""

    versions: Mapping[str, int]
    lesions: pa.Table
    wanted: Wanted
    cache: Cache | None
    """Of patches; None: those wanted are cut on the spot."""
    left_out: Counter[str]
    """Lesions that the cache has no patch of, by reason."""


def _planned(
    lake: Lake, model: EmbeddingModel, unit: GrowingUnit, choose_runner: RunnerChoice, progress: Progress
) -> _Plan:
    # In this order: the lesions of an older version have their series and slices in newer ones.
    versions = {name: lake.shards(name)[0] for name in ("lesions", "series", "slices")}
    lesions, wanted = _missing(lake, versions["lesions"], unit)
    if not wanted.sources:
        return _Plan(versions, lesions, wanted, None, Counter())
    cache = find_patches(lake, model.patches)
    if cache is None and len(wanted.sources) >= _CUT_ON_THE_SPOT * lesions.num_rows:
        cache = make_patches(
            lake,
            model.patches,
            choose_runner=choose_runner,
            progress=lambda done, total: progress("patches", done, total),
        )
    if cache is None:
        return _Plan(versions, lesions, wanted, None, Counter())
    record: Mapping[str, Any] = cache.record
    if record["versions"] != versions:
        # Somebody ingests: what came since the cache was begun is the next run's.
        versions = record["versions"]
        lesions, wanted = _missing(lake, versions["lesions"], unit)
    return _Plan(versions, lesions, wanted, cache, Counter(record["counts"]["left_out"]))


def _missing(lake: Lake, version: int, unit: GrowingUnit) -> tuple[pa.Table, Wanted]:
    """The lake's lesions, and those without a vector that was made from their rows as they are.

    Raises:
        LakeError: the lake has no lesion.
    """
    lesions = lake.read("lesions", version=version, columns=_LESION_COLUMNS)
    if not lesions.num_rows:
        raise LakeError("there is no lesion in it", where=lake.url, next_step="run `lesionary ingest SOURCE` first")
    held = unit.held()
    names, series, sources = (lesions[name].to_pylist() for name in ("lesion_id", "series_id", "ingest_id"))
    there = [name in held and held[name] == source for name, source in zip(names, sources, strict=True)]
    rows = [row for row, has in enumerate(there) if not has]
    return lesions, Wanted({names[row]: sources[row] for row in rows}, {names[row]: series[row] for row in rows})


def _tasks(lake: Lake, model: EmbeddingModel, plan: _Plan, workers: int) -> Sequence[CachedPatches | CutPatches]:
    wanted = plan.wanted
    size = patches_per_task(len(wanted.sources), workers)
    if plan.cache is not None:
        return cached_tasks(plan.cache, model.set_id, wanted, size)
    return cut_tasks(lake, model.set_id, wanted, model.patches, plan.versions, size)


def patches_per_task(patches: int, workers: int) -> int:
    """How large tasks are."""
    return max(_FEWEST_PATCHES, min(_MOST_PATCHES, patches // (workers * _TASKS_PER_WORKER)))


class VectorCommitter:
    """Makes vectors part of the lake as they come, some minutes' worth at once."""

    def __init__(self, unit: GrowingUnit, commit_seconds: float) -> None:
        self._unit, self._commit_seconds = unit, commit_seconds
        self._waiting: list[pa.Table] = []
        self._last = time.monotonic()

    def take(self, rows: pa.Table) -> None:
        """Some vectors; they are committed with others."""
        self._waiting.append(rows)
        waiting = sum(part.num_rows for part in self._waiting)
        if waiting >= _COMMIT_ROWS or time.monotonic() - self._last >= self._commit_seconds:
            self.commit()

    def commit(self) -> None:
        """Commit what waits."""
        if rows := [part for part in self._waiting if part.num_rows]:
            self._unit.add(pa.concat_tables(rows))
        self._waiting, self._last = [], time.monotonic()


def described(lake: Lake, model: EmbeddingModel) -> dict[str, Any] | None:
    """The row that describes the model's feature set; None until the set was finished once.

    Raises:
        UsageError: the set is another model's.
    """
    if not lake.has_table(FEATURE_SETS.name):
        return None
    rows = lake.read(FEATURE_SETS.name, where=pc.field("feature_set_id") == model.set_id).to_pylist()
    if not rows:
        return None
    row: dict[str, Any] = rows[0]
    if row["model_id"] != model.model_id:
        raise UsageError(
            f"feature set {model.set_id} is there already, with vectors by {row['model_id']}",
            where=model.model_id,
            next_step=f"`lesionary features drop {model.set_id}`, or train under another --name",
        )
    return row


def _describe(lake: Lake, model: EmbeddingModel, plan: _Plan) -> dict[str, Any]:
    """Write the row that describes the set, with thresholds for `lesionary match`."""
    marks = _threshold_sample(plan.lesions)
    of_set = pc.field("feature_set_id") == model.set_id
    columns = ["lesion_id", "vector"]
    vectors = lake.read(EMBEDDINGS.name, columns=columns, where=of_set & pc.field("lesion_id").isin(marks["lesion_id"]))
    if not vectors.num_rows:
        vectors = lake.read(EMBEDDINGS.name, columns=columns, where=of_set)
    dimension = len(vectors["vector"][0])
    matrix = pc.list_flatten(vectors["vector"]).to_numpy().reshape(-1, dimension)
    rows = pc.index_in(marks["lesion_id"], value_set=vectors["lesion_id"].combine_chunks())
    marks, rows = marks.filter(pc.is_valid(rows)), pc.drop_null(rows)
    patients, studies, series = (_codes(marks[name]) for name in ("patient_id", "study_id", "series_id"))
    found = match_thresholds(MarksOf(patients, studies, series, matrix[rows.to_numpy()]))
    row = {
        "feature_set_id": model.set_id,
        "name": model.set_name,
        "version": model.set_version,
        "model_id": model.model_id,
        "dimension": dimension,
        "metric": EUCLIDEAN,
        "lesions_version": plan.versions["lesions"],
        "created_at": datetime.now(UTC),
        "t1": found[0] if found else None,
        "t2": found[1] if found else None,
    }
    write_results(lake, model.set_id, {FEATURE_SETS.name: [pa.Table.from_pylist([row], schema=FEATURE_SETS.schema)]})
    return row


def _codes(names: pa.ChunkedArray) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = names.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _threshold_sample(lesions: pa.Table) -> pa.Table:
    """Lesions of whole patients, about `_THRESHOLD_MARKS` of them, the same every time."""
    if lesions.num_rows <= _THRESHOLD_MARKS:
        return lesions
    counts = {row["values"]: row["counts"] for row in pc.value_counts(lesions["patient_id"]).to_pylist()}
    chosen, total = [], 0
    for patient in sorted(counts, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if total >= _THRESHOLD_MARKS:
            break
        chosen.append(patient)
        total += counts[patient]
    return lesions.filter(pc.is_in(lesions["patient_id"], value_set=pa.array(chosen, pa.string())))
