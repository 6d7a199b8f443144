"""What a person's question may cost: memory, and time in the engine. Nothing is ever spilled to disk.

The engine keeps to its own memory limit and heeds interruptions, with exceptions: a single long string is made outside
of both. Where the process is ours alone (the command line) it is guarded as well, see `guard_process`.
"""

import contextlib
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb

from lesionary.errors import LesionaryError, StoreError, UsageError

_MOST_MEMORY_MB = 4_096
_LEAST_MEMORY_MB = 64
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
DEFAULT_SECONDS = 300.0
# Beside what the engine may take: rows on their way out, threads' stacks.
_HEADROOM_BYTES = 512 << 20
_GRACE_SECONDS = 10.0


def engine_memory_mb(wanted_mb: int = 0) -> int:
    """What the engine may take: as wanted, or half of the memory there is, at most 4 GB.

    Raises:
        UsageError: nothing could run in so little.
    """
    if wanted_mb and wanted_mb < _LEAST_MEMORY_MB:
        raise UsageError(f"the engine needs {_LEAST_MEMORY_MB} MB at least", where="--memory-mb")
    return wanted_mb or max(_LEAST_MEMORY_MB, min(_MOST_MEMORY_MB, _granted_bytes() // (2 << 20)))


def _granted_bytes() -> int:
    """Memory of this machine, or of the container that this process is in."""
    granted = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in _limit_files():
        # "max" where there is none.
        with contextlib.suppress(OSError, ValueError):
            granted = min(granted, int(file.read_text(encoding="ascii")))
    return granted


def _limit_files() -> Iterator[Path]:
    """Where the kernel says what the control groups of this process may take; in a container its own is the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root, name = (_CONTROL_GROUPS, "memory.max")
        if controllers:
            root, name = (_CONTROL_GROUPS / "memory", "memory.limit_in_bytes")
        if not controllers or "memory" in controllers.split(","):
            group = root / path.lstrip("/")
            yield from (folder / name for folder in (group, *group.parents) if folder.is_relative_to(root))


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Limits of one question.

    Raises:
        UsageError: a limit under which nothing could run.
    """

    memory_mb: int = 0
    """Of the engine; 0 = half of the memory there is, at most 4 GB."""
    seconds: float = DEFAULT_SECONDS
    """Inside the engine; printing does not count."""

    def __post_init__(self) -> None:
        engine_memory_mb(self.memory_mb)
        if not 0 < self.seconds < 1e6:
            raise UsageError("a time above 0 and below a million seconds is needed", where="--seconds")

    @property
    def memory_bytes(self) -> int:
        """Memory of the engine."""
        return engine_memory_mb(self.memory_mb) << 20

    def config(self) -> dict[str, str]:
        """The engine's options."""
        memory = f"{self.memory_bytes >> 20}MiB"
        return {"memory_limit": memory, "temp_directory": "", "max_temp_directory_size": "0KB"}


@dataclass(frozen=True, slots=True)
class _Guard:
    limits: QueryLimits
    leave: Callable[[LesionaryError], None]


_guards: list[_Guard] = []


def guard_process(limits: QueryLimits, leave: Callable[[LesionaryError], None]) -> None:
    """Guard this whole process while questions run in it, for programs that do nothing else.

    Memory that the engine does not count is refused by the operating system. A question that does not heed an
    interruption ends the process.

    Args:
        limits: what a question may take.
        leave: says the error and ends the process; called in a thread of its own.
    """
    _guards[:] = [_Guard(limits, leave)]


class Deadline:
    """Time that one question may spend in the engine, over all its calls."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, seconds: float = DEFAULT_SECONDS) -> None:
        self._connection = connection
        self._seconds = seconds
        self._left = seconds
        self._expired = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Inside this block the engine is interrupted when the time is used up.

        Raises:
            StoreError: it was, or the memory did not suffice.
            KeyboardInterrupt: the person pressed Ctrl-C.
        """
        started = time.monotonic()
        timers = [self._timer(self._left, self._expire)]
        timers += [self._timer(self._left + _GRACE_SECONDS, partial(self._give_up, guard)) for guard in _guards]
        try:
            with _memory_guarded():
                yield
        except (duckdb.InterruptException, RuntimeError) as error:
            # The engine says the same whoever interrupted it, in one of these two ways.
            self.raise_if_expired()
            if isinstance(error, duckdb.InterruptException) or "interrupt" in str(error).lower():
                raise KeyboardInterrupt from error
            raise
        except (MemoryError, duckdb.OutOfMemoryException):
            raise StoreError(
                "the question needs more memory than it may take",
                next_step="ask for less, or allow more with --memory-mb",
            ) from None
        finally:
            for timer in timers:
                timer.cancel()
            for timer in timers:
                # A thread that still holds the connection when the process ends makes DuckDB complain of a leak.
                timer.join()
            self._left -= time.monotonic() - started

    def raise_if_expired(self) -> None:
        """Say that the time is used up, if it is.

        Raises:
            StoreError: it is.
        """
        if self._expired:
            raise self._too_long() from None

    def _too_long(self) -> StoreError:
        return StoreError(
            f"the question took longer than {self._seconds:g} s",
            next_step="ask for less, or allow more with --seconds",
        )

    def _timer(self, seconds: float, action: Callable[[], None]) -> threading.Timer:
        timer = threading.Timer(max(seconds, 0.001), action)
        timer.daemon = True
        timer.start()
        return timer

    def _give_up(self, guard: _Guard) -> None:
        guard.leave(self._too_long())

    def _expire(self) -> None:
        self._expired = True
        self._connection.interrupt()


@contextlib.contextmanager
def _memory_guarded() -> Iterator[None]:
    """Within a guarded process, refuse memory beyond the limit; what is mapped from files does not count."""
    if not _guards:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _data_bytes() + _guards[0].limits.memory_bytes + _HEADROOM_BYTES
    soft = wanted if before[1] == resource.RLIM_INFINITY else min(wanted, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def _data_bytes() -> int:
    """What this process holds already, as RLIMIT_DATA counts it."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    line = next((line for line in status.splitlines() if line.startswith("VmData:")), "VmData: 0 kB")
    return int(line.split()[1]) * 1024
