"""Which detection hits which lesion, and which are false positives, by the policies of a protocol."""

from dataclasses import dataclass

import numpy as np

from trainers.detector.evaluation_data import Flags, Whole
from trainers.detector.overlaps import Pairs, reaches
from trainers.detector.protocols import Assignment, SecondHits
from trainers.detector.scene import Scene


@dataclass(frozen=True, slots=True)
class Hits:
    """What became of every lesion and every detection of a scene."""

    first_hits: Whole
    """(lesions,) place of the first detection that hits it; the number of detections where none does, or where it is
    an ignore region."""
    right: Flags
    """(detections,) is the first to hit some lesion."""
    ignored: Flags
    """(detections,) hits no lesion first, but lies in an ignore region."""
    second: Flags
    """(detections,) hits only lesions that surer ones have hit."""

    def false_positives(self, second_hits: SecondHits) -> Flags:
        """(detections,) counts as wrong."""
        wrong = ~self.right & ~self.ignored
        return wrong if second_hits is SecondHits.FALSE_POSITIVE else wrong & ~self.second


def hits_of(scene: Scene, pairs: Pairs, threshold: float, assignment: Assignment) -> Hits:
    """Tell hits from misses.

    Args:
        scene: truth and ranked detections.
        pairs: of the scene.
        threshold: overlap that makes a hit.
        assignment: how many lesions one detection may hit.
    """
    count = scene.detections.count
    enough = reaches(pairs, threshold)
    in_region = scene.truth.ignore[pairs.lesions]
    detections, lesions = pairs.detections[enough & ~in_region], pairs.lesions[enough & ~in_region]
    first_hits = np.full(len(scene.truth.images), count)
    if assignment is Assignment.MANY:
        np.minimum.at(first_hits, lesions, detections)
    else:
        overlaps = pairs.overlaps[enough & ~in_region]
        _assign(first_hits, detections, lesions, np.lexsort((lesions, overlaps, detections)), scene.places)
    right, touching, inside = (np.zeros(count, bool) for _ in range(3))
    right[first_hits[first_hits < count]] = True
    touching[detections] = True
    inside[pairs.detections[enough & in_region]] = True
    ignored = inside & ~right
    return Hits(first_hits, right, ignored, touching & ~right & ~ignored)


def _assign(first_hits: Whole, detections: Whole, lesions: Whole, order: Whole, places: Whole) -> None:
    """Give each detection at most one lesion, as COCO does: of all images at once the surest, then the next.

    `order` sorts the pairs by detection, then overlap, so that a detection's last pair left is its choice.
    """
    nobody = len(places)
    detections, lesions = detections[order], lesions[order]
    rounds = places[detections]
    for turn in np.unique(rounds):
        # An image has one detection a round, so no two of them ask for the same lesion.
        asking = (rounds == turn) & (first_hits[lesions] == nobody)
        who, what = detections[asking], lesions[asking]
        last = np.ones(len(who), bool)
        last[:-1] = who[1:] != who[:-1]
        first_hits[what[last]] = who[last]
