"""What `lesionary evaluate ssbr` reads out of the lake, and how it says what it found."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError
from lesionary.lake import Lake
from trainers.ssbr.evaluate import BODY_PARTS, BodyPartScores, OrderScores, body_part_scores, classes_of_heights


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
    order: OrderScores | None
    body_parts: BodyPartScores | None
    """None without a truth."""
    lake_versions: Mapping[str, int]
    """Of the tables it was made from."""
    lesionary: str


def scored_series(lake: Lake, model_id: str) -> list[ScoredSeries]:
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


def known_slices(
    series: list[ScoredSeries], truth: Mapping[str, Mapping[int, float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Heights and true heights of the slices whose true height is known."""
    pairs = [
        (height, truth[one.series_id][index])
        for one in series
        for index, height in zip(one.indices.tolist(), one.heights.tolist(), strict=True)
        if index in truth.get(one.series_id, {})
    ]
    values = np.array(pairs, np.float64).reshape(-1, 2)
    return values[:, 0], values[:, 1]


def body_parts(
    every: list[ScoredSeries], wanted: list[ScoredSeries], truth: Mapping[str, Mapping[int, float]], split: str
) -> BodyPartScores:
    """Parts of the body that thresholds say of the series that are wanted; see `ssbr_markdown` for what chose them.

    Raises:
        UsageError: the truth is of other series.
    """
    others = [one for one in every if one.split != split] if split != "all" else every
    (chosen, chosen_true), (tested, tested_true) = known_slices(others, truth), known_slices(wanted, truth)
    if not len(tested):
        raise UsageError(
            "the truth knows none of these series",
            where="--truth",
            next_step="give the truth.json of the release that was ingested, and its --namespace",
        )
    return body_part_scores((chosen, classes_of_heights(chosen_true)), (tested, classes_of_heights(tested_true)))


def ssbr_markdown(report: SsbrReport) -> str:
    """The scores as a page."""
    from store.score_tables import as_markdown_table

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
            f"{low:.3f} and {high:.3f}, chosen on {_chosen_on(report.split, parts)}. Rows are true parts."
        )
        lines += [said_of_parts, as_markdown_table(("", *BODY_PARTS), rows)]
    versions = ", ".join(f"{table} {version}" for table, version in report.lake_versions.items())
    lines.append(f"Made by lesionary {report.lesionary}; versions of the lake's tables: {versions}.")
    return "\n\n".join(lines) + "\n"


def _chosen_on(split: str, parts: BodyPartScores) -> str:
    if split == "all":
        return "the same slices, so that this is an upper bound"
    return f"{parts.chosen_on:,} slices of other patients ({100 * parts.accuracy_there:.2f} % there)"
