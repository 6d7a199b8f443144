"""What a detector finds on stacks whose lesions are known, scored as the papers do it, for the model's card.

May import: lesionary, numpy, trainers.detector.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from lesionary.anatomy import LESION_TYPES
from trainers.detector.evaluate import Detections, Protocol, Truth, froc, top_one
from trainers.detector.inference import Finder
from trainers.detector.source import StackSource, plain_batch

_AT_ONCE = 8
# Lesions beyond this are scored by themselves as well: small ones are another matter.
LARGE_MM = 15.0


def marked_rows(source: StackSource, split: str) -> NDArray[np.int64]:
    """The stacks of a split that show a lesion."""
    marked = np.array([bool(lesions) for lesions in source.lesion_ids], bool)
    return np.flatnonzero(marked & (source.splits == split))


def truth_of(
    source: StackSource, rows: NDArray[np.int64], padding_px: float, categories: Mapping[str, int] | None = None
) -> Truth:
    """The lesions of some stacks: image after image, boxes padded."""
    images = [at for at, row in enumerate(rows.tolist()) for _ in source.lesion_ids[row]]
    boxes = [source.padded_boxes(row, padding_px) for row in rows.tolist()]
    lesions = [lesion for row in rows.tolist() for lesion in source.lesion_ids[row]]
    types = [kind for row in rows.tolist() for kind in source.types[row]]
    _, patients = np.unique(source.patient_ids[rows].astype(str), return_inverse=True)
    return Truth(
        patients=patients.astype(np.int64),
        images=np.array(images, np.int64),
        boxes=np.concatenate([np.empty((0, 4)), *boxes]).astype(np.float64),
        types=np.array([-1 if kind is None else LESION_TYPES.index(kind) for kind in types], np.int64),
        categories=np.array([-1 if categories is None else categories.get(one, -1) for one in lesions], np.int64),
        long_mm=np.array([one for row in rows.tolist() for one in source.long_mm[row]], np.float64),
        short_mm=np.array([one for row in rows.tolist() for one in source.short_mm[row]], np.float64),
        noisy=np.array([one for row in rows.tolist() for one in source.noisy[row]], np.bool_),
    )


def found_on(finder: Finder, source: StackSource, rows: NDArray[np.int64]) -> Detections:
    """What a detector finds on some stacks, in the boxes of `truth_of`."""
    images, boxes, scores, categories = [], [], [], []
    for positions in _of_like_size(source, rows):
        batch = plain_batch(source, rows[positions].tolist(), finder.detector.settings)
        for at, one in zip(positions.tolist(), finder.ask(batch.images, batch.sizes), strict=True):
            images.append(np.full(len(one.scores), at))
            boxes.append(one.boxes.cpu().numpy())
            scores.append(one.scores.cpu().numpy())
            categories.append(one.categories.cpu().numpy())
    return Detections(
        images=np.concatenate([np.empty(0, np.int64), *images]),
        boxes=np.concatenate([np.empty((0, 4)), *boxes]).astype(np.float64),
        scores=np.concatenate([np.empty(0), *scores]).astype(np.float64),
        categories=np.concatenate([np.empty(0, np.int64), *categories]),
    )


def scores_for_card(truth: Truth, found: Detections) -> dict[str, float | None]:
    """The figures that a card shows: top-1 accuracy (IoU over 0.5), and sensitivity at 1 and 4 false positives."""
    large = truth.long_mm > LARGE_MM
    # Images that show a lesion beyond the limit; their small ones stay lesions.
    has_large = np.bincount(truth.images[large], minlength=truth.image_count) > 0
    curve = froc(truth, found, Protocol(rates=(1.0, 4.0)))
    surest = top_one(truth, found)
    of_large = top_one(truth.only_images(has_large), found.on_images(has_large)) if has_large.any() else None
    values = {
        "top_one": surest.all.accuracy.value,
        f"top_one_over_{LARGE_MM:g}_mm": None if of_large is None else of_large.all.accuracy.value,
        "sensitivity_at_1": curve.all.sensitivities[0].value,
        "sensitivity_at_4": curve.all.sensitivities[1].value,
    }
    return {
        name: None if value is None or not np.isfinite(value) else round(value, 4) for name, value in values.items()
    }


def _of_like_size(source: StackSource, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Positions of `rows`, those of like size together, so that little is padded."""
    order = np.lexsort(source.sides[rows].T)
    for start in range(0, len(order), _AT_ONCE):
        yield order[start : start + _AT_ONCE]
