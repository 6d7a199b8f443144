"""A child process for everything that foreign bytes could break, and its keeper.

Parsers and decoders of medical images abort, loop, and ask for gigabytes when a file is damaged. They run in a child
(`etl/supervised.py`) with limits on memory and on the time one file may take; when it dies or hangs, the file it was
busy with is refused with the reason, a new child goes on with the next, and the job never notices. Requests are sent
ahead, so that the child does not wait for its keeper. One child per process is kept and used again.
"""

import atexit
import contextlib
import fcntl
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Generic, Protocol, TypeVar

from etl.quality import Reason, RefusedError
from lesionary.errors import InternalError

LENGTH = struct.Struct("<Q")

# Starts the message that brings a handler; a pickle starts otherwise.
HANDLER_MARK = b"handler:"

# Sent ahead of the answers. Requests are small: these never fill a pipe, so the keeper never blocks while writing.
_AHEAD = 16
_PIPE_BYTES = 1 << 20
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
        self._lock = threading.Lock()

    def map(
        self, handler: Handler[Request, Answer], requests: Iterable[Request]
    ) -> Iterator[tuple[Request, Answer | RefusedError]]:
        """Answers in the order of the requests; a refusal stands in place of the answer.

        Raises:
            InternalError: no child can be started.
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
        command = [sys.executable, "-m", "etl.supervised", str(self.limits.memory_bytes), str(self.limits.seconds)]
        # Out of reach of the keyboard's interrupt: its keeper stops it.
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0,
            start_new_session=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
                fcntl.fcntl(stream.fileno(), fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        try:
            self.receive(_START_SECONDS)
        except _ChildGoneError as gone:
            self.stop()
            raise InternalError(
                f"the process that reads files does not start ({gone.detail})",
                next_step="check that the machine has memory left, then run `lesionary doctor`",
            ) from None

    def stop(self) -> None:
        """Kill the child, if there is one."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()

    def send(self, message: bytes) -> None:
        """Write one message.

        Raises:
            _ChildGoneError: the child has died.
        """
        assert self._process is not None  # noqa: S101 (started by the conversation)
        assert self._process.stdin is not None  # noqa: S101
        data = memoryview(LENGTH.pack(len(message)) + message)
        try:
            while data:
                data = data[os.write(self._process.stdin.fileno(), data) :]
        except BrokenPipeError:
            raise self._died() from None

    def receive(self, seconds: float) -> bytes:
        """Read one message.

        Raises:
            _ChildGoneError: the child has died, or does not answer in time.
        """
        deadline = time.monotonic() + seconds
        (length,) = LENGTH.unpack(self._read(LENGTH.size, deadline))
        return self._read(length, deadline)

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._process is not None  # noqa: S101 (started by the conversation)
        assert self._process.stdout is not None  # noqa: S101
        place = self._process.stdout.fileno()
        parts: list[bytes] = []
        while size:
            ready, _, _ = select.select([place], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise _ChildGoneError(Reason.CHILD_TIME, f"more than {self.limits.seconds:g} s")
            part = os.read(place, min(size, _PIPE_BYTES))
            if not part:
                raise self._died()
            parts.append(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _died(self) -> _ChildGoneError:
        assert self._process is not None  # noqa: S101 (it was talking to us)
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return _ChildGoneError(Reason.CHILD_DIED, cause)


class _Conversation(Generic[Request, Answer]):
    """One run of requests through a child and, where that one dies, its successors."""

    def __init__(self, child: Child, handler: Handler[Request, Answer], requests: Iterable[Request]) -> None:
        self._child = child
        self._handler = HANDLER_MARK + pickle.dumps(handler)
        self._waiting = iter(requests)
        self._sent: deque[Request] = deque()

    def answers(self) -> Iterator[tuple[Request, Answer | RefusedError]]:
        """Every request with its answer."""
        finished = False
        try:
            self._begin()
            while self._fill() or self._sent:
                request = self._sent[0]
                answer = self._next_answer()
                self._sent.popleft()
                yield request, answer
            finished = True
        finally:
            if not finished:
                # Answers are still under way: the next conversation must not read them.
                self._child.stop()

    def _begin(self) -> None:
        """Hand the child its work, and again what a dead one left unanswered."""
        self._child.start()
        # One that dies while it is written to is found out when its answer is asked for.
        with contextlib.suppress(_ChildGoneError):
            self._child.send(self._handler)
            for request in self._sent:
                self._child.send(pickle.dumps(request))

    def _fill(self) -> bool:
        """Send ahead; whether anything was sent."""
        sent = False
        while len(self._sent) < _AHEAD:
            try:
                request = next(self._waiting)
            except StopIteration:
                break
            self._sent.append(request)
            sent = True
            with contextlib.suppress(_ChildGoneError):
                self._child.send(pickle.dumps(request))
        return sent

    def _next_answer(self) -> Answer | RefusedError:
        try:
            answer: Answer | RefusedError = pickle.loads(self._child.receive(self._child.limits.seconds))  # noqa: S301
        except _ChildGoneError as gone:
            self._child.stop()
            culprit = self._sent.popleft()
            try:
                self._begin()
            finally:
                self._sent.appendleft(culprit)
            return RefusedError(gone.reason, gone.detail)
        return answer


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
    """
    try:
        return handler(request)
    except RefusedError:
        raise
    except MemoryError:
        raise RefusedError(Reason.CHILD_MEMORY) from None
    except RecursionError:
        raise RefusedError(Reason.NESTING_TOO_DEEP) from None
    except BaseException as error:  # noqa: BLE001 (decoders written in Rust raise past Exception)
        raise RefusedError(Reason.DICOM_DAMAGED, type(error).__name__) from None
