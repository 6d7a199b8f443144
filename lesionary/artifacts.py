"""Files that are whole or absent: written beside their place, flushed to disk, then renamed into it."""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lesionary.errors import ArtifactError, UnwritableError
from lesionary.json_text import parse_json

_READ_BYTES = 1 << 20

# What a system refuses to write for. Libraries put the words into errors of their own.
_REFUSALS = tuple(
    os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` when the block ends well, and not at all when it does not.

    Raises:
        UnwritableError: the place takes no such file.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with _writable(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sink = temporary.open("wb")
    try:
        with sink:
            yield sink
            with _writable(path):
                sink.flush()
                os.fsync(sink.fileno())
        with _writable(path):
            temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise UnwritableError(
            f"the file cannot be written ({reason_of(cause)})",
            where=path.name,
            next_step="check the folder, its space and your rights to it",
        ) from cause


def refusal_of(error: BaseException) -> str | None:
    """Why the system would not write, such as "No space left on device"; None where the error is another."""
    said = str(error).lower()
    return next((text for text in _REFUSALS if text.lower() in said), None)


def reason_of(error: BaseException) -> str:
    """The same, or the system's other reason, or the error's class."""
    return refusal_of(error) or getattr(error, "strerror", None) or type(error).__name__


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, or none of it."""
    with atomic_file(path) as sink:
        sink.write(data)


def atomic_write_json(path: Path, value: object) -> None:
    """Write a value as readable JSON, or nothing of it."""
    atomic_write_bytes(path, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def read_json(path: Path) -> object:
    """The value of a JSON file of ours.

    Raises:
        ArtifactError: the file cannot be read, or holds no JSON.
    """
    try:
        return parse_json(path.read_bytes())
    except (OSError, ValueError) as cause:
        raise ArtifactError(
            f"cannot be read ({type(cause).__name__})", where=path.name, next_step="write it again"
        ) from cause


def file_sha256(stream: BinaryIO) -> str:
    """Hexadecimal SHA-256 of everything left in a stream."""
    digest = hashlib.sha256()
    while block := stream.read(_READ_BYTES):
        digest.update(block)
    return digest.hexdigest()
