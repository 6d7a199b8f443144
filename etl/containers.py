"""Archives as places to read members from: zips in place, tars by the offsets of their members.

A compressed tar has no directory and no way to jump: it is inflated once, within limits, into an unnamed temporary
file. The same happens to an archive inside another. Members are listed with what is wrong with them; what looks like
a trick is never opened.
"""

import bz2
import gzip
import io
import itertools
import lzma
import stat
import tarfile
import tempfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, cast

from etl.quality import Reason, RefusedError
from lesionary.locations import Location

if TYPE_CHECKING:
    from typing_extensions import Buffer

_LOCAL_HEADER_BYTES = 30
_ENCRYPTED_BIT = 0x1
_KNOWN_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
ARCHIVE_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)

# Most slices fit into one piece.
_PIECE_BYTES = 1 << 20

_SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        ".zip": "zip",
        ".tar": "tar",
        ".tar.gz": "tar.gz",
        ".tgz": "tar.gz",
        ".tar.bz2": "tar.bz2",
        ".tbz2": "tar.bz2",
        ".tar.xz": "tar.xz",
        ".txz": "tar.xz",
    }
)


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may claim before it is disbelieved; generous for the real release."""

    member_bytes: int = 64 << 20
    """One file: a 4096 × 4096 slice has 32 MiB of pixels. The annotation table has 8.5 MB."""
    ratio: float = 200.0
    """Inflated over stored size; a PNG's is about 1, a table's about 5."""
    members: int = 2_000_000
    archive_bytes: int = 32 << 30
    """What one compressed tar or inner archive may take on disk once inflated."""


@dataclass(frozen=True, slots=True)
class Container:
    """A folder, an archive or a single file of the source."""

    location: Location
    archive: str | None = None
    """Kind of archive, as of `archive_kind`; None for folders and files."""
    inside: tuple[int, str] | None = None
    """For an archive in an archive: the outer container's number and the member's name."""
    depth: int = 1


@dataclass(frozen=True)
class Member:
    """One file of the source."""

    container: int
    name: str
    """Relative to its container, parts joined by /; empty when the container is the file itself."""
    size: int
    stamp: int
    """What changes when the content does: a zip's CRC, or the time of change in ns."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One member as an archive lists it."""

    name: str
    size: int
    stamp: int
    reason: Reason | None = None
    """Why it is not to be touched."""


class OpenArchive(ABC):
    """An archive held open."""

    @abstractmethod
    def members(self, limits: ArchiveLimits) -> list[Listed]:
        """Its files, each with what is wrong with it; folders are left out."""

    @abstractmethod
    def open(self, name: str) -> IO[bytes]:
        """A member to read from start to end.

        Raises:
            KeyError: there is none of this name.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


def archive_kind(path: str) -> str | None:
    """What kind of archive a name promises, or None."""
    lowered = path.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if lowered.endswith(suffix)), None)


def open_archive(file: IO[bytes], kind: str, limits: ArchiveLimits) -> OpenArchive:
    """Open an archive; the file belongs to it from now on.

    Raises:
        RefusedError: it inflates to more than the limits allow.
        OSError or one of ARCHIVE_ERRORS: it is damaged.
    """
    try:
        return _OpenZip(file) if kind == "zip" else _OpenTar(_inflated(file, kind, limits), limits)
    except BaseException:
        file.close()
        raise


def read_at_most(stream: IO[bytes], limit: int) -> bytes:
    """A stream's bytes, cut at `limit`; in pieces, because one read of the limit would claim that much memory."""
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := stream.read(min(left, _PIECE_BYTES))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def spooled(stream: IO[bytes], limit: int) -> IO[bytes]:
    """A stream's bytes in an unnamed temporary file, rewound.

    Raises:
        RefusedError: there are more than `limit`.
    """
    with ExitStack() as on_error:
        file = cast("IO[bytes]", on_error.enter_context(tempfile.TemporaryFile(prefix="lesionary-")))
        written = 0
        while part := stream.read(_PIECE_BYTES):
            written += len(part)
            if written > limit:
                raise RefusedError(Reason.MEMBER_TOO_LARGE, f"more than {limit} bytes")
            file.write(part)
        file.seek(0)
        on_error.pop_all()
    return file


class _OpenZip(OpenArchive):
    """A zip: its file, its directory, and the first entry of each name."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file)
        self._infos = self._zip.infolist()
        self._first: dict[str, zipfile.ZipInfo] = {}
        for info in self._infos:
            self._first.setdefault(info.filename, info)

    def members(self, limits: ArchiveLimits) -> list[Listed]:
        """Its files by its directory."""
        _refuse_crowds(len(self._infos), limits)
        overlapping = _overlapping(self._infos)
        seen: set[str] = set()
        listed = []
        for info in self._infos:
            if info.filename.endswith("/"):
                continue
            reason = _distrust(info, limits)
            if reason is None and info.header_offset in overlapping:
                reason = Reason.MEMBERS_OVERLAP
            if reason is None and info.filename in seen:
                reason = Reason.DUPLICATE_SLICE
            if reason is None:
                seen.add(info.filename)
            listed.append(Listed(info.filename, info.file_size, info.CRC, reason))
        return listed

    def open(self, name: str) -> IO[bytes]:
        return self._zip.open(self._first[name])

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class _Window(io.RawIOBase):
    """Part of a file, read from start to end."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file = file
        self._place = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "Buffer") -> int:
        view = memoryview(buffer)
        self._file.seek(self._place)
        part = self._file.read(min(len(view), self._end - self._place))
        view[: len(part)] = part
        self._place += len(part)
        return len(part)


class _Bounded:
    """A tar's file as the library reads it: never asked for more bytes than there are, whatever a header claims."""

    def __init__(self, file: IO[bytes], end: int) -> None:
        self._file = file
        self._end = end
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        """At most what is left; a header may claim a terabyte, and memory for it would be taken before it is read."""
        return self._file.read(max(0, min(size, self._end - self._file.tell())))


class _OpenTar(OpenArchive):
    """A tar without compression: where its members lie in the file."""

    def __init__(self, file: IO[bytes], limits: ArchiveLimits) -> None:
        self._file = file
        self._listed: list[Listed] = []
        self._places: dict[str, tuple[int, int]] = {}
        end = file.seek(0, 2)
        file.seek(0)
        try:
            self._list(end, limits)
        except RecursionError:
            # The library calls itself for each long name that follows a long name.
            raise tarfile.ReadError("headers upon headers") from None
        except IndexError:
            # It looks into a sparse file's header without asking whether all of it is there.
            raise tarfile.ReadError("a header cut short") from None

    def _list(self, end: int, limits: ArchiveLimits) -> None:
        with tarfile.open(fileobj=cast("IO[bytes]", _Bounded(self._file, end)), mode="r:") as tar:
            for number, info in enumerate(_walk(tar)):
                _refuse_crowds(number, limits)
                if info.isdir():
                    continue
                reason = self._distrust(info, end, limits)
                if reason is None:
                    self._places[info.name] = (info.offset_data, info.size)
                stamp = hash((info.mtime, info.chksum, info.offset_data))
                self._listed.append(Listed(info.name, info.size, stamp, reason))

    def members(self, limits: ArchiveLimits) -> list[Listed]:  # noqa: ARG002 (the walk has asked them)
        """Its files by their headers."""
        return self._listed

    def _distrust(self, info: tarfile.TarInfo, end: int, limits: ArchiveLimits) -> Reason | None:
        if _escapes(info.name):
            return Reason.PATH_ESCAPES
        if not info.isreg() or info.issparse():
            return Reason.SYMBOLIC_LINK
        if info.size > _size_limit(info.name, limits):
            return Reason.MEMBER_TOO_LARGE
        if info.size < 0 or info.offset_data + info.size > end:
            return Reason.MEMBER_DAMAGED
        return Reason.DUPLICATE_SLICE if info.name in self._places else None

    def open(self, name: str) -> IO[bytes]:
        return cast("IO[bytes]", _Window(self._file, *self._places[name]))

    def close(self) -> None:
        self._file.close()


def _walk(tar: tarfile.TarFile) -> Iterable[tarfile.TarInfo]:
    """A tar's entries one by one; a damaged header in the middle is an error here, not an early end."""
    place = -1
    while (info := tar.next()) is not None:
        # A size below nothing leads back to where the walk came from, for ever.
        if info.size < 0 or info.offset_data <= place:
            raise tarfile.ReadError("an entry leads backwards")
        place = info.offset_data
        # The library keeps every entry it has seen.
        tar.members = []  # type: ignore[attr-defined]
        yield info


def _inflated(file: IO[bytes], kind: str, limits: ArchiveLimits) -> IO[bytes]:
    if kind == "tar":
        return file
    stored = file.seek(0, 2)
    file.seek(0)
    limit = min(limits.archive_bytes, int(stored * limits.ratio) + (64 << 20))
    stream: IO[bytes]
    match kind:
        case "tar.gz":
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
        case "tar.bz2":
            stream = cast("IO[bytes]", bz2.BZ2File(file))
        case _:
            stream = cast("IO[bytes]", lzma.LZMAFile(file))  # noqa: SIM115 (closed two lines below)
    with stream:
        inflated = spooled(stream, limit)
    file.close()
    return inflated


def _refuse_crowds(count: int, limits: ArchiveLimits) -> None:
    if count > limits.members:
        raise RefusedError(Reason.TOO_MANY_MEMBERS, f"{count} members")


def _escapes(name: str) -> bool:
    return (
        not name.strip("/")
        or name.startswith(("/", "\\"))
        or "\\" in name
        or "\x00" in name
        or ":" in name.split("/", maxsplit=1)[0]
        or ".." in name.split("/")
    )


def _size_limit(name: str, limits: ArchiveLimits) -> int:
    return limits.archive_bytes if archive_kind(name) else limits.member_bytes


def _distrust(info: zipfile.ZipInfo, limits: ArchiveLimits) -> Reason | None:
    """Why a member is not to be touched, from what the directory says of it."""
    if _escapes(info.orig_filename):
        return Reason.PATH_ESCAPES
    if info.flag_bits & _ENCRYPTED_BIT:
        return Reason.ENCRYPTED
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        return Reason.SYMBOLIC_LINK
    if info.file_size > _size_limit(info.filename, limits):
        return Reason.MEMBER_TOO_LARGE
    if info.file_size > limits.ratio * max(info.compress_size, 1):
        return Reason.MEMBER_RATIO
    return None if info.compress_type in _KNOWN_METHODS else Reason.MEMBER_DAMAGED


def _overlapping(infos: Sequence[zipfile.ZipInfo]) -> frozenset[int]:
    """Offsets of members whose bytes run into the next member's: the trick of quoted-overlap bombs."""
    ordered = sorted(infos, key=lambda info: info.header_offset)
    overlapping = set()
    for info, following in itertools.pairwise(ordered):
        end = info.header_offset + _LOCAL_HEADER_BYTES + len(info.orig_filename) + info.compress_size
        if end > following.header_offset:
            overlapping |= {info.header_offset, following.header_offset}
    return frozenset(overlapping)
