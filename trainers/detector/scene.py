"""What is left to compare once a protocol has had its say: which lesions and images count, and which boxes, ranked."""

from dataclasses import dataclass, replace

import numpy as np

from trainers.detector.evaluation_data import UNKNOWN, Detections, Flags, Truth, Whole, places_by_image
from trainers.detector.protocols import NoisyRows, Protocol


@dataclass(frozen=True, slots=True)
class Scene:
    """Truth and detections that count."""

    truth: Truth
    detections: Detections
    """Surest first over all images; of equal scores the lower image comes first, then the one given first."""
    places: Whole
    """(detections,) place among those of its image: 0 is its surest."""
    given: Detections
    """What was found in all, before images and boxes were left out."""
    images: Flags
    """Of the truth that was given, the images that stay."""

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
    found.check_against(truth)
    kept = keep_lesions(truth, protocol.noisy)
    places, within = _ranking(found, np.flatnonzero(kept.images[found.images]), protocol)
    detections = found.taken(places).with_images_numbered(kept.images)
    return Scene(kept.truth, detections, within, found, kept.images)


def of_category(scene: Scene, category: int, protocol: Protocol) -> Scene:
    """A scene of one category's lesions and detections; regions without a category are regions for all."""
    truth, found = scene.truth, scene.given
    members = (truth.categories == category) | (truth.ignore & (truth.categories == UNKNOWN))
    candidates = np.flatnonzero(scene.images[found.images] & (found.categories == category))
    places, within = _ranking(found, candidates, protocol)
    detections = found.taken(places).with_images_numbered(scene.images)
    return Scene(truth.lesions(members), detections, within, found, scene.images)


def _ranking(found: Detections, candidates: Whole, protocol: Protocol) -> tuple[Whole, Whole]:
    """The surest of each image, surest first, and their places among those of their image."""
    scores = found.scores[candidates]
    if protocol.least_score is not None:
        candidates = candidates[scores >= protocol.least_score]
        scores = found.scores[candidates]
    order = np.argsort(-scores)
    ranked = scores[order]
    # Only equal scores need the slower sort that ranks them by image, then as given.
    if (ranked[1:] == ranked[:-1]).any():
        order = np.lexsort((found.images[candidates], -scores))
    candidates = candidates[order]
    images = found.images[candidates]
    by_image = places_by_image(images)
    counts = np.bincount(images)
    within = np.empty(len(images), np.int64)
    within[by_image] = np.arange(len(images)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = within < protocol.most_boxes
    return candidates[kept], within[kept]
