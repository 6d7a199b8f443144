"""Reading an object as a file that survives a connection which breaks off in the middle.

pyarrow tries failed reads again by itself, but not all: the answer of a store that is busy may be longer than a short
range was to be, and then the read fails at once.
"""

import io
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import pyarrow as pa
from pyarrow import fs

from lesionary.artifacts import atomic_file
from lesionary.object_stores import BLOCK_BYTES, persistently

if TYPE_CHECKING:
    from typing_extensions import Buffer

_BUFFER_BYTES = 1 << 16


class RemoteFile(io.RawIOBase):
    """An object, opened for reading; every read is tried again as `persistently` does."""

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        super().__init__()
        self._filesystem = filesystem
        self._path = path
        self._source: pa.NativeFile | None = None
        self._position = 0
        self._size = int(persistently(filesystem, lambda: self._opened().size()))

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read starts."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move there; nothing is asked of the store."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError("negative position in a file")
        self._position = base + offset
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all that are left."""
        left = max(0, self._size - self._position)
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted == 0:
            return b""
        data = persistently(self._filesystem, lambda: self._read_at(wanted))
        self._position += len(data)
        return data

    def readinto(self, buffer: "Buffer", /) -> int:
        """Fill a buffer, as far as the object goes."""
        with memoryview(buffer).cast("B") as place:
            data = self.read(len(place))
            place[: len(data)] = data
            return len(data)

    def close(self) -> None:
        """Let go of the object."""
        if self._source is not None:
            self._source.close()
            self._source = None
        super().close()

    def _opened(self) -> pa.NativeFile:
        if self._source is None:
            self._source = self._filesystem.open_input_file(self._path)
        return self._source

    def _read_at(self, size: int) -> bytes:
        try:
            data: bytes = self._opened().read_at(size, self._position)
        except OSError:
            self._source = None
            raise
        if len(data) < size:
            self._source = None
            raise OSError("the connection broke off: fewer bytes than the object has")
        return data


def open_remote(filesystem: fs.FileSystem, path: str, *, buffered: bool = False) -> BinaryIO:
    """An object to read and to seek in.

    Raises:
        FileNotFoundError: there is none.
        OSError: the store does not give it.
    """
    file = RemoteFile(filesystem, path)
    return cast("BinaryIO", io.BufferedReader(file, _BUFFER_BYTES) if buffered else file)


def download_file(filesystem: fs.FileSystem, path: str, target: Path) -> None:
    """Copy an object to this machine, whole or not at all.

    Raises:
        FileNotFoundError: there is none.
        OSError: the store does not give it.
        UnwritableError: this machine's disk does not take it.
    """
    with open_remote(filesystem, path) as source, atomic_file(target) as sink:
        shutil.copyfileobj(source, sink, BLOCK_BYTES)
