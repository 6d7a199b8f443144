"""Locating: every slice's height by a model, and from these each lesion's z and what is odd about a series.

Two steps. Scoring is long: it is done in tasks whose heights are committed every few minutes, so that a crash loses at
most that much, and a rerun scores only series that are new or have changed. What follows from the heights (usual rise,
the line to the release's z, verdicts, places of lesions) depends on all series together and takes moments: it is made
anew every time, and written where it differs from what the lake holds.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.height_fits import (
    ReleaseFit,
    SeriesHeights,
    Verdicts,
    borders_from_types,
    fit_to_release,
    height_at,
    judge,
    series_heights,
    usual_rise,
)
from etl.inference import InferenceChoice, ModelMaker, always_infer_here
from etl.locate_tasks import (
    LakeSeries,
    SeriesSlices,
    cut_score_tasks,
    lake_series,
    not_scored,
    scored_rows,
)
from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.schema import LESIONS, LOCATION_MODELS, LOCATIONS, RESULT_TABLES, SERIES_LOCATIONS, SLICE_HEIGHTS

_COMMIT_SECONDS = 60.0
# Tasks are as large as leaves several for each worker, between these.
_TASKS_PER_WORKER = 8
_FEWEST_SLICES, _MOST_SLICES = 128, 1_024

NO_KEY_SLICE = "key slice outside the slices scored"
SERIES_LEFT_OUT = "series left out"


@dataclass(frozen=True, slots=True)
class HeightModel:
    """What locating has to know of a model."""

    model_id: str
    created_at: datetime
    maker: ModelMaker
    """Makes a `etl.locate_tasks.ScoreSlices`."""
    side: int
    """Rows and columns of the shrunk slices it takes, px."""
    borders: tuple[float, float] | None = None
    """Heights at which the chest ends and the pelvis begins; by the lesions of known type unless given."""


@dataclass(frozen=True, slots=True)
class LocateSummary:
    """What a run did and what the lake now holds of the model."""

    model_id: str
    series_found: int
    """All of the lake: scored now, scored before and left out add up to it."""
    series_scored: int
    series_kept: int
    """Scored by an earlier run."""
    series_left_out: Mapping[str, int]
    """By reason."""
    slices_scored: int
    series_in_order: int
    """These, the reversed and the undecided add up to the series with heights."""
    series_reversed: int
    series_order_unknown: int
    intervals_right: int
    """So do these, the wrong and the undecided."""
    intervals_wrong: int
    intervals_unknown: int
    lesions_found: int
    """All of the lake: placed and left out add up to it."""
    lesions_placed: int
    lesions_left_out: Mapping[str, int]
    release_fit: ReleaseFit | None
    release_lesions: int
    """Lesions with the release's z and a height, which the fit is made of."""
    tables_written: tuple[str, ...]
    """Those that differed from what the lake held."""
    seconds: float


@dataclass(slots=True)
class _Places:
    """What follows from the heights of all series."""

    verdicts: dict[str, Verdicts] = field(default_factory=dict)
    z: dict[str, float] = field(default_factory=dict)
    lesions_left_out: Counter[str] = field(default_factory=Counter)
    lesions_found: int = 0
    fit: ReleaseFit | None = None
    fit_lesions: int = 0
    usual: float | None = None
    borders: tuple[float, float] | None = None


Progress = Callable[[int, int], None]
"""Called with slices scored and slices to score."""


def locate(
    lake: Lake,
    model: HeightModel,
    *,
    choose_inference: InferenceChoice = always_infer_here,
    progress: Progress | None = None,
    slices_per_task: int | None = None,
    commit_seconds: float = _COMMIT_SECONDS,
) -> LocateSummary:
    """Score what the model has not scored, and place every lesion; safe to run again after any interruption.

    Args:
        lake: whose slices and lesions.
        model: what scores them.
        choose_inference: what runs the model.
        progress: told after every task.
        slices_per_task: by the number of workers unless given; series are kept whole, so that a task may hold more.
        commit_seconds: a crash loses at most so much work.

    Raises:
        LakeError: a slice cannot be read, or the lake not be written.
    """
    started = time.monotonic()
    series = lake_series(lake)
    todo = not_scored(lake, model.model_id, series.scorable)
    to_score = sum(len(one.slice_indices) for one in todo)
    if todo:
        infer, workers = choose_inference(to_score)
        size = slices_per_task or max(_FEWEST_SLICES, min(_MOST_SLICES, to_score // (workers * _TASKS_PER_WORKER)))
        tasks = cut_score_tasks(lake, model.model_id, model.side, todo, size)
        scored = infer(tasks, model.maker)
        _commit_heights(lake, scored, commit_seconds, lambda done: progress and progress(done, to_score))
    places, heights = _follow(lake, model, series)
    written = _write_places(lake, model, places, series, heights)
    return _summary(model, series, todo, places, heights, written, time.monotonic() - started)


def heights_by_series(lake: Lake, model_id: str, series: Sequence[SeriesSlices]) -> dict[str, SeriesHeights]:
    """The heights that the lake holds of a model, of these series."""
    rows = scored_rows(lake, model_id, ["series_id", "slice_index", "z_mm", "height"])
    if rows.num_rows == 0:
        return {}
    rows = rows.sort_by([("series_id", "ascending"), ("slice_index", "ascending")])
    runs = pc.run_end_encode(rows["series_id"].combine_chunks())
    ends = runs.run_ends.to_pylist()
    spans = dict(zip(runs.values.to_pylist(), zip([0, *ends[:-1]], ends, strict=True), strict=True))
    indices, heights = rows["slice_index"].to_numpy(), rows["height"].to_numpy()
    z_mm = rows["z_mm"].to_pylist()
    found = {}
    for one in series:
        if one.series_id in spans:
            start, end = spans[one.series_id]
            found[one.series_id] = series_heights(
                indices[start:end], z_mm[start:end], heights[start:end], counted=one.counted
            )
    return found


def _commit_heights(
    lake: Lake, results: Iterable[pa.Table], commit_seconds: float, scored: Callable[[int], object]
) -> None:
    """Commit heights as they come, every `commit_seconds` and at the end."""
    waiting: list[pa.Table] = []
    done = 0
    last = time.monotonic()
    for rows in results:
        waiting.append(rows)
        done += rows.num_rows
        scored(done)
        if time.monotonic() - last >= commit_seconds:
            _commit(lake, waiting)
            waiting, last = [], time.monotonic()
    if waiting:
        _commit(lake, waiting)


def _commit(lake: Lake, waiting: Sequence[pa.Table]) -> None:
    rows = pa.concat_tables(waiting).sort_by([("unit_id", "ascending"), ("slice_index", "ascending")])
    write_results(lake, pc.unique(rows["unit_id"]).to_pylist(), {SLICE_HEIGHTS.name: [rows]})


def _follow(lake: Lake, model: HeightModel, series: LakeSeries) -> tuple[_Places, dict[str, SeriesHeights]]:
    """All that the heights say."""
    heights = heights_by_series(lake, model.model_id, series.scorable)
    places = _Places(usual=usual_rise(list(heights.values())), borders=model.borders)
    columns = ["lesion_id", "series_id", "slice_index", "release_z", "lesion_type"]
    lesions = lake.read(LESIONS.name, columns=columns).sort_by("lesion_id").to_pylist()
    placed = _place_lesions(places, lesions, heights)
    if places.borders is None and placed:
        places.borders = borders_from_types([height for _, height in placed], [row["lesion_type"] for row, _ in placed])
    for one in series.scorable:
        found = heights[one.series_id]
        places.verdicts[one.series_id] = judge(found, one.spacing_z_mm, places.usual, places.borders)
    return places, heights


def _place_lesions(
    places: _Places, lesions: Sequence[Mapping[str, Any]], heights: Mapping[str, SeriesHeights]
) -> list[tuple[Mapping[str, Any], float]]:
    """Give lesions their z; those that have one, with the model's own height."""
    placed = []
    places.lesions_found = len(lesions)
    for row in lesions:
        if row["series_id"] not in heights:
            places.lesions_left_out[SERIES_LEFT_OUT] += 1
            continue
        height = height_at(heights[row["series_id"]], row["slice_index"])
        if height is None:
            places.lesions_left_out[NO_KEY_SLICE] += 1
            continue
        placed.append((row, height))
    known = [(height, row["release_z"]) for row, height in placed if row["release_z"] is not None]
    places.fit_lesions = len(known)
    places.fit = fit_to_release([height for height, _ in known], [z for _, z in known])
    to_release = places.fit or (lambda height: height)
    places.z = {row["lesion_id"]: to_release(height) for row, height in placed}
    return placed


def _write_places(
    lake: Lake, model: HeightModel, places: _Places, series: LakeSeries, heights: Mapping[str, SeriesHeights]
) -> tuple[str, ...]:
    """Write what differs from what the lake holds; the names of the tables written."""
    lesions_version, _ = lake.shards(LESIONS.name)
    fit = places.fit
    record = {
        "model_id": model.model_id,
        "model_created_at": model.created_at,
        "height_per_mm": places.usual,
        "release_scale": fit.scale if fit else None,
        "release_offset": fit.offset if fit else None,
        "release_error": fit.error if fit else None,
        "release_lesions": places.fit_lesions,
        "chest_ends": places.borders[0] if places.borders else None,
        "pelvis_begins": places.borders[1] if places.borders else None,
        "series": len(heights),
        "lesions": len(places.z),
        "lesions_version": lesions_version,
        "created_at": datetime.now(UTC),
    }
    made = {
        SERIES_LOCATIONS.name: _series_rows(model, places, series, heights),
        LOCATIONS.name: pa.table(
            {
                "model_id": [model.model_id] * len(places.z),
                "lesion_id": list(places.z),
                "x": pa.nulls(len(places.z), pa.float64()),
                "y": pa.nulls(len(places.z), pa.float64()),
                "z": list(places.z.values()),
            },
            schema=LOCATIONS.schema,
        ),
        LOCATION_MODELS.name: pa.Table.from_pylist([record], schema=LOCATION_MODELS.schema),
    }
    changed = [name for name, rows in made.items() if not _holds(lake, name, model.model_id, rows)]
    if changed:
        # The record goes with every change: it says when and from which lesions.
        chosen = dict.fromkeys([*changed, LOCATION_MODELS.name])
        write_results(lake, model.model_id, {name: [made[name]] for name in made if name in chosen})
    return tuple(changed)


def _holds(lake: Lake, name: str, model_id: str, rows: pa.Table) -> bool:
    """Whether the lake holds these very rows of the model, apart from when they were made."""
    if not lake.has_table(name):
        return False
    columns = [column for column in rows.column_names if column != "created_at"]
    held = lake.read(name, columns=columns, where=pc.field("model_id") == model_id)
    order = [(column, "ascending") for column in RESULT_TABLES[name].key]
    same: bool = held.sort_by(order).to_pylist() == rows.select(columns).sort_by(order).to_pylist()
    return same


def _series_rows(
    model: HeightModel, places: _Places, series: LakeSeries, heights: Mapping[str, SeriesHeights]
) -> pa.Table:
    rows = []
    for one in series.scorable:
        verdicts = places.verdicts[one.series_id]
        rows.append(
            {
                "model_id": model.model_id,
                "series_id": one.series_id,
                "slices": len(heights[one.series_id].heights),
                "stated_interval_mm": one.spacing_z_mm,
                **{name: getattr(verdicts, name) for name in Verdicts.__dataclass_fields__},
            }
        )
    return pa.Table.from_pylist(rows, schema=SERIES_LOCATIONS.schema)


def _summary(
    model: HeightModel,
    series: LakeSeries,
    todo: Sequence[SeriesSlices],
    places: _Places,
    heights: Mapping[str, SeriesHeights],
    written: tuple[str, ...],
    seconds: float,
) -> LocateSummary:
    reversals = Counter(one.reversed for one in places.verdicts.values())
    intervals = Counter(one.wrong_interval for one in places.verdicts.values())
    return LocateSummary(
        model_id=model.model_id,
        series_found=series.found,
        series_scored=len(todo),
        series_kept=len(heights) - len(todo),
        series_left_out=series.left_out,
        slices_scored=sum(len(one.slice_indices) for one in todo),
        series_in_order=reversals[False],
        series_reversed=reversals[True],
        series_order_unknown=reversals[None],
        intervals_right=intervals[False],
        intervals_wrong=intervals[True],
        intervals_unknown=intervals[None],
        lesions_found=places.lesions_found,
        lesions_placed=len(places.z),
        lesions_left_out=dict(sorted(places.lesions_left_out.items())),
        release_fit=places.fit,
        release_lesions=places.fit_lesions,
        tables_written=written,
        seconds=seconds,
    )
