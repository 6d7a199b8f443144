"""What `lesionary evaluate` answers: every score of a feature set in one record, for JSON, markdown and charts.

Ranking depends on nothing but the vectors and is done once, with a patient's other lesions as hits and without;
clusters and the classifier depend on chance and are repeated over seeds. `dataclasses.asdict` of a report gives
numbers, texts, lists and None, never nan.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError
from store.matching_scores import NOT_IN_TRUTH, Grouping, PairScores, Sweep, pair_scores, sweep
from store.retrieval_scores import (
    DEFAULT_SIZE_NORMALISER_MM,
    DEFAULT_TOP,
    Labelled,
    RetrievalErrors,
    retrieval_errors,
)
from store.truth_pairs import TruthGroups, TruthSummary
from store.type_scores import ClassifierScores, ClusterScores, classifier_scores, cluster_scores

Progress = Callable[[str], None]
"""Told what is being done now."""


@dataclass(frozen=True, slots=True)
class RetrievalSettings:
    """How retrieval is scored."""

    top: int = DEFAULT_TOP
    size_normaliser_mm: float = DEFAULT_SIZE_NORMALISER_MM
    seed: int = 0
    repeats: int = 5
    """Seeds `seed`, `seed` + 1, …: of K-means and of the split of patients."""
    clusters: int | None = None
    """As many as there are types unless given."""


@dataclass(frozen=True, slots=True)
class RetrievalReport:
    """All that is said of a feature set's retrieval."""

    feature_set: str
    lesions: int
    patients: int
    dimension: int
    lesions_of_known_type: int
    settings: RetrievalSettings
    allowed: RetrievalErrors
    """Other lesions of the query's patient may be hits."""
    excluded: RetrievalErrors
    """They may not."""
    clusters: ClusterScores | None
    """None where too few types are known; so with `classifier`."""
    classifier: ClassifierScores | None


@dataclass(frozen=True, slots=True)
class MatchingReport:
    """All that is said of a grouping of lesions through time."""

    feature_set: str
    patients: int
    """Patients with a lesion that the truth names."""
    truth: TruthSummary
    t1: float
    t2: float
    scores: PairScores
    """At `t1` and `t2`."""
    sweep: Sweep


def evaluate_retrieval(
    feature_set: str,
    labelled: Labelled,
    settings: RetrievalSettings = RetrievalSettings(),
    progress: Progress = lambda _: None,
) -> RetrievalReport:
    """Score a feature set.

    Args:
        feature_set: its name, for the report.
        labelled: the lesions.
        settings: how.
        progress: told what is being done.

    Raises:
        UsageError: a setting makes no sense, there are fewer than two lesions, or a vector is not finite.
    """
    count, dimension = labelled.vectors.shape
    _check(settings, count)
    seeds = range(settings.seed, settings.seed + settings.repeats)
    errors = {}
    for same_patient, mode in ((True, "allowed"), (False, "excluded")):
        progress(f"ranking {count:,} lesions, same patient {mode}")
        errors[mode] = retrieval_errors(
            labelled, top=settings.top, same_patient=same_patient, size_normaliser_mm=settings.size_normaliser_mm
        )
    progress(f"K-means, {settings.repeats} repeats")
    clusters = cluster_scores(labelled, seeds=seeds, clusters=settings.clusters)
    progress(f"classifier, {settings.repeats} repeats")
    classifier = classifier_scores(labelled, seeds=seeds)
    return RetrievalReport(
        feature_set=feature_set,
        lesions=count,
        patients=int(np.unique(labelled.patients).size),
        dimension=dimension,
        lesions_of_known_type=int((labelled.types >= 0).sum()),
        settings=settings,
        **errors,
        clusters=clusters,
        classifier=classifier,
    )


def _check(settings: RetrievalSettings, lesions: int) -> None:
    checks = (
        (settings.top >= 1, "the number of hits", "at least 1"),
        (settings.repeats >= 1, "the number of repeats", "at least 1"),
        (settings.seed >= 0, "the seed", "0 or more"),
        (0 < settings.size_normaliser_mm < float("inf"), "the size normaliser", "a number of mm above 0"),
        (settings.clusters is None or settings.clusters >= 1, "the number of clusters", "at least 1"),
    )
    for holds, what, need in checks:
        if not holds:
            raise UsageError(f"{what} must be {need}", where="evaluate retrieval")
    if lesions < 2:
        raise UsageError(
            f"lesions with features are too few to rank: {lesions}",
            where="evaluate retrieval",
            next_step="sync the store or change the condition",
        )


def evaluate_matching(
    feature_set: str,
    patients: NDArray[np.int64],
    vectors: NDArray[np.float32],
    truth: TruthGroups,
    match: Grouping,
    *,
    t1: float,
    t2: float,
    t2_values: Sequence[float] | None = None,
) -> MatchingReport:
    """Score a grouping at its thresholds and over a sweep of T2.

    Args:
        feature_set: its name, for the report.
        patients: (n,).
        vectors: (n, d), for the default thresholds of the sweep.
        truth: of the same n lesions.
        match: groups all n lesions for T1 and T2.
        t1: threshold within a study.
        t2: threshold between studies, for the scores outside the sweep.
        t2_values: thresholds of the sweep; `t2_grid` unless given.
    """
    return MatchingReport(
        feature_set=feature_set,
        patients=int(np.unique(patients[truth.groups != NOT_IN_TRUTH]).size),
        truth=truth.summary,
        t1=t1,
        t2=t2,
        scores=pair_scores(patients, match(t1, t2), truth.groups),
        sweep=sweep(patients, vectors, truth.groups, t1=t1, t2_values=t2_values, match=match),
    )


def as_record(report: RetrievalReport | MatchingReport) -> dict[str, object]:
    """The report as plain numbers, texts, lists and dictionaries, ready for JSON."""
    return asdict(report)
