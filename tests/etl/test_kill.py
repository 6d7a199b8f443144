"""kill -9 of the whole job at random moments: run again, it ends as if nothing had happened."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import annotation_row, write_release

from lesionary.lake import Lake
from lesionary.schema import SOURCE_TABLES, TABLES
from lesionary.upkeep import vacuum, verify

SEED = 20_261_120
KILLS = 10
SERIES = 40
HERE, ON_RAY = ["--workers", "1"], ["--workers", "2", "--ray-address", "local"]


def content_digest(url):
    """Digest of every row but who wrote it; pixels through their digests, which `verify --deep` checks."""
    lake = Lake.open(url)
    digest = hashlib.sha256()
    for name, table in TABLES.items():
        kept = [column for column in table.column_names if column not in {"ingest_id", "pixels"}]
        rows = sorted(json.dumps(row, default=str) for row in lake.read(name, columns=kept).to_pylist())
        digest.update("\n".join([name, *rows]).encode())
    return digest.hexdigest()


def start_ingest(release, lake, *options):
    program = "from cli.main import main; main()"
    command = [sys.executable, "-c", program, "ingest", release, "--lake", lake, "--commit-seconds", "1", *options]
    # A session of its own, so that the whole job (driver, Ray, workers) can be killed at once.
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def kill_job(process):
    """The driver and everything it started, whatever group Ray put it in."""
    victims = {process.pid}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == process.pid:  # the session
                victims.add(int(entry.name))
    for pid in victims:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(30)


@pytest.fixture(scope="module")
def big_release(tmp_path_factory):
    """Forty series of twelve slices with a quirk here and there."""
    names = [f"{number:06d}_01_01" for number in range(1, SERIES + 1)]
    rows = [annotation_row(File_name=f"{name}_{5:03d}.png") for name in names]
    release = write_release(tmp_path_factory.mktemp("kill") / "release", {name: range(1, 13) for name in names}, rows)
    (release / "Images_png" / names[3] / "005.png").write_bytes(b"broken")
    (release / "stray.txt").write_text("x")
    return release


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize(
    "options", [["--workers", "1"], ["--workers", "2", "--ray-address", "local"]], ids=["here", "ray"]
)
def test_killed_at_random_moments_and_rerun_it_ends_the_same(tmp_path, big_release, options):
    calm = str(tmp_path / "calm")
    started = time.monotonic()
    whole = start_ingest(big_release, calm, *options)
    assert whole.wait(300) == 0, whole.stderr.read()
    duration = time.monotonic() - started
    wanted = content_digest(calm)
    rng = random.Random(SEED)
    landed = 0
    for number in range(KILLS):
        lake = tmp_path / f"lake-{number}"
        moment = rng.uniform(0.15, 0.98) * duration
        job = start_ingest(big_release, str(lake), *options)
        try:
            job.wait(moment)
        except subprocess.TimeoutExpired:
            landed += 1
            kill_job(job)
        rerun = start_ingest(big_release, str(lake), *options)
        assert rerun.wait(300) == 0, rerun.stderr.read()
        vacuum(Lake.open(str(lake)), dry_run=False, older_than_hours=0)
        report = verify(Lake.open(str(lake)), deep=True)
        context = f"seed {SEED}, kill {number} at {moment:.2f} s of {duration:.2f} s"
        assert report.problems == (), context
        assert content_digest(str(lake)) == wanted, context
        for name in SOURCE_TABLES:
            folder = lake / "tables" / name
            live = {shard.path for shard in Lake.open(str(lake)).shards(name)[1]}
            assert {path.name for path in folder.iterdir() if path.is_file()} == live, context
        shutil.rmtree(lake)
    assert landed >= KILLS // 2, "most kills must land while the job runs"
