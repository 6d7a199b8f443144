"""How well lesions are grouped through time: pairs of lesions of one patient, as the CVPR 2018 paper counts them.

A pair is positive when the truth puts both ends into one group, and found when the grouping does. Only lesions that
the truth names are counted: a public grouping names some lesions only, and of the others nothing is known. Even so
it is a lower bound: true pairs that nobody wrote down count as false positives.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NOT_IN_TRUTH = -1

_SWEEP_STEPS = 41
# Distances of a patient with more lesions are taken among so many of them, evenly spaced.
_MOST_LESIONS = 512

Grouping = Callable[[float, float], NDArray[np.int64]]
"""The group of every lesion for T1 and T2; a negative group is a lesion alone."""


@dataclass(frozen=True, slots=True)
class PairScores:
    """Counts of same-patient pairs, and ratios from 0 to 1; None where nothing stands below the line."""

    lesions: int
    pairs: int
    positives: int
    tp: int
    fp: int
    fn: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """The scores at one threshold."""

    t2: float
    scores: PairScores


@dataclass(frozen=True, slots=True)
class Sweep:
    """The scores of one T1 over rising T2."""

    t1: float
    points: tuple[SweepPoint, ...]
    best: SweepPoint
    """The point with the highest F1; of equal ones the smallest T2."""
    auc: float | None
    """Area under precision over recall, see `area_under`; None where no pair is positive or none is ever found."""
    last_recall: float | None
    """Where the curve, and with it the area, ends."""


def pair_scores(
    patients: NDArray[np.int64], groups_found: NDArray[np.int64], groups_true: NDArray[np.int64]
) -> PairScores:
    """Count pairs over the lesions of the truth.

    Args:
        patients: (n,).
        groups_found: (n,) the group of each lesion within its patient; negative: alone.
        groups_true: (n,) likewise; `NOT_IN_TRUTH`: the lesion is left out.
    """
    named = groups_true != NOT_IN_TRUTH
    patient, true, found = patients[named], groups_true[named], groups_found[named].astype(np.int64)
    alone = found < 0
    found[alone] = found.max(initial=0) + 1 + np.arange(int(alone.sum()))
    pairs, positives = _pairs_within(patient), _pairs_within(patient, true)
    tp, together = _pairs_within(patient, true, found), _pairs_within(patient, found)
    fp, fn = together - tp, positives - tp
    return PairScores(
        lesions=int(named.sum()),
        pairs=pairs,
        positives=positives,
        tp=tp,
        fp=fp,
        fn=fn,
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
    )


def _pairs_within(*labels: NDArray[np.int64]) -> int:
    """How many pairs of rows agree in every label."""
    _, counts = np.unique(np.column_stack(labels), axis=0, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def sweep(
    patients: NDArray[np.int64],
    vectors: NDArray[np.float32],
    groups_true: NDArray[np.int64],
    *,
    t1: float,
    t2_values: Sequence[float] | None = None,
    match: Grouping,
) -> Sweep:
    """Group at each T2 and score every grouping.

    Args:
        patients: (n,).
        vectors: (n, d), only for the default thresholds; lesions that the truth does not name may be among them.
        groups_true: (n,), see `pair_scores`.
        t1: the threshold within a study, the same at every point.
        t2_values: `t2_grid` unless given; sorted here, at least one.
        match: groups all lesions, in the order of `patients`.
    """
    values = t2_grid(patients, vectors) if t2_values is None else sorted({float(value) for value in t2_values})
    points = tuple(SweepPoint(t2, pair_scores(patients, match(t1, t2), groups_true)) for t2 in values)
    drawn = drawn_points(points)
    return Sweep(
        t1=t1,
        points=points,
        best=max(points, key=lambda point: (point.scores.f1 or 0.0, -point.t2)),
        auc=area_under(drawn),
        last_recall=max((recall for recall, _ in drawn), default=None),
    )


def t2_grid(patients: NDArray[np.int64], vectors: NDArray[np.float32]) -> list[float]:
    """Rising thresholds: quantiles of the distances between lesions of one patient, denser where they are small.

    The quantiles are the squares of 0, 1/40 … 1: pairs of one lesion are the nearest few of many.
    """
    distances = distances_within(patients, vectors)
    if distances.size == 0:
        return [0.0]
    quantiles = np.quantile(distances, np.linspace(0.0, 1.0, _SWEEP_STEPS) ** 2)
    return [float(value) for value in np.unique(quantiles)]


def distances_within(groups: NDArray[np.int64], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distances between the lesions of each patient, or of each of any other groups; of large ones of some lesions."""
    from scipy.spatial.distance import pdist

    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    found = []
    for rows in np.split(order, borders):
        if rows.size > _MOST_LESIONS:
            chosen = rows[np.linspace(0, rows.size - 1, _MOST_LESIONS).astype(np.int64)]
        else:
            chosen = rows
        if chosen.size > 1:
            found.append(pdist(vectors[chosen].astype(np.float64)))
    return np.concatenate(found) if found else np.empty(0)


def drawn_points(points: Sequence[SweepPoint]) -> list[tuple[float, float]]:
    """The curve: (recall, precision) by rising recall, of equal recall the higher precision first.

    Points that found no pair have no precision and are left out.
    """
    pairs = [(point.scores.recall, point.scores.precision) for point in points]
    drawn = [(recall, precision) for recall, precision in pairs if recall is not None and precision is not None]
    return sorted(drawn, key=lambda pair: (pair[0], -pair[1]))


def area_under(curve: Sequence[tuple[float, float]]) -> float | None:
    """Area under the points of `drawn_points` by trapezoids; None for no point.

    The curve starts at recall 0 with the first point's precision and stops at the last point's recall: nothing is
    made up for recalls that were never reached, so a sweep that stops early has a small area.
    """
    if not curve:
        return None
    recall = np.array([0.0, *(point[0] for point in curve)])
    precision = np.array([curve[0][1], *(point[1] for point in curve)])
    return float(np.trapezoid(precision, recall))
