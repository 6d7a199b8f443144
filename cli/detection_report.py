"""What `lesionary evaluate detection` says: several detectors side by side, as a record and as a page."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cli.console import counted
from cli.detection_inputs import Contestant
from cli.detection_truth import TruthCounts
from trainers.detector.average_precision import CategoryPrecision
from trainers.detector.evaluate import DetectionScores, Estimate, Protocol, Resampling

_NOTHING = "–"

# Points of a curve that a report holds: more cannot be seen.
_MOST_POINTS = 200


@dataclass(frozen=True, slots=True)
class Scored:
    """One detector's scores."""

    contestant: Contestant
    scores: DetectionScores

    @property
    def name(self) -> str:
        """Of the detector."""
        return self.contestant.name


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionReport:
    """What was compared, how, and what came out."""

    rows: Sequence[Scored]
    protocol: Protocol
    resampling: Resampling
    padding_px: float
    source: str
    """The lake with its split, or files."""
    where: str | None
    counts: TruthCounts | None
    """None for files: all that is in them counts."""
    unmarked: str | None
    """What lesions that nobody marked were taken for: truth or ignore."""
    lake_versions: Mapping[str, int]
    lesionary: str

    @property
    def image_name(self) -> str:
        """What false positives are counted per."""
        return "image" if self.protocol.dimensions == "2d" else "sub-volume"

    @property
    def overlap_name(self) -> str:
        """As papers spell it."""
        return {"iou": "IoU", "iobb": "IoBB"}[self.protocol.overlap]

    @property
    def threshold(self) -> str:
        """The protocol's."""
        return f"{self.protocol.threshold:g}"


def detection_record(report: DetectionReport) -> dict[str, Any]:
    """As JSON can say it."""
    return {
        "source": report.source,
        "where": report.where,
        "padding_px": report.padding_px,
        "protocol": report.protocol.record(),
        "resampling": dataclasses.asdict(report.resampling),
        "truth": None if report.counts is None else dataclasses.asdict(report.counts),
        "unmarked": report.unmarked,
        "models": [
            {
                "name": row.name,
                "detections_elsewhere": row.contestant.detections_elsewhere,
                "category_names": list(row.contestant.category_names),
                **_plain(dataclasses.asdict(row.scores)),
            }
            for row in report.rows
        ],
        "lake_versions": dict(report.lake_versions),
        "lesionary": report.lesionary,
    }


def _plain(value: object) -> Any:  # noqa: ANN401 (whatever JSON can say)
    """Without arrays: a curve's are thinned alike, so that its points stay together."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, np.ndarray):
        return [float(one) if np.isfinite(one) else None for one in value[_thinned(len(value))]]
    return value


def _thinned(length: int) -> NDArray[np.int64]:
    """Places along a curve, closer together at its start, where it bends."""
    if length <= _MOST_POINTS:
        return np.arange(length)
    return np.unique(np.concatenate([[0], np.geomspace(1, length - 1, _MOST_POINTS).round().astype(np.int64)]))


def detection_markdown(report: DetectionReport) -> str:
    """The scores as a page."""
    from store.score_tables import as_markdown_table

    rates = [f"{rate:g}" for rate in report.protocol.rates]
    parts = [
        f"# Detection: {', '.join(f'`{row.name}`' for row in report.rows)}",
        _counted(report),
        _protocol(report),
        f"Sensitivity, %, at false positives per {report.image_name}{_interval(report)}.",
        as_markdown_table(
            ("detector", *rates, "mean", "mean to 4"),
            ((row.name, *_percents([*row.scores.froc.all.sensitivities, *_means(row)])) for row in report.rows),
        ),
        as_markdown_table(
            (
                "detector", f"top-1 at {report.overlap_name} > {report.threshold}, %",
                f"AP at {report.threshold}", "its whole area", "AP .5 to .95", "detections", "second hits",
                "in ignore regions",
            ),
            (_one_line(row) for row in report.rows),
        ),
    ]  # fmt: skip
    for row in report.rows:
        parts += [f"## `{row.name}` in parts", _strata_table(row, rates)]
        if row.scores.average_precision.categories:
            parts += ["Average precision by category.", _category_table(row)]
    versions = ", ".join(f"{table} {version}" for table, version in report.lake_versions.items())
    parts.append(
        f"Made by lesionary {report.lesionary}" + (f"; versions of the lake's tables: {versions}." if versions else ".")
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def first_threshold(report: DetectionReport) -> str:
    """The protocol's threshold as text."""
    return f"{report.protocol.threshold:g}"


def _interval(report: DetectionReport) -> str:
    if not report.resampling.resamples:
        return ""
    return f", with 95 % intervals over {report.resampling.resamples:,} resamplings of patients"


def _counted(report: DetectionReport) -> str:
    scores = report.rows[0].scores
    froc = scores.froc
    images = f"{froc.images:,} {report.image_name}s of {froc.patients:,} patients"
    said = [f"{report.source}: {scores.lesions:,} lesions on {images}."]
    if report.where is not None:
        said.append(f"Only lesions for which `{report.where}`.")
    if scores.lesions_dropped:
        lost = counted(scores.lesions_dropped, "noisy lesion"), counted(scores.images_dropped, "image")
        said.append(f"Left out: {lost[0]}, and {lost[1]} with nothing else.")
    if scores.regions:
        said.append(f"{counted(scores.regions, 'ignore region')}.")
    if (counts := report.counts) is not None:
        said.append(f"{counts.elsewhere:,} of {counts.lesions:,} lesions lie in series that were not looked at.")
        if counts.without_extent:
            said.append(f"{counts.without_extent:,} have no slices to compare.")
        if counts.others_as_regions:
            said.append(f"{counts.others_as_regions:,} other lesions on these images are ignore regions.")
        if report.unmarked is not None:
            kind = "as truth" if report.unmarked == "truth" else "as ignore regions"
            elsewhere = f"{counts.unmarked_elsewhere:,} are elsewhere"
            said.append(f"{counts.unmarked:,} lesions that nobody marked count {kind}; {elsewhere}.")
    return " ".join(said)


def _protocol(report: DetectionReport) -> str:
    said = report.protocol
    parts = [
        f"Protocol: {said.dimensions}",
        f"{report.overlap_name} at least {said.threshold:g}" + (" with one pixel added" if said.plus_one else ""),
        f"noisy rows: {said.noisy}",
        f"second hits: {said.second_hits}",
        f"one detection may hit {said.assignment}",
        f"beyond the curve: {said.beyond}",
        f"up to {said.most_boxes} boxes per {report.image_name}",
        f"boxes padded by {report.padding_px:g} px",
    ]
    if said.least_score is not None:
        parts.append(f"scores of at least {said.least_score:g}")
    return ", ".join(parts) + "."


def _means(row: Scored) -> list[Estimate]:
    return [row.scores.froc.all.mean, row.scores.froc.all.mean_to_4]


def _one_line(row: Scored) -> tuple[str, ...]:
    scores = row.scores
    precision = scores.average_precision
    return (
        row.name,
        *_percents([scores.top_one.all.accuracy]),
        *_percents([precision.all.at_threshold]),
        _percent(precision.all.area_at_threshold),
        _percent(precision.all.coco),
        f"{scores.detections:,}",
        f"{scores.froc.second_hits:,}",
        f"{scores.froc.ignored:,}",
    )


def _strata_table(row: Scored, rates: Sequence[str]) -> str:
    from store.score_tables import as_markdown_table

    tops = {(one.group, one.name): one for one in row.scores.top_one.strata}
    lines = []
    for part in row.scores.froc.strata:
        top = tops[part.group, part.name]
        name = part.name if part.group == "all" else f"{part.group}: {part.name.replace('_', ' ')}"
        found = [_percent(one.value) for one in (*part.sensitivities, part.mean)]
        lines.append((name, f"{part.lesions:,}", *found, f"{top.images:,}", _percent(top.accuracy.value)))
    return as_markdown_table(("part", "lesions", *rates, "mean", "images", "top-1, %"), lines)


def _category_table(row: Scored) -> str:
    from store.score_tables import as_markdown_table

    names = row.contestant.category_names
    precision = row.scores.average_precision

    def line(one: CategoryPrecision) -> tuple[str, ...]:
        name = "class ignored" if one.category is None else names[one.category]
        return (
            name, f"{one.lesions:,}", f"{one.detections:,}", *_percents([one.at_threshold]), _percent(one.coco)
        )  # fmt: skip

    mean = ("mean over categories", "", "", _percent(precision.mean_at_threshold), _percent(precision.mean_coco))
    header = ("category", "lesions", "detections", f"AP at {precision.threshold:g}", "AP .5 to .95")
    return as_markdown_table(header, [*map(line, precision.categories), mean, line(precision.all)])


def _percents(values: Sequence[Estimate]) -> list[str]:
    return [
        _percent(one.value) + (f" ({_percent(one.low)}–{_percent(one.high)})" if one.low is not None else "")
        for one in values
    ]


def _percent(value: float | None) -> str:
    return _NOTHING if value is None else f"{100 * value:.2f}"
