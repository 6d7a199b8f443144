"""Average precision and precision over recall: COCO's greedy assignment, then 101 recalls or the whole area.

A second hit counts as wrong here whatever the protocol says of FROC, as in COCO, Pascal VOC and Lesion Harvester.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainers.detector.evaluation_data import UNKNOWN, Detections, Flags, Numbers, Truth, Whole
from trainers.detector.hits import hits_of
from trainers.detector.intervals import Estimate, Resampling, estimates
from trainers.detector.overlaps import Pairs, pairs_of
from trainers.detector.protocols import Assignment, Protocol, SecondHits
from trainers.detector.scene import Scene, of_category, scene_of

COCO_OVERLAPS: tuple[float, ...] = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Thresholds that COCO averages over."""

_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Precision over recall of one category, at the protocol's threshold; surest detections first."""

    category: int | None
    """None = class ignored."""
    recalls: Numbers
    precisions: Numbers
    scores: Numbers


@dataclass(frozen=True, slots=True)
class CategoryPrecision:
    """Of one category."""

    category: int | None
    """None = class ignored."""
    lesions: int
    detections: int
    at_threshold: Estimate
    """101 recalls, at the protocol's threshold; with an interval."""
    area_at_threshold: float | None
    """The whole area under the same curve, as Pascal VOC has it since 2010."""
    coco: float | None
    """101 recalls, mean over the thresholds .5, .55, … .95."""


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """What average precision says of a detector."""

    threshold: float
    all: CategoryPrecision
    """Class ignored."""
    categories: tuple[CategoryPrecision, ...]
    """Where truth and detections name categories."""
    mean_at_threshold: float | None
    """Over categories with a lesion; class ignored where there are none."""
    mean_coco: float | None
    curves: tuple[PrecisionRecall, ...]
    """Class ignored, then by category."""


def average_precision(
    truth: Truth, found: Detections, protocol: Protocol | None = None, resampling: Resampling | None = None
) -> AveragePrecision:
    """Average precision, class ignored and by category.

    Args:
        truth: what is there.
        found: what a detector found.
        protocol: of it count dimensions, overlap, threshold, plus_one, noisy, most_boxes (of an image and a category)
            and least_score; Lesionary's own unless given.
        resampling: for intervals.

    Raises:
        UsageError: the truth and the detections do not fit together, or not the protocol.
    """
    protocol = protocol or Protocol()
    scene = scene_of(truth, found, protocol)
    pairs = pairs_of(scene.truth, scene.detections, protocol)
    return average_precision_of_pairs(scene, pairs, protocol, resampling or Resampling())


def average_precision_of_pairs(
    scene: Scene, pairs: Pairs, protocol: Protocol, resampling: Resampling
) -> AveragePrecision:
    """The same for pairs that are known already."""
    everything, curve = _of_scene(None, scene, pairs, protocol, resampling)
    parts = [
        _of_scene(category, part, pairs_of(part.truth, part.detections, protocol), protocol, resampling)
        for category, part in _by_category(scene, protocol)
    ]
    categories = [one for one, _ in parts]
    return AveragePrecision(
        threshold=protocol.threshold,
        all=everything,
        categories=tuple(categories),
        mean_at_threshold=_mean([one.at_threshold.value for one in categories or [everything]]),
        mean_coco=_mean([one.coco for one in categories or [everything]]),
        curves=(curve, *(one for _, one in parts)),
    )


def _by_category(scene: Scene, protocol: Protocol) -> list[tuple[int, Scene]]:
    """A scene for each category of the truth."""
    categories = np.unique(scene.truth.categories[~scene.truth.ignore])
    categories = categories[categories != UNKNOWN]
    if not (scene.given.categories != UNKNOWN).any():
        return []
    return [(int(category), of_category(scene, int(category), protocol)) for category in categories]


def _of_scene(
    category: int | None, scene: Scene, pairs: Pairs, protocol: Protocol, resampling: Resampling
) -> tuple[CategoryPrecision, PrecisionRecall]:
    lesions = int((~scene.truth.ignore).sum())
    right, counted = _judged(scene, pairs, protocol.threshold)
    recalls, precisions = _precision_recall(right, counted, lesions)
    at_threshold = _with_interval(scene, right, counted, resampling)
    precision = CategoryPrecision(
        category=category,
        lesions=lesions,
        detections=scene.detections.count,
        at_threshold=at_threshold,
        area_at_threshold=_area(recalls, precisions) if lesions else None,
        coco=_mean([_over_thresholds(scene, pairs, overlap, lesions) for overlap in COCO_OVERLAPS]),
    )
    return precision, PrecisionRecall(category, recalls, precisions, scene.detections.scores[counted])


def _over_thresholds(scene: Scene, pairs: Pairs, overlap: float, lesions: int) -> float | None:
    right, counted = _judged(scene, pairs, overlap)
    if not lesions:
        return None
    one = np.ones((1, 1), np.int64)
    nobody = np.zeros(int(counted.sum()), np.int64)
    return float(_interpolated(right[counted], nobody, np.array([lesions]), one)[0, 0])


def _judged(scene: Scene, pairs: Pairs, threshold: float) -> tuple[Flags, Flags]:
    """Which detections are right, and which count at all."""
    hits = hits_of(scene, pairs, threshold, Assignment.ONE)
    return hits.right, hits.right | hits.false_positives(SecondHits.FALSE_POSITIVE)


def _precision_recall(right: Flags, counted: Flags, lesions: int) -> tuple[Numbers, Numbers]:
    hit = np.cumsum(right[counted])
    precisions = hit / np.arange(1, len(hit) + 1)
    return hit / max(1, lesions), precisions


def _area(recalls: Numbers, precisions: Numbers) -> float:
    """Under the curve, each recall with the best precision at it or beyond."""
    best = np.maximum.accumulate(precisions[::-1])[::-1]
    return float((np.diff(recalls, prepend=0.0) * best).sum())


def _with_interval(scene: Scene, right: Flags, counted: Flags, resampling: Resampling) -> Estimate:
    patients, count = scene.patients()
    lesions = np.bincount(patients[scene.truth.images[~scene.truth.ignore]], minlength=count)
    owners = patients[scene.detections.images[counted]]
    of_counted = right[counted]

    def figures(weights: Whole) -> Numbers:
        return _interpolated(of_counted, owners, lesions, weights)

    return estimates(figures, count, resampling, max(1, len(owners)))[0]


def _interpolated(right: Flags, owners: Whole, lesions: Whole, weights: Whole) -> Numbers:
    """(rows, 1) mean of the best precisions at or beyond 101 recalls, each patient counted by its weight.

    Args:
        right: of the detections that count, surest first.
        owners: their patients.
        lesions: (patients,) how many each has.
        weights: (rows, patients).
    """
    return np.array([[_of_row(right, row[owners], int(row @ lesions))] for row in weights])


def _of_row(right: Flags, counted: Whole, lesions: int) -> float:
    """The same for one row: how often each detection counts, and how many lesions there are."""
    if not lesions:
        return np.nan
    # Precision is highest, and recall grows, only where a lesion is hit.
    hits = np.flatnonzero(right)
    hit, among = np.cumsum(counted[hits]), np.cumsum(counted)[hits]
    precisions = np.divide(hit, among, out=np.zeros(len(hits)), where=among > 0)
    best = np.maximum.accumulate(precisions[::-1])[::-1]
    places = np.searchsorted(hit / lesions, _RECALLS, side="left")
    return float(best[places[places < len(hits)]].sum() / len(_RECALLS))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
