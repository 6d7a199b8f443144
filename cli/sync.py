"""`lesionary sync`: lake to feature store."""

from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer

from cli.console import live_line, note
from cli.options import DEFAULT_LAKE, Format, JsonOption, LakeOption, StoreOption
from cli.render import write_json, write_rows


class Index(StrEnum):
    """How large feature sets are searched."""

    AUTO = "auto"
    EXACT = "exact"
    IVF = "ivf"
    HNSW = "hnsw"


def sync(
    index: Annotated[
        Index,
        typer.Option(
            "--index",
            envvar="LESIONARY_INDEX",
            help="How feature sets are searched: auto scans up to 256 MB of vectors, and uses inverted lists beyond.",
        ),
    ] = Index.AUTO,
    memory_mb: Annotated[
        int,
        typer.Option(
            "--memory-mb", min=0, help="Memory of the engine; 0 = half of what there is, at most 4096. Then the disk."
        ),
    ] = 0,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the feature store up to the lake; only what is new is read.

    A new version of the store is made beside the old one: nobody who reads has to wait or to stop.
    """
    from lesionary.lake import Lake
    from store.database import store_path
    from store.sync import sync as sync_store
    from store.vectors import IndexKind

    path = store_path(lake, store)
    with live_line() as show:
        done = sync_store(
            Lake.open(lake),
            path,
            lambda table, n, total: show(f"{table}: shard {n} of {total}"),
            index=IndexKind(index.value),
            on_wait=lambda: note("another sync is running; waiting for it"),
            memory_mb=memory_mb,
        )
    if as_json:
        write_json([asdict(one) for one in done])
        return
    rows = [
        (one.table, one.rows_added, one.rows_removed, one.lake_version if one.lake_version >= 0 else None)
        for one in done
    ]
    write_rows(("table", "rows added", "rows removed", "lake version"), rows, Format.TABLE)
    if not any(one.rows_added or one.rows_removed for one in done):
        note("the store was up to date")
