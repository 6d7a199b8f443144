"""From features to categories: principal components, K-means, and how many categories there are.

How many there are is asked of patients who took no part in making them: patients are halved again and again, and each
half's lesions are clustered alone. Two figures come of it for every number that is tried.

    likelihood  how well a half's clusters (spheres of one size, as K-means takes them to be) say where the lesions of
                the other half lie. It rises as long as finer categories are real in patients nobody has seen, and falls
                when they only repeat the patients they were made of. The fewest are taken that do as well as the best.
    agreement   how alike both halves' centres sort all lesions (adjusted Rand index: 1 = the same, 0 = chance). It is
                highest for few, coarse categories. The most are taken that come near the highest.

Silhouette and the index of Calinski and Harabasz ask how round and how far apart clusters are, of the very lesions that
made them; deep features lie on a continuum of places in the body, where that says little.

May import: lesionary, numpy, scikit-learn, scipy.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import adjusted_rand_score

from lesionary.errors import TrainingError

LIKELIHOOD, AGREEMENT = "likelihood", "agreement"
CRITERIA: tuple[str, ...] = (LIKELIHOOD, AGREEMENT)

# Starts of K-means within the criterion, which is a mean over many runs anyway.
_STARTS_OF_A_HALF = 1
# Numbers that differ by a smaller share are the same but for rounding.
_SAME = 1e-5
# Agreements that differ by less are the same.
_NEAR = 0.02
# From one number that is tried to the next.
_GROWTH = 1.25


@dataclass(frozen=True, slots=True)
class Choice:
    """How many categories, and why; the figures are means over the halves, one for each of `ks`."""

    criterion: str
    k: int
    ks: tuple[int, ...]
    likelihood: tuple[float, ...]
    """Mean log likelihood of a lesion of patients who took no part."""
    agreement: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""
        return {
            "criterion": self.criterion,
            "k": self.k,
            "ks": list(self.ks),
            "likelihood": [round(value, 5) for value in self.likelihood],
            "agreement": [round(value, 5) for value in self.agreement],
        }


def reduced(features: NDArray[np.float32], components: int, *, whiten: bool, seed: int) -> NDArray[np.float32]:
    """Principal components of the features, as many as wanted or as there are; 0 = the features as they are.

    Raises:
        TrainingError: features are not finite, or all the same.
    """
    if not np.isfinite(features).all():
        raise TrainingError("the network gives features that are not finite", next_step="train with a lower rate")
    if np.ptp(features, axis=0).max() <= _SAME * np.abs(features).max():
        raise TrainingError(
            f"all {len(features)} lesions have the same features",
            where="categories",
            next_step="ingest more lesions, or check the weights that the network starts from",
        )
    if not components:
        return features
    wanted = min(components, *features.shape)
    with _quiet():
        found = PCA(wanted, whiten=whiten, svd_solver="auto", random_state=seed).fit_transform(features)
    return np.ascontiguousarray(found, np.float32)


def clustered(
    points: NDArray[np.float32], k: int, restarts: int, seed: int, before: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """A number from 0 for every point, without gaps; the best of several starts of K-means.

    Args:
        points: (n, d).
        k: how many clusters, at most n.
        restarts: so many starts, unless there is one already.
        seed: of the starts.
        before: (n,) clusters to start from, numbered without gaps: where there are k of them, K-means goes on there.
    """
    with _quiet():
        if before is not None and int(before.max()) + 1 == k:
            centres = np.stack([points[before == number].mean(axis=0) for number in range(k)])
            found = KMeans(k, init=centres, n_init=1).fit_predict(points)
        else:
            found = KMeans(k, n_init=restarts, random_state=seed).fit_predict(points)
    return np.asarray(np.unique(found, return_inverse=True)[1], np.int64)


def numbers_to_try(least: int, most: int) -> list[int]:
    """From the least number to the most, each a quarter more than the one before."""
    found = [least]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(found[-1] * _GROWTH))))
    return found


def choose_k(
    points: NDArray[np.float32],
    patients: NDArray[np.int64],
    ks: Sequence[int],
    *,
    criterion: str,
    halvings: int,
    seed: int,
) -> Choice:
    """How many categories there are.

    Args:
        points: (n, d), one a lesion.
        patients: (n,) numbers that tell patients apart; two at least.
        ks: what to try, ascending; those that a half has too few lesions for are left out.
        criterion: one of `CRITERIA`.
        halvings: how often the patients are halved.
        seed: of the halves and of K-means.

    Raises:
        TrainingError: there are too few lesions for any k.
    """
    names = np.unique(patients)
    rng = np.random.default_rng(seed)
    halves = []
    for _ in range(halvings):
        first = np.isin(patients, rng.permutation(names)[: (len(names) + 1) // 2])
        halves.append((points[first], points[~first]))
    # Of as many clusters as points nothing is left to tell their size from.
    most = min(min(len(first), len(second)) for first, second in halves) - 1
    usable = [k for k in ks if k <= most]
    if not usable:
        raise TrainingError(
            f"{len(points)} lesions of {len(names)} patients are too few for {min(ks)} categories",
            where="categories",
            next_step="ingest more, or lower least_k",
        )
    found = [[_both_ways(points, pair, k, seed) for pair in halves] for k in usable]
    likelihood = np.array([[value for pair in row for value in pair[0]] for row in found])
    agreement = np.array([[pair[1] for pair in row] for row in found]).mean(axis=1)
    chosen = _fewest_as_good(likelihood) if criterion == LIKELIHOOD else _most_near_the_best(agreement)
    return Choice(
        criterion, usable[chosen], tuple(usable), tuple(likelihood.mean(axis=1).tolist()), tuple(agreement.tolist())
    )


def renumbered(clusters: NDArray[np.int64], before: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same clusters under the numbers of those of `before` that they share most with; others get what is left."""
    k, known = int(clusters.max()) + 1, int(before.max()) + 1
    shared = np.zeros((k, max(k, known)), np.int64)
    np.add.at(shared, (clusters, before), 1)
    rows, columns = linear_sum_assignment(shared, maximize=True)
    # Numbers stay without gaps, also where there are fewer clusters than before.
    numbers = np.empty(k, np.int64)
    numbers[rows] = np.unique(columns, return_inverse=True)[1]
    return numbers[clusters]


def _fewest_as_good(likelihood: NDArray[np.float64]) -> int:
    """The first row that is not worse than the best by more than the standard error of their difference."""
    short = likelihood[likelihood.mean(axis=1).argmax()] - likelihood
    error = short.std(axis=1) / np.sqrt(short.shape[1])
    return int(np.flatnonzero(short.mean(axis=1) <= error)[0])


def _most_near_the_best(agreement: NDArray[np.float64]) -> int:
    return int(np.flatnonzero(agreement >= agreement.max() - _NEAR)[-1])


def _both_ways(
    points: NDArray[np.float32], halves: tuple[NDArray[np.float32], NDArray[np.float32]], k: int, seed: int
) -> tuple[tuple[float, float], float]:
    """Each half's likelihood by the clusters of the other, and how alike the two sort all points."""
    first, second = halves
    with _quiet():
        made = [KMeans(k, n_init=_STARTS_OF_A_HALF, random_state=seed).fit(half) for half in halves]
    said = float(adjusted_rand_score(*(one.predict(points) for one in made)))
    return (likelihood_by(made[0], first, second), likelihood_by(made[1], second, first)), said


def likelihood_by(made: KMeans, learnt: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Mean log likelihood of other points under clusters: Gaussian spheres of one size, weighed by their points.

    Args:
        made: fitted to `learnt`.
        learnt: (n, d), more than there are clusters.
        others: (m, d).
    """
    count, dimensions = learnt.shape
    centres = made.cluster_centers_.astype(np.float64)
    # Without spread (all points lie on centres) any other point would be impossible.
    variance = max(made.inertia_ / (dimensions * (count - len(centres))), np.finfo(np.float32).tiny)
    weights = np.bincount(made.labels_, minlength=len(centres)) / count
    apart = (others.astype(np.float64) ** 2).sum(axis=1)[:, None] + (centres**2).sum(axis=1)
    apart -= 2 * others.astype(np.float64) @ centres.T
    with np.errstate(divide="ignore"):
        parts = np.log(weights) - np.maximum(apart, 0) / (2 * variance)
    return float(logsumexp(parts, axis=1).mean() - dimensions / 2 * np.log(2 * np.pi * variance))


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # Fewer distinct points than clusters: what is left is used.
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
