"""From a mark to its mask: a lesion with its diameters, or a detection with its box, on the slices of a series."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from etl.mask_fitting import KeyFit, Mask, fit_key_slice, middle_of, take, to_slice
from etl.mask_growing import Section, grow
from etl.mask_outlines import Frame, Outline, frame_of, outline_of_box, outline_of_diameters
from etl.patch_cutting import Series
from etl.patch_geometry import connected_slices
from etl.stack_geometry import is_possible_spacing
from lesionary.calipers import Calipers, measure_calipers
from lesionary.run_lengths import MaskRuns, encode_mask

METHOD = "contrast-1"
"""Raised with every change that gives other masks."""

# Marks below this are clicks, not measurements.
_SMALLEST_PX = 1.0

Read = Callable[[int], NDArray[np.int16]]
"""A slice of the series by its number."""


class LeftOut(StrEnum):
    """Why a lesion has no mask."""

    KEY_SLICE_MISSING = "key_slice_missing"
    BOX_OUTSIDE_IMAGE = "box_outside_image"
    TOO_SMALL = "too_small"
    NOTHING_FOUND = "nothing_found"


@dataclass(frozen=True, slots=True)
class Mark:
    """What a mask is made from; coordinates are zero-based pixel centres."""

    lesion_id: str
    slice_index: int
    box_px: tuple[float, float, float, float]
    points_px: tuple[float, ...] = ()
    """x, y of the diameters' ends, long axis first; two ends where only that is known, none of a detection."""
    fingerprint: str = ""

    def points(self) -> NDArray[np.float64]:
        """The ends as (n, 2)."""
        return np.array(self.points_px, np.float64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Masked:
    """A lesion's masks, and what they measure."""

    masks: tuple[tuple[int, MaskRuns], ...]
    """Numbers of slices, ascending, each with its mask."""
    calipers: Calipers
    """On the key slice; mm are pixels without a pixel spacing."""
    area_mm2: float | None
    volume_mm3: float | None
    has_spacing: bool
    cut_short: bool | None
    """Whether the slices ended before the lesion did; None where the volume is unknown."""


def make_masks(mark: Mark, series: Series, read: Read) -> Masked | LeftOut:
    """The masks of one lesion, or why there is none.

    Without a pixel spacing, or where nothing says how far slices lie apart, only the key slice is looked at.
    """
    slices = connected_slices(series.places, mark.slice_index, series.spacing_z_mm)
    if slices is None:
        return LeftOut.KEY_SLICE_MISSING
    position = int(np.searchsorted(series.places.indices, mark.slice_index))
    shape = int(series.places.rows[position]), int(series.places.columns[position])
    found = _outline(mark, shape)
    if isinstance(found, LeftOut):
        return found
    fitted = _fitted(*found, read(mark.slice_index))
    if fitted is None:
        return LeftOut.NOTHING_FOUND
    outline, frame, fit = fitted
    sections = [Section(mark.slice_index, fit.inside)]
    cut_short = True
    has_spacing = is_possible_spacing(series.spacing_xy_mm)
    pixel_mm = math.sqrt(math.prod(series.spacing_xy_mm)) if has_spacing else math.nan
    if has_spacing and len(slices) > 1:
        grown = grow(read, slices, fit, frame, outline, pixel_mm)
        sections += grown.sections
        cut_short = grown.cut_short
    on_slices = {one.slice_index: to_slice(one.inside, frame, shape) for one in sections}
    key_mask = on_slices[mark.slice_index]
    calipers = measure_calipers(key_mask, series.spacing_xy_mm if has_spacing else (1.0, 1.0))
    if calipers is None:
        return LeftOut.NOTHING_FOUND
    masks = _encoded(on_slices)
    areas = {index: mask.area_px * pixel_mm**2 for index, mask in masks}
    volume = _volume_mm3(areas, slices, series.spacing_z_mm) if has_spacing else None
    area = areas[mark.slice_index] if has_spacing else None
    return Masked(masks, calipers, area, volume, has_spacing, None if volume is None else cut_short)


def _outline(mark: Mark, shape: tuple[int, int]) -> tuple[Outline, Frame] | LeftOut:
    x_min, y_min, x_max, y_max = mark.box_px
    # Not a number is nowhere: these comparisons then fail.
    if not (x_min < shape[1] and y_min < shape[0] and x_max > -1 and y_max > -1):
        return LeftOut.BOX_OUTSIDE_IMAGE
    if max(x_max - x_min, y_max - y_min) < _SMALLEST_PX:
        return LeftOut.TOO_SMALL
    outline = outline_of_diameters(mark.points()) if mark.points_px else None
    outline = outline or outline_of_box(mark.box_px)
    frame = frame_of(outline, shape)
    return LeftOut.BOX_OUTSIDE_IMAGE if frame is None else (outline, frame)


def _fitted(outline: Outline, frame: Frame, image: NDArray[np.int16]) -> tuple[Outline, Frame, KeyFit] | None:
    """The mask on the key slice; what was known as a box only is moved to the middle of what was found there."""
    fit = fit_key_slice(take(image, frame), frame, outline)
    if fit is None or outline.from_diameters:
        return None if fit is None else (outline, frame, fit)
    moved = outline.moved_to(middle_of(fit.inside, frame))
    moved_frame = frame_of(moved, image.shape)
    moved_fit = None if moved_frame is None else fit_key_slice(take(image, moved_frame), moved_frame, moved)
    if moved_frame is None or moved_fit is None:
        return outline, frame, fit
    return moved, moved_frame, moved_fit


def _encoded(on_slices: dict[int, Mask]) -> tuple[tuple[int, MaskRuns], ...]:
    encoded = ((index, encode_mask(mask)) for index, mask in sorted(on_slices.items()))
    return tuple((index, mask) for index, mask in encoded if mask is not None)


def _volume_mm3(
    areas_mm2: dict[int, float], slices: list[tuple[int, float]], spacing_z_mm: float | None
) -> float | None:
    """Every area reaches half way to the slices on either side; at an end as far as on its other side."""
    if len(slices) == 1:
        interval = spacing_z_mm if spacing_z_mm and spacing_z_mm > 0 else None
        return None if interval is None else sum(areas_mm2.values()) * interval
    steps = np.diff([place for _, place in slices])
    thickness = (np.r_[steps[0], steps] + np.r_[steps, steps[-1]]) / 2
    return float(sum(areas_mm2.get(index, 0.0) * thick for (index, _), thick in zip(slices, thickness, strict=True)))
