"""Which slices of a series the release keeps: a scan's slice positions and the sub-volumes around its key slices.

A release holds about 30 mm on either side of each key slice. Stretches of one series that overlap or touch become
one sub-volume; stretches with at least one slice between them stay apart, so a series may have several, each
contiguous, none overlapping. Slice numbers are 1-based and grow with z (from the neck downwards).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

# What the release keeps on either side of a key slice.
CONTEXT_MM = 30.0


@dataclass(frozen=True, slots=True)
class SliceGrid:
    """Where a series' slices lie: slice 1 at `first_z_mm`, then one every `interval_mm`."""

    first_z_mm: float
    interval_mm: float
    count: int

    def z_mm(self, slice_index: int) -> float:
        """Height of a slice's centre below the neck."""
        return self.first_z_mm + (slice_index - 1) * self.interval_mm

    def nearest(self, z_mm: float) -> int:
        """Number of the slice closest to a height; the first or last one when the scan does not reach it."""
        return min(max(round((z_mm - self.first_z_mm) / self.interval_mm) + 1, 1), self.count)


@dataclass(frozen=True, slots=True)
class SubVolume:
    """A contiguous stretch of slices, both ends included."""

    first_index: int
    last_index: int
    first_z_mm: float
    interval_mm: float

    @property
    def slice_indices(self) -> range:
        """Its slice numbers, ascending."""
        return range(self.first_index, self.last_index + 1)

    def z_mm(self, slice_index: int) -> float:
        """Height of one of its slices below the neck."""
        return self.first_z_mm + (slice_index - self.first_index) * self.interval_mm


def slice_grid(low_z_mm: float, high_z_mm: float, interval_mm: float) -> SliceGrid:
    """The grid of a scan from one height to another; at least one slice."""
    return SliceGrid(low_z_mm, interval_mm, max(1, math.floor((high_z_mm - low_z_mm) / interval_mm) + 1))


def whole_series(grid: SliceGrid) -> SubVolume:
    """Every slice of a grid as one stretch."""
    return stretch(grid, 1, grid.count)


def stretch(grid: SliceGrid, first_index: int, last_index: int) -> SubVolume:
    """Part of a grid, cut at its ends."""
    first, last = max(1, first_index), min(grid.count, last_index)
    return SubVolume(first, last, grid.z_mm(first), grid.interval_mm)


def sub_volumes(grid: SliceGrid, key_indices: Iterable[int], max_slices: int | None = None) -> tuple[SubVolume, ...]:
    """The stretches around some key slices, ascending.

    Args:
        grid: the series' slices.
        key_indices: key slices, in any order.
        max_slices: keep at most so many slices by narrowing the context, down to the key slices themselves; key
            slices are never given up, so a series with more of them than this keeps them all.
    """
    keys = sorted(set(key_indices))
    half = max(1, math.floor(CONTEXT_MM / grid.interval_mm))
    parts = _merged(grid, keys, half)
    while max_slices is not None and half > 0 and sum(len(part.slice_indices) for part in parts) > max_slices:
        half -= 1
        parts = _merged(grid, keys, half)
    return parts


def _merged(grid: SliceGrid, keys: list[int], half: int) -> tuple[SubVolume, ...]:
    ends: list[tuple[int, int]] = []
    for key in keys:
        first, last = max(1, key - half), min(grid.count, key + half)
        if ends and first <= ends[-1][1] + 1:
            ends[-1] = (ends[-1][0], last)
        else:
            ends.append((first, last))
    return tuple(stretch(grid, first, last) for first, last in ends)
