"""Where a lesion's edge is expected on its key slice: four quarters of ellipses through the ends of its diameters.

Each quarter has its own two half axes, measured from where the diameters cross, so that one closed curve runs through
all four ends. Of a box, the ellipse that it holds. All coordinates are zero-based pixel centres, as numpy counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lesionary.recist import axes_cross

# How steeply belief falls across the edge, per outline's radius: readers' ends are on the edge, a box's sides about.
_TRUST_IN_DIAMETERS, _TRUST_IN_BOX = 10.0, 4.0
# A box around the ends of two diameters cuts a lesion that lies askew, and a detector's sides miss by a pixel or two.
_BOX_REACH, _BOX_SLACK_PX = 1.12, 1.5
# A diameter that crosses the other near its end still leaves that quarter some width.
_LEAST_SHARE = 0.2
# Of the short diameter over the long one, where only the latter is known: the median of the release's lesions.
_USUAL_SHARE = 0.75
# What is smaller than a pixel has no outline.
_SMALLEST_REACH_PX = 0.5
# So far around the outline its surroundings are looked at: in radii, and at least in pixels.
_MARGIN_RADII, _MARGIN_PX = 0.75, 3.0
# Small lesions are looked at on a finer grid: so many of its pixels for the outline's radius, but never above.
_WANTED_RADIUS_PX, _FINEST = 16.0, 4


@dataclass(frozen=True, slots=True)
class Outline:
    """An expected edge."""

    center_px: tuple[float, float]
    along: tuple[float, float]
    """Direction of the first axis, of length 1."""
    across: tuple[float, float]
    reach_px: tuple[tuple[float, float], tuple[float, float]]
    """Half axes against and with `along`, then against and with `across`."""
    limit_px: tuple[tuple[float, float], tuple[float, float]]
    """How far the lesion can go each way: no farther than its longest diameter's ends."""
    trust: float

    @property
    def from_diameters(self) -> bool:
        """Whether a reader measured it both ways."""
        return self.trust == _TRUST_IN_DIAMETERS

    @property
    def radius_px(self) -> float:
        """The longest half axis."""
        return max(max(pair) for pair in self.reach_px)

    @property
    def mean_radius_px(self) -> float:
        """Of the circle that is as large."""
        return math.sqrt(sum(self.reach_px[0]) * sum(self.reach_px[1])) / 2

    def moved_to(self, center_px: tuple[float, float]) -> "Outline":
        """The same around another middle."""
        return replace(self, center_px=center_px)

    def ends_px(self) -> NDArray[np.float64]:
        """The four ends of both axes, (4, 2)."""
        return np.array(
            [
                np.array(self.center_px) + np.array(direction) * sign * reach
                for direction, pair in zip((self.along, self.across), self.reach_px, strict=True)
                for sign, reach in zip((-1, 1), pair, strict=True)
            ]
        )


def outline_of_diameters(points_px: NDArray[np.float64]) -> Outline | None:
    """Of a long and a short diameter, or of a long one alone.

    Args:
        points_px: (4, 2) or (2, 2), long axis first.

    Returns:
        None for diameters that do not meet or have hardly a length: their box says more.
    """
    if len(points_px) == 2:
        return _outline_of_long_axis(points_px)
    lengths = [math.dist(points_px[0], points_px[1]), math.dist(points_px[2], points_px[3])]
    if min(lengths) < 2 * _SMALLEST_REACH_PX or not axes_cross(points_px, _SMALLEST_REACH_PX):
        return None
    ways = points_px[[1, 3]] - points_px[[0, 2]]
    shares = np.linalg.solve(np.column_stack([ways[0], -ways[1]]), points_px[2] - points_px[0])
    center = points_px[0] + ways[0] * shares[0]
    along, across = (way / length for way, length in zip(ways, lengths, strict=True))
    reach = []
    for share, length in zip(np.clip(shares, _LEAST_SHARE, 1 - _LEAST_SHARE).tolist(), lengths, strict=True):
        reach.append((share * length, (1 - share) * length))
    quarters = (reach[0], reach[1])
    return Outline(_pair(center), _pair(along), _pair(across), quarters, quarters, _TRUST_IN_DIAMETERS)


def outline_of_box(box_px: Sequence[float]) -> Outline:
    """Of a tight box alone: x_min, y_min, x_max, y_max."""
    x_min, y_min, x_max, y_max = box_px
    sides = (x_max - x_min, y_max - y_min)
    width, height = (max(_BOX_REACH * side / 2, _SMALLEST_REACH_PX) for side in sides)
    limits = (width + _BOX_SLACK_PX, height + _BOX_SLACK_PX)
    return Outline(
        center_px=((x_min + x_max) / 2, (y_min + y_max) / 2),
        along=(1.0, 0.0),
        across=(0.0, 1.0),
        reach_px=((width, width), (height, height)),
        limit_px=((limits[0], limits[0]), (limits[1], limits[1])),
        trust=_TRUST_IN_BOX,
    )


def _outline_of_long_axis(points_px: NDArray[np.float64]) -> Outline | None:
    length = math.dist(points_px[0], points_px[1])
    if length < 2 * _SMALLEST_REACH_PX:
        return None
    along = (points_px[1] - points_px[0]) / length
    short = max(length * _USUAL_SHARE / 2, _SMALLEST_REACH_PX)
    half = length / 2
    return Outline(
        center_px=_pair(points_px.mean(axis=0)),
        along=_pair(along),
        across=(-float(along[1]), float(along[0])),
        reach_px=((half, half), (short, short)),
        limit_px=((half, half), (half, half)),
        trust=_TRUST_IN_BOX,
    )


def _pair(point: NDArray[np.float64]) -> tuple[float, float]:
    return float(point[0]), float(point[1])


@dataclass(frozen=True, slots=True)
class Frame:
    """The part of a slice around an outline, on a finer grid where the lesion is small."""

    left_px: int
    top_px: int
    columns: int
    rows: int
    """Pixels of the slice."""
    finer: int
    """So many pixels of the grid, along x and along y, make one of the slice."""
    radii: NDArray[np.float32]
    """On the grid: 0 in the outline's centre, 1 on it."""
    beyond_px: NDArray[np.float32]
    """How far each pixel of the grid lies beyond the outline's limits, in the slice's pixels; negative within."""

    @property
    def part(self) -> tuple[slice, slice]:
        """Rows and columns of the slice."""
        return slice(self.top_px, self.top_px + self.rows), slice(self.left_px, self.left_px + self.columns)


def frame_of(outline: Outline, shape: tuple[int, int]) -> Frame | None:
    """The frame on a slice of (rows, columns); None when nothing of it lies on the slice."""
    margin = max(_MARGIN_RADII * outline.radius_px, _MARGIN_PX)
    ends = outline.ends_px()
    low = np.maximum(np.floor(ends.min(axis=0) - margin).astype(int), 0)
    high = np.minimum(np.ceil(ends.max(axis=0) + margin).astype(int), [shape[1] - 1, shape[0] - 1])
    columns, rows = (high - low + 1).tolist()
    if columns < 1 or rows < 1:
        return None
    finer = min(max(math.ceil(_WANTED_RADIUS_PX / outline.radius_px), 1), _FINEST)
    x = low[0] - 0.5 + (np.arange(columns * finer) + 0.5) / finer - outline.center_px[0]
    y = low[1] - 0.5 + (np.arange(rows * finer) + 0.5) / finer - outline.center_px[1]
    inverse = np.linalg.inv(np.column_stack([outline.along, outline.across]))
    places = [way[0] * x[None] + way[1] * y[:, None] for way in inverse]
    squared = np.zeros((rows * finer, columns * finer))
    beyond = np.full((rows * finer, columns * finer), -np.inf)
    for place, reach, limit in zip(places, outline.reach_px, outline.limit_px, strict=True):
        squared += (place / np.where(place < 0, *reach)) ** 2
        beyond = np.maximum(beyond, np.where(place < 0, -place - limit[0], place - limit[1]))
    return Frame(
        int(low[0]), int(low[1]), columns, rows, finer,
        np.sqrt(squared).astype(np.float32), beyond.astype(np.float32),
    )  # fmt: skip
