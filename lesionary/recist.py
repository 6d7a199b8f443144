"""RECIST geometry: two crossing diameters as four points, and what follows from them.

Conventions, used wherever a name says so:

* points are `(4, 2)` float64 arrays of `(x, y)` in pixels: rows 0 and 1 end the long axis, rows 2 and 3 the short;
* x grows to the right (column), y downwards (row); `coord_convention` names where the centre of the first pixel lies
  (`FIRST_CENTERS`): the DeepLesion release writes "one_based" coordinates, DICOM "half_based", numpy "zero_based";
* boxes are `x_min, y_min, x_max, y_max` in the same convention as their points, tight around the four ends unless
  a padding is given. Padding is a setting: 5 px in the release, 20 px in the 2017 paper.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

FIRST_CENTERS: Mapping[str, float] = MappingProxyType({"one_based": 1.0, "half_based": 0.5, "zero_based": 0.0})
"""Both coordinates of the first pixel's centre, by `coord_convention`."""

RELEASE_PADDING_PX = 5.0
PAPER_2017_PADDING_PX = 20.0

# Below this angle between the two axes a measurement is worth a second look; the release's own rows hold
# 155 of 4,927 under 80 degrees.
PERPENDICULAR_TOLERANCE_DEG = 10.0

# Published coordinates carry six digits: lengths that differ by less are equal, axes that miss by less still meet.
ROUNDING_PX = 0.001

# Directions in which a mask's widest extent is searched: the error is below 1 - cos(pi / 128), .03 %.
CALIPER_DIRECTIONS = 64


@dataclass(frozen=True, slots=True)
class Recist:
    """A lesion's two diameters, measured in the image's own pixels."""

    long_px: float
    short_px: float
    long_mm: float
    short_mm: float
    center_xy_px: tuple[float, float]
    axes_angle_deg: float
    """Angle between the two axes, 0 to 90; not a number when an axis has no length."""
    axes_cross: bool
    box_xyxy_px: tuple[float, float, float, float]
    """Tight: no padding."""

    @property
    def short_exceeds_long(self) -> bool:
        """Whether the axis recorded as short is the longer one, by more than rounding."""
        return self.short_px > self.long_px + ROUNDING_PX

    @property
    def perpendicular(self) -> bool:
        """Whether the axes stand on each other within `PERPENDICULAR_TOLERANCE_DEG`."""
        return self.axes_angle_deg >= 90.0 - PERPENDICULAR_TOLERANCE_DEG


def measure_points(points_xy_px: NDArray[np.float64], spacing_xy_mm: tuple[float, float]) -> Recist:
    """Lengths, centre, angle and tight box of four RECIST points.

    Args:
        points_xy_px: (4, 2), long axis first; any origin, kept as it is.
        spacing_xy_mm: pixel size along x and y; not a number gives lengths in mm that are not a number.

    Raises:
        ValueError: the points are not (4, 2) finite numbers.
    """
    points = np.asarray(points_xy_px, dtype=np.float64)
    if points.shape != (4, 2) or not np.isfinite(points).all():
        raise ValueError(f"four finite (x, y) points are needed, found an array of shape {points.shape}")
    long_px = math.dist(points[0], points[1])
    short_px = math.dist(points[2], points[3])
    scaled = points * np.asarray(spacing_xy_mm, dtype=np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    middle = (low + high) / 2
    return Recist(
        long_px=long_px,
        short_px=short_px,
        long_mm=math.dist(scaled[0], scaled[1]),
        short_mm=math.dist(scaled[2], scaled[3]),
        center_xy_px=(float(middle[0]), float(middle[1])),
        axes_angle_deg=angle_between_axes_deg(points),
        axes_cross=axes_cross(points),
        box_xyxy_px=(float(low[0]), float(low[1]), float(high[0]), float(high[1])),
    )


def padded_box(box_xyxy_px: tuple[float, float, float, float], padding_px: float) -> tuple[float, float, float, float]:
    """The box grown by `padding_px` on each side; it may leave the image, as boxes of the release do."""
    x_min, y_min, x_max, y_max = box_xyxy_px
    return x_min - padding_px, y_min - padding_px, x_max + padding_px, y_max + padding_px


def angle_between_axes_deg(points_xy_px: NDArray[np.float64]) -> float:
    """Angle between the long and the short axis, folded to 0…90; not a number for an axis without length."""
    long_axis = points_xy_px[1] - points_xy_px[0]
    short_axis = points_xy_px[3] - points_xy_px[2]
    product = float(np.linalg.norm(long_axis) * np.linalg.norm(short_axis))
    if product == 0.0:
        return math.nan
    cosine = abs(float(long_axis @ short_axis)) / product
    return math.degrees(math.acos(min(1.0, cosine)))


def axes_cross(points_xy_px: NDArray[np.float64], tolerance_px: float = ROUNDING_PX) -> bool:
    """Whether the two diameters share a point, give or take `tolerance_px` beyond an end.

    Parallel axes do not cross, even when they overlap.
    """
    start, end, other_start, other_end = points_xy_px
    along, across = end - start, other_end - other_start
    determinant = float(along[0] * across[1] - along[1] * across[0])
    if determinant == 0.0:
        return False
    offset = other_start - start
    on_long = float(offset[0] * across[1] - offset[1] * across[0]) / determinant
    on_short = float(offset[0] * along[1] - offset[1] * along[0]) / determinant
    slack_long = tolerance_px / math.dist(start, end)
    slack_short = tolerance_px / math.dist(other_start, other_end)
    return -slack_long <= on_long <= 1 + slack_long and -slack_short <= on_short <= 1 + slack_short


def measure_mask(mask: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    """The RECIST points a careful reader would click on a mask: its longest diameter and the widest chord across it.

    Args:
        mask: (rows, columns), True inside the lesion. Several parts are measured as one, from end to end.

    Returns:
        (4, 2) zero-based points on the outer edge of the pixels, long axis first; None for an empty mask.
    """
    rows, columns = np.nonzero(_boundary(mask))
    if rows.size == 0:
        return None
    centers = np.column_stack([columns, rows]).astype(np.float64)
    # A pixel is a square, not a point: its corners carry the lesion's true extent.
    corners = np.concatenate([centers + np.array(shift) / 2 for shift in ((-1, -1), (-1, 1), (1, -1), (1, 1))])
    start, end = _farthest_pair(corners)
    axis = (end - start) / np.linalg.norm(end - start)
    normal = np.array([-axis[1], axis[0]])
    along, across = (corners - start) @ axis, (corners - start) @ normal
    # One-pixel strips across the long axis; the widest strip carries the short axis.
    strip = np.floor(along).astype(np.int64)
    strip -= strip.min()
    high = np.full(strip.max() + 1, -np.inf)
    low = np.full(strip.max() + 1, np.inf)
    np.maximum.at(high, strip, across)
    np.minimum.at(low, strip, across)
    widest = int(np.argmax(high - low))
    foot = start + axis * float(np.median(along[strip == widest]))
    points = np.array([start, end, foot + normal * low[widest], foot + normal * high[widest]])
    return points if math.dist(points[2], points[3]) <= math.dist(start, end) else points[[2, 3, 0, 1]]


def _boundary(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(np.asarray(mask, dtype=bool), 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = padded[1:-1, 1:-1] & ~inner
    return edge


def _farthest_pair(points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The two points farthest apart, searched among the extremes in `CALIPER_DIRECTIONS` directions."""
    angles = np.linspace(0.0, np.pi, CALIPER_DIRECTIONS, endpoint=False)
    reach = points @ np.column_stack([np.cos(angles), np.sin(angles)]).T
    extremes = points[np.unique(np.concatenate([reach.argmax(axis=0), reach.argmin(axis=0)]))]
    squared = ((extremes[:, None] - extremes[None]) ** 2).sum(axis=2)
    first, second = np.unravel_index(int(squared.argmax()), squared.shape)
    return extremes[first], extremes[second]
