"""Opening the store: readers get its newest version, writers a draft of the next one (`store/versions.py`).

Readers are locked down by the engine, not by reading their SQL: the file is open read-only, nothing outside it can be
reached, no extension loads, and the configuration cannot be changed any more.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import duckdb

from lesionary.artifacts import refusal_of
from lesionary.errors import LesionaryError, StoreError, UsageError
from store.limits import QueryLimits, engine_memory_mb
from store.migrations import MIGRATIONS, migrate
from store.versions import Draft, Waiting, draft_version, hold_current, writing

STORE_FILE = "features.duckdb"

# What the engine raises where a block's checksum differs, or its content makes no sense.
_DAMAGE = (duckdb.IOException, duckdb.InternalException, duckdb.FatalException)

_Config = dict[str, str | bool | int | float | list[str]]

_CLOSED_DOORS: _Config = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    # Otherwise a table name that is also a Python variable reads that variable.
    "python_enable_replacements": "false",
    "lock_configuration": "true",
}


def store_path(lake_url: str, store: str | None) -> Path:
    """Where the store of a lake lies: as told, or in the lake's own folder.

    Raises:
        UsageError: the lake is on an object store and no file was named.
    """
    if store:
        return Path(store).expanduser().absolute()
    if "://" in lake_url and not lake_url.startswith("file://"):
        raise UsageError(
            "the store of a lake on an object store needs a local file of its own",
            where="--store",
            next_step="for example --store features.duckdb, or set LESIONARY_STORE",
        )
    return Path(lake_url.removeprefix("file://")).expanduser().absolute() / STORE_FILE


@contextlib.contextmanager
def open_reader(path: Path, limits: QueryLimits | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that can only ask the newest version; it keeps that version whatever is written meanwhile.

    Args:
        path: of the store.
        limits: memory of the engine; the usual ones unless given.

    Raises:
        StoreError: the store is missing, damaged, or of another release.
    """
    with (
        hold_current(path) as file,
        contextlib.closing(
            _connect(file, path, _CLOSED_DOORS | (limits or QueryLimits()).config(), read_only=True)
        ) as connection,
        _naming_the_store(path),
    ):
        _require_current_schema(connection, path)
        yield connection


@contextlib.contextmanager
def open_writer(path: Path, on_wait: Waiting | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """The single connection that may write: on a draft that becomes the newest version when the block ends well.

    Raises:
        StoreError: the store is damaged, of a newer release, or its folder cannot be written.
    """
    with writing(path, on_wait), open_draft(path) as (connection, _):
        yield connection


@contextlib.contextmanager
def open_draft(path: Path, memory_mb: int = 0) -> Iterator[tuple[duckdb.DuckDBPyConnection, Draft]]:
    """As `open_writer`, inside `store.versions.writing`, and with the draft itself.

    Args:
        path: of the store.
        memory_mb: what the engine may take; 0 = as for readers. What needs more goes into a folder beside the draft.
    """
    config = _CLOSED_DOORS | {"memory_limit": f"{engine_memory_mb(memory_mb)}MiB"}
    with (
        _naming_the_store(path),
        draft_version(path) as draft,
        contextlib.closing(_connect(draft.file, path, config, read_only=False)) as connection,
    ):
        migrate(connection)
        yield connection, draft
        # All of it into the one file that is published.
        connection.execute("CHECKPOINT")


def _connect(file: Path, path: Path, config: _Config, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(file, read_only=read_only, config=config)
    except duckdb.Error as cause:
        raise _damaged(path) from cause


@contextlib.contextmanager
def _naming_the_store(path: Path) -> Iterator[None]:
    """What the disk does to the store in the block becomes a sentence: refuses to take it, or gives back other bytes.

    Raises:
        StoreError: one of the two.
    """
    try:
        yield
    except LesionaryError:
        raise
    except (duckdb.Error, OSError) as cause:
        if (refusal := refusal_of(cause)) is not None:
            raise StoreError(
                f"the store cannot be written ({refusal})",
                where=path.name,
                next_step="make room or check your rights, and run it again; readers have the old version",
            ) from cause
        # What cannot be put together again comes as the root of the engine's errors.
        if isinstance(cause, _DAMAGE) or type(cause) is duckdb.Error:
            raise _damaged(path) from cause
        raise


def _damaged(path: Path) -> StoreError:
    return StoreError(
        "the store cannot be opened: damaged, or not a DuckDB file of this release",
        where=path.name,
        next_step="delete it and run `lesionary sync`; the lake has every row",
    )


def _require_current_schema(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    try:
        ((present,),) = connection.execute("SELECT coalesce(max(number), 0) FROM store.migrations").fetchall()
    except duckdb.CatalogException as cause:
        raise _damaged(path) from cause
    ours = MIGRATIONS[-1].number
    if present != ours:
        age = "an older" if present < ours else "a newer"
        remedy = "run `lesionary sync`" if present < ours else "use that release, or delete the file and sync"
        raise StoreError(f"{age} release made this store", where=path.name, next_step=remedy)
