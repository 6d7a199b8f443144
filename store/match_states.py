"""What became of a lesion between one study and the next: its state, merging, splitting and vanishing.

Speaks of nodes (what the marks of one lesion in one study became) that are numbered by patient, then study, then row;
so the first node of a group is its earliest. Rules are in the docstring of `store/matching.py`.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from store.match_nodes import NodePairs
from store.match_pairs import Indices, Timeline


class State(IntEnum):
    """What a sighting means against the patient's other studies."""

    BASELINE = 0
    NEW = 1
    PERSISTENT = 2
    VANISHED = 3
    """Never the state of a row: a vanished lesion has none. `Matching.vanished` lists them."""
    MERGED = 4
    SPLIT = 5


@dataclass(frozen=True, slots=True)
class Fates:
    """What became of the groups of a batch."""

    states: NDArray[np.int8]
    """(nodes,) codes of `State`."""
    merged: Indices
    """Pairs that show a group ending in another one."""
    split: Indices
    """Pairs that show a group coming out of another one."""
    vanished_groups: Indices
    """Groups that were seen and are not any more, ascending."""
    vanished_slots: Indices
    """The first study of the patient after each of them."""


def fates(nodes: Timeline, groups: Indices, firsts: Indices, pairs: NodePairs) -> Fates:
    """States of nodes and ends of groups, once each node's group and each group's first node are known."""
    first_slots = nodes.slots[firsts]
    last_slots = np.empty_like(first_slots)
    # Nodes ascend in time: of the values for one group the last one stays.
    last_slots[groups] = nodes.slots
    merged = _merged(nodes, groups, pairs, first_slots, last_slots)
    split = _split(nodes, groups, pairs, first_slots, last_slots)

    seen_before = first_slots[groups] < nodes.slots
    in_first_study = nodes.slots == nodes.patient_slots[nodes.slot_patients[nodes.slots]]
    states = np.where(seen_before, State.PERSISTENT, State.NEW).astype(np.int8)
    states[in_first_study] = State.BASELINE
    # The two never meet: the node of a merger belongs to a group seen before, that of a split to one never seen.
    states[pairs.later[merged]] = State.MERGED
    states[pairs.later[split]] = State.SPLIT

    ended = ~_in_last_study(nodes, last_slots)
    ended[groups[pairs.earlier[merged]]] = False
    vanished = np.flatnonzero(ended)
    return Fates(states, merged, split, vanished, last_slots[vanished] + 1)


def _in_last_study(nodes: Timeline, slots: Indices) -> NDArray[np.bool_]:
    last: NDArray[np.bool_] = slots + 1 == nodes.patient_slots[nodes.slot_patients[slots] + 1]
    return last


def _merged(nodes: Timeline, groups: Indices, pairs: NodePairs, first_slots: Indices, last_slots: Indices) -> Indices:
    """Pairs of a group's last node and its nearest in the next study, when that one's group was there already."""
    candidates = _in_neighbouring_studies(nodes, pairs, pairs.later_is_nearest)
    ending, taking = pairs.earlier[candidates], pairs.later[candidates]
    ends = last_slots[groups[ending]] == nodes.slots[ending]
    was_there = first_slots[groups[taking]] <= nodes.slots[ending]
    found: Indices = candidates[ends & was_there & (groups[ending] != groups[taking])]
    return found


def _split(nodes: Timeline, groups: Indices, pairs: NodePairs, first_slots: Indices, last_slots: Indices) -> Indices:
    """Pairs of a group's first node and its nearest in the study before, when that one's group goes on."""
    candidates = _in_neighbouring_studies(nodes, pairs, pairs.earlier_is_nearest)
    giving, starting = pairs.earlier[candidates], pairs.later[candidates]
    starts = first_slots[groups[starting]] == nodes.slots[starting]
    goes_on = last_slots[groups[giving]] >= nodes.slots[starting]
    found: Indices = candidates[starts & goes_on & (groups[giving] != groups[starting])]
    return found


def _in_neighbouring_studies(nodes: Timeline, pairs: NodePairs, nearest: NDArray[np.bool_]) -> Indices:
    found = np.flatnonzero(nearest)
    follow: Indices = found[nodes.slots[pairs.earlier[found]] + 1 == nodes.slots[pairs.later[found]]]
    return follow
