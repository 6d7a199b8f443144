"""Algorithm 1 of the Deep Lesion Graphs paper (CVPR 2018): which measurements show the same lesion through time.

All patients are matched in one call. Within a patient:

1. merge: measurements of one study that are connected by distances below `t1` become one node; its vector is their
   mean. All series of a study are one time point.
2. threshold: nodes in different studies (any two, not only neighbours in time) get an edge when their distance is at
   most `t2`.
3. exclusion: an edge between a node of study s and one of study t stays when it is the smallest that the first has to
   t and the smallest that the second has to s. Of exactly equal distances the one to the node with the lowest row wins.
4. extraction: what is connected is one group, that is one lesion; a node without an edge is a group of one.

The order of rows matters in nothing else. (Means are sums in float64: where the values of one feature differ by more
than a factor of 2²⁸, the order of rows may show in the last bit.)

States of a row, which all rows of a node share:

* baseline: in the patient's first study, there is nothing earlier to compare with;
* new: the first sighting of its group, in a later study;
* persistent: its group was seen in an earlier study;
* merged: takes the place of persistent where another group A ends. A's last study is s and the patient has a next
  study t; the nearest node in t to a node of A in s lies within `t2` and belongs to a group that was seen in s or
  before. That nearest node is the merged one;
* split: takes the place of new where another group goes on. The group starts at t, s is the study before t; the nearest
  node in s to the node in t lies within `t2` and belongs to a group that is seen in t or later.

A group vanishes in the first study after its last sighting, unless it merged. Vanished means "no longer marked": marks
are not exhaustive, a reader may have left a lesion alone. No row stands for it; `Matching.vanished` lists it.

The confidence of an edge, 0 … 1, is √(closeness × distinctness). Closeness is 1 − d / (2 · t2), half at the threshold.
Distinctness is d2 / (d + d2): d2 is the smallest distance from either end to any other node in the other end's study,
below the threshold or not; 1 when there is no other, one half when both distances are 0. docs/matching.md compares it
with what the public tracking pairs say.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError
from store.match_nodes import Merged, merge, node_distances
from store.match_pairs import Distances, Indices, Timeline, components, measurable, stable_order
from store.match_states import State, fates

__all__ = [
    "DEFAULT_THRESHOLDS",
    "EdgeKind",
    "Edges",
    "Matching",
    "Sightings",
    "State",
    "Thresholds",
    "Vanished",
    "match",
]

# Patients are matched together until their vectors or their pairs of rows are this many: few calls, little memory.
_BATCH_VALUES = 1_000_000
_BATCH_PAIRS = 200_000
# A little below the most that glibc heeds.
_RETURNED_BYTES = 31 << 20


@dataclass(frozen=True, slots=True)
class Sightings:
    """One row per measurement of a lesion."""

    patients: NDArray[np.int64]
    """(n,) code of the patient."""
    studies: NDArray[np.int64]
    """(n,) time point among the patient's, ascending in time; all series of one study share one value."""
    vectors: NDArray[np.float32]
    """(n, d) features."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """In the scale of the features' distance.

    Raises:
        UsageError: (a ValueError) one of them is negative or not a number.
    """

    t1: float
    """Measurements of one study are one lesion below it."""
    t2: float
    """Nodes of two studies have no edge above it."""

    def __post_init__(self) -> None:
        for name, value in (("t1", self.t1), ("t2", self.t2)):
            if not value >= 0.0:
                raise UsageError(f"a distance cannot be {value}", where=name, next_step="give a number of 0 or more")


class EdgeKind(IntEnum):
    """What an edge says of its two ends."""

    SAME_STUDY = 0
    """Two rows of one study below `t1`: what step 1 merged."""
    SAME_LESION = 1
    """Two nodes of a group: the edges that step 3 left."""
    MERGED = 2
    """From the last node of a group that ended to the node of another group that took it in."""
    SPLIT = 3
    """From a node of a group that goes on to the first node of another group."""


@dataclass(frozen=True, slots=True)
class Edges:
    """Sorted by their rows; a node is named by its lowest row."""

    from_row: Indices
    """(edges,) the earlier study; within one study the lower row."""
    to_row: Indices
    distance: Distances
    """(edges,) between nodes; of `SAME_STUDY` edges between rows."""
    confidence: Distances
    """(edges,) 0 … 1; of `SAME_STUDY` edges the closeness 1 − d / (2 · t1) alone, because nothing competes."""
    kind: NDArray[np.int8]
    """(edges,) codes of `EdgeKind`."""


@dataclass(frozen=True, slots=True)
class Vanished:
    """Groups that were seen before and are not marked any more, in the order of their numbers."""

    patient: Indices
    group: Indices
    study: Indices
    """The patient's first study after the group's last sighting; later ones are not listed."""


@dataclass(frozen=True, slots=True)
class Matching:
    """What belongs together. Nodes and groups are numbered from 0, by patient, then by first study, then by row."""

    node: Indices
    """(n,) rows with one number are one lesion in one study."""
    group: Indices
    """(n,) rows with one number are one lesion."""
    state: NDArray[np.int8]
    """(n,) codes of `State`."""
    confidence: Distances
    """(n,) the best among the edges of the row's node to other studies; not a number when it has none."""
    edges: Edges
    vanished: Vanished


DEFAULT_THRESHOLDS: Mapping[str, Thresholds] = MappingProxyType(
    {
        "location": Thresholds(0.03, 0.07),
        "size": Thresholds(0.015, 0.05),
        "location+size": Thresholds(0.08, 0.13),
    }
)
"""By built-in feature set: (x, y, z) normalised to the body; (long, short) in units of 100 mm; all five.

They have the best pairwise F1 on a grid over the patients with even numbers in the public tracking pairs of the
official test split; docs/matching.md has the figures of both halves.
"""


def match(sightings: Sightings, thresholds: Thresholds) -> Matching:
    """Nodes, groups, states, edges and vanished lesions of all patients.

    Time and memory grow with the number of pairs of a patient's rows. Apart from input and answer it holds
    some 50 MB, or what the largest single patient needs.

    Raises:
        ValueError: arrays of unlike lengths, vectors that are not a table, or a value that is not finite.
    """
    _check(sightings)
    _keep_freed_memory()
    order = _by_patient_and_study(sightings.patients, sightings.studies)
    people = _numbered(sightings.patients[order])
    slots = _numbered(people, sightings.studies[order])
    parts: list[Matching] = []
    nodes = groups = 0
    for start, end in _batches(people, sightings.vectors.shape[1]):
        rows = order[start:end]
        opens = np.flatnonzero(np.diff(slots[start:end], prepend=-1))
        timeline = Timeline.of(slots[start:end] - slots[start], people[start:end][opens] - people[start])
        merged = merge(timeline, measurable(sightings.vectors.take(rows, axis=0)), thresholds.t1)
        part = _matched(merged, rows, sightings, thresholds)
        parts.append(_renumbered(part, nodes, groups))
        nodes, groups = nodes + merged.firsts.size, groups + int(part.group.max()) + 1
    return _joined(parts, order)


def _matched(merged: Merged, rows: Indices, sightings: Sightings, thresholds: Thresholds) -> Matching:
    """The answer for one batch of whole patients, in the order of `rows`, numbered from 0."""
    nodes, t2 = merged.timeline, thresholds.t2
    every, pairs = node_distances(merged, t2)
    kept = np.flatnonzero(pairs.later_is_nearest & pairs.earlier_is_nearest)
    groups, firsts = components(nodes.slots.size, pairs.earlier[kept], pairs.later[kept])
    became = fates(nodes, groups, firsts, pairs)

    linked = np.concatenate([kept, became.merged, became.split])
    earlier, later, distances = pairs.earlier[linked], pairs.later[linked], pairs.distances[linked]
    sure = np.sqrt(_closeness(distances, t2) * _distinctness(distances, every.best_others(earlier, later)))
    best = np.full(nodes.slots.size, -1.0)
    np.maximum.at(best, earlier, sure)
    np.maximum.at(best, later, sure)
    best[best < 0.0] = np.nan

    kinds = (EdgeKind.SAME_STUDY, EdgeKind.SAME_LESION, EdgeKind.MERGED, EdgeKind.SPLIT)
    counts = (merged.one.size, kept.size, became.merged.size, became.split.size)
    edges = Edges(
        rows[np.concatenate([merged.one, merged.firsts[earlier]])],
        rows[np.concatenate([merged.other, merged.firsts[later]])],
        np.concatenate([merged.distances, distances]),
        np.concatenate([_closeness(merged.distances, thresholds.t1), sure]),
        np.repeat(np.array(kinds, dtype=np.int8), counts),
    )
    of_slot = rows[merged.firsts[nodes.slot_starts[became.vanished_slots]]]
    vanished = Vanished(sightings.patients[of_slot], became.vanished_groups, sightings.studies[of_slot])
    node = merged.nodes
    return Matching(node, groups[node], became.states[node], best[node], edges, vanished)


def _closeness(distances: Distances, threshold: float) -> Distances:
    # Below a threshold of 0 there are only distances of 0.
    return 1.0 - distances / (2.0 * threshold) if threshold > 0.0 else np.ones_like(distances)


def _distinctness(distances: Distances, others: Distances) -> Distances:
    rivals = np.isfinite(others)
    total = np.where(rivals, distances + others, 1.0)
    found = np.divide(others, total, out=np.full_like(total, 0.5), where=total > 0.0)
    return np.where(rivals, found, 1.0)


def _check(sightings: Sightings) -> None:
    vectors = sightings.vectors
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"one vector a row is needed, found an array of shape {vectors.shape}")
    for name, codes in (("patients", sightings.patients), ("studies", sightings.studies)):
        if codes.shape != vectors.shape[:1]:
            raise ValueError(f"{name} need one code for each of the {len(vectors)} rows, found {codes.shape}")
    finite = np.isfinite(vectors)
    if not finite.all():
        raise ValueError(f"the vector of row {int(np.argmin(finite.all(axis=1)))} has a value that is not finite")


def _keep_freed_memory() -> None:
    """Have the C library keep what arrays give back: a seventh of the time went into returning and faulting it.

    It keeps twice the largest block that was ever returned to the system; this one is never touched.
    """
    np.empty(_RETURNED_BYTES, np.uint8)


def _by_patient_and_study(patients: NDArray[np.int64], studies: NDArray[np.int64]) -> Indices:
    """Rows sorted by patient, then by study; within a study as they come, which is what breaks ties."""
    order = np.arange(patients.size)
    for codes in (studies, patients):
        # Stable, so that the sort by studies survives the one by patients.
        order = order[stable_order(codes[order])]
    return order


def _numbered(*codes: NDArray[np.int64]) -> Indices:
    """Numbers from 0 that grow by one where any of the sorted codes changes."""
    changes = np.zeros(codes[0].size, dtype=bool)
    for values in codes:
        changes[1:] |= values[1:] != values[:-1]
    return np.cumsum(changes)


def _batches(people: Indices, dimension: int) -> Iterator[tuple[int, int]]:
    """From where to where, whole patients at a time, so that vectors and pairs of a batch stay small."""
    if people.size == 0:
        return
    firsts = np.flatnonzero(np.diff(people, prepend=-1))
    pairs = np.arange(people.size) - firsts[people]
    cost = np.cumsum(pairs / _BATCH_PAIRS + dimension / _BATCH_VALUES)
    fill = np.floor(cost[firsts]).astype(np.int64)
    bounds = [*firsts[np.flatnonzero(np.diff(fill, prepend=-1))].tolist(), people.size]
    yield from pairwise(bounds)


def _renumbered(part: Matching, nodes: int, groups: int) -> Matching:
    vanished = replace(part.vanished, group=part.vanished.group + groups)
    return replace(part, node=part.node + nodes, group=part.group + groups, vanished=vanished)


def _joined(parts: list[Matching], order: Indices) -> Matching:
    """The batches' answers as one, in the order of the input."""
    parts = parts or [_NOTHING]
    places = np.empty_like(order)
    places[order] = np.arange(order.size)
    node, group, state, confidence = (
        np.concatenate([getattr(part, name) for part in parts])[places]
        for name in ("node", "group", "state", "confidence")
    )
    columns = [np.concatenate([getattr(part.edges, each.name) for part in parts]) for each in fields(Edges)]
    # Every two rows have one edge at most: their numbers as one is a key without ties, which sorts fastest.
    by_rows = np.argsort(columns[0] * order.size + columns[1])
    edges = Edges(*(column[by_rows] for column in columns))
    vanished = Vanished(
        *(np.concatenate([getattr(part.vanished, each.name) for part in parts]) for each in fields(Vanished))
    )
    return Matching(node, group, state, confidence, edges, vanished)


_NO_INDICES = np.zeros(0, dtype=np.int64)
_NO_CODES = np.zeros(0, dtype=np.int8)
_NO_DISTANCES = np.zeros(0)
_NOTHING = Matching(
    _NO_INDICES,
    _NO_INDICES,
    _NO_CODES,
    _NO_DISTANCES,
    Edges(_NO_INDICES, _NO_INDICES, _NO_DISTANCES, _NO_DISTANCES, _NO_CODES),
    Vanished(_NO_INDICES, _NO_INDICES, _NO_INDICES),
)
