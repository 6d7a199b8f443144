"""One shard: a Parquet file of one table, written whole, named by its own digest, described for the Delta log.

The digest in the name makes a shard self-checking and its name unique for ever. Whoever reads a part of one does not
digest all of it: pages carry checksums, and the name carries one of the footer, which has none of its own. Slices are
stored without Parquet compression (their pixels are blosc2 frames already) in row groups of `SLICES_PER_ROW_GROUP`, so
that one slice is one short read; every other table is zstd-compressed.
"""

import hashlib
import io
import json
import os
import re
import secrets
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lesionary.columns import Table
from lesionary.errors import InternalError
from lesionary.locations import Location
from lesionary.object_stores import upload_file

# Reading a slice maps its row group and decodes one value: 2, 4 and 8 read alike, 1 is slower and doubles the footer,
# and the fewer groups the less there is to write.
SLICES_PER_ROW_GROUP = 8
_DEFAULT_ROWS_PER_GROUP = 64_000
_ENCODED_COLUMNS = frozenset({"pixels"})
DIGEST_DIGITS = 32
_FOOTER_IN_NAME = re.compile(r"-f([0-9a-f]{8})-[0-9a-f]{32}\.parquet$")
# A Parquet file ends with the length of its footer and a magic word.
_FOOTER_END = struct.Struct("<I4s")


@dataclass(frozen=True, slots=True)
class Shard:
    """A Parquet file of a table; `path` is relative to the table's folder."""

    path: str
    bytes: int
    rows: int
    low_unit: str
    """Smallest and largest value of the table's unit column: tells which shards cannot hold a unit."""
    high_unit: str

    def delta_statistics(self, unit_column: str) -> str:
        """Statistics in the Delta log's own form, for the unit column only."""
        return json.dumps(
            {
                "numRecords": self.rows,
                "minValues": {unit_column: self.low_unit},
                "maxValues": {unit_column: self.high_unit},
                "nullCount": {unit_column: 0},
            }
        )


class _DigestingFile(io.RawIOBase):
    """A binary file that digests what passes through it; Parquet writers never seek backwards."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("wb")
        self._digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | memoryview | pa.Buffer") -> int:
        self._digest.update(data)
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def finish(self) -> str:
        """Close the file; the digest of everything written."""
        self._file.close()
        return self._digest.hexdigest()

    def close(self) -> None:
        self._file.close()
        super().close()


class ShardWriter:
    """Writes one shard of one table; `finish` publishes it under its final name.

    Local lakes get the file by rename inside the table's folder; object stores by one upload from `scratch`.
    A writer that is left without `finish` (an exception, a killed worker) leaves nothing a reader could see. The bytes
    reach the disk itself before a commit names them (`make_durable`), not while the worker waits.
    """

    def __init__(self, table: Table, folder: Location, prefix: str, scratch: Path) -> None:
        self._table = table
        self._folder = folder
        self._prefix = prefix
        parent = Path(folder.path) if folder.is_local else scratch
        parent.mkdir(parents=True, exist_ok=True)
        self._temporary = parent / f".{prefix}-{secrets.token_hex(4)}.part"
        self._file = _DigestingFile(self._temporary)
        self._writer = pq.ParquetWriter(self._file, table.schema, **_parquet_options(table))
        self._rows = 0
        self._low: str | None = None
        self._high: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self._writer.close()
            self._file.close()
        self._temporary.unlink(missing_ok=True)

    @property
    def rows(self) -> int:
        """Rows written so far."""
        return self._rows

    def write(self, rows: pa.Table) -> None:
        """Append rows as row groups of their own.

        Raises:
            InternalError: the rows' columns are not the table's.
        """
        if rows.num_rows == 0:
            return
        if rows.column_names != list(self._table.column_names):
            raise InternalError(f"rows for table {self._table.name} have other columns than its schema")
        bounds = pc.min_max(rows[self._table.unit_column]).as_py()
        self._low = bounds["min"] if self._low is None else min(self._low, bounds["min"])
        self._high = bounds["max"] if self._high is None else max(self._high, bounds["max"])
        self._writer.write_table(rows, row_group_size=rows_per_group(self._table))
        self._rows += rows.num_rows

    def finish(self) -> Shard | None:
        """Publish the shard; None when no row was written."""
        self._writer.close()
        digest = self._file.finish()
        if self._low is None or self._high is None:
            return None
        size = self._temporary.stat().st_size
        with self._temporary.open("rb") as file:
            name = f"{self._prefix}-f{_footer_checksum(file):08x}-{digest[:DIGEST_DIGITS]}.parquet"
        if self._folder.is_local:
            self._temporary.replace(Path(self._folder.path) / name)
        else:
            upload_file(self._temporary, self._folder.filesystem, self._folder.join(name))
        return Shard(name, size, self._rows, self._low, self._high)


def make_durable(folder: Location, shards: Sequence[Shard]) -> None:
    """Wait until shards of a local lake are on disk, their names included; object stores do that on upload."""
    if not folder.is_local or not shards:
        return
    for path in (*(Path(folder.path, shard.path) for shard in shards), Path(folder.path)):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def rows_per_group(table: Table) -> int:
    """How many rows of a table share a row group."""
    return SLICES_PER_ROW_GROUP if _is_heavy(table) else _DEFAULT_ROWS_PER_GROUP


def digest_in_name(path: str) -> str:
    """The digest a shard's name carries."""
    return path.removesuffix(".parquet").rsplit("-", 1)[-1]


def footer_is_whole(path: Path) -> bool:
    """Whether a local shard's footer is what was written; shards of older releases do not say.

    Raises:
        OSError: the file cannot be read.
    """
    stated = _FOOTER_IN_NAME.search(path.name)
    if stated is None:
        return True
    with path.open("rb") as file:
        return _footer_checksum(file) == int(stated[1], 16)


def _footer_checksum(file: BinaryIO) -> int:
    """CRC-32 of a Parquet file's end: footer, its length, magic; of nothing where there cannot be one."""
    size = file.seek(0, os.SEEK_END)
    if size < _FOOTER_END.size:
        return 0
    file.seek(size - _FOOTER_END.size)
    (length,) = _FOOTER_END.unpack(file.read(_FOOTER_END.size))[:1]
    file.seek(max(0, size - _FOOTER_END.size - length))
    return zlib.crc32(file.read())


def _parquet_options(table: Table) -> Mapping[str, object]:
    """How a table is stored; the Arrow schema goes along because Parquet alone would lose fixed-size lists."""
    # Whoever reads a page finds out that it is damaged, without digesting the whole shard first.
    always = {"write_statistics": list(table.key), "write_page_checksum": True}
    if _is_heavy(table):
        # Pixels are compressed already, and compressing eight rows of the rest costs more than it saves.
        return always | {"compression": "NONE", "use_dictionary": False}
    identifiers = [name for name in table.column_names if name.endswith("_id")]
    return always | {"compression": "ZSTD", "use_dictionary": identifiers}


def _is_heavy(table: Table) -> bool:
    return not _ENCODED_COLUMNS.isdisjoint(table.column_names)
