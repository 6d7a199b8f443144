"""Patches: what the trainers see of a lesion, cut from the lake's slices once and kept as a cache.

Tasks are runs of whole series, so that a slice is read once however many lesions lie on it; each writes one part, its
rows ordered by side and lesion. What a part holds follows from the recipe and the lake's versions alone, whoever
makes it on however many workers. Every lesion ends as a patch or is counted by the reason why not.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.patch_cutting import (
    LESION_COLUMNS,
    LeftOut,
    PatchSettings,
    PlannedPatch,
    cut_all,
    plan_patch,
    read_rows,
    read_series,
)
from etl.running import RunnerChoice, always_here
from lesionary.caches import Cache, CachePart, CacheWriter, drop_old_caches, find_cache, list_caches, write_part
from lesionary.lake import Lake
from lesionary.patch_schema import BUCKETS, PATCH_KIND, PATCHES, PIXEL_MM, SLICE_STEP_MM, SLICES_PER_PATCH
from lesionary.slices import SliceReader

# Raised when the same recipe and lake would give other patches than before.
_FORMAT = 1

# Lesions of one task and part: some 40 MB of patches.
_LESIONS_PER_PART = 256

_SOURCES = ("lesions", "series", "slices")

Progress = Callable[[int, int], None]
"""Called with lesions done and lesions to do."""


def make_patches(
    lake: Lake,
    settings: PatchSettings | None = None,
    *,
    located: Mapping[str, float] | None = None,
    choose_runner: RunnerChoice = always_here,
    progress: Progress | None = None,
    drop_old: bool = True,
) -> Cache:
    """The cache of all lesions' patches: the one there is, or a new one.

    Args:
        lake: whose.
        settings: how much a patch shows.
        located: lesion to its height in the body, 0 to 1, where its source does not say.
        choose_runner: what runs the tasks.
        progress: told after every task.
        drop_old: remove caches of patches made from other versions of the lake.

    Returns:
        The cache; its counts are `lesions`, `patches`, `cut` (patches that show less than box and context) and
        `left_out` by reason: patches and left out are the lesions.
    """
    settings = settings or PatchSettings()
    recipe = _recipe(settings, located)
    # In this order: the lesions of an older version have their series and slices in newer ones.
    versions = {name: lake.shards(name)[0] for name in _SOURCES}
    found = find_cache(lake, PATCH_KIND, recipe, versions)
    if found is None:
        with CacheWriter(lake, PATCH_KIND, recipe, versions, PATCHES) as writer:
            tasks = _tasks(lake, settings, versions, writer.url, located or {})
            runner, _ = choose_runner(_bytes_to_read(lake, tasks, versions))
            outcomes = _collected(writer, runner(tasks), sum(task.lesions for task in tasks), progress)
            found = writer.finish(outcomes)
    if drop_old:
        drop_old_caches(lake, PATCH_KIND, keep=found.url)
    return found


def find_patches(lake: Lake, settings: PatchSettings | None = None) -> Cache | None:
    """A finished cache of the lake as it is now, whatever heights it was made with: for who looks at pixels only."""
    versions = {name: lake.shards(name)[0] for name in _SOURCES}
    wanted = _recipe(settings or PatchSettings(), None) | {"located": None}
    for cache in list_caches(lake, PATCH_KIND):
        recipe = cache.record.get("recipe")
        if isinstance(recipe, dict) and recipe | {"located": None} == wanted and cache.record["versions"] == versions:
            return cache
    return None


@dataclass(frozen=True, slots=True)
class PatchTask:
    """One worker's share: the lesions of some whole series, one part of the cache."""

    number: int
    lake_url: str
    cache_url: str
    versions: Mapping[str, int]
    settings: PatchSettings
    series_ids: tuple[str, ...]
    lesions: int
    located: Mapping[str, float]

    def run(self) -> "PatchResult":
        """Cut the task's patches and write its part."""
        lake = Lake.open(self.lake_url)
        rows = read_rows(lake, "lesions", self.series_ids, LESION_COLUMNS, self.versions).to_pylist()
        series = read_series(lake, self.series_ids, self.versions)
        planned: list[tuple[dict[str, Any], PlannedPatch]] = []
        left_out: Counter[str] = Counter()
        for row in rows:
            plan = plan_patch(row, series[row["series_id"]], self.settings)
            if isinstance(plan, LeftOut):
                left_out[plan.value] += 1
            else:
                planned.append((row, plan))
        planned.sort(key=lambda one: (one[1].frame.side, one[0]["lesion_id"]))
        with SliceReader(lake, self.versions["slices"]) as reader:
            pixels = cut_all(reader, planned, series)
        part = write_part(self.cache_url, self.number, patch_table(planned, pixels, self.located))
        return PatchResult(part, sum(not plan.frame.whole for _, plan in planned), left_out)


@dataclass(frozen=True, slots=True)
class PatchResult:
    """What a worker brings back."""

    part: CachePart
    cut: int
    left_out: Mapping[str, int]


def patch_table(
    planned: Sequence[tuple[Mapping[str, Any], PlannedPatch]], pixels: pa.Array, located: Mapping[str, float]
) -> pa.Table:
    """Rows of table lesions and their patches' pixels as `PATCHES`."""
    rows = [row for row, _ in planned]
    frames = [plan.frame for _, plan in planned]
    columns: dict[str, Sequence[object]] = {
        **{name: [row[name] for row in rows] for name in ("lesion_id", "patient_id", "study_id", "lesion_type")},
        **{name: [row[name] for row in rows] for name in ("split", "long_mm", "short_mm")},
        "x": [_first(row["release_x"], row["body_x"]) for row in rows],
        "y": [_first(row["release_y"], row["body_y"]) for row in rows],
        "z": [_first(row["release_z"], located.get(row["lesion_id"])) for row in rows],
        "side": [frame.side for frame in frames],
        "box": [frame.box for frame in frames],
        "extent": [frame.extent for frame in frames],
    }
    arrays = [pixels if field.name == "pixels" else pa.array(columns[field.name], field.type) for field in PATCHES]
    return pa.Table.from_arrays(arrays, schema=PATCHES)


def _first(one: float | None, other: float | None) -> float | None:
    return other if one is None else one


def _tasks(
    lake: Lake, settings: PatchSettings, versions: Mapping[str, int], url: str, located: Mapping[str, float]
) -> list[PatchTask]:
    """Neighbouring series in tasks of about `_LESIONS_PER_PART` lesions, none above unless a single series is."""
    names = lake.read("lesions", version=versions["lesions"], columns=("series_id", "lesion_id"))
    groups: list[list[str]] = []
    counts: list[int] = []
    for entry in sorted(pc.value_counts(names["series_id"]).to_pylist(), key=lambda one: str(one["values"])):
        if not groups or counts[-1] + entry["counts"] > _LESIONS_PER_PART:
            groups.append([])
            counts.append(0)
        groups[-1].append(entry["values"])
        counts[-1] += entry["counts"]
    heights: dict[str, dict[str, float]] = {}
    if located:
        for series_id, lesion_id in zip(names["series_id"].to_pylist(), names["lesion_id"].to_pylist(), strict=True):
            if lesion_id in located:
                heights.setdefault(series_id, {})[lesion_id] = located[lesion_id]
    return [
        PatchTask(
            number=number,
            lake_url=lake.url,
            cache_url=url,
            versions=versions,
            settings=settings,
            series_ids=tuple(group),
            lesions=count,
            located={name: z for series_id in group for name, z in heights.get(series_id, {}).items()},
        )
        for number, (group, count) in enumerate(zip(groups, counts, strict=True))
    ]


def _collected(
    writer: CacheWriter, results: Iterable[PatchResult], total: int, progress: Progress | None
) -> dict[str, object]:
    """Hand finished parts to the writer; counts over all of them."""
    left_out: Counter[str] = Counter()
    patches, cut = 0, 0
    for result in results:
        writer.add(result.part)
        patches += result.part.rows
        cut += result.cut
        left_out.update(result.left_out)
        if progress:
            progress(patches + left_out.total(), total)
    return {"lesions": total, "patches": patches, "cut": cut, "left_out": dict(sorted(left_out.items()))}


def _recipe(settings: PatchSettings, located: Mapping[str, float] | None) -> dict[str, object]:
    """All that patches follow from, but the lake."""
    heights = _digest(located) if located else None
    return {
        **asdict(settings),
        "format": _FORMAT,
        "pixel_mm": PIXEL_MM,
        "buckets": list(BUCKETS),
        "slice_step_mm": SLICE_STEP_MM,
        "lesions_per_part": _LESIONS_PER_PART,
        "located": heights,
    }


def _bytes_to_read(lake: Lake, tasks: Sequence[PatchTask], versions: Mapping[str, int]) -> int:
    """About how many bytes of slices the tasks need."""
    _, shards = lake.shards("slices", versions["slices"])
    per_slice = sum(shard.bytes for shard in shards) / max(1, sum(shard.rows for shard in shards))
    return int(per_slice * SLICES_PER_PATCH * sum(task.lesions for task in tasks))


def _digest(located: Mapping[str, float]) -> str:
    text = "\n".join(f"{name}={float(z)!r}" for name, z in sorted(located.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
