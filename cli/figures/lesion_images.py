"""A marked lesion's slice out of the lake, with its axes, box and window as figures need them.

The store counts coordinates as their source did; figures count from zero, as numpy does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.recist import FIRST_CENTERS
from lesionary.schema import COORDINATE_COLUMNS

if TYPE_CHECKING:
    from lesionary.slices import SliceReader

# The whole soft-tissue range, for lesions whose source names no window.
DEFAULT_WINDOW_HU = (-175.0, 275.0)
# For lesions that their source's window would show as black on black, as a scan's own window does in the lungs.
_LUNG_WINDOW_HU = (-1350.0, 150.0)


@dataclass(frozen=True, slots=True)
class LesionImage:
    """One slice with one lesion; coordinates are zero-based pixel centres."""

    hu: NDArray[np.int16]
    points_xy_px: NDArray[np.float64]
    """(k, 2): both ends of the long axis, then of the short one if it is known."""
    tight_box_xyxy_px: tuple[float, float, float, float]
    spacing_xy_mm: tuple[float, float]
    window_hu: tuple[float, float]


def read_image(reader: "SliceReader", found: Mapping[str, object]) -> LesionImage | None:
    """The lesion's image; None where the lake holds none.

    Args:
        reader: of the lake.
        found: the lesion, as `store.queries.lesion` gives it.

    Raises:
        LakeError: the lake should hold the image, and does not.
    """
    if not found["image_available"]:
        return None
    hu = reader.read(str(found["series_id"]), int(str(found["slice_index"])))
    origin = FIRST_CENTERS[str(found["coord_convention"])]
    ends = [_number(found[name]) for name in COORDINATE_COLUMNS if found[name] is not None]
    x_min, y_min, x_max, y_max = (_number(edge) - origin for edge in found["box_xyxy_px"])  # type: ignore[attr-defined]
    return LesionImage(
        hu,
        np.array(ends).reshape(-1, 2) - origin,
        (x_min, y_min, x_max, y_max),
        _spacing(found),
        _window(found),
    )


def shown_window(
    hu: NDArray[np.int16], tight_box_xyxy_px: tuple[float, float, float, float], window_hu: tuple[float, float]
) -> tuple[float, float]:
    """The source's window, or that of lungs where the source's would leave most of the lesion's box black."""
    left, top, right, bottom = (round(edge) for edge in tight_box_xyxy_px)
    inside = hu[max(top, 0) : max(bottom, 0) + 1, max(left, 0) : max(right, 0) + 1]
    dark = inside.size > 0 and float(np.median(inside)) <= window_hu[0]
    return _LUNG_WINDOW_HU if dark else window_hu


def _spacing(found: Mapping[str, object]) -> tuple[float, float]:
    """Pixels are taken as square, and as 1 mm wide, where nobody said how large they are."""
    x, y = (_number(found[name]) if found[name] is not None else math.nan for name in ("spacing_x_mm", "spacing_y_mm"))
    known = [side for side in (x, y) if math.isfinite(side) and side > 0]
    return (x, y) if len(known) == 2 else (known[0], known[0]) if known else (1.0, 1.0)


def _window(found: Mapping[str, object]) -> tuple[float, float]:
    low, high = found["window_low_hu"], found["window_high_hu"]
    return (low, high) if isinstance(low, float) and isinstance(high, float) and low < high else DEFAULT_WINDOW_HU


def _number(value: object) -> float:
    return float(str(value))
