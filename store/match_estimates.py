"""Distances between long vectors, estimated in single precision: enough to see which of them have to be measured.

Measuring a pair of a thousand numbers in double precision takes six times as long as their scalar product. Few pairs
lie within a threshold, and of the rest only the smallest matter: what could be either is measured, so nothing of an
estimate is left in the answer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.match_pairs import Distances, Indices, Timeline, pair_squares

_SINGLE = np.finfo(np.float32)
_COPIED_ROWS = 128


@dataclass(frozen=True, slots=True)
class Estimates:
    """Between every two things of one patient in two studies, sorted by the earlier thing, then by the later."""

    vectors: NDArray[np.float64]
    """(rows, d)"""
    places: Indices
    """(things,) row of each thing's vector."""
    squares: NDArray[np.float32]
    """(pairs,) squared distances."""
    error: np.float64
    """No estimate is further off; infinite where single precision does not suffice, so that all is measured."""

    @classmethod
    def of(
        cls, vectors: NDArray[np.float64], places: Indices, things: Timeline, earlier: Indices, later: Indices
    ) -> "Estimates":
        """Estimates for things that stand in the order of a timeline.

        Args:
            vectors: (rows, d)
            places: (things,) row of each thing's vector.
            things: their studies and patients.
            earlier: (pairs,) every thing as often as its patient has things in later studies, ascending.
            later: (pairs,) those things, ascending.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            short = np.empty((places.size, vectors.shape[1]), np.float32)
            for start in range(0, places.size, _COPIED_ROWS):
                short[start : start + _COPIED_ROWS] = vectors.take(places[start : start + _COPIED_ROWS], axis=0)
            lengths = np.vecdot(short, short)
            squares = np.empty(earlier.size, np.float32)
            starts, ends = things.slot_starts, things.slot_starts[things.patient_slots[things.slot_patients + 1]]
            counts = np.diff(starts) * (ends - starts[1:])
            some = np.flatnonzero(counts)
            filled = 0
            for start, after, end in zip(*(each[some].tolist() for each in (starts, starts[1:], ends)), strict=True):
                part = squares[filled : filled + (after - start) * (end - after)].reshape(after - start, end - after)
                np.matmul(short[start:after], short[after:end].T, out=part)
                filled += part.size
            squares *= -2
            squares += lengths[earlier]
            squares += lengths[later]
            longest = lengths.max(initial=0).astype(np.float64)
            # Rounding of the inputs, of three sums of d products each, and of their sum, all at most of that length.
            error = 2 * (vectors.shape[1] + 8) * float(_SINGLE.eps) * (longest + float(_SINGLE.tiny))
        return cls(vectors, places, squares, error if np.isfinite(error) else np.float64(np.inf))

    def near(self, threshold: float) -> Indices:
        """Pairs that may lie within a threshold."""
        # What is not a number is not beyond it.
        return np.flatnonzero(~(self.squares > np.float64(threshold) ** 2 + self.error))

    def measured(self, one: Indices, other: Indices) -> Distances:
        """The squared distance of each pair of things."""
        return pair_squares(self.vectors, self.places[one], self.places[other])

    def smallest(
        self, one: Indices, other: Indices, squares: NDArray[np.float32], opens: Indices, left_out: Indices
    ) -> Distances:
        """The smallest squared distance in each run of pairs, measured where estimates leave several.

        Args:
            one: (pairs,) of all runs.
            other: (pairs,)
            squares: (pairs,) their estimates; changed.
            opens: (runs,) where each begins.
            left_out: (runs,) a pair of each that does not count; there are others.
        """
        squares[left_out] = np.inf
        least = np.minimum.reduceat(squares, opens) + 2 * self.error
        possible = ~(squares > np.repeat(least, np.diff(opens, append=squares.size)))
        possible[left_out] = False
        chosen = np.flatnonzero(possible)
        exact = self.measured(one[chosen], other[chosen])
        found: Distances = np.minimum.reduceat(exact, np.searchsorted(chosen, opens))
        return found
