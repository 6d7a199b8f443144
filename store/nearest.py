"""Exact nearest neighbours by Euclidean distance, as fast as one pass over the vectors.

A matrix product ranks all rows at once but loses digits where distances are small against the vectors' lengths. So it
only chooses candidates, with a margin that no rounding can exceed, and their distances are then computed from the
differences in double precision. What comes out equals the plain loop.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LARGEST_NUMBER = 1e15
"""Sums of squares of so many numbers stay far within single precision, which proposes the nearest."""

_SINGLE_EPSILON = float(np.finfo(np.float32).eps)
# Scores of one block of queries: rows of the matrix times queries of the block.
_BLOCK_SCORES = 1 << 24


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A query's nearest rows, nearest first, rows of equal distance in their order; all rows that tie for the last."""

    rows: NDArray[np.int64]
    distances: NDArray[np.float64]


def squared_lengths(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row's squared length."""
    lengths: NDArray[np.float32] = np.einsum("ij,ij->i", matrix, matrix)
    return lengths


def nearest(
    matrix: NDArray[np.float32],
    lengths: NDArray[np.float32],
    queries: NDArray[np.float32],
    k: int,
    left_out: list[NDArray[np.int64]] | None = None,
) -> list[Neighbours]:
    """The k nearest rows of the matrix for every query.

    Args:
        matrix: (n, d) vectors.
        lengths: (n,) their squared lengths, as `squared_lengths` gives them.
        queries: (m, d).
        k: how many; fewer come back where fewer rows are left, more where rows tie for the last place.
        left_out: for each query, rows that do not count.
    """
    found: list[Neighbours] = []
    block = max(1, _BLOCK_SCORES // max(1, len(matrix)))
    longest = float(np.sqrt(lengths.max(initial=0.0)))
    for start in range(0, len(queries), block):
        part = queries[start : start + block]
        # The flag of an invalid operation may come from what a BLAS kernel makes of the unused rest of a register; that
        # vectors are finite was made sure of when they came in.
        with np.errstate(invalid="ignore"):
            # One query is a product of a matrix with a vector, which reads the matrix once and copies nothing.
            scores = (matrix @ part[0])[None] if len(part) == 1 else part @ matrix.T
        scores *= -2
        scores += lengths
        for number, (query, row) in enumerate(zip(part, scores, strict=True), start):
            excluded = left_out[number] if left_out else None
            margin = _margin(matrix.shape[1], longest, float(np.linalg.norm(query)))
            found.append(_best(matrix, query, row, k, excluded, margin))
    return found


def _margin(dimension: int, longest: float, query_length: float) -> float:
    """Twice the largest rounding error that a score can carry."""
    return 2 * _SINGLE_EPSILON * (dimension + 4) * longest * (2 * query_length + longest)


def _best(
    matrix: NDArray[np.float32], query: NDArray[np.float32], scores: NDArray[np.float32], k: int,
    left_out: NDArray[np.int64] | None, margin: float,
) -> Neighbours:  # fmt: skip
    if left_out is not None and len(left_out):
        scores[left_out] = np.inf
    if k < len(scores):
        last = float(np.partition(scores, k - 1)[k - 1])
        rows = np.flatnonzero(scores <= last + margin + 4 * _SINGLE_EPSILON * abs(last))
    else:
        rows = np.arange(len(scores))
    rows = rows[np.isfinite(scores[rows])]
    return ranked(matrix, query, rows, k)


def ranked(matrix: NDArray[np.float32], query: NDArray[np.float32], rows: NDArray[np.int64], k: int) -> Neighbours:
    """These rows by their exact distance to the query, cut behind the k-th and those that tie with it."""
    differences = matrix[rows].astype(np.float64) - query.astype(np.float64)
    distances = np.sqrt(np.einsum("ij,ij->i", differences, differences))
    order = np.argsort(distances, kind="stable")
    if len(order) > k:
        order = order[: int(np.searchsorted(distances[order], distances[order[k - 1]], side="right"))]
    return Neighbours(rows[order], distances[order])
