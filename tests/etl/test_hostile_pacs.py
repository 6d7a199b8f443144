"""Thousands of damaged inputs in one job: it ends, everything is accounted for, nothing takes more than its share."""

import random
import resource
from pathlib import Path

import pytest
from conftest import png_bytes, slice_hu
from fuzz.planted import LESION, NAMES, WHO
from pacs_files import adds_up, ct, enhanced, take_in

from etl.phantom.pacs_images import SYNTAXES
from etl.phantom.pacs_marks import aim_annotation, presentation_state, structured_report
from etl.quality import Reason
from etl.supervision import ChildLimits, this_process_child
from lesionary.lake import Lake


def seeds():
    """One good file of every kind."""
    files = {syntax: ct(syntax=syntax) for syntax in SYNTAXES if syntax != "enhanced"}
    files["enhanced"] = enhanced(2)
    files["sr"] = structured_report([LESION], NAMES, WHO, "srt", in_space=False)
    files["gsps"] = presentation_state([LESION], NAMES, WHO)
    files["aim.xml"] = aim_annotation(LESION, NAMES, WHO)
    files["png"] = png_bytes(slice_hu("000001_01_01", 1, 64))
    files["marks.csv"] = b"sop_instance_uid,long_x1,long_y1,long_x2,long_y2\n1.2.3.4,1,2,3,4\n"
    return files


def mutated(data, rng):
    """Flipped bytes, cut off, with a piece twice, a piece missing, or a length gone wild."""
    copy = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 40))):
        at = rng.randrange(len(copy))
        match rng.randrange(6):
            case 0 | 1 | 2:
                copy[at] = rng.randrange(256)
            case 3:
                copy[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff\xff\xff\x7f"))
            case 4:
                copy[at:at] = copy[max(0, at - rng.randrange(1, 200)) : at]
            case 5:
                del copy[at : at + rng.randrange(1, 64)]
        if not copy:
            break
    if rng.random() < 0.1:
        del copy[rng.randrange(len(copy) + 1) :]
    return bytes(copy)


def hostile_job(tmp_path, count, seed):
    rng = random.Random(seed)
    good = seeds()
    folder = tmp_path / "export"
    for number in range(count):
        name = rng.choice(sorted(good))
        path = folder / f"{number // 500:02d}" / f"{number:05d}.{name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(mutated(good[name], rng))
    lake = Lake.create(str(tmp_path / "lake"))
    return lake, take_in(lake, folder, tmp_path, file_seconds=10, file_memory_mb=1024)


def check(summary, count):
    counts = summary.tally.counts
    assert adds_up(counts)
    # Frames of enhanced files count one by one: at least one for every file.
    assert counts["files_found"] >= count
    assert sum(summary.tally.reasons.values()) == counts["files_quarantined"] + counts["rows_quarantined"]
    assert counts["files_quarantined"] > count / 10
    assert counts["files_accepted"] > 0


def test_hundreds_of_damaged_files_are_all_accounted_for(tmp_path):
    lake, summary = hostile_job(tmp_path, 300, seed=20261121)

    check(summary, 300)
    assert lake.read("quarantine").num_rows == sum(summary.tally.reasons.values())


@pytest.mark.slow
def test_five_thousand_damaged_files_and_a_flat_driver(tmp_path):
    hostile_job(tmp_path / "warm", 200, seed=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    lake, summary = hostile_job(tmp_path, 5_000, seed=20261122)

    check(summary, 5_000)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 200
    assert Reason.CHILD_TIME not in summary.tally.reasons or summary.tally.reasons[Reason.CHILD_TIME] < 50
    assert not list(Path(lake.url).rglob("core*"))
    child = this_process_child(ChildLimits(1024 << 20, 10.0))
    status = dict(line.split(":", 1) for line in Path(f"/proc/{child.pid}/status").read_text().splitlines())
    assert int(status["VmHWM"].split()[0]) < 1_500_000
