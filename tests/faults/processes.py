"""Commands of the product as real processes, and what can be done to all that a command started: kill, pause, go on."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROGRAM = "from cli.main import main; main()"


def start_command(*words, cwd=None, environment=None, program=_PROGRAM, prefix=()):
    """Start `lesionary WORDS…` (behind a prefix) in a session of its own, so that all it starts can be found again."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), variables.get("PYTHONPATH")]))
    return subprocess.Popen(
        [*prefix, sys.executable, "-c", program, *map(str, words)],
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    said: str
    """Its stderr."""

    @property
    def has_traceback(self):
        return "Traceback (most recent call last)" in self.said


def wait_for(process, seconds=300):
    """Wait until a command ends; it and all it started are killed where it does not."""
    try:
        out, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        kill_tree(process)
        out, said = process.communicate(timeout=30)
        said += f"\n[killed: it had not ended after {seconds} s]"
    return Finished(process.returncode, out or "", said or "")


def run_command(*words, seconds=300, **options):
    """Start a command and wait until it ends."""
    return wait_for(start_command(*words, **options), seconds)


def tree_of(pid):
    """The process, everything in its session and everything that descends from either, whatever group Ray put it in."""
    parents, sessions = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                parents[int(entry.name)], sessions[int(entry.name)] = int(fields[1]), int(fields[3])
    found = {pid} | {one for one, session in sessions.items() if session == pid}
    while more := {one for one, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def signal_tree(pid, number, *, spared=frozenset()):
    """Send a signal to all of a process's tree but the spared; those it went to."""
    reached = set(spared)
    # Again, because a process may have started another one while the first were being signalled.
    while new := tree_of(pid) - reached:
        for one in new:
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, number)
        reached |= new
    return reached - set(spared)


def kill_tree(process):
    """kill -9 of the driver and everything it started."""
    signal_tree(process.pid, signal.SIGKILL)
    process.wait(30)


def children_of(pid, *, named=""):
    """Processes that a command started, itself left out, whose command line holds `named`."""
    found = []
    for one in sorted(tree_of(pid) - {pid}):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if named in Path("/proc", str(one), "cmdline").read_text().replace("\0", " "):
                found.append(one)
    return found


@contextlib.contextmanager
def paused(pid):
    """The process tree stands still in the block."""
    signal_tree(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_tree(pid, signal.SIGCONT)


def wait_until(condition, process, seconds=120.0, every=0.002):
    """Wait until the condition holds; whether it came to that before the process ended."""
    deadline = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(every)
    return False
