"""Walking a source safely: folders, zips, tars, archives in archives and single files, here or on an object store.

Archives are read member by member; nothing is unpacked, and no name out of an archive ever becomes a path on disk
(`etl/containers.py`). What an archive says of itself is checked before it is believed: paths, links, sizes, ratios,
overlaps, counts. Each entry ends as a `Member` or in the quarantine. Listings reach the caller one entry at a time,
because the full release has 928,020 of them.
"""

import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Self, cast

from pyarrow import fs

from etl.containers import (
    ARCHIVE_ERRORS,
    ArchiveLimits,
    Container,
    Member,
    OpenArchive,
    archive_kind,
    open_archive,
    read_at_most,
    spooled,
)
from etl.quality import Quarantined, Reason, RefusedError
from lesionary.errors import SourceError
from lesionary.locations import Location, open_location
from lesionary.object_stores import is_of_a_store, trouble
from lesionary.remote_files import open_remote

# An open archive holds its directory (some 20 MB for one of the release's 56).
_MAX_OPEN_ARCHIVES = 3

# Archives in archives in archives; what lies deeper is somebody's trick.
_DEEPEST_ARCHIVE = 3

# What stands behind a dot may be a name as well as a kind of file: `IM0001.Doe`.
_USUAL_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (  # noqa: SIM905 (a list of words reads better)
        "bmp bz2 csv ct dat db dcm dic dicom doc docx exe gif gz hdr htm html ima img inf ini jpeg jpg js json log md "
        "mhd mp4 nii nrrd pdf png raw rar rtf tar tbz2 tgz tif tiff tsv txt txz xls xlsx xml xz yaml zip zst"
    ).split()
)


class SourceTree:
    """The places of a source and reading from them; pickles as its places and reopens archives on demand."""

    def __init__(self, containers: Sequence[Container], limits: ArchiveLimits) -> None:
        self.containers = list(containers)
        self.source_count = len(self.containers)
        self.limits = limits
        self._open: OrderedDict[int, OpenArchive] = OrderedDict()

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
                    f"the source cannot be looked at ({trouble(cause)})",
                    where=source,
                    next_step="check the address and your rights to it",
                ) from cause
            if info.type == fs.FileType.NotFound:
                raise SourceError("there is no such file or folder", where=source, next_step="check the path")
            kind = archive_kind(location.path) if info.type == fs.FileType.File else None
            containers.append(Container(location, kind))
        return cls(containers, limits)

    def path_of(self, member: Member) -> str:
        """What a file is called, or for a source that is one file, that file."""
        return member.name or self.containers[member.container].location.path

    def entries(self) -> Iterator[Member | Quarantined]:
        """Every entry of every container; archives found on the way are walked after their folder."""
        number = 0
        while number < len(self.containers):
            container = self.containers[number]
            if container.archive:
                yield from self._archive_entries(number)
            elif container.location.is_local:
                yield from self._local_entries(number, container.location)
            else:
                yield from self._remote_entries(number, container.location)
            number += 1

    def read(self, container: int, name: str, most: int | None = None) -> bytes:
        """A file's bytes.

        Args:
            container: the file's.
            name: the file's.
            most: more bytes than this are refused; `limits.member_bytes` unless given.

        Raises:
            RefusedError: it cannot be read, with the reason.
        """
        limit = self.limits.member_bytes if most is None else most
        data = self.read_head(container, name, limit + 1)
        if len(data) > limit:
            raise RefusedError(Reason.MEMBER_TOO_LARGE, f"more than {limit} bytes")
        return data

    def read_head(self, container: int, name: str, size: int) -> bytes:
        """The first `size` bytes of a file, or all it has.

        Raises:
            RefusedError: it cannot be read, with the reason.
        """
        place = self.containers[container]
        try:
            if place.archive:
                return self._read_member(container, name, size)
            with _plain_file(place.location, name) as stream:
                return read_at_most(stream, size)
        except OSError as error:
            _require_it_is_the_file(place.location, error)
            raise RefusedError(Reason.FILE_UNREADABLE, type(error).__name__) from None

    def read_range(self, container: int, name: str, start: int, size: int) -> bytes:
        """Bytes from the middle of a file; fewer where it ends.

        Raises:
            RefusedError: it cannot be read, with the reason.
        """
        place = self.containers[container]
        if place.archive:
            return self.read_head(container, name, start + size)[start:]
        try:
            with _plain_file(place.location, name) as stream:
                stream.seek(start)
                return read_at_most(stream, size)
        except OSError as error:
            _require_it_is_the_file(place.location, error)
            raise RefusedError(Reason.FILE_UNREADABLE, type(error).__name__) from None

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
                elif kind := archive_kind(name):
                    self.containers.append(Container(_below(root, name), kind))
                else:
                    info = entry.stat(follow_symlinks=False)
                    yield Member(number, name, info.st_size, info.st_mtime_ns)
            waiting.extend(reversed(subfolders))

    def _remote_entries(self, number: int, root: Location) -> Iterator[Member | Quarantined]:
        try:
            own = root.filesystem.get_file_info(root.path)
            infos = (
                []
                if own.type == fs.FileType.File
                else root.filesystem.get_file_info(fs.FileSelector(root.path, recursive=True))
            )
        except OSError as cause:
            raise SourceError(
                f"the source cannot be listed ({trouble(cause)})",
                where=root.url,
                next_step="check the connection and your rights to it, then run the same command again",
            ) from cause
        if own.type == fs.FileType.File:
            yield Member(number, "", own.size or 0, own.mtime_ns or 0)
            return
        for info in sorted(infos, key=lambda info: info.path):
            if info.type != fs.FileType.File:
                continue
            name = info.path.removeprefix(f"{root.path}/")
            if kind := archive_kind(name):
                self.containers.append(Container(_below(root, name), kind))
            else:
                yield Member(number, name, info.size or 0, info.mtime_ns or 0)

    def _archive_entries(self, number: int) -> Iterator[Member | Quarantined]:
        label = f"archive #{number}"
        container = self.containers[number]
        try:
            archive = self._archive(number)
            members = archive.members(self.limits)
        except RefusedError as refusal:
            yield Quarantined("file", label, refusal.reason, refusal.detail)
            return
        except (*ARCHIVE_ERRORS, OSError) as error:
            _require_it_is_the_file(container.location, error)
            yield Quarantined("file", label, Reason.ARCHIVE_DAMAGED, type(error).__name__)
            return
        for entry in members:
            if entry.reason is not None:
                yield Quarantined("file", safe_label(entry.name, number), entry.reason, f"{entry.size} bytes stated")
            elif kind := archive_kind(entry.name):
                if container.depth + 1 > _DEEPEST_ARCHIVE:
                    yield Quarantined("file", safe_label(entry.name, number), Reason.NESTED_TOO_DEEP)
                else:
                    inner = Container(container.location, kind, (number, entry.name), container.depth + 1)
                    self.containers.append(inner)
            else:
                yield Member(number, entry.name, entry.size, entry.stamp)

    def _archive(self, number: int) -> OpenArchive:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        container = self.containers[number]
        file = _seekable(container.location) if container.inside is None else self._nested(*container.inside)
        archive = open_archive(file, container.archive or "", self.limits)
        while len(self._open) >= _MAX_OPEN_ARCHIVES:
            self._open.popitem(last=False)[1].close()
        self._open[number] = archive
        return archive

    def _nested(self, parent: int, name: str) -> IO[bytes]:
        """An archive inside an archive, copied to an unnamed temporary file."""
        with self._archive(parent).open(name) as stream:
            return spooled(stream, self.limits.archive_bytes)

    def _read_member(self, number: int, name: str, size: int) -> bytes:
        try:
            with self._archive(number).open(name) as stream:
                return read_at_most(stream, size)
        except KeyError:
            raise RefusedError(Reason.FILE_UNREADABLE, "no longer in the archive") from None
        except (*ARCHIVE_ERRORS, RuntimeError) as error:
            raise RefusedError(Reason.MEMBER_DAMAGED, type(error).__name__) from None


def safe_label(name: str, container: int) -> str:
    """What may be said of a name that could hold anything: its container, and its suffix if that is a usual one."""
    suffix = PurePosixPath(name.replace("\\", "/")).suffix.lower()
    return f"a {suffix if suffix in _USUAL_SUFFIXES else 'nameless'} file of container #{container}"


def _require_it_is_the_file(location: Location, error: Exception) -> None:
    """Only a file's own fault may end in the quarantine; a store that fails ends the run, which goes on from there.

    Raises:
        SourceError: it is the object store.
    """
    if isinstance(error, SourceError):
        raise error
    if location.is_local or isinstance(error, FileNotFoundError) or not is_of_a_store(error):
        return
    raise SourceError(
        f"the source cannot be read any more ({trouble(error)})",
        where=location.url,
        next_step="run the same command again when the store answers; what was committed is kept",
    ) from error


def _below(root: Location, name: str) -> Location:
    return Location(f"{root.url}/{name}", root.filesystem, root.join(name))


def _plain_file(location: Location, name: str) -> IO[bytes]:
    """A file object to read a part or all of; local files without pyarrow's detour, which costs more than the read."""
    path = location.join(name) if name else location.path
    if location.is_local:
        # Half the time of a path object's own open, which counts when a file is read for its header alone.
        return cast("IO[bytes]", io.FileIO(path))
    return open_remote(location.filesystem, path)


def _seekable(location: Location) -> IO[bytes]:
    """A file object an archive's reader can seek in: range reads on an object store."""
    if location.is_local:
        return Path(location.path).open("rb")
    return open_remote(location.filesystem, location.path, buffered=True)
