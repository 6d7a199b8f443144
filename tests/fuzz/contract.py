"""What a fuzzed parser may do with any bytes, and how that is watched.

A target hands bytes to one parser. It may end with a result or with an error that the parser declares; the target
catches those and checks the result. Whatever else comes out is a finding, and so are more processor time or memory
than one input may take, and any touch of the world outside the scratch folder: a file opened for writing, removed or
renamed, a process, a connection, a class that a pickle asks for.
"""

import contextlib
import gc
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fuzz.mutations import mutated_bytes

# What seeds carry where patients' names and free text stand; it may never be seen in a result.
CANARY = "PLANTEDQZ"

_MB = 1 << 20
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS_OF_EVENT = {
    "os.remove": 1, "os.rename": 2, "os.rmdir": 1, "os.mkdir": 1, "os.chmod": 1, "os.chown": 1, "os.link": 2,
    "os.symlink": 2, "os.truncate": 1, "os.utime": 1, "shutil.rmtree": 1, "shutil.move": 2,
}  # fmt: skip
_NEVER = frozenset(
    {
        "subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "pty.spawn",
        "socket.connect", "socket.bind", "socket.getaddrinfo", "ctypes.dlopen", "pickle.find_class", "ftplib.connect",
        "urllib.Request", "os.putenv",
    }
)  # fmt: skip


class BrokenContractError(AssertionError):
    """A parser did what it may not do."""


@dataclass(frozen=True)
class Target:
    """One parser of foreign bytes."""

    name: str
    parser: str
    """The functions of ours that are called, as module.function."""
    run: Callable[[bytes], None]
    """Parses, swallows the declared errors, checks the result."""
    seeds: Callable[[], Sequence[bytes]]
    mutate: Callable[..., bytes] = mutated_bytes
    """From (data, random.Random) to other bytes that still pass the parser's door."""
    most_bytes: int = 8192
    seconds: float = 4.0
    """Processor time of one input, with room for instrumented code."""
    memory_mb: int = 1024
    """What one input may map beyond what was mapped before."""
    prepare: Callable[[], object] = lambda: None
    """Done before anything is watched, once or each time."""
    may: frozenset[str] = frozenset()
    """Events that are the product's own way: starting the supervised child."""


def require(condition: object, what: str) -> None:
    """Fail unless a result is as it should be."""
    if not condition:
        raise BrokenContractError(what)


@cache
def scratch() -> Path:
    """The one folder where a target may write; in memory where the machine has such a place."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="lesionary-fuzz-", dir=shared if os.access(shared, os.W_OK) else None))
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def scratch_file(name: str, data: bytes) -> Path:
    """A file of the scratch folder with these bytes."""
    path = scratch() / name
    with path.open("wb") as sink:
        sink.write(data)
    return path


class _Watch:
    """Hears of everything that Python does to the world while a target runs."""

    def __init__(self) -> None:
        self.on = False
        self.seen: list[str] = []
        # Unnamed temporary files are how archives in archives are unpacked: they have no name that could be foreign.
        self._temporary = tempfile.gettempdir()
        self._allowed = (f"{scratch()}/", os.path.join(self._temporary, "lesionary-"), os.devnull)

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event in _NEVER:
            self.seen.append(event)
        elif event == "open":
            path, mode, flags = arguments
            if isinstance(path, int) or (not flags & _WRITING and not set(str(mode or "")) & set("wax+")):
                return
            self._check(event, path)
        elif event in _PATHS_OF_EVENT:
            for path in arguments[: _PATHS_OF_EVENT[event]]:
                self._check(event, path)

    def _check(self, event: str, path: object) -> None:
        place = os.path.abspath(os.fsdecode(path)) if isinstance(path, str | bytes | os.PathLike) else str(path)
        if not place.startswith(self._allowed) and place not in {self._temporary, str(scratch())}:
            self.seen.append(f"{event} outside the scratch folder")


@cache
def _watch() -> _Watch:
    watch = _Watch()
    sys.addaudithook(watch)
    return watch


def execute(target: Target, data: bytes) -> None:
    """Run a target on some bytes.

    Raises:
        BrokenContractError: it took too long, touched the world, or its result is not as it should be.
        Exception: whatever came out that the parser does not declare.
    """
    watch = _watch()
    scratch()
    target.prepare()
    watch.seen.clear()
    with _memory_limited(target.memory_mb * _MB), _time_limited(target.seconds) as stopped, warnings.catch_warnings():
        # As in the supervised child and the commands: warnings of libraries are no errors there.
        warnings.simplefilter("ignore")
        started = time.process_time()
        watch.on = True
        try:
            target.run(data)
        finally:
            watch.on = False
        taken = time.process_time() - started
    seen = set(watch.seen) - target.may
    require(not seen, f"{target.name}: {sorted(seen)}")
    # A parser that catches everything also catches being stopped.
    require(
        taken <= target.seconds and not stopped, f"{target.name}: {taken:.1f} s of processor time for {len(data)} bytes"
    )


@contextlib.contextmanager
def _time_limited(seconds: float):
    """Stop what runs on and on, as far as it lets Python's signals through; patterns and loops do."""

    stopped: list[float] = []

    def stop(*_: object) -> None:
        stopped.append(seconds)
        raise BrokenContractError(f"more than {seconds} s of processor time")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield stopped
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def _memory_limited(most_bytes: int):
    """Cap what may be mapped beyond what is mapped now; what a sanitizer's allocator reserves counts as mapped."""
    if not sys.platform.startswith("linux"):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + most_bytes, before[1]))
    try:
        yield
    except MemoryError:
        gc.collect()
        raise
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
