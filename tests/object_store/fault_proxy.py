"""A proxy between an S3 client and its server that spoils some requests on purpose and counts them.

What becomes of a request depends on the seed, on what it asks for, and on how often that was asked before, not on the
order in which parallel requests happen to arrive. Names that are new in every run (ingest ids, digests) are left out
of it, so that the same seed spoils much the same requests again.
"""

import contextlib
import hashlib
import logging
import multiprocessing
import re
import socket
import socketserver
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from multiprocessing.connection import Connection
from typing import BinaryIO
from urllib.parse import urlsplit

_BLOCK = 1 << 16
_MOST_HEADER_BYTES = 1 << 16
_CHANGES_EVERY_RUN = re.compile(r"\d{8}T\d{6}-[0-9a-f]{4}|[0-9a-f-]{16,}|(?<=uploadId=)[^&]+")
_ERROR_BODY = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'


class Fault(StrEnum):
    """What can happen to a request."""

    STALL = "stall"
    """Never reaches the server, and nothing is answered for `stall_seconds`; then the connection is reset."""
    SLOW = "slow"
    """Is answered, but the answer starts `slow_seconds` late."""
    SERVER_ERROR = "500"
    """500 InternalError; the server never sees it."""
    THROTTLE = "503"
    """503 SlowDown; the server never sees it."""
    CUT_UPLOAD = "cut upload"
    """The connection is reset when half of the body has reached the server."""
    CUT_DOWNLOAD = "cut download"
    """The connection is reset when half of the answer's body has reached the client."""
    LOST_ANSWER = "lost answer"
    """The server does it and answers; the client's connection is reset before a byte of the answer reaches it."""
    RACE = "conditional put answered 409"
    """A conditional put is answered 409 ConditionalRequestConflict, as Amazon does when two collide; nothing is put."""


ALL_FAULTS = tuple(Fault)


@dataclass(frozen=True)
class FaultPlan:
    """How much is spoiled."""

    seed: int
    rate: float
    """Part of requests that something happens to."""
    kinds: tuple[Fault, ...] = ALL_FAULTS
    """Those that fit a request share the rate equally."""
    stall_seconds: float = 1.5
    slow_seconds: float = 0.2


@dataclass
class Counts:
    """What passed through."""

    requests: int = 0
    by_method: Counter[str] = field(default_factory=Counter)
    faults: Counter[Fault] = field(default_factory=Counter)
    retries: int = 0
    """Requests that had been asked and spoiled before: the client tried again."""
    conditional_puts: int = 0
    log: list[str] = field(default_factory=list)
    """What was spoiled, in order."""


@dataclass(frozen=True)
class _Request:
    method: str
    target: str
    headers: Mapping[str, str]
    head: bytes
    """Request line and headers as they came, the empty line included."""

    @property
    def key(self) -> str:
        """What it asks for."""
        asked = f"{self.method} {self.target} {self.headers.get('range', '')}"
        return _CHANGES_EVERY_RUN.sub("*", asked)

    @property
    def is_conditional_put(self) -> bool:
        return self.method == "PUT" and "if-none-match" in self.headers


class ProxyControl:
    """A proxy in a process of its own: clients that hold Python's lock while they wait would starve it in theirs."""

    def __init__(self, endpoint: str, pipe: Connection) -> None:
        self.endpoint = endpoint
        self._pipe = pipe

    def use(self, plan: FaultPlan) -> None:
        """From now on, counted from zero."""
        self._pipe.send(plan)
        self._pipe.recv()

    def counts(self) -> Counts:
        """What passed through since `use`."""
        self._pipe.send(None)
        counts: Counts = self._pipe.recv()
        return counts


@contextlib.contextmanager
def fault_proxy(upstream: str, plan: FaultPlan) -> Iterator[ProxyControl]:
    """A proxy that serves while the block lasts."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(upstream, plan, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ProxyControl(ours.recv(), ours)
    finally:
        process.kill()
        process.join()


def _serve(upstream: str, plan: FaultPlan, pipe: Connection) -> None:
    proxy = _FaultProxy(upstream, plan)
    threading.Thread(target=proxy.server.serve_forever, daemon=True).start()
    pipe.send(f"http://127.0.0.1:{proxy.server.server_address[1]}")
    while True:
        new = pipe.recv()
        if new is not None:
            proxy.use(new)
        pipe.send(proxy.counts)


class _FaultProxy:
    """Listens on a port of its own and decides what becomes of each request."""

    def __init__(self, upstream: str, plan: FaultPlan) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname or "", parts.port or 80)
        self._lock = threading.Lock()
        self.use(plan)
        self.server = _Listener(("127.0.0.1", 0), self)

    def use(self, plan: FaultPlan) -> None:
        """Start over with another plan."""
        with self._lock:
            self.plan = plan
            self.counts = Counts()
            self._asked: Counter[str] = Counter()
            self._spoiled: Counter[str] = Counter()

    def decide(self, request: _Request) -> Fault | None:
        """The request's fate; counts it."""
        plan = self.plan
        with self._lock:
            key = request.key
            self._asked[key] += 1
            self.counts.requests += 1
            self.counts.by_method[request.method] += 1
            self.counts.conditional_puts += request.is_conditional_put
            if self._spoiled[key]:
                self._spoiled[key] -= 1
                self.counts.retries += 1
            kinds = [kind for kind in plan.kinds if _fits(kind, request)]
            digest = hashlib.sha256(f"{plan.seed} {self._asked[key]} {key}".encode()).digest()
            chance, choice = struct.unpack("<II", digest[:8])
            if not kinds or chance / 2**32 >= plan.rate:
                return None
            kind = kinds[choice % len(kinds)]
            self.counts.faults[kind] += 1
            self._spoiled[key] += kind is not Fault.SLOW
            self.counts.log.append(f"{kind.value}: {key}")
            return kind

    def connect(self) -> socket.socket:
        """A connection to the server."""
        upstream = socket.create_connection(self._upstream, timeout=60)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return upstream


def _fits(kind: Fault, request: _Request) -> bool:
    if kind is Fault.CUT_UPLOAD:
        return _body_bytes(request.headers) > 1
    if kind is Fault.CUT_DOWNLOAD:
        return request.method == "GET"
    if kind is Fault.RACE:
        return request.is_conditional_put
    return True


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], proxy: _FaultProxy) -> None:
        super().__init__(address, _Connection)
        self.proxy = proxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Whisper where the base class prints a traceback: clients that go away are what this is about."""
        logging.getLogger(__name__).debug("a client went away")


class _Connection(socketserver.StreamRequestHandler):
    """One client's connection, and one to the server for as long as both last."""

    rbufsize = _BLOCK
    disable_nagle_algorithm = True
    server: _Listener

    def handle(self) -> None:
        with self.server.proxy.connect() as upstream, upstream.makefile("rb", _BLOCK) as answers:
            while (request := _read_request(self.rfile)) is not None:
                if not self._serve(request, upstream, answers):
                    return

    def _serve(self, request: _Request, upstream: socket.socket, answers: BinaryIO) -> bool:
        """Answer one request; whether the connection goes on."""
        fault = self.server.proxy.decide(request)
        plan = self.server.proxy.plan
        if request.headers.get("expect", "").lower() == "100-continue":
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault is Fault.STALL:
            self._wait_for_hang_up(plan.stall_seconds)
            return self._reset()
        body = _body(self.rfile, request.headers)
        if fault in {Fault.SERVER_ERROR, Fault.THROTTLE, Fault.RACE}:
            for _ in body:
                """The client would not read an answer before it has sent everything."""
            return self._refuse(fault)
        upstream.sendall(_without_expectation(request.head))
        if fault is Fault.CUT_UPLOAD:
            _send_half(body, _body_bytes(request.headers), upstream)
            return self._reset()
        for block in body:
            upstream.sendall(block)
        answer = _read_answer(answers)
        if fault is Fault.LOST_ANSWER:
            return self._reset()
        if fault is Fault.SLOW:
            time.sleep(plan.slow_seconds)
        self.wfile.write(answer.head)
        if request.method == "HEAD" or answer.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            return not answer.closes
        body = _body(answers, answer.headers)
        if fault is Fault.CUT_DOWNLOAD:
            _send_half(body, _body_bytes(answer.headers), self.connection)
            return self._reset()
        for block in body:
            self.connection.sendall(block)
        return not answer.closes

    def _refuse(self, fault: Fault) -> bool:
        status, code = {
            Fault.SERVER_ERROR: (HTTPStatus.INTERNAL_SERVER_ERROR, "InternalError"),
            Fault.THROTTLE: (HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown"),
            Fault.RACE: (HTTPStatus.CONFLICT, "ConditionalRequestConflict"),
        }[fault]
        body = _ERROR_BODY.format(code=code).encode()
        head = f"HTTP/1.1 {status.value} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n"
        self.wfile.write(head.encode() + body)
        return True

    def _wait_for_hang_up(self, seconds: float) -> None:
        """Until the client gives up or the time is over; what it still sends is thrown away."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.connection.settimeout(left)
            try:
                if not self.connection.recv(_BLOCK):
                    return
            except OSError:
                return

    def _reset(self) -> bool:
        """Hang up with a reset, not with a polite end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    head: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get("connection", "").lower() == "close"


def _read_head(stream: BinaryIO) -> tuple[str, dict[str, str], bytes] | None:
    """First line, headers and the raw bytes; None at the end of the stream."""
    raw = b""
    while True:
        line = stream.readline(_MOST_HEADER_BYTES)
        raw += line
        if not line:
            return None
        if line == b"\r\n":
            break
    first, *rest = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in rest if line)
    return first, {name.strip().lower(): value.strip() for name, _, value in pairs}, raw


def _read_request(stream: BinaryIO) -> _Request | None:
    found = _read_head(stream)
    if found is None:
        return None
    first, headers, raw = found
    method, target, _ = first.split(" ", 2)
    return _Request(method, target, headers, raw)


def _read_answer(stream: BinaryIO) -> _Answer:
    while True:
        found = _read_head(stream)
        if found is None:
            raise ConnectionResetError("the server hung up")
        first, headers, raw = found
        status = int(first.split(" ", 2)[1])
        if status != HTTPStatus.CONTINUE:
            return _Answer(status, headers, raw)


def _without_expectation(head: bytes) -> bytes:
    """The proxy has told the client to go on already."""
    return re.sub(rb"(?im)^expect:[^\r]*\r\n", b"", head)


def _body_bytes(headers: Mapping[str, str]) -> int:
    """The length of a body, as far as it is stated; S3 clients state it even when they send chunks."""
    return int(headers.get("content-length") or headers.get("x-amz-decoded-content-length") or 0)


def _body(stream: BinaryIO, headers: Mapping[str, str]) -> Iterator[bytes]:
    """A body as it stands on the wire, block by block, so that memory stays small."""
    if headers.get("transfer-encoding", "").lower() != "chunked":
        yield from _exactly(stream, int(headers.get("content-length", 0)))
        return
    size = -1
    while size:
        line = stream.readline(_MOST_HEADER_BYTES)
        size = int(line.split(b";", 1)[0], 16)
        yield line
        if size:
            yield from _exactly(stream, size + 2)
    while line != b"\r\n":
        line = stream.readline(_MOST_HEADER_BYTES)
        yield line


def _exactly(stream: BinaryIO, count: int) -> Iterator[bytes]:
    while count:
        block = stream.read(min(count, _BLOCK))
        if not block:
            raise ConnectionResetError("the other side hung up")
        count -= len(block)
        yield block


def _send_half(body: Iterator[bytes], size: int, sink: socket.socket) -> None:
    left = size // 2
    for block in body:
        if left <= 0:
            return
        sink.sendall(block[:left])
        left -= len(block)
