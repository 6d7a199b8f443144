"""Augmentation of patches: where each one is looked at, how large, and how bright, and its boxes along with it.

A view is a square window of a patch that becomes `side` pixels of an image. Without augmentation it is the patch
itself; shifting crops, scaling widens or narrows the window, flipping mirrors it. Each pixel of the image is the
average over its own area; where that is smaller than a pixel of the patch, the interpolated value at its middle. Beyond
the patch its edge goes on.

What is drawn for a row depends on the generator and the row's position in the request alone, never on which rows
share its batch.
"""

import functools
import math
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from lesionary.errors import UsageError
from lesionary.patch_schema import BUCKETS, PIXEL_MM, SLICES_PER_PATCH, WINDOW_HU

GREY_LEVELS = 255.0

# Narrower than half the smallest patch nothing of a lesion's surroundings would be left.
_MOST_SHIFT_MM = BUCKETS[0] * PIXEL_MM / 4
_MOST_SCALE = 0.5

# Noise that is drawn once: a million and a half of values, more than twice the largest patch.
_NOISE_VALUES = 3 << 19

# A window that misses whole pixels by less is taken to be on them.
_ON_PIXEL = 1e-9


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far views and grey values may differ; zeros leave a patch as it is."""

    shift_mm: float = 10.0
    """The view is cropped by this on every side, and moves as far along x and y."""
    scale: float = 0.1
    """Sizes change by a factor between 1 / (1 + scale) and 1 + scale."""
    gain: float = 0.05
    """Grey values, counted from air, change by a factor between 1 - gain and 1 + gain."""
    offset_hu: float = 20.0
    """Grey values are moved up or down by no more than this."""
    noise_hu: float = 10.0
    """Standard deviation of added noise: between 0 and this."""
    flip: bool = False
    """Mirror left and right half of the time; lesions know left from right, so off unless wanted."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done.

        Raises:
            UsageError: a number is negative, not finite or too large.
        """
        limits = {"shift_mm": _MOST_SHIFT_MM, "scale": _MOST_SCALE, "gain": 1.0}
        for field in fields(self):
            value, most = float(getattr(self, field.name)), limits.get(field.name, 4096.0)
            if not 0 <= value <= most:
                raise UsageError(f"{value:g} is not between 0 and {most:g}", where=f"augmentation {field.name}")


@dataclass(frozen=True, slots=True)
class Draws:
    """What was drawn for the rows of a request, one value a row."""

    shift_px: NDArray[np.float64]
    """(n, 2): along x, then y, in whole pixels of the patch."""
    zoom: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    """In grey levels."""
    noise: NDArray[np.float32]
    """Standard deviation in grey levels."""
    noise_at: NDArray[np.float64]
    """Where a row's noise begins, 0 to 1."""

    def of(self, positions: NDArray[np.int64]) -> "Draws":
        """What was drawn for some of the rows."""
        return Draws(*(getattr(self, field.name)[positions] for field in fields(self)))


def draw(settings: Augmentation | None, count: int, rng: np.random.Generator | None) -> Draws:
    """Draw for `count` rows; without settings every row stays as it is.

    Raises:
        ValueError: there are settings and no generator.
    """
    if settings is None:
        ones, zeros = np.ones(count), np.zeros(count)
        return Draws(
            np.zeros((count, 2)),
            ones,
            np.zeros(count, bool),
            ones.astype(np.float32),
            zeros.astype(np.float32),
            zeros.astype(np.float32),
            zeros,
        )
    if rng is None:
        raise ValueError("augmentation needs a generator")
    # One block, whatever the settings: switching one of them off leaves the others' values as they were.
    uniform = rng.random((count, 8))
    swing = 2 * uniform - 1
    per_hu = GREY_LEVELS / (WINDOW_HU[1] - WINDOW_HU[0])
    return Draws(
        shift_px=np.rint(swing[:, :2] * settings.shift_mm / PIXEL_MM),
        zoom=np.exp(swing[:, 2] * math.log1p(settings.scale)),
        mirrored=(uniform[:, 3] < 0.5) & settings.flip,
        gain=(1 + swing[:, 4] * settings.gain).astype(np.float32),
        offset=(swing[:, 5] * settings.offset_hu * per_hu).astype(np.float32),
        noise=(uniform[:, 6] * settings.noise_hu * per_hu).astype(np.float32),
        noise_at=uniform[:, 7],
    )


@dataclass(frozen=True, slots=True)
class View:
    """A square window of a patch."""

    left: float
    """Its edges in pixels of the patch; 0 is the patch's own edge."""
    top: float
    step: float
    """Pixels of the patch that one of the image covers."""
    side: int
    """Of the image, in pixels."""
    mirrored: bool

    @property
    def plain(self) -> bool:
        """Whether the image's pixels are pixels of the patch."""
        return abs(self.step - 1) < _ON_PIXEL and self.left == round(self.left) and self.top == round(self.top)


def image_side(patch_side: int, scale_mm: float, settings: Augmentation | None) -> int:
    """Rows and columns of the image that a patch becomes."""
    crop = math.ceil(settings.shift_mm / PIXEL_MM) if settings else 0
    # An even side keeps a crop on whole pixels; the sliver beyond the last one is left out.
    return max(2, math.floor((patch_side - 2 * crop) * PIXEL_MM / scale_mm + _ON_PIXEL) // 2 * 2)


def view_of(
    patch_side: int,
    scale_mm: float,
    settings: Augmentation | None,
    draws: Draws,
    row: int,
    box: NDArray[np.float32],
) -> View:
    """The window that was drawn for a row; it moves no farther than the patch's box stays in it."""
    side = image_side(patch_side, scale_mm, settings)
    step = scale_mm / PIXEL_MM / float(draws.zoom[row])
    room = np.floor(np.maximum(0, side * step / 2 - np.maximum(patch_side / 2 - box[:2], box[2:] - patch_side / 2)))
    shift = np.clip(draws.shift_px[row], -room, room)
    left, top = patch_side / 2 + shift - side * step / 2
    return View(float(left), float(top), step, side, bool(draws.mirrored[row]))


def boxes_in_view(boxes: NDArray[np.float32], view: View) -> NDArray[np.float32]:
    """Boxes (n, 4) of a patch in pixels of the image, cut at its edges."""
    corner = np.array([view.left, view.top, view.left, view.top])
    moved = (boxes.astype(np.float64) - corner) / view.step
    if view.mirrored:
        moved[:, [0, 2]] = view.side - moved[:, [2, 0]]
    inside: NDArray[np.float32] = np.clip(moved, 0, view.side).astype(np.float32)
    return inside


def look(pixels: NDArray[np.int16], view: View, out: NDArray[np.float32]) -> None:
    """Fill `out` (3, side, side) with a patch's view, in grey levels 0…255 of the one window."""
    low, high = (int(end) for end in WINDOW_HU)
    if view.plain and _inside(view, pixels.shape[1]):
        left, top = round(view.left), round(view.top)
        part = pixels[:, top : top + view.side, left : left + view.side]
        np.copyto(out, np.clip(part[:, :, ::-1] if view.mirrored else part, low, high))
    else:
        out[:] = _averaged(pixels, view, low, high)
    out -= low
    out *= GREY_LEVELS / (high - low)


def brighten(image: NDArray[np.float32], draws: Draws, row: int) -> None:
    """Apply a row's gain, offset and noise in place, and keep to the grey levels."""
    gain, offset, noise = draws.gain[row], draws.offset[row], draws.noise[row]
    if gain == 1 and offset == 0 and noise == 0:
        return
    image *= gain
    image += offset
    if noise:
        # Somewhere in one stretch of noise: drawing it anew for every pixel would take longer than all the rest.
        stretch = _noise()
        start = int(draws.noise_at[row] * (stretch.size - image.size))
        image += stretch[start : start + image.size].reshape(image.shape) * noise
    np.clip(image, 0, GREY_LEVELS, out=image)


@functools.cache
def _noise() -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.random.Generator(np.random.SFC64(0)).standard_normal(_NOISE_VALUES, np.float32)
    return values


def _inside(view: View, patch_side: int) -> bool:
    return min(view.left, view.top) >= 0 and max(view.left, view.top) + view.side <= patch_side


def _averaged(pixels: NDArray[np.int16], view: View, low: int, high: int) -> NDArray[np.float32]:
    patch_side, side = pixels.shape[1], view.side
    first_row, down = _area_weights(view.top, view.step, side, patch_side)
    first_column, across = _area_weights(view.left, view.step, side, patch_side)
    height, width = down.shape[1], across.shape[1]
    part = pixels[:, first_row : first_row + height, first_column : first_column + width]
    # (row, slice, column): one product then works on whole rows of all three slices.
    rows = np.clip(part.transpose(1, 0, 2), low, high).astype(np.float32)
    done = (down @ rows.reshape(height, -1)).reshape(side * SLICES_PER_PATCH, width)
    image = (across @ np.ascontiguousarray(done.T)).reshape(side, side, SLICES_PER_PATCH)
    turned: NDArray[np.float32] = (image[::-1] if view.mirrored else image).transpose(2, 1, 0)
    return turned


def _area_weights(start: float, step: float, count: int, length: int) -> tuple[int, csr_array]:
    """The first pixel of a line that is needed, and what those from there add to each of `count` pixels of `step`."""
    if step >= 1:
        edges = start + np.arange(count + 1) * step
        taps = np.floor(edges[:-1])[:, None] + np.arange(math.ceil(step) + 1)
        weights = np.minimum(taps + 1, edges[1:, None]) - np.maximum(taps, edges[:-1, None])
    else:
        middles = start + (np.arange(count) + 0.5) * step - 0.5
        taps = np.floor(middles)[:, None] + np.arange(2)
        weights = 1 - np.abs(taps - middles[:, None])
    weights = np.maximum(weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    inside = np.clip(taps, 0, length - 1).astype(np.int64)
    first, last = int(inside.min()), int(inside.max())
    starts = np.arange(0, inside.size + 1, inside.shape[1])
    return first, csr_array(
        (weights.astype(np.float32).ravel(), inside.ravel() - first, starts), shape=(count, last - first + 1)
    )
