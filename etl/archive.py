"""Walking a source safely: folders, zips and single files, on this machine or an object store.

Zips are read in place, member by member; nothing is unpacked, and no name out of an archive ever becomes a path on
disk. What an archive says of itself is checked before it is believed: paths, links, sizes, ratios, overlaps, counts.
Each entry ends as a `Member` or in the quarantine. Listings reach the caller one entry at a time, because the full
release has 928,020 of them.
"""

import itertools
import os
import stat
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Self

from pyarrow import fs

from etl.quality import Quarantined, Reason, RefusedError
from lesionary.errors import SourceError
from lesionary.locations import Location, open_location

_LOCAL_HEADER_BYTES = 30
_ENCRYPTED_BIT = 0x1
_KNOWN_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    ValueError,
)

# Most slices fit into one piece.
_PIECE_BYTES = 1 << 20

# An open archive holds its directory (some 20 MB for one of the release's 56).
_MAX_OPEN_ARCHIVES = 3


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """What an archive may claim before it is disbelieved; generous for the real release."""

    member_bytes: int = 64 << 20
    """One file: a 4096 × 4096 slice has 32 MiB of pixels. The annotation table has 8.5 MB."""
    ratio: float = 200.0
    """Inflated over stored size; a PNG's is about 1, a table's about 5."""
    members: int = 2_000_000


@dataclass(frozen=True, slots=True)
class Container:
    """A folder, an archive or a single file of the source."""

    location: Location
    is_zip: bool


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the source."""

    container: int
    name: str
    """Relative to its container, parts joined by /."""
    size: int
    stamp: int
    """What changes when the content does: a zip's CRC, or the time of change in ns."""


class _OpenArchive:
    """A zip held open: its file, its directory, and the first entry of each name."""

    def __init__(self, location: Location) -> None:
        self._file = _seekable(location)
        try:
            self._zip = zipfile.ZipFile(self._file)
        except BaseException:
            self._file.close()
            raise
        self.infos = self._zip.infolist()
        self._first: dict[str, zipfile.ZipInfo] = {}
        for info in self.infos:
            self._first.setdefault(info.filename, info)

    def read(self, name: str, limit: int) -> bytes:
        """At most `limit` bytes of a member."""
        with self._zip.open(self._first[name]) as stream:
            return _read_at_most(stream, limit)

    def close(self) -> None:
        """Let go of the file."""
        self._zip.close()
        self._file.close()


class SourceTree:
    """The places of a source and reading from them; pickles as its places and reopens archives on demand."""

    def __init__(self, containers: Sequence[Container], limits: ArchiveLimits) -> None:
        self.containers = list(containers)
        self.limits = limits
        self._open: OrderedDict[int, _OpenArchive] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archives held open; reading opens them again."""
        while self._open:
            self._open.popitem()[1].close()

    def __reduce__(self) -> tuple[type[Self], tuple[list[Container], ArchiveLimits]]:
        """Open archives do not travel."""
        return type(self), (self.containers, self.limits)

    @classmethod
    def open(cls, sources: Sequence[str], limits: ArchiveLimits) -> Self:
        """Look at each source once.

        Raises:
            SourceError: one does not exist or cannot be looked at.
        """
        containers = []
        for source in sources:
            location = open_location(source)
            try:
                info = location.filesystem.get_file_info(location.path)
            except OSError as cause:
                raise SourceError(
                    f"the source cannot be looked at ({type(cause).__name__})",
                    where=source,
                    next_step="check the address and your rights to it",
                ) from cause
            if info.type == fs.FileType.NotFound:
                raise SourceError("there is no such file or folder", where=source, next_step="check the path")
            containers.append(Container(location, info.type == fs.FileType.File and _looks_like_zip(location.path)))
        return cls(containers, limits)

    def entries(self) -> Iterator[Member | Quarantined]:
        """Every entry of every container; archives found on the way are walked after their folder."""
        number = 0
        while number < len(self.containers):
            container = self.containers[number]
            if container.is_zip:
                yield from self._zip_entries(number)
            elif container.location.is_local:
                yield from self._local_entries(number, container.location)
            else:
                yield from self._remote_entries(number, container.location)
            number += 1

    def read(self, container: int, name: str) -> bytes:
        """A file's bytes, at most `limits.member_bytes`.

        Raises:
            RefusedError: it cannot be read, with the reason.
        """
        place = self.containers[container]
        try:
            if place.is_zip:
                data = self._read_zip_member(container, name)
            else:
                with _sequential(place.location, name) as stream:
                    data = _read_at_most(stream, self.limits.member_bytes + 1)
        except OSError as error:
            raise RefusedError(Reason.FILE_UNREADABLE, type(error).__name__) from None
        if len(data) > self.limits.member_bytes:
            raise RefusedError(Reason.MEMBER_TOO_LARGE, f"more than {self.limits.member_bytes} bytes")
        return data

    def _local_entries(self, number: int, root: Location) -> Iterator[Member | Quarantined]:
        if Path(root.path).is_file():
            info = Path(root.path).stat()
            yield Member(number, "", info.st_size, info.st_mtime_ns)
            return
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(Path(root.path, folder)) as found:
                    ordered = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                yield Quarantined("file", f"folder #{number}", Reason.FILE_UNREADABLE, type(error).__name__)
                continue
            subfolders = []
            for entry in ordered:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    subfolders.append(name)
                elif not entry.is_file(follow_symlinks=False):
                    yield Quarantined("file", safe_label(name, number), Reason.SYMBOLIC_LINK)
                elif _looks_like_zip(name):
                    self.containers.append(Container(_below(root, name), is_zip=True))
                else:
                    info = entry.stat(follow_symlinks=False)
                    yield Member(number, name, info.st_size, info.st_mtime_ns)
            waiting.extend(reversed(subfolders))

    def _remote_entries(self, number: int, root: Location) -> Iterator[Member | Quarantined]:
        own = root.filesystem.get_file_info(root.path)
        if own.type == fs.FileType.File:
            yield Member(number, "", own.size or 0, own.mtime_ns or 0)
            return
        infos = root.filesystem.get_file_info(fs.FileSelector(root.path, recursive=True))
        for info in sorted(infos, key=lambda info: info.path):
            if info.type != fs.FileType.File:
                continue
            name = info.path.removeprefix(f"{root.path}/")
            if _looks_like_zip(name):
                self.containers.append(Container(_below(root, name), is_zip=True))
            else:
                yield Member(number, name, info.size or 0, info.mtime_ns or 0)

    def _zip_entries(self, number: int) -> Iterator[Member | Quarantined]:
        label = f"archive #{number}"
        try:
            infos = self._archive(number).infos
        except (*_ZIP_ERRORS, OSError) as error:
            yield Quarantined("file", label, Reason.ARCHIVE_DAMAGED, type(error).__name__)
            return
        if len(infos) > self.limits.members:
            yield Quarantined("file", label, Reason.TOO_MANY_MEMBERS, f"{len(infos)} members")
            return
        overlapping = _overlapping(infos)
        seen: set[str] = set()
        for info in infos:
            if info.is_dir():
                continue
            reason = _distrust(info, self.limits)
            if reason is None and info.header_offset in overlapping:
                reason = Reason.MEMBERS_OVERLAP
            if reason is None and info.filename in seen:
                reason = Reason.DUPLICATE_SLICE
            if reason is not None:
                yield Quarantined("file", safe_label(info.filename, number), reason, f"{info.file_size} bytes stated")
                continue
            seen.add(info.filename)
            yield Member(number, info.filename, info.file_size, info.CRC)

    def _archive(self, number: int) -> _OpenArchive:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        archive = _OpenArchive(self.containers[number].location)
        while len(self._open) >= _MAX_OPEN_ARCHIVES:
            self._open.popitem(last=False)[1].close()
        self._open[number] = archive
        return archive

    def _read_zip_member(self, number: int, name: str) -> bytes:
        try:
            return self._archive(number).read(name, self.limits.member_bytes + 1)
        except KeyError:
            raise RefusedError(Reason.FILE_UNREADABLE, "no longer in the archive") from None
        except (*_ZIP_ERRORS, RuntimeError) as error:
            raise RefusedError(Reason.MEMBER_DAMAGED, type(error).__name__) from None


def safe_label(name: str, container: int) -> str:
    """What may be said of a name that could hold anything: its container and a short plain suffix."""
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    plain = suffix if suffix[1:].isascii() and suffix[1:].isalnum() and len(suffix) <= 6 else ""
    return f"a {plain or 'nameless'} file of container #{container}"


def _looks_like_zip(path: str) -> bool:
    return path.lower().endswith(".zip")


def _below(root: Location, name: str) -> Location:
    return Location(f"{root.url}/{name}", root.filesystem, root.join(name))


def _read_at_most(stream: IO[bytes], limit: int) -> bytes:
    """A stream's bytes, cut at `limit`; in pieces, because one read of the limit would claim that much memory."""
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := stream.read(min(left, _PIECE_BYTES))):
        parts.append(part)
        left -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _sequential(location: Location, name: str) -> IO[bytes]:
    """A file object to read from start to end; local files without pyarrow's detour, which costs more than the read."""
    path = location.join(name) if name else location.path
    if location.is_local:
        return Path(path).open("rb", buffering=0)
    remote: IO[bytes] = location.filesystem.open_input_stream(path)
    return remote


def _seekable(location: Location) -> IO[bytes]:
    """A file object zipfile can seek in: range reads on an object store."""
    if location.is_local:
        return Path(location.path).open("rb")
    remote: IO[bytes] = location.filesystem.open_input_file(location.path)
    return remote


def _distrust(info: zipfile.ZipInfo, limits: ArchiveLimits) -> Reason | None:
    """Why a member is not to be touched, from what the directory says of it."""
    name = info.orig_filename
    if (
        name.startswith(("/", "\\"))
        or "\\" in name
        or "\x00" in name
        or ":" in name.split("/")[0]
        or ".." in name.split("/")
    ):
        return Reason.PATH_ESCAPES
    if info.flag_bits & _ENCRYPTED_BIT:
        return Reason.ENCRYPTED
    mode = info.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in {0, stat.S_IFREG}:
        return Reason.SYMBOLIC_LINK
    if info.file_size > limits.member_bytes:
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
