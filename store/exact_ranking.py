"""The nearest lesions of every lesion, exactly: what a plain loop over all pairs gives, by matrix products.

Distances are Euclidean. Two are compared by their squares, each summed in float64 over the components from left to
right; of equal ones the earlier row is nearer. A product only proposes: its rounding is bounded, and whatever may
still be among the nearest within that bound is measured again one pair at a time. If most vectors are equal, that is
most pairs, and the search is as slow as the plain loop.
"""

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError

NO_HIT = -1
"""Stands where a lesion has fewer hits than asked for."""

_BLOCK_PAIRS = 4_000_000
_EXACT_COMPONENTS = 2_000_000
# Up to here float64 costs no more than picking the smallest; beyond it float32 halves time and memory.
_NARROW_DIMENSION = 64
# Squared norms between which float32 neither overflows nor vanishes.
_FLOAT32_NORMS = (1e-15, 1e30)


def nearest_rows(
    vectors: NDArray[np.float32], patients: NDArray[np.int64], top: int, *, same_patient: bool
) -> NDArray[np.int64]:
    """The `top` nearest other rows of every row, nearest first: (n, top), filled up with `NO_HIT`.

    Args:
        vectors: (n, d).
        patients: (n,); rows of a row's own patient are left out unless `same_patient`.
        top: how many, at least 1.
        same_patient: whether other lesions of the same patient may be hits.

    Raises:
        UsageError: a vector holds something that is not a finite number.
    """
    count, dimension = vectors.shape
    hits = np.full((count, top), NO_HIT, dtype=np.int64)
    if count < 2:
        return hits
    norms = np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64)
    if not np.isfinite(norms).all():
        raise UsageError(
            f"{int((~np.isfinite(norms)).sum())} of {count} vectors hold values that are not finite",
            where="feature set",
            next_step="leave those lesions out",
        )
    searched = vectors if _float32_suffices(dimension, norms) else vectors.astype(np.float64)
    # Twice what the roundings of a product and of the exact sum can make together, relative to both squared norms.
    slack = 2 * (dimension + 8) * float(np.finfo(searched.dtype).eps)
    floor = dimension * float(np.finfo(searched.dtype).tiny)
    lowered = (norms * (1 - slack) - floor).astype(searched.dtype)
    block = max(1, _BLOCK_PAIRS // count)
    for start in range(0, count, block):
        rows = np.arange(start, min(start + block, count))
        least = searched[rows] @ searched.T
        least *= -2
        least += lowered[rows, None]
        least += lowered
        least[np.arange(rows.size), rows] = np.inf
        if not same_patient:
            least[patients[rows, None] == patients] = np.inf
        _fill(hits, rows, least, vectors)
    return hits


def _float32_suffices(dimension: int, norms: NDArray[np.float64]) -> bool:
    low, high = _FLOAT32_NORMS
    return dimension > _NARROW_DIMENSION and low < float(norms.max()) < high


def _fill(hits: NDArray[np.int64], rows: NDArray[np.int64], least: NDArray[np.floating], vectors: NDArray) -> None:  # type: ignore[type-arg]
    """Write the hits of `rows`, given for each of their pairs the least its squared distance can be (inf: no pair)."""
    top = min(hits.shape[1], vectors.shape[0] - 1)
    likely = np.argpartition(least, top - 1, axis=1)[:, :top]
    there = np.isfinite(np.take_along_axis(least, likely, axis=1))
    distances = np.full(likely.shape, np.inf)
    first = np.broadcast_to(rows[:, None], likely.shape)
    distances[there] = squared_distances(vectors, first[there], likely[there])
    # No farther than the farthest of any `top` pairs: nothing beyond it can be a hit.
    reach = np.minimum(distances.max(axis=1), np.finfo(np.float64).max)
    places, others = np.nonzero((least <= reach[:, None]) & (least < np.inf))
    distances = squared_distances(vectors, rows[places], others)
    order = np.lexsort((others, distances, places))
    places, others = places[order], others[order]
    starts = np.searchsorted(places, np.arange(rows.size))
    rank = np.arange(places.size) - starts[places]
    chosen = rank < top
    hits[rows[places[chosen]], rank[chosen]] = others[chosen]


def squared_distances(
    vectors: NDArray[np.float32], first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Squared distances of pairs of rows: float64, added from the first component to the last."""
    distances = np.empty(first.size)
    step = max(1, _EXACT_COMPONENTS // max(1, vectors.shape[1]))
    for start in range(0, first.size, step):
        pairs = slice(start, start + step)
        difference = vectors[first[pairs]].astype(np.float64)
        difference -= vectors[second[pairs]]
        difference *= difference
        # A running sum has one order of additions; `sum` chooses its own.
        distances[pairs] = np.cumsum(difference, axis=1, out=difference)[:, -1]
    return distances
