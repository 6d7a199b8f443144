"""Each fault once, on the quicker commands; `campaign.py` has all of them on all commands, by the hundred."""

import subprocess
import sys

import pytest
from faults.campaign import combinations, planned, play, table
from faults.forking import Forker
from faults.watching import Watch
from faults.worlds import World

SEED = 20_261_127
SLICE = (
    ("ingest more", "kill driver"), ("ingest", "kill everything"), ("ingest pacs", "kill a worker"),
    ("ingest more", "pause"), ("match", "two at once"), ("match", "lock removed"), ("match", "lock left"),
    ("ingest more", "full disk"), ("ingest", "full disk"), ("match", "full disk"), ("ingest", "read-only"),
    ("ingest more", "clock ahead"), ("ingest pacs", "shard flip_bit"), ("match", "shard zero_page"),
    ("ingest", "shard delete"), ("ingest more", "log truncate"), ("match", "checkpoint truncate"),
    ("match", "store scramble_page"), ("match", "vectors flip_bit"),
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("faults"), Forker())
    world.make_sources()
    return world


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("operation", "fault"), SLICE)
def test_a_fault_loses_nothing_and_doubles_nothing(world, operation, fault):
    record = play(world, SLICE.index((operation, fault)), SEED, (operation, fault))

    if "skipped" in record["outcome"]:
        pytest.skip(record["outcome"])
    assert record["outcome"] == "held", record


def test_a_round_of_the_campaign_has_every_combination_once_and_can_be_played_again():
    every = combinations()
    numbers = range(1, len(every) + 1)

    first = [planned(number, 7) for number in numbers]

    assert sorted(first) == sorted(every)
    assert first == [planned(number, 7) for number in numbers]
    assert first != [planned(number, 8) for number in numbers]
    assert planned(len(every) + 1, 7) in every


def test_the_table_counts_what_was_tried_what_landed_and_what_held():
    records = [
        {"operation": "sync", "fault": "pause", "landed": landed, "outcome": outcome}
        for landed, outcome in (("here", "held"), (None, "held"), ("here", "at the end: not the same"))
    ]

    lines = table(records).splitlines()

    assert lines[2] == "| sync | pause | 3 | 2 | 2 |"
    assert lines[-1] == "3 runs, 2 landed, 2 held"


def test_a_watch_tells_what_a_process_does_in_its_order(tmp_path):
    program = (
        "import os, pathlib, time; folder = pathlib.Path('new'); folder.mkdir(); time.sleep(0.1)\n"
        "(folder / 'a').write_text('x'); os.rename(folder / 'a', folder / 'b'); os.remove(folder / 'b')"
    )
    with Watch(tmp_path) as watch:
        process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path)
        events = list(watch.until_end_of(process))

    assert [tuple(event) for event in events] == [
        ("created", "new"), ("created", "new/a"), ("modified", "new/a"), ("written", "new/a"), ("renamed", "new/b"),
        ("deleted", "new/b"),
    ]  # fmt: skip
