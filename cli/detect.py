"""`lesionary detect`: a detector over the lake's series, or over a DICOM folder that is in no lake."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import counted, human_seconds, live_line, note
from cli.detectors import KIND, category_names, category_text, detector_model
from cli.options import (
    DEFAULT_LAKE,
    Format,
    GpusOption,
    JsonOption,
    LakeOption,
    ModelsOption,
    PictureOption,
    Precision,
    RayAddressOption,
)
from cli.render import write_json, write_rows
from cli.runners import choose_inference
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from etl.detect import DetectSummary
    from etl.detect_slices import DetectSettings
    from etl.detect_tasks import DetectorModel, SeriesChoice
    from etl.inference import InferenceChoice
    from lesionary.lake import Lake

_COLUMNS = ("series", "slice", "first", "last", "x0", "y0", "x1", "y1", "score", "category")


class Split(StrEnum):
    """A part of the patients."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


def detect(
    folder: Annotated[
        str | None,
        typer.Argument(
            metavar="[DICOM_FOLDER]",
            help="Look through the CT series of this folder, or archive, instead of the lake's; nothing is kept.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", help="A detector of the lake: its id, or name. [newest]"),
    ] = None,
    series: Annotated[
        list[str] | None, typer.Option("--series", metavar="ID", help="Only this series; repeatable.")
    ] = None,
    patient: Annotated[str | None, typer.Option("--patient", metavar="ID", help="Only this patient's series.")] = None,
    split: Annotated[Split | None, typer.Option("--split", help="Only series of these patients.")] = None,
    key_slices: Annotated[
        bool,
        typer.Option("--key-slices", help="Only slices with a marked lesion, each by itself: for evaluation in 2-D."),
    ] = False,
    min_score: Annotated[
        float, typer.Option("--min-score", min=0, max=1, help="Boxes the detector is less sure of are not kept.")
    ] = 0.05,
    max_per_slice: Annotated[
        int, typer.Option("--max-per-slice", min=1, max=1000, help="Of a slice, the surest boxes.")
    ] = 50,
    workers: ModelsOption = 1,
    gpus: GpusOption = 0,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Of the network. [what it was trained with]")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Slices at once. [2 on a CPU, 8 on a GPU]")
    ] = None,
    ray_address: RayAddressOption = None,
    picture: PictureOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Find lesions on every slice, and link their boxes from slice to slice.

    A second run looks only at series that are new or have changed. `lesionary sync` brings detections into the store.

    For example: lesionary detect --split test --picture found.png
    """
    from etl.detect_slices import DetectSettings
    from etl.detect_tasks import Scope, SeriesChoice
    from lesionary.lake import Lake
    from lesionary.models import find_model

    settings = DetectSettings(min_score, max_per_slice)
    opened = Lake.open(lake)
    card = find_model(opened, model, KIND)
    of_lake = series or patient or split or key_slices or workers > 1 or ray_address
    if folder is not None and of_lake:
        raise UsageError(
            "these belong to the lake's series; a folder is looked through as a whole, in this process",
            where="--series, --patient, --split, --key-slices, --workers, --ray-address",
            next_step="leave them out",
        )
    known = detector_model(opened, card, on_gpu=gpus > 0, precision=precision, batch_size=batch_size)
    if folder is not None:
        _look_at_folder(opened, known, folder, settings, picture, as_json=as_json)
        return
    scope = Scope.KEY_SLICES if key_slices else Scope.ALL
    choice = SeriesChoice(tuple(series or ()), patient, split.value if split else None, scope)
    with ExitStack() as session:
        infer = partial(choose_inference, session, workers, gpus, ray_address)
        summary = _look_at_lake(opened, known, settings, choice, infer)
    if picture is not None:
        from cli.detection_pictures import draw_lake

        drawn = draw_lake(opened, known, choice, settings, picture)
        note(f"picture: {picture}" if drawn else "no picture: there is no detection to draw")
    _report(summary, as_json=as_json)


def _look_at_lake(
    lake: "Lake",
    model: "DetectorModel",
    settings: "DetectSettings",
    choice: "SeriesChoice",
    infer: "InferenceChoice",
) -> "DetectSummary":
    from etl.detect import detect as detect_in_lake

    started = time.monotonic()
    with live_line() as show:

        def tell(done: int, total: int) -> None:
            left = (time.monotonic() - started) * (total - done) / max(done, 1)
            show(f"{done} of {total} slices, {human_seconds(left)} left")

        return detect_in_lake(lake, model, settings, choice=choice, choose_inference=infer, progress=tell)


def _look_at_folder(
    lake: "Lake",
    model: "DetectorModel",
    folder: str,
    settings: "DetectSettings",
    picture: Path | None,
    *,
    as_json: bool,
) -> None:
    from etl.detect_folder import detect_in_folder

    with live_line() as show:
        found = detect_in_folder(
            folder, model.maker(), model.shown, settings, lambda done, total: show(f"{done} of {total} slices")
        )
    names = category_names(lake, model)
    if picture is not None:
        from cli.detection_pictures import draw_folder

        drawn = draw_folder(found, model, names, picture)
        note(f"picture: {picture}" if drawn else "no picture: there is no detection to draw")
    rows = [
        (
            series.number, one.slice_index, one.first_slice_index, one.last_slice_index,
            *(round(edge, 1) for edge in one.box_xyxy_px), one.score, category_text(names, one.category, model),
        )
        for series in found.series
        for one in series.detections
    ]  # fmt: skip
    left_out = sum(found.series_left_out.values())
    note(
        f"files:  {found.files} found = {found.files_read} images + {sum(found.files_refused.values())} others"
        + _reasons(found.files_refused)
    )
    note(
        f"series: {found.series_found} found = {len(found.series)} looked through + {left_out} left out"
        + _reasons(found.series_left_out)
    )
    if found.slices_refused:
        note(f"skipped: {counted(found.slices_refused, 'slice')} of these that cannot be read")
    write_rows(_COLUMNS, rows, Format.JSON if as_json else Format.TABLE)


def _report(summary: "DetectSummary", *, as_json: bool) -> None:
    if as_json:
        write_json(asdict(summary))
        return
    left_out = sum(summary.series_left_out.values())
    print(
        f"series:     {summary.series_found:>8} meant = {summary.series_looked_at} looked through + "
        f"{summary.series_kept} looked through before + {left_out} left out{_reasons(summary.series_left_out)}"
    )
    if not summary.series_looked_at:
        note(f"nothing to do: {summary.model_id} has looked through all of them before")
        return
    print(
        f"detections: {summary.detections:>8} on {counted(summary.slices_looked_at, 'slice')}, "
        f"of {counted(summary.boxes, 'box', 'boxes')}"
    )
    speed = summary.slices_looked_at / summary.seconds if summary.seconds else 0.0
    print(f"{summary.model_id} took {human_seconds(summary.seconds)} ({speed:.1f} slices/s)")
    note("`lesionary sync` brings detections into the store: see view detection_features")


def _reasons(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name} {count}' for name, count in counts.items())})" if counts else ""
