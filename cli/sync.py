"""`lesionary sync`: lake to feature store."""

from dataclasses import asdict

from cli.console import live_line, note
from cli.options import DEFAULT_LAKE, Format, JsonOption, LakeOption, StoreOption
from cli.render import write_json, write_rows


def sync(lake: LakeOption = DEFAULT_LAKE, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Bring the feature store up to the lake; only what is new is read."""
    from lesionary.lake import Lake
    from store.database import store_path
    from store.sync import sync as sync_store

    path = store_path(lake, store)
    with live_line() as show:
        done = sync_store(Lake.open(lake), path, lambda table, n, total: show(f"{table}: shard {n} of {total}"))
    if as_json:
        write_json([asdict(one) for one in done])
        return
    rows = [(one.table, one.rows_added, one.rows_removed, one.lake_version) for one in done]
    write_rows(("table", "rows added", "rows removed", "lake version"), rows, Format.TABLE)
    if not any(one.rows_added or one.rows_removed for one in done):
        note("the store was up to date")
