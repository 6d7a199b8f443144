"""Results into the lake: feature sets and match runs, each one unit that replaces what the lake held under its name.

A unit of a table may also be added to (`GrowingUnit`), so that vectors of new lesions can join those that are there:
shards that hold none of the rows at hand stay as they are, and whoever syncs reads the new ones only.
"""

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from lesionary.commits import Batch, Change, commit_changes, commit_results, rewrite
from lesionary.identifiers import new_ingest_id
from lesionary.lake import Lake
from lesionary.schema import RESULT_TABLES
from lesionary.shards import Shard, ShardWriter
from lesionary.table_shards import live_shards

# Rows of one shard: 1,024 numbers a row make some 250 MB.
_ROWS_PER_SHARD = 65_536


def write_results(lake: Lake, unit: str | Collection[str], tables: Mapping[str, Iterable[pa.Table]]) -> None:
    """Commit the rows of one unit or several, in parts that need not fit into memory together.

    Args:
        lake: where to.
        unit: the run or feature set, or several units; what these tables held of them goes.
        tables: table name to parts; every part's columns are the table's.

    Raises:
        CommitConflictError: other writers won every race for a table.
        LakeError: the lake cannot be written.
    """
    prefix = new_ingest_id()
    units = frozenset([unit] if isinstance(unit, str) else unit)
    with lake.being_written(), tempfile.TemporaryDirectory(prefix="lesionary-") as scratch:
        shards: dict[str, list[Shard]] = {}
        for name, parts in tables.items():
            lake.make_table(name)
            shards[name] = _write_parts(lake, name, parts, prefix, Path(scratch))
        commit_results(lake, Batch(prefix, 1, units, shards), list(tables))


def remove_results(lake: Lake, unit: str, tables: Iterable[str]) -> None:
    """Take one unit's rows out of these tables."""
    there = [name for name in tables if lake.has_table(name)]
    with lake.being_written():
        commit_results(lake, Batch(new_ingest_id(), 1, frozenset({unit}), {}), there)


class GrowingUnit:
    """One unit of a table of results, added to row by row; each row says what it was made from.

    A row whose key the unit has already, made from the same, is left out; one made from something else takes the old
    row's place, in the same transaction. So whoever else adds to the unit, and however often a part is added again,
    each key stands in it once.
    """

    def __init__(self, lake: Lake, table: str, unit: str, key: str, made_from: str) -> None:
        """Nothing is read yet.

        Args:
            lake: where the unit is, or will be.
            table: of it.
            unit: value of the table's unit column.
            key: column that tells the unit's rows apart.
            made_from: column that says what a row was made from.
        """
        self._lake = lake
        self._table = RESULT_TABLES[table]
        self._unit = unit
        self._columns = (key, made_from)
        self._seen: dict[str, dict[str, str | None]] = {}

    def held(self) -> dict[str, str | None]:
        """The unit's keys now, each with what its row was made from."""
        if not self._lake.has_table(self._table.name):
            return {}
        return self._held(live_shards(self._lake.delta(self._table.name), self._table))

    def add(self, rows: pa.Table) -> int:
        """Add rows that fit into memory, of distinct keys; how many were not there yet.

        Raises:
            CommitConflictError: other writers won every race.
            LakeError: the lake cannot be written.
        """
        prefix = new_ingest_id()
        written: dict[tuple[bool, ...], list[Shard]] = {}
        taken = 0

        def decide(delta: DeltaTable) -> Change:
            nonlocal taken
            shards = live_shards(delta, self._table)
            fresh, outdated = self._compared(rows, self._held(shards))
            taken = sum(fresh)
            if fresh not in written:
                parts = [rows.filter(pa.array(fresh, pa.bool_()))] if taken else []
                written[fresh] = _write_parts(self._lake, self._table.name, parts, prefix, scratch)
            removed, kept = self._without(shards, outdated, prefix)
            return Change([*written[fresh], *kept], removed)

        with self._lake.being_written(), tempfile.TemporaryDirectory(prefix="lesionary-") as folder:
            scratch = Path(folder)
            self._lake.make_table(self._table.name)
            commit_changes(self._lake, self._table, prefix, decide)
        return taken

    def _held(self, shards: Sequence[Shard]) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for shard in self._own(shards):
            if shard.path not in self._seen:
                names = [self._table.unit_column, *self._columns]
                rows = self._lake.read_shard(self._table.name, shard.path, names)
                rows = rows.filter(pc.equal(rows[self._table.unit_column], self._unit))
                keys, sources = (rows[name].to_pylist() for name in self._columns)
                self._seen[shard.path] = dict(zip(keys, sources, strict=True))
            found |= self._seen[shard.path]
        return found

    def _own(self, shards: Sequence[Shard]) -> list[Shard]:
        return [shard for shard in shards if shard.low_unit <= self._unit <= shard.high_unit]

    def _compared(self, rows: pa.Table, held: Mapping[str, str | None]) -> tuple[tuple[bool, ...], set[str]]:
        """Which rows are to be written, and the keys whose rows in the lake they replace."""
        keys, sources = (rows[name].to_pylist() for name in self._columns)
        fresh = tuple(key not in held or held[key] != source for key, source in zip(keys, sources, strict=True))
        return fresh, {key for key, wanted in zip(keys, fresh, strict=True) if wanted and key in held}

    def _without(self, shards: Sequence[Shard], outdated: set[str], prefix: str) -> tuple[list[Shard], list[Shard]]:
        """Shards that hold outdated rows, and new ones with their other rows."""
        removed, kept = [], []
        for shard in self._own(shards):
            gone = outdated & self._seen[shard.path].keys()
            if not gone:
                continue
            removed.append(shard)
            if len(gone) < shard.rows:
                staying = (pc.field(self._table.unit_column) != self._unit) | ~pc.field(self._columns[0]).isin(
                    pa.array(sorted(gone))
                )
                kept.append(rewrite(self._lake, self._table, shard, staying, prefix))
        return removed, kept


def _write_parts(lake: Lake, name: str, parts: Iterable[pa.Table], prefix: str, scratch: Path) -> list[Shard]:
    table = RESULT_TABLES[name]
    folder = lake.table_folder(name)
    found: list[Shard] = []
    for part in parts:
        for start in range(0, part.num_rows, _ROWS_PER_SHARD):
            rows = part.slice(start, _ROWS_PER_SHARD).cast(table.schema)
            with ShardWriter(table, folder, prefix, scratch) as writer:
                writer.write(rows)
                shard = writer.finish()
            found += [shard] if shard else []
    return found
