"""Reading single slices out of the lake at the speed of the codec.

A reader keeps the snapshot it was made with: commits made later do not disturb it. It learns where a series' slices
lie the first time it is asked for one (two small columns of one shard), then each slice is one short read of its
row group and one decode. The last row group is kept, some 2 MB: neighbours, which are read together, lie in it. Make
one reader per process or thread; it pickles as its lake's URL.
"""

import bisect
from collections import OrderedDict
from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lesionary.errors import ArtifactError, LakeError
from lesionary.lake import Lake
from lesionary.pixels import decode_slice
from lesionary.remote_files import open_remote
from lesionary.shards import Shard
from lesionary.table_shards import damaged_shard, prove_footer

# Open shards: each holds a file descriptor and its footer (about 1 kB a slice).
_MAX_OPEN_SHARDS = 32


class SlicePlace(NamedTuple):
    """Where a slice lies in the lake."""

    shard: str
    row_group: int
    row: int


class SliceReader:
    """Random access to a lake's slices."""

    def __init__(self, lake: Lake, version: int | None = None) -> None:
        """Open the slices of a version of the table, the newest when None."""
        self._lake = lake
        self._version = version
        _, self._shards = lake.shards("slices", version)
        self._low_units = [shard.low_unit for shard in self._shards]
        self._folder = lake.table_folder("slices")
        self._places: dict[str, dict[int, SlicePlace]] = {}
        self._indexed: set[str] = set()
        self._open: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._last: tuple[tuple[str, int], pa.ChunkedArray] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Self], tuple[Lake, int | None]]:
        """Open files do not travel: the copy reads the lake's newest version again, unless one was asked for."""
        return type(self), (self._lake, self._version)

    def slice_indices(self, series_id: str) -> list[int]:
        """The numbers of a series' slices in the lake, ascending; empty when it has none."""
        return sorted(self._series(series_id))

    def read(self, series_id: str, slice_index: int) -> NDArray[np.int16]:
        """One slice as (rows, columns) int16 HU.

        Raises:
            LakeError: the lake holds no such slice, or its shard is missing or damaged.
        """
        place = self.place(series_id, slice_index)
        try:
            return decode_slice(self._group(place.shard, place.row_group)[place.row].as_buffer())
        except (OSError, pa.ArrowException, ArtifactError) as cause:
            raise damaged_shard(self._lake.url, "slices", place.shard) from cause

    def place(self, series_id: str, slice_index: int) -> SlicePlace:
        """Where a slice lies: its shard, row group, and row within that.

        Raises:
            LakeError: the lake holds no such slice.
        """
        place = self._series(series_id).get(slice_index)
        if place is None:
            raise LakeError(
                f"there is no slice {slice_index} of series {series_id}",
                where=self._lake.url,
                next_step="the slices it has: SELECT slice_index FROM slices WHERE series_id = …",
            )
        return place

    def close(self) -> None:
        """Close every shard held open."""
        self._last = None
        while self._open:
            self._open.popitem()[1].close()

    def _group(self, shard: str, number: int) -> pa.ChunkedArray:
        """The encoded slices of one row group."""
        if self._last is None or self._last[0] != (shard, number):
            table = self._file(shard).read_row_group(number, columns=["pixels"], use_threads=False)
            self._last = (shard, number), table.column(0)
        return self._last[1]

    def _series(self, series_id: str) -> dict[int, SlicePlace]:
        if series_id not in self._places:
            # Shards are ordered by their lowest unit: none after this point can hold the series.
            last = bisect.bisect_right(self._low_units, series_id)
            for shard in self._shards[:last]:
                if shard.high_unit >= series_id and shard.path not in self._indexed:
                    self._index(shard)
        return self._places.get(series_id, {})

    def _index(self, shard: Shard) -> None:
        try:
            file = self._file(shard.path)
            # With checksums, which would cost more than reading for pixels: these carry their own.
            with self._opened(shard.path, file.metadata) as proving:
                keys = proving.read(columns=["series_id", "slice_index"], use_threads=False)
        except (OSError, pa.ArrowException) as cause:
            raise damaged_shard(self._lake.url, "slices", shard.path) from cause
        groups = [file.metadata.row_group(number).num_rows for number in range(file.metadata.num_row_groups)]
        places = (SlicePlace(shard.path, group, row) for group, rows in enumerate(groups) for row in range(rows))
        series, indices = keys["series_id"].to_pylist(), keys["slice_index"].to_pylist()
        for place, name, index in zip(places, series, indices, strict=True):
            self._places.setdefault(name, {})[index] = place
        self._indexed.add(shard.path)

    def _file(self, path: str) -> pq.ParquetFile:
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        while len(self._open) >= _MAX_OPEN_SHARDS:
            self._open.popitem(last=False)[1].close()
        prove_footer(self._folder, self._lake.url, "slices", path)
        self._open[path] = self._opened(path)
        return self._open[path]

    def _opened(self, path: str, proved: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """A shard's file; with a footer that was read before, pages are checked as they are read."""
        full = self._folder.join(path)
        # Local shards are mapped: a row group is then read without a system call per column.
        source = full if self._folder.is_local else open_remote(self._folder.filesystem, full)
        return pq.ParquetFile(
            source,
            metadata=proved,
            memory_map=self._folder.is_local,
            pre_buffer=False,
            page_checksum_verification=proved is not None,
        )
