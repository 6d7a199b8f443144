"""Long and short diameters of a mask, measured as RECIST asks: in millimetres, the short one square to the long one.

A mask's boundary runs halfway between the middles of neighbouring pixels of which one is inside: where a contour at
one half would run. Corners of pixels would lie up to 0.7 px outside of it, middles of pixels half a pixel inside.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Chords of the long diameter are compared along so many crossings at once: 8 MB of numbers.
_CROSSINGS_AT_ONCE = 1_000_000


@dataclass(frozen=True, slots=True)
class Calipers:
    """Two diameters; ends are zero-based pixel centres, (x, y)."""

    long_ends_px: tuple[float, float, float, float]
    """x1, y1, x2, y2."""
    short_ends_px: tuple[float, float, float, float]
    """Square to the long one in millimetres, which in pixels that are not square looks otherwise."""
    long_mm: float
    short_mm: float


def measure_calipers(mask: NDArray[np.bool_], spacing_xy_mm: tuple[float, float] = (1.0, 1.0)) -> Calipers | None:
    """The farthest two points of a mask's boundary, and the widest extent square to the line through them.

    Args:
        mask: (rows, columns), True inside. Several parts are measured as one, from end to end.
        spacing_xy_mm: along x, then along y.

    Returns:
        None for an empty mask.
    """
    edges_px = boundary_edges(mask)
    if len(edges_px) == 0:
        return None
    spacing = np.asarray(spacing_xy_mm, np.float64)
    edges = edges_px * spacing
    start, end = _farthest(_outermost(edges.reshape(-1, 2)))
    length = math.dist(start, end)
    along = (end - start) / length
    foot, head = _widest_chord(edges, start, along)
    if math.dist(foot, head) > length:
        # Only where both are equal but for rounding.
        start, end, foot, head = foot, head, start, end
    long_ends, short_ends = (np.concatenate(pair) / np.tile(spacing, 2) for pair in ((start, end), (foot, head)))
    x1, y1, x2, y2 = long_ends.tolist()
    u1, v1, u2, v2 = short_ends.tolist()
    return Calipers((x1, y1, x2, y2), (u1, v1, u2, v2), math.dist(start, end), math.dist(foot, head))


def boundary_edges(mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Pieces of the contour at one half, (n, 2 ends, x and y): one or two in every square of four pixel middles."""
    padded = np.pad(np.asarray(mask, bool), 1)
    corners = [padded[:-1, :-1], padded[:-1, 1:], padded[1:, 1:], padded[1:, :-1]]
    # Middles of the square's sides, clockwise from the top; a side is crossed where its two corners differ.
    sides = np.array([(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)])
    crossed = np.stack([one ^ other for one, other in zip(corners, [*corners[1:], corners[0]], strict=True)])
    pieces = []
    for first in range(4):
        for second in range(first + 1, 4):
            rows, columns = np.nonzero(crossed[first] & crossed[second])
            base = np.column_stack([columns, rows]) - 1.0
            pieces.append(np.stack([base + sides[first], base + sides[second]], axis=1))
    return np.concatenate(pieces)


def _outermost(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The leftmost and the rightmost point of every height: the two farthest apart are among them."""
    order = np.lexsort((points[:, 0], points[:, 1]))
    points = points[order]
    first = np.flatnonzero(np.r_[True, points[1:, 1] != points[:-1, 1]])
    last = np.r_[first[1:], len(points)] - 1
    outermost: NDArray[np.float64] = points[np.unique(np.concatenate([first, last]))]
    return outermost


def _farthest(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    best, pair = -1.0, (points[0], points[0])
    for start in range(0, len(points), 512):
        squared = ((points[start : start + 512, None] - points[None]) ** 2).sum(axis=2)
        one, other = np.unravel_index(int(squared.argmax()), squared.shape)
        if squared[one, other] > best:
            best, pair = float(squared[one, other]), (points[start + one], points[other])
    return pair


def _widest_chord(
    edges: NDArray[np.float64], origin: NDArray[np.float64], along: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both ends of the widest extent square to `along`.

    Between two corners of the contour the extent changes evenly, so the widest is at a corner.
    """
    across = np.array([-along[1], along[0]])
    t, s = (edges - origin) @ along, (edges - origin) @ across
    late = t[:, 0] > t[:, 1]
    t[late], s[late] = t[late][:, ::-1], s[late][:, ::-1]
    places = np.unique(t)
    slope = np.divide(s[:, 1] - s[:, 0], t[:, 1] - t[:, 0], out=np.zeros(len(t)), where=t[:, 1] > t[:, 0])
    best, found = -1.0, (0.0, 0.0, 0.0)
    step = max(1, _CROSSINGS_AT_ONCE // len(t))
    for start in range(0, len(places), step):
        here = places[start : start + step, None]
        crossed = (t[:, 0] <= here) & (here <= t[:, 1])
        crossing = s[:, 0] + slope * (here - t[:, 0])
        # A piece that runs across has two ends at one place.
        upper = np.where(crossed, np.where(t[:, 0] == t[:, 1], s.max(axis=1), crossing), -np.inf).max(axis=1)
        lower = np.where(crossed, np.where(t[:, 0] == t[:, 1], s.min(axis=1), crossing), np.inf).min(axis=1)
        widest = int((upper - lower).argmax())
        if upper[widest] - lower[widest] > best:
            best = float(upper[widest] - lower[widest])
            found = float(here[widest, 0]), float(lower[widest]), float(upper[widest])
    place, low, high = found
    middle = origin + along * place
    return middle + across * low, middle + across * high
