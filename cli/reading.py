"""How every command opens the store to ask it: the newest version, under limits, in a guarded process."""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lesionary.errors import LesionaryError, UsageError

if TYPE_CHECKING:
    import duckdb

    from store.limits import QueryLimits


@contextlib.contextmanager
def reading(
    lake: str, store: str | None, limits: "QueryLimits | None" = None
) -> "Iterator[tuple[Path, duckdb.DuckDBPyConnection]]":
    """The store's path, and a connection that can only ask.

    Raises:
        UsageError: an argument is no text.
        StoreError: the store is missing, damaged, or of another release.
    """
    _require_text(sys.argv)
    from store.database import open_reader, store_path
    from store.limits import QueryLimits, guard_process

    path = store_path(lake, store)
    limits = limits or QueryLimits()
    guard_process(limits, _leave)
    with open_reader(path, limits) as connection:
        yield path, connection


def _require_text(arguments: Sequence[str]) -> None:
    """The engine takes nothing but UTF-8; a shell passes any bytes."""
    if any(not argument.isascii() and argument.encode(errors="ignore").decode() != argument for argument in arguments):
        raise UsageError("an argument is not UTF-8 text", next_step="write it in UTF-8")


def _leave(error: LesionaryError) -> None:
    """The last resort against a question that cannot be interrupted: nothing of ours is open for writing here."""
    sys.stderr.write(f"lesionary: {error}\n")
    sys.stderr.flush()
    os._exit(error.exit_code)
