"""Pairs in a row of things sorted by patient and study: who pairs with whom, how far apart, who is nearest.

Everything here is flat arrays over all patients of a batch; there is no loop over patients.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Distances = NDArray[np.float64]

# Up to here a distance is summed dimension by dimension over all pairs at once; above, row by row in chunks.
_FEW_DIMENSIONS = 16
# Values of a chunk, and pairs where one dimension is taken at a time: what a processor keeps in its caches.
_CHUNK_VALUES = 1 << 16
_CHUNK_PAIRS = 1 << 14
# More than a square and a root can be off by; the second where numbers are too small to have all their digits.
_ROUNDING, _LEAST_SQUARE = 1e-14, 1e-300


@dataclass(frozen=True, slots=True)
class Timeline:
    """Things sorted by patient, then by study; positions in it are what pairs speak of."""

    slots: Indices
    """(n,) number of the thing's study among all studies of all patients, from 0, without gaps."""
    slot_starts: Indices
    """(slots + 1,) first position of each study; ends with n."""
    slot_patients: Indices
    """(slots,) number of the study's patient, from 0, without gaps."""
    patient_slots: Indices
    """(patients + 1,) first study of each patient; ends with the number of studies."""

    @classmethod
    def of(cls, slots: Indices, slot_patients: Indices) -> Self:
        """The timeline of things whose slots and of studies whose patients are ascending and without gaps."""
        slot_starts = _starts(slots, slot_patients.size)
        patients = int(slot_patients[-1]) + 1 if slot_patients.size else 0
        return cls(slots, slot_starts, slot_patients, _starts(slot_patients, patients))

    def pairs_within_studies(self) -> tuple[Indices, Indices]:
        """Every two things of one study, the earlier position first."""
        positions = np.arange(self.slots.size)
        return ranges(positions, positions + 1, self.slot_starts[self.slots + 1])

    def later_positions(self) -> tuple[Indices, Indices]:
        """From where to where the things in later studies of the same patient stand, for each thing."""
        lasts = self.slot_starts[self.patient_slots[self.slot_patients + 1]]
        return self.slot_starts[1:][self.slots], lasts[self.slots]


def nearest_in_runs(one: Indices, other_slots: Indices, distances: Distances) -> NDArray[np.bool_]:
    """Whether each pair is the nearest in its run: the pairs of one thing with the things of one study.

    Runs are neighbours, and in them the other things ascend: of equal distances the lowest position is the nearest.
    """
    nearest = np.zeros(distances.size, dtype=bool)
    if distances.size == 0:
        return nearest
    opens = np.ones(distances.size, dtype=bool)
    opens[1:] = (one[1:] != one[:-1]) | (other_slots[1:] != other_slots[:-1])
    smallest = np.minimum.reduceat(distances, np.flatnonzero(opens))
    runs = np.cumsum(opens) - 1
    hits = np.flatnonzero(distances == smallest[runs])
    first_hit = np.ones(hits.size, dtype=bool)
    first_hit[1:] = runs[hits[1:]] != runs[hits[:-1]]
    nearest[hits[first_hit]] = True
    return nearest


def measurable(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same values in float64, laid out as `pair_squares` reads them."""
    return vectors.astype(np.float64, order="F" if vectors.shape[1] <= _FEW_DIMENSIONS else "C")


def is_long(vectors: NDArray[np.float64]) -> bool:
    """Whether a distance between them is worth being estimated first."""
    return bool(vectors.shape[1] > _FEW_DIMENSIONS)


def within(squares: Distances, threshold: float) -> tuple[Indices, Distances]:
    """Which squared distances belong to distances up to a threshold, and those distances: few roots are taken."""
    maybe = np.flatnonzero(squares <= threshold * threshold * (1.0 + _ROUNDING) + _LEAST_SQUARE)
    distances = np.sqrt(squares[maybe])
    near = distances <= threshold
    return maybe[near], distances[near]


def pair_squares(vectors: NDArray[np.float64], one: Indices, other: Indices) -> Distances:
    """Squared Euclidean distance of each pair of rows, from differences, summed in float64.

    The expansion |a|² + |b|² − 2ab would be quicker for long vectors, but loses what is near.
    """
    dimension = vectors.shape[1]
    squares = np.zeros(one.size)
    few = dimension <= _FEW_DIMENSIONS
    step = _CHUNK_PAIRS if few else max(1, _CHUNK_VALUES // dimension)
    room = np.empty((2, min(step, one.size) if few else 0))
    for start in range(0, one.size, step):
        chunk = slice(start, start + step)
        here, there, sums = one[chunk], other[chunk], squares[chunk]
        if few:
            difference, subtracted = room[:, : here.size]
            for column in vectors.T:
                # Positions are ours and in range: clipping them only spares numpy a copy of its own.
                column.take(here, out=difference, mode="clip")
                column.take(there, out=subtracted, mode="clip")
                difference -= subtracted
                difference *= difference
                sums += difference
        else:
            difference = vectors.take(here, axis=0)
            difference -= vectors.take(there, axis=0)
            np.vecdot(difference, difference, out=sums)
    return squares


def components(count: int, one: Indices, other: Indices) -> tuple[Indices, Indices]:
    """What links connect.

    Returns:
        (count,) the component of each thing, numbered in the order of first members; (components,) first members.
    """
    firsts = np.arange(count)
    while one.size:
        # The higher of two linked components joins the lower; chains of joined ones then shrink to their first.
        low, high = np.minimum(firsts[one], firsts[other]), np.maximum(firsts[one], firsts[other])
        np.minimum.at(firsts, high, low)
        shorter = firsts[firsts]
        while (shorter != firsts).any():
            firsts, shorter = shorter, shorter[shorter]
        apart = firsts[one] != firsts[other]
        one, other = one[apart], other[apart]
    is_first = firsts == np.arange(count)
    numbers = np.cumsum(is_first) - 1
    return numbers[firsts], np.flatnonzero(is_first)


def stable_order(codes: Indices) -> Indices:
    """What sorts the codes, equal ones as they come; in 16 bits where they fit: numpy sorts those by counting."""
    if codes.size and int(codes.max()) - int(codes.min()) < 1 << 16:
        return np.argsort((codes - codes.min()).astype(np.uint16), kind="stable")
    return np.argsort(codes, kind="stable")


def ranges(things: Indices, starts: Indices, ends: Indices) -> tuple[Indices, Indices]:
    """Each thing with every position from its start to before its end."""
    counts = ends - starts
    positions = np.repeat(starts - (np.cumsum(counts) - counts), counts)
    positions += np.arange(positions.size)
    return np.repeat(things, counts), positions


def _starts(numbers: Indices, count: int) -> Indices:
    """(count + 1,) where each of the ascending numbers 0 … count - 1 begins."""
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(numbers, minlength=count), out=starts[1:])
    return starts
