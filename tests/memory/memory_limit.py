"""Runs a command with all its processes inside a memory limit, and says what it took.

A control group counts driver, workers, children and Ray's own processes together, with the files' cached pages, which
the kernel gives back before it kills. Where this process may not make one, each process gets the limit as RLIMIT_DATA
instead: that holds every process to it, not their sum, and `LimitedRun.kind` says so.
"""

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_SAMPLE_S = 0.1
_REMOVE_S = 10.0


@dataclass(frozen=True)
class LimitedRun:
    """How a command ended inside its limit."""

    kind: str
    """`cgroup`: of all processes together; `rlimit`: of each."""
    limit_bytes: int
    returncode: int
    output: str
    seconds: float
    peak_bytes: int
    """Most that its processes held at a time, without cached files; 0 where that was not measured."""
    kills: int
    """Processes that the kernel ended because the limit was reached; 0 where it does not say."""


@dataclass(frozen=True)
class _Group:
    folder: Path
    version: int

    def limit(self, size: int) -> None:
        if self.version == 2:
            (self.folder / "memory.max").write_text(str(size))
            swap = self.folder / "memory.swap.max"
            if swap.exists():
                swap.write_text("0")
        else:
            (self.folder / "memory.limit_in_bytes").write_text(str(size))

    def held_bytes(self) -> int:
        """Memory that cannot be given back: of processes, and shared memory."""
        lines = (self.folder / "memory.stat").read_text().splitlines()
        numbers = {name: int(value) for name, value in (line.split()[:2] for line in lines)}
        names = ("anon", "shmem") if self.version == 2 else ("total_rss", "total_shmem")
        return sum(numbers.get(name, 0) for name in names)

    def kills(self) -> int:
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        lines = (self.folder / name).read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)

    def remove(self) -> None:
        deadline = time.monotonic() + _REMOVE_S
        while True:
            for pid in (self.folder / "cgroup.procs").read_text().split():
                # Daemons that the command left; the group is ours alone.
                subprocess.run(["kill", "-9", pid], check=False, stderr=subprocess.DEVNULL)
            try:
                self.folder.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_SAMPLE_S)
            else:
                return


def run_limited(
    command: Sequence[str], limit_bytes: int, environment: Mapping[str, str], folder: Path, *, group: bool = True
) -> LimitedRun:
    """Run a command inside a limit.

    Args:
        command: what.
        limit_bytes: for it and all processes that it starts.
        environment: of it.
        folder: where it runs.
        group: use a control group where one can be made.
    """
    started = time.monotonic()
    with _group(limit_bytes) if group else _no_group() as own:
        enter = f'echo $$ > "{own.folder}/cgroup.procs"' if own else f"ulimit -d {limit_bytes >> 10}"
        process = subprocess.Popen(
            ["sh", "-c", f'{enter} && exec "$@"', "sh", *command], cwd=folder, env=dict(environment), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        peak = [0]
        over = threading.Event()
        watcher = threading.Thread(target=_watch, args=(own, peak, over))
        watcher.start()
        output, _ = process.communicate()
        over.set()
        watcher.join()
        return LimitedRun(
            kind="cgroup" if own else "rlimit",
            limit_bytes=limit_bytes,
            returncode=process.returncode,
            output=output,
            seconds=time.monotonic() - started,
            peak_bytes=peak[0],
            kills=own.kills() if own else 0,
        )


def _watch(group: _Group | None, peak: list[int], over: threading.Event) -> None:
    while group and not over.wait(_SAMPLE_S):
        peak[0] = max(peak[0], group.held_bytes())


@contextmanager
def _no_group() -> Iterator[None]:
    yield None


@contextmanager
def _group(limit_bytes: int) -> Iterator[_Group | None]:
    """A group of our own; None where none can be made."""
    group = _made()
    if group is None:
        yield None
        return
    try:
        group.limit(limit_bytes)
        yield group
    finally:
        group.remove()


def _made() -> _Group | None:
    name = f"lesionary-{os.getpid()}-{time.monotonic_ns()}"
    for parent, version in _parents():
        folder = parent / name
        try:
            folder.mkdir()
        except OSError:
            continue
        if (folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")).exists():
            return _Group(folder, version)
        folder.rmdir()
    return None


def _parents() -> Iterator[tuple[Path, int]]:
    """Groups in which one of our own may be made: the one we are in, and the root."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield _ROOT / "memory" / path.lstrip("/"), 1
            yield _ROOT / "memory", 1
        elif not controllers:
            yield _ROOT / path.lstrip("/"), 2
            yield _ROOT, 2
