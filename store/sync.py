"""Lake to store: incremental by shard, into a new version of the store, repeatable from nothing.

The store remembers the shards it has taken. Shards the lake has and the store has not are inserted; rows of shards the
lake no longer has are deleted. What is left equals the lake at the recorded versions, whatever happened in between.
Readers keep the version they opened; two syncs follow each other (`store/versions.py`).
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa

from lesionary.columns import Table
from lesionary.errors import LakeError, StoreError
from lesionary.lake import Lake, LakeSnapshot
from lesionary.schema import EMBEDDINGS, LESIONS, LOCATION_MODELS, LOCATIONS, SERIES, SLICES, TABLES
from store.database import open_draft, open_reader
from store.features import LesionsVersion, feature_table, list_sets, make_feature_table, refresh_sets
from store.vectors import IndexKind, is_whole, kind_for
from store.versions import Waiting, files_folder, writing

# Pixels stay in the lake: the store answers questions about slices, the lake shows them.
_LEFT_IN_THE_LAKE = frozenset({"pixels"})
# Vectors go into the table that the row of their feature set makes.
_SYNC_ORDER = (*(table for table in TABLES.values() if table is not EMBEDDINGS), EMBEDDINGS)

Progress = Callable[[str, int, int], None]
"""Called with the table, shards done, and shards to do."""


@dataclass(frozen=True, slots=True)
class TableSync:
    """What a sync did to one table."""

    table: str
    rows_added: int
    rows_removed: int
    lake_version: int


def sync(
    lake: Lake,
    path: Path,
    progress: Progress | None = None,
    *,
    index: IndexKind | None = IndexKind.AUTO,
    on_wait: Waiting | None = None,
    memory_mb: int = 0,
) -> list[TableSync]:
    """Bring the store at `path` to the lake's newest versions.

    Args:
        lake: where from.
        path: of the store.
        progress: told how far it is.
        index: how feature sets are searched; by their size unless given; None: as each set is now.
        on_wait: called when another sync has to end first.
        memory_mb: what the engine may take, see `store.limits.engine_memory_mb`; what needs more goes through the disk.

    Raises:
        StoreError: the store is damaged or cannot be written.
        LakeError: the lake cannot be read.
    """
    with writing(path, on_wait):
        # Read after the wait: a sync never takes the store back to an older lake.
        snapshot = lake.snapshot()
        if _is_current(path, snapshot, index):
            return [TableSync(name, 0, 0, snapshot.versions[name]) for name in TABLES]
        with open_draft(path, memory_mb) as (connection, draft):
            connection.begin()
            done = _take_changes(connection, lake, snapshot, progress)
            version = snapshot.versions["lesions"]
            lesions = LesionsVersion(version, lake.committed_at("lesions", version))
            draft.vector_folders += refresh_sets(connection, draft.folder, lesions, index)
            connection.commit()
        return done


def _is_current(path: Path, snapshot: LakeSnapshot, index: IndexKind | None) -> bool:
    """Whether the newest version of the store holds the lake at these versions, with whole vectors beside it."""
    if not path.exists():
        return False
    with contextlib.suppress(StoreError), open_reader(path) as connection:
        synced = dict(connection.execute("SELECT table_name, lake_version FROM store.synced").fetchall())
        return (
            synced == dict(snapshot.versions)
            and _holds_shards_of(connection, snapshot)
            and all(
                (index is None or one.index_kind == kind_for(one.lesions, one.dimension, index))
                and is_whole(files_folder(path) / one.vector_folder, one.checksums)
                for one in list_sets(connection)
            )
        )
    return False


def _holds_shards_of(connection: duckdb.DuckDBPyConnection, snapshot: LakeSnapshot) -> bool:
    """Whether the rows are this lake's: one that was made anew counts its versions from 0 again."""
    taken = set(connection.execute("SELECT table_name, path FROM store.shards").fetchall())
    live = {(name, shard.path) for name, shards in snapshot.shards.items() for shard in shards}
    # Vectors whose set nobody has described are not taken.
    return taken <= live and all(name == EMBEDDINGS.name for name, _ in live - taken)


def _take_changes(
    connection: duckdb.DuckDBPyConnection, lake: Lake, snapshot: LakeSnapshot, progress: Progress | None
) -> list[TableSync]:
    connection.execute("CREATE TEMP TABLE changed_lesions (lesion_id VARCHAR)")
    connection.execute("CREATE TEMP TABLE changed_series (series_id VARCHAR)")
    done = {table.name: _sync_table(connection, lake, snapshot, table, progress) for table in _SYNC_ORDER}
    if any(done[table.name].rows_added or done[table.name].rows_removed for table in (LOCATIONS, LOCATION_MODELS)):
        _note_moved_lesions(connection)
    _refresh_lesion_features(connection)
    return [done[name] for name in TABLES]


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
    if table is EMBEDDINGS:
        # A killed writer leaves vectors whose set nobody has described; they wait until somebody does.
        described = connection.execute("SELECT feature_set_id FROM lake_rows.feature_sets").fetchall()
        new = [shard for shard in new if (shard.low_unit,) in described]
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
    _note_changes(connection, table, numbers)
    removed = sum(
        _count(connection.execute(f"DELETE FROM {name} WHERE list_contains(?, shard)", [numbers]))  # noqa: S608
        for name in _tables_of(connection, table)
    )
    connection.execute("DELETE FROM store.shards WHERE table_name = ? AND list_contains(?, path)", [table.name, paths])
    return removed


def _take_shard(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, path: str) -> int:
    number = connection.execute(
        "INSERT INTO store.shards (table_name, path) VALUES (?, ?) RETURNING shard", [table.name, path]
    ).fetchone()
    shard = int(number[0]) if number else 0
    take = _take_vectors if table is EMBEDDINGS else _take_rows
    added = take(connection, lake, table, path, shard)
    _note_changes(connection, table, [shard])
    return added


def _take_rows(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, path: str, shard: int) -> int:
    listed = ", ".join(synced_columns(table))
    insert = f"INSERT INTO lake_rows.{table.name} ({listed}, shard) SELECT {listed}, ? FROM incoming"  # noqa: S608
    with _incoming(connection, lake, table, path):
        return _count(connection.execute(insert, [shard]))


def _take_vectors(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, path: str, shard: int) -> int:
    """The vectors of a shard, which are all of one set; looked through before the first is taken."""
    with _incoming(connection, lake, table, path):
        set_id, dimension = _one_set(connection)
    make_feature_table(connection, set_id, dimension)
    insert = f"INSERT INTO {feature_table(set_id)} SELECT lesion_id, vector, ? FROM incoming"  # noqa: S608
    with _incoming(connection, lake, table, path):
        return _count(connection.execute(insert, [shard]))


@contextlib.contextmanager
def _incoming(connection: duckdb.DuckDBPyConnection, lake: Lake, table: Table, path: str) -> Iterator[None]:
    """The rows of a shard as `incoming`, which can be read once.

    As a stream: the engine keeps what was registered until the transaction ends, so tables would pile up in memory.
    """
    columns = synced_columns(table)
    problems: list[LakeError] = []

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from lake.shard_batches(table.name, path, columns)
        except LakeError as problem:
            problems.append(problem)
            raise

    schema = pa.schema([table.schema.field(name) for name in columns])
    connection.register("incoming", pa.RecordBatchReader.from_batches(schema, batches()))
    try:
        yield
    except duckdb.Error:
        if problems:
            raise problems[0] from None
        raise
    finally:
        connection.unregister("incoming")


def _one_set(connection: duckdb.DuckDBPyConnection) -> tuple[str, int]:
    """Name and dimension of the feature set that the incoming vectors are of, all of them of one."""
    ((set_id, dimension, strays),) = connection.execute(
        "SELECT feature_set_id, dimension, count(*) FILTER (len(vector) != dimension OR len(vector) IS NULL) "
        "FROM incoming JOIN lake_rows.feature_sets USING (feature_set_id) GROUP BY ALL"
    ).fetchall()
    if strays:
        raise StoreError(
            f"{strays} vectors of a feature set do not have its {dimension} numbers",
            where=set_id,
            next_step="`lesionary features drop` it and compute it again",
        )
    return str(set_id), int(dimension)


def _tables_of(connection: duckdb.DuckDBPyConnection, table: Table) -> list[str]:
    """The store's tables that hold a table of the lake."""
    if table is not EMBEDDINGS:
        return [f"lake_rows.{table.name}"]
    rows = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'features' AND table_type = 'BASE TABLE'"
    ).fetchall()
    return [feature_table(name) for (name,) in rows]


def _note_changes(connection: duckdb.DuckDBPyConnection, table: Table, shards: list[int]) -> None:
    """Whose wide rows have to be made again: of lesions that come or go, and of lesions on series that do."""
    column = {LESIONS.name: "lesion_id", SERIES.name: "series_id", SLICES.name: "series_id"}.get(table.name)
    if column:
        changed = "changed_lesions" if table is LESIONS else "changed_series"
        connection.execute(
            f"INSERT INTO {changed} SELECT DISTINCT {column} FROM lake_rows.{table.name} "  # noqa: S608
            "WHERE list_contains(?, shard)",
            [shards],
        )


def _note_moved_lesions(connection: duckdb.DuckDBPyConnection) -> None:
    """Lesions whose place is another than their wide rows say: built-in vectors follow from it.

    A run of `locate` replaces all rows of its model, and most of them say what they said before: lesions that stay
    where they are keep their numbers, and their vectors are not read again.
    """
    connection.execute(
        "INSERT INTO changed_lesions SELECT lesion_id FROM lake_rows.lesion_features "
        "LEFT JOIN store.located_now AS located USING (lesion_id) "
        "WHERE (location_z, located_by) IS DISTINCT FROM "
        "(coalesce(release_z, located.z), CASE WHEN release_z IS NULL AND located.z IS NOT NULL THEN model_id END)"
    )


def _refresh_lesion_features(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "INSERT INTO changed_lesions SELECT lesion_id FROM lake_rows.lesions "
        "WHERE series_id IN (SELECT series_id FROM changed_series)"
    )
    connection.execute(
        "DELETE FROM lake_rows.lesion_features WHERE lesion_id IN (SELECT lesion_id FROM changed_lesions)"
    )
    connection.execute(
        "INSERT INTO lake_rows.lesion_features "
        "SELECT nextval('store.lesion_numbers'), * FROM store.lesion_features_now "
        "WHERE lesion_id IN (SELECT lesion_id FROM changed_lesions) ORDER BY lesion_id"
    )


def _count(changed: duckdb.DuckDBPyConnection) -> int:
    found = changed.fetchone()
    return int(found[0]) if found else 0
