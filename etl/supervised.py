"""The child's side of `etl/supervision.py`: answers requests under limits until its keeper goes away.

It writes no file, no log and no core dump: what it reads may name a patient.
"""

import gc
import mmap
import os
import pickle
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

from etl.quality import RefusedError
from etl.supervision import FOLLOWS, LENGTH, NEW_WORK, PLACE, SLOT_BYTES, SLOTS, call_in_child
from lesionary.core_dumps import forbid_core_dumps
from lesionary.errors import SourceError

_GRACE = 2.0


def _exactly(source: BinaryIO, size: int) -> bytes | None:
    """So many bytes; None when the keeper is gone."""
    data = source.read(size)
    return data if len(data) == size else None


def _limit(memory_bytes: int) -> None:
    """Cap what this process may map from here on."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) if sys.platform == "linux" else 0
    limit = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    forbid_core_dumps()


def _prepare() -> None:
    """Import what handlers need before the limit counts, and keep libraries from talking."""
    import imagecodecs  # noqa: F401, PLC0415
    import pydicom  # noqa: PLC0415
    import scipy.ndimage  # noqa: F401, PLC0415

    # What was imported stays: the collector need not look at it again after every few files.
    gc.freeze()
    warnings.simplefilter("ignore")
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.logger.disabled = True


def _answer(handler: Callable[[object], object], request: object) -> bytes:
    try:
        return pickle.dumps(call_in_child(handler, request))
    except (RefusedError, SourceError) as refusal:
        return pickle.dumps(refusal)


class _Answers:
    """Where answers go: the slot of their request, or the pipe when they are too long for one."""

    def __init__(self, sink: BinaryIO, shared: int) -> None:
        self._sink = sink
        self._slots = mmap.mmap(shared, SLOTS * SLOT_BYTES)

    def put(self, place: int, answer: bytes) -> None:
        """Hand over one answer."""
        if len(answer) <= SLOT_BYTES:
            start = place % SLOTS * SLOT_BYTES
            self._slots[start : start + len(answer)] = answer
            self._sink.write(LENGTH.pack(len(answer)))
        else:
            self._sink.write(LENGTH.pack(len(answer) | FOLLOWS) + answer)
        self._sink.flush()


def main(memory_bytes: int, seconds: float, shared: int) -> None:
    """Answer until the keeper closes the pipe."""
    source = os.fdopen(os.dup(0), "rb")
    sink = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1, 2):
        os.dup2(nowhere, place)
    _prepare()
    answers = _Answers(sink, shared)
    _limit(memory_bytes)
    sink.write(LENGTH.pack(0))
    sink.flush()
    handler: Callable[[object], object] | None = None
    requests: Sequence[object] = ()
    while (word := _exactly(source, PLACE.size)) is not None:
        (place,) = PLACE.unpack(word)
        if place == NEW_WORK:
            size = LENGTH.unpack(_exactly(source, LENGTH.size) or bytes(LENGTH.size))[0]
            handler, requests = pickle.loads(_exactly(source, size) or b"")  # noqa: S301 (our keeper's own bytes)
        elif handler is not None:
            # Its keeper stops a child that hangs; where the keeper was killed, this does.
            signal.setitimer(signal.ITIMER_REAL, seconds * _GRACE)
            answer = _answer(handler, requests[place])
            signal.setitimer(signal.ITIMER_REAL, 0)
            answers.put(place, answer)


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
