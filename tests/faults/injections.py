"""Faults that hit a command while it runs, or find it at its start: each is put in, looked at, and got over.

An injection takes a `Stage` and gives the record of where it landed. What must hold is in `checks.py`.
"""

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from faults import checks
from faults.processes import children_of, kill_tree, paused, wait_for
from faults.watching import Watch
from faults.worlds import Operation, Outcome, World, rerun_words

_DISK_BYTES = 96 << 20
# Some faults land at any time, also where a command writes nothing.
_BETWEEN_EVENTS, _ANY_TIME_S = 0.15, (0.3, 4.0)
# A rival that waits for the one that stands still goes on afterwards.
_RIVAL_SECONDS = 20.0


@dataclass
class Stage:
    """One run: an operation, the folder it works in, and what is known of it undisturbed."""

    world: World
    operation: Operation
    folder: Path
    rng: Random
    before: dict
    """Rows of the store before the operation."""
    calm: Outcome
    events: list
    problems: list = field(default_factory=list)

    def note(self, found, where):
        """Keep what a check found."""
        self.problems += [f"{where}: {one}" for one in found]

    def start(self):
        """Start the operation."""
        return self.world.start(self.operation.words, self.folder)

    def look_around(self, where):
        """What readers see now."""
        self.note(checks.readers_see_whole_versions(self.folder, self.before, self.calm.store), where)

    def go_on(self):
        """Run the command again: it ends as if nothing had happened."""
        again = self.world.run(rerun_words(self.operation, self.folder), self.folder)
        if again.code != 0 or again.has_traceback:
            self.note([f"exit code {again.code}; it said {again.said[-600:]!r}"], "the same command again")
            return
        self.note(checks.ends_as_if_nothing_had_happened(self.folder, self.calm), "at the end")

    def moment(self):
        """After which event of the calm run; events of rarer kinds come as often as those of commoner ones."""
        kinds = sorted({event.kind for event in self.events})
        kind = self.rng.choice(kinds)
        number = self.rng.randint(1, sum(event.kind == kind for event in self.events))
        return kind, number, self.rng.choice((0.0, 0.0, 0.003, 0.05))


def at_moment(stage, process, strike):
    """Let the process run until its moment, then strike; where that was, None where it had ended before."""
    if stage.rng.random() < _BETWEEN_EVENTS:
        seconds = stage.rng.uniform(*_ANY_TIME_S)
        time.sleep(seconds)
        return _struck(process, strike, f"after {seconds:.1f} s")
    kind, number, delay = stage.moment()
    seen = 0
    with Watch(stage.folder) as watch:
        for event in watch.until_end_of(process):
            seen += event.kind == kind
            if event.kind == kind and seen == number:
                time.sleep(delay)
                return _struck(process, strike, f"{kind} {number}: {event.path}, {delay * 1000:.0f} ms later")
    return None


def _struck(process, strike, where):
    if process.poll() is not None:
        return None
    strike()
    return where


def kill_driver(stage):
    """kill -9 of the driver alone; its children find out by themselves."""
    process = stage.start()
    landed = at_moment(stage, process, process.kill)
    wait_for(process)
    _let_orphans_end(process.pid)
    stage.look_around("after the kill")
    stage.go_on()
    return landed


def kill_everything(stage):
    """kill -9 of the driver and all it started: the machine is gone."""
    process = stage.start()
    landed = at_moment(stage, process, lambda: kill_tree(process))
    wait_for(process)
    stage.look_around("after the kill")
    stage.go_on()
    return landed


def kill_a_worker(stage):
    """kill -9 of one process that the driver started: what runs out of memory first."""
    process = stage.start()
    killed = []

    def strike():
        parts = [pid for part in stage.operation.parts for pid in children_of(process.pid, named=part)]
        if parts:
            pid = stage.rng.choice(parts)
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                killed.append(Path("/proc", str(pid), "cmdline").read_text().replace("\0", " ")[:60])
                os.kill(pid, signal.SIGKILL)

    landed = at_moment(stage, process, strike)
    done = wait_for(process)
    if done.code != 0 and (done.has_traceback or not done.said.strip().splitlines()[-1:][0].startswith("lesionary:")):
        stage.note([f"exit code {done.code}; it said {done.said[-600:]!r}"], "with a worker killed")
    stage.look_around("after the kill")
    stage.go_on()
    return f"{landed}; {killed[0]}" if landed and killed else None


def pause(stage):
    """The driver stands still while another one does its work, and goes on afterwards as if no time had passed."""
    process = stage.start()
    rivals = []

    def strike():
        with paused(process.pid):
            rival = stage.world.start(stage.operation.rival or stage.operation.words, stage.folder)
            rivals.append(rival)
            with contextlib.suppress(subprocess.TimeoutExpired):
                rival.wait(_RIVAL_SECONDS)
            stage.look_around("while it stands still")

    landed = at_moment(stage, process, strike)
    _both_end_well(stage, [process, *rivals])
    stage.go_on()
    return landed


def two_at_once(stage):
    """Two people give the command, the second while the first one runs."""
    process = stage.start()
    rivals = []
    words = stage.operation.rival or stage.operation.words
    landed = at_moment(stage, process, lambda: rivals.append(stage.world.start(words, stage.folder)))
    _both_end_well(stage, [process, *rivals])
    stage.look_around("after both")
    stage.go_on()
    return landed


def lock_removed(stage):
    """Somebody tidies up: the lock file goes while it is held, and another writer comes."""
    process = stage.start()
    rivals = []
    training = stage.operation.words[0] == "train"
    lock = Path(stage.folder, "lake", "models/runs/r/.lock" if training else "features.duckdb.files/lock")

    def strike():
        if lock.exists():
            lock.unlink()
            words = rerun_words(stage.operation, stage.folder)
            rivals.append(stage.world.start(words, stage.folder))

    landed = at_moment(stage, process, strike)
    for one in (process, *rivals):
        done = wait_for(one)
        if done.code != 0:
            said = done.said.strip().splitlines()[-1:]
            if done.has_traceback or not said or not said[0].startswith("lesionary:") or "unexpected" in said[0]:
                stage.note([f"exit code {done.code}; it said {done.said[-600:]!r}"], "two without a lock")
    stage.look_around("after both")
    stage.go_on()
    return landed if rivals else None


def lock_left(stage):
    """A lock file that a dead process left behind."""
    training = stage.operation.words[0] == "train"
    lock = Path(stage.folder, "lake", "models/runs/r/.lock" if training else "features.duckdb.files/lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.write_text("4711\n")
    stage.go_on()
    return str(lock.relative_to(stage.folder))


def full_disk(stage):
    """The disk fills up while it runs; room is made afterwards."""
    with _small_disk(stage) as filler:
        process = stage.start()
        landed = at_moment(stage, process, lambda: _fill(filler))
        done = wait_for(process)
        felt = done.code != 0
        if felt:
            stage.note(checks.clear_refusal(done) + checks.says_the_disk_is_full(done), "on a full disk")
        stage.look_around("on a full disk")
        filler.unlink(missing_ok=True)
        stage.go_on()
    return landed if felt else None


def read_only(stage):
    """The place has become read-only."""
    with _small_disk(stage):
        subprocess.run(["mount", "-o", "remount,ro", stage.folder], check=True)
        done = stage.world.run(stage.operation.words, stage.folder)
        stage.note(checks.clear_refusal(done), "read-only")
        stage.look_around("read-only")
        subprocess.run(["mount", "-o", "remount,rw", stage.folder], check=True)
        stage.go_on()
    return "from the start"


def clock_ahead(stage):
    """Every file is from the future: the clock was wrong, and somebody has set it right."""
    ahead = time.time() + 400 * 24 * 3600
    for path in stage.folder.rglob("*"):
        os.utime(path, (ahead, ahead), follow_symlinks=False)
    stage.go_on()
    return "400 days"


def _both_end_well(stage, processes):
    for process in processes:
        done = wait_for(process)
        if done.code != 0 or done.has_traceback:
            stage.note([f"exit code {done.code}; it said {done.said[-600:]!r}"], "two writers")


def _let_orphans_end(pid, seconds=20.0):
    """Workers of a driver that is gone end by themselves; those that do not are killed before the folder goes."""
    deadline = time.monotonic() + seconds
    while (left := children_of(pid)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for one in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


@contextlib.contextmanager
def _small_disk(stage):
    """The run's folder is a disk of its own for the duration of the block; what fills it up is given."""
    content = stage.folder.with_name(f"{stage.folder.name}-content")
    stage.folder.rename(content)
    stage.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "faults", stage.folder], check=True)
    try:
        subprocess.run(["cp", "-a", f"{content}/.", stage.folder], check=True)
        yield stage.folder / "filler"
    finally:
        subprocess.run(["umount", "-l", stage.folder], check=True)
        subprocess.run(["rm", "-rf", content], check=True)


def _fill(filler):
    """Take every page that is left."""
    left = os.statvfs(filler.parent)
    size = left.f_bavail * left.f_frsize
    with filler.open("wb", buffering=0) as sink, contextlib.suppress(OSError):
        if size:
            os.posix_fallocate(sink.fileno(), 0, size)
        while True:
            sink.write(bytes(4096))


def can_mount():
    """Whether a disk of our own can be had: needs root."""
    return os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], check=False).returncode == 0


RUNNING = {
    "kill driver": kill_driver,
    "kill everything": kill_everything,
    "kill a worker": kill_a_worker,
    "pause": pause,
    "two at once": two_at_once,
    "lock removed": lock_removed,
    "lock left": lock_left,
    "full disk": full_disk,
    "read-only": read_only,
    "clock ahead": clock_ahead,
}
