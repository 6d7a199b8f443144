"""A driver of the small training in a process of its own, which can be killed."""

import json
import signal
from pathlib import Path

from faults.processes import start_command, wait_for, wait_until

TESTS = Path(__file__).parents[1]

# Workers hang after a checkpoint: those on Ray outlive their driver for a moment, in which a small training would come
# to its end.
_PROGRAM = """
import json, sys
sys.path.insert(0, {tests!r})
from cli.training import Wish, train
from cli.training_inputs import Prepared, Trainer
job = {{"stop": "hang", "stop_at": 10, "stopped": {stopped!r}}}
trainer = Trainer("small", lambda *_: Prepared(job, {{}}, {{}}), "small_training")
train(trainer, {lake!r}, Wish(preset="small", run="r1", threads=1, **json.loads(sys.argv[1])))
"""


def driver(lake_url, folder, environment=None, prefix=(), **wish):
    """Start run r1 of the small training (behind a prefix), whose last worker hangs after step 10, once in a folder."""
    program = _PROGRAM.format(tests=str(TESTS), lake=lake_url, stopped=str(folder / "stopped"))
    variables = {**(environment or {}), "PYTHONPATH": str(TESTS)}
    return start_command(json.dumps(wish), cwd=folder, environment=variables, program=program, prefix=prefix)


def killed_at_checkpoint(lake_url, folder, environment=None, **wish):
    """Start such a driver and kill it once its workers hang."""
    process = driver(lake_url, folder, environment, **wish)
    wait_until((folder / "stopped").exists, process)
    # Of the driver alone: its workers on Ray have to notice by themselves.
    process.send_signal(signal.SIGKILL)
    ended = wait_for(process)
    assert ended.code == -signal.SIGKILL, ended.said
