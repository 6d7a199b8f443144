"""Thresholds for `lesionary match` out of a feature set's own distances: nobody has to say which marks are one lesion.

Two marks of one series are two lesions (a reader who measures one twice does so in another series or study), and so
are a mark and one of another patient. What a feature set says of such pairs shows how near different lesions come:

* t1 is the distance within which 5 % of marks have another mark of their series, so that at most about so many would be
  merged by mistake; never above t2;
* t2 is the distance at which the share of marks that have a mark of another study of the patient within it exceeds the
  share that have one of their own series within it by most: beyond it, different lesions come in faster than the same
  ones. At most the distance within which 15 % have one of their own series, which is what remains of the rule where a
  set can hardly tell lesions apart.

Where series with several marks are too few, marks of one study of another patient stand in for those of the series.
docs/matching.md compares thresholds by this rule with those that were chosen by known pairs.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FALSE_MERGES, FALSE_EDGES = 0.05, 0.15
# Fewer distances say too little of a share of 5 %.
_FEWEST = 40

Codes = NDArray[np.int64]
Distances = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MarksOf:
    """Marks with their vectors; codes are numbers for names, a study's and a series' unlike any other patient's."""

    patients: Codes
    studies: Codes
    series: Codes
    vectors: NDArray[np.float32]


def match_thresholds(marks: MarksOf) -> tuple[float, float] | None:
    """t1 and t2, or None where there are too few marks to tell."""
    order = np.lexsort((marks.series, marks.studies, marks.patients))
    sorted_marks = MarksOf(marks.patients[order], marks.studies[order], marks.series[order], marks.vectors[order])
    apart, across = _nearest(sorted_marks)
    if apart.size < _FEWEST:
        apart = np.concatenate([apart, _nearest_of_another(sorted_marks)])
    if apart.size < _FEWEST:
        return None
    apart, across = np.sort(apart), np.sort(across)
    widest = float(np.quantile(apart, FALSE_EDGES))
    t2 = widest
    if across.size >= _FEWEST:
        candidates = np.unique(np.concatenate([across[across <= widest], [widest]]))
        gain = _share_within(across, candidates) - _share_within(apart, candidates)
        t2 = float(candidates[int(gain.argmax())])
    return min(float(np.quantile(apart, FALSE_MERGES)), t2), t2


def _share_within(distances: Distances, thresholds: Distances) -> Distances:
    share: Distances = np.searchsorted(distances, thresholds, side="right") / distances.size
    return share


def _nearest(marks: MarksOf) -> tuple[Distances, Distances]:
    """From each mark to the nearest other one of its series, and to the nearest of each other study of the patient."""
    apart, across = [], []
    for rows in _runs(marks.patients):
        table = _distances(marks.vectors[rows], marks.vectors[rows])
        np.fill_diagonal(table, np.inf)
        series, studies = marks.series[rows], marks.studies[rows]
        own = np.where(series[:, None] == series, table, np.inf).min(axis=1)
        apart.append(own[np.isfinite(own)])
        starts = np.flatnonzero(np.diff(studies, prepend=studies[0] - 1))
        by_study = np.minimum.reduceat(table, starts, axis=1)
        across.append(by_study[studies[:, None] != studies[starts]])
    return np.concatenate([np.empty(0), *apart]), np.concatenate([np.empty(0), *across])


def _nearest_of_another(marks: MarksOf) -> Distances:
    """From each mark to the nearest of the first study of the next patient."""
    patients = _runs(marks.patients)
    found = []
    for rows, following in zip(patients, patients[1:] + patients[:1], strict=True):
        if rows != following:
            other = marks.vectors[following]
            first = other[marks.studies[following] == marks.studies[following.start]]
            found.append(_distances(marks.vectors[rows], first).min(axis=1))
    return np.concatenate([np.empty(0), *found])


def _runs(codes: Codes) -> list[slice]:
    """Runs of equal codes."""
    edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(codes)]
    return [slice(start, end) for start, end in pairwise(edges) if end > start]


def _distances(one: NDArray[np.float32], other: NDArray[np.float32]) -> Distances:
    first, second = one.astype(np.float64), other.astype(np.float64)
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    found: Distances = np.sqrt(np.maximum(squares, 0.0))
    return found
