"""A lesion's mask on one slice: what is told from its surroundings by HU, near the outline that is expected.

Every pixel is compared with two means: of the lesion around it, and of what lies outside around it. So a lesion may
border on lung on one side and on bone on the other, and where both means are alike the outline alone decides. A pixel
half way between the means is on the edge. Neighbours then persuade each other: a pixel's odds rise with the share of
its neighbourhood that is inside (mean field of a random field), which smooths noise and closes holes.

Everything is HU in floating point, on the grid of a `etl.mask_outlines.Frame`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from etl.mask_outlines import Frame, Outline

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]

# All from lesions of phantom patients other than those of the figures in docs/measure.md; all have a wide optimum.
# Belief: where it turns (in radii), its largest log odds, and what a pixel beyond the limits costs.
EDGE_RADII, LARGEST_BELIEF, BEYOND_COST = 0.95, 3.0, 4.0
# Beyond so many radii the outline ends it, whatever the limits are.
_FARTHEST_RADII, _FARTHEST_COST = 1.35, 8.0
# Evidence: its weight, the least noise (HU), and the share of the contrast that counts as such.
_EVIDENCE, _LEAST_NOISE_HU, _CONTRAST_SHARE = 0.6, 8.0, 0.45
# Farther from both means than this (squared, in twos of noise) a pixel is foreign to both: rather outside.
_FOREIGN_INSIDE, _FOREIGN_OUTSIDE = 5.0, 4.0
# Neighbourhoods: widths of the local means and of persuasion, in radii; pixels at the edge hold some of both sides.
_WIDTH_INSIDE, _WIDTH_OUTSIDE, _WIDTH_NEIGHBOURS, _LEAST_WIDTH_PX, _EDGE_PX = 0.45, 0.2, 0.15, 0.5, 0.5
_SURROUNDINGS_RADII = 2.0
_PERSUASION, _ROUNDS, _REFITS = 2.0, 6, 3
# Metal and air outside say no more than bone and fat.
_HU_RANGE = (-1024.0, 1500.0)
# Before the finer grid: half of what would blur an edge.
_DENOISE_PX = 0.3
# Up to here a Gaussian costs less than two means over squares.
_NARROW = 8.0
# Where nothing is near, the local mean becomes the mean of all.
_THIN = 0.02


@dataclass(frozen=True, slots=True)
class KeyFit:
    """A mask on the key slice, and what was learned there."""

    inside: Mask
    mean_inside_hu: Image
    noise_hu: float


def take(image: NDArray[np.int16], frame: Frame) -> Image:
    """The frame's part of a slice on the frame's grid."""
    part = np.clip(image[frame.part].astype(np.float32), *_HU_RANGE)
    smooth: Image = ndimage.gaussian_filter(part, _DENOISE_PX)
    if frame.finer == 1:
        return smooth
    fine: Image = ndimage.zoom(smooth, frame.finer, order=3, grid_mode=True, mode="nearest")
    return fine


def to_slice(inside: Mask, frame: Frame, shape: tuple[int, int]) -> Mask:
    """A mask of the grid on the whole slice: pixels that lie inside by half or more."""
    blocks = inside.reshape(frame.rows, frame.finer, frame.columns, frame.finer)
    whole = np.zeros(shape, bool)
    whole[frame.part] = blocks.mean(axis=(1, 3)) >= 0.5
    return whole


def middle_of(inside: Mask, frame: Frame) -> tuple[float, float]:
    """The middle of a mask of the grid, x and y in pixels of the slice."""
    rows, columns = np.nonzero(inside)
    x = frame.left_px - 0.5 + (float(columns.mean()) + 0.5) / frame.finer
    y = frame.top_px - 0.5 + (float(rows.mean()) + 0.5) / frame.finer
    return x, y


def fit_key_slice(pixels: Image, frame: Frame, outline: Outline) -> KeyFit | None:
    """The mask on the key slice; None when nothing inside stands out from its surroundings.

    Args:
        pixels: of the key slice, by `take`.
        frame: around the outline.
        outline: where the edge is expected.
    """
    belief = np.clip(outline.trust * (EDGE_RADII - frame.radii), -LARGEST_BELIEF, LARGEST_BELIEF)
    belief -= BEYOND_COST * np.maximum(frame.beyond_px, 0)
    belief -= _FARTHEST_COST * np.maximum(frame.radii - _FARTHEST_RADII, 0)
    seed = np.unravel_index(int(frame.radii.argmin()), frame.radii.shape)
    radius = outline.radius_px * frame.finer
    inside: Mask = frame.radii < EDGE_RADII
    if not inside.any():
        return None
    for _ in range(_REFITS):
        mean_inside, noise = _mean_inside(pixels, inside, radius, frame)
        odds = belief + _EVIDENCE * evidence(pixels, inside, mean_inside, noise, radius, frame)
        labels, count = ndimage.label(persuaded(odds, radius, frame))
        if count == 0:
            return None
        # The part with the centre; if that is a hole or a dent, the largest.
        chosen = labels[seed] or int(np.bincount(labels.ravel())[1:].argmax()) + 1
        inside = ndimage.binary_fill_holes(labels == chosen)
    return KeyFit(inside, mean_inside, noise)


def evidence(pixels: Image, inside: Mask, mean_inside: Image, noise_hu: float, radius: float, frame: Frame) -> Image:
    """Log odds by HU alone.

    Args:
        pixels: of the slice.
        inside: the mask as known so far, here or on the slice before; tells what is outside.
        mean_inside: the lesion's local mean.
        noise_hu: around it.
        radius: of the outline, in pixels of the grid.
        frame: the grid.
    """
    from_mask = ndimage.distance_transform_edt(~inside)
    outside = (from_mask > _EDGE_PX * frame.finer) & (frame.radii < _SURROUNDINGS_RADII)
    mean_outside = _local_mean(pixels, outside, _WIDTH_OUTSIDE * radius)
    twice_variance = 2 * (noise_hu**2 + (_CONTRAST_SHARE * (mean_inside - mean_outside)) ** 2)
    unlike_outside = np.minimum((pixels - mean_outside) ** 2 / twice_variance, _FOREIGN_OUTSIDE)
    unlike_inside = np.minimum((pixels - mean_inside) ** 2 / twice_variance, _FOREIGN_INSIDE)
    odds: Image = (unlike_outside - unlike_inside).astype(np.float32)
    return odds


def persuaded(odds: Image, radius: float, frame: Frame) -> Mask:
    """Which pixels are inside after their neighbours were heard."""
    width = max(_WIDTH_NEIGHBOURS * radius, _LEAST_WIDTH_PX * frame.finer)
    share = _share(odds)
    for _ in range(_ROUNDS):
        share = _share(odds + _PERSUASION * (2 * _smoothed(share, width) - 1))
    inside: Mask = share > 0.5
    return inside


def _mean_inside(pixels: Image, inside: Mask, radius: float, frame: Frame) -> tuple[Image, float]:
    depth = ndimage.distance_transform_edt(inside)
    # Of a thin lesion at least its ridge remains.
    core = depth > min(_EDGE_PX * frame.finer, 0.35 * float(depth.max()))
    mean = _local_mean(pixels, core, _WIDTH_INSIDE * radius)
    noise = float(np.sqrt(np.mean((pixels[core] - mean[core]) ** 2)))
    return mean, max(noise, _LEAST_NOISE_HU)


def _local_mean(pixels: Image, chosen: Mask, width: float) -> Image:
    """The mean of the chosen pixels around each pixel; of all the chosen where none is near."""
    weight = chosen.astype(np.float32)
    overall = float(pixels[chosen].mean() if chosen.any() else pixels.mean())
    near = _smoothed(weight, width)
    mean: Image = ((_smoothed(pixels * weight, width) + _THIN * overall) / (near + _THIN)).astype(np.float32)
    return mean


def _smoothed(image: Image, width: float) -> Image:
    """About a Gaussian of this standard deviation, at a cost that does not depend on it."""
    if width <= _NARROW:
        smooth: Image = ndimage.gaussian_filter(image, width, truncate=2.5)
        return smooth
    # Two means over squares have this variance together.
    side = round(float(np.sqrt(6 * width**2 + 1)))
    once = ndimage.uniform_filter(image, side, mode="nearest")
    twice: Image = ndimage.uniform_filter(once, side, mode="nearest")
    return twice


def _share(odds: Image) -> Image:
    share: Image = (1 / (1 + np.exp(-np.clip(odds, -30, 30)))).astype(np.float32)
    return share
