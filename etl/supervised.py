"""The child's side of `etl/supervision.py`: answers requests under limits until its keeper goes away.

It writes no file, no log and no core dump: what it reads may name a patient.
"""

import os
import pickle
import resource
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from etl.quality import RefusedError
from etl.supervision import HANDLER_MARK, LENGTH, call_in_child

_READY = b"ready"
_GRACE = 2.0


def _send(sink: BinaryIO, message: bytes) -> None:
    sink.write(LENGTH.pack(len(message)))
    sink.write(message)
    sink.flush()


def _receive(source: BinaryIO) -> bytes | None:
    head = source.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    message = source.read(size)
    return message if len(message) == size else None


def _limit(memory_bytes: int) -> None:
    """Cap what this process may map from here on."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _prepare() -> None:
    """Import what handlers need before the limit counts, and keep libraries from talking."""
    import imagecodecs  # noqa: F401, PLC0415
    import pydicom  # noqa: PLC0415
    import scipy.ndimage  # noqa: F401, PLC0415

    warnings.simplefilter("ignore")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.logger.disabled = True


def _answer(handler: Callable[[object], object], message: bytes) -> bytes:
    try:
        return pickle.dumps(call_in_child(handler, pickle.loads(message)))  # noqa: S301 (our keeper's own bytes)
    except RefusedError as refusal:
        return pickle.dumps(refusal)


def main(memory_bytes: int, seconds: float) -> None:
    """Answer until the keeper closes the pipe. A message is a handler, or a request to the latest handler."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(nowhere, place)
    _prepare()
    _limit(memory_bytes)
    _send(sink, _READY)
    handler: Callable[[object], object] | None = None
    while (message := _receive(source)) is not None:
        if message.startswith(HANDLER_MARK):
            handler = pickle.loads(message[len(HANDLER_MARK) :])  # noqa: S301 (our keeper's own bytes)
        elif handler is not None:
            # Its keeper stops a child that hangs; where the keeper was killed, this does.
            signal.setitimer(signal.ITIMER_REAL, seconds * _GRACE)
            answer = _answer(handler, message)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _send(sink, answer)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
