"""Results into the lake: feature sets and match runs, each one unit that replaces what the lake held under its name."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from lesionary.commits import Batch, commit_results
from lesionary.errors import LakeError, LesionaryError
from lesionary.identifiers import new_ingest_id
from lesionary.lake import Lake
from lesionary.schema import RESULT_TABLES
from lesionary.shards import Shard, ShardWriter

# Rows of one shard: 1,024 numbers a row make some 250 MB.
_ROWS_PER_SHARD = 65_536


def write_results(lake: Lake, unit: str, tables: Mapping[str, Iterable[pa.Table]]) -> None:
    """Commit the rows of one unit, in parts that need not fit into memory together.

    Args:
        lake: where to.
        unit: the run or feature set; what these tables held of it goes.
        tables: table name to parts; every part's columns are the table's.

    Raises:
        CommitConflictError: other writers won every race for a table.
        LakeError: the lake cannot be written.
    """
    prefix = new_ingest_id()
    with _naming_the_lake(lake), tempfile.TemporaryDirectory(prefix="lesionary-") as scratch:
        shards: dict[str, list[Shard]] = {}
        for name, parts in tables.items():
            lake.make_table(name)
            shards[name] = _write_parts(lake, name, parts, prefix, Path(scratch))
        commit_results(lake, Batch(prefix, 1, frozenset({unit}), shards), list(tables))


def remove_results(lake: Lake, unit: str, tables: Iterable[str]) -> None:
    """Take one unit's rows out of these tables."""
    there = [name for name in tables if lake.has_table(name)]
    with _naming_the_lake(lake):
        commit_results(lake, Batch(new_ingest_id(), 1, frozenset({unit}), {}), there)


@contextlib.contextmanager
def _naming_the_lake(lake: Lake) -> Iterator[None]:
    try:
        yield
    except LesionaryError:
        # Some are failures of the system as well: those of a source that is read meanwhile.
        raise
    except OSError as cause:
        raise LakeError(
            f"the lake cannot be written ({type(cause).__name__})", where=lake.url, next_step="check your rights to it"
        ) from cause


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
