"""Where the patient's trunk lies on an axial slice: the frame that relative places in the body refer to.

The slice is thinned to some 128 pixels a side, which is ample for an extent and fast. What is denser than half air
and not too small after an opening (which takes the table's thin top and blankets away) is tissue; the part that covers
most of the slice's middle is the trunk. Arms beside the trunk are parts of their own and stay out, unless they touch.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Between lung (-850) and fat (-100).
_TISSUE_HU = -350
_THINNED_SIDE_PX = 128
# The smallest share of a slice a trunk can have: a child in a wide field of view.
_SMALLEST_SHARE = 0.03
_OPENING = np.ones((3, 3), dtype=bool)


def body_box(hu: NDArray[np.int16]) -> tuple[float, float, float, float] | None:
    """The trunk's extent as zero-based x_min, y_min, x_max, y_max of pixel centres; None where there is none."""
    step = max(1, round(max(hu.shape) / _THINNED_SIDE_PX))
    tissue = hu[step // 2 :: step, step // 2 :: step] > _TISSUE_HU
    # Lungs and bowel gas belong to the body that surrounds them.
    solid = ndimage.binary_opening(ndimage.binary_fill_holes(tissue), _OPENING)
    parts, count = ndimage.label(solid)
    if count == 0:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    trunk = int(sizes.argmax())
    if sizes[trunk] < _SMALLEST_SHARE * parts.size:
        return None
    rows, columns = ndimage.find_objects(parts, max_label=trunk)[trunk - 1]
    height, width = hu.shape
    return (
        float(columns.start * step),
        float(rows.start * step),
        float(min(columns.stop * step, width) - 1),
        float(min(rows.stop * step, height) - 1),
    )


def place_in_body(
    center_xy_px: tuple[float, float], box_xyxy_px: tuple[float, float, float, float]
) -> tuple[float, float]:
    """A zero-based point as parts of the body's extent, cut to 0…1: from the image's left edge, and from its top."""
    left, top, right, bottom = box_xyxy_px
    x = (center_xy_px[0] - left) / max(right - left, 1.0)
    y = (center_xy_px[1] - top) / max(bottom - top, 1.0)
    return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
