"""`lesionary phantom`: a DeepLesion release or a PACS export drawn out of nothing, to try everything else with."""

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from etl.phantom.pacs import PacsSummary
    from etl.phantom.release import Progress, ReleaseSummary

app = typer.Typer(help="Patients that never lived: write test data of any size.", no_args_is_help=True)

# The live line is rewritten at most so often.
_LIVE_LINE_INTERVAL_S = 0.2
_MEGABYTE = 1e6

# Somewhat less than 1 GB of slices of 512 × 512.
DEFAULT_SLICES_PER_ZIP = 4000


@app.command()
def release(
    *,
    out: Annotated[Path | None, typer.Argument(help="Folder to write into; must be empty or not there.")] = None,
    patients: Annotated[int, typer.Option(help="Patients with marked lesions.")] = 20,
    seed: Annotated[int, typer.Option(help="The same seed and options write the same bytes.")] = 0,
    image_size: Annotated[int, typer.Option(help="Rows and columns of a slice, px.")] = 512,
    volumes: Annotated[int, typer.Option(help="Also whole scans without marks, of further patients.")] = 0,
    max_slices_per_series: Annotated[
        int | None, typer.Option(help="Narrow the context around key slices to keep at most so many slices.")
    ] = None,
    zips: Annotated[bool, typer.Option("--zips", help="Put slices into numbered zips instead of folders.")] = False,
    slices_per_zip: Annotated[
        int, typer.Option(help="With --zips: about how many slices a zip holds.")
    ] = DEFAULT_SLICES_PER_ZIP,
    png_level: Annotated[int, typer.Option(help="zlib level of slice files, 0 to 9.")] = 4,
    quirk: Annotated[
        list[str] | None, typer.Option(help="An oddity of the real release to put in; repeatable; `all` for every one.")
    ] = None,
    list_quirks: Annotated[bool, typer.Option("--list-quirks", help="Print the quirks and stop.")] = False,
    workers: Annotated[int, typer.Option(help="Processes; 0 = one per core.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a release that is in the folder.")] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="A live line; by default on a terminal only.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a release as DeepLesion's is: Images_png, DL_info.csv, and the truth beside it."""
    from etl.phantom.release import ReleaseSettings, write_release
    from lesionary.errors import UsageError

    if list_quirks:
        _print_quirks(json_output=json_output)
        return
    if out is None:
        raise UsageError(
            "no folder to write into", where="OUT", next_step="for example `lesionary phantom release demo`"
        )
    settings = ReleaseSettings(
        patients=patients,
        seed=seed,
        image_size=image_size,
        volumes=volumes,
        quirks=tuple(quirk or ()),
        max_slices_per_series=max_slices_per_series,
        slices_per_zip=slices_per_zip if zips else None,
        png_level=png_level,
    )
    live = sys.stderr.isatty() if progress is None else progress
    summary = write_release(
        out, settings, workers=workers or os.cpu_count() or 1, force=force, progress=_live_line() if live else None
    )
    if live:
        sys.stderr.write("\n")
    _print_summary(out, summary, json_output=json_output)


@app.command()
def pacs(
    *,
    out: Annotated[Path, typer.Argument(help="Folder to write into; must be empty or not there.")],
    patients: Annotated[int, typer.Option(help="Patients with marked lesions.")] = 10,
    seed: Annotated[int, typer.Option(help="The same seed and options write the same bytes.")] = 0,
    image_size: Annotated[int, typer.Option(help="Rows and columns of a slice, px.")] = 512,
    max_slices_per_series: Annotated[int, typer.Option(help="Keep at most so many slices of a series.")] = 24,
    syntax: Annotated[
        str, typer.Option(help="Transfer syntax: `mixed` takes them in turn; or implicit, explicit, rle, jpeg-ls, …")
    ] = "mixed",
    strays: Annotated[
        bool, typer.Option("--strays/--no-strays", help="Also archives, localizers, captures and damaged files.")
    ] = True,
    workers: Annotated[int, typer.Option(help="Processes; 0 = one per core.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an export that is in the folder.")] = False,
    progress: Annotated[
        bool | None, typer.Option("--progress/--no-progress", help="A live line; by default on a terminal only.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Write a PACS export: DICOM CT, reports and marks with planted identifiers, and the truth beside it."""
    from etl.phantom.pacs import PacsSettings, write_pacs

    settings = PacsSettings(
        patients=patients,
        seed=seed,
        image_size=image_size,
        max_slices_per_series=max_slices_per_series,
        syntax=syntax,
        strays=strays,
    )
    live = sys.stderr.isatty() if progress is None else progress
    summary = write_pacs(
        out, settings, workers=workers or os.cpu_count() or 1, force=force, progress=_live_line() if live else None
    )
    if live:
        sys.stderr.write("\n")
    _print_pacs_summary(out, summary, json_output=json_output)


def _print_pacs_summary(out: Path, summary: "PacsSummary", *, json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps({"folder": str(out), **asdict(summary)}, indent=2))
        return
    typer.echo(
        f"{out}: {summary.lesions} lesions marked {summary.marks} times in {summary.series} series of"
        f" {summary.patients} patients, {summary.slices} slices, {summary.files} files"
        f" ({summary.bytes / _MEGABYTE:.1f} MB) in {summary.seconds:.1f} s"
    )


def _print_quirks(*, json_output: bool) -> None:
    from etl.phantom.quirks import QUIRKS

    if json_output:
        typer.echo(json.dumps({quirk.name: quirk.sentence for quirk in QUIRKS}, indent=2))
        return
    width = max(len(quirk.name) for quirk in QUIRKS)
    for quirk in QUIRKS:
        typer.echo(f"{quirk.name:<{width}}  {quirk.sentence}")


def _print_summary(out: Path, summary: "ReleaseSummary", *, json_output: bool) -> None:
    if json_output:
        typer.echo(json.dumps({"folder": str(out), **asdict(summary)}, indent=2))
        return
    typer.echo(
        f"{out}: {summary.rows} rows of {summary.patients} patients, {summary.series} series"
        f" and {summary.volumes} whole scans, {summary.slice_files} slice files"
        f" ({summary.bytes / _MEGABYTE:.1f} MB{f' in {summary.zips} zips' if summary.zips else ''})"
    )
    typer.echo(f"{summary.seconds:.1f} s, {summary.slices_per_second:.1f} slices a second")
    if summary.quirks:
        typer.echo(f"quirks: {', '.join(name for name in summary.quirks if name not in summary.quirks_without_place)}")
    if summary.quirks_without_place:
        typer.echo(f"no place found for: {', '.join(summary.quirks_without_place)} (write more patients)")


def _live_line() -> "Progress":
    """A progress callback that rewrites one line on stderr with the pace and the time left."""
    started: dict[str, float] = {}
    written = 0.0

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal written
        now = time.monotonic()
        since = started.setdefault(stage, now)
        if done < total and now - written < _LIVE_LINE_INTERVAL_S:
            return
        written = now
        pace = done / (now - since) if now > since else 0.0
        left = f", {pace:.1f}/s, {(total - done) / pace:.0f} s left" if pace else ""
        sys.stderr.write(f"\r{done} of {total} {stage}{left}\x1b[K")
        sys.stderr.flush()

    return tell
