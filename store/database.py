"""Opening the store: many readers or one writer, and a clear sentence when it is neither.

Readers are locked down by the engine, not by reading their SQL: the file is open read-only, nothing outside it can be
reached, no extension loads, and the configuration cannot be changed any more.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb

from lesionary.errors import StoreError, UsageError
from store.migrations import MIGRATIONS, migrate

STORE_FILE = "features.duckdb"

_LOCK_HOLDER = re.compile(r"PID (\d+)")
_CLOSED_DOORS: dict[str, str | bool | int | float | list[str]] = {
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
def open_reader(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that can only ask.

    Raises:
        StoreError: the store is missing, being written, damaged, or of another release.
    """
    if not path.is_file():
        raise StoreError("there is no store yet", where=path.name, next_step="run `lesionary sync`")
    with contextlib.closing(_connect(path, read_only=True)) as connection:
        _require_current_schema(connection, path)
        yield connection


@contextlib.contextmanager
def open_writer(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The single connection that may write, on a store of this release's schema; made where there is none.

    Raises:
        StoreError: the store is in use, damaged, or of a newer release.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_connect(path, read_only=False)) as connection:
        migrate(connection)
        yield connection


def _connect(path: Path, *, read_only: bool) -> duckdb.DuckDBPyConnection:
    try:
        return duckdb.connect(path, read_only=read_only, config=_CLOSED_DOORS)
    except duckdb.IOException as cause:
        if "lock" in str(cause):
            holder = _LOCK_HOLDER.search(str(cause))
            who = f"process {holder[1]}" if holder else "another process"
            doing = "writing to it" if read_only else "using it"
            raise StoreError(
                f"the store is locked: {who} is {doing}", where=path.name, next_step="try again when it is done"
            ) from None
        raise _damaged(path) from cause
    except duckdb.Error as cause:
        raise _damaged(path) from cause


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
