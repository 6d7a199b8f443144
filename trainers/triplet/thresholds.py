"""Who counts as near and as alike: the low and high thresholds on location and size, widened with the data's density.

The paper's low thresholds (0.02) were made for 32,735 lesions. A smaller set has hardly a pair of patients so close to
each other; with them it would learn to find the same lesion in the next study instead of a similar one. So:

* for each lesion, the smallest factor on both low thresholds that gives it a positive is computed (`needed_factors`);
* the factor in use is the smallest one, at least 1, that gives the wanted share of them a positive (`widened`), at
  most `WIDEST_FACTOR`;
* the high thresholds move up by as much as the low ones, so that the band between them, where two lesions are neither
  near nor far, keeps the width it was given, and low stays below high.

No n × n table is made: a k-d tree per type finds the nearest positive exactly. May import: lesionary, numpy, scipy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

WIDEST_FACTOR = 8.0
"""Beyond it (0.16 of the body's extent for the paper's threshold) near no longer means the same organ."""

ROUNDING = 1e-9
"""Relative room that is left wherever the same distance is computed in two ways."""

_FIRST_NEIGHBOURS = 16
_PAIRS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Distances below `low` are near or alike, above `high` far or different; locations and sizes are normalised."""

    location_low: float
    location_high: float
    size_low: float
    size_high: float
    factor: float = 1.0
    """What the given low thresholds were multiplied with."""

    def widened(self, factor: float) -> "Thresholds":
        """Both low thresholds times `factor`, the high ones moved up by as much."""
        more = factor - 1
        return Thresholds(
            self.location_low * factor,
            self.location_high + self.location_low * more,
            self.size_low * factor,
            self.size_high + self.size_low * more,
            self.factor * factor,
        )


def factor_for_share(needed: NDArray[np.float64], share: float) -> float:
    """The smallest factor from 1 to `WIDEST_FACTOR` by which at least `share` of the lesions have a positive.

    Where that share cannot be reached, no factor is wider than the one that reaches most.
    """
    if needed.size == 0:
        return 1.0
    ordered = np.sort(needed[needed < WIDEST_FACTOR])
    wanted = min(int(np.ceil(share * needed.size - ROUNDING)), ordered.size)
    if wanted == 0:
        return 1.0
    # Near means below the threshold, so the last of them needs a little more than its own distance.
    return float(np.clip(ordered[wanted - 1] * (1 + 2 * ROUNDING), 1.0, WIDEST_FACTOR))


def needed_factors(
    location: NDArray[np.float64] | None,
    size: NDArray[np.float64] | None,
    patients: NDArray[np.int64],
    *,
    other_patient: bool,
) -> NDArray[np.float64]:
    """By how much the low thresholds must be widened until a lesion has a positive; inf where nothing helps.

    A pair needs the larger of its two distances, each Euclidean and in units of its low threshold.

    Args:
        location: (n, 3) over the low location threshold; None where location does not count.
        size: (n, 2) over the low size threshold; None where size does not count.
        patients: (n,); a positive is of another patient where `other_patient` asks for it.
        other_patient: see above; otherwise any other lesion may be the positive.
    """
    count = len(patients)
    found = np.full(count, np.inf)
    if count < 2 or (other_patient and (patients == patients[0]).all()):
        return found
    parts = [part for part in (location, size) if part is not None]
    if not parts:  # Every lesion of the group will do, and more than one patient is there.
        return np.zeros(count)
    points = np.ascontiguousarray(np.hstack(parts))
    # Duplicates are common (a finding marked twice); without balancing they cost nothing.
    tree = cKDTree(points, balanced_tree=False, compact_nodes=False)
    waiting = np.arange(count)
    neighbours = min(_FIRST_NEIGHBOURS, count)
    while waiting.size:
        unsure = []
        for rows in np.array_split(waiting, -(-waiting.size * neighbours // _PAIRS_AT_ONCE)):
            # The largest coordinate difference is never above the pair's need: whoever is not among the neighbours
            # cannot need less than the last of them is away.
            away, near = tree.query(points[rows], k=np.arange(1, neighbours + 1), p=np.inf)
            need = _pair_needs(parts, rows, near)
            need[near == rows[:, None]] = np.inf
            if other_patient:
                need[patients[near] == patients[rows, None]] = np.inf
            found[rows] = need.min(axis=1)
            unsure.append(rows[found[rows] > away[:, -1]])
        waiting = np.concatenate(unsure) if neighbours < count else waiting[:0]
        neighbours = min(neighbours * 4, count)
    return found


def _pair_needs(
    parts: list[NDArray[np.float64]], rows: NDArray[np.int64], near: NDArray[np.int64]
) -> NDArray[np.float64]:
    needs = [np.linalg.norm(part[near] - part[rows, None], axis=2) for part in parts]
    return np.asarray(np.max(needs, axis=0))
