"""From the key slice's mask to a lesion in space: slice by slice up and down, each from the one before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from etl.mask_fitting import LARGEST_BELIEF, Image, KeyFit, Mask, evidence, persuaded, take
from etl.mask_outlines import Frame, Outline

# Along the body nothing was marked, so HU count for more than in the plane.
_EVIDENCE = 0.9
# Belief in the ellipsoid that goes on from the key slice's mask: how steeply it falls, per radius.
_TRUST_IN_ROUNDNESS = 4.0
# A section may be so much wider than the one before, per millimetre between them; each pixel beyond costs.
_WIDER_PER_MM, _WIDER_COST = 0.8, 3.0
# The lesion ends where its section is smaller than this share of the key slice's, or so many radii away.
_SMALLEST_SHARE, _FARTHEST_RADII = 0.08, 2.5


@dataclass(frozen=True, slots=True)
class Section:
    """The lesion on one slice, on the frame's grid."""

    slice_index: int
    inside: Mask


@dataclass(frozen=True, slots=True)
class Grown:
    """All sections but the key slice's, and whether the slices ended before the lesion did."""

    sections: tuple[Section, ...]
    cut_short: bool


def grow(
    read: Callable[[int], NDArray[np.int16]],
    slices: Sequence[tuple[int, float]],
    fit: KeyFit,
    frame: Frame,
    outline: Outline,
    pixel_mm: float,
) -> Grown:
    """Follow the lesion through neighbouring slices until it vanishes or they end.

    Args:
        read: a slice by its number.
        slices: connected, in order: numbers, and mm beyond the key slice.
        fit: the key slice's mask.
        frame: of the key slice; the same part of every slice is looked at.
        outline: of the key slice.
        pixel_mm: spacing of the pixels.
    """
    depth = ndimage.distance_transform_edt(fit.inside) - ndimage.distance_transform_edt(~fit.inside)
    inwards = np.maximum(1 - depth / max(float(depth.max()), 1.0), 0).astype(np.float32)
    radius_mm = outline.mean_radius_px * pixel_mm
    sections: list[Section] = []
    cut_short = False
    for side in (
        [one for one in reversed(slices) if one[1] < 0],
        [one for one in slices if one[1] > 0],
    ):
        before, before_mm, ended = fit.inside, 0.0, False
        for slice_index, away_mm in side:
            if abs(away_mm) > _FARTHEST_RADII * radius_mm:
                ended = True
                break
            pixels = take(read(slice_index), frame)
            wider_px = _WIDER_PER_MM * abs(away_mm - before_mm) / pixel_mm
            belief = _belief(inwards, abs(away_mm) / radius_mm, before, wider_px, frame)
            inside = _section(pixels, fit, before, belief, outline, frame)
            if np.count_nonzero(inside) < _SMALLEST_SHARE * np.count_nonzero(fit.inside):
                ended = True
                break
            sections.append(Section(slice_index, inside))
            before, before_mm = inside, away_mm
        cut_short = cut_short or not ended
    return Grown(tuple(sections), cut_short)


def _belief(inwards: Image, away: float, before: Mask, wider_px: float, frame: Frame) -> Image:
    """Log odds by shape: an ellipsoid as high as its mean radius, and not much wider than the section before."""
    radii = np.sqrt(inwards**2 + np.float32(away) ** 2)
    belief = np.clip(_TRUST_IN_ROUNDNESS * (1 - radii), -LARGEST_BELIEF, LARGEST_BELIEF)
    from_before = ndimage.distance_transform_edt(~before) / frame.finer
    limited: Image = (belief - _WIDER_COST * np.maximum(from_before - wider_px, 0)).astype(np.float32)
    return limited


def _section(pixels: Image, fit: KeyFit, before: Mask, belief: Image, outline: Outline, frame: Frame) -> Mask:
    """The part of this slice that goes on from the section before; empty when none does."""
    radius = outline.radius_px * frame.finer
    odds = belief + _EVIDENCE * evidence(pixels, before, fit.mean_inside_hu, fit.noise_hu, radius, frame)
    labels, count = ndimage.label(persuaded(odds, radius, frame))
    shared = np.bincount(labels[before], minlength=count + 1)
    shared[0] = 0
    if not shared.any():
        return np.zeros_like(before)
    inside: Mask = ndimage.binary_fill_holes(labels == int(shared.argmax()))
    return inside
