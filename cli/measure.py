"""`lesionary measure`: masks of lesions and detections, and from these diameters and volumes."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import counted, human_seconds, live_line, note
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, RayAddressOption, StoreOption, WhereOption
from cli.render import write_json
from cli.runners import Runners
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from etl.masks import MeasureSummary
    from lesionary.lake import Lake


def measure(
    lesion: Annotated[
        str | None, typer.Argument(metavar="[LESION]", help="With --picture: the lesion, or detection, to draw.")
    ] = None,
    *,
    lesions: Annotated[bool, typer.Option("--lesions", help="Marked lesions; the default.")] = False,
    detections: Annotated[
        str | None, typer.Option("--detections", metavar="MODEL", help="A detector's detections instead: id, or name.")
    ] = None,
    where: WhereOption = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Tasks at once; 0 = as many as cores.")] = 0,
    ray_address: RayAddressOption = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", metavar="FILE.png", help="Draw the mask of LESION, once it is made.")
    ] = None,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Outline lesions on their slices, and measure diameters and volumes on the masks.

    A second run makes only masks that are missing or whose lesion or series has changed. With --where, all lesions of
    the series that hold one of those meant. `lesionary sync` brings the results into the store.
    """
    if (lesion is None) != (picture is None):
        raise UsageError("a picture shows one lesion", where="LESION, --picture", next_step="give both or none")
    if lesions and detections is not None:
        raise UsageError("one kind at a time", where="--lesions, --detections", next_step="run it twice")
    if where is not None and detections is not None:
        raise UsageError("conditions are about marked lesions", where="--where", next_step="leave it out")
    from etl.masks import measure as measure_lake
    from lesionary.lake import Lake

    opened = Lake.open(lake)
    if lesion is not None and picture is not None:
        from cli.figures.masks import write_mask_picture

        write_mask_picture(opened, lesion, picture)
        note(f"picture: {picture}")
        return
    model_id = None if detections is None else _detector(opened, detections)
    chosen = None if where is None else _chosen(lake, store, where)
    with ExitStack() as session, live_line() as show:
        summary = measure_lake(
            opened,
            detections_of=model_id,
            chosen=chosen,
            choose_runner=Runners(session, workers, ray_address).choose,
            progress=lambda done, total: show(f"{done} of {total} lesions measured"),
        )
    _report(summary, as_json=as_json)


def _detector(lake: "Lake", name: str) -> str:
    """The id of a model that has detections in the lake."""
    from lesionary.models import find_model

    models = set(lake.read("detection_series", columns=["model_id"])["model_id"].to_pylist())
    model_id = name if name in models else find_model(lake, name, "detector").model_id
    if model_id not in models:
        raise UsageError("it has no detections in the lake", where=model_id, next_step="run `lesionary detect` first")
    return model_id


def _chosen(lake: str, store: str | None, where: str) -> list[str]:
    from cli.reading import reading
    from store.selection import lesion_names, lesions_where

    with reading(lake, store) as (_, connection):
        return lesion_names(connection, lesions_where(connection, where))


def _report(summary: "MeasureSummary", *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(summary))
        return
    left_out = sum(summary.lesions_left_out.values())
    print(
        f"lesions: {summary.lesions_found:>8} found = {summary.lesions_masked} masked + {summary.lesions_kept} masked "
        f"before + {left_out} left out{_reasons(summary.lesions_left_out)}"
    )
    masked = summary.lesions_masked + summary.lesions_kept
    print(
        f"volumes: {masked:>8} masked = {summary.with_volume} with a volume + {masked - summary.with_volume} without; "
        f"of {summary.cut_short} the slices end before the lesion does"
    )
    if not summary.series_due:
        note("nothing to do: every series is measured")
        return
    speed = summary.lesions_masked / summary.seconds if summary.seconds else 0.0
    print(
        f"{summary.method} measured {counted(summary.lesions_masked, 'lesion')} in {human_seconds(summary.seconds)} "
        f"({speed:.0f} lesions/s); {counted(summary.masks, 'slice')} with a mask"
    )
    note("`lesionary sync` brings the measures into the store")


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""
