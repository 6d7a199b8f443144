"""Volumes as training sees them: slices of a mapped cache, read where they lie.

The cache is made by `etl/volumes.py`: rows sorted by series and slice, from head to foot, pixels as flat int16 lists.
"""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lesionary.caches import open_cache
from lesionary.errors import ArtifactError

_COLUMNS = ("series_id", "patient_id", "slice_index", "split", "pixels")


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """One series of the cache."""

    series_id: str
    patient_id: str
    split: str
    first_row: int
    count: int


class VolumeSource:
    """A cache of volumes. Nothing is copied but the slices that are asked for."""

    def __init__(self, table: pa.Table, where: str = "cache of volumes") -> None:
        missing = [name for name in _COLUMNS if name not in table.column_names]
        if missing:
            raise ArtifactError(
                f"it has no column {missing[0]}", where=where, next_step="make it again: it is not one of volumes"
            )
        kind = table.schema.field("pixels").type
        side = math.isqrt(kind.list_size) if pa.types.is_fixed_size_list(kind) else 0
        if not side or side * side != kind.list_size or kind.value_type != pa.int16():
            raise ArtifactError("its pixels are not square int16 images", where=where, next_step="make it again")
        self.side = side
        self._chunks = [
            chunk.flatten().to_numpy(zero_copy_only=True).reshape(-1, side, side)
            for chunk in table["pixels"].chunks
            if len(chunk)
        ]
        self._starts = np.cumsum([0, *(len(chunk) for chunk in self._chunks)])
        self._indices = table["slice_index"].to_numpy()
        self.volumes = _volumes(table)

    @classmethod
    def open(cls, url: str, local_copy: Path | None = None) -> Self:
        """The volumes of a finished cache.

        Raises:
            ArtifactError: it is not there, unfinished, damaged, or not one of volumes.
        """
        return cls(open_cache(url, local_copy), where=f"cache {url.rstrip('/').rsplit('/', 1)[-1]}")

    def __len__(self) -> int:
        return len(self.volumes)

    def of_split(self, split: str) -> NDArray[np.int64]:
        """Numbers of the volumes of train, val or test."""
        return np.array([number for number, one in enumerate(self.volumes) if one.split == split], np.int64)

    def slices(self, number: int, places: NDArray[np.int64]) -> NDArray[np.int16]:
        """A copy of some slices of a volume, (n, side, side) int16 HU; places count from 0 at the head's end."""
        rows = self.volumes[number].first_row + places
        chunks = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.empty((len(rows), self.side, self.side), np.int16)
        for at, (row, chunk) in enumerate(zip(rows.tolist(), chunks.tolist(), strict=True)):
            found[at] = self._chunks[chunk][row - self._starts[chunk]]
        return found

    def slice_indices(self, number: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The lake's numbers of some slices of a volume."""
        first = self.volumes[number].first_row
        indices: NDArray[np.int64] = self._indices[first + places].astype(np.int64)
        return indices

    def counts(self) -> dict[str, object]:
        """What is in it, for a model's card."""
        by_split = Counter(one.split for one in self.volumes)
        return {
            "volumes": len(self.volumes),
            "patients": len({one.patient_id for one in self.volumes}),
            "slices": sum(one.count for one in self.volumes),
            "volumes_by_split": dict(sorted(by_split.items())),
            "side_px": self.side,
        }


def spread_places(count: int, most: int) -> NDArray[np.int64]:
    """At most `most` of `count` places, equally far apart, from the first on."""
    return np.arange(0, count, max(1, math.ceil(count / most)), dtype=np.int64)


def _volumes(table: pa.Table) -> tuple[StoredVolume, ...]:
    if table.num_rows == 0:
        return ()
    names = table["series_id"].to_numpy()
    firsts = np.concatenate([[0], np.flatnonzero(names[1:] != names[:-1]) + 1])
    counts = np.diff(firsts, append=table.num_rows)
    taken = table.select(["series_id", "patient_id", "split"]).take(pa.array(firsts)).to_pylist()
    return tuple(
        StoredVolume(row["series_id"], row["patient_id"], row["split"], int(first), int(count))
        for row, first, count in zip(taken, firsts, counts, strict=True)
    )
