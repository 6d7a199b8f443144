"""Scoring detections: a whole evaluation, FROC and average precision, beside plain loops and pycocotools.

    python benchmarks/bench_detection_scores.py [--rounds 5] [--images 5000] [--boxes 50000]

Images, lesions and boxes are drawn: a lesion on every image and a second one on a few, as in the official test split;
one box in six lies near a lesion. The plain loops go through boxes one by one, each compared with the lesions of its
own image, as the public code of 3DCE does. Both take the same arrays, which the plain loops first turn into lists image
by image, and their figures are the same, which is checked. The plain whole evaluation leaves out what ours has besides:
types, sizes and further strata, curves, the area under precision over recall. pycocotools gets its own index ready
before the clock starts. All run on one thread; seconds are the processor's, so that a busy machine changes them little.
"""

import argparse
import contextlib
import io
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from measure import measured, median, ratio, report

from trainers.detector.evaluate import (
    PUBLISHED,
    Detections,
    EvaluationSettings,
    Protocol,
    Resampling,
    Truth,
    average_precision,
    evaluate,
    froc,
)
from trainers.detector.protocols import TOP_ONE_OVERLAPS

_TYPES = tuple("abcdefgh")
_THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--boxes", type=int, default=50_000)
    with measured(parser, quick={"rounds": 2, "images": 500, "boxes": 5_000}) as arguments:
        truth, found = draw(arguments.images, arguments.boxes)
        theirs = coco_tool(truth, found)
        plain_settings = EvaluationSettings(type_names=_TYPES)
        with_intervals = EvaluationSettings(type_names=_TYPES, resampling=Resampling(1_000))
        coco = PUBLISHED["coco"]
        works: dict[str, Callable[[], object]] = {
            "whole evaluation": lambda: evaluate(truth, found, plain_settings),
            "the same, 1,000 resamples": lambda: evaluate(truth, found, with_intervals),
            "plain whole evaluation": lambda: plain_evaluation(truth, found),
            "froc": lambda: froc(truth, found),
            "plain froc": lambda: plain_froc(*by_image(truth, found), Protocol()),
            "average precision": lambda: average_precision(truth, found, coco),
            "plain average precision": lambda: plain_average_precision(*by_image(truth, found)),
            "pycocotools": theirs,
        }
        taken: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(arguments.rounds):
            for name, work in works.items():
                # One of ours is over before the machine has settled.
                for _ in range(1 if name.startswith(("plain", "pyco")) else 3):
                    taken[name].append(seconds(work))
        check(truth, found, theirs)
        print(
            f"{found.count:,} boxes on {truth.image_count:,} images, {len(truth.images):,} lesions; medians in seconds"
        )
        for name, values in taken.items():
            print(f"  {name:28} {median(values):8.4f}")
        whole = median(taken["whole evaluation"])
        report("a whole evaluation", f"{whole:.2f} s", "< 3", holds=whole < 3)
        intervals = median(taken["the same, 1,000 resamples"])
        report("with intervals of 1,000 resamples", f"{intervals:.2f} s", "< 3", holds=intervals < 3)
        for name in ("whole evaluation", "froc", "average precision"):
            ratio(f"{name}, over the plain loop", median(taken[f"plain {name}"]) / median(taken[name]), at_least=20)
        ratio("average precision, over pycocotools", median(taken["pycocotools"]) / median(taken["average precision"]))


def draw(images: int, boxes: int) -> tuple[Truth, Detections]:
    """Lesions, and boxes of which one in six is near one; no two scores are equal."""
    random = np.random.default_rng(17)
    owners = np.concatenate([np.arange(images), random.integers(0, images, images // 50)])
    corners, sides = random.uniform(0, 450, (len(owners), 2)), random.uniform(12, 50, (len(owners), 2))
    truth = Truth(
        patients=np.arange(images) // 7, images=owners, boxes=np.hstack([corners, corners + sides]),
        types=random.integers(0, len(_TYPES), len(owners)), long_mm=random.uniform(3, 60, len(owners)),
        short_mm=random.uniform(2, 40, len(owners)), noisy=random.random(len(owners)) < 0.003,
        intervals_mm=random.choice([1.0, 5.0], images),
    )  # fmt: skip
    near = random.random(boxes) < 1 / 6
    places, wide = random.uniform(0, 450, (boxes, 2)), random.uniform(12, 50, (boxes, 2))
    found = np.hstack([places, places + wide])
    targets = random.integers(0, len(owners), boxes)
    found[near] = truth.boxes[targets[near]] + random.normal(0, 4, (int(near.sum()), 4))
    found[:, 2:] = np.maximum(found[:, 2:], found[:, :2])
    scores = (random.permutation(boxes) + near * boxes) / (2 * boxes)
    images_of = np.where(near, owners[targets], random.integers(0, images, boxes))
    return truth, Detections(images=images_of, boxes=found, scores=scores)


def by_image(truth: Truth, found: Detections) -> tuple[list[list[Any]], list[list[Any]]]:
    """Lists for the plain loops: of every image, lesions that are not in doubt, and boxes with scores, surest first."""
    clean = truth.lesions(~truth.noisy)
    lost = np.bincount(truth.images[truth.noisy], minlength=truth.image_count) > 0
    held = np.bincount(clean.images, minlength=truth.image_count) > 0
    images = np.flatnonzero(held | ~lost).tolist()
    lesions: dict[int, list[Any]] = {image: [] for image in images}
    boxes: dict[int, list[Any]] = {image: [] for image in images}
    for image, box in zip(clean.images.tolist(), clean.boxes.tolist(), strict=True):
        lesions[image].append(box)
    for image, box, score in zip(found.images.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True):
        if image in boxes:
            boxes[image].append((score, box))
    for rows in boxes.values():
        rows.sort(key=lambda row: -row[0])
    return [lesions[image] for image in images], [boxes[image] for image in images]


def overlap(box: list[float], other: list[float]) -> float:
    """Intersection over union."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / ((box[2] - box[0]) * (box[3] - box[1]) + (other[2] - other[0]) * (other[3] - other[1]) - shared)


def plain_evaluation(truth: Truth, found: Detections) -> tuple[list[float], list[float], float]:
    """FROC, the sweep of the top-1 accuracy, and average precision."""
    lesions, boxes = by_image(truth, found)
    best = [
        max(overlap(rows[0][1], other) for other in mine) if rows else 0.0
        for mine, rows in zip(lesions, boxes, strict=True)
        if mine
    ]
    sweep = [sum(value > asked for value in best) / len(best) for asked in TOP_ONE_OVERLAPS]
    return plain_froc(lesions, boxes, Protocol()), sweep, plain_average_precision(lesions, boxes)


def plain_froc(lesions: list[list[Any]], boxes: list[list[Any]], protocol: Protocol) -> list[float]:
    """As 3DCE's: box after box, over all images."""
    ranked = [(score, image, box) for image, rows in enumerate(boxes) for score, box in rows[: protocol.most_boxes]]
    ranked.sort(key=lambda row: -row[0])
    hit = [[False] * len(rows) for rows in lesions]
    total = sum(map(len, lesions))
    right = wrong = 0
    found, rates = [], [rate * len(lesions) for rate in protocol.rates]
    for _, image, box in ranked:
        overlaps = [overlap(box, other) for other in lesions[image]]
        if not overlaps or max(overlaps) < protocol.threshold:
            wrong += 1
            while len(found) < len(rates) and wrong > rates[len(found)]:
                found.append(right / total)
        else:
            for at, value in enumerate(overlaps):
                if value >= protocol.threshold and not hit[image][at]:
                    hit[image][at] = True
                    right += 1
    return found + [right / total] * (len(rates) - len(found))


def plain_average_precision(lesions: list[list[Any]], boxes: list[list[Any]]) -> float:
    """As COCO's: greedy in each image, 101 recalls, mean over ten thresholds; overlaps are found once."""
    total = sum(map(len, lesions))
    overlaps = [
        [[overlap(box, other) for other in mine] for _, box in rows] for mine, rows in zip(lesions, boxes, strict=True)
    ]
    values = []
    for threshold in _THRESHOLDS:
        judged = []
        for mine, rows, shared in zip(lesions, boxes, overlaps, strict=True):
            taken = [False] * len(mine)
            for (score, _), values_of_box in zip(rows[:100], shared, strict=False):
                best, choice = threshold, -1
                for at, value in enumerate(values_of_box):
                    if value >= best and not taken[at]:
                        best, choice = value, at
                if choice >= 0:
                    taken[choice] = True
                judged.append((score, choice >= 0))
        judged.sort(key=lambda row: -row[0])
        values.append(_interpolated([right for _, right in judged], total))
    return math.fsum(values) / len(values)


def _interpolated(judged: list[bool], total: int) -> float:
    right, points = 0, []
    for at, one in enumerate(judged):
        right += one
        points.append((right / total, right / (at + 1)))
    best, envelope = 0.0, []
    for recall, precision in reversed(points):
        best = max(best, precision)
        envelope.append((recall, best))
    envelope.reverse()
    found, place = 0.0, 0
    for step in range(101):
        while place < len(envelope) and envelope[place][0] < step * 0.01:
            place += 1
        found += envelope[place][1] if place < len(envelope) else 0.0
    return found / 101


def coco_tool(truth: Truth, found: Detections) -> Callable[[], float]:
    """pycocotools, its index ready; gives the average precision."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def listed(boxes: Any) -> list[list[float]]:
        return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()

    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "images": [{"id": image} for image in range(truth.image_count)],
            "categories": [{"id": 1, "name": "lesion"}],
            "annotations": [
                {"id": at + 1, "image_id": image, "category_id": 1, "bbox": box, "iscrowd": 0, "area": box[2] * box[3]}
                for at, (image, box) in enumerate(zip(truth.images.tolist(), listed(truth.boxes), strict=True))
            ],
        }
        known.createIndex()
        rows = zip(found.images.tolist(), listed(found.boxes), found.scores.tolist(), strict=True)
        results = known.loadRes(
            [{"image_id": image, "category_id": 1, "bbox": box, "score": score} for image, box, score in rows]
        )

    def work() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = COCOeval(known, results, "bbox")
            # One range of sizes and one number of boxes, as ours.
            evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
            evaluation.params.maxDets = [100]
            evaluation.evaluate()
            evaluation.accumulate()
        return float(evaluation.eval["precision"].mean())

    return work


def check(truth: Truth, found: Detections, theirs: Callable[[], float]) -> None:
    """All say the same."""
    scores = evaluate(truth, found)
    ours = [one.value or 0.0 for one in scores.froc.all.sensitivities]
    sensitivities, sweep, precision = plain_evaluation(truth, found)
    clean = average_precision(truth, found, Protocol(most_boxes=100)).all.coco or 0.0
    precise = average_precision(truth, found, PUBLISHED["coco"]).all.coco or 0.0
    same = (
        np.allclose(ours, sensitivities, rtol=0, atol=1e-12),
        np.allclose([one or 0.0 for one in scores.top_one.sweep], sweep, rtol=0, atol=1e-12),
        math.isclose(clean, precision, abs_tol=1e-12),
        math.isclose(precise, theirs(), abs_tol=1e-6),
    )
    if not all(same):
        raise SystemExit(f"the figures differ: {same}")


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


if __name__ == "__main__":
    main()
