"""What a command does to a folder, event by event as the kernel tells it: so that a fault lands after the n-th rename.

Rust, C++ and Python write to a lake; inotify sees all of them, in any process, in order and within a tenth of a
millisecond. A folder that is made is watched from then on; what is put into it in the same moment may be missed.
"""

import ctypes
import os
import select
import struct
from pathlib import Path
from typing import NamedTuple

_KINDS = {0x100: "created", 0x2: "modified", 0x8: "written", 0x80: "renamed", 0x200: "deleted"}
_IS_FOLDER = 0x40000000
_OVERFLOW = 0x4000
_HEADER = struct.Struct("iIII")
_LIBC = ctypes.CDLL(None, use_errno=True)


class Event(NamedTuple):
    """One change: `created`, `modified`, `written` (closed after writing), `renamed` (to this name) or `deleted`."""

    kind: str
    path: str
    """Relative to the folder."""


class Watch:
    """The changes below a folder, from now on."""

    def __init__(self, folder):
        self._folder = Path(folder)
        self._descriptor = _LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._descriptor >= 0, os.strerror(ctypes.get_errno())
        self._watched = {}
        self._add(self._folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self._descriptor)

    def until_end_of(self, process):
        """Events as they come, until the process has ended and all of them were told."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        ended = False
        while True:
            if poll.poll(0 if ended else 20):
                yield from self._read()
            elif ended:
                return
            else:
                ended = process.poll() is not None

    def _add(self, folder):
        number = _LIBC.inotify_add_watch(self._descriptor, os.fsencode(folder), sum(_KINDS))
        if number < 0:
            return  # gone again already
        self._watched[number] = folder
        for entry in os.scandir(folder):
            if entry.is_dir(follow_symlinks=False):
                self._add(Path(entry.path))

    def _read(self):
        data, at = os.read(self._descriptor, 1 << 16), 0
        while at < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, at)
            name = data[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0").decode()
            at += _HEADER.size + length
            assert not mask & _OVERFLOW, "more events than the kernel keeps"
            kind = next((word for bit, word in _KINDS.items() if mask & bit), None)
            if kind is None or number not in self._watched:
                continue
            path = self._watched[number] / name
            if mask & _IS_FOLDER and kind in {"created", "renamed"}:
                self._add(path)
            yield Event(kind, str(path.relative_to(self._folder)))
