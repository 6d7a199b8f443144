"""`lesionary ingest`: a DeepLesion release or a PACS export into the lake."""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import human_bytes, human_seconds, live_line, note
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RayAddressOption
from cli.render import write_json, write_mapping
from cli.runners import Runners
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from etl.ingest import IngestSummary, Progress
    from etl.planning import Plan, Unit
    from lesionary.lake import Lake
    from lesionary.settings import IngestSettings


def ingest(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE…", help="Folders, zips, tars or files; local or s3://…, gs://… .")
    ],
    lake: LakeOption = DEFAULT_LAKE,
    namespace: Annotated[
        str | None,
        typer.Option(
            "--namespace", help="Starts every identifier; keeps sources apart. [default: dl for a release, pacs]"
        ),
    ] = None,
    annotations_only: Annotated[
        bool | None, typer.Option("--annotations-only/--with-images", help="Take DL_info.csv without images.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Worker processes; 0 = all cores. [default: 0]")
    ] = None,
    shard_mb: Annotated[int | None, typer.Option("--shard-mb", help="Upper size of a shard. [default: 256]")] = None,
    commit_seconds: Annotated[
        int | None, typer.Option("--commit-seconds", help="A crash loses at most this much work. [default: 60]")
    ] = None,
    key_file: Annotated[
        str | None,
        typer.Option("--key-file", help="Key of a PACS export's pseudonyms. [default: in your configuration folder]"),
    ] = None,
    keep_map: Annotated[
        Path | None,
        typer.Option("--keep-map", help="Also add to a map from pseudonyms back to identifiers; guard it."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", envvar="LESIONARY_CONFIG", help="Settings file. [default: lesionary.toml]"),
    ] = None,
    ray_address: RayAddressOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read a DeepLesion release or a PACS export into the lake; a second run does only what is new or was missing."""
    from etl.ingest import ingest as ingest_plan
    from etl.ingest import units_to_do
    from etl.planning import key_file as key_of
    from etl.planning import plan_sources, refuse_key_inside
    from lesionary.settings import IngestSettings, resolve

    flags = {
        "namespace": namespace,
        "annotations_only": annotations_only,
        "workers": workers,
        "shard_mb": shard_mb,
        "commit_seconds": commit_seconds,
        "key_file": key_file,
    }
    _refuse_settings_of_the_source(sources, config)
    resolved = resolve(IngestSettings, "ingest", flags=flags, environment=os.environ, config_file=config)
    settings = resolved.value
    refuse_key_inside(key_of(settings), lake)
    with ExitStack() as session, live_line() as show:
        runners = Runners(session, settings.workers, ray_address)
        plan = plan_sources(
            sources,
            settings,
            choose_runner=runners.choose,
            dry_run=dry_run,
            progress=lambda done, total: show(f"looked at {done} of {total} files"),
        )
        opened = _open_lake(lake, create=not dry_run)
        if dry_run or opened is None:
            _report_plan(plan, units_to_do(opened, plan), settings, lake, ray_address, as_json=as_json)
            return
        _keep_map(keep_map, plan)
        summary = ingest_plan(
            opened,
            plan,
            settings,
            choose_runner=runners.choose,
            progress=lambda progress: show(_progress_line(progress)),
            record=resolved.record(),
        )
    _report(summary, as_json=as_json)


def _refuse_settings_of_the_source(sources: Sequence[str], config: Path | None) -> None:
    """A settings file is read where the command starts. An export that brings one along could choose the key."""
    from lesionary.locations import is_url
    from lesionary.settings import DEFAULT_CONFIG_FILE

    found = Path(DEFAULT_CONFIG_FILE)
    folders = [Path(source).resolve() for source in sources if not is_url(source)]
    if config is None and found.is_file() and any(found.resolve().is_relative_to(folder) for folder in folders):
        raise UsageError(
            "the settings file here lies inside the source",
            where=DEFAULT_CONFIG_FILE,
            next_step="start from another folder, or name the file with --config if it is yours",
        )


def _keep_map(path: Path | None, plan: "Plan") -> None:
    if path is not None:
        from etl.deidentify import keep_map

        keep_map(path, plan.names)


def _open_lake(url: str, *, create: bool) -> "Lake | None":
    from lesionary.errors import LakeError
    from lesionary.lake import Lake

    if create:
        return Lake.create(url)
    try:
        return Lake.open(url)
    except LakeError:
        return None


def _progress_line(progress: "Progress") -> str:
    return (
        f"{progress.files_done} of {progress.files_total} slices, {progress.files_per_second:.0f} slices/s, "
        f"{human_seconds(progress.seconds_left)} left"
    )


def _report_plan(
    plan: "Plan",
    todo: "list[Unit]",
    settings: "IngestSettings",
    lake: str,
    ray_address: str | None,
    *,
    as_json: bool,
) -> None:
    values: dict[str, object] = {
        "units found": len(plan.units),
        "units to do": len(todo),
        "images to read": sum(unit.image_count for unit in todo),
        "bytes to read": sum(unit.byte_count for unit in todo),
        "annotation rows and marks": plan.rows_found,
        "workers": settings.workers or os.cpu_count(),
        "runs on": ray_address or "this machine",
        "would write to": lake,
    }
    if as_json:
        write_json(values)
        return
    values["bytes to read"] = human_bytes(sum(unit.byte_count for unit in todo))
    write_mapping(values)


def _report(summary: "IngestSummary", *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(summary))
        return
    counts = summary.tally.counts
    for kind, label in (("rows", "rows and marks"), ("files", "files")):
        print(
            f"{label + ':':<17} {counts[f'{kind}_found']:>8} found = {counts[f'{kind}_accepted']} accepted"
            f" + {counts[f'{kind}_flagged']} flagged + {counts[f'{kind}_quarantined']} quarantined"
        )
    _print_counts("flags", summary.tally.flags)
    _print_counts("quarantined because", summary.tally.reasons)
    if summary.units_kept:
        note(
            f"{summary.units_kept} units differ from the lake's and were left alone: the lake holds more of their files"
            " or marks than this source does"
        )
    if not summary.units_written:
        note(f"nothing to do: all {summary.units_found} units were in the lake already")
        return
    speed = summary.slices_written / summary.seconds if summary.seconds else 0.0
    print(
        f"wrote {summary.units_written} units with {summary.slices_written} slices in {human_seconds(summary.seconds)}"
        f" ({speed:.0f} slices/s), skipped {summary.units_skipped}; ingest {summary.ingest_id}"
    )


def _print_counts(title: str, counts: Mapping[str, int]) -> None:
    if counts:
        print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
