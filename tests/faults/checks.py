"""What must hold while a fault is there, after it, and at the end; a check gives sentences, none where it holds."""

import re
from dataclasses import replace
from pathlib import Path

from faults.worlds import outcome_of, store_rows

from lesionary.errors import LesionaryError
from lesionary.lake import Lake
from lesionary.upkeep import incomplete_units, vacuum, verify

_FULL = re.compile(r"no space left|disk is full|disk full", re.IGNORECASE)
# A sentence of ours, and at most as many notes before it (a run that can be gone on with, a wait).
_MOST_LINES = 4


def clear_refusal(done, *, naming=()):
    """A command that could not do what was asked: exit 2, one sentence, nothing of Python's."""
    lines = [line for line in done.said.splitlines() if line.strip()]
    found = [] if done.code == 2 else [f"exit code {done.code}"]
    if done.has_traceback or "panicked" in done.said:
        found.append("a traceback")
    if not lines or not lines[-1].startswith("lesionary: ") or len(lines) > _MOST_LINES:
        found.append(f"no single clear line ({len(lines)} lines)")
    if naming and not any(name in done.said for name in naming):
        found.append(f"says nothing of {' or '.join(naming)}")
    return [f"refusal: {one}; it said {done.said[-600:]!r}" for one in found]


def says_the_disk_is_full(done):
    """The reason is the disk, and the operator reads so."""
    return [] if _FULL.search(done.said) else [f"does not say that the disk is full: {done.said[-600:]!r}"]


def readers_see_whole_versions(folder, before, after):
    """A reader of the store sees what was there before or what is there afterwards; units of the lake are complete."""
    found = []
    try:
        seen = store_rows(folder / "lake" / "features.duckdb")
    except LesionaryError as error:
        return [f"a reader of the store is refused: {error}"]
    if seen not in (before, after):
        found.append("a reader of the store sees neither the old nor the new version")
    return found + units_are_complete(folder / "lake")


def units_are_complete(lake_folder):
    """Whatever `units` lists has all its rows in the other tables, of the same ingest."""
    if not (lake_folder / "lake.json").exists():
        return []
    lake = Lake.open(str(lake_folder))
    units = sorted(incomplete_units(lake, lake.snapshot()))
    return [f"listed without all their rows: {', '.join(units)}"] if units else []


def ends_as_if_nothing_had_happened(folder, calm, *, store_too=True):
    """The same content as the calm run's, a lake that is whole, and nothing left lying about."""
    lake = Lake.open(str(folder / "lake"))
    found = [f"verify: {problem}" for problem in verify(lake, deep=True).problems]
    ended = outcome_of(folder)
    ended = ended if store_too else replace(ended, store=calm.store)
    if difference := ended.differs_from(calm):
        found.append(f"not the same: {difference}")
    vacuum(lake, dry_run=False, older_than_hours=0)
    return found + leftovers(lake)


def leftovers(lake):
    """Files of tables that no version names and no vacuum removes, and half-written files anywhere in the lake."""
    found = []
    for name, shards in lake.snapshot().shards.items():
        folder = Path(lake.table_folder(name).path)
        live = {shard.path for shard in shards}
        if folder.is_dir():
            found += [f"left in {name}: {file.name}" for file in folder.iterdir() if file.is_file()
                      and file.name not in live]  # fmt: skip
    return found + [f"left half-written: {file}" for file in Path(lake.url).rglob("*.part*")]
