"""Nodes, drivers and the head killed under ingest and embed: whatever happens, the lake ends as the calm run's.

    python tests/cluster/campaign.py --runs 32 --seed 7 --results results.jsonl
    python tests/cluster/campaign.py --seed 7 --only 12          # one of them again

A run's number and the seed alone decide what is killed and when, as a share of the calm run's time. Where exactly the
job is at that moment is the machine's business; `reached` says what it had written by then.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

import imagecodecs
import numpy as np
from cluster.ray_nodes import RayNodes
from conftest import annotation_csv, annotation_row
from faults.digests import content_digest, stray_shards
from faults.processes import kill_tree, start_command, wait_for

from lesionary.lake import Lake
from lesionary.upkeep import vacuum, verify

NODES = 3
JOBS = ("ingest", "embed")
HARMS = {
    "node": "a worker node killed",
    "node replaced": "a worker node killed, and a fresh one started 2 seconds later",
    "two nodes": "both worker nodes killed half a second apart, and a fresh one started",
    "cable": "a worker node's cable pulled: its processes go on, unheard",
    "driver": "the driver killed, and the command run again",
    "node and driver": "a worker node killed, the driver a second later, and the command run again",
    "head": "the head killed: the command has to end with one line, and is run again on a new cluster",
}
_WEIGHTS = (5, 4, 4, 2, 4, 3, 2)

_PATIENTS, _SLICES, _SIDE, _MARKS = 30, 12, 512, 10
# Ray may take seven minutes to notice a pulled cable: so long its clients wait before they ask whether anybody is
# there, and then for an answer.
_JOB_SECONDS = 600
_LOOK_SECONDS = 0.02
# Of the calm run's working time; a little past its end, as machines differ from run to run.
_EARLIEST, _LATEST = 0.0, 0.9


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to do: follows from its number and the seed."""

    number: int
    job: str
    harm: str
    share: float
    """Of the calm run's working time, from the first thing it wrote, at which the harm is done."""
    victim: int
    """Which of the workers is first."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; no problems means as the calm run did."""

    plan: Plan
    landed: bool
    """Whether the job was still at work when the harm was done."""
    reached: int
    """Files that it had written by then."""
    seconds: float
    reruns: int
    problems: list[str]


def plan_of(seed: int, number: int) -> Plan:
    """What run `number` does."""
    rng = random.Random(f"{seed}-{number}")
    harm = rng.choices(tuple(HARMS), _WEIGHTS)[0]
    return Plan(number, JOBS[number % 2], harm, round(rng.uniform(_EARLIEST, _LATEST), 3), rng.randrange(NODES - 1))


def write_source(folder: Path, patients: int = _PATIENTS) -> Path:
    """A release of noise, which takes long to decode and encode, with many marks and a quirk here and there."""
    rows = []
    for patient in range(1, patients + 1):
        name = f"{patient:06d}_01_01"
        target = folder / "Images_png" / name
        target.mkdir(parents=True)
        noise = np.random.default_rng(patient).integers(-1024, 3071, (_SLICES, _SIDE, _SIDE), dtype=np.int16)
        for index, hu in enumerate(noise, 1):
            png = imagecodecs.png_encode((hu.astype(np.int32) + 32768).astype(np.uint16), level=1)
            (target / f"{index:03d}.png").write_bytes(png)
        rows += [_mark(name, number) for number in range(_MARKS)]
    (folder / "Images_png" / "000002_01_01" / "004.png").write_bytes(b"broken")
    (folder / "DL_info.csv").write_bytes(annotation_csv(*rows))
    return folder


def _mark(series: str, number: int) -> dict[str, str]:
    x, y, half = 60 + 35 * number, 150 + 20 * number, 6 + number
    return annotation_row(
        File_name=f"{series}_{3 + number % 8:03d}.png",
        Measurement_coordinates=f"{x - half}, {y}, {x + half}, {y}, {x}, {y - 5}, {x}, {y + 5}",
        Bounding_boxes=f"{x - half - 5}, {y - 10}, {x + half + 5}, {y + 10}",
        Lesion_diameters_Pixel_=f"{2 * half}, 10",
        Slice_range="1, 12",
        Image_size=f"{_SIDE}, {_SIDE}",
    )


class Campaign:
    """A source, what calm runs make of it, and a cluster that is mended after every run."""

    def __init__(self, work: Path, patients: int = _PATIENTS) -> None:
        """Write the source and let both jobs run calmly."""
        self._work = work
        self._source = write_source(work / "release", patients)
        self.cluster = RayNodes(NODES)
        self._ingested = work / "ingested"
        self._wanted: dict[str, str] = {}
        self._working_s: dict[str, float] = {}
        try:
            for job in JOBS:
                self._calm(job, self._ingested if job == "ingest" else self._copy("calm-embed"))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the cluster."""
        self.cluster.close()

    def calm_seconds(self) -> dict[str, float]:
        """How long each job works when nothing happens."""
        return dict(self._working_s)

    def run(self, plan: Plan) -> Outcome:
        """One job with one harm, and a look at what is left."""
        lake = self._work / f"lake-{plan.number}" if plan.job == "ingest" else self._copy(f"lake-{plan.number}")
        started = time.monotonic()
        problems: list[str] = []
        job = self._start(plan.job, lake)
        landed = self._wait_until(job, lake, plan)
        reached = len(_written(plan.job, lake))
        reruns = 0
        if landed:
            self._harm(plan, job)
            reruns = self._end(plan, job, lake, problems)
        else:
            _finished(job, problems, "the job")
        self._check(plan.job, lake, problems)
        self._mend()
        shutil.rmtree(lake, ignore_errors=True)
        return Outcome(plan, landed, reached, round(time.monotonic() - started, 1), reruns, problems)

    def _calm(self, job: str, lake: Path) -> None:
        process = self._start(job, lake)
        while not _written(job, lake) and process.poll() is None:
            time.sleep(_LOOK_SECONDS)
        began = time.monotonic()
        problems: list[str] = []
        _finished(process, problems, f"the calm {job}")
        if problems:
            raise RuntimeError("; ".join(problems))
        self._working_s[job] = time.monotonic() - began
        self._wanted[job] = content_digest(lake, to_the_bit=True)

    def _start(self, job: str, lake: Path) -> subprocess.Popen:
        words = {
            "ingest": ["ingest", str(self._source), "--commit-seconds", "1"],
            # One patch at once: what a network computes may differ in the last bits with what else is in the batch.
            "embed": [
                "embed", "--features", "multi-scale", "--backbone", "narrow", "--weights", "none",
                "--workers", str(NODES), "--batch-size", "1", "--precision", "fp32", "--gpus", "0",
            ],
        }[job]  # fmt: skip
        return start_command(
            *words, "--lake", lake, "--ray-address", self.cluster.address,
            cwd=self._work, environment=self.cluster.environment(), prefix=self.cluster.head.prefix,
        )  # fmt: skip

    def _wait_until(self, job: subprocess.Popen, lake: Path, plan: Plan) -> bool:
        """Wait for the moment of the harm; whether the job is still there."""
        while not _written(plan.job, lake) and job.poll() is None:
            time.sleep(_LOOK_SECONDS)
        began = time.monotonic()
        try:
            job.wait(plan.share * self._working_s[plan.job])
        except subprocess.TimeoutExpired:
            return True
        # The machine is quicker by now than in the calm run: the next moments are drawn from this.
        self._working_s[plan.job] = time.monotonic() - began
        return False

    def _harm(self, plan: Plan, job: subprocess.Popen) -> None:
        workers = self.cluster.workers
        first, second = workers[plan.victim], workers[1 - plan.victim]
        if plan.harm == "head":
            self.cluster.kill(self.cluster.head)
        elif plan.harm == "cable":
            self.cluster.cut_off(first)
        elif plan.harm != "driver":
            self.cluster.kill(first)
        if plan.harm == "two nodes":
            time.sleep(0.5)
            self.cluster.kill(second)
        if plan.harm in {"node replaced", "two nodes"}:
            time.sleep(2.0)
            self.cluster.add(wait=False)
        if plan.harm == "node and driver":
            time.sleep(1.0)
        if plan.harm in {"driver", "node and driver"}:
            kill_tree(job)

    def _end(self, plan: Plan, job: subprocess.Popen, lake: Path, problems: list[str]) -> int:
        """Let the harmed job come to its end, and run it again where that is what a person would do."""
        if plan.harm == "head":
            _ended_with_one_line(job, problems)
            self.cluster.close()
            self.cluster = RayNodes(NODES)
        elif plan.harm not in {"driver", "node and driver"}:
            _finished(job, problems, "the job")
            return 0
        _finished(self._start(plan.job, lake), problems, "the rerun")
        return 1

    def _check(self, job: str, lake: Path, problems: list[str]) -> None:
        if problems:
            return
        opened = Lake.open(str(lake))
        vacuum(opened, dry_run=False, older_than_hours=0)
        problems += verify(opened, deep=True).problems
        problems += [f"{name} is left over" for name in stray_shards(lake)]
        if content_digest(lake, to_the_bit=True) != self._wanted[job]:
            problems.append("the rows differ from the calm run's")

    def _mend(self) -> None:
        while len(self.cluster.workers) < NODES - 1:
            self.cluster.add()

    def _copy(self, name: str) -> Path:
        """The ingested lake again; what is written once is linked."""
        return Path(shutil.copytree(self._ingested, self._work / name, copy_function=os.link))


def _written(job: str, lake: Path) -> list[Path]:
    """What a job has written so far."""
    pattern = "tables/slices/*.part*" if job == "ingest" else "cache/*/*"
    found = list(lake.glob(pattern)) + list(lake.glob(f"tables/{'slices' if job == 'ingest' else 'embeddings'}/*"))
    return [path for path in found if path.name != "_delta_log"]


def _finished(job: subprocess.Popen, problems: list[str], which: str) -> None:
    """Wait for a job that has to succeed."""
    ended = wait_for(job, _JOB_SECONDS)
    if ended.code != 0:
        problems.append(f"{which} ended with {ended.code}: {ended.said.strip()[-400:]}")


def _ended_with_one_line(job: subprocess.Popen, problems: list[str]) -> None:
    """Wait for a job that cannot succeed, and has to say so in one line."""
    ended = wait_for(job, _JOB_SECONDS)
    lines = [line for line in ended.said.splitlines() if line.strip()]
    if ended.code != 1 or len(lines) != 1 or not lines[0].startswith("lesionary: "):
        problems.append(f"after the head's death the command ended with {ended.code}: {ended.said.strip()[-600:]}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--runs", type=int, default=32, help="runs 0 to RUNS - 1")
    parser.add_argument("--start", type=int, default=0, help="begin with this run")
    parser.add_argument("--only", type=int, help="this run alone")
    parser.add_argument("--harm", choices=tuple(HARMS), help="this harm in every run, whatever the seed says")
    parser.add_argument("--results", type=Path, help="a file to which each run's outcome is added as a line of JSON")
    chosen = parser.parse_args()
    numbers = range(chosen.start, chosen.runs) if chosen.only is None else [chosen.only]
    failed = 0
    with tempfile.TemporaryDirectory(prefix="lsn-campaign-") as work:
        campaign = Campaign(Path(work))
        try:
            _say(f"{campaign.cluster.form}; calm runs work for {campaign.calm_seconds()} s")
            for number in numbers:
                plan = plan_of(chosen.seed, number)
                outcome = campaign.run(plan if chosen.harm is None else replace(plan, harm=chosen.harm))
                failed += bool(outcome.problems)
                line = json.dumps({"seed": chosen.seed} | asdict(outcome))
                _say(line)
                if chosen.results:
                    with chosen.results.open("a") as sink:
                        sink.write(line + "\n")
        finally:
            campaign.close()
    _say(f"{failed} of {len(numbers)} runs ended otherwise than the calm run")
    sys.exit(bool(failed))


if __name__ == "__main__":
    _main()
