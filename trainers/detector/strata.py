"""Parts of the truth that are scored on their own: by type, by size, by distance between slices.

A stratum is a part of the lesions. False positives belong to no lesion, so they are the same for every stratum.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lesionary.errors import UsageError
from trainers.detector.evaluation_data import Flags, Truth

SIZE_EDGES_MM: tuple[float, ...] = (10.0, 30.0)
"""Of the long diameter: under 10, 10 to 30, 30 and more."""

MEASURABLE_SHORT_MM = 10.0
"""From here on, on the short axis, RECIST calls a lymph node no longer normal."""

THIN_UP_TO_MM = 2.0
"""Slices that lie at most so far apart are thin, others thick."""

ALL = "all"


@dataclass(frozen=True, slots=True)
class Stratum:
    """One part of the lesions."""

    group: str
    """What it is a part by: all, type, category, size, short axis, slices."""
    name: str
    members: Flags
    """(lesions,)"""


def strata_of(
    truth: Truth,
    type_names: Sequence[str] = (),
    *,
    category_names: Sequence[str] = (),
    size_edges_mm: Sequence[float] = SIZE_EDGES_MM,
) -> list[Stratum]:
    """All lesions, then parts of them. Ignore regions are in none; a part without a lesion is left out.

    Args:
        truth: the lesions.
        type_names: of the types, by their numbers.
        category_names: of the categories, by their numbers.
        size_edges_mm: long diameters between the sizes.

    Raises:
        UsageError: the edges do not ascend.
    """
    if list(size_edges_mm) != sorted(set(size_edges_mm)) or any(not 0 < edge < np.inf for edge in size_edges_mm):
        raise UsageError("edges of sizes are positive and ascend", where="size edges", next_step="for example 10,30")
    parts = [Stratum("type", name, truth.types == number) for number, name in enumerate(type_names)]
    parts += [Stratum("category", name, truth.categories == number) for number, name in enumerate(category_names)]
    sizes = np.searchsorted(np.asarray(size_edges_mm), truth.long_mm, side="right")
    known = ~np.isnan(truth.long_mm)
    parts += [Stratum("size", name, known & (sizes == at)) for at, name in enumerate(_size_names(size_edges_mm))]
    short = truth.short_mm
    parts += [
        Stratum("short axis", f"< {MEASURABLE_SHORT_MM:g} mm", short < MEASURABLE_SHORT_MM),
        Stratum("short axis", f"≥ {MEASURABLE_SHORT_MM:g} mm", short >= MEASURABLE_SHORT_MM),
    ]
    interval = truth.intervals_mm[truth.images]
    parts += [
        Stratum("slices", f"thin (≤ {THIN_UP_TO_MM:g} mm)", interval <= THIN_UP_TO_MM),
        Stratum("slices", f"thick (> {THIN_UP_TO_MM:g} mm)", interval > THIN_UP_TO_MM),
    ]
    lesions = ~truth.ignore
    found = [Stratum(part.group, part.name, part.members & lesions) for part in parts]
    return [Stratum(ALL, ALL, lesions), *(part for part in found if part.members.any())]


def _size_names(edges: Sequence[float]) -> list[str]:
    if not edges:
        return ["any"]
    between = [f"{low:g}–{high:g} mm" for low, high in itertools.pairwise(edges)]
    return [f"< {edges[0]:g} mm", *between, f"≥ {edges[-1]:g} mm"]
