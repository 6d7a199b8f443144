"""`lesionary evaluate ssbr`: how well a body-part regressor orders slices and names the part of the body."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from cli.console import note
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption
from cli.render import as_json_text
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from lesionary.lake import Lake
    from trainers.ssbr.evaluate import BodyPartScores, OrderScores


@dataclass(frozen=True, slots=True)
class ScoredSeries:
    """One series: its slices' numbers and heights, in the order of the slices."""

    series_id: str
    split: str
    indices: NDArray[np.int64]
    heights: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SsbrReport:
    """What is said of a regressor."""

    model_id: str
    split: str
    least_slices: int
    order: "OrderScores | None"
    body_parts: "BodyPartScores | None"
    """None without a truth."""


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
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write ssbr.json, .md and .png here.")
    ] = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Score what `lesionary locate` kept: order within series, and with a phantom's truth the part of the body.

    The two thresholds between the parts are chosen on series of the other splits and tested on those asked for.
    """
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
    parts = None if heights is None else _body_parts(every, wanted, heights, split)
    order = order_scores([(one.heights, one.indices) for one in wanted])
    report = SsbrReport(card.model_id, split, least_slices, order, parts)
    record, text = as_json_text(asdict(report)), ssbr_markdown(report)
    if report_folder is not None:
        _write(report_folder, record, text, wanted, parts.thresholds if parts else None)
    print(record if as_json else text)


def scored_series(lake: "Lake", model_id: str) -> list[ScoredSeries]:
    """What a model has scored, series by series."""
    import pyarrow.compute as pc

    from lesionary.splits import split_of_patient

    rows = lake.read(
        "slice_heights", columns=["series_id", "slice_index", "height"], where=pc.field("model_id") == model_id
    ).sort_by([("series_id", "ascending"), ("slice_index", "ascending")])
    series = lake.read("series", columns=["series_id", "patient_id"])
    patients = dict(zip(series["series_id"].to_pylist(), series["patient_id"].to_pylist(), strict=True))
    marked = lake.read("lesions", columns=["patient_id", "split"], where=pc.field("split").is_valid())
    stated = dict(zip(marked["patient_id"].to_pylist(), marked["split"].to_pylist(), strict=True))
    names = np.array(rows["series_id"].to_pylist(), object)
    indices, heights = rows["slice_index"].to_numpy().astype(np.int64), rows["height"].to_numpy().astype(np.float64)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]]) if len(names) else np.empty(0, np.int64)
    found = []
    for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
        patient = patients.get(names[start])
        if patient is not None:
            split = stated.get(patient) or split_of_patient(patient)
            found.append(ScoredSeries(names[start], split, indices[start:end], heights[start:end]))
    return found


def _body_parts(
    every: list[ScoredSeries], wanted: list[ScoredSeries], heights: Mapping[str, Mapping[int, float]], split: str
) -> "BodyPartScores":
    from trainers.ssbr.evaluate import body_part_scores, classes_of_heights

    def known(series: list[ScoredSeries]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        pairs = [
            (height, heights[one.series_id][index])
            for one in series
            for index, height in zip(one.indices.tolist(), one.heights.tolist(), strict=True)
            if index in heights.get(one.series_id, {})
        ]
        values = np.array(pairs, np.float64).reshape(-1, 2)
        return values[:, 0], classes_of_heights(values[:, 1])

    others = [one for one in every if one.split != split] if split != "all" else every
    return body_part_scores(known(others), known(wanted))


def ssbr_markdown(report: SsbrReport) -> str:
    """The scores as a page."""
    from store.score_tables import as_markdown_table
    from trainers.ssbr.evaluate import BODY_PARTS

    lines = [f"# Body-part regression by `{report.model_id}`"]
    if (order := report.order) is not None:
        said = (
            (
                "correlation of height and slice number, mean",
                f"{order.mean_correlation:.4f} ± {order.sd_correlation:.4f}",
            ),
            ("the least", f"{order.least_correlation:.4f}"),
            ("neighbouring slices in the wrong order", f"{100 * order.neighbour_errors:.1f} %"),
            ("pairs of slices in the wrong order", f"{100 * order.pair_errors:.1f} %"),
        )
        lines += [
            f"{order.volumes} series of {report.split} patients with {report.least_slices} slices or more.",
            as_markdown_table(("order within a series", ""), said),
        ]
    if (parts := report.body_parts) is not None:
        low, high = parts.thresholds
        rows = [(name, *map(str, row)) for name, row in zip(BODY_PARTS, parts.confusion, strict=True)]
        said_of_parts = (
            f"Part of the body: {100 * parts.accuracy:.2f} % of {parts.slices:,} slices right with thresholds "
            f"{low:.3f} and {high:.3f}, chosen on {parts.chosen_on:,} slices of other patients "
            f"({100 * parts.accuracy_there:.2f} % there). Rows are true parts."
        )
        lines += [said_of_parts, as_markdown_table(("", *BODY_PARTS), rows)]
    return "\n\n".join(lines) + "\n"


def _read(truth: Path) -> Mapping[str, object]:
    try:
        held = json.loads(truth.read_bytes())
    except (OSError, ValueError) as cause:
        raise UsageError(
            f"the truth cannot be read ({type(cause).__name__})", where="--truth", next_step="give a truth.json"
        ) from cause
    return held if isinstance(held, dict) else {}


def _write(
    folder: Path, record: str, text: str, series: list[ScoredSeries], thresholds: tuple[float, float] | None
) -> None:
    from cli.figures.gallery import write_chart
    from cli.figures.heights import heights_chart
    from lesionary.artifacts import atomic_write_bytes

    write_chart(heights_chart([(one.indices, one.heights) for one in series], thresholds), folder / "ssbr.png")
    atomic_write_bytes(folder / "ssbr.json", f"{record}\n".encode())
    atomic_write_bytes(folder / "ssbr.md", f"{text}\n![heights](ssbr.png)\n".encode())
    note(f"report: {folder}/ssbr.json, .md and .png")
