"""Matching of several feature sets against one truth: precision over recall as T2 rises, and where T1 comes from.

The area hangs on T1 as much as on the set: true pairs within a study can be joined by nothing else, and a T1 that is
too wide joins false ones that no T2 takes apart. So sets compare only where their T1 was chosen alike: by `chosen_t1`,
on patients that are not scored.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError
from store.evaluate import MatchingReport
from store.evaluation_inputs import evaluate_marks, known_lesions
from store.features import FeatureSet
from store.match_runs import MatchSettings, marks_to_match, thresholds_for
from store.matching import Sightings, Thresholds
from store.matching_scores import distances_within
from store.truth_pairs import TruthGroups, read_truth

if TYPE_CHECKING:
    import duckdb

# Shares of the pairs within a study that a T1 to choose from joins: few of them are true ones.
_T1_SHARES = (0.0, 0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.3)

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MatchingCurve:
    """Precision over recall of one set, T2 rising."""

    t1: float
    t1_from: str
    """given, chosen, recorded, or none."""
    auc: float | None
    last_recall: float | None
    best_f1: float | None
    best_t2: float
    points: tuple[tuple[float, float, float], ...]
    """(T2, recall, precision) where both are known, as swept."""


@dataclass(frozen=True, slots=True)
class MarksWithTruth:
    """Marks of a set, and what is known of them."""

    sightings: Sightings
    truth: TruthGroups
    patient_ids: frozenset[str]

    def pairs(self) -> tuple[int, int]:
        """How many pairs of marks are of one lesion, and how many of these are of one study."""
        named = self.truth.groups >= 0
        groups, studies = self.truth.groups[named], self.sightings.studies[named]
        return _pairs_of(groups[:, None]), _pairs_of(np.column_stack([groups, studies]))


def marks_with_truth(
    connection: "duckdb.DuckDBPyConnection",
    path: Path,
    one: FeatureSet,
    lesion_ids: frozenset[str],
    where: str | None,
    as_of: str | None,
    truth_file: Path,
    namespace: str | None,
) -> MarksWithTruth:
    """The marks of some lesions, with their vectors in a set.

    Raises:
        UsageError: the truth is none, or names none of them.
        StoreError: the condition is none, or nothing is left.
    """
    found = marks_to_match(connection, path, one, MatchSettings(one.feature_set_id, where=where, as_of=as_of))
    kept = np.array([mark.lesion_id in lesion_ids for mark in found.marks], np.bool_)
    marks = [mark for mark, keep in zip(found.marks, kept.tolist(), strict=True) if keep]
    known = known_lesions(connection, [mark.lesion_id for mark in marks])
    truth = read_truth(truth_file, known, namespace=namespace)
    seen = found.sightings
    sightings = Sightings(seen.patients[kept], seen.studies[kept], seen.vectors[kept])
    return MarksWithTruth(sightings, truth, frozenset(mark.patient_id for mark in marks))


def curve_of(
    one: FeatureSet, marks: MarksWithTruth, t1: float | None, others: MarksWithTruth | None, progress: Progress
) -> MatchingCurve:
    """Sweep T2 over the marks of a set.

    Args:
        one: the set.
        marks: of it.
        t1: of a person; else chosen on `others`, else recorded with the set, else 0.
        others: marks of other patients in the same set.
        progress: told what is being done.
    """
    if t1 is not None:
        chosen, origin = t1, "given"
    elif others is not None:
        chosen, origin = chosen_t1(others, progress), "chosen"
    else:
        chosen, origin = _recorded_t1(one)
    report = _swept(one.feature_set_id, marks, chosen, progress)
    points = [(point.t2, point.scores.recall, point.scores.precision) for point in report.sweep.points]
    return MatchingCurve(
        t1=chosen,
        t1_from=origin,
        auc=report.sweep.auc,
        last_recall=report.sweep.last_recall,
        best_f1=report.sweep.best.scores.f1,
        best_t2=report.sweep.best.t2,
        points=tuple(
            (t2, recall, precise) for t2, recall, precise in points if recall is not None and precise is not None
        ),
    )


def chosen_t1(marks: MarksWithTruth, progress: Progress = lambda _: None) -> float:
    """The T1 with the largest area, of `t1_grid`; of equal ones the smallest."""
    areas = []
    for t1 in t1_grid(marks.sightings):
        progress(f"choosing T1: {t1:.4g}")
        areas.append((_swept("", marks, t1, lambda _: None).sweep.auc or 0.0, -t1))
    return -max(areas)[1]


def t1_grid(sightings: Sightings) -> list[float]:
    """0, and quantiles of the distances between marks of one study."""
    _, studies = np.unique(np.column_stack([sightings.patients, sightings.studies]), axis=0, return_inverse=True)
    distances = distances_within(studies.astype(np.int64), sightings.vectors)
    if not distances.size:
        return [0.0]
    return [float(value) for value in np.unique([0.0, *np.quantile(distances, _T1_SHARES[1:])])]


def _swept(name: str, marks: MarksWithTruth, t1: float, progress: Progress) -> MatchingReport:
    # T2 is swept; the one that the report itself is at says nothing.
    return evaluate_marks(name, marks.sightings, marks.truth, Thresholds(t1, 0.0), progress=progress)


def _recorded_t1(one: FeatureSet) -> tuple[float, str]:
    try:
        return thresholds_for(one, None, None).t1, "recorded"
    except UsageError:
        return 0.0, "none"


def _pairs_of(labels: NDArray[np.int64]) -> int:
    """How many pairs of rows agree in every label."""
    _, counts = np.unique(labels, axis=0, return_counts=True)
    return int((counts * (counts - 1) // 2).sum())
