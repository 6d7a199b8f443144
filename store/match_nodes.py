"""Nodes: what the marks of one lesion in one study become, and how far nodes of different studies lie apart."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from store.match_pairs import Distances, Indices, Nearest, Timeline, components, pair_distances


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows of a batch, sorted by patient and study, as nodes in the same order."""

    nodes: Indices
    """(rows,) number of the row's node."""
    timeline: Timeline
    """Of the nodes."""
    vectors: NDArray[np.float64]
    """(nodes, d) mean of the members."""
    firsts: Indices
    """(nodes,) position of the first member."""
    one: Indices
    """(pairs,) first position of each pair of rows that were merged directly."""
    other: Indices
    distances: Distances


@dataclass(frozen=True, slots=True)
class NodePairs:
    """Every two nodes of one patient in two studies."""

    earlier: Indices
    """(pairs,) the node in the earlier study."""
    later: Indices
    """(pairs,) the node in the later study."""
    distances: Distances
    nearest_later: Nearest
    """Of each earlier node the nearest in each later study."""
    nearest_earlier: Nearest
    """Of each later node the nearest in each earlier study."""


def merge(rows: Timeline, vectors: NDArray[np.float32], t1: float) -> Merged:
    """One node for what is connected by distances below `t1` within a study."""
    values = vectors.astype(np.float64)
    one, other = rows.pairs_within_studies()
    distances = pair_distances(values, one, other)
    near = np.flatnonzero(distances < t1)
    one, other, distances = one[near], other[near], distances[near]
    nodes = components(rows.slots.size, one, other)
    members = np.argsort(nodes, kind="stable")
    starts = np.flatnonzero(np.diff(nodes[members], prepend=-1))
    firsts = members[starts]
    if near.size:
        values = np.add.reduceat(values[members], starts, axis=0)
        values /= np.diff(starts, append=members.size)[:, None]
    return Merged(nodes, Timeline.of(rows.slots[firsts], rows.slot_patients), values, firsts, one, other, distances)


def node_pairs(nodes: Timeline, vectors: NDArray[np.float64]) -> NodePairs:
    """Distances between all nodes of a patient that lie in different studies, and who is nearest to whom."""
    earlier, later = nodes.pairs_across_studies()
    distances = pair_distances(vectors, earlier, later)
    nearest_later = Nearest.of(earlier, nodes.slots[later], distances)
    nearest_earlier = Nearest.of(later, nodes.slots[earlier], distances, nodes.by_later())
    return NodePairs(earlier, later, distances, nearest_later, nearest_earlier)
