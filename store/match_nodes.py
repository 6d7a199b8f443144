"""Nodes: what the marks of one lesion in one study become, and how far nodes of different studies lie apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.match_estimates import Estimates
from store.match_pairs import (
    Distances,
    Indices,
    Timeline,
    components,
    is_long,
    nearest_in_runs,
    pair_squares,
    ranges,
    stable_order,
    within,
)


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows of a batch, sorted by patient and study, as nodes in the same order."""

    nodes: Indices
    """(rows,) number of the row's node."""
    timeline: Timeline
    """Of the nodes."""
    firsts: Indices
    """(nodes,) position of the first member."""
    vectors: NDArray[np.float64]
    """(rows, d) at the position of a node's first member the mean of all members."""
    one: Indices
    """(pairs,) first position of each pair of rows that were merged directly."""
    other: Indices
    distances: Distances


@dataclass(frozen=True, slots=True)
class NodePairs:
    """Nodes of one patient in two studies that lie within t2 of each other, sorted by `earlier`, then by `later`."""

    earlier: Indices
    """(pairs,) the node in the earlier study."""
    later: Indices
    """(pairs,) the node in the later study."""
    distances: Distances
    later_is_nearest: NDArray[np.bool_]
    """Whether nothing in the later study is nearer to the earlier node."""
    earlier_is_nearest: NDArray[np.bool_]
    """Whether nothing in the earlier study is nearer to the later node."""


@dataclass(frozen=True, slots=True)
class AllDistances:
    """Between every two nodes of one patient in two studies, within t2 or not."""

    nodes: Timeline
    squares: Distances | Estimates
    """Squared distances, sorted by the earlier node, then by the later; only estimated for long vectors."""
    shifts: Indices
    """(nodes,) added to a later node's number: the place of its distance to the node."""

    def best_others(self, earlier: Indices, later: Indices) -> Distances:
        """The smallest distance from either end of these pairs to any other node in the other end's study.

        Infinite where there is no other.
        """
        slots = self.nodes.slots
        starts, sizes = self.nodes.slot_starts[slots], np.diff(self.nodes.slot_starts)[slots]
        best = np.full(earlier.size, np.inf)
        for end, other_end in ((earlier, later), (later, earlier)):
            # An end whose other end is alone in its study has no rival there.
            some = np.flatnonzero(sizes[other_end] > 1)
            if some.size == 0:
                continue
            fixed, own = end[some], other_end[some]
            begins, counts = starts[own], sizes[own]
            fixed, rivals = ranges(fixed, begins, begins + counts)
            places = self.shifts[fixed] + rivals if end is earlier else self.shifts[rivals] + fixed
            opens = np.cumsum(counts) - counts
            # The pair itself is no rival of its own.
            itself = opens + own - begins
            if isinstance(self.squares, Estimates):
                smallest = self.squares.smallest(fixed, rivals, self.squares.squares[places], opens, itself)
            else:
                squares = self.squares[places]
                squares[itself] = np.inf
                smallest = np.minimum.reduceat(squares, opens)
            best[some] = np.minimum(best[some], smallest)
        best_distances: Distances = np.sqrt(best)
        return best_distances


def merge(rows: Timeline, vectors: NDArray[np.float64], t1: float) -> Merged:
    """One node for what is connected by distances below `t1` within a study. Means are written into `vectors`."""
    one, other = rows.pairs_within_studies()
    near, distances = within(pair_squares(vectors, one, other), t1)
    below = distances < t1
    near, distances = near[below], distances[below]
    one, other = one[near], other[near]
    nodes, firsts = components(rows.slots.size, one, other)
    _take_means(vectors, nodes, firsts)
    return Merged(nodes, Timeline.of(rows.slots[firsts], rows.slot_patients), firsts, vectors, one, other, distances)


def _take_means(vectors: NDArray[np.float64], nodes: Indices, firsts: Indices) -> None:
    """Write each node's mean over its first member; most nodes have one member and cost nothing."""
    further = np.flatnonzero(firsts[nodes] != np.arange(nodes.size))
    further = further[stable_order(nodes[further])]
    owners = nodes[further]
    opens = np.flatnonzero(np.diff(owners, prepend=-1))
    sizes = np.diff(opens, append=owners.size)
    places = np.arange(owners.size) - np.repeat(opens, sizes)
    # The second members of all nodes, then the third, …: no node twice in one addition.
    for place in range(int(sizes.max(initial=0))):
        now = further[places == place]
        vectors[firsts[nodes[now]]] += vectors[now]
    vectors[firsts[owners[opens]]] /= sizes[:, None] + 1


def node_distances(merged: Merged, t2: float) -> tuple[AllDistances, NodePairs]:
    """Distances between all nodes of a patient that lie in different studies, and the pairs within t2."""
    nodes = merged.timeline
    starts, ends = nodes.later_positions()
    earlier, later = ranges(np.arange(merged.firsts.size), starts, ends)
    every: Distances | Estimates
    if is_long(merged.vectors):
        every = Estimates.of(merged.vectors, merged.firsts, nodes, earlier, later)
        maybe = every.near(t2)
        earlier, later = earlier[maybe], later[maybe]
        near, distances = within(every.measured(earlier, later), t2)
    else:
        every = pair_squares(np.asfortranarray(merged.vectors[merged.firsts]), earlier, later)
        near, distances = within(every, t2)
    pairs = _near_pairs(nodes.slots, earlier[near], later[near], distances)
    counts = ends - starts
    return AllDistances(nodes, every, np.cumsum(counts) - counts - starts), pairs


def _near_pairs(slots: Indices, earlier: Indices, later: Indices, distances: Distances) -> NodePairs:
    # Whoever is nearest and within t2 is nearest among those within t2.
    later_is_nearest = nearest_in_runs(earlier, slots[later], distances)
    order = stable_order(later)
    earlier_is_nearest = np.empty_like(later_is_nearest)
    earlier_is_nearest[order] = nearest_in_runs(later[order], slots[earlier[order]], distances[order])
    return NodePairs(earlier, later, distances, later_is_nearest, earlier_is_nearest)
