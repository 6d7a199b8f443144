"""Caches: what can be made again from the lake at any time, kept because making it takes long.

    <lake>/cache/<kind>-<digest>/part-00000.arrow …    Arrow IPC files, not compressed: mapped, never loaded
    <lake>/cache/<kind>-<digest>/cache.json            recipe, versions, parts and counts; written last

The digest covers the kind, the recipe and the versions of the tables it was made from, so another recipe or another
state of the lake is another folder. A folder without its record is unfinished, whoever was killed making it, and
counts as absent. Two builders of one cache write the same parts under the same names, each whole: neither disturbs
the other, as long as what goes into a part follows from the recipe and the lake alone.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO, Self, cast

import pyarrow as pa
from pyarrow import fs, ipc

from lesionary import __version__
from lesionary.artifacts import atomic_file
from lesionary.errors import ArtifactError, InternalError, UnwritableError
from lesionary.json_text import parse_json
from lesionary.lake import Lake
from lesionary.locations import Location, open_location
from lesionary.object_stores import is_of_a_store, read_object, upload_file
from lesionary.remote_files import download_file, open_remote

RECORD_FILE = "cache.json"
_CACHE_FOLDER = "cache"
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_DIGEST_DIGITS = 16

# An unfinished folder that was written to more recently may have a living builder.
_ABANDONED_AFTER_S = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CachePart:
    """One file of a cache."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Cache:
    """A finished cache."""

    url: str
    record: Mapping[str, object]
    """Kind, recipe, versions, parts, rows, counts, and when and by which release it was made."""


def cache_url(lake: Lake, kind: str, recipe: Mapping[str, object], versions: Mapping[str, int]) -> str:
    """Where a cache lies, or would lie.

    Args:
        lake: that it is made from.
        kind: what it holds.
        recipe: all settings that its content follows from, as JSON can say them.
        versions: table name to version of everything it was read from.
    """
    if not _KIND.fullmatch(kind):
        raise InternalError(f"{kind!r} cannot name a kind of cache")
    text = json.dumps([kind, dict(recipe), dict(versions)], sort_keys=True, allow_nan=False)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_DIGITS]
    return f"{lake.url.rstrip('/')}/{_CACHE_FOLDER}/{kind}-{digest}"


def find_cache(lake: Lake, kind: str, recipe: Mapping[str, object], versions: Mapping[str, int]) -> Cache | None:
    """The finished cache of this recipe and these versions; None when there is none, or it is not whole any more."""
    url = cache_url(lake, kind, recipe, versions)
    try:
        return _checked_cache(url)
    except ArtifactError:
        return None


def list_caches(lake: Lake, kind: str) -> list[Cache]:
    """The lake's finished caches of a kind, those of older versions as well."""
    root = lake.location.join(_CACHE_FOLDER)
    infos = lake.location.filesystem.get_file_info(fs.FileSelector(root, allow_not_found=True))
    ours = re.compile(rf"{re.escape(kind)}-[0-9a-f]{{{_DIGEST_DIGITS}}}")
    found = []
    for name in sorted(info.base_name for info in infos if ours.fullmatch(info.base_name)):
        with contextlib.suppress(ArtifactError):
            found.append(_checked_cache(f"{lake.url.rstrip('/')}/{_CACHE_FOLDER}/{name}"))
    return found


class CacheWriter:
    """Makes a cache: parts in any order, from any process, then the record.

    Workers that do not hold the writer call `write_part` with its `url`, and their parts are handed to `add`.
    Left without `finish` (an exception, a kill) it leaves a folder that counts as absent.
    """

    def __init__(
        self, lake: Lake, kind: str, recipe: Mapping[str, object], versions: Mapping[str, int], schema: pa.Schema
    ) -> None:
        self.url = cache_url(lake, kind, recipe, versions)
        self._said = {"kind": kind, "recipe": dict(recipe), "versions": dict(versions)}
        self._schema = schema
        self._parts: dict[str, CachePart] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is held open; parts without a record are nobody's."""
        del kind, error, trace

    def write(self, part_number: int, table: pa.Table) -> CachePart:
        """Write one part; a second one of that number takes the first one's place."""
        if not table.schema.equals(self._schema):
            raise InternalError(f"a part of cache {self._said['kind']} has other columns than its schema")
        part = write_part(self.url, part_number, table)
        self.add(part)
        return part

    def add(self, part: CachePart) -> None:
        """Count a part that a worker wrote."""
        self._parts[part.name] = part

    def finish(self, counts: Mapping[str, object] | None = None) -> Cache:
        """Publish the cache; `counts` says what went in and what was left out, as JSON can say it."""
        if not self._parts:
            self.write(0, self._schema.empty_table())
        parts = [self._parts[name] for name in sorted(self._parts)]
        record: dict[str, object] = {
            **self._said,
            "parts": [asdict(part) for part in parts],
            "rows": sum(part.rows for part in parts),
            "counts": dict(counts or {}),
            "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "version": __version__,
        }
        with _whole_file(open_location(self.url), RECORD_FILE) as sink:
            sink.write((json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n").encode())
        return Cache(self.url, MappingProxyType(record))


def write_part(url: str, part_number: int, table: pa.Table) -> CachePart:
    """Write one part into a cache's folder; it appears whole or not at all."""
    name = f"part-{part_number:05d}.arrow"
    with _whole_file(open_location(url), name) as sink:
        counted = pa.PythonFile(sink, mode="w")
        with ipc.new_file(counted, table.schema) as writer:
            writer.write_table(table)
        size = int(counted.tell())
    return CachePart(name, table.num_rows, size)


def open_cache(url: str, local_copy: Path | None = None) -> pa.Table:
    """A finished cache as one table that lies in mapped files: nothing is read until it is looked at.

    Args:
        url: of the cache.
        local_copy: folder for a copy of a cache that is not on this machine's disks; parts that are there already are
            not copied again. Below the user's own cache folder unless given.

    Raises:
        ArtifactError: it is not there, unfinished, or not what was written.
    """
    cache = _checked_cache(url)
    location = open_location(url)
    folder = Path(location.path) if location.is_local else _copied(cache, location, local_copy)
    tables = []
    for part in _parts_of(cache.record):
        try:
            with ipc.open_file(pa.memory_map(str(folder / part.name))) as reader:
                tables.append(reader.read_all())
        except (OSError, pa.ArrowInvalid) as cause:
            raise _broken(url, f"{part.name} cannot be read ({type(cause).__name__})") from cause
    try:
        table = pa.concat_tables(tables)
    except pa.ArrowInvalid as cause:
        raise _broken(url, "its parts have different columns") from cause
    if table.num_rows != cache.record["rows"]:
        raise _broken(url, f"{table.num_rows} rows where its record says {cache.record['rows']}")
    return table


def drop_old_caches(lake: Lake, kind: str, keep: str) -> None:
    """Remove a kind's caches that were made from other versions of the lake's tables than the one to keep.

    Other recipes for the same versions stay: somebody may be using them. Unfinished ones go only once nobody can be
    making them any more.

    Args:
        lake: whose.
        kind: what they hold.
        keep: URL of the one that tells the versions. Processes that have old ones mapped keep what they have.
    """
    location = lake.location
    ours = re.compile(rf"{re.escape(kind)}-[0-9a-f]{{{_DIGEST_DIGITS}}}")
    newest = _checked_cache(keep).record["versions"]
    selector = fs.FileSelector(location.join(_CACHE_FOLDER), allow_not_found=True)
    for info in location.filesystem.get_file_info(selector):
        if not ours.fullmatch(info.base_name):
            continue
        url = f"{keep.rstrip('/').rsplit('/', 1)[0]}/{info.base_name}"
        try:
            old = _checked_cache(url).record["versions"] != newest
        except ArtifactError:
            files = location.filesystem.get_file_info(fs.FileSelector(info.path, allow_not_found=True))
            newest_s = max((file.mtime_ns or 0 for file in files), default=0) / 1e9
            old = newest_s < time.time() - _ABANDONED_AFTER_S
        if old:
            # The record goes first, so that nobody finds a cache whose parts are going.
            with contextlib.suppress(FileNotFoundError):
                location.filesystem.delete_file(f"{info.path}/{RECORD_FILE}")
            with contextlib.suppress(FileNotFoundError):
                location.filesystem.delete_dir(info.path)


def part_names(cache: Cache) -> list[tuple[str, int]]:
    """A cache's parts in order: name and rows."""
    return [(part.name, part.rows) for part in _parts_of(cache.record)]


def open_part(url: str, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One part of a finished cache, mapped where it lies on this machine's disks, read otherwise.

    Args:
        url: of the cache.
        name: of the part.
        columns: those wanted; all unless given.

    Raises:
        ArtifactError: it is not there, or damaged.
    """
    location = open_location(url)
    path = location.join(name)
    try:
        source = pa.memory_map(path) if location.is_local else open_remote(location.filesystem, path)
        with ipc.open_file(source) as reader:
            wanted = None if columns is None else [reader.schema.get_field_index(column) for column in columns]
        with ipc.open_file(source, options=ipc.IpcReadOptions(included_fields=wanted)) as reader:
            return reader.read_all()
    except (OSError, pa.ArrowInvalid) as cause:
        if is_of_a_store(cause):
            raise
        raise _broken(url, f"{name} cannot be read ({type(cause).__name__})") from cause


def _checked_cache(url: str) -> Cache:
    """A cache whose record is whole and whose parts are there, each of its size."""
    location = open_location(url)
    try:
        system = location.filesystem
        record = parse_json(read_object(system, location.join(RECORD_FILE)))
        parts = _parts_of(record)
        infos = location.filesystem.get_file_info([location.join(part.name) for part in parts])
    except FileNotFoundError as cause:
        raise _broken(url, "there is no finished cache here") from cause
    except (OSError, ValueError, TypeError, KeyError) as cause:
        if is_of_a_store(cause):
            raise
        raise _broken(url, f"its {RECORD_FILE} cannot be read ({type(cause).__name__})") from cause
    for part, info in zip(parts, infos, strict=True):
        if info.type != fs.FileType.File or info.size != part.bytes:
            raise _broken(url, f"{part.name} is missing or cut short")
    return Cache(url, MappingProxyType(record))


def _parts_of(record: Mapping[str, object]) -> Sequence[CachePart]:
    parts = record["parts"]
    if not isinstance(parts, list) or not parts or not isinstance(record["rows"], int):
        raise TypeError("parts")
    found = [CachePart(**part) for part in parts]
    if any(not re.fullmatch(r"part-\d{5,}\.arrow", part.name) for part in found):
        raise ValueError("a part's name")
    return found


def _copied(cache: Cache, location: Location, local_copy: Path | None) -> Path:
    """A local folder that holds the parts of a cache elsewhere."""
    digest = hashlib.sha256(cache.url.encode()).hexdigest()[:_DIGEST_DIGITS]
    folder = local_copy or _user_cache_folder() / f"{cache.url.rsplit('/', 1)[-1]}-{digest}"
    for part in _parts_of(cache.record):
        target = folder / part.name
        if target.is_file() and target.stat().st_size == part.bytes and _same_record(folder, cache):
            continue
        download_file(location.filesystem, location.join(part.name), target)
    with atomic_file(folder / RECORD_FILE) as sink:
        sink.write(json.dumps(dict(cache.record), sort_keys=True).encode())
    return folder


def _same_record(folder: Path, cache: Cache) -> bool:
    """Whether a copy is one of this very cache, not of one made earlier under its name."""
    try:
        return bool(parse_json((folder / RECORD_FILE).read_bytes()) == dict(cache.record))
    except (OSError, ValueError):
        return False


def _user_cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lesionary"


@contextlib.contextmanager
def _whole_file(folder: Location, name: str) -> Iterator[BinaryIO]:
    """A file of a cache that appears whole or not at all."""
    if folder.is_local:
        with atomic_file(Path(folder.path) / name) as sink:
            yield sink
        return
    try:
        with tempfile.NamedTemporaryFile(prefix="lesionary-") as whole:
            yield cast("BinaryIO", whole)
            whole.flush()
            folder.filesystem.create_dir(folder.path, recursive=True)
            upload_file(Path(whole.name), folder.filesystem, folder.join(name))
    except OSError as cause:
        raise UnwritableError(
            f"the cache cannot be written ({type(cause).__name__})",
            where=name,
            next_step="check the place and your rights to it",
        ) from cause


def _broken(url: str, what: str) -> ArtifactError:
    return ArtifactError(
        what, where=f"cache {url.rstrip('/').rsplit('/', 1)[-1]}", next_step="run the command that makes it again"
    )
