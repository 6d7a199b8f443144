"""Every lesion of a group against every other: the hierarchical loss over all triplets that a few sequences hold.

The paper compares a sequence's lesions with its anchor alone, 3 comparisons for 5 patches. Where patches are dear (a
CPU, a small set) the same patches hold far more: each of a group's lesions is an anchor, and each pair has a level,

    3  same type, near, of like size     2  same type, near, of different size     1  same type, far     0  another type

and whatever is on a higher level shall be nearer than whatever is on a lower one, by the margin of the level between
them. Pairs between two thresholds have no level. A term is the mean over the triplets that violate it, so that the many
that are fulfilled do not drown the few that teach. Which lesions come together is still the sampler's choice.

Groups are cut from the global batch, never from a worker's share, so the loss does not depend on how many workers
there are. May import: lesionary, numpy, torch.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.triplet.cues import SamplingSettings
from trainers.triplet.thresholds import Thresholds

UNDECIDED = -1
"""Level of a pair that is between two thresholds, or of whose lesions too little is known."""


@dataclass(frozen=True, slots=True)
class KnownLesions:
    """What is known of the lesions of a training set, one row each."""

    types: NDArray[np.int64]
    """Place in `LESION_TYPES`, -1 unknown."""
    locations: NDArray[np.floating]
    """(n, 3), nan unknown."""
    sizes: NDArray[np.floating]
    """(n, 2) in the unit of the thresholds, nan unknown."""
    patients: NDArray[np.int64]


def pair_levels(
    known: KnownLesions, rows: NDArray[np.int64], settings: SamplingSettings, used: Thresholds
) -> NDArray[np.int8]:
    """The level of each pair of some lesions; `UNDECIDED` on the diagonal.

    Args:
        known: the training set.
        rows: n of its lesions.
        settings: whose cues decide how many levels there are: one less for each cue that is missing.
        used: thresholds on location and size.

    Returns:
        (n, n), symmetric.
    """
    types = known.types[rows]
    same = (types[:, None] == types[None, :]) & (types >= 0)[:, None]
    apart = np.linalg.norm(known.locations[rows][:, None] - known.locations[rows][None, :], axis=2)
    unlike = np.linalg.norm(known.sizes[rows][:, None] - known.sizes[rows][None, :], axis=2)
    # Comparisons with nan are false: such pairs stay undecided.
    near, far = apart < used.location_low, apart > used.location_high
    like, different = unlike < used.size_low, unlike > used.size_high
    if not settings.uses("location"):
        near, far = np.ones_like(same), np.zeros_like(same)
    levels = np.full(same.shape, UNDECIDED, np.int8)
    if not settings.uses("type"):
        levels[far], levels[near] = 0, 1
    else:
        both_known = (types >= 0)[:, None] & (types >= 0)[None, :]
        levels[both_known & ~same] = 0
        levels[same & far] = 1
        top = 1 + settings.uses("location")
        if settings.uses("size"):
            levels[same & near & different] = top
            levels[same & near & like] = top + 1
        else:
            levels[same & near] = top
    # A row that stands twice in a group is one lesion.
    levels[rows[:, None] == rows[None, :]] = UNDECIDED
    return levels


def level_terms(settings: SamplingSettings) -> tuple[str, ...]:
    """Names of the terms, by the level they keep apart from the ones below it: 1, 2, 3."""
    return tuple(cue for cue in ("type", "location", "size") if settings.uses(cue))


def mined_loss(
    embeddings: Tensor, levels: Tensor, may_attract: Tensor, terms: tuple[str, ...], margins: dict[str, float]
) -> dict[str, Tensor]:
    """The terms by name; their sum is the loss.

    Args:
        embeddings: (groups, n, D) float32, unit vectors.
        levels: (groups, n, n), see `pair_levels`.
        may_attract: (groups, n, n) bool: pairs that may be drawn together, such as those of two patients.
        terms: see `level_terms`.
        margins: of each term.
    """
    squared = torch.cdist(embeddings, embeddings, compute_mode="donot_use_mm_for_euclid_dist").square()
    parts = {}
    for level, term in enumerate(terms, start=1):
        near = (levels >= level) & may_attract
        far = (levels >= 0) & (levels < level)
        hinge = torch.clamp(squared[:, :, :, None] - squared[:, :, None, :] + margins[term], min=0)
        hinge = hinge * (near[:, :, :, None] & far[:, :, None, :])
        violated = (hinge > 0).sum(dim=(1, 2, 3)).clamp(min=1)
        parts[term] = (hinge.sum(dim=(1, 2, 3)) / violated).mean()
    return parts
