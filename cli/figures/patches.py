"""A lesion's patch: the square of a slice around it, windowed, with pixels of one size in both directions.

Coordinates are zero-based pixel centres, as numpy counts; callers shift one-based ones first.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesionary.picture import window_to_grey

# Around a lesion at least this much, and at most that much, so that a small one is more than its own axes.
_LEAST_MARGIN_MM, _MOST_MARGIN_MM = 12.0, 25.0
_MARGIN_SHARE = 1.25
_SIDE_PX = 160
# Bicubic resampling looks two pixels far.
_RIM_PX = 3
# More pixels than any CT matrix has: a spacing this fine is damage.
_MAX_REGION_PX = 16_384


@dataclass(frozen=True, slots=True)
class Patch:
    """What `cut_patch` returns; coordinates count the patch's own pixels."""

    grey: NDArray[np.uint8]
    """(side, side), black beyond the image."""
    mm_per_px: float
    box_xyxy_px: tuple[float, float, float, float]
    points_xy_px: NDArray[np.float64]
    """(k, 2): both ends of the long axis, then of the short one if it is known."""


def field_of_view_mm(
    box_xyxy_px: tuple[float, float, float, float],
    spacing_xy_mm: tuple[float, float],
    margin_mm: float | None = None,
) -> float:
    """How many millimetres a square patch shows from side to side: the box's longer side and a margin on both.

    Unless given, the margin grows with the box: 12 mm around small ones, 25 mm from 20 mm on.
    """
    x_min, y_min, x_max, y_max = box_xyxy_px
    side_mm = max((x_max - x_min) * spacing_xy_mm[0], (y_max - y_min) * spacing_xy_mm[1])
    return side_mm + 2 * (_margin_mm(side_mm) if margin_mm is None else margin_mm)


def _margin_mm(side_mm: float) -> float:
    return min(max(side_mm * _MARGIN_SHARE, _LEAST_MARGIN_MM), _MOST_MARGIN_MM)


def cut_patch(
    hu: NDArray[np.int16],
    box_xyxy_px: tuple[float, float, float, float],
    points_xy_px: NDArray[np.float64],
    spacing_xy_mm: tuple[float, float],
    window_hu: tuple[float, float],
    *,
    margin_mm: float | None = None,
    side_px: int = _SIDE_PX,
    field_mm: float | None = None,
) -> Patch:
    """The square around a box, centred on it; beyond the image it is black.

    A box may touch the image's edge, cross it or lie outside. Of a box that is larger than the image no more than the
    image's own size and the margin is shown.

    Args:
        hu: (rows, columns) of the slice.
        box_xyxy_px: zero-based.
        points_xy_px: (k, 2), zero-based.
        spacing_xy_mm: along x (from column to column), then along y.
        window_hu: lower and upper end.
        margin_mm: so much is shown on every side of the box; as `field_of_view_mm` chooses unless given.
        side_px: rows and columns of the patch.
        field_mm: shown from side to side in place of box and margin, so that patches can share one scale.

    Raises:
        ValueError: a coordinate, spacing, window, size or margin with which nothing can be shown.
    """
    points = np.asarray(points_xy_px, dtype=np.float64).reshape(-1, 2)
    box = np.asarray(box_xyxy_px, dtype=np.float64)
    spacing = np.asarray(spacing_xy_mm, dtype=np.float64)
    _check(hu, box, points, spacing, window_hu)
    most_margin_mm = _MOST_MARGIN_MM if margin_mm is None else margin_mm
    if not (math.isfinite(most_margin_mm) and most_margin_mm >= 0 and side_px >= 1):
        raise ValueError(f"a margin of {margin_mm} mm around a patch of {side_px} px")
    size_px = np.array([hu.shape[1], hu.shape[0]], dtype=np.float64)
    largest_mm = float((size_px * spacing).max()) + 2 * most_margin_mm
    wanted_mm = field_of_view_mm(box_xyxy_px, spacing_xy_mm, margin_mm) if field_mm is None else field_mm
    if not (math.isfinite(wanted_mm) and wanted_mm > 0):
        raise ValueError(f"a patch of {wanted_mm} mm shows nothing")
    shown_mm = min(wanted_mm, largest_mm)
    shown_px = shown_mm / spacing
    if shown_px.max() > _MAX_REGION_PX:
        raise ValueError(f"{shown_mm:.4g} mm are {shown_px.max():.4g} pixels at a spacing of {spacing.tolist()} mm")
    # Far away from the image everything is black anyway, and numbers stay small.
    center = np.clip((box[:2] + box[2:]) / 2, -shown_px, size_px + shown_px)
    # From here on coordinates count from the image's edge: pixel 0 reaches from 0 to 1.
    corner = center + 0.5 - shown_px / 2
    scale = spacing * (side_px / shown_mm)
    moved = [(one + 0.5 - corner) * scale - 0.5 for one in (box[:2], box[2:])]
    return Patch(
        grey=_resample(hu, corner, corner + shown_px, window_hu, side_px),
        mm_per_px=shown_mm / side_px,
        box_xyxy_px=(float(moved[0][0]), float(moved[0][1]), float(moved[1][0]), float(moved[1][1])),
        points_xy_px=(points + 0.5 - corner) * scale - 0.5,
    )


def _check(
    hu: NDArray[np.int16],
    box: NDArray[np.float64],
    points: NDArray[np.float64],
    spacing: NDArray[np.float64],
    window_hu: tuple[float, float],
) -> None:
    if hu.ndim != 2 or hu.size == 0:
        raise ValueError(f"a slice is a two-dimensional array, found shape {hu.shape}")
    if not (np.isfinite(box).all() and np.isfinite(points).all() and (box[:2] <= box[2:]).all()):
        raise ValueError(f"no patch can be cut around box {box.tolist()} with points {points.tolist()}")
    if not (np.isfinite(spacing).all() and (spacing > 0).all()):
        raise ValueError(f"a pixel spacing of {spacing.tolist()} mm")
    if not window_hu[0] < window_hu[1]:
        raise ValueError(f"a window from {window_hu[0]} to {window_hu[1]} HU")


def _resample(
    hu: NDArray[np.int16],
    low_xy: NDArray[np.float64],
    high_xy: NDArray[np.float64],
    window_hu: tuple[float, float],
    side_px: int,
) -> NDArray[np.uint8]:
    """The region between two corners, which count from the image's edge, as a square of `side_px`."""
    left, top = (math.floor(value) - _RIM_PX for value in low_xy)
    right, bottom = (math.ceil(value) + _RIM_PX for value in high_xy)
    region = np.zeros((bottom - top, right - left), dtype=np.uint8)
    rows, columns = hu.shape
    inside = slice(max(top, 0), min(bottom, rows)), slice(max(left, 0), min(right, columns))
    if inside[0].start < inside[0].stop and inside[1].start < inside[1].stop:
        part = window_to_grey(hu[inside], window_hu)
        down, across = inside[0].start - top, inside[1].start - left
        region[down : down + part.shape[0], across : across + part.shape[1]] = part
    frame = (low_xy[0] - left, low_xy[1] - top, high_xy[0] - left, high_xy[1] - top)
    square = Image.fromarray(region).resize((side_px, side_px), Image.Resampling.BICUBIC, box=frame)
    grey: NDArray[np.uint8] = np.asarray(square, dtype=np.uint8).copy()
    return grey
