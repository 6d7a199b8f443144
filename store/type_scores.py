"""How well a feature set tells the lesion types apart: K-means against the types, and a linear classifier.

Only lesions of known type take part. What depends on chance is repeated over seeds and given as mean and standard
deviation; the same seeds give the same figures.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionary.anatomy import LESION_TYPES
from lesionary.partitions import normalised_mutual_information, purity
from store.retrieval_scores import Labelled

KMEANS_STARTS = 10
"""K-means keeps the best of so many random starts (scikit-learn's `n_init`, k-means++)."""

CLASSIFIER_STEPS = 1000
"""The classifier's solver stops here at the latest; `converged` tells."""


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure over repeats; the standard deviation (n - 1) needs two."""

    mean: float
    sd: float | None
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ClusterScores:
    """K-means clusters against types; both in %."""

    lesions: int
    clusters: int
    starts: int
    seeds: tuple[int, ...]
    purity_percent: Spread
    nmi_percent: Spread
    """Mutual information over the arithmetic mean of both entropies."""


@dataclass(frozen=True, slots=True)
class ClassifierScores:
    """Multinomial logistic regression, trained on one half of the patients and tested on the other."""

    lesions: int
    patients: int
    seeds: tuple[int, ...]
    accuracy_percent: Spread
    converged: bool
    type_names: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Counts summed over the repeats: a row for each true type, a column for each type said."""


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value."""
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), sd, tuple(float(value) for value in values))


def cluster_scores(labelled: Labelled, *, seeds: Sequence[int], clusters: int | None = None) -> ClusterScores | None:
    """Cluster the lesions of known type once for each seed; None where there are fewer lesions than clusters.

    Args:
        labelled: lesions of unknown type are left out.
        seeds: one run each; at least one.
        clusters: how many; as many as there are types among the lesions unless given.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    known = labelled.types >= 0
    vectors, types = labelled.vectors[known], labelled.types[known]
    wanted = int(np.unique(types).size) if clusters is None else clusters
    if not 0 < wanted <= types.size:
        return None
    purities, shared = [], []
    for seed in seeds:
        with warnings.catch_warnings():
            # Fewer distinct vectors than clusters: the clusters that are left are scored.
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = KMeans(wanted, n_init=KMEANS_STARTS, random_state=seed).fit_predict(vectors)
        purities.append(100 * purity(found, types))
        shared.append(100 * normalised_mutual_information(found, types))
    return ClusterScores(int(types.size), wanted, KMEANS_STARTS, tuple(seeds), spread(purities), spread(shared))


def patient_halves(patients: NDArray[np.int64], seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Rows to train on and rows to test on: no patient in both; of an odd number the training half has one more."""
    names = np.unique(patients)
    shuffled = np.random.default_rng(seed).permutation(names)
    train = np.isin(patients, shuffled[: (names.size + 1) // 2])
    return train, ~train


def classifier_scores(labelled: Labelled, *, seeds: Sequence[int]) -> ClassifierScores | None:
    """Train and test a linear classifier of the types once for each seed, on standardised features.

    A type that is missing from the training half is never said, and its lesions count as wrong. None where some
    split leaves less than two types to train on or nobody to test on.
    """
    known = np.flatnonzero(labelled.types >= 0)
    types, patients = labelled.types[known], labelled.patients[known]
    confusion = np.zeros((len(LESION_TYPES), len(LESION_TYPES)), dtype=np.int64)
    accuracies, converged = [], True
    for seed in seeds:
        train, test = patient_halves(patients, seed)
        if np.unique(types[train]).size < 2 or not test.any():
            return None
        said, settled = _classify(labelled.vectors[known[train]], types[train], labelled.vectors[known[test]])
        np.add.at(confusion, (types[test], said), 1)
        accuracies.append(100 * float((said == types[test]).mean()))
        converged &= settled
    return ClassifierScores(
        lesions=int(known.size),
        patients=int(np.unique(patients).size),
        seeds=tuple(seeds),
        accuracy_percent=spread(accuracies),
        converged=converged,
        type_names=LESION_TYPES,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def _classify(
    train: NDArray[np.float32], types: NDArray[np.int64], test: NDArray[np.float32]
) -> tuple[NDArray[np.int64], bool]:
    """The types said of `test`, and whether the solver came to rest."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(train)
    model = LogisticRegression(max_iter=CLASSIFIER_STEPS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(scaler.transform(train), types)
    said: NDArray[np.int64] = model.predict(scaler.transform(test))
    return said, not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
