"""How good a detector is: FROC, top-1 accuracy and average precision of one set of detections, under one protocol.

    truth = Truth(patients=…, images=…, boxes=…)
    found = Detections(images=…, boxes=…, scores=…)
    froc(truth, found).all.mean.value        top_one(truth, found).all.accuracy.value
    evaluate(truth, found, EvaluationSettings(resampling=Resampling(1000)))

Needs numpy alone. docs/detection-scores.md says what each protocol counts, and whose figures it stands beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from trainers.detector.average_precision import AveragePrecision, average_precision, average_precision_of_pairs
from trainers.detector.evaluation_data import Detections, SliceBoxes, Truth
from trainers.detector.froc import Froc, froc, froc_of_hits
from trainers.detector.hits import hits_of
from trainers.detector.intervals import Estimate, Resampling
from trainers.detector.overlaps import pairs_of
from trainers.detector.protocols import PUBLISHED, Protocol
from trainers.detector.scene import scene_of
from trainers.detector.strata import SIZE_EDGES_MM, Stratum, strata_of
from trainers.detector.top_one import TopOne, top_one, top_one_of_pairs

__all__ = [
    "PUBLISHED", "AveragePrecision", "DetectionScores", "Detections", "Estimate", "EvaluationSettings", "Froc",
    "Protocol", "Resampling", "SliceBoxes", "Stratum", "TopOne", "Truth", "average_precision", "evaluate", "froc",
    "top_one",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """How an evaluation is made."""

    protocol: Protocol = field(default_factory=Protocol)
    type_names: Sequence[str] = ()
    """Of the truth's types, by their numbers; strata are made of them."""
    category_names: Sequence[str] = ()
    """Of the truth's categories; the same."""
    size_edges_mm: Sequence[float] = SIZE_EDGES_MM
    resampling: Resampling = field(default_factory=Resampling)


@dataclass(frozen=True, slots=True)
class DetectionScores:
    """Everything that is said of one set of detections."""

    froc: Froc
    top_one: TopOne
    average_precision: AveragePrecision
    lesions: int
    """That count."""
    images_dropped: int
    """Whose lesions were all noisy."""
    lesions_dropped: int
    """Noisy ones."""
    regions: int
    """In which detections count neither way."""
    detections: int
    """That count: the surest of each image."""
    detections_left_out: int
    """On images that were dropped, below the least score, or beyond the most boxes of an image."""


def evaluate(truth: Truth, found: Detections, settings: EvaluationSettings | None = None) -> DetectionScores:
    """Score one set of detections.

    Raises:
        UsageError: the truth and the detections do not fit together, or not the protocol.
    """
    settings = settings or EvaluationSettings()
    protocol = settings.protocol
    scene = scene_of(truth, found, protocol)
    strata = strata_of(
        scene.truth,
        settings.type_names,
        category_names=settings.category_names,
        size_edges_mm=settings.size_edges_mm,
    )
    pairs = pairs_of(scene.truth, scene.detections, protocol)
    hits = hits_of(scene, pairs, protocol.threshold, protocol.assignment)
    return DetectionScores(
        froc=froc_of_hits(scene, hits, protocol, strata, settings.resampling),
        top_one=top_one_of_pairs(scene, pairs, protocol, strata, settings.resampling),
        average_precision=average_precision_of_pairs(scene, pairs, protocol, settings.resampling),
        lesions=int((~scene.truth.ignore).sum()),
        images_dropped=truth.image_count - scene.truth.image_count,
        lesions_dropped=len(truth.images) - len(scene.truth.images),
        regions=int(scene.truth.ignore.sum()),
        detections=scene.detections.count,
        detections_left_out=found.count - scene.detections.count,
    )
