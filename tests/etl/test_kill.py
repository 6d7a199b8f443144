"""kill -9 of the whole job at random moments: run again, it ends as if nothing had happened."""

import random
import shutil
import subprocess
import time

import pytest
from conftest import annotation_row, write_release
from faults.digests import content_digest, stray_shards
from faults.processes import kill_tree, start_command, wait_for

from lesionary.lake import Lake
from lesionary.upkeep import vacuum, verify

SEED = 20_261_120
KILLS = 10
SERIES = 40
HERE, ON_RAY = ["--workers", "1"], ["--workers", "2", "--ray-address", "local"]


def start_ingest(release, lake, *options):
    return start_command("ingest", release, "--lake", lake, "--commit-seconds", "1", *options)


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
@pytest.mark.parametrize("options", [HERE, ON_RAY], ids=["here", "ray"])
def test_killed_at_random_moments_and_rerun_it_ends_the_same(tmp_path, big_release, options):
    calm = str(tmp_path / "calm")
    started = time.monotonic()
    whole = wait_for(start_ingest(big_release, calm, *options))
    assert whole.code == 0, whole.said
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
            kill_tree(job)
        rerun = wait_for(start_ingest(big_release, str(lake), *options))
        assert rerun.code == 0, rerun.said
        vacuum(Lake.open(str(lake)), dry_run=False, older_than_hours=0)
        report = verify(Lake.open(str(lake)), deep=True)
        context = f"seed {SEED}, kill {number} at {moment:.2f} s of {duration:.2f} s"
        assert report.problems == (), context
        assert content_digest(str(lake)) == wanted, context
        assert stray_shards(lake) == [], context
        shutil.rmtree(lake)
    assert landed >= KILLS // 2, "most kills must land while the job runs"
