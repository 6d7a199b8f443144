"""`lesionary locate`: where in the body every slice and every lesion lies, and which series are not what they say."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.console import counted, human_seconds, live_line, note
from cli.options import DEFAULT_LAKE, GpusOption, JsonOption, LakeOption, ModelsOption, Precision, RayAddressOption
from cli.render import write_json
from cli.runners import choose_inference

if TYPE_CHECKING:
    from etl.locate import HeightModel, LocateSummary
    from lesionary.lake import Lake
    from lesionary.models import ModelCard

KIND = "ssbr"


def locate(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="A body-part regressor of the lake: its id, or name. [newest]"),
    ] = None,
    workers: ModelsOption = 1,
    gpus: GpusOption = 0,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Of the convolutions. [what it was trained with]")
    ] = None,
    ray_address: RayAddressOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Score every slice, give every lesion its place from head to foot, and look for series that are not what they say.

    A second run scores only series that are new or have changed. `lesionary sync` brings the places into the store.
    """
    from etl.locate import locate as locate_lake
    from lesionary.lake import Lake
    from lesionary.models import find_model

    opened = Lake.open(lake)
    card = find_model(opened, model, KIND)
    known = _height_model(opened, card, on_gpu=gpus > 0, precision=precision)
    with ExitStack() as session, live_line() as show:
        summary = locate_lake(
            opened,
            known,
            choose_inference=partial(choose_inference, session, workers, gpus, ray_address),
            progress=lambda done, total: show(f"{done} of {total} slices scored"),
        )
    _report(summary, as_json=as_json)


def _height_model(lake: "Lake", card: "ModelCard", *, on_gpu: bool, precision: Precision | None) -> "HeightModel":
    from etl.locate import HeightModel
    from lesionary.errors import ArtifactError
    from trainers.ssbr.published import published_scorer

    side = card.settings.get("side_px")
    if not isinstance(side, int):
        raise ArtifactError(
            "its card does not say how large its slices are", where=card.model_id, next_step="train it again"
        )
    chosen = precision.value if precision else str(card.settings.get("precision", Precision.FP32.value))
    factory = partial(published_scorer, lake.url, card.model_id, on_gpu=on_gpu, precision=chosen)
    # A damaged model is found out here, before any worker starts.
    published_scorer(lake.url, card.model_id)
    return HeightModel(card.model_id, datetime.fromisoformat(card.created_at), factory, side, borders_of(card.metrics))


def borders_of(metrics: Mapping[str, Any]) -> tuple[float, float] | None:
    """The two thresholds between the parts of the body, where the model's card has them."""
    parts = metrics.get("body_parts")
    found = parts.get("thresholds") if isinstance(parts, dict) else None
    if isinstance(found, list) and len(found) == 2 and all(isinstance(one, int | float) for one in found):
        return float(found[0]), float(found[1])
    return None


def _report(summary: "LocateSummary", *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(summary))
        return
    left_out = sum(summary.series_left_out.values())
    print(
        f"series:    {summary.series_found:>8} found = {summary.series_scored} scored + {summary.series_kept} scored "
        f"before + {left_out} left out{_reasons(summary.series_left_out)}"
    )
    print(
        f"order:     {summary.series_found - left_out:>8} scored = {summary.series_in_order} head to foot + "
        f"{summary.series_reversed} reversed + {summary.series_order_unknown} undecided"
    )
    print(
        f"intervals: {summary.series_found - left_out:>8} scored = {summary.intervals_right} as stated + "
        f"{summary.intervals_wrong} wrong + {summary.intervals_unknown} undecided"
    )
    print(
        f"lesions:   {summary.lesions_found:>8} found = {summary.lesions_placed} placed + "
        f"{sum(summary.lesions_left_out.values())} left out{_reasons(summary.lesions_left_out)}"
    )
    print(f"scale:     {_scale(summary)}")
    if not summary.series_scored and not summary.tables_written:
        note(f"nothing to do: {summary.model_id} has scored every series before")
        return
    speed = summary.slices_scored / summary.seconds if summary.seconds else 0.0
    print(
        f"{summary.model_id} scored {counted(summary.slices_scored, 'slice')} in {human_seconds(summary.seconds)} "
        f"({speed:.0f} slices/s)"
    )
    note("`lesionary sync` brings the places into the store")


def _scale(summary: "LocateSummary") -> str:
    fit = summary.release_fit
    if fit is None:
        return f"the model's own: {counted(summary.release_lesions, 'lesion')} with the release's z gave no line"
    return (
        f"the release's: z = {fit.offset:.3f} + {fit.scale:.3f} × height by {summary.release_lesions} lesions, "
        f"median error {fit.error:.3f}"
    )


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""
