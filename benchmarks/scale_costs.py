"""What one slice, one task and one commit cost here: the figures that `simulate_scale.py` starts from.

    python benchmarks/scale_costs.py [--slices 1000] [--no-op-tasks 600] [--log-shards 1000,10000,100000]

Processor seconds, not the clock's, wherever one process is looked at: another job on the machine then does not count.
The commit is measured against logs that name so many shards, made for it; the shards themselves are not there, and a
commit does not look into those whose range of units lies elsewhere.
"""

import argparse
import json
import pickle
import statistics
import sys
import tempfile
import time
import tracemalloc
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).parent))

from make_release import write_release

_SHARDS_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class TaskCosts:
    """Of the workers' side, and of the plan."""

    slice_s: float
    """Processor seconds to read, check, encode and write one slice."""
    slice_spread: float
    """Standard deviation of a task's time over its mean."""
    bytes_read: float
    """Of one slice, in the source."""
    bytes_written: float
    """Of one slice, in the lake."""
    result_bytes: float
    """What one task brings back to the driver."""
    plan_s: float
    """Of the driver, to list and plan one slice."""
    plan_bytes: float
    """The driver's memory for one planned slice, and again for its task as it waits to be sent."""


@dataclass(frozen=True, slots=True)
class CommitCosts:
    """Of one batch in all its tables, with so many shards in the log."""

    log_shards: int
    processor_s: float
    wall_s: float
    log_bytes: int


def task_costs(source: Path, lake_folder: Path) -> TaskCosts:
    """Run an ingest's tasks in this process, and count."""
    from etl.ingest_tasks import cut_tasks, run_task
    from etl.planning import plan_sources
    from lesionary.lake import Lake
    from lesionary.settings import IngestSettings

    settings = IngestSettings(namespace="dl")
    plan_sources([str(source)], settings)
    started = time.process_time()
    plan = plan_sources([str(source)], settings)
    planned_s = time.process_time() - started
    tracemalloc.start()
    plan = plan_sources([str(source)], settings)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    lake = Lake.create(str(lake_folder))
    tasks = cut_tasks(list(plan.units), plan.tree, plan.child_limits, lake.url, "costs", settings, 8)
    sent = sum(len(pickle.dumps(task)) for task in tasks)
    seconds, written, came_back, slices = [], 0, 0, 0
    for task in tasks:
        started = time.process_time()
        result = run_task(task)
        spent = time.process_time() - started
        if result.slices is None:
            continue
        seconds.append(spent / result.slices.rows)
        slices += result.slices.rows
        written += result.slices.bytes
        came_back += len(pickle.dumps(result))
    return TaskCosts(
        slice_s=statistics.mean(seconds),
        slice_spread=statistics.stdev(seconds) / statistics.mean(seconds),
        bytes_read=plan.bytes_found / slices,
        bytes_written=written / slices,
        result_bytes=came_back / len(tasks),
        plan_s=planned_s / slices,
        plan_bytes=(held + sent) / slices,
    )


def driver_seconds_per_task(tasks: int, result_bytes: int) -> float:
    """Processor seconds of the driver for one task: to send it, to hear of it, to take what it brings."""
    from cli.cluster import ray_session
    from etl.ingest_job import run_on_ray

    # Does nothing, and brings as much back as a real task; of built-in parts, which every worker can unpickle.
    echo = SimpleNamespace(run=partial(bytes, result_bytes))
    with ray_session(workers=2):
        list(run_on_ray([echo] * 20))
        started = time.process_time()
        for _ in run_on_ray([echo] * tasks):
            pass
        return (time.process_time() - started) / tasks


def commit_costs(folder: Path, log_shards: int) -> CommitCosts:
    """Fill a table's log, then commit one batch more."""
    from deltalake.transaction import AddAction

    from lesionary.commits import Batch, commit
    from lesionary.lake import Lake
    from lesionary.schema import SLICES
    from lesionary.shards import Shard

    lake = Lake.create(str(folder))
    for start in range(0, log_shards, _SHARDS_AT_ONCE):
        delta = lake.delta(SLICES.name)
        shards = [
            Shard(f"20260101T000000-0000-{n:05d}-{'0' * 32}.parquet", 250_000_000, 1000, f"dl-{n:07d}a", f"dl-{n:07d}b")
            for n in range(start, min(start + _SHARDS_AT_ONCE, log_shards))
        ]
        actions = [
            AddAction(one.path, one.bytes, {}, 0, True, one.delta_statistics(SLICES.unit_column)) for one in shards
        ]
        delta.create_write_transaction(actions, mode="append", schema=delta.schema(), partition_by=[])
    new = Shard("new.parquet", 1, 1, "zz", "zz")
    Path(lake.table_folder(SLICES.name).path, new.path).write_bytes(b"x")
    cpu, wall = time.process_time(), time.perf_counter()
    commit(lake, Batch("costs", 1, frozenset({"zz"}), {SLICES.name: [new]}))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    log = sum(path.stat().st_size for path in Path(lake.table_folder(SLICES.name).path, "_delta_log").iterdir())
    return CommitCosts(log_shards, cpu, wall, log)


def main() -> None:
    """Measure everything and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--no-op-tasks", type=int, default=600)
    parser.add_argument("--log-shards", default="1000,10000,100000")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lsn-costs-") as work:
        source = write_release(Path(work, "release"), chosen.slices)
        found = task_costs(source, Path(work, "lake"))
        print(json.dumps(asdict(found)), flush=True)
        per_task = driver_seconds_per_task(chosen.no_op_tasks, int(found.result_bytes))
        print(json.dumps({"driver_s_per_task": per_task}), flush=True)
        for count in (int(part) for part in chosen.log_shards.split(",")):
            print(json.dumps(asdict(commit_costs(Path(work, f"log-{count}"), count))), flush=True)


if __name__ == "__main__":
    main()
