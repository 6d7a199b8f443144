"""A table's shards, of its log and of its folder: which count, what their footers say, whether they are whole."""

from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable

from lesionary.columns import Table
from lesionary.errors import LakeError
from lesionary.locations import Location
from lesionary.remote_files import open_remote
from lesionary.shards import Shard, footer_is_whole


def live_shards(delta: DeltaTable, table: Table) -> tuple[Shard, ...]:
    """The shards of a Delta table at its loaded version, ordered by their units."""
    actions = pa.table(delta.get_add_actions(flatten=True))
    bounds = [f"min.{table.unit_column}", f"max.{table.unit_column}"]
    wanted = ["path", "size_bytes", "num_records", *(name for name in bounds if name in actions.column_names)]
    shards = [
        Shard(row["path"], row["size_bytes"], row["num_records"], row[bounds[0]], row[bounds[1]])
        for row in actions.select(wanted).to_pylist()
    ]
    return tuple(sorted(shards, key=lambda shard: (shard.low_unit, shard.path)))


def shard_footer(folder: Location, shard: Shard) -> pq.FileMetaData:
    """A shard's Parquet footer.

    Raises:
        OSError or pyarrow.ArrowInvalid: the file is missing or its footer damaged.
    """
    path = folder.join(shard.path)
    if folder.is_local:
        return pq.read_metadata(path)
    with open_remote(folder.filesystem, path) as file:
        return pq.read_metadata(file)


def damaged_shard(lake_url: str, table: str, path: str | None) -> LakeError:
    """What to say of a shard that cannot be read; of which one, where that is known."""
    return LakeError(
        f"a shard of table {table} is missing or damaged" + (f" ({path})" if path else ""),
        where=lake_url,
        next_step="run `lesionary lake verify`, then `lesionary lake repair`",
    )


def prove_footer(folder: Location, lake_url: str, table: str, path: str) -> None:
    """Refuse a shard on a disk whose footer was damaged: it would be read as other columns or rows, without a word.

    Object stores prove what they keep by themselves, and a look at every footer would be a request each.

    Raises:
        LakeError: it is missing or damaged.
    """
    if not folder.is_local:
        return
    try:
        whole = footer_is_whole(Path(folder.join(path)))
    except OSError as cause:
        raise damaged_shard(lake_url, table, path) from cause
    if not whole:
        raise damaged_shard(lake_url, table, path)


def proving_format() -> ds.ParquetFileFormat:
    """Pages whose checksum differs are never answered from."""
    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    return ds.ParquetFileFormat(default_fragment_scan_options=options)
