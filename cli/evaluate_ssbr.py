"""`lesionary evaluate ssbr`: how well a body-part regressor orders slices and names the part of the body."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, PictureOption
from cli.render import as_json_text
from cli.report_files import write_report
from lesionary.errors import UsageError
from lesionary.json_text import parse_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cli.ssbr_report import ScoredSeries


def ssbr(
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="Id or name of a regressor. [the newest]")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="A phantom's truth.json, for chest, abdomen and pelvis."),
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="That the phantom was ingested under.")] = "dl",
    split: Annotated[
        str, typer.Option("--split", help="Whose series are scored: test (unseen), val, train or all.")
    ] = "test",
    least_slices: Annotated[
        int, typer.Option("--least-slices", min=3, help="Series with fewer slices are left out.")
    ] = 20,
    picture: PictureOption = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write ssbr.json, .md and .png here.")
    ] = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Score what `lesionary locate` kept: order within series, and with a phantom's truth the part of the body.

    The two thresholds between the parts are chosen on series of the other splits and tested on those asked for.
    """
    from cli.ssbr_report import SsbrReport, body_parts, known_slices, scored_series, ssbr_markdown
    from lesionary import __version__
    from lesionary.lake import Lake
    from lesionary.models import find_model
    from trainers.ssbr.evaluate import order_scores, phantom_heights

    if split not in {"train", "val", "test", "all"}:
        raise UsageError("a split is train, val, test or all", where="--split")
    heights = None if truth is None else phantom_heights(_read(truth), namespace)
    opened = Lake.open(lake)
    card = find_model(opened, model, "ssbr")
    every = [one for one in scored_series(opened, card.model_id) if len(one.indices) >= least_slices]
    wanted = [one for one in every if split in {"all", one.split}]
    if not wanted:
        raise UsageError(
            f"{card.model_id} has scored no series of {split} patients with {least_slices} slices or more",
            where=lake,
            next_step="run `lesionary locate`, or lower --least-slices",
        )
    parts = None if heights is None else body_parts(every, wanted, heights, split)
    order = order_scores([(one.heights, one.indices) for one in wanted])
    versions = {name: opened.shards(name)[0] for name in ("series", "slices", "lesions", "slice_heights")}
    report = SsbrReport(card.model_id, split, least_slices, order, parts, versions, __version__)
    record, text = as_json_text(asdict(report)), ssbr_markdown(report)
    # Files before anything is printed: whoever reads may close the pipe early.
    if picture is not None or report_folder is not None:
        known = known_slices(wanted, heights) if heights is not None else None
        drawn = _drawn(wanted, known, parts.thresholds if parts else None)
        write_report("ssbr", record, text, drawn, picture, report_folder)
    print(record if as_json else text)


def _read(truth: Path) -> Mapping[str, object]:
    try:
        held = parse_json(truth.read_bytes())
    except (OSError, ValueError) as cause:
        raise UsageError(
            f"the truth cannot be read ({type(cause).__name__})", where="--truth", next_step="give a truth.json"
        ) from cause
    return held if isinstance(held, dict) else {}


def _drawn(
    series: "list[ScoredSeries]",
    known: "tuple[NDArray[np.float64], NDArray[np.float64]] | None",
    thresholds: tuple[float, float] | None,
) -> bytes:
    from cli.figures.heights import HeightCurve, TrueHeights, heights_chart
    from trainers.ssbr.evaluate import PHANTOM_BOUNDARIES, correlation

    curves = [
        HeightCurve(one.series_id, one.indices, one.heights, correlation(one.heights, one.indices)) for one in series
    ]
    truth = TrueHeights(*known, thresholds, PHANTOM_BOUNDARIES) if known and thresholds else None
    return heights_chart(curves, truth)
