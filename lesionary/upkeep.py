"""Looking after a lake: is everything there and right, and what may be thrown away.

`verify` reads, never writes. `vacuum` removes files that no table's newest version names: shards of writers that
were killed, and shards that later commits replaced.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from lesionary.artifacts import file_sha256
from lesionary.errors import ArtifactError, LakeError
from lesionary.lake import Lake, LakeSnapshot
from lesionary.locations import Location
from lesionary.object_stores import is_of_a_store, persistently, trouble
from lesionary.pixels import decode_slice, pixel_digest
from lesionary.remote_files import open_remote
from lesionary.schema import QUARANTINE, SERIES, SOURCE_TABLES, TABLES, UNITS
from lesionary.shards import DIGEST_DIGITS, Shard, digest_in_name
from lesionary.table_shards import shard_footer

# Digesting waits for the disk or the object store more than for the processor.
_READER_THREADS = 4
_DEEP_BATCH_ROWS = 16

# Files younger than this may belong to a writer that has not committed yet.
DEFAULT_VACUUM_HOURS = 168.0

Damaged = Mapping[str, Collection[str]]
"""Table to the paths of its damaged shards."""
Progress = Callable[[int, int], None]
"""Called with bytes checked so far and bytes to check."""


@dataclass(frozen=True, slots=True)
class TableTotals:
    """Size of one table."""

    shards: int
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found; no problems means the lake is whole."""

    tables: Mapping[str, TableTotals]
    counts: Mapping[str, int]
    """Inputs found, accepted, flagged and quarantined, summed over `units`."""
    problems: tuple[str, ...]
    slices_decoded: int
    is_damaged: bool = False
    """Whether a file is not what was written: no ingest brings that back before a repair."""


@dataclass(frozen=True, slots=True)
class VacuumReport:
    """Files that were removed, or would be."""

    removed: tuple[str, ...]
    bytes: int


def verify(lake: Lake, *, deep: bool = False, progress: Progress | None = None) -> VerifyReport:
    """Check shards against the logs and their own digests, keys for repeats, and counts against each other.

    Args:
        lake: the lake to look at.
        deep: also decode every slice and compare it with its digest.
        progress: told how far the digesting is.
    """
    snapshot = lake.snapshot()
    problems = [problem for _, _, problem in damaged_shards(lake, snapshot, progress)]
    decoded, damaged = 0, bool(problems)
    if not problems:
        problems += _check_keys(lake, snapshot)
        problems += _check_counts(lake, snapshot)
        if deep:
            decoded, wrong = _check_pixels(lake, snapshot)
            problems += wrong
    totals = {
        name: TableTotals(len(shards), snapshot.rows(name), sum(shard.bytes for shard in shards))
        for name, shards in snapshot.shards.items()
    }
    counts = {} if problems else _unit_sums(whole_rows(lake, snapshot, "units", None))
    return VerifyReport(totals, counts, tuple(problems), decoded, damaged)


def vacuum(lake: Lake, *, dry_run: bool, older_than_hours: float = DEFAULT_VACUUM_HOURS) -> VacuumReport:
    """Remove files that no newest version names and that are older than `older_than_hours`; 0: however old they are.

    Older versions of the tables can no longer be read afterwards where a removed shard belonged to them.
    """
    removed: list[str] = []
    freed = 0
    newest_s = time.time() - older_than_hours * 3600
    for name in TABLES:
        folder = lake.table_folder(name)
        # Listed before the log is read: a shard committed in between is then in the log and stays.
        infos = folder.filesystem.get_file_info(fs.FileSelector(folder.path, allow_not_found=True))
        live = {shard.path for shard in lake.shards(name)[1]}
        for info in infos:
            is_ours = info.type == fs.FileType.File and info.base_name.endswith((".parquet", ".part"))
            # A file may be from the future, after a clock was set right.
            is_young = older_than_hours > 0 and (info.mtime_ns or 0) / 1e9 > newest_s
            if not is_ours or info.base_name in live or is_young:
                continue
            removed.append(f"{name}/{info.base_name}")
            freed += info.size or 0
            if not dry_run:
                folder.filesystem.delete_file(info.path)
    return VacuumReport(tuple(removed), freed)


def damaged_shards(
    lake: Lake, snapshot: LakeSnapshot, progress: Progress | None = None
) -> list[tuple[str, Shard, str]]:
    """Table, shard and what is wrong, of each shard that is missing or not what was written."""
    work = [(name, shard) for name, shards in snapshot.shards.items() for shard in shards]
    total = sum(shard.bytes for _, shard in work)
    found: list[tuple[str, Shard, str]] = []
    done = 0
    with ThreadPoolExecutor(_READER_THREADS) as pool:
        for (name, shard), problem in zip(work, pool.map(partial(_check_shard, lake), work), strict=True):
            if problem:
                found.append((name, shard, problem))
            done += shard.bytes
            if progress:
                progress(done, total)
    return found


def incomplete_units(
    lake: Lake, snapshot: LakeSnapshot, damaged: Damaged = MappingProxyType({}), *, of_one_ingest: bool = False
) -> set[str]:
    """Units that are listed and have not all their rows in the other tables, or too many.

    Args:
        lake: whose.
        snapshot: of it.
        damaged: table to shards that are looked past.
        of_one_ingest: also those whose rows were written by another run than the one that listed them: a table that
            was set back holds older rows, of two writers of one unit each may have won some tables.
    """
    columns = ["unit_id", "ingest_id", "slices", "lesions", "marks", "rows_quarantined", "files_quarantined"]
    units = whole_rows(lake, snapshot, UNITS.name, columns, damaged).to_pylist()
    found: set[str] = set()
    for table in SOURCE_TABLES.values():
        if table is UNITS:
            continue
        key = [table.unit_column, "ingest_id"]
        rows = whole_rows(lake, snapshot, table.name, key, damaged)
        counted = rows.group_by(key).aggregate([([], "count_all")]).to_pylist()
        held = {(row[table.unit_column], row["ingest_id"]): int(row["count_all"]) for row in counted}
        in_all: Counter[str] = Counter()
        for (unit_id, _), rows_held in held.items():
            in_all[unit_id] += rows_held
        for unit in units:
            if table is SERIES and unit["slices"] + unit["lesions"] == 0:
                # A series of which nothing was accepted has a row all the same; a source's odd files have none.
                continue
            wanted = _rows_due(unit, table.name)
            own = held.get((unit["unit_id"], unit["ingest_id"]), 0)
            if in_all[unit["unit_id"]] != wanted or (of_one_ingest and own != wanted):
                found.add(unit["unit_id"])
    return found


def _rows_due(unit: Mapping[str, Any], table: str) -> int:
    """How many rows a complete unit has in a table."""
    if table == QUARANTINE.name:
        return int(unit["rows_quarantined"] + unit["files_quarantined"])
    if table == SERIES.name:
        return 1
    return int(unit[table])


def whole_rows(
    lake: Lake, snapshot: LakeSnapshot, name: str, columns: list[str] | None, damaged: Damaged = MappingProxyType({})
) -> pa.Table:
    """A table's rows, but for those in damaged shards."""
    paths = [shard.path for shard in snapshot.shards[name] if shard.path not in damaged.get(name, ())]
    return persistently(lake.location.filesystem, lambda: lake.shard_dataset(name, paths).to_table(columns=columns))


def _check_shard(lake: Lake, work: tuple[str, Shard]) -> str | None:
    name, shard = work
    folder = lake.table_folder(name)
    label = f"{name}/{Path(shard.path).name}"
    try:
        with _opened(folder, shard.path) as stream:
            digest = file_sha256(stream)
        if digest[:DIGEST_DIGITS] != digest_in_name(shard.path):
            return f"{label}: the file is not what was written (its digest differs)"
        footer = shard_footer(folder, shard)
    except FileNotFoundError:
        return f"{label}: the shard is missing"
    except (OSError, pa.ArrowInvalid) as error:
        if isinstance(error, PermissionError) or is_of_a_store(error):
            # Nothing is known of the shard then: whoever repairs must not take it for a damaged one.
            raise LakeError(
                f"{label}: the shard cannot be looked at ({trouble(error)})",
                where=lake.url,
                next_step="check the place and your rights to it, and run the same command again",
            ) from error
        return f"{label}: the shard cannot be read ({type(error).__name__})"
    if footer.num_rows != shard.rows:
        return f"{label}: {footer.num_rows} rows where the log names {shard.rows}"
    return None


def _check_keys(lake: Lake, snapshot: LakeSnapshot) -> list[str]:
    """Every key stands once."""
    problems = []
    for name, table in TABLES.items():
        if not table.key:
            continue
        keys = whole_rows(lake, snapshot, name, list(table.key))
        repeats = keys.num_rows - keys.group_by(list(table.key)).aggregate([]).num_rows
        if repeats:
            problems.append(f"{name}: {repeats} rows repeat the key ({', '.join(table.key)}) of another")
    return problems


def _check_counts(lake: Lake, snapshot: LakeSnapshot) -> list[str]:
    """Each unit's counts add up, and the other tables hold what `units` says."""
    units = whole_rows(lake, snapshot, "units", None)
    problems = []
    for kind in ("rows", "files"):
        parts = pc.add(pc.add(units[f"{kind}_accepted"], units[f"{kind}_flagged"]), units[f"{kind}_quarantined"])
        broken = int(pc.sum(pc.not_equal(parts, units[f"{kind}_found"])).as_py() or 0)
        if broken:
            problems.append(f"units: the counts of {kind} do not add up in {broken} units")
    sums = _unit_sums(units)
    expected = {name: int(pc.sum(units[name]).as_py() or 0) for name in ("slices", "lesions", "marks")}
    expected["quarantine"] = sums["rows_quarantined"] + sums["files_quarantined"]
    for name, wanted in expected.items():
        if (found := snapshot.rows(name)) != wanted:
            problems.append(
                f"{name}: {found} rows where the complete units name {wanted} "
                "(an interrupted ingest leaves this; run it again)"
            )
    if incomplete := incomplete_units(lake, snapshot):
        problems.append(
            f"units: {len(incomplete)} have not their own number of rows in the other tables, such as "
            f"{min(incomplete)} (run `lesionary lake repair`, then the ingest again)"
        )
    return problems


def _check_pixels(lake: Lake, snapshot: LakeSnapshot) -> tuple[int, list[str]]:
    """Decode every slice and compare its digest."""
    problems: list[str] = []
    decoded = 0
    for shard in snapshot.shards["slices"]:
        count, damaged = persistently(lake.location.filesystem, partial(_check_pixels_of, lake, shard))
        decoded += count
        problems += [f"slices/{shard.path}: a slice does not decode to its digest"] * damaged
    return decoded, problems


def _check_pixels_of(lake: Lake, shard: Shard) -> tuple[int, int]:
    """Slices of a shard, and how many of them are damaged."""
    decoded = damaged = 0
    dataset = lake.shard_dataset("slices", [shard.path])
    for batch in dataset.to_batches(columns=["pixels", "pixel_digest"], batch_size=_DEEP_BATCH_ROWS):
        for pixels, digest in zip(batch.column(0), batch.column(1), strict=True):
            decoded += 1
            damaged += not _pixels_are(pixels, digest.as_py())
    return decoded, damaged


def _opened(folder: Location, name: str) -> BinaryIO:
    path = folder.join(name)
    return Path(path).open("rb") if folder.is_local else open_remote(folder.filesystem, path)


def _pixels_are(pixels: pa.BinaryScalar, digest: str) -> bool:
    try:
        return pixel_digest(decode_slice(pixels.as_buffer())) == digest
    except ArtifactError:
        return False


def _unit_sums(units: pa.Table) -> dict[str, int]:
    names = [name for name in units.column_names if name.startswith(("rows_", "files_"))]
    return {name: int(pc.sum(units[name]).as_py() or 0) for name in names}
