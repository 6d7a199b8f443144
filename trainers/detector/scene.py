"""What is left to compare once a protocol has had its say: which lesions and images count, and which boxes, ranked."""

from dataclasses import dataclass, replace

import numpy as np

from trainers.detector.evaluation_data import Detections, Flags, Truth, Whole
from trainers.detector.protocols import NoisyRows, Protocol


@dataclass(frozen=True, slots=True)
class Scene:
    """Truth and detections that count."""

    truth: Truth
    detections: Detections
    """Surest first over all images; of equal scores the lower image comes first, then the one given first."""
    places: Whole
    """(detections,) place among those of its image: 0 is its surest."""
    every_detection: Detections
    """On these images, before the surest were kept; in no order."""

    def patients(self) -> tuple[Whole, int]:
        """(images,) the image's patient, numbered without gaps; and how many patients there are."""
        known, numbers = np.unique(self.truth.patients, return_inverse=True)
        return numbers, len(known)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the policy on noisy rows leaves."""

    truth: Truth
    images: Flags
    """Images of the truth that was given that stay."""


def keep_lesions(truth: Truth, policy: NoisyRows) -> Kept:
    """The lesions that count. Images whose lesions were all dropped go with them; images that had none stay."""
    everything = np.ones(truth.image_count, bool)
    if policy is NoisyRows.KEEP or not truth.noisy.any():
        return Kept(truth, everything)
    if policy is NoisyRows.REGION:
        return Kept(replace(truth, ignore=truth.ignore | truth.noisy), everything)
    stays = truth.ignore | ~truth.noisy
    lost = np.bincount(truth.images[~stays], minlength=truth.image_count) > 0
    held = np.bincount(truth.images[~truth.noisy & ~truth.ignore], minlength=truth.image_count) > 0
    images = ~lost | held
    return Kept(truth.lesions(stays).only_images(images), images)


def scene_of(truth: Truth, found: Detections, protocol: Protocol) -> Scene:
    """Apply a protocol's policies, rank what was found and keep each image's surest boxes.

    Raises:
        UsageError: a detection is on an image that the truth does not have.
    """
    kept = keep_lesions(truth, protocol.noisy)
    detections = found.checked_against(truth)
    if not kept.images.all():
        detections = detections.on_images(kept.images)
    return ranked(kept.truth, detections, protocol)


def ranked(truth: Truth, detections: Detections, protocol: Protocol) -> Scene:
    """Rank what was found and keep each image's surest boxes."""
    if protocol.least_score is not None:
        detections = detections.taken(detections.scores >= protocol.least_score)
    order = np.lexsort((detections.images, -detections.scores))
    places = _places(detections.images[order])
    kept = places < protocol.most_boxes
    return Scene(truth, detections.taken(order[kept]), places[kept], detections)


def _places(images: Whole) -> Whole:
    by_image = np.argsort(images, kind="stable")
    counts = np.bincount(images)
    starts = np.cumsum(counts) - counts
    places = np.empty(len(images), np.int64)
    places[by_image] = np.arange(len(images)) - np.repeat(starts, counts)
    return places
