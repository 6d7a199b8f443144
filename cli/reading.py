"""How every command opens the store to ask it: the newest version, under limits, in a guarded process."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lesionary.errors import LesionaryError

if TYPE_CHECKING:
    import duckdb

    from store.limits import QueryLimits


@contextlib.contextmanager
def reading(
    lake: str, store: str | None, limits: "QueryLimits | None" = None
) -> "Iterator[tuple[Path, duckdb.DuckDBPyConnection]]":
    """The store's path, and a connection that can only ask.

    Raises:
        StoreError: the store is missing, damaged, or of another release.
    """
    from store.database import open_reader, store_path
    from store.limits import QueryLimits, guard_process

    path = store_path(lake, store)
    limits = limits or QueryLimits()
    guard_process(limits, _leave)
    with open_reader(path, limits) as connection:
        yield path, connection


def _leave(error: LesionaryError) -> None:
    """The last resort against a question that cannot be interrupted: nothing of ours is open for writing here."""
    sys.stderr.write(f"lesionary: {error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)
