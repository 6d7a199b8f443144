"""Ingest on clusters that are not here: a simulation from costs that were measured on one machine.

    python benchmarks/simulate_scale.py [--terabytes 1,10,100] [--cores 1,2,16,64,256,512,1000] [--help]
    python benchmarks/simulate_scale.py --check       # against real runs with one and with two workers here

Nothing in the table was run on such a cluster. What is simulated, event by event:

* cores take tasks of whole shards; a task reads through its share of its node's network and of the object store's
  total, computes for as long as its slices take (log-normal spread), and writes likewise;
* one driver with one processor sends each task, takes each result, and every minute commits what came, in a time that
  grows with the shards that the log names already; results and free cores wait in one queue before it;
* nodes are lost now and then, and replaced after some minutes; what they were at is done again.

Not simulated: listing a slow source, other people's work on the cluster, an object store that throttles by prefix.
"""

import argparse
import heapq
import random
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

TERABYTE = 1e12
_SEED = 7
_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What was measured here with `scale_costs.py`, on the machine that docs/cluster.md names."""

    slice_s: float = 0.0076
    slice_spread: float = 0.07
    bytes_read: float = 261_000.0
    bytes_written: float = 210_000.0
    driver_task_s: float = 0.0047
    """Sending a task and taking its result."""
    plan_s: float = 18e-6
    """Of one slice, before the first task is sent."""
    plan_bytes: float = 255.0
    commit_base_s: float = 0.02
    commit_shard_s: float = 12e-6
    """For every shard that the log names already."""
    start_s: float = 8.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is assumed of a cluster and its object store."""

    cores: int
    cores_per_node: int = 16
    node_gbit_s: float = 10.0
    store_gbit_s: float = 400.0
    """Of all nodes together."""
    core_speed: float = 1.0
    """Against the core that was measured."""
    losses_per_node_hour: float = 0.02
    replacement_s: float = 180.0


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be taken in."""

    bytes: float
    shard_bytes: float = 256 * 2**20
    commit_every_s: float = 60.0
    tasks_per_core: int = 8
    smallest_task_bytes: float = 4 * 2**20

    def task_bytes(self, cores: int) -> float:
        """As `etl/ingest_tasks.cut_tasks` cuts them."""
        return min(self.shard_bytes, max(self.smallest_task_bytes, self.bytes / (cores * self.tasks_per_core)))


@dataclass(slots=True)
class Outcome:
    """How a simulated run went."""

    tasks: int
    slices: float
    seconds: float = 0.0
    plan_s: float = 0.0
    driver_busy_s: float = 0.0
    commit_s: float = 0.0
    cores_busy_s: float = 0.0
    redone: int = 0
    driver_memory_bytes: float = 0.0


def simulate(job: Job, cluster: Cluster, costs: Costs, seed: int = _SEED) -> Outcome:
    """One run, event by event."""
    rng = random.Random(seed)
    cores = cluster.cores
    size = job.task_bytes(cores)
    tasks = max(1, round(job.bytes / size))
    slices_each = size / costs.bytes_read
    out = Outcome(tasks, tasks * slices_each, driver_memory_bytes=tasks * slices_each * costs.plan_bytes)
    now = out.plan_s = costs.start_s + out.slices * costs.plan_s
    nodes = max(1, cores // cluster.cores_per_node)
    losses_a_second = cluster.losses_per_node_hour / _HOUR
    moved = slices_each * (costs.bytes_read + costs.bytes_written) * 8
    transfer_s = moved / (1e9 * min(cluster.node_gbit_s * nodes, cluster.store_gbit_s) / cores)
    driver_free = last_commit = now
    waiting_shards = log_shards = 0
    left, done = tasks, 0
    # (when, which): a core that comes free, with or without a result.
    events: list[tuple[float, int, bool]] = [(now, core, False) for core in range(min(cores, tasks))]
    heapq.heapify(events)
    while done < tasks:
        when, core, brings = heapq.heappop(events)
        driver_free = max(driver_free, when) + costs.driver_task_s / 2
        out.driver_busy_s += costs.driver_task_s / 2
        if brings:
            done += 1
            waiting_shards += 1
            if driver_free - last_commit >= job.commit_every_s or done == tasks:
                spent = costs.commit_base_s + costs.commit_shard_s * (log_shards + waiting_shards)
                driver_free += spent
                out.driver_busy_s += spent
                out.commit_s += spent
                log_shards, waiting_shards, last_commit = log_shards + waiting_shards, 0, driver_free
        if left == 0:
            continue
        left -= 1
        driver_free += costs.driver_task_s / 2
        out.driver_busy_s += costs.driver_task_s / 2
        spread = rng.lognormvariate(-(costs.slice_spread**2) / 2, costs.slice_spread)
        work_s = slices_each * costs.slice_s / cluster.core_speed * spread + transfer_s
        out.cores_busy_s += work_s
        begins = driver_free
        if rng.random() < work_s * losses_a_second:
            # Lost half-way: the task goes back, and the core is away until its node is replaced.
            left += 1
            out.redone += 1
            heapq.heappush(events, (begins + work_s / 2 + cluster.replacement_s, core, False))
        else:
            heapq.heappush(events, (begins + work_s, core, True))
    out.seconds = driver_free
    return out


def ideal_seconds(job: Job, cluster: Cluster, costs: Costs) -> float:
    """As if cores were all: no driver, no network, no losses."""
    return job.bytes / costs.bytes_read * costs.slice_s / cluster.core_speed / cluster.cores


def limit_of(out: Outcome, cluster: Cluster, costs: Costs, job: Job) -> str:
    """What a run mostly waited for."""
    if out.driver_busy_s > 0.9 * (out.seconds - out.plan_s):
        return "driver: commits" if out.commit_s > out.driver_busy_s / 2 else "driver: tasks"
    if out.plan_s > 0.5 * out.seconds:
        return "driver: planning"
    slices_each = job.task_bytes(cluster.cores) / costs.bytes_read
    compute = out.tasks * slices_each * costs.slice_s / cluster.core_speed
    return "network" if out.cores_busy_s > 2 * compute else "cores"


def table(terabytes: list[float], cores: list[int], cluster: Cluster, costs: Costs) -> list[str]:
    """The simulated runs as a table."""
    columns = (
        "TB", "cores", "hours", "slices/s", "of ideal", "driver busy", "planning", "commits", "tasks", "done again",
        "driver memory", "limit",
    )  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for size in terabytes:
        job = Job(size * TERABYTE)
        for count in cores:
            shape = replace(cluster, cores=count, cores_per_node=min(count, cluster.cores_per_node))
            out = simulate(job, shape, costs)
            lines.append(
                f"| {size:g} | {count:,} | {out.seconds / _HOUR:.1f} | {out.slices / out.seconds:,.0f} "
                f"| {ideal_seconds(job, shape, costs) / out.seconds:.0%} | {out.driver_busy_s / out.seconds:.0%} "
                f"| {out.plan_s / _HOUR:.2f} h | {out.commit_s / _HOUR:.2f} h | {out.tasks:,} | {out.redone:,} "
                f"| {out.driver_memory_bytes / 2**30:,.1f} GiB | {limit_of(out, shape, costs, job)} |"
            )
    return lines


def check(slices: int) -> None:
    """Real runs with one and with two workers beside their simulation, from costs measured just before."""
    import os
    import tempfile

    from make_release import write_release
    from scale_costs import driver_seconds_per_task, task_costs

    with tempfile.TemporaryDirectory(prefix="lsn-scale-") as work:
        source = write_release(Path(work, "release"), slices)
        found = task_costs(source, Path(work, "lake"))
        costs = replace(
            Costs(), slice_s=found.slice_s, slice_spread=found.slice_spread, bytes_read=found.bytes_read,
            bytes_written=found.bytes_written, plan_s=found.plan_s, start_s=0.0,
            driver_task_s=driver_seconds_per_task(200, int(found.result_bytes)),
        )  # fmt: skip
        job = Job(slices * found.bytes_read)
        for workers in (1, 2):
            here = Cluster(workers, workers, node_gbit_s=1e6, store_gbit_s=1e6, losses_per_node_hour=0.0)
            real = _real_seconds(source, Path(work, f"lake-{workers}"), workers)
            said = simulate(job, here, costs).seconds
            print(
                f"{workers} workers: {real:.1f} s measured, {said:.1f} s simulated, ratio {real / said:.2f}; "
                f"load {os.getloadavg()[0]:.1f}",
                flush=True,
            )


def _real_seconds(source: Path, lake: Path, workers: int) -> float:
    """An ingest on a Ray of our own, without its start."""
    import time

    from cli.cluster import ray_session
    from etl.ingest import ingest
    from etl.ingest_job import run_on_ray
    from etl.planning import plan_sources
    from lesionary.lake import Lake
    from lesionary.settings import IngestSettings

    settings = IngestSettings(namespace="dl")
    with ray_session(workers=workers):
        started = time.perf_counter()
        plan = plan_sources([str(source)], settings)
        ingest(Lake.create(str(lake)), plan, settings, choose_runner=lambda _: (run_on_ray, workers))
        return time.perf_counter() - started


def main() -> None:
    """Print the table, or check it against this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--terabytes", default="1,10,100")
    parser.add_argument("--cores", default="1,2,16,64,256,512,1000")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--slices", type=int, default=1000, help="of the check's source")
    for kind in (Costs, Cluster):
        for field in fields(kind):
            if field.name != "cores":
                parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    chosen = parser.parse_args()
    if chosen.check:
        check(chosen.slices)
        return
    costs = Costs(**{field.name: getattr(chosen, field.name) for field in fields(Costs)})
    shape = {field.name: getattr(chosen, field.name) for field in fields(Cluster) if field.name != "cores"}
    cluster = Cluster(cores=1, **shape | {"cores_per_node": int(chosen.cores_per_node)})
    sizes = [float(part) for part in chosen.terabytes.split(",")]
    print("\n".join(table(sizes, [int(part) for part in chosen.cores.split(",")], cluster, costs)))


if __name__ == "__main__":
    main()
