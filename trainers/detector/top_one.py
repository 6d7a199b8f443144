"""Top-1 accuracy, as the 2017 paper has it: is an image's surest box on a lesion, whatever its class?

Boxes in ignore regions count neither way: the surest of the others is asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainers.detector.evaluation_data import Detections, Flags, Numbers, Truth, Whole
from trainers.detector.intervals import Estimate, Resampling, estimates, share
from trainers.detector.overlaps import Pairs, pairs_of, reaches
from trainers.detector.protocols import ROUNDING, TOP_ONE_OVERLAPS, Protocol
from trainers.detector.scene import Scene, scene_of
from trainers.detector.strata import Stratum, strata_of


@dataclass(frozen=True, slots=True)
class TopOneScores:
    """Of the images that show a lesion of one stratum."""

    group: str
    name: str
    images: int
    accuracy: Estimate
    """Share of images whose surest box overlaps such a lesion by more than the threshold."""


@dataclass(frozen=True, slots=True)
class TopOne:
    """What the surest box of each image is worth."""

    threshold: float
    images: int
    """With a lesion; others do not count."""
    without_box: int
    """Of these, images on which nothing was found."""
    strata: tuple[TopOneScores, ...]
    sweep_overlaps: tuple[float, ...]
    sweep: tuple[float | None, ...]
    """Accuracy at each of them."""

    @property
    def all(self) -> TopOneScores:
        """Of all lesions."""
        return self.strata[0]


def top_one(
    truth: Truth,
    found: Detections,
    protocol: Protocol | None = None,
    strata: Sequence[Stratum] | None = None,
    resampling: Resampling | None = None,
) -> TopOne:
    """Share of images whose surest box overlaps a lesion by more than the threshold.

    Args:
        truth: what is there.
        found: what a detector found.
        protocol: how to measure overlap; Lesionary's own unless given.
        strata: parts of what a protocol keeps of the truth; all lesions alone unless given.
        resampling: for intervals.

    Raises:
        UsageError: the truth and the detections do not fit together, or not the protocol.
    """
    protocol = protocol or Protocol()
    scene = scene_of(truth, found, protocol)
    pairs = pairs_of(scene.truth, scene.detections, protocol)
    return top_one_of_pairs(scene, pairs, protocol, strata or strata_of(scene.truth)[:1], resampling or Resampling())


def top_one_of_pairs(
    scene: Scene, pairs: Pairs, protocol: Protocol, strata: Sequence[Stratum], resampling: Resampling
) -> TopOne:
    """The same for pairs that are known already."""
    truth, found = scene.truth, scene.detections
    surest_boxes = _surest(scene, pairs, protocol.threshold)
    surest = surest_boxes[pairs.detections] & ~truth.ignore[pairs.lesions]
    best = np.array([_best(truth, pairs, surest & part.members[pairs.lesions]) for part in strata])
    shown = np.array([np.bincount(truth.images[part.members], minlength=truth.image_count) > 0 for part in strata])
    with_lesion = np.bincount(truth.images[~truth.ignore], minlength=truth.image_count) > 0
    with_box = np.bincount(found.images[surest_boxes], minlength=truth.image_count) > 0
    patients, count = scene.patients()
    right = _by_patient(shown & (best > protocol.threshold + ROUNDING), patients, count)
    shown_by_patient = _by_patient(shown, patients, count)

    def figures(weights: Whole) -> Numbers:
        return share(weights @ right.T, weights @ shown_by_patient.T)

    found_scores = estimates(figures, count, resampling, count)
    everywhere = _best(truth, pairs, surest)[with_lesion]
    return TopOne(
        threshold=protocol.threshold,
        images=int(with_lesion.sum()),
        without_box=int((with_lesion & ~with_box).sum()),
        strata=tuple(
            TopOneScores(part.group, part.name, int(images.sum()), accuracy)
            for part, images, accuracy in zip(strata, shown, found_scores, strict=True)
        ),
        sweep_overlaps=TOP_ONE_OVERLAPS,
        sweep=tuple(
            float((everywhere > overlap + ROUNDING).mean()) if everywhere.size else None for overlap in TOP_ONE_OVERLAPS
        ),
    )


def _surest(scene: Scene, pairs: Pairs, threshold: float) -> Flags:
    """(detections,) is its image's surest, those left out that lie in an ignore region and hit no lesion."""
    enough, in_region = reaches(pairs, threshold), scene.truth.ignore[pairs.lesions]
    aside, surest = np.zeros(scene.detections.count, bool), np.zeros(scene.detections.count, bool)
    aside[pairs.detections[enough & in_region]] = True
    aside[pairs.detections[enough & ~in_region]] = False
    counted = np.flatnonzero(~aside)
    _, firsts = np.unique(scene.detections.images[counted], return_index=True)
    surest[counted[firsts]] = True
    return surest


def _best(truth: Truth, pairs: Pairs, chosen: Flags) -> Numbers:
    """(images,) the largest overlap among some pairs; 0 without one."""
    best = np.zeros(truth.image_count)
    np.maximum.at(best, truth.images[pairs.lesions[chosen]], pairs.overlaps[chosen])
    return best


def _by_patient(flags: Flags, patients: Whole, count: int) -> Numbers:
    return np.array([np.bincount(patients[row], minlength=count) for row in flags], np.float64)
