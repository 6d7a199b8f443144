"""Retrieval errors: how far the nearest lesions of a feature set differ in type, place and size (CVPR 2018, ARE).

The average retrieval error over the first `top` hits of every lesion, the lesion itself never among them:

* type: share of hits of another type, %;
* location: mean Euclidean distance of the normalised (x, y, z), times 100;
* size: mean Euclidean distance of (long, short) diameters over `size_normaliser_mm`, times 100.

Every (query, hit) counts once, where both ends are known; lesions of unknown type, place or size are ranked all the
same. Other lesions of the query's own patient change the figures a lot, so `same_patient` has no default.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.exact_ranking import NO_HIT, nearest_rows

DEFAULT_TOP = 5
DEFAULT_SIZE_NORMALISER_MM = 100.0
PRECISION_DEPTHS = (1, 5, 10)

_RESAMPLES = 1000
_RESAMPLE_BLOCK = 100


@dataclass(frozen=True, slots=True)
class Labelled:
    """What is known of the lesions that are ranked, one row each."""

    vectors: NDArray[np.float32]
    """(n, d), finite."""
    patients: NDArray[np.int64]
    types: NDArray[np.int64]
    """Place in `LESION_TYPES`, 0…7; -1 unknown."""
    locations: NDArray[np.float64]
    """(n, 3) normalised x, y, z; nan where unknown."""
    sizes_mm: NDArray[np.float64]
    """(n, 2) long and short diameter; nan where unknown."""


@dataclass(frozen=True, slots=True)
class MeanError:
    """A mean over (query, hit) pairs; None where there is none.

    The interval is the middle 95 % of means over resampled patients (their lesions as queries; the lesions that can
    be hits stay the same).
    """

    mean: float | None
    low: float | None
    high: float | None
    pairs: int


@dataclass(frozen=True, slots=True)
class RetrievalErrors:
    """ARE and precision over the hits of every lesion."""

    same_patient: bool
    top: int
    queries: int
    queries_without_hit: int
    type_percent: MeanError
    location_percent: MeanError
    size_percent: MeanError
    size_normaliser_mm: float
    precision_at: dict[int, float | None]
    """Share (0 to 1) of the first k hits that have the query's type, both known."""


def retrieval_errors(
    labelled: Labelled,
    *,
    top: int = DEFAULT_TOP,
    same_patient: bool,
    size_normaliser_mm: float = DEFAULT_SIZE_NORMALISER_MM,
) -> RetrievalErrors:
    """Rank every lesion against all others and compare it with its first `top` hits, or with as many as there are.

    Raises:
        UsageError: a vector is not finite.
    """
    depth = max(top, *PRECISION_DEPTHS)
    hits = nearest_rows(labelled.vectors, labelled.patients, depth, same_patient=same_patient)
    other_type = _other_type(labelled.types, hits)
    location = _distances(labelled.locations, hits[:, :top]) * 100
    size = _distances(labelled.sizes_mm / size_normaliser_mm, hits[:, :top]) * 100
    return RetrievalErrors(
        same_patient=same_patient,
        top=top,
        queries=int(hits.shape[0]),
        queries_without_hit=int((hits[:, 0] == NO_HIT).sum()),
        type_percent=_mean_error(other_type[:, :top] * 100, labelled.patients),
        location_percent=_mean_error(location, labelled.patients),
        size_percent=_mean_error(size, labelled.patients),
        size_normaliser_mm=size_normaliser_mm,
        precision_at={k: _complement(_mean(other_type[:, :k])) for k in PRECISION_DEPTHS},
    )


def _other_type(types: NDArray[np.int64], hits: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, top): 1 where a hit has another type than its query, 0 the same, nan where one is unknown or no hit."""
    known = (hits != NO_HIT) & (types[hits] >= 0) & (types[:, None] >= 0)
    return np.where(known, types[hits] != types[:, None], np.nan)


def _distances(values: NDArray[np.float64], hits: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, top): Euclidean distance between query and hit, nan where one is unknown or no hit."""
    squares = ((values[hits] - values[:, None]) ** 2).sum(axis=2)
    return np.where(hits != NO_HIT, np.sqrt(squares), np.nan)


def _mean(errors: NDArray[np.float64]) -> float | None:
    known = ~np.isnan(errors)
    return float(errors[known].sum() / known.sum()) if known.any() else None


def _complement(share: float | None) -> float | None:
    return None if share is None else 1.0 - share


def _mean_error(errors: NDArray[np.float64], patients: NDArray[np.int64]) -> MeanError:
    """The mean of the known errors, and how it varies with the patients who happen to be asked about."""
    known = ~np.isnan(errors)
    mean = _mean(errors)
    if mean is None:
        return MeanError(None, None, None, 0)
    names, owner = np.unique(patients, return_inverse=True)
    sums = np.bincount(owner, np.where(known, errors, 0.0).sum(axis=1)).astype(np.float64)
    counts = np.bincount(owner, known.sum(axis=1)).astype(np.float64)
    low = high = None
    if names.size > 1:
        low, high = _interval(sums, counts)
    return MeanError(mean, low, high, int(known.sum()))


def _interval(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of the means of resampled patients; the same every time."""
    generator = np.random.default_rng(0)
    means = []
    for _ in range(_RESAMPLES // _RESAMPLE_BLOCK):
        weights = generator.multinomial(sums.size, np.full(sums.size, 1 / sums.size), size=_RESAMPLE_BLOCK)
        total = weights @ counts
        means.append((weights @ sums)[total > 0] / total[total > 0])
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return float(low), float(high)
