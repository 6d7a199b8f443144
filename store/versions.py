"""The store's versions on disk: every sync makes a new file and swaps a link, so no reader is ever in its way.

    features.duckdb                                 link to the newest version; what people open
    features.duckdb.files/v00000012.duckdb          a version; never written again once the link has pointed at it
    features.duckdb.files/v00000012.json            the folders of vectors that belong to it
    features.duckdb.files/<set>-<digest>/           vectors of one feature set, named by content, shared by versions
    features.duckdb.files/lock                      held by the one process that makes a new version

A reader holds a shared lock on its version; versions that nobody holds and the link does not name are removed by the
next writer. A killed writer leaves a draft that the next one removes: the link still names the old version.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lesionary.artifacts import atomic_write_bytes, reason_of
from lesionary.errors import InternalError, StoreError
from lesionary.json_text import parse_json

_VERSION = re.compile(r"v(\d{8})\.duckdb")
DRAFT_SUFFIX = ".part"
_LOCK_FILE = "lock"
_ABANDONED_S = 3600.0
_LOOK_AGAIN = 20
_WAIT_S = 0.05
# linux/fs.h: share the blocks of another file until one of the two changes; copies of any size in no time.
_FICLONE = 0x40049409

# Identities of the lock files that this process holds, by the store's path.
_locks_held: dict[Path, tuple[int, int] | None] = {}

Waiting = Callable[[], None]
"""Called once when another process is writing and we wait for it."""


def files_folder(path: Path) -> Path:
    """Where the versions and vector files of the store at `path` lie."""
    return path.with_name(f"{path.name}.files")


@contextlib.contextmanager
def hold_current(path: Path) -> Iterator[Path]:
    """The newest version's file, kept from being removed as long as it is held.

    Raises:
        StoreError: there is no store.
    """
    _refuse_folder(path)
    for _ in range(_LOOK_AGAIN):
        handle = _open_current(path)
        if handle is None:
            continue
        descriptor, file = handle
        try:
            yield file
        finally:
            os.close(descriptor)
        return
    raise StoreError("the store is replaced faster than it can be opened", where=path.name, next_step="try again")


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise StoreError(
            "this is a folder, not a feature store", where=path.name, next_step="name a file in it with --store"
        )


def _open_current(path: Path) -> tuple[int, Path] | None:
    """The newest version under a shared lock; None when it was removed on the way to it."""
    file = path.resolve()
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        if path.is_symlink() and path.resolve() != file:
            return None
        damaged = path.is_symlink()
        sentence = "the store's newest version is gone" if damaged else "there is no store yet"
        raise StoreError(sentence, where=path.name, next_step="run `lesionary sync`") from None
    except OSError as cause:
        raise StoreError(
            f"the store cannot be opened ({type(cause).__name__})", where=path.name, next_step="check your rights to it"
        ) from cause
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    if os.fstat(descriptor).st_nlink == 0:
        os.close(descriptor)
        return None
    return descriptor, file


@dataclass(slots=True)
class Draft:
    """A version in the making: a copy of the newest one, seen by nobody."""

    file: Path
    folder: Path
    vector_folders: list[str] = field(default_factory=list)
    """Names in `folder` that belong to the version; to be set before it is published."""


@contextlib.contextmanager
def writing(path: Path, on_wait: Waiting | None = None) -> Iterator[None]:
    """Be the one process that may make a new version; waits for another one to finish.

    Raises:
        StoreError: the folder cannot be written.
    """
    _refuse_folder(path)
    folder = files_folder(path)
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as cause:
            raise StoreError(
                f"the store cannot be written ({reason_of(cause)})", where=path.name,
                next_step="check your rights to its folder, or name another file with --store",
            ) from cause  # fmt: skip
        try:
            _lock(descriptor, on_wait)
            held = _identity(descriptor)
            if held != _identity(folder / _LOCK_FILE):
                continue  # removed while we waited for it: others would not see us behind it
            _locks_held[path] = held
            yield
            return
        finally:
            _locks_held.pop(path, None)
            os.close(descriptor)


def _identity(file: int | Path) -> tuple[int, int] | None:
    """Which file it is, whatever its name; None where there is none."""
    try:
        status = os.fstat(file) if isinstance(file, int) else file.stat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def draft_version(path: Path) -> Iterator[Draft]:
    """A copy of the newest version to be changed; published when the block ends, discarded when it raises.

    Only inside `writing`. The file must hold everything when the block ends: no connection, no write-ahead log.
    """
    folder = files_folder(path)
    _sweep_drafts(folder)
    number = 1 + max((number for number, _ in _versions(folder)), default=0)
    # A name of its own: should the lock be lost, no two writers work on one file.
    draft = Draft(folder / f"v{number:08d}.duckdb.{secrets.token_hex(4)}{DRAFT_SUFFIX}", folder)
    try:
        if path.exists():
            _copy(path.resolve(), draft.file)
        yield draft
        if draft.file.with_name(f"{draft.file.name}.wal").exists():
            raise InternalError("a new version of the store is not whole: it has a write-ahead log")
        _publish(path, draft, number)
    finally:
        _sweep_drafts(folder)
    remove_unused(path)


def remove_unused(path: Path) -> None:
    """Remove versions that the link does not name and no reader holds, and vectors that none of the rest needs."""
    folder, current = files_folder(path), path.resolve()
    needed: set[str] = set()
    kept = {
        _manifest(folder, number)
        for number, file in _versions(folder)
        if file.resolve() == current or not _remove_unheld(file)
    }
    for manifest in kept:
        needed.update(_listed(manifest))
    # Those of versions just removed, and of one whose writer was killed between the two.
    for manifest in set(folder.glob("v*.json")) - kept:
        manifest.unlink(missing_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name not in needed and not _is_in_the_making(entry):
            shutil.rmtree(entry, ignore_errors=True)


def _is_in_the_making(entry: Path) -> bool:
    """Whether a reader may be at work on it: readers make vectors again that were damaged, under no lock."""
    try:
        return entry.name.endswith(DRAFT_SUFFIX) and time.time() - entry.stat().st_mtime < _ABANDONED_S
    except FileNotFoundError:
        return False


def _versions(folder: Path) -> list[tuple[int, Path]]:
    named = ((_VERSION.fullmatch(file.name), file) for file in folder.iterdir())
    return sorted((int(name[1]), file) for name, file in named if name)


def _manifest(folder: Path, number: int) -> Path:
    return folder / f"v{number:08d}.json"


def _listed(manifest: Path) -> Sequence[str]:
    try:
        listed = parse_json(manifest.read_bytes())
    except (OSError, ValueError):
        return ()
    return [str(name) for name in listed] if isinstance(listed, list) else ()


def _remove_unheld(file: Path) -> bool:
    """Remove a version unless a reader holds it; whether it is gone."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock(descriptor: int, on_wait: Waiting | None) -> None:
    told = False
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait and not told:
                on_wait()
            told = True
            time.sleep(_WAIT_S)
        else:
            return


def _sweep_drafts(folder: Path) -> None:
    # Half-written lists of folders (`atomic_write_bytes`) begin with a dot.
    for pattern in (f"v*{DRAFT_SUFFIX}*", f".v*{DRAFT_SUFFIX}", f"link*{DRAFT_SUFFIX}"):
        for entry in folder.glob(pattern):
            # The engine spills into a folder beside its draft.
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    """Share the source's blocks where the file system can, else copy them."""
    with source.open("rb") as reading, target.open("wb") as copying:
        try:
            fcntl.ioctl(copying.fileno(), _FICLONE, reading.fileno())
        except OSError as error:
            if error.errno not in {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}:
                raise
            shutil.copyfileobj(reading, copying, 16 << 20)


def _publish(path: Path, draft: Draft, number: int) -> None:
    """Everything durable first, then the link: whoever follows it finds a whole version.

    Raises:
        StoreError: somebody removed our lock, so another writer may have published in between.
    """
    final = draft.folder / f"v{number:08d}.duckdb"
    lost = StoreError(
        "the store's lock was removed while a new version was being made; nothing was published",
        where=path.name,
        next_step="run the same command again, and leave the file `lock` alone",
    )
    if _identity(draft.folder / _LOCK_FILE) != _locks_held.get(path):
        raise lost
    try:
        make_durable(draft.file)
        _rename_to_new(draft.file, final)
    except (FileNotFoundError, FileExistsError) as cause:
        raise lost from cause
    atomic_write_bytes(_manifest(draft.folder, number), json.dumps(sorted(draft.vector_folders)).encode())
    make_durable(draft.folder)
    link = draft.file.with_name(f"link.{secrets.token_hex(4)}{DRAFT_SUFFIX}")
    link.symlink_to(Path(draft.folder.name, final.name))
    link.rename(path)
    make_durable(path.parent)


def _rename_to_new(file: Path, name: Path) -> None:
    """Rename a file, unless there is one of that name.

    Raises:
        FileExistsError: there is.
    """
    try:
        os.link(file, name)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise
        # No hard links here.
        if name.exists():
            raise FileExistsError(name) from error
        file.rename(name)
        return
    file.unlink(missing_ok=True)


def make_durable(place: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on disk."""
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
