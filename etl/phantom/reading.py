"""The reader: draws a series' slices, finds the marked lesions on them, and measures each as a radiologist would.

Coordinates are the release's: pixels, x to the right, y downwards, the centre of the first pixel at (1, 1). What
would surprise:

* a reader's clicks miss by a third of a pixel; where that would make the axes miss each other, lean by more than
  ten degrees or change places, he clicks more carefully. So a release without quirks has no such row at all, and
  every one that an ingest flags was put there on purpose;
* a lesion whose padded box leaves the image is not marked unless a quirk moved the image for it;
* a turned picture (a quirk) turns before it is measured: marks follow what the reader saw.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from etl.phantom.coverage import sub_volumes
from etl.phantom.plan import KeySlice, SeriesPlan
from etl.phantom.render import render_slice
from lesionary.recist import RELEASE_PADDING_PX, measure_mask, measure_points, padded_box

_STREAM = 7102

# How far a reader's click lies from where he aimed, px.
CLICK_SIGMA_PX = 0.35
# First try with the full slip, then ever more carefully; the last one is exact.
_CARE = (1.0, 0.5, 0.25, 0.0)

# The part of a pixel that must belong to the lesion for the pixel to count.
MASK_THRESHOLD = 0.5
# Nobody marks what is smaller than this on the image.
_SMALLEST_LONG_PX = 2.5

# How many long diameters away a noisy row's marks lie.
_NOISY_OFFSET_DIAMETERS = 1.5

AIR_HU = -1024

Kind = TypeVar("Kind", bound=np.generic)

# Turns a picture as slice files can be turned; used on pixels, masks and the body's box alike.
TURNS = ("flip_left_right", "flip_top_bottom", "rotate_quarter")


@dataclass(frozen=True, slots=True)
class DrawnSlice:
    """One finished picture."""

    hu: NDArray[np.int16]
    """(rows, columns), HU."""
    masks: dict[int, NDArray[np.float32]]
    """Lesion to the part of each pixel it fills, for the lesions on this slice."""
    body_box_xyxy_px: tuple[float, float, float, float]
    """Zero-based extent of the trunk."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement."""

    points: tuple[float, ...]
    """x1, y1, … x4, y4: long axis, then short; one-based px."""
    long_px: float
    short_px: float
    relative_xy: tuple[float, float]
    """Centre of the box within the body's extent, 0…1."""


def draw_slice(plan: SeriesPlan, slice_index: int) -> DrawnSlice:
    """One slice of a series as its file will show it."""
    part = plan.part_of(slice_index) if plan.sub_volumes else None
    z_mm = part.z_mm(slice_index) if part else plan.grid.z_mm(slice_index)
    # A stretch with an interval of its own was reconstructed with that interval.
    series = replace(plan.series, slice_interval_mm=part.interval_mm) if part else plan.series
    rendered = render_slice(plan.patient, plan.study, series, z_mm, plan.states)
    drawn = DrawnSlice(rendered.hu, rendered.lesion_masks, rendered.body_box_xyxy_px)
    if plan.shift_xy_px != (0, 0):
        drawn = _shifted(drawn, plan.shift_xy_px)
    for edit in plan.edits:
        if edit.slice_index == slice_index and edit.action in TURNS:
            drawn = _turned(drawn, edit.action)
    return drawn


def read_key(plan: SeriesPlan, key: KeySlice, drawn: DrawnSlice) -> Reading | None:
    """What a reader writes down for a key slice; None when the lesion is not to be seen or leaves the image."""
    mask = drawn.masks.get(key.lesion_id)
    measured = None if mask is None else measure_mask(mask > MASK_THRESHOLD)
    if measured is None:
        return None
    spot = [_STREAM, plan.patient.seed, plan.patient.index, plan.study_index, plan.series.index, key.lesion_id]
    rng = np.random.default_rng(spot)
    points = _clicked(rng, measured + 1.0)
    if points is None:
        return None
    size = drawn.hu.shape[0]
    if key.noisy:
        points = _misplaced(rng, points, size)
    recist = measure_points(points, (1.0, 1.0))
    box = padded_box(recist.box_xyxy_px, RELEASE_PADDING_PX)
    if recist.long_px < _SMALLEST_LONG_PX:
        return None
    if plan.shift_xy_px == (0, 0) and (min(box) < 1.0 or max(box) > size):
        return None
    left, top, right, bottom = drawn.body_box_xyxy_px
    x, y = recist.center_xy_px
    relative = (x - 1.0 - left) / max(right - left, 1.0), (y - 1.0 - top) / max(bottom - top, 1.0)
    return Reading(tuple(points.ravel().tolist()), recist.long_px, recist.short_px, relative)


def confirm(plan: SeriesPlan, max_slices: int | None) -> SeriesPlan | None:
    """The series with the key slices that really show their lesion, and the stretches around them.

    Draws every key slice once. None when nothing is to be seen.
    """
    keys = tuple(key for key in plan.keys if _is_visible(plan, key))
    if not keys:
        return None
    return replace(plan, keys=keys, sub_volumes=sub_volumes(plan.grid, (key.slice_index for key in keys), max_slices))


def _is_visible(plan: SeriesPlan, key: KeySlice) -> bool:
    return read_key(plan, key, draw_slice(plan, key.slice_index)) is not None


def _clicked(rng: np.random.Generator, exact: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """The points with a reader's slips; None for a shape so bent that its widest chord misses its long axis."""
    slip = rng.normal(size=(4, 2)) * CLICK_SIGMA_PX
    for care in _CARE:
        points = exact + slip * care
        recist = measure_points(points, (1.0, 1.0))
        if recist.axes_cross and recist.perpendicular and not recist.short_exceeds_long:
            return points
    return None


def _misplaced(rng: np.random.Generator, points: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The marks beside the lesion, still inside the image where it is large enough."""
    long_px = float(np.linalg.norm(points[1] - points[0]))
    angle = rng.uniform(0.0, 2 * np.pi)
    moved = points + _NOISY_OFFSET_DIAMETERS * long_px * np.array([np.cos(angle), np.sin(angle)])
    room = RELEASE_PADDING_PX + 1.0
    too_low = np.maximum(room - moved.min(axis=0), 0.0)
    too_high = np.maximum(moved.max(axis=0) - (size - RELEASE_PADDING_PX), 0.0)
    misplaced: NDArray[np.float64] = moved + too_low - too_high
    return misplaced


def _shifted(drawn: DrawnSlice, shift_xy_px: tuple[int, int]) -> DrawnSlice:
    dx, dy = shift_xy_px
    left, top, right, bottom = drawn.body_box_xyxy_px
    return DrawnSlice(
        _moved(drawn.hu, shift_xy_px, AIR_HU),
        {lesion: _moved(mask, shift_xy_px, 0) for lesion, mask in drawn.masks.items()},
        (left + dx, top + dy, right + dx, bottom + dy),
    )


def _moved(image: NDArray[Kind], shift_xy_px: tuple[int, int], fill: int) -> NDArray[Kind]:
    dx, dy = shift_xy_px
    rows, columns = image.shape
    moved = np.full_like(image, fill)
    moved[max(dy, 0) : rows + min(dy, 0), max(dx, 0) : columns + min(dx, 0)] = image[
        max(-dy, 0) : rows - max(dy, 0), max(-dx, 0) : columns - max(dx, 0)
    ]
    return moved


def _turned(drawn: DrawnSlice, turn: str) -> DrawnSlice:
    size = drawn.hu.shape[0]
    box = _turned_box(drawn.body_box_xyxy_px, turn, size)
    masks = {lesion: _turned_image(mask, turn) for lesion, mask in drawn.masks.items()}
    return DrawnSlice(_turned_image(drawn.hu, turn), masks, box)


def _turned_image(image: NDArray[Kind], turn: str) -> NDArray[Kind]:
    if turn == "flip_left_right":
        return np.ascontiguousarray(image[:, ::-1])
    if turn == "flip_top_bottom":
        return np.ascontiguousarray(image[::-1])
    return np.ascontiguousarray(np.rot90(image))


def _turned_box(box_xyxy_px: Sequence[float], turn: str, size: int) -> tuple[float, float, float, float]:
    left, top, right, bottom = box_xyxy_px
    last = size - 1.0
    if turn == "flip_left_right":
        return last - right, top, last - left, bottom
    if turn == "flip_top_bottom":
        return left, last - bottom, right, last - top
    # A quarter turn against the clock: the right edge becomes the top.
    return top, last - right, bottom, last - left
