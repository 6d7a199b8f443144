"""Whole series as stacks of small images: what the body-part regression is trained on, kept as a cache of the lake.

Every slice is shrunk by area averaging and stays int16 HU. Rows are sorted by series and slice; within a series the
slices run from head to foot, because the lake orders them so: a release counts its slices downwards, and the slices
of a PACS series are sorted along their normal. Series whose geometry is odd, or that show too little of the body, are
left out and counted by reason.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.running import RunnerChoice, always_here
from lesionary.caches import Cache, CachePart, CacheWriter, find_cache, write_part
from lesionary.errors import LakeError, UsageError
from lesionary.lake import Lake
from lesionary.pixels import MAX_SIDE_PX
from lesionary.settings import require_ranges
from lesionary.slices import SliceReader
from lesionary.splits import split_of_patient

KIND = "volumes"

# Raised when the same settings would give other rows.
_RECIPE_VERSION = 1

# What surrounds the field of view in a CT image.
_AIR_HU = -1024

# About 32 MB of pixels at 128 px: many tasks for many workers, few files.
_ROWS_PER_PART = 1024

_SOURCE_TABLES = ("series", "slices", "lesions")
_SERIES_COLUMNS = (
    "series_id", "patient_id", "spacing_z_mm", "axial", "tilt_deg", "single_position", "has_gaps", "doubled_positions",
)  # fmt: skip

Progress = Callable[[int, int], None]
"""Called with slices done and slices to do."""


@dataclass(frozen=True, slots=True)
class VolumeSettings:
    """Which series serve as volumes, and how small their slices become."""

    side: int = 128
    """Rows and columns of the shrunk slices, px."""
    min_slices: int = 24
    """Shorter series are left out."""
    min_extent_mm: float = 120.0
    """Series that reach less far along the body are left out, where their interval is known."""
    max_slices: int = 256
    """Of longer series every second, third, … slice is taken, so that no more than this are left."""
    max_tilt_deg: float = 1.0
    """Series taken with the gantry tilted further are left out."""

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        require_ranges(
            self,
            ("side", 16, 1024),
            ("min_slices", 2, 100_000),
            ("min_extent_mm", 0.0, 2_000.0),
            ("max_slices", 2, 100_000),
            ("max_tilt_deg", 0.0, 45.0),
        )
        if self.max_slices < self.min_slices:
            raise UsageError(f"max_slices ({self.max_slices}) is below min_slices ({self.min_slices})")


@dataclass(frozen=True, slots=True)
class Volume:
    """One series that serves as a volume, and which of its slices are taken."""

    series_id: str
    patient_id: str
    split: str
    slice_indices: tuple[int, ...]
    z_mm: tuple[float | None, ...]
    spacing_z_mm: float | None
    """Between neighbouring slices taken; None when unknown."""


@dataclass(frozen=True, slots=True)
class VolumeTask:
    """One worker's share: neighbouring volumes, one part of the cache."""

    number: int
    url: str
    lake_url: str
    side: int
    volumes: tuple[Volume, ...]

    def run(self) -> CachePart:
        """Read, shrink and write.

        Raises:
            LakeError: a slice cannot be read.
        """
        with SliceReader(Lake.open(self.lake_url)) as reader:
            tables = [_table(volume, reader, self.side) for volume in self.volumes]
        return write_part(self.url, self.number, pa.concat_tables(tables).combine_chunks())


def volume_schema(side: int) -> pa.Schema:
    """Columns of the cache. Pixels are flat lists, so that a part of n rows is one array of (n, side, side)."""
    return pa.schema(
        [
            pa.field("series_id", pa.string(), nullable=False),
            pa.field("patient_id", pa.string(), nullable=False),
            pa.field("slice_index", pa.int32(), nullable=False),
            pa.field("z_mm", pa.float64()),
            pa.field("spacing_z_mm", pa.float64()),
            pa.field("split", pa.string(), nullable=False),
            pa.field("pixels", pa.list_(pa.field("hu", pa.int16(), nullable=False), side * side), nullable=False),
        ]
    )


def make_volumes(
    lake: Lake,
    settings: VolumeSettings,
    *,
    choose_runner: RunnerChoice = always_here,
    progress: Progress | None = None,
) -> Cache:
    """The lake's volumes as a cache: found when it is there already, made otherwise.

    Its counts say how many series and slices serve, by split, and why others were left out.

    Raises:
        LakeError: no series of the lake can serve, or a slice cannot be read.
    """
    found = lake.snapshot().versions
    versions = {name: found[name] for name in _SOURCE_TABLES}
    recipe: dict[str, object] = {"recipe_version": _RECIPE_VERSION, **asdict(settings)}
    known = find_cache(lake, KIND, recipe, versions)
    if known is not None:
        return known
    volumes, left_out = choose_volumes(lake, settings, versions)
    if not volumes:
        raise LakeError(
            f"none of the lake's series can serve as a volume ({_reasons(left_out)})",
            where=lake.url,
            next_step="ingest whole series, or lower min_slices and min_extent_mm",
        )
    total = sum(len(volume.slice_indices) for volume in volumes)
    runner, _ = choose_runner(total * settings.side**2 * 2)
    with CacheWriter(lake, KIND, recipe, versions, volume_schema(settings.side)) as writer:
        done = 0
        for part in runner(_tasks(lake, writer.url, volumes, settings.side)):
            writer.add(part)
            done += part.rows
            if progress is not None:
                progress(done, total)
        splits = Counter(volume.split for volume in volumes)
        counts = {
            "volumes": len(volumes),
            "patients": len({volume.patient_id for volume in volumes}),
            "slices": total,
            "volumes_by_split": dict(sorted(splits.items())),
            "left_out": dict(sorted(left_out.items())),
        }
        return writer.finish(counts)


def choose_volumes(
    lake: Lake, settings: VolumeSettings, versions: Mapping[str, int]
) -> tuple[list[Volume], Mapping[str, int]]:
    """Series that serve as volumes, ordered by their names, and how many others were left out, by reason."""
    series = lake.read("series", version=versions["series"], columns=_SERIES_COLUMNS).sort_by("series_id")
    slices = slices_by_series(lake, versions["slices"])
    splits = published_splits(lake, versions["lesions"])
    left_out: Counter[str] = Counter()
    volumes = []
    for row in series.to_pylist():
        indices, z_mm = slices.get(row["series_id"], ((), ()))
        reason = _unfit(row, indices, z_mm, settings)
        if reason:
            left_out[reason] += 1
            continue
        step = math.ceil(len(indices) / settings.max_slices)
        spacing = row["spacing_z_mm"]
        volumes.append(
            Volume(
                series_id=row["series_id"],
                patient_id=row["patient_id"],
                split=splits.get(row["patient_id"]) or split_of_patient(row["patient_id"]),
                slice_indices=tuple(indices[::step]),
                z_mm=tuple(z_mm[::step]),
                spacing_z_mm=None if spacing is None else spacing * step,
            )
        )
    return volumes, dict(left_out)


def shrink(hu: NDArray[np.int16], side: int) -> NDArray[np.int16]:
    """A slice at `side` × `side` px, each the mean of the area it covers; what is not square is first framed by air."""
    rows, columns = hu.shape
    if rows == columns == side:
        return hu
    whole = max(rows, columns)
    if rows != columns:
        top, left = (whole - rows) // 2, (whole - columns) // 2
        square = np.full((whole, whole), _AIR_HU, np.int16)
        square[top : top + rows, left : left + columns] = hu
        hu = square
    shares = _area_shares(whole, side)
    shrunk: NDArray[np.int16] = np.rint(shares @ hu.astype(np.float32) @ shares.T).astype(np.int16)
    return shrunk


@cache
def _area_shares(size: int, side: int) -> NDArray[np.float32]:
    """(side, size): how much of each source pixel goes into each new one; rows sum to 1."""
    if not 0 < size <= MAX_SIDE_PX:
        raise UsageError(f"an image of {size} px cannot be shrunk")
    ends = np.arange(side + 1) * (size / side)
    low, high = ends[:-1, None], ends[1:, None]
    pixel = np.arange(size)[None]
    covered = np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0.0, None)
    shares: NDArray[np.float32] = (covered / covered.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _unfit(
    row: Mapping[str, object], indices: Sequence[int], z_mm: Sequence[float | None], settings: VolumeSettings
) -> str:
    """Why a series cannot serve; empty when it can."""
    if not indices:
        return "no_images"
    if row["axial"] is not True:
        return "not_axial"
    tilt = row["tilt_deg"]
    if isinstance(tilt, float) and abs(tilt) > settings.max_tilt_deg:
        return "tilted"
    if row["single_position"] or row["doubled_positions"]:
        return "several_slices_at_one_place"
    if row["has_gaps"] or indices[-1] - indices[0] + 1 != len(indices):
        return "gaps"
    if len(indices) < settings.min_slices:
        return "too_few_slices"
    extent = _extent_mm(row["spacing_z_mm"], z_mm)
    return "too_short" if extent is not None and extent < settings.min_extent_mm else ""


def _extent_mm(spacing_z_mm: object, z_mm: Sequence[float | None]) -> float | None:
    first, last = z_mm[0], z_mm[-1]
    if first is not None and last is not None:
        return abs(last - first)
    return spacing_z_mm * (len(z_mm) - 1) if isinstance(spacing_z_mm, float) else None


def slices_by_series(lake: Lake, version: int) -> dict[str, tuple[list[int], list[float | None]]]:
    """Slice numbers, ascending, and places of every series."""
    table = lake.read("slices", version=version, columns=["series_id", "slice_index", "z_mm"])
    table = table.sort_by([("series_id", "ascending"), ("slice_index", "ascending")]).combine_chunks()
    if table.num_rows == 0:
        return {}
    names = table["series_id"].to_numpy()
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1).tolist()]
    ends = [*starts[1:], table.num_rows]
    indices, z_mm = table["slice_index"].to_pylist(), table["z_mm"].to_pylist()
    return {str(names[start]): (indices[start:end], z_mm[start:end]) for start, end in zip(starts, ends, strict=True)}


def published_splits(lake: Lake, version: int) -> dict[str, str]:
    """The split of every patient whose source publishes one."""
    table = lake.read("lesions", version=version, columns=["patient_id", "split"])
    pairs = zip(table["patient_id"].to_pylist(), table["split"].to_pylist(), strict=True)
    return {patient: split for patient, split in pairs if split is not None}


def _tasks(lake: Lake, url: str, volumes: Sequence[Volume], side: int) -> Iterator[VolumeTask]:
    """Neighbouring volumes in tasks of about equal numbers of slices."""
    group: list[Volume] = []
    number = filled = 0
    for volume in volumes:
        if group and filled + len(volume.slice_indices) > _ROWS_PER_PART:
            yield VolumeTask(number, url, lake.url, side, tuple(group))
            group, filled, number = [], 0, number + 1
        group.append(volume)
        filled += len(volume.slice_indices)
    yield VolumeTask(number, url, lake.url, side, tuple(group))


def _table(volume: Volume, reader: SliceReader, side: int) -> pa.Table:
    count = len(volume.slice_indices)
    pixels = np.empty((count, side * side), np.int16)
    for row, index in enumerate(volume.slice_indices):
        pixels[row] = shrink(reader.read(volume.series_id, index), side).ravel()
    schema = volume_schema(side)
    columns = {
        "series_id": [volume.series_id] * count,
        "patient_id": [volume.patient_id] * count,
        "slice_index": volume.slice_indices,
        "z_mm": volume.z_mm,
        "spacing_z_mm": [volume.spacing_z_mm] * count,
        "split": [volume.split] * count,
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), type=schema.field("pixels").type),
    }
    return pa.table(columns, schema=schema)


def _reasons(left_out: Mapping[str, int]) -> str:
    counted = [f"{name.replace('_', ' ')} {count}" for name, count in sorted(left_out.items())]
    return ", ".join(counted) or "it has none"
