"""`lesionary lake`: its history, whether it is whole, repairing it, and throwing away what nothing names."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from cli.console import human_bytes, live_line, note
from cli.options import DEFAULT_LAKE, Format, JsonOption, LakeOption
from cli.render import write_json, write_rows

_SECONDS_FORMAT = "%Y-%m-%d %H:%M:%S"

# Units listed by name.
_MOST_NAMED = 5

app = typer.Typer(help="Look after the lake.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def history(
    lake: LakeOption = DEFAULT_LAKE,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many commits, newest first.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """List the commits of every table, newest first."""
    from lesionary.lake import Lake

    records = Lake.open(lake).history()[:limit]
    if as_json:
        write_json([asdict(record) for record in records])
        return
    rows = [
        (
            f"{record.timestamp:{_SECONDS_FORMAT}}",
            record.table,
            record.version,
            record.operation,
            record.rows_added,
            record.ingest_id,
        )
        for record in records
    ]
    write_rows(("when (UTC)", "table", "version", "operation", "rows", "ingest"), rows, Format.TABLE)


@app.command()
def verify(
    lake: LakeOption = DEFAULT_LAKE,
    deep: Annotated[bool, typer.Option("--deep", help="Also decode every slice and compare its digest.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Check that every shard is there and unchanged, keys are single, and the counts add up."""
    from lesionary.lake import Lake
    from lesionary.upkeep import verify as verify_lake

    with live_line() as show:
        report = verify_lake(
            Lake.open(lake),
            deep=deep,
            progress=lambda done, total: show(f"digests: {human_bytes(done)} of {human_bytes(total)}"),
        )
    if as_json:
        write_json(asdict(report))
    else:
        rows = [(name, one.shards, one.rows, human_bytes(one.bytes)) for name, one in report.tables.items()]
        write_rows(("table", "shards", "rows", "size"), rows, Format.TABLE)
        if deep:
            print(f"{report.slices_decoded} slices decoded to their digests")
        for problem in report.problems:
            print(f"! {problem}")
        print("the lake is whole" if not report.problems else f"{len(report.problems)} problems")
        if report.is_damaged:
            note("`lesionary lake repair` takes out what is damaged, so that the commands that made it can do so again")
    if report.problems:
        sys.exit(1)


@app.command()
def repair(lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Take out what is damaged and what is incomplete without it; afterwards the commands that made it put it back."""
    from lesionary.lake import Lake
    from lesionary.repairs import repair as repair_lake

    with live_line() as show:
        report = repair_lake(
            Lake.open(lake), progress=lambda done, total: show(f"digests: {human_bytes(done)} of {human_bytes(total)}")
        )
    if as_json:
        write_json(asdict(report))
        return
    for entry in report.logs:
        print(f"set aside: {entry}")
    for problem in report.shards:
        print(f"taken out: {problem}")
    for table, units in report.results.items():
        print(f"{table}: {_named(units)} lost rows or were dropped; run the command again that made them")
    if report.units:
        print(f"{len(report.units)} units of sources are incomplete: {_named(report.units)}")
        note("run `lesionary ingest` on their sources again, then `lesionary sync`")
    if report.nothing_done:
        note("nothing to do: the lake is whole")


def _named(units: Sequence[str]) -> str:
    more = f" and {len(units) - _MOST_NAMED} more" if len(units) > _MOST_NAMED else ""
    return ", ".join(units[:_MOST_NAMED]) + more


@app.command()
def vacuum(
    lake: LakeOption = DEFAULT_LAKE,
    older_than_hours: Annotated[
        float,
        typer.Option(
            "--older-than-hours",
            min=0,
            help="Keep younger files: a running ingest may still commit them.",
        ),
    ] = 168.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove files that no table's newest version names; older versions may become unreadable."""
    from lesionary.lake import Lake
    from lesionary.upkeep import vacuum as vacuum_lake

    report = vacuum_lake(Lake.open(lake), dry_run=dry_run, older_than_hours=older_than_hours)
    if as_json:
        write_json({**asdict(report), "dry_run": dry_run})
        return
    for path in report.removed:
        print(path)
    note(f"{len(report.removed)} files, {human_bytes(report.bytes)} {'would be' if dry_run else 'were'} removed")
