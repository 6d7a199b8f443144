"""A worker's share of an ingest: whole units read, checked, encoded and written as one shard of slices.

A worker gets *where* the images are, never the images, and returns the shard's name with the small tables of its
units. Nothing it writes is part of the lake until the driver commits it (`etl/ingest.py`).
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from etl.archive import SourceTree
from etl.pacs import PacsUnit
from etl.pacs_tasks import write_unit
from etl.planning import Unit
from etl.quality import Quarantined
from etl.release import ReleaseUnit, SliceRow, read_images
from etl.release_tables import ImagesOutcome, describe_unit
from etl.supervision import ChildLimits, this_process_child
from lesionary.lake import Lake
from lesionary.pixels import encode_slice, pixel_digest
from lesionary.schema import SLICES, SOURCE_TABLES
from lesionary.settings import IngestSettings
from lesionary.shards import Shard, ShardWriter

# Small enough that the last task does not leave a core waiting, large enough that a shard is worth its name.
_TASKS_PER_WORKER = 8
_SMALLEST_TASK_BYTES = 4 << 20

# Slices encoded before they are handed to the writer: 8 row groups, some 6 MB.
_SLICES_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class IngestTask:
    """One worker's share: whole units, about one shard of slices."""

    number: int
    ingest_id: str
    lake_url: str
    tree: SourceTree
    units: tuple[Unit, ...]
    child_limits: ChildLimits

    def run(self) -> "TaskResult":
        """Read, check, encode and write the task's units."""
        return run_task(self)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What a worker brings back: the name of its shard, and the rows of every other table."""

    unit_ids: tuple[str, ...]
    slices: Shard | None
    tables: Mapping[str, pa.Table]


def cut_tasks(
    units: Sequence[Unit],
    tree: SourceTree,
    child_limits: ChildLimits,
    lake_url: str,
    ingest_id: str,
    settings: IngestSettings,
    workers: int,
) -> list[IngestTask]:
    """Neighbouring units in tasks of about equal bytes, none above `shard_mb` unless a single unit is."""
    total = sum(unit.byte_count for unit in units)
    upper = settings.shard_mb << 20
    wanted = min(upper, max(_SMALLEST_TASK_BYTES, total // (workers * _TASKS_PER_WORKER)))
    groups: list[list[Unit]] = []
    filled = 0
    for unit in units:
        if not groups or filled + unit.byte_count > wanted:
            groups.append([])
            filled = 0
        groups[-1].append(unit)
        filled += unit.byte_count
    return [
        IngestTask(number, ingest_id, lake_url, tree, tuple(group), child_limits)
        for number, group in enumerate(groups, 1)
    ]


def run_task(task: IngestTask) -> TaskResult:
    """Read, check, encode and write one task's units."""
    folder = Lake.open(task.lake_url).table_folder("slices")
    described: list[dict[str, pa.Table]] = []
    with (
        task.tree,
        tempfile.TemporaryDirectory(prefix="lesionary-") as scratch,
        ShardWriter(SLICES, folder, f"{task.ingest_id}-{task.number:05d}", Path(scratch)) as writer,
    ):
        for unit in task.units:
            if isinstance(unit, PacsUnit):
                child = this_process_child(task.child_limits)
                described.append(write_unit(unit, task.tree, child, task.ingest_id, writer.write))
            else:
                described.append(describe_unit(unit, _write_images(unit, task, writer), task.ingest_id))
        shard = writer.finish()
    # In one piece: a chunk for every unit would weigh a hundred times its rows on the driver.
    tables = {
        name: pa.concat_tables([one[name] for one in described]).combine_chunks()
        for name in SOURCE_TABLES
        if name != SLICES.name
    }
    return TaskResult(tuple(unit.unit_id for unit in task.units), shard, tables)


def _write_images(unit: ReleaseUnit, task: IngestTask, writer: ShardWriter) -> ImagesOutcome:
    """Stream a unit's images into the shard, some row groups at a time."""
    outcome = ImagesOutcome()
    waiting: list[SliceRow] = []
    for item in read_images(unit, task.tree):
        outcome.add(item)
        if isinstance(item, Quarantined):
            continue
        waiting.append(item)
        if len(waiting) == _SLICES_AT_ONCE:
            writer.write(_encoded(waiting, task.ingest_id))
            waiting = []
    if waiting:
        writer.write(_encoded(waiting, task.ingest_id))
    return outcome


def _encoded(rows: Sequence[SliceRow], ingest_id: str) -> pa.Table:
    columns = {
        "series_id": [row.series_id for row in rows],
        "slice_index": [row.slice_index for row in rows],
        "z_mm": [row.z_mm for row in rows],
        "rows": [row.hu.shape[0] for row in rows],
        "columns": [row.hu.shape[1] for row in rows],
        "pixels": [encode_slice(row.hu) for row in rows],
        "pixel_digest": [pixel_digest(row.hu) for row in rows],
        "image_id": [None] * len(rows),
        "frame_number": [None] * len(rows),
        "position_xyz_mm": [None] * len(rows),
        "body_xyxy_px": [None] * len(rows),
        "flags": [[str(flag) for flag in row.flags] for row in rows],
        "ingest_id": [ingest_id] * len(rows),
    }
    return pa.table(columns, schema=SLICES.schema)
