"""The lake: a folder or bucket of tables, each a set of Parquet shards under a Delta log.

    <lake>/lake.json                    what this is and which format version wrote it
    <lake>/tables/<table>/*.parquet     shards, named by their own digests
    <lake>/tables/<table>/_delta_log    which shards make up which version

Readers never see half a commit: a shard counts only once the log names it. Across tables, commits follow the order
of `schema.TABLES`, so a unit listed in `units` has all its rows in the other tables (`lesionary/commits.py`).
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError
from deltalake.schema import Field
from pyarrow import fs

from lesionary.artifacts import atomic_write_bytes
from lesionary.columns import Table
from lesionary.errors import LakeError, LesionaryError, UsageError
from lesionary.json_text import parse_json
from lesionary.locations import Location, open_location
from lesionary.object_stores import (
    delta_options,
    is_of_a_store,
    persistently,
    read_object,
    trouble,
    write_object,
)  # fmt: skip
from lesionary.schema import LAKE_FORMAT_VERSION, RESULT_TABLES, SOURCE_TABLES, TABLES
from lesionary.shards import Shard
from lesionary.table_shards import damaged_shard, live_shards, prove_footer, proving_format

MARKER_FILE = "lake.json"
_TABLES_FOLDER = "tables"

# Version of a table that nothing was written to yet.
NO_VERSION = -1

Answer = TypeVar("Answer")

# The log keeps every version until somebody vacuums: a model card may name a version years later.
_LOG_RETENTION = "interval 36500 days"


@dataclass(frozen=True, slots=True)
class LakeSnapshot:
    """Which shards make up each table, read once; later commits do not change it."""

    versions: Mapping[str, int]
    shards: Mapping[str, tuple[Shard, ...]]

    def rows(self, table: str) -> int:
        """Rows of a table."""
        return sum(shard.rows for shard in self.shards[table])


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """One version of one table."""

    table: str
    version: int
    timestamp: datetime
    operation: str
    rows_added: int
    ingest_id: str | None


class Lake:
    """An open lake. Holds no file open and no cache: any number may exist, in any number of processes."""

    def __init__(self, location: Location) -> None:
        self.location = location

    @property
    def url(self) -> str:
        """Where the lake is: a URL, or an absolute path."""
        return self.location.url

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a lake that exists.

        Raises:
            LakeError: there is none, or a newer release made it.
        """
        lake = cls(open_location(url))
        marker = lake._read_marker()
        if marker is None:
            raise LakeError(
                "there is no lake here",
                where=url,
                next_step="make one with `lesionary ingest SOURCE`, or name another with --lake",
            )
        found = marker.get("format_version")
        if found != LAKE_FORMAT_VERSION:
            raise LakeError(
                f"the lake has format {found}, this release reads {LAKE_FORMAT_VERSION}",
                where=url,
                next_step="use the release that made it",
            )
        return lake

    @classmethod
    def create(cls, url: str) -> Self:
        """Open a lake, making it first where there is none.

        Raises:
            LakeError: the place holds other things, cannot be written, or a newer release's lake.
        """
        location = open_location(url)
        lake = cls(location)
        if lake._read_marker() is None:
            lake._refuse_foreign_folder()
            for table in SOURCE_TABLES.values():
                lake._create_table(table)
            marker = {"format_version": LAKE_FORMAT_VERSION, "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
            with lake.being_written():
                lake._write_marker((json.dumps(marker) + "\n").encode())
        return cls.open(url)

    def table_folder(self, table: str) -> Location:
        """Where a table's shards lie."""
        path = self.location.join(_TABLES_FOLDER, known_table(table).name)
        url = path if self.location.is_local else f"{self.location.url.rstrip('/')}/{_TABLES_FOLDER}/{table}"
        return Location(url, self.location.filesystem, path)

    def delta(self, table: str, version: int | None = None) -> DeltaTable:
        """The Delta table itself, at a version or the newest.

        Raises:
            LakeError: the table or the version is missing or unreadable.
        """
        return self._asked(table, version, lambda: DeltaTable(self._table_url(table), version, self._options()))

    def has_table(self, table: str) -> bool:
        """Whether the table is there. Tables of the source are, in any lake; tables of results come with the first."""
        return table not in RESULT_TABLES or self._is_made(table)

    def make_table(self, table: str) -> None:
        """Make a table where the lake has none yet; one of an older release gets the columns of today."""
        declared = known_table(table)
        if not self._is_made(table):
            self._create_table(declared)
        else:
            self._add_columns(declared)

    def shards(self, table: str, version: int | None = None) -> tuple[int, tuple[Shard, ...]]:
        """A table's version and the shards that make it up; a table of results that is not there yet has none."""
        if version is None and not self.has_table(table):
            return NO_VERSION, ()
        delta = self.delta(table, version)
        # Some of what a log says is looked at only now.
        return int(delta.version()), self._asked(table, version, lambda: live_shards(delta, known_table(table)))

    def committed_at(self, table: str, version: int) -> datetime:
        """When a version of a table was committed."""
        # The log may have grown past the version that was asked for.
        entry = next(one for one in self._log(table, version) if one["version"] == version)
        return datetime.fromtimestamp(int(entry["timestamp"]) / 1000, UTC)

    def snapshot(self) -> LakeSnapshot:
        """One consistent view of all tables: whatever `units` lists is complete in the others.

        Tables are read in the reverse of the order in which commits write them.
        """
        found = {name: self.shards(name) for name in reversed(tuple(TABLES))}
        return LakeSnapshot(
            versions={name: found[name][0] for name in TABLES},
            shards={name: found[name][1] for name in TABLES},
        )

    def read_shard(self, table: str, shard_path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One shard's rows, in the schema of today."""
        return self._collect(table, [shard_path], columns, None)

    def shard_batches(self, table: str, shard_path: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """One shard's rows as `read_shard` has them, a row group or less at a time, and none read ahead.

        Raises:
            LakeError: the shard is missing or damaged.
        """
        if not self.location.is_local:
            # Read as a whole, so that it can be asked for again where the store fails in passing.
            yield from self.read_shard(table, shard_path, columns).to_batches()
            return
        try:
            dataset = self.shard_dataset(table, [shard_path])
            whole_group = ds.ParquetFragmentScanOptions(pre_buffer=False, page_checksum_verification=True)
            yield from dataset.to_batches(
                columns=list(columns), batch_readahead=0, fragment_readahead=0, fragment_scan_options=whole_group
            )
        except (pa.ArrowException, OSError) as cause:
            raise damaged_shard(self.url, table, shard_path) from cause

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> pa.Table:
        """A table's rows at a version (the newest when None), filtered while reading.

        Raises:
            LakeError: the table, version or a shard cannot be read.
            UsageError: a column is not the table's.
        """
        _, shards = self.shards(table, version)
        return self._collect(table, [shard.path for shard in shards], columns, where)

    def shard_dataset(self, table: str, shard_paths: Sequence[str]) -> ds.Dataset:
        """Some shards of a table as a lazy Arrow dataset, in the schema of today.

        Raises:
            LakeError: a shard is missing, or its footer is not what was written.
        """
        schema = known_table(table).schema
        if not shard_paths:
            return ds.dataset(schema.empty_table())
        folder = self.table_folder(table)
        for path in shard_paths:
            prove_footer(folder, self.url, table, path)
        paths = [folder.join(path) for path in shard_paths]
        return ds.dataset(paths, schema=schema, format=proving_format(), filesystem=self.location.filesystem)

    def history(self) -> list[CommitRecord]:
        """Every commit of every table, newest first."""
        records = [
            CommitRecord(
                table=name,
                version=int(entry["version"]),
                timestamp=datetime.fromtimestamp(int(entry["timestamp"]) / 1000, UTC),
                operation=str(entry.get("lesionary_operation", entry.get("operation", "?"))).lower(),
                rows_added=int(entry.get("lesionary_rows", 0)),
                ingest_id=entry.get("lesionary_ingest_id"),
            )
            for name in TABLES
            if self.has_table(name)
            for entry in self._log(name)
        ]
        return sorted(records, key=lambda record: (record.timestamp, record.version), reverse=True)

    def _log(self, table: str, version: int | None = None) -> list[dict[str, Any]]:
        delta = self.delta(table, version)
        return self._asked(table, version, delta.history)

    def _is_made(self, table: str) -> bool:
        return self._asked(table, None, lambda: DeltaTable.is_deltatable(self._table_url(table), self._options()))

    def _table_url(self, table: str) -> str:
        return self.table_folder(table).url

    def _options(self) -> dict[str, str]:
        return delta_options(self.location.filesystem)

    def _asked(self, table: str, version: int | None, question: Callable[[], Answer]) -> Answer:
        """What a table's log answers, asked again where an object store fails in passing."""
        try:
            return persistently(self.location.filesystem, question)
        except (DeltaError, pa.ArrowException, OSError, KeyError) as cause:
            raise self.unreadable(table, version, cause) from cause

    def _unwritable(self, what: str, cause: Exception) -> LakeError:
        return LakeError(
            f"{what} cannot be made ({trouble(cause)})",
            where=self.url,
            next_step="check that the place exists and that you may write there",
        )

    def _collect(
        self, table: str, shard_paths: Sequence[str], columns: Sequence[str] | None, where: pc.Expression | None
    ) -> pa.Table:
        unknown = set(columns or ()) - set(known_table(table).column_names)
        if unknown:
            raise UsageError(f"table {table} has no column {', '.join(sorted(unknown))}")

        def collect() -> pa.Table:
            dataset = self.shard_dataset(table, shard_paths)
            return dataset.to_table(columns=None if columns is None else list(columns), filter=where)

        try:
            return persistently(self.location.filesystem, collect)
        except (pa.ArrowException, OSError) as cause:
            if is_of_a_store(cause) and not isinstance(cause, FileNotFoundError):
                raise self.unreadable(table, None, cause) from cause
            raise damaged_shard(self.url, table, self.first_damaged(table, shard_paths, columns)) from cause

    def first_damaged(self, table: str, shard_paths: Sequence[str], columns: Sequence[str] | None) -> str | None:
        """The first of some shards whose columns cannot be read."""
        for path in shard_paths:
            try:
                self.shard_dataset(table, [path]).to_table(columns=None if columns is None else list(columns))
            except (pa.ArrowException, OSError):
                return path
        return None

    @contextlib.contextmanager
    def being_written(self) -> Iterator[None]:
        """In the block, failures of what the lake lies on become a sentence that names it.

        Raises:
            LakeError: the lake cannot be written.
        """
        try:
            yield
        except LesionaryError:
            # Some are failures of the system as well: those of a source that is read meanwhile.
            raise
        except (OSError, DeltaError) as cause:
            raise LakeError(
                f"the lake cannot be written ({trouble(cause)})",
                where=self.url,
                next_step="check its space and your rights to it; what was committed is kept, so run the same again",
            ) from cause

    def _write_marker(self, content: bytes) -> None:
        place = self.location.join(MARKER_FILE)
        if self.location.is_local:
            # Half of it would be no lake, and not nothing either.
            atomic_write_bytes(Path(place), content)
        else:
            write_object(self.location.filesystem, place, content)

    def unreadable(self, table: str, version: int | None, cause: BaseException) -> LakeError:
        """What to say where a table's log, or a version in it, cannot be read."""
        if is_of_a_store(cause) and not isinstance(cause, TableNotFoundError):
            return LakeError(
                f"table {table} cannot be read ({trouble(cause)})",
                where=self.url,
                next_step="check the object store and your rights to it, and run the same command again",
            )
        if version is None:
            return LakeError(
                f"the log of table {table} cannot be read",
                where=self.url,
                next_step="check your rights to it; if it is damaged, run `lesionary lake repair`",
            )
        return LakeError(
            f"version {version} of table {table} cannot be read",
            where=self.url,
            next_step="see `lesionary lake history`",
        )

    def _read_marker(self) -> dict[str, object] | None:
        system = self.location.filesystem
        try:
            marker = parse_json(read_object(system, self.location.join(MARKER_FILE)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as cause:
            raise LakeError(
                f"the lake's {MARKER_FILE} cannot be read ({trouble(cause)})",
                where=self.url,
                next_step="check the place and your rights to it",
            ) from cause
        return marker if isinstance(marker, dict) else {}

    def _refuse_foreign_folder(self) -> None:
        """Keep a lake out of a folder that already holds somebody's files; our own half-made lake may be finished."""
        if not self.location.is_local:
            return
        selector = fs.FileSelector(self.location.path, allow_not_found=True)
        strangers = [
            info.base_name
            for info in self.location.filesystem.get_file_info(selector)
            if info.base_name != _TABLES_FOLDER and not info.base_name.startswith((".", "features.duckdb"))
        ]
        if strangers:
            raise LakeError(
                f"the folder already holds {len(strangers)} other files or folders",
                where=self.url,
                next_step="name an empty or new folder with --lake",
            )
        self.location.filesystem.create_dir(self.location.path, recursive=True)

    def _add_columns(self, table: Table) -> None:
        """Bring a table's description up to today's columns; the rows it has are null in them."""
        delta = self.delta(table.name)
        if not (lacking := _lacking(delta, table)):
            return
        try:
            delta.alter.add_columns(lacking)
        except (DeltaError, OSError) as cause:
            # Another writer may have done it in between.
            if _lacking(self.delta(table.name), table):
                raise LakeError(
                    f"table {table.name} cannot get its new columns ({trouble(cause)})",
                    where=self.url,
                    next_step="run the same command again, or check your rights to the place",
                ) from cause

    def _create_table(self, table: Table) -> None:
        def create() -> None:
            DeltaTable.create(
                self._table_url(table.name),
                schema=table.schema,
                mode="ignore",
                name=table.name,
                description=table.meaning,
                configuration={"delta.logRetentionDuration": _LOG_RETENTION},
                storage_options=self._options(),
            )

        try:
            # Somebody else, or a lost answer of ours, may have made it meanwhile: then the next try ignores it.
            persistently(self.location.filesystem, create)
        except (DeltaError, OSError) as cause:
            raise self._unwritable(f"table {table.name}", cause) from cause


def _lacking(delta: DeltaTable, table: Table) -> list[Field]:
    """Columns of today that a table was made without."""
    there = {field.name for field in delta.schema().fields}
    return [Field.from_arrow(column.field()) for column in table.columns if column.name not in there]


def known_table(name: str) -> Table:
    """The declaration of a table.

    Raises:
        UsageError: the lake has no such table.
    """
    if name not in TABLES:
        raise UsageError(f"there is no table {name}", next_step=f"the lake's tables are {', '.join(TABLES)}")
    return TABLES[name]
