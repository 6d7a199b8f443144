"""Ingest without Ray: what is left to do, who does it, and committing what comes back.

The driver commits finished tasks every few seconds (`lesionary/commits.py`), so a crash loses at most that much work,
and a rerun skips every unit that is in `units` with the same fingerprint. Tasks run in this process or on Ray
(`etl/running.py`).
"""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from etl.deidentify import PROFILE
from etl.ingest_tasks import TaskResult, cut_tasks
from etl.pacs import PacsUnit
from etl.planning import Plan, Unit
from etl.running import RunnerChoice, always_here
from lesionary import __version__
from lesionary.commits import Batch, commit
from lesionary.identifiers import new_ingest_id
from lesionary.lake import Lake
from lesionary.object_stores import write_object
from lesionary.provenance import code_fingerprint
from lesionary.schema import SLICES, SOURCE_TABLES
from lesionary.settings import IngestSettings
from lesionary.shards import Shard, ShardWriter, make_durable

_RECORDS_FOLDER = "ingests"

COUNT_NAMES = tuple(
    f"{kind}_{state}" for kind in ("rows", "files") for state in ("found", "accepted", "flagged", "quarantined")
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is."""

    files_done: int
    files_total: int
    seconds: float

    @property
    def files_per_second(self) -> float:
        """Speed since the first task started."""
        return self.files_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At that speed; None before anything is done."""
        return (self.files_total - self.files_done) / self.files_per_second if self.files_done else None


@dataclass(frozen=True, slots=True)
class Tally:
    """How every input ended: accepted + flagged + quarantined = found, for rows and for files."""

    counts: Mapping[str, int]
    """By `COUNT_NAMES`."""
    flags: Mapping[str, int]
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class IngestSummary:
    """What an ingest did. `tally` covers the whole source, also what earlier runs had already taken in."""

    ingest_id: str
    units_found: int
    units_skipped: int
    """In the lake already."""
    units_kept: int
    """Of these, held by the lake from a state of the source that had more of them."""
    units_written: int
    slices_written: int
    seconds: float
    tally: Tally


ProgressListener = Callable[[Progress], None]


def units_to_do(lake: Lake | None, plan: Plan) -> list[Unit]:
    """The plan's units that the lake does not hold, or holds from another state of the source.

    A unit never shrinks: where the lake already holds more files or marks of a series than this source offers (the
    table alone, one zip of several, images without their reports), what it holds stays.
    """
    return _sorted_out(lake, plan)[0]


def _sorted_out(lake: Lake | None, plan: Plan) -> tuple[list[Unit], int]:
    """The units to do, and how many differ from the lake's and stay as they are there because they would shrink."""
    if lake is None:
        return list(plan.units), 0
    rows = lake.read("units", columns=["unit_id", "fingerprint", "files_found", "rows_found"]).to_pylist()
    known = {row["unit_id"]: row for row in rows}
    todo, kept = [], 0
    for unit in plan.units:
        held = known.get(unit.unit_id)
        if held is None:
            todo.append(unit)
        elif held["fingerprint"] != unit.fingerprint:
            if unit.may_shrink or not _shrinks(unit, held):
                todo.append(unit)
            else:
                kept += 1
    return todo, kept


def _shrinks(unit: Unit, known: Mapping[str, int]) -> bool:
    if unit.file_count < known["files_found"]:
        return True
    # A release's rows come from one table, which may be corrected; marks come from many files, which may be missing.
    return isinstance(unit, PacsUnit) and unit.row_count < known["rows_found"]


def ingest(
    lake: Lake,
    plan: Plan,
    settings: IngestSettings,
    *,
    choose_runner: RunnerChoice = always_here,
    progress: ProgressListener | None = None,
    record: Mapping[str, object] | None = None,
) -> IngestSummary:
    """Take a planned source into the lake; safe to run again after any interruption.

    Args:
        lake: where to.
        plan: what there is.
        settings: how.
        choose_runner: what runs the tasks.
        progress: told after every task.
        record: the resolved settings, saved with the counts in the lake's `ingests` folder.

    Raises:
        LakeError: the lake cannot be read or written.
    """
    started = time.monotonic()
    todo, kept = _sorted_out(lake, plan)
    ingest_id = new_ingest_id()
    runner, workers = choose_runner(sum(unit.byte_count for unit in todo))
    tasks = cut_tasks(todo, plan.tree, plan.child_limits, lake.url, ingest_id, settings, workers)
    with lake.being_written():
        written = _commit_results(lake, ingest_id, runner(tasks), settings.commit_seconds, _reporter(todo, progress))
    summary = IngestSummary(
        ingest_id=ingest_id,
        units_found=len(plan.units),
        units_skipped=len(plan.units) - len(todo),
        units_kept=kept,
        units_written=len(todo),
        slices_written=written,
        seconds=time.monotonic() - started,
        tally=tally(lake, [unit.unit_id for unit in plan.units]),
    )
    if todo:
        with lake.being_written():
            _save_record(lake, summary, plan, record or {})
    return summary


def _commit_results(
    lake: Lake,
    ingest_id: str,
    results: Iterable[TaskResult],
    commit_seconds: float,
    finished: Callable[[Sequence[str]], None],
) -> int:
    """Commit results as they come, every `commit_seconds` and at the end; the number of slices written."""
    waiting: list[TaskResult] = []
    slices_folder = lake.table_folder(SLICES.name)
    sequence, slices = 0, 0
    last_commit = time.monotonic()
    for result in results:
        waiting.append(result)
        # Now, while the workers go on, rather than in a row before the commit.
        make_durable(slices_folder, [result.slices] if result.slices else [])
        slices += result.slices.rows if result.slices else 0
        finished(result.unit_ids)
        if time.monotonic() - last_commit >= commit_seconds:
            sequence += 1
            _commit_batch(lake, ingest_id, sequence, waiting)
            waiting, last_commit = [], time.monotonic()
    if waiting:
        _commit_batch(lake, ingest_id, sequence + 1, waiting)
    return slices


def _commit_batch(lake: Lake, ingest_id: str, sequence: int, results: Sequence[TaskResult]) -> None:
    shards: dict[str, list[Shard]] = {SLICES.name: [result.slices for result in results if result.slices]}
    with tempfile.TemporaryDirectory(prefix="lesionary-") as scratch:
        for name, table in SOURCE_TABLES.items():
            if name == SLICES.name:
                continue
            rows = pa.concat_tables([result.tables[name] for result in results]).sort_by(table.unit_column)
            folder = lake.table_folder(name)
            with ShardWriter(table, folder, f"{ingest_id}-b{sequence:04d}", Path(scratch)) as writer:
                writer.write(rows)
                shard = writer.finish()
            shards[name] = [shard] if shard else []
    unit_ids = frozenset(unit_id for result in results for unit_id in result.unit_ids)
    commit(lake, Batch(ingest_id, sequence, unit_ids, shards))


def _reporter(todo: Sequence[Unit], listener: ProgressListener | None) -> Callable[[Sequence[str]], None]:
    """Turns finished units into progress."""
    files = {unit.unit_id: unit.image_count for unit in todo}
    total, started = sum(files.values()), time.monotonic()
    done = 0

    def finished(unit_ids: Sequence[str]) -> None:
        nonlocal done
        done += sum(files[unit_id] for unit_id in unit_ids)
        if listener:
            listener(Progress(done, total, time.monotonic() - started))

    return finished


def tally(lake: Lake, unit_ids: Sequence[str]) -> Tally:
    """Counts, flags and reasons of some units as the lake holds them now."""
    wanted = pa.array(unit_ids, pa.string())
    units = lake.read("units", where=pc.field("unit_id").isin(wanted))
    # Slices are many and their flags few: only units that are known to have some are looked through.
    odd = units.filter(pc.greater(units["files_flagged"], 0))["unit_id"]
    flags: Counter[str] = Counter()
    for name, key, chosen in (
        ("lesions", "series_id", wanted),
        ("marks", "unit_id", wanted),
        ("slices", "series_id", odd.combine_chunks()),
    ):
        if len(chosen) == 0:
            continue
        rows = lake.read(name, columns=["flags"], where=pc.field(key).isin(chosen))
        counted = pc.value_counts(pc.list_flatten(rows["flags"].combine_chunks()))
        # A lesion repeats its mark's flags: each is counted where there are more of it.
        for entry in counted.to_pylist():
            flags[entry["values"]] = max(flags[entry["values"]], entry["counts"])
    quarantined = lake.read("quarantine", columns=["reason"], where=pc.field("unit_id").isin(wanted))
    return Tally(
        counts={name: int(pc.sum(units[name]).as_py() or 0) for name in COUNT_NAMES},
        flags=dict(sorted(flags.items())),
        reasons=dict(sorted(Counter(quarantined["reason"].to_pylist()).items())),
    )


def _save_record(lake: Lake, summary: IngestSummary, plan: Plan, settings: Mapping[str, object]) -> None:
    """Keep what was done, with which settings and which code, in the lake's `ingests` folder."""
    record = {**asdict(summary), "settings": settings, "code": code_fingerprint(), "version": __version__}
    if plan.key_id is not None:
        profile = [{"code": code, "meaning": meaning} for code, meaning in PROFILE]
        record["deidentification"] = {"profile": profile, "key_id": plan.key_id}
    location = lake.location
    location.filesystem.create_dir(location.join(_RECORDS_FOLDER), recursive=True)
    content = (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()
    write_object(location.filesystem, location.join(_RECORDS_FOLDER, f"{summary.ingest_id}.json"), content)
