"""Where the patient's trunk lies on an axial slice: the frame that relative places in the body refer to.

The slice is thinned to some 100 pixels a side, which is ample for an extent and fast. What is denser than half air
and not too thin for an opening (which takes the table's top and blankets away) is tissue; its largest part is the
trunk. Arms beside the trunk are parts of their own and stay out, unless they touch.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Between lung (-850) and fat (-100).
_TISSUE_HU = -350
_THINNED_SIDE_PX = 100
# The smallest share of a slice a trunk can have: a child in a wide field of view.
_SMALLEST_SHARE = 0.03


def body_box(hu: NDArray[np.int16]) -> tuple[float, float, float, float] | None:
    """The trunk's extent as zero-based x_min, y_min, x_max, y_max of pixel centres; None where there is none."""
    step = max(1, round(max(hu.shape) / _THINNED_SIDE_PX))
    tissue = hu[step // 2 :: step, step // 2 :: step] > _TISSUE_HU
    # An opening, by hand: scipy's takes longer than everything else here together.
    parts, count = ndimage.label(_neighbours(_neighbours(tissue, np.logical_and), np.logical_or))
    if count == 0:
        return None
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    trunk = int(sizes.argmax())
    rows, columns = ndimage.find_objects(parts, max_label=trunk)[trunk - 1]
    # Lungs and bowel gas belong to the body that surrounds them: its extent counts, not its tissue.
    if (rows.stop - rows.start) * (columns.stop - columns.start) < _SMALLEST_SHARE * parts.size:
        return None
    height, width = hu.shape
    return (
        float(columns.start * step),
        float(rows.start * step),
        float(min(columns.stop * step, width) - 1),
        float(min(rows.stop * step, height) - 1),
    )


def _neighbours(mask: NDArray[np.bool_], combine: np.ufunc) -> NDArray[np.bool_]:
    """Each pixel combined with its eight neighbours; there is no tissue beyond the border."""
    padded = np.pad(mask, 1)
    across = combine(combine(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    combined: NDArray[np.bool_] = combine(combine(across[:-2], across[1:-1]), across[2:])
    return combined


def place_in_body(
    center_xy_px: tuple[float, float], box_xyxy_px: tuple[float, float, float, float]
) -> tuple[float, float]:
    """A zero-based point as parts of the body's extent, cut to 0…1: from the image's left edge, and from its top."""
    left, top, right, bottom = box_xyxy_px
    x = (center_xy_px[0] - left) / max(right - left, 1.0)
    y = (center_xy_px[1] - top) / max(bottom - top, 1.0)
    return min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)
