"""The fault campaign: operations × faults at seeded moments, a line of JSON for each run and a table at the end.

    python tests/faults/campaign.py --runs 220 --seed 7 --out results.jsonl
    python tests/faults/campaign.py --runs 220 --seed 7 --only 41      the same run again

Everything random of a run follows from the seed and its number. What the operating system does in between does not:
a replay strikes after the same event, not at the same nanosecond.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from faults.forking import Forker  # noqa: E402
from faults.injections import RUNNING, Stage, can_mount  # noqa: E402
from faults.processes import start_command  # noqa: E402
from faults.spoiling import LYING  # noqa: E402
from faults.worlds import OPERATIONS, World, store_rows  # noqa: E402

LOCKED = frozenset({"sync", "match", "train"})
WITH_STORE = frozenset({"ingest more", "sync", "match"})
# Commands that start PyTorch or Ray take ten times as long: fewer of these.
DEAR = frozenset({"ingest on ray", "embed", "train"})


def combinations():
    """Every operation with every fault that can hit it."""
    return [
        (operation.name, fault)
        for operation in OPERATIONS.values()
        for fault in (*RUNNING, *LYING)
        if not (
            (fault.startswith("lock") and operation.name not in LOCKED)
            or (fault.startswith(("store", "vectors")) and operation.name not in WITH_STORE)
            or (fault == "kill a worker" and not operation.parts)
            or (fault in LYING and operation.name == "ingest on ray")
        )
    ]


def planned(number, seed):
    """Operation and fault of a run: first each combination once, then those worth repeating, again and again."""
    once = combinations()
    again = [(name, fault) for name, fault in once if fault in RUNNING and name not in DEAR]
    again += [(name, fault) for name, fault in once if fault.startswith("kill")]
    at = number - 1
    chosen, turn, place = (once, 0, at) if at < len(once) else (again, *divmod(at - len(once), len(again)))
    Random(f"{seed}/order/{len(chosen)}/{turn}").shuffle(chosen)
    return chosen[place]


def play(world, number, seed, chosen=None):
    """One run, as a record."""
    name, fault = chosen or planned(number, seed)
    operation = OPERATIONS[name]
    record = {"number": number, "seed": seed, "operation": name, "fault": fault}
    if fault in {"full disk", "read-only"} and not can_mount():
        return record | {"landed": None, "outcome": "skipped: no right to mount a disk"}
    started = time.monotonic()
    calm = world.calm(operation)
    folder = world.fresh(operation, world.folder / f"run-{number}", filled=fault in LYING)
    before = store_rows(world.before(operation.before) / "lake" / "features.duckdb")
    stage = Stage(world, operation, folder, Random(f"{seed}/{number}"), before, calm.outcome, calm.events)
    landed = None
    try:
        if fault in RUNNING:
            landed = RUNNING[fault](stage)
        else:
            spoil, way = LYING[fault]
            landed = spoil(stage, way)
    except Exception:  # noqa: BLE001 (whatever it is, it is the run's outcome)
        stage.problems.append(traceback.format_exc(limit=-4))
    shutil.rmtree(folder, ignore_errors=True)
    outcome = "; ".join(stage.problems) or "held"
    return record | {"landed": landed, "outcome": outcome, "seconds": round(time.monotonic() - started, 1)}


def table(records):
    """Operation × fault: runs, of these landed, of these held."""
    runs, landed, held = Counter(), Counter(), Counter()
    for record in records:
        key = record["operation"], record["fault"]
        runs[key] += 1
        landed[key] += record["landed"] is not None
        held[key] += record["outcome"] == "held"
    lines = ["| operation | fault | tried | landed | held |", "|---|---|---|---|---|"]
    lines += [f"| {name} | {fault} | {runs[name, fault]} | {landed[name, fault]} | {held[name, fault]} |"
              for name, fault in sorted(runs)]  # fmt: skip
    total = f"{runs.total()} runs, {landed.total()} landed, {held.total()} held"
    return "\n".join([*lines, "", total])


def main():
    """Run it."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=220)
    options.add_argument("--seed", type=int, default=7)
    options.add_argument("--first", type=int, default=1, help="number of the first run")
    options.add_argument("--only", type=int, action="append", help="a run's number; may be given several times")
    options.add_argument("--operation", help="only runs of this operation")
    options.add_argument("--fault", action="append", help="only runs of faults whose names begin so")
    options.add_argument("--out", type=Path, help="also append the records to this file")
    options.add_argument("--slow-start", action="store_true", help="start each command's Python anew, imports and all")
    options.add_argument("--folder", type=Path, help="where to work [a temporary folder]")
    chosen = options.parse_args()
    numbers = chosen.only or range(chosen.first, chosen.first + chosen.runs)
    records = []
    with tempfile.TemporaryDirectory(prefix="lesionary-faults-", dir=chosen.folder) as folder:
        world = World(folder, start_command if chosen.slow_start else Forker())
        world.make_sources()
        for number in numbers:
            name, fault = planned(number, chosen.seed)
            if chosen.operation not in {None, name} or not fault.startswith(tuple(chosen.fault or [""])):
                continue
            records.append(play(world, number, chosen.seed))
            line = json.dumps(records[-1])
            print(line, flush=True)  # noqa: T201
            if chosen.out:
                with chosen.out.open("a") as sink:
                    sink.write(f"{line}\n")
    print(table(records))  # noqa: T201
    sys.exit(any(record["outcome"] != "held" and "skipped" not in record["outcome"] for record in records))


if __name__ == "__main__":
    main()
