"""How much detections and lesions of the same image share: in 2-D, on a lesion's key slice, or in 3-D."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError
from trainers.detector.evaluation_data import Detections, Flags, Numbers, Truth, Whole, places_by_image
from trainers.detector.protocols import ROUNDING, Dimensions, Overlap, Protocol


@dataclass(frozen=True, slots=True)
class Pairs:
    """Detections and lesions of the same image, by ascending detection, then lesion; those that share nothing too."""

    detections: Whole
    lesions: Whole
    overlaps: Numbers
    """As the protocol measures it; with an ignore region, the share of the detection that lies in it."""


def pairs_of(truth: Truth, found: Detections, protocol: Protocol) -> Pairs:
    """Every pair and what it shares.

    Raises:
        UsageError: the protocol needs slices that one side does not have.
    """
    detections, lesions = _same_image(found.images, truth.images, truth.image_count)
    detected, areas = found.boxes[detections], np.ones(len(detections))
    depths, shared_depths = (areas, areas), areas
    if protocol.dimensions is Dimensions.KEY_SLICE:
        detected, shared_depths = _on_key_slices(truth, found, detections, lesions)
    elif protocol.dimensions is Dimensions.VOLUME:
        depths, shared_depths = _depths(truth, found, detections, lesions)
    extra = 1.0 if protocol.plus_one else 0.0
    marked = truth.boxes[lesions]
    shared = _shared_area(detected, marked, extra) * shared_depths
    detected_size = _area(detected, extra) * depths[0]
    union = detected_size + _area(marked, extra) * depths[1] - shared
    of_detection = truth.ignore[lesions] | (protocol.overlap is Overlap.IOBB)
    whole = np.where(of_detection, detected_size, union)
    # Boxes without an area share nothing.
    overlaps = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)
    return Pairs(detections, lesions, overlaps)


def _same_image(detection_images: Whole, lesion_images: Whole, images: int) -> tuple[Whole, Whole]:
    by_image = places_by_image(lesion_images)
    counts = np.bincount(lesion_images, minlength=images)
    starts = np.cumsum(counts) - counts
    repeats = counts[detection_images]
    detections = np.repeat(np.arange(len(detection_images)), repeats)
    within = np.arange(len(detections)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    return detections, by_image[starts[detection_images][detections] + within]


def _shared_area(first: Numbers, second: Numbers, extra: float) -> Numbers:
    x0, y0, x1, y1 = first.T
    other_x0, other_y0, other_x1, other_y1 = second.T
    width: Numbers = np.minimum(x1, other_x1) - np.maximum(x0, other_x0) + extra
    height: Numbers = np.minimum(y1, other_y1) - np.maximum(y0, other_y0) + extra
    return np.maximum(width, 0.0) * np.maximum(height, 0.0)


def _area(boxes: Numbers, extra: float) -> Numbers:
    area: Numbers = (boxes[:, 2] - boxes[:, 0] + extra) * (boxes[:, 3] - boxes[:, 1] + extra)
    return area


def _on_key_slices(truth: Truth, found: Detections, detections: Whole, lesions: Whole) -> tuple[Numbers, Numbers]:
    """The detections' boxes on the lesions' key slices, and 1 where there is one, 0 where there is none."""
    if len(lesions) and not len(truth.key_slices):
        raise _missing("the lesions have no key slices")
    keys = truth.key_slices[lesions] if len(lesions) else lesions
    if found.slice_boxes is None:
        if len(detections) and not len(found.slices):
            raise _missing("the detections have neither slices nor boxes on slices")
        reach = found.slices[detections] if len(detections) else np.empty((0, 2), np.int64)
        return found.boxes[detections], ((reach[:, 0] <= keys) & (keys <= reach[:, 1])).astype(np.float64)
    held = found.slice_boxes
    if not len(held.owners):
        return found.boxes[detections], np.zeros(len(detections))
    # One number for each detection and slice: those that are there, sorted, and those that are asked for.
    lowest = min(int(held.slices.min()), int(keys.min(initial=held.slices.min())))
    span = max(int(held.slices.max()), int(keys.max(initial=held.slices.max()))) - lowest + 1
    there, asked = held.owners * span + held.slices - lowest, detections * span + keys - lowest
    order = np.argsort(there, kind="stable")
    places = order[np.minimum(np.searchsorted(there[order], asked), len(order) - 1)]
    return held.boxes[places], (there[places] == asked).astype(np.float64)


def _depths(
    truth: Truth, found: Detections, detections: Whole, lesions: Whole
) -> tuple[tuple[Numbers, Numbers], Numbers]:
    """Slices of both sides, and those that they share; a box on one slice is one slice deep."""
    if len(lesions) and not len(truth.slices):
        raise _missing("the lesions do not say which slices they reach through")
    if len(detections) and not len(found.slices):
        raise _missing("the detections do not say which slices they reach through")
    if not len(detections):
        nothing = np.zeros(0)
        return (nothing, nothing), nothing
    first, second = found.slices[detections], truth.slices[lesions]
    shared = np.minimum(first[:, 1], second[:, 1]) - np.maximum(first[:, 0], second[:, 0]) + 1
    return (_depth(first), _depth(second)), np.maximum(shared, 0).astype(np.float64)


def _depth(slices: NDArray[np.int64]) -> Numbers:
    return (slices[:, 1] - slices[:, 0] + 1).astype(np.float64)


def _missing(what: str) -> UsageError:
    return UsageError(what, where="dimensions", next_step="give them, or score in 2-D")


def reaches(pairs: Pairs, threshold: float) -> Flags:
    """Which pairs share at least so much."""
    return pairs.overlaps >= threshold - ROUNDING
