"""Pairs in a row of things sorted by patient and study: who pairs with whom, how far apart, who is nearest to whom.

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
# Values of a chunk of pairs: two float64 blocks of this many fit a processor's second-level cache.
_CHUNK_VALUES = 1 << 16


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
        return _pairs(positions, positions + 1, self.slot_starts[self.slots + 1])

    def pairs_across_studies(self) -> tuple[Indices, Indices]:
        """Every two things of one patient in two studies: sorted by the earlier thing, then by the later."""
        starts, ends = self._later()
        return _pairs(np.arange(self.slots.size), starts, ends)

    def by_later(self) -> Indices:
        """(pairs,) order that sorts `pairs_across_studies` by the later thing, then by the earlier; without a sort."""
        starts, ends = self._later()
        offsets = np.cumsum(ends - starts) - (ends - starts)
        patients = self.slot_patients[self.slots]
        firsts = self.slot_starts[self.patient_slots[patients]]
        later, earlier = _pairs(np.arange(self.slots.size), firsts, self.slot_starts[self.slots])
        order: Indices = offsets[earlier] + later - starts[earlier]
        return order

    def _later(self) -> tuple[Indices, Indices]:
        """From where to where the things in later studies of the same patient stand."""
        patients = self.slot_patients[self.slots]
        return self.slot_starts[self.slots + 1], self.slot_starts[self.patient_slots[patients + 1]]


@dataclass(frozen=True, slots=True)
class Nearest:
    """Of each thing and each other study of its patient (a run of pairs): the nearest thing there."""

    runs: Indices
    """(pairs,) number of the run that a pair belongs to."""
    pairs: Indices
    """(runs,) the pair with the smallest distance; among equals the one with the lowest positions."""
    distances: Distances
    """(runs,) its distance."""
    seconds: Distances
    """(runs,) the smallest distance among the run's other pairs; infinite when there is none."""

    @classmethod
    def of(cls, one: Indices, other_slots: Indices, distances: Distances, order: Indices | None = None) -> Self:
        """Runs of equal (`one`, `other_slots`), which must be neighbours in `order` (the pairs' own, when None)."""
        if distances.size == 0:
            none = np.zeros(0, dtype=np.int64)
            return cls(none, none, distances, distances)
        if order is not None:
            one, other_slots, distances = one[order], other_slots[order], distances[order]
        opens = np.ones(distances.size, dtype=bool)
        opens[1:] = (one[1:] != one[:-1]) | (other_slots[1:] != other_slots[:-1])
        starts, runs = np.flatnonzero(opens), np.cumsum(opens) - 1
        smallest = np.minimum.reduceat(distances, starts)
        hits = np.flatnonzero(distances == smallest[runs])
        first_hit = np.ones(hits.size, dtype=bool)
        first_hit[1:] = runs[hits[1:]] != runs[hits[:-1]]
        nearest = hits[first_hit]
        others = distances.copy()
        others[nearest] = np.inf
        seconds = np.minimum.reduceat(others, starts)
        if order is not None:
            by_pair = np.empty_like(runs)
            by_pair[order] = runs
            runs, nearest = by_pair, order[nearest]
        return cls(runs, nearest, smallest, seconds)

    def holds(self, pairs: Indices) -> NDArray[np.bool_]:
        """Whether each of these pairs is the nearest of its run."""
        held: NDArray[np.bool_] = self.pairs[self.runs[pairs]] == pairs
        return held

    def best_other(self, pairs: Indices) -> Distances:
        """The smallest distance in the run of each of these pairs when the pair itself is left out."""
        return np.where(self.holds(pairs), self.seconds[self.runs[pairs]], self.distances[self.runs[pairs]])


def pair_distances(vectors: NDArray[np.float64], one: Indices, other: Indices) -> Distances:
    """Euclidean distance of each pair of rows, from differences, summed in float64.

    The expansion |a|² + |b|² − 2ab would be quicker for long vectors, but loses what is near.
    """
    dimension = vectors.shape[1]
    squares = np.zeros(one.size)
    if dimension <= _FEW_DIMENSIONS:
        for column in np.ascontiguousarray(vectors.T):
            difference = column[one]
            difference -= column[other]
            difference *= difference
            squares += difference
    else:
        step = max(1, _CHUNK_VALUES // dimension)
        for start in range(0, one.size, step):
            chunk = slice(start, start + step)
            difference = vectors[one[chunk]]
            difference -= vectors[other[chunk]]
            np.einsum("ij,ij->i", difference, difference, out=squares[chunk])
    return np.sqrt(squares, out=squares)


def components(count: int, one: Indices, other: Indices) -> Indices:
    """(count,) the connected component of each thing, numbered in the order of their first members."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if one.size == 0:
        return np.arange(count)
    links = coo_array((np.ones(one.size, dtype=np.int8), (one, other)), shape=(count, count))
    found, labels = connected_components(links, directed=False)
    firsts = np.full(found, count)
    np.minimum.at(firsts, labels, np.arange(count))
    ranks = np.empty(found, dtype=np.int64)
    ranks[np.argsort(firsts)] = np.arange(found)
    numbered: Indices = ranks[labels]
    return numbered


def _pairs(things: Indices, starts: Indices, ends: Indices) -> tuple[Indices, Indices]:
    """Each thing with every position from its start to before its end."""
    counts = ends - starts
    shifts = starts - (np.cumsum(counts) - counts)
    return np.repeat(things, counts), np.arange(int(counts.sum())) + np.repeat(shifts, counts)


def _starts(numbers: Indices, count: int) -> Indices:
    """(count + 1,) where each of the ascending numbers 0 … count - 1 begins."""
    starts = np.zeros(count + 1, dtype=np.int64)
    np.cumsum(np.bincount(numbers, minlength=count), out=starts[1:])
    return starts
