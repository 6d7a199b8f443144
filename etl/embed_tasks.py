"""A worker's share of embedding: patches out of a cache or cut on the spot, and the model's vectors of them as rows.

What travels to a worker is where patches lie, never their pixels; what comes back are a vector and two names a lesion.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.patch_cutting import LESION_COLUMNS, LeftOut, PatchSettings, PlannedPatch, cut_all, plan_patch, read_rows
from etl.patch_cutting import read_series as read_series_of
from etl.patches import patch_table
from lesionary.caches import Cache, open_part, part_names
from lesionary.lake import Lake
from lesionary.patch_schema import PATCHES
from lesionary.schema import EMBEDDINGS
from lesionary.slices import SliceReader

Embedder = Callable[[pa.Table], NDArray[np.float32]]
"""Patches to vectors, row by row."""

# Patches cut before the model sees them: some 40 MB.
_CUT_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Wanted:
    """Lesions that are to get vectors."""

    sources: Mapping[str, str]
    """Lesion to the ingest_id of its row, which its vector is made from."""
    series: Mapping[str, str]
    """Lesion to its series."""


@dataclass(frozen=True, slots=True)
class EmbedResult:
    """What a worker brings back."""

    rows: pa.Table
    """Of table embeddings."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """Lesions without a patch, by reason."""


@dataclass(frozen=True, slots=True)
class CachedPatches:
    """A task: patches of some parts of a cache; an `InferenceTask`."""

    set_id: str
    cache_url: str
    parts: tuple[tuple[str, tuple[int, ...] | None], ...]
    """Name of the part, and its rows; None = all of them."""
    sources: Mapping[str, str]

    def run(self, model: Embedder) -> EmbedResult:
        """Ask the model part by part.

        Raises:
            ArtifactError: the cache is damaged.
        """
        tables = []
        for name, rows in self.parts:
            patches = open_part(self.cache_url, name)
            # Whole parts stay where they are mapped; rows are copied out.
            chosen = patches if rows is None else patches.take(pa.array(rows, pa.int64()))
            tables.append(_rows(self.set_id, chosen["lesion_id"], model(chosen), self.sources))
        return EmbedResult(pa.concat_tables(tables))


@dataclass(frozen=True, slots=True)
class CutPatches:
    """A task: patches of some lesions, cut from the lake's slices on the spot; an `InferenceTask`."""

    set_id: str
    lake_url: str
    versions: Mapping[str, int]
    settings: PatchSettings
    series_ids: tuple[str, ...]
    sources: Mapping[str, str]

    def run(self, model: Embedder) -> EmbedResult:
        """Cut, and ask the model.

        Raises:
            LakeError: a slice cannot be read.
        """
        lake = Lake.open(self.lake_url)
        wanted = pa.array(list(self.sources), pa.string())
        lesions = read_rows(lake, "lesions", self.series_ids, LESION_COLUMNS, self.versions)
        lesions = lesions.filter(pc.is_in(lesions["lesion_id"], value_set=wanted))
        return cut_and_ask(lake, model, self.set_id, lesions.to_pylist(), self.sources, self.versions, self.settings)


def cut_and_ask(
    lake: Lake,
    model: Embedder,
    set_id: str,
    lesions: Sequence[dict[str, Any]],
    sources: Mapping[str, str],
    versions: Mapping[str, int],
    settings: PatchSettings,
) -> EmbedResult:
    """Vectors of some lesions, whose patches are cut for it.

    Args:
        lake: whose slices.
        model: makes vectors.
        set_id: the feature set.
        lesions: their rows, with the columns of `LESION_COLUMNS`.
        sources: lesion to what its vector is said to be made from.
        versions: of tables series and slices.
        settings: how much a patch shows.

    Raises:
        LakeError: a slice cannot be read.
    """
    series = read_series_of(lake, sorted({row["series_id"] for row in lesions}), versions) if lesions else {}
    planned: list[tuple[dict[str, Any], PlannedPatch]] = []
    left_out: Counter[str] = Counter()
    for row in sorted(lesions, key=lambda row: (row["series_id"], row["slice_index"])):
        plan = plan_patch(row, series[row["series_id"]], settings)
        if isinstance(plan, LeftOut):
            left_out[plan.value] += 1
        else:
            planned.append((row, plan))
    tables = [EMBEDDINGS.schema.empty_table()]
    with SliceReader(lake, versions["slices"]) as reader:
        for start in range(0, len(planned), _CUT_AT_ONCE):
            part = planned[start : start + _CUT_AT_ONCE]
            patches = patch_table(part, cut_all(reader, part, series), {})
            tables.append(_rows(set_id, patches["lesion_id"], model(patches), sources))
    return EmbedResult(pa.concat_tables(tables), left_out)


def cached_tasks(cache: Cache, set_id: str, wanted: Wanted, patches_per_task: int) -> list[CachedPatches]:
    """The wanted lesions that a cache has patches of, in tasks of about so many, parts kept together."""
    groups: list[list[tuple[str, tuple[int, ...] | None]]] = []
    names: list[list[str]] = []
    for part, count in part_names(cache):
        lesion_ids = open_part(cache.url, part, ["lesion_id"])["lesion_id"].to_pylist()
        rows = [row for row, lesion_id in enumerate(lesion_ids) if lesion_id in wanted.sources]
        for start in range(0, len(rows), patches_per_task):
            some = rows[start : start + patches_per_task]
            if not groups or len(names[-1]) + len(some) > patches_per_task:
                groups.append([])
                names.append([])
            groups[-1].append((part, None if len(some) == count else tuple(some)))
            names[-1] += [lesion_ids[row] for row in some]
    return [
        CachedPatches(set_id, cache.url, tuple(parts), {name: wanted.sources[name] for name in some})
        for parts, some in zip(groups, names, strict=True)
    ]


def cut_tasks(
    lake: Lake,
    set_id: str,
    wanted: Wanted,
    settings: PatchSettings,
    versions: Mapping[str, int],
    patches_per_task: int,
) -> list[CutPatches]:
    """The wanted lesions by whole series, in tasks of about so many lesions."""
    by_series: dict[str, list[str]] = {}
    for lesion_id in wanted.sources:
        by_series.setdefault(wanted.series[lesion_id], []).append(lesion_id)
    groups: list[list[str]] = []
    counts: list[int] = []
    for series_id in sorted(by_series):
        if not groups or counts[-1] + len(by_series[series_id]) > patches_per_task:
            groups.append([])
            counts.append(0)
        groups[-1].append(series_id)
        counts[-1] += len(by_series[series_id])
    return [
        CutPatches(
            set_id, lake.url, versions, settings, tuple(group),
            {name: wanted.sources[name] for series_id in group for name in by_series[series_id]},
        )
        for group in groups
    ]  # fmt: skip


def one_patch(pixels: NDArray[np.int16], box: Sequence[float], extent: Sequence[float], name: str) -> pa.Table:
    """A single patch as a model takes it; of a lesion that no lake knows."""
    row = {
        "lesion_id": name, "patient_id": "", "study_id": "", "side": pixels.shape[1], "box": list(box),
        "extent": list(extent), "pixels": pixels.astype("<i2").tobytes(),
    }  # fmt: skip
    return pa.Table.from_pylist([row], schema=PATCHES)


def _rows(
    set_id: str, lesion_ids: pa.ChunkedArray, vectors: NDArray[np.float32], sources: Mapping[str, str]
) -> pa.Table:
    names = lesion_ids.to_pylist()
    count, dimension = vectors.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * dimension)
    columns = [
        pa.array([set_id] * count, pa.string()),
        pa.array(names, pa.string()),
        pa.ListArray.from_arrays(offsets, pa.array(vectors.reshape(-1))),
        pa.array([sources[name] for name in names], pa.string()),
    ]
    return pa.Table.from_arrays(columns, schema=EMBEDDINGS.schema)
