"""A child process for everything that foreign bytes could break, and its keeper.

Parsers and decoders of medical images abort, loop, and ask for gigabytes when a file is damaged. They run in a child
(`etl/supervised.py`) with limits on memory and on the time one file may take; when it dies or hangs, the file it was
busy with is refused with the reason, a new child goes on with the next, and the job never notices. Requests are sent
ahead, so that the child does not wait for its keeper, and answers come back through shared memory: the same work costs
a tenth more than without a child (benchmarks/bench_dicom.py). One child per process is kept and used again.
"""

import atexit
import contextlib
import mmap
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import IO, Generic, Protocol, TypeVar, cast

from etl.quality import Reason, RefusedError
from lesionary.errors import InternalError, SourceError

# A message to the child is the place of a request in its list of work, or this, followed by a length and new work.
PLACE = struct.Struct("<I")
NEW_WORK = 0xFFFF_FFFF
LENGTH = struct.Struct("<Q")
# An answer is its length; its bytes lie in the shared slot of its request, or follow when they are too many for that.
FOLLOWS = 1 << 63
SLOTS, SLOT_BYTES = 32, 4 << 20

_TOP_UP = 8
_READ_BYTES = 1 << 16
_START_SECONDS = 120.0

Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)
Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class ChildLimits:
    """What one file may cost."""

    memory_bytes: int = 3 << 30
    """Address space beyond what the child has after its imports."""
    seconds: float = 60.0
    """Wall time; generous, because the machine may be busy with other things."""


class Handler(Protocol[Request_contra, Answer_co]):
    """Work done in the child: picklable, called with one request at a time."""

    def __call__(self, request: Request_contra, /) -> Answer_co:
        """The answer.

        Raises:
            RefusedError: the input cannot be taken in.
        """


class _ChildGoneError(Exception):
    """The child died or hung; `reason` is what the file it was busy with is refused for."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Child:
    """One child process; started when first needed, and again after it died."""

    def __init__(self, limits: ChildLimits) -> None:
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._received = bytearray()
        self._shared = _shared_memory()
        self._slots = mmap.mmap(self._shared.fileno(), SLOTS * SLOT_BYTES)
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        return None if self._process is None else self._process.pid

    def map(
        self, handler: Handler[Request, Answer], requests: Sequence[Request]
    ) -> Iterator[tuple[Request, Answer | RefusedError]]:
        """Answers in the order of the requests; a refusal stands in place of the answer.

        Raises:
            InternalError: no child can be started.
            SourceError: the object store that the requests are about fails.
        """
        with self._lock:
            yield from _Conversation(self, handler, requests).answers()

    def start(self) -> None:
        """Start a child unless one is there.

        Raises:
            InternalError: it does not come up.
        """
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        shared = self._shared.fileno()
        limits = (str(self.limits.memory_bytes), str(self.limits.seconds), str(shared))
        command = [sys.executable, "-m", "etl.supervised", *limits]
        path = os.pathsep.join(filter(None, sys.path))
        # Out of reach of the keyboard's interrupt: its keeper stops it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            pass_fds=(shared,), start_new_session=True, env=os.environ | {"PYTHONPATH": path},
        )  # fmt: skip
        try:
            self._take(LENGTH.size, time.monotonic() + _START_SECONDS)
        except _ChildGoneError as gone:
            self.stop()
            raise InternalError(
                f"the process that reads files does not start ({gone.detail})",
                next_step="check that the machine has memory left, then run `lesionary doctor`",
            ) from None

    def stop(self) -> None:
        """Kill the child, if there is one."""
        process, self._process = self._process, None
        self._received.clear()
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def send(self, message: bytes) -> None:
        """Write to the child.

        Raises:
            _ChildGoneError: the child has died.
        """
        assert self._process is not None  # noqa: S101 (started by the conversation)
        assert self._process.stdin is not None  # noqa: S101
        data = memoryview(message)
        try:
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise self._died() from None

    def receive(self, place: int) -> object:
        """The answer to the request at a place of the work.

        Raises:
            _ChildGoneError: the child has died, or does not answer in time.
        """
        deadline = time.monotonic() + self.limits.seconds
        (length,) = LENGTH.unpack(self._take(LENGTH.size, deadline))
        if length & FOLLOWS:
            return pickle.loads(self._take(length & ~FOLLOWS, deadline))  # noqa: S301 (our own child's bytes)
        start = place % SLOTS * SLOT_BYTES
        with memoryview(self._slots) as slots, slots[start : start + length] as answer:
            return pickle.loads(answer)  # noqa: S301 (our own child's bytes)

    def _take(self, size: int, deadline: float) -> bytes:
        """So many bytes of what the child writes."""
        assert self._process is not None  # noqa: S101 (started by the conversation)
        assert self._process.stdout is not None  # noqa: S101
        place = self._process.stdout.fileno()
        while len(self._received) < size:
            ready, _, _ = select.select([place], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _ChildGoneError(Reason.CHILD_TIME, f"more than {self.limits.seconds:g} s")
            part = os.read(place, max(_READ_BYTES, size - len(self._received)))
            if not part:
                raise self._died()
            self._received += part
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _died(self) -> _ChildGoneError:
        assert self._process is not None  # noqa: S101 (it was talking to us)
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _ChildGoneError(Reason.CHILD_DIED, cause)


class _Conversation(Generic[Request, Answer]):
    """One run of requests through a child and, where that one dies, its successors."""

    def __init__(self, child: Child, handler: Handler[Request, Answer], requests: Sequence[Request]) -> None:
        self._child = child
        self._requests = requests
        work = pickle.dumps((handler, tuple(requests)))
        self._work = PLACE.pack(NEW_WORK) + LENGTH.pack(len(work)) + work
        self._sent = self._answered = 0
        self._tried_again: int | None = None

    def answers(self) -> Iterator[tuple[Request, Answer | RefusedError]]:
        """Every request with its answer."""
        finished = False
        try:
            self._begin()
            for place, request in enumerate(self._requests):
                self._fill()
                answer = self._answer_to(place)
                self._answered += 1
                yield request, answer
            finished = True
        finally:
            if not finished:
                # Answers are still under way: the next conversation must not read them.
                self._child.stop()

    def _begin(self) -> None:
        """Hand the child its work; what a dead one left unanswered is sent again."""
        self._child.start()
        self._sent = self._answered
        # One that dies while it is written to is found out when its answer is asked for.
        with contextlib.suppress(_ChildGoneError):
            self._child.send(self._work)
        self._fill()

    def _fill(self) -> None:
        """Send ahead, some requests at a time, as far as there are slots for their answers."""
        free = min(self._answered + SLOTS, len(self._requests)) - self._sent
        if free >= _TOP_UP or self._sent == self._answered:
            places = range(self._sent, self._sent + free)
            self._sent += free
            with contextlib.suppress(_ChildGoneError):
                self._child.send(b"".join(map(PLACE.pack, places)))

    def _answer_to(self, place: int) -> Answer | RefusedError:
        try:
            answer = self._child.receive(place)
            if isinstance(answer, SourceError):
                raise answer
            return cast("Answer | RefusedError", answer)
        except _ChildGoneError as gone:
            self._child.stop()
            if gone.detail == signal.SIGKILL.name and place != self._tried_again:
                # No file does that by itself: its limits end otherwise. Somebody killed the child, or the machine did.
                self._tried_again = place
                self._begin()
                return self._answer_to(place)
            # The one it was busy with is not tried again.
            self._answered += 1
            self._begin()
            self._answered -= 1
            return RefusedError(gone.reason, gone.detail)


def _shared_memory() -> IO[bytes]:
    """Memory without a name that a child can map."""
    if hasattr(os, "memfd_create"):
        file: IO[bytes] = os.fdopen(os.memfd_create("lesionary"), "w+b")
    else:
        file = cast("IO[bytes]", tempfile.TemporaryFile(prefix="lesionary-"))  # noqa: SIM115 (lives with its child)
    file.truncate(SLOTS * SLOT_BYTES)
    return file


@cache
def this_process_child(limits: ChildLimits) -> Child:
    """The child that this process keeps for work under these limits."""
    child = Child(limits)
    atexit.register(child.stop)
    return child


def call_in_child(handler: Callable[[Request], Answer], request: Request) -> Answer:
    """The handler's answer under the child's rules: whatever it raises becomes a refusal.

    Raises:
        RefusedError: whatever went wrong.
        SourceError: the object store failed, which is no fault of the file's.
    """
    try:
        return handler(request)
    except (RefusedError, SourceError):
        raise
    except MemoryError:
        raise RefusedError(Reason.CHILD_MEMORY) from None
    except RecursionError:
        raise RefusedError(Reason.NESTING_TOO_DEEP) from None
    except BaseException as error:  # noqa: BLE001 (decoders written in Rust raise past Exception)
        raise RefusedError(Reason.DICOM_DAMAGED, type(error).__name__) from None
