"""Where a patch lies on its slices, and its pixels: pure geometry, no lake.

Boxes on a slice are zero-based pixel centres, as numpy counts. Boxes on a patch count from its outer edge, so that
pixel 0 reaches from 0 to 1 and a box keeps its meaning at every scale. A patch is centred on its box exactly: the
box's centre lies at side / 2, whatever fraction of a source pixel that takes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lesionary.patch_schema import BUCKETS, CONTEXT_MM, PIXEL_MM, SLICE_STEP_MM, SLICES_PER_PATCH
from lesionary.recist import RELEASE_PADDING_PX

# No CT has smaller or larger pixels: what says so is damaged.
SPACINGS_MM = (0.02, 20.0)

# A step between slices that is larger than so many intervals is a gap.
_GAP_INTERVALS = 1.5

# Closer together than this two slices are at one place.
_SAME_PLACE_MM = 1e-3

# Below this half width, in source pixels, averaging over a window and reading off its middle are the same.
_POINT_HALF_WIDTH = 1e-4

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True)
class Frame:
    """A square around a box, in millimetres of the slice it was drawn on."""

    side: int
    """Rows and columns in pixels of `PIXEL_MM`, one of `BUCKETS`."""
    box: tuple[float, float, float, float]
    """The padded box on the patch, cut at its edge."""
    extent: tuple[float, float, float, float]
    """The box and `context_mm` around it, cut at the patch's edge."""
    center_px: tuple[float, float]
    """Its middle on the slice, x and y."""
    whole: bool
    """Whether the box and its context fit."""


def frame_around(
    box_px: Sequence[float],
    spacing_xy_mm: tuple[float, float],
    *,
    padding_px: float = RELEASE_PADDING_PX,
    context_mm: float = CONTEXT_MM,
) -> Frame:
    """The patch that shows a box and its context.

    Args:
        box_px: x_min, y_min, x_max, y_max on the slice, zero-based pixel centres, not padded.
        spacing_xy_mm: along x (from column to column), then along y.
        padding_px: source pixels added on every side, because a box around four points cuts the lesion.
        context_mm: shown around the padded box.

    Raises:
        ValueError: a box or a spacing around which nothing can be cut.
    """
    numbers = (*box_px, *spacing_xy_mm)
    if not all(map(math.isfinite, numbers)) or not all(
        SPACINGS_MM[0] <= one <= SPACINGS_MM[1] for one in spacing_xy_mm
    ):
        raise ValueError(f"no patch around box {list(box_px)} at a spacing of {list(spacing_xy_mm)} mm")
    x_min, y_min, x_max, y_max = box_px
    width = (x_max - x_min + 2 * padding_px) * spacing_xy_mm[0] / PIXEL_MM
    height = (y_max - y_min + 2 * padding_px) * spacing_xy_mm[1] / PIXEL_MM
    wanted = max(width, height) + 2 * context_mm / PIXEL_MM
    side = next((bucket for bucket in BUCKETS if bucket >= wanted), BUCKETS[-1])
    return Frame(
        side=side,
        box=_centered(width, height, side),
        extent=_centered(width + 2 * context_mm / PIXEL_MM, height + 2 * context_mm / PIXEL_MM, side),
        center_px=((x_min + x_max) / 2, (y_min + y_max) / 2),
        whole=wanted <= side,
    )


def _centered(width: float, height: float, side: int) -> tuple[float, float, float, float]:
    across, down = min(width, side) / 2, min(height, side) / 2
    middle = side / 2
    return middle - across, middle - down, middle + across, middle + down


def cut_patch(
    slices: Sequence[NDArray[np.int16]],
    weights: NDArray[np.float64],
    box_px: Sequence[float],
    spacing_xy_mm: tuple[float, float],
    *,
    padding_px: float = RELEASE_PADDING_PX,
    context_mm: float = CONTEXT_MM,
) -> NDArray[np.int16]:
    """The pixels of a box's patch: (3, side, side) int16 HU.

    Args:
        slices: images of one shape.
        weights: (3, number of slices); row by row, what each slice adds to the patch's slices.
        box_px, spacing_xy_mm, padding_px, context_mm: as `frame_around` takes them, which says where the box is.
    """
    frame = frame_around(box_px, spacing_xy_mm, padding_px=padding_px, context_mm=context_mm)
    return cut_frame(slices, weights, frame, spacing_xy_mm)


def cut_frame(
    slices: Sequence[NDArray[np.int16]],
    weights: NDArray[np.float64],
    frame: Frame,
    spacing_xy_mm: tuple[float, float],
) -> NDArray[np.int16]:
    """The pixels of a frame. Beyond the image its edge goes on."""
    rows, columns = slices[0].shape
    first_column, across = line_sampling(frame.center_px[0], spacing_xy_mm[0] / PIXEL_MM, frame.side, columns)
    first_row, down = line_sampling(frame.center_px[1], spacing_xy_mm[1] / PIXEL_MM, frame.side, rows)
    height, width = down.shape[1], across.shape[1]
    region = slice(first_row, first_row + height), slice(first_column, first_column + width)
    # (row, slice, column): one product then works on whole rows of all three slices.
    mixed = np.zeros((height, SLICES_PER_PATCH, width), np.float32)
    for number, image in enumerate(slices):
        if weights[:, number].any():
            part = image[region].astype(np.float32)
            for position, weight in enumerate(weights[:, number]):
                if weight:
                    mixed[:, position] += part if weight == 1 else part * np.float32(weight)
    side = frame.side
    rows_done = (down @ mixed.reshape(height, -1)).reshape(side * SLICES_PER_PATCH, width)
    done = (across @ np.ascontiguousarray(rows_done.T)).reshape(side, side, SLICES_PER_PATCH)
    rounded = np.clip(np.rint(done), _INT16.min, _INT16.max).astype(np.int16)
    return np.ascontiguousarray(rounded.transpose(2, 1, 0))


def line_sampling(center_px: float, spacing: float, side: int, length: int) -> tuple[int, csr_array]:
    """The first source pixel that a line of new pixels needs, and what the pixels from there add to each of them.

    A new pixel is the linearly interpolated line averaged over a window around the pixel's middle. The window is as
    wide as leaves the pixel's own extent after what interpolation blurs already: none for source pixels as large and
    larger (plain interpolation), nearly all of it for small ones (plain averaging). Either way a ramp stays the ramp
    it is. Beyond the line its ends go on.

    Args:
        center_px: the middle of the new line, zero-based on the source.
        spacing: of the source's pixels, counted in new pixels.
        side: new pixels.
        length: source pixels.
    """
    half = math.sqrt(max(0.0, 1.0 - spacing * spacing)) / 2 / spacing
    middles = center_px + (np.arange(side) + 0.5 - side / 2) / spacing
    taps = np.floor(middles - half)[:, None] + np.arange(math.ceil(2 * half) + 2)
    away = middles[:, None] - taps
    if half > _POINT_HALF_WIDTH:
        weights = (_tent_integral(away + half) - _tent_integral(away - half)) / (2 * half)
    else:
        weights = np.maximum(0.0, 1.0 - np.abs(away))
    weights /= weights.sum(axis=1, keepdims=True)
    inside = np.clip(taps, 0, length - 1).astype(np.int64)
    first, last = int(inside.min()), int(inside.max())
    starts = np.arange(0, inside.size + 1, inside.shape[1])
    shape = side, last - first + 1
    return first, csr_array((weights.astype(np.float32).ravel(), inside.ravel() - first, starts), shape=shape)


def _tent_integral(upper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under a tent of width 2 and height 1 around zero, from its left foot."""
    left, right = np.clip(upper, -1, 0) + 1, 1 - np.clip(upper, 0, 1)
    area: NDArray[np.float64] = np.where(upper < 0, left * left / 2, 1 - right * right / 2)
    return area


@dataclass(frozen=True, slots=True)
class SlicePlaces:
    """A series' slices, ordered by their numbers."""

    indices: NDArray[np.int64]
    z_mm: NDArray[np.float64]
    """Not a number where unknown."""
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def slices_around(
    places: SlicePlaces,
    key_index: int,
    spacing_z_mm: float | None,
    *,
    count: int = SLICES_PER_PATCH,
    step_mm: float = SLICE_STEP_MM,
) -> tuple[list[int], NDArray[np.float64]] | None:
    """Which slices a patch is mixed from and how: their numbers, and weights (count, number of slices).

    The patch's slices lie at the key slice and at equal steps below and above it, between the lake's slices by linear
    interpolation. Where these end (the volume, a gap, a change of matrix, an unknown place) the last one goes on.

    Args:
        places: the series' slices.
        key_index: number of the key slice.
        spacing_z_mm: stands in where the key slice's place is unknown; without it the key slice is repeated.
        count: slices of the patch, an odd number.
        step_mm: between them.

    Returns:
        None when the key slice is not there.
    """
    found = _key_place(places, key_index, spacing_z_mm)
    if found is None:
        return None
    key, z_mm, widest = found
    steps = [step_mm * number for number in range(1, count // 2 + 1)]
    parts: list[dict[int, float]] = [
        *(_between(places, z_mm, key, -1, widest, step) for step in reversed(steps)),
        {key: 1.0},
        *(_between(places, z_mm, key, 1, widest, step) for step in steps),
    ]
    used = sorted({one for part in parts for one in part})
    weights = np.zeros((count, len(used)))
    for row, part in enumerate(parts):
        for one, weight in part.items():
            weights[row, used.index(one)] = weight
    return [int(places.indices[one]) for one in used], weights


def connected_slices(places: SlicePlaces, key_index: int, spacing_z_mm: float | None) -> list[tuple[int, float]] | None:
    """The slices that follow each other through the key slice without a gap, in order.

    Args:
        places: the series' slices.
        key_index: number of the key slice.
        spacing_z_mm: stands in where the key slice's place is unknown; without it the key slice is alone.

    Returns:
        Each one's number and how far beyond the key slice it lies, mm; None when the key slice is not there.
    """
    found = _key_place(places, key_index, spacing_z_mm)
    if found is None:
        return None
    key, z_mm, widest = found
    numbers = [key]
    for direction in (-1, 1):
        here = key
        while (following := _next_place(places, z_mm, here, direction)) is not None:
            if not direction * (z_mm[following] - z_mm[here]) <= widest:
                break
            here = following
            numbers.append(here)
    return [(int(places.indices[one]), float(z_mm[one] - z_mm[key]) if one != key else 0.0) for one in sorted(numbers)]


def _key_place(
    places: SlicePlaces, key_index: int, spacing_z_mm: float | None
) -> tuple[int, NDArray[np.float64], float] | None:
    """Where the key slice stands among the others, the places of all, and the widest step that is no gap."""
    key = int(np.searchsorted(places.indices, key_index))
    if key == len(places.indices) or places.indices[key] != key_index:
        return None
    z_mm = places.z_mm
    if not math.isfinite(z_mm[key]):
        z_mm = places.indices * np.float64(spacing_z_mm if spacing_z_mm and spacing_z_mm > 0 else math.nan)
    nearest = [
        # Slice numbers tell as well: from 7 to 9 are two intervals, unless slice 8 is there and at the same place.
        abs(z_mm[one] - z_mm[key]) / (1 + abs(int(places.indices[one]) - key_index) - abs(one - key))
        for one in (_next_place(places, z_mm, key, -1), _next_place(places, z_mm, key, 1))
        if one is not None
    ]
    return key, z_mm, _GAP_INTERVALS * min(nearest, default=0.0)


def _between(
    places: SlicePlaces, z_mm: NDArray[np.float64], key: int, direction: int, widest_mm: float, away_mm: float
) -> dict[int, float]:
    """Weights of the slices on either side of a place so far away from the key slice."""
    here = key
    while (following := _next_place(places, z_mm, here, direction)) is not None:
        step = direction * (z_mm[following] - z_mm[here])
        if not step <= widest_mm:
            break
        left_mm = away_mm - direction * (z_mm[here] - z_mm[key])
        if step >= left_mm - _SAME_PLACE_MM:
            share = left_mm / step
            return {following: 1.0} if step <= left_mm + _SAME_PLACE_MM else {here: 1.0 - share, following: share}
        here = following
    return {here: 1.0}


def _next_place(places: SlicePlaces, z_mm: NDArray[np.float64], here: int, direction: int) -> int | None:
    """The next slice that lies at another place, in order and of the same matrix; None at an end."""
    one = here + direction
    while 0 <= one < len(z_mm):
        if (places.rows[one], places.columns[one]) != (places.rows[here], places.columns[here]):
            return None
        step = direction * (z_mm[one] - z_mm[here])
        if step > _SAME_PLACE_MM:
            return one
        if not abs(step) <= _SAME_PLACE_MM:
            # Unknown, or backwards: another sub-volume counts its places from elsewhere.
            return None
        one += direction
    return None
