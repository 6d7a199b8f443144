"""`lesionary evaluate detection`: how many lesions detectors find, and how often they are wrong, by any protocol."""

import dataclasses
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import live_line
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, PictureOption, StoreOption, WhereOption, numbers_of
from cli.render import as_json_text
from cli.report_files import write_report
from lesionary.errors import UsageError
from trainers.detector.protocols import (
    PUBLISHED,
    Assignment,
    BeyondCurve,
    Dimensions,
    NoisyRows,
    Overlap,
    Protocol,
    SecondHits,
)

if TYPE_CHECKING:
    from cli.detection_inputs import Contestant
    from cli.detection_report import DetectionReport, Scored
    from cli.detection_truth import TruthCounts, UnmarkedLesion
    from trainers.detector.evaluate import Resampling

_NAME = "detection"
_LAKE_PADDING_PX = 5.0


class Unmarked(StrEnum):
    """What lesions that nobody marked are taken for."""

    TRUTH = "truth"
    IGNORE = "ignore"


def detection(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="MODEL", help="Id or name of a detector; may be repeated. [all that have looked]"
        ),
    ] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--detections",
            metavar="FILE",
            help="Instead of a lake's: a JSON of ours, or COCO's results; may be repeated.",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="With --detections: the truth, where it is a file of its own."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option("--protocol", metavar="NAME", help=f"What is counted how: {', '.join(PUBLISHED)}."),
    ] = "lesionary",
    dimensions: Annotated[
        Dimensions | None,
        typer.Option("--dimensions", help="Slices, detections on key slices, or volumes. [the protocol's]"),
    ] = None,
    overlap: Annotated[
        Overlap | None,
        typer.Option("--overlap", help="Intersection over union, or over the detected box. [the protocol's]"),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option("--threshold", metavar="X", help="Overlap that makes a hit. [the protocol's]")
    ] = None,
    plus_one: Annotated[
        bool | None,
        typer.Option("--plus-one/--no-plus-one", help="Count both border pixels of a box. [the protocol's]"),
    ] = None,
    noisy: Annotated[
        NoisyRows | None, typer.Option("--noisy", help="What becomes of doubted lesions. [the protocol's]")
    ] = None,
    second_hits: Annotated[
        SecondHits | None, typer.Option("--second-hits", help="What a second hit on a lesion is. [the protocol's]")
    ] = None,
    assignment: Annotated[
        Assignment | None, typer.Option("--assignment", help="Lesions that one box may hit. [the protocol's]")
    ] = None,
    beyond: Annotated[
        BeyondCurve | None, typer.Option("--beyond", help="How a curve goes on after its end. [the protocol's]")
    ] = None,
    most_boxes: Annotated[
        int | None, typer.Option("--most-boxes", min=1, help="Boxes of an image that count. [the protocol's]")
    ] = None,
    least_score: Annotated[
        float | None, typer.Option("--least-score", help="Boxes below this score do not count. [the protocol's]")
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option("--rates", metavar="N,N,…", help="False positives per image to read at. [the protocol's]"),
    ] = None,
    size_edges: Annotated[
        str, typer.Option("--size-edges", metavar="MM,MM,…", help="Long diameters between the sizes.")
    ] = "10,30",
    padding: Annotated[
        float | None,
        typer.Option("--padding", min=0, help="Pixels added around all boxes. [5 in a lake, 0 in files]"),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Whose lesions count: test (unseen), val, train or all.")
    ] = "test",
    where: WhereOption = None,
    full_truth: Annotated[
        Path | None,
        typer.Option("--full-truth", metavar="FILE", help="A phantom's truth.json: lesions that nobody marked."),
    ] = None,
    unmarked: Annotated[
        Unmarked, typer.Option("--unmarked", help="What these are: lesions to find, or regions that do not count.")
    ] = Unmarked.IGNORE,
    namespace: Annotated[str, typer.Option("--namespace", help="That the phantom was ingested under.")] = "dl",
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, max=100_000, help="Of patients, for intervals; 0 = no intervals.")
    ] = 1_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resampling.")] = 0,
    picture: PictureOption = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write detection.json, .md and .png here.")
    ] = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Score detections: FROC, top-1 accuracy and average precision, with intervals, by type and by size.

    Of a lake, only series that all the models have looked at count. For example:
    lesionary evaluate detection --model one --model two --report scores
    """
    from cli.detection_report import DetectionReport, detection_markdown, detection_record
    from lesionary import __version__
    from trainers.detector.evaluate import Resampling

    changes: dict[str, object] = {
        "dimensions": dimensions, "overlap": overlap, "threshold": threshold, "plus_one": plus_one, "noisy": noisy,
        "second_hits": second_hits, "assignment": assignment, "beyond": beyond, "most_boxes": most_boxes,
        "least_score": least_score, "rates": None if rates is None else tuple(numbers_of(rates, "--rates")),
    }  # fmt: skip
    chosen = _protocol(protocol, changes)
    if files:
        _refuse_mixed({"--model": models, "--where": where, "--full-truth": full_truth}, of_files=True)
    else:
        _refuse_mixed({"--truth": truth}, of_files=False)
    padding_px = padding if padding is not None else 0.0 if files else _LAKE_PADDING_PX
    counts: TruthCounts | None = None
    versions: dict[str, int] = {}
    if files:
        contestants = _of_files(files, truth, padding_px)
    else:
        request = _Request(split, chosen.dimensions, padding_px, where, full_truth, unmarked, namespace)
        contestants, counts, versions = _of_lake(lake, store, models or [], request)
    resampling = Resampling(resamples, seed)
    report = DetectionReport(
        rows=_scored(contestants, chosen, resampling, numbers_of(size_edges, "--size-edges")),
        protocol=chosen,
        resampling=resampling,
        padding_px=padding_px,
        source=", ".join(file.name for file in files) if files else f"{split} patients of the lake",
        where=where,
        counts=counts,
        unmarked=None if full_truth is None else unmarked.value,
        lake_versions=versions,
        lesionary=__version__,
    )
    record, text = as_json_text(detection_record(report)), detection_markdown(report)
    # Files before anything is printed: whoever reads may close the pipe early.
    if picture is not None or report_folder is not None:
        write_report(_NAME, record, text, _drawn(report), picture, report_folder)
    print(record if as_json else text)


@dataclasses.dataclass(frozen=True, slots=True)
class _Request:
    """What was asked of a lake."""

    split: str
    dimensions: Dimensions
    padding_px: float
    where: str | None
    full_truth: Path | None
    unmarked: Unmarked
    namespace: str


def _protocol(name: str, changes: Mapping[str, object]) -> Protocol:
    if name not in PUBLISHED:
        raise UsageError(
            f"there is no protocol {name!r}", where="--protocol", next_step=f"one of {', '.join(PUBLISHED)}"
        )
    given = {field: value for field, value in changes.items() if value is not None}
    try:
        return dataclasses.replace(PUBLISHED[name], **given)  # type: ignore[arg-type]
    except UsageError as wrong:
        raise UsageError(wrong.what, where=f"--{wrong.where.replace('_', '-')}", next_step=wrong.next_step) from None


def _refuse_mixed(options: Mapping[str, object], *, of_files: bool) -> None:
    given = [name for name, value in options.items() if value]
    if given:
        raise UsageError(
            "this is asked of a lake, --detections names files"
            if of_files
            else "a truth goes with files of detections",
            where=", ".join(given),
            next_step="leave one out" if of_files else "add --detections FILE",
        )


def _of_files(files: Sequence[Path], truth: Path | None, padding_px: float) -> "list[Contestant]":
    from cli.detection_inputs import Contestant
    from trainers.detector.detection_files import read_detections

    found = []
    for file in files:
        held = read_detections(file, truth)
        found.append(
            Contestant(
                file.stem,
                held.truth.grown(padding_px),
                held.detections.grown(padding_px),
                held.type_names,
                held.category_names,
            )
        )
    return found


def _of_lake(
    lake: str, store: str | None, models: Sequence[str], asked: _Request
) -> "tuple[list[Contestant], TruthCounts, dict[str, int]]":
    from cli.detection_inputs import READ_TABLES, lake_contestants
    from cli.detection_truth import TruthRequest
    from lesionary.lake import Lake
    from lesionary.splits import SPLITS

    if asked.split not in {*SPLITS, "all"}:
        raise UsageError("a split is train, val, test or all", where="--split")
    if asked.where is not None and asked.full_truth is not None and asked.unmarked is Unmarked.TRUTH:
        raise UsageError(
            "nobody can ask lesions that nobody marked for a condition", where="--where, --unmarked truth",
            next_step="take them as --unmarked ignore",
        )  # fmt: skip
    opened = Lake.open(lake)
    request = TruthRequest(
        split=asked.split,
        dimensions=asked.dimensions,
        padding_px=asked.padding_px,
        wanted=None if asked.where is None else _lesions_where(lake, store, asked.where),
        unmarked=_unmarked(asked),
        unmarked_are_regions=asked.unmarked is Unmarked.IGNORE,
    )
    contestants, counts = lake_contestants(opened, models, request)
    return contestants, counts, {name: opened.shards(name)[0] for name in READ_TABLES}


def _unmarked(asked: _Request) -> "Sequence[UnmarkedLesion]":
    from cli.detection_truth import read_unmarked

    return () if asked.full_truth is None else read_unmarked(asked.full_truth, asked.namespace)


def _lesions_where(lake: str, store: str | None, where: str) -> frozenset[str]:
    from cli.reading import reading
    from store.selection import lesion_ids_where

    with reading(lake, store) as (_, connection):
        return lesion_ids_where(connection, where)


def _scored(
    contestants: "Sequence[Contestant]", protocol: Protocol, resampling: "Resampling", size_edges: Sequence[float]
) -> "list[Scored]":
    from cli.detection_report import Scored
    from trainers.detector.evaluate import EvaluationSettings, evaluate

    found = []
    with live_line() as show:
        for one in contestants:
            show(f"scoring {one.name}")
            settings = EvaluationSettings(
                protocol=protocol, type_names=one.type_names, category_names=one.category_names,
                size_edges_mm=size_edges, resampling=resampling,
            )  # fmt: skip
            found.append(Scored(one, evaluate(one.truth, one.detections, settings)))
    return found


def _drawn(report: "DetectionReport") -> bytes:
    from cli.figures.froc import DetectorCurves, detection_chart

    curves = [
        DetectorCurves(
            name=row.name,
            false_positives=row.scores.froc.curve.false_positives_per_image,
            sensitivities=row.scores.froc.curve.sensitivities,
            at_rates=[one.value for one in row.scores.froc.all.sensitivities],
            low=[one.low for one in row.scores.froc.all.sensitivities],
            high=[one.high for one in row.scores.froc.all.sensitivities],
            top_one=row.scores.top_one.sweep,
        )
        for row in report.rows
    ]
    return detection_chart(
        curves,
        report.protocol.rates,
        report.rows[0].scores.top_one.sweep_overlaps,
        overlap_name=report.overlap_name,
        image_name=report.image_name,
    )
