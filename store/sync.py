"""Lake to store: incremental by shard, in one transaction, repeatable from nothing.

The store remembers the shards it has taken. Shards the lake has and the store has not are inserted; rows of shards the
lake no longer has are deleted. What is left equals the lake at the recorded versions, whatever happened in between.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from lesionary.lake import Lake, LakeSnapshot
from lesionary.schema import TABLES, Table
from store.database import open_writer

# Pixels stay in the lake: the store answers questions about slices, the lake shows them.
_LEFT_IN_THE_LAKE = frozenset({"pixels"})

Progress = Callable[[str, int, int], None]
"""Called with the table, shards done, and shards to do."""


@dataclass(frozen=True, slots=True)
class TableSync:
    """What a sync did to one table."""

    table: str
    rows_added: int
    rows_removed: int
    lake_version: int


def sync(lake: Lake, path: Path, progress: Progress | None = None) -> list[TableSync]:
    """Bring the store at `path` to the lake's newest versions.

    Raises:
        StoreError: the store is in use or damaged.
        LakeError: the lake cannot be read.
    """
    snapshot = lake.snapshot()
    with open_writer(path) as connection:
        connection.begin()
        try:
            done = [_sync_table(connection, lake, snapshot, table, progress) for table in TABLES.values()]
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
    return done


def synced_columns(table: Table) -> list[str]:
    """The table's columns that the store holds."""
    return [name for name in table.column_names if name not in _LEFT_IN_THE_LAKE]


def _sync_table(
    connection: duckdb.DuckDBPyConnection, lake: Lake, snapshot: LakeSnapshot, table: Table, progress: Progress | None
) -> TableSync:
    rows = connection.execute("SELECT path, shard FROM store.shards WHERE table_name = ?", [table.name]).fetchall()
    taken = {str(path): int(shard) for path, shard in rows}
    live = {shard.path for shard in snapshot.shards[table.name]}
    removed = _drop_shards(connection, table, {path: taken[path] for path in taken.keys() - live})
    added = 0
    new = [shard for shard in snapshot.shards[table.name] if shard.path not in taken]
    for number, shard in enumerate(new, 1):
        added += _take_shard(connection, lake, table, shard.path)
        if progress:
            progress(table.name, number, len(new))
    version = snapshot.versions[table.name]
    connection.execute("INSERT OR REPLACE INTO store.synced VALUES (?, ?, now())", [table.name, version])
    return TableSync(table.name, added, removed, version)


def _drop_shards(connection: duckdb.DuckDBPyConnection, table: Table, gone: dict[str, int]) -> int:
    if not gone:
        return 0
    numbers, paths = list(gone.values()), list(gone)
    statement = f"DELETE FROM lake_rows.{table.name} WHERE list_contains(?, shard)"  # noqa: S608 (our own name)
    found = connection.execute(statement, [numbers]).fetchone()
    connection.execute("DELETE FROM store.shards WHERE table_name = ? AND list_contains(?, path)", [table.name, paths])
    return int(found[0]) if found else 0


def _take_shard(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, path: str) -> int:
    columns = synced_columns(table)
    incoming = lake.read_shard(table.name, path, columns)
    number = connection.execute(
        "INSERT INTO store.shards (table_name, path) VALUES (?, ?) RETURNING shard", [table.name, path]
    ).fetchone()
    connection.register("incoming", incoming)
    try:
        listed = ", ".join(columns)
        connection.execute(
            f"INSERT INTO lake_rows.{table.name} ({listed}, shard) SELECT {listed}, ? FROM incoming",  # noqa: S608
            [number[0] if number else None],
        )
    finally:
        connection.unregister("incoming")
    return int(incoming.num_rows)
