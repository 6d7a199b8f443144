"""Commits: how shards become part of the lake, exactly once, whoever else is writing and whenever we are killed.

A batch names the units it holds and brings shards for some tables. Each table is one Delta transaction that removes
every older row of those units and adds the new shards; tables follow each other in `schema.TABLES` order, `units`
last. What follows from that:

* killed between two tables: the batch's units are not in `units`, the next run does them again, and its commit
  replaces the half that had arrived. Nothing is lost, nothing stands twice;
* the same batch committed again (a retry after an unclear answer): the transaction id is found and skipped;
* committed, but the answer was lost on the way: the next look at the log finds the transaction, as above;
* two writers at once: every commit carries the same application id, so Delta refuses the second of two commits that
  were prepared against one version; it reloads, looks again for rows to replace, and retries.

Results that grow by and by, such as a feature set of a lake that goes on being ingested into, are added to instead
(`commit_changes`): a transaction that says which shards it adds and removes, decided anew against every version that
another writer has made in between.
"""

import bisect
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, Transaction

from lesionary.columns import Table
from lesionary.errors import CommitConflictError, LakeError
from lesionary.lake import Lake
from lesionary.object_stores import may_pass, pause, persistently, trouble
from lesionary.schema import RESULT_TABLES, SOURCE_TABLES, TABLES
from lesionary.shards import Shard, ShardWriter, make_durable
from lesionary.table_shards import live_shards

# Shared by every commit, so that two commits prepared against one version can never both succeed.
_WRITERS_LOCK = "lesionary-writers"
_MAX_ATTEMPTS = 40
_MOST_UNCLEAR = 8

# Slices weigh some 200 kB each: this keeps a rewrite below 100 MB of memory.
_REWRITE_ROWS = 256


@dataclass(frozen=True, slots=True)
class Batch:
    """Some units of one run, with all their rows."""

    ingest_id: str
    sequence: int
    """Counts the run's batches from 1; a batch is never committed after a later one of its run."""
    unit_ids: frozenset[str]
    shards: Mapping[str, Sequence[Shard]]
    """Table name to shards written but not yet part of the lake."""


def commit(lake: Lake, batch: Batch) -> None:
    """Make a batch part of the lake.

    Raises:
        CommitConflictError: other writers won every race for a table.
    """
    for table in SOURCE_TABLES.values():
        _commit_table(lake, table, batch)


def commit_results(lake: Lake, batch: Batch, tables: Sequence[str]) -> None:
    """Make results part of the lake, each unit replacing what the lake held of it; `tables` are those they may be in.

    Raises:
        CommitConflictError: other writers won every race for a table.
    """
    for name in RESULT_TABLES:
        if name in tables:
            lake.make_table(name)
            _commit_table(lake, TABLES[name], batch)


@dataclass(frozen=True, slots=True)
class Change:
    """What a transaction does to one table."""

    added: Sequence[Shard] = ()
    removed: Sequence[Shard] = ()


def commit_changes(lake: Lake, table: Table, ingest_id: str, decide: Callable[[DeltaTable], Change]) -> None:
    """Change one table by what `decide` says of its newest version, and of each newer one until no writer is faster.

    Args:
        lake: whose.
        table: of it.
        ingest_id: names the transaction, which is done once.
        decide: the shards to add, written already, and those to remove.

    Raises:
        CommitConflictError: other writers won every race.
    """
    _commit_table(lake, table, Batch(ingest_id, 1, frozenset(), {}), decide)


def _commit_table(lake: Lake, table: Table, batch: Batch, decide: Callable[[DeltaTable], Change] | None = None) -> None:
    unclear = 0
    for attempt in range(_MAX_ATTEMPTS):
        delta = lake.delta(table.name)
        if last_sequence(lake, table.name, delta, batch.ingest_id) >= batch.sequence:
            return
        change = _replacement(lake, table, delta, batch) if decide is None else decide(delta)
        if not change.added and not change.removed:
            return
        make_durable(lake.table_folder(table.name), change.added)
        try:
            _write_transaction(delta, table, batch, change)
        except CommitFailedError:
            pause(attempt)
        except (DeltaError, OSError) as cause:
            # No answer, or a bad one: the store may have done it all the same. The next look at the log tells.
            unclear += 1
            if lake.location.is_local or unclear >= _MOST_UNCLEAR or not may_pass(cause):
                raise LakeError(
                    f"table {table.name} cannot be written ({trouble(cause)})",
                    where=lake.url,
                    next_step="run the same command again; what was committed is kept",
                ) from cause
            pause(attempt)
        else:
            return
    raise CommitConflictError(
        f"other writers won {_MAX_ATTEMPTS} races for table {table.name}",
        where=lake.url,
        next_step="run the same command again when fewer writers are busy",
    )


def last_sequence(lake: Lake, table: str, delta: DeltaTable, ingest_id: str) -> int:
    """The newest batch of a run that a table's log names; 0 where it names none.

    Raises:
        LakeError: the log is damaged where it says so.
    """
    try:
        return delta.transaction_version(ingest_id) or 0
    except DeltaError as cause:
        raise lake.unreadable(table, None, cause) from cause


def _write_transaction(delta: DeltaTable, table: Table, batch: Batch, change: Change) -> None:
    added, removed = change.added, change.removed
    now_ms = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        AddAction(shard.path, shard.bytes, {}, now_ms, True, shard.delta_statistics(table.unit_column))
        for shard in added
    ]
    actions += [RemoveAction(shard.path, True, now_ms, shard.bytes, {}) for shard in removed]
    delta.create_write_transaction(
        actions,
        mode="append",
        schema=delta.schema(),
        partition_by=[],
        commit_properties=CommitProperties(
            custom_metadata={
                "lesionary_ingest_id": batch.ingest_id,
                "lesionary_operation": "replace" if removed else "append",
                "lesionary_rows": sum(shard.rows for shard in added) - sum(shard.rows for shard in removed),
            },
            # Retrying inside the library would skip our look for rows to replace.
            max_commit_retries=0,
            app_transactions=[Transaction(batch.ingest_id, batch.sequence), Transaction(_WRITERS_LOCK, 1)],
        ),
    )


def _replacement(lake: Lake, table: Table, delta: DeltaTable, batch: Batch) -> Change:
    """The batch's shards for those that hold rows of its units, whose other rows go into new shards."""
    change = without_units(lake, table, live_shards(delta, table), batch.unit_ids, batch.ingest_id)
    return Change([*batch.shards.get(table.name, ()), *change.added], change.removed)


def without_units(
    lake: Lake, table: Table, shards: Iterable[Shard], unit_ids: Collection[str], ingest_id: str
) -> Change:
    """Some shards of a table without the rows of these units: those that hold any go, the rest of their rows stays."""
    removed: list[Shard] = []
    kept: list[Shard] = []
    wanted = sorted(unit_ids)
    value_set = pa.array(wanted, pa.string())
    for shard in shards:
        nearest = bisect.bisect_left(wanted, shard.low_unit)
        if nearest == len(wanted) or wanted[nearest] > shard.high_unit:
            continue
        units = lake.read_shard(table.name, shard.path, [table.unit_column])[table.unit_column]
        stays = pc.invert(pc.is_in(units, value_set=value_set))
        staying = int(pc.sum(stays).as_py() or 0)
        if staying == shard.rows:
            continue
        removed.append(shard)
        if staying:
            kept.append(rewrite(lake, table, shard, ~pc.field(table.unit_column).isin(value_set), ingest_id))
    return Change(kept, removed)


def rewrite(lake: Lake, table: Table, shard: Shard, staying: pc.Expression, ingest_id: str) -> Shard:
    """A copy of a shard with the rows that stay, streamed so that memory stays at one record batch."""
    folder = lake.table_folder(table.name)

    def copy() -> Shard | None:
        dataset = lake.shard_dataset(table.name, [shard.path])
        scanner = dataset.scanner(filter=staying, batch_size=_REWRITE_ROWS, batch_readahead=1)
        with (
            tempfile.TemporaryDirectory(prefix="lesionary-") as scratch,
            ShardWriter(table, folder, f"{ingest_id}-kept", Path(scratch)) as writer,
        ):
            for record_batch in scanner.to_batches():
                writer.write(pa.Table.from_batches([record_batch]))
            return writer.finish()

    rewritten = persistently(lake.location.filesystem, copy)
    if rewritten is None:
        raise CommitConflictError(f"a shard of table {table.name} changed while it was rewritten", where=lake.url)
    return rewritten
