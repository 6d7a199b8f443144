"""Categorising: the category of every lesion of the lake that has none yet by a categoriser.

What the model says lands in table `labels` under the model's last round, beside what its training said of the lesions
there were then. Committed every minute, so that a crash loses at most that much and a rerun does only what is left.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etl.embed_tasks import CachedPatches, CutPatches, EmbedResult, Wanted, cached_tasks, cut_tasks
from etl.inference import InferenceChoice, ModelMaker, always_infer_here
from etl.patch_cutting import PatchSettings
from etl.patches import find_patches, make_patches
from etl.running import RunnerChoice, always_here
from lesionary.caches import Cache
from lesionary.categories import count_categories, last_labels, read_categories
from lesionary.errors import LakeError
from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.schema import LABELS

_COMMIT_SECONDS = 60.0
# Tasks are as large as leaves several for each worker, between these.
_TASKS_PER_WORKER = 8
_FEWEST_PATCHES, _MOST_PATCHES = 64, 2_048
# A smaller share of the lake's lesions is cut on the spot instead of making a cache of all of them.
_CUT_ON_THE_SPOT = 0.25


@dataclass(frozen=True, slots=True)
class CategoryModel:
    """What categorising has to know of a model."""

    model_id: str
    round: int
    """Number that its network's own word stands under."""
    categories: int
    maker: ModelMaker
    """Makes what gives patches the probabilities of all categories; an `etl.embed_tasks.Embedder`."""


@dataclass(frozen=True, slots=True)
class CategoriseSummary:
    """What a run did; kept, given and left out add up to the lake's lesions."""

    model_id: str
    lesions: int
    kept: int
    """Had a category before."""
    given: int
    """Have one now."""
    left_out: Mapping[str, int]
    """Lesions without a patch, by reason."""
    seconds: float


Progress = Callable[[str, int, int], None]
"""Called with what is made (`patches` or `categories`), how many are done, and how many there are to do."""


def categorise(
    lake: Lake,
    model: CategoryModel,
    *,
    choose_inference: InferenceChoice = always_infer_here,
    choose_runner: RunnerChoice = always_here,
    progress: Progress = lambda _what, _done, _total: None,
    commit_seconds: float = _COMMIT_SECONDS,
) -> CategoriseSummary:
    """Sort what the model has not sorted; safe to run again after any interruption.

    Args:
        lake: whose lesions.
        model: what sorts them.
        choose_inference: what runs the model.
        choose_runner: what cuts patches into a cache, where that has to be made.
        progress: told after every task.
        commit_seconds: a crash loses at most so much work.

    Raises:
        LakeError: the lake has no lesion, cannot be read, or not be written.
    """
    started = time.monotonic()
    # In this order: the lesions of an older version have their series and slices in newer ones.
    versions = {name: lake.shards(name)[0] for name in ("lesions", "series", "slices")}
    lesions = lake.read("lesions", version=versions["lesions"], columns=["lesion_id", "series_id", "ingest_id"])
    if not lesions.num_rows:
        raise LakeError("there is no lesion in it", where=lake.url, next_step="run `lesionary ingest SOURCE` first")
    wanted = _missing(lake, model, lesions)
    missing, done = len(wanted.sources), 0
    left_out: Counter[str] = Counter()
    if missing:
        infer, workers = choose_inference(missing)
        cache = _cache(lake, missing / lesions.num_rows, choose_runner, progress)
        size = max(_FEWEST_PATCHES, min(_MOST_PATCHES, missing // (workers * _TASKS_PER_WORKER)))
        tasks: Iterable[CachedPatches | CutPatches] = (
            cut_tasks(lake, model.model_id, wanted, PatchSettings(), versions, size)
            if cache is None
            else cached_tasks(cache, model.model_id, wanted, size)
        )
        results = _counted(infer(tasks, model.maker), left_out)
        done = _committed(lake, model, results, commit_seconds, lambda count: progress("categories", count, missing))
        left_out += _without_patch(cache, missing - done - left_out.total())
    _recount(lake, model)
    return CategoriseSummary(
        model_id=model.model_id,
        lesions=lesions.num_rows,
        kept=lesions.num_rows - missing,
        given=done,
        left_out=dict(sorted(left_out.items())),
        seconds=time.monotonic() - started,
    )


def _missing(lake: Lake, model: CategoryModel, lesions: pa.Table) -> Wanted:
    held = _held(lake, model, ["lesion_id", "round"])
    there = set(held.filter(pc.equal(held["round"], model.round))["lesion_id"].to_pylist())
    rows = [row for row in lesions.to_pylist() if row["lesion_id"] not in there]
    return Wanted(
        {row["lesion_id"]: row["ingest_id"] for row in rows}, {row["lesion_id"]: row["series_id"] for row in rows}
    )


def _cache(lake: Lake, share: float, choose_runner: RunnerChoice, progress: Progress) -> Cache | None:
    """Patches of the lake as it is: those that there are, or new ones where many are wanted; None: cut on the spot."""
    cache = find_patches(lake)
    if cache is None and share >= _CUT_ON_THE_SPOT:
        cache = make_patches(
            lake, choose_runner=choose_runner, progress=lambda done, total: progress("patches", done, total)
        )
    return cache


def _labels(model: CategoryModel, result: EmbedResult) -> pa.Table:
    """Probabilities as rows of table labels: the likeliest category, and how likely."""
    count = result.rows.num_rows
    flat: Any = pc.list_flatten(result.rows["vector"]).to_numpy()
    probability = flat.reshape(count, model.categories).astype(np.float64)
    columns = {
        "model_id": [model.model_id] * count,
        "lesion_id": result.rows["lesion_id"],
        "round": pa.array(np.full(count, model.round), pa.int32()),
        "label": [str(number) for number in probability.argmax(axis=1)],
        "score": probability.max(axis=1),
    }
    return pa.table(columns).select(list(LABELS.column_names)).cast(LABELS.schema)


def _held(lake: Lake, model: CategoryModel, columns: list[str] | None = None) -> pa.Table:
    return lake.read(LABELS.name, columns=columns, where=pc.field("model_id") == model.model_id)


def _counted(results: Iterable[EmbedResult], left_out: Counter[str]) -> Iterator[EmbedResult]:
    """The results, while what has no patch is counted."""
    for result in results:
        left_out.update(result.left_out)
        yield result


def _without_patch(cache: Cache | None, count: int) -> Counter[str]:
    """Why so many lesions have no patch: as the cache says it of all of the lake, where that is all of them."""
    reasons = Counter(dict(cache.record["counts"]["left_out"])) if cache is not None else Counter()  # type: ignore[index]
    if reasons.total() == count:
        return reasons
    return Counter({"no_patch": count} if count else {})


def _committed(
    lake: Lake,
    model: CategoryModel,
    results: Iterable[EmbedResult],
    commit_seconds: float,
    tell: Callable[[int], None],
) -> int:
    """Commit labels as they come, every `commit_seconds` and at the end; how many there were."""
    waiting: list[pa.Table] = []
    done, last = 0, time.monotonic()
    for result in results:
        waiting.append(_labels(model, result))
        done += waiting[-1].num_rows
        tell(done)
        if time.monotonic() - last >= commit_seconds:
            _commit(lake, model, waiting)
            waiting, last = [], time.monotonic()
    _commit(lake, model, waiting)
    return done


def _commit(lake: Lake, model: CategoryModel, waiting: list[pa.Table]) -> None:
    """The model's labels with these: a label is some fifty bytes, so that all of them are written again."""
    if not any(part.num_rows for part in waiting):
        return
    order = [("round", "ascending"), ("lesion_id", "ascending")]
    rows = pa.concat_tables([_held(lake, model), *waiting]).sort_by(order)
    write_results(lake, model.model_id, {LABELS.name: [rows]})


def _recount(lake: Lake, model: CategoryModel) -> None:
    """Sizes of the categories, where they are not what the labels say: an earlier run may have been killed before."""
    labels = _held(lake, model)
    held = [one.lesions for one in read_categories(lake, model.model_id)]
    numbers = last_labels(lake, model.model_id, labels)["category"].to_numpy()
    if held != np.bincount(numbers, minlength=model.categories).tolist():
        count_categories(lake, model.model_id, labels, model.categories)
