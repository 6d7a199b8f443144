"""Repair: what is damaged goes out of the lake, and so does everything that is incomplete without it.

Nothing is invented: afterwards the lake is whole and smaller, and the commands that made it put back what is missing.
Units of a source that lost rows are no longer listed in `units`, so the next `ingest` of that source takes them in
again; results that lost rows are computed again by the command that computes them.

* A log that cannot be read goes back to its newest readable version: later entries get the suffix `.damaged`.
* A shard that is missing or not what was written is no longer named; its file, if any, stays until a vacuum.

Killed at any moment and run again, it ends the same: `units` is changed before any other table, and tables with damage
come last, so that what is incomplete is found again.
"""

import bisect
import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import pyarrow.compute as pc
from deltalake import DeltaTable
from pyarrow import fs

from lesionary.commits import Change, commit_changes, last_sequence, without_units
from lesionary.detection_tables import DETECTION_BOXES, DETECTION_SERIES, DETECTIONS, MASKED_LESIONS, MASKS
from lesionary.errors import LakeError
from lesionary.identifiers import new_ingest_id
from lesionary.lake import Lake, LakeSnapshot
from lesionary.object_stores import is_of_a_store
from lesionary.schema import (
    FEATURE_SETS,
    LOCATION_MODELS,
    LOCATIONS,
    MATCH_EDGES,
    MATCH_RUNS,
    MATCHES,
    SERIES_LOCATIONS,
    SOURCE_TABLES,
    TABLES,
    UNITS,
)
from lesionary.table_shards import live_shards
from lesionary.upkeep import Damaged, Progress, damaged_shards, incomplete_units, whole_rows

_LOG_FOLDER = "_delta_log"
_SET_ASIDE = ".damaged"
_ENTRY = re.compile(r"(\d{20})\.json")

# Tables whose rows of one unit are of no use without each other. Rows of the rest say themselves what they were made
# from, and whoever adds to them finds what is missing.
_TOGETHER = (
    (MATCH_EDGES.name, MATCHES.name, MATCH_RUNS.name),
    (SERIES_LOCATIONS.name, LOCATIONS.name, LOCATION_MODELS.name),
    (DETECTION_BOXES.name, DETECTIONS.name, DETECTION_SERIES.name),
    (MASKS.name, MASKED_LESIONS.name),
    (FEATURE_SETS.name,),
)
_LAST_NAME = "\U0010ffff"


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was taken out; nothing at all where the lake was whole."""

    logs: tuple[str, ...]
    """Entries of logs that were set aside."""
    shards: tuple[str, ...]
    """Shards that are no longer named, each with what was wrong."""
    units: tuple[str, ...]
    """Units of sources that are incomplete now; `ingest` of their sources takes them in again."""
    results: Mapping[str, tuple[str, ...]]
    """Table of results to the units of it that were dropped or lost rows; the commands that made them do so again."""

    @property
    def nothing_done(self) -> bool:
        """Whether the lake was whole."""
        return not (self.logs or self.shards or self.units or self.results)


def repair(lake: Lake, *, progress: Progress | None = None) -> RepairReport:
    """Take everything out of a lake that is damaged, or incomplete because of it.

    Raises:
        LakeError: the lake cannot be written.
        CommitConflictError: other writers won every race for a table.
    """
    set_aside = {name: entries for name in TABLES if (entries := _readable_log(lake, name))}
    snapshot = lake.snapshot()
    damaged: dict[str, dict[str, str]] = defaultdict(dict)
    for name, shard, problem in damaged_shards(lake, snapshot, progress):
        damaged[name][shard.path] = problem
    hurt = damaged.keys() | set_aside.keys()
    units = incomplete_units(lake, snapshot, damaged, of_one_ingest=True)
    gone = _results_to_drop(lake, snapshot, damaged, set_aside)
    if units:
        gone[UNITS.name] = units
    prefix = new_ingest_id()
    for name in sorted(TABLES, key=lambda name: (name != UNITS.name, name in hurt)):
        if damaged.get(name) or gone.get(name):
            _take_out(lake, name, damaged.get(name, {}), gone.get(name, set()), prefix)
    return RepairReport(
        logs=tuple(entry for entries in set_aside.values() for entry in entries),
        shards=tuple(problem for problems in damaged.values() for problem in problems.values()),
        units=tuple(sorted(units)),
        results={
            name: tuple(sorted(gone.get(name, set()) | _touched(snapshot, name, damaged)))
            for name in TABLES
            if name not in SOURCE_TABLES and (gone.get(name) or damaged.get(name))
        },
    )


def _readable_log(lake: Lake, name: str) -> list[str]:
    """Make a table's log readable; what was set aside for it."""
    if not lake.has_table(name) or _opens(lake, name):
        return []
    filesystem, folder = lake.location.filesystem, lake.table_folder(name)
    infos = filesystem.get_file_info(fs.FileSelector(folder.join(_LOG_FOLDER), allow_not_found=True))
    files = {info.base_name: info.path for info in infos if not info.base_name.endswith(_SET_ASIDE)}
    moved: list[str] = []

    def set_aside(base: str) -> None:
        filesystem.move(files[base], f"{files[base]}{_SET_ASIDE}")
        moved.append(f"{name}/{_LOG_FOLDER}/{base}")

    # Entries are kept for ever, so a checkpoint says nothing that they do not.
    for base in sorted(files):
        if "checkpoint" in base:
            set_aside(base)
    if moved and _opens(lake, name):
        return moved
    versions = sorted((int(found[1]), base) for base in files if (found := _ENTRY.fullmatch(base)))
    # The log reads up to its first damaged entry, and no further.
    readable = bisect.bisect_left(versions, True, key=lambda version: not _opens(lake, name, version[0]))
    for _, base in versions[readable:]:
        set_aside(base)
    lake.make_table(name)
    return moved


def _opens(lake: Lake, name: str, version: int | None = None) -> bool:
    try:
        found, _ = lake.shards(name, version)
        last_sequence(lake, name, lake.delta(name, version), "")
    except LakeError as error:
        if error.__cause__ is not None and is_of_a_store(error.__cause__):
            # The store fails, not the log: nothing is known of that.
            raise
        return False
    return version in {None, found}


def _results_to_drop(
    lake: Lake, snapshot: LakeSnapshot, damaged: Damaged, set_back: Collection[str]
) -> dict[str, set[str]]:
    """Table of results to the units that go with what is lost of tables beside it."""
    found: dict[str, set[str]] = {}
    for family in _TOGETHER:
        ranges = [("", _LAST_NAME) for name in family if name in set_back]
        ranges += [
            (shard.low_unit, shard.high_unit)
            for name in family
            for shard in snapshot.shards[name]
            if shard.path in damaged.get(name, ())
        ]
        for name in family if ranges else ():
            rows = whole_rows(lake, snapshot, name, [TABLES[name].unit_column], damaged)
            units = pc.unique(rows.column(0)).to_pylist()
            if hit := {unit for unit in units if any(low <= unit <= high for low, high in ranges)}:
                found[name] = hit
    return found


def _take_out(lake: Lake, name: str, damaged: Collection[str], units: Collection[str], prefix: str) -> None:
    """One transaction: shards that are damaged go, and the rows of these units out of the others."""
    table = TABLES[name]

    def decide(delta: DeltaTable) -> Change:
        shards = live_shards(delta, table)
        whole = [shard for shard in shards if shard.path not in damaged]
        change = without_units(lake, table, whole, units, prefix)
        return Change(change.added, [shard for shard in shards if shard.path in damaged] + [*change.removed])

    commit_changes(lake, table, prefix, decide)


def _touched(snapshot: LakeSnapshot, name: str, damaged: Damaged) -> set[str]:
    """Units at the two ends of each damaged shard: all that is known of what it held."""
    lost = [shard for shard in snapshot.shards[name] if shard.path in damaged.get(name, ())]
    return {unit for shard in lost for unit in (shard.low_unit, shard.high_unit)}
