"""Every figure of the evaluator is what plain loops find, over hundreds of random cases per protocol."""

import dataclasses

import detection_oracle as plain
import numpy as np
import pytest

from trainers.detector.average_precision import COCO_OVERLAPS
from trainers.detector.evaluate import (
    PUBLISHED,
    Detections,
    Estimate,
    EvaluationSettings,
    Protocol,
    Resampling,
    SliceBoxes,
    Truth,
    average_precision,
    evaluate,
    froc,
    top_one,
)
from trainers.detector.intervals import patient_weights
from trainers.detector.protocols import (
    TOP_ONE_OVERLAPS,
    Assignment,
    BeyondCurve,
    Dimensions,
    NoisyRows,
    Overlap,
    SecondHits,
)

CASES = 500
TOLERANCE = 1e-12
# Few boxes on few images: rates as low as these are where curves differ.
RATES = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
PROTOCOLS = {name: dataclasses.replace(one, rates=RATES, most_boxes=4) for name, one in PUBLISHED.items()} | {
    "noisy rows as regions, one to one": Protocol(
        rates=RATES, noisy=NoisyRows.REGION, assignment=Assignment.ONE, beyond=BeyondCurve.EXTRAPOLATE
    ),
    "second hits are wrong, IoBB, least score": Protocol(
        rates=RATES, overlap=Overlap.IOBB, second_hits=SecondHits.FALSE_POSITIVE, least_score=0.2, threshold=0.25
    ),
    "volumes, one to one, plus one": Protocol(
        rates=RATES, dimensions=Dimensions.VOLUME, assignment=Assignment.ONE, plus_one=True, threshold=0.2
    ),
}


def random_box(random, near=None):
    """Of whole numbers, so that overlaps meet thresholds exactly; sometimes without an area."""
    if near is not None and random.random() < 0.7:
        shifted = np.array(near) + random.integers(-1, 2, 4)
        if shifted[2] >= shifted[0] and shifted[3] >= shifted[1]:
            return [float(value) for value in shifted]
    x, y, width, height = random.integers(0, 5, 4)
    return [float(x), float(y), float(x + width), float(y + height)]


def random_slices(random):
    first = int(random.integers(0, 4))
    return [first, first + int(random.integers(0, 3))]


def random_case(random):
    images = [{"patient": int(random.integers(3))} for _ in range(random.integers(1, 6))]
    lesions = [
        {
            "image": int(random.integers(len(images))), "box": random_box(random), "type": int(random.integers(2)),
            "category": int(random.integers(-1, 3)), "noisy": bool(random.random() < 0.2),
            "ignore": bool(random.random() < 0.15), "key_slice": int(random.integers(0, 5)),
            "slices": random_slices(random), "long_mm": float(random.choice([5.0, 10.0, 20.0, 30.0, np.nan])),
        }
        for _ in range(random.integers(0, 9))
    ]  # fmt: skip
    detections = []
    for _ in range(random.integers(0, 16)):
        near = lesions[random.integers(len(lesions))] if lesions and random.random() < 0.8 else None
        slices = random_slices(random)
        box = random_box(random, near and near["box"])
        detections.append(
            {
                "image": near["image"] if near else int(random.integers(len(images))), "box": box,
                "score": float(random.integers(0, 8)) / 8, "category": int(random.integers(-1, 3)), "slices": slices,
                "slice_boxes": {at: random_box(random, box) for at in range(slices[0], slices[1] + 1)},
            }
        )  # fmt: skip
    return {"images": images, "lesions": lesions, "detections": detections}


def as_arrays(case):
    def of(rows, name, shape=()):
        return np.array([row[name] for row in case[rows]]).reshape(-1, *shape)

    truth = Truth(
        patients=of("images", "patient"), images=of("lesions", "image"), boxes=of("lesions", "box", (4,)),
        types=of("lesions", "type"), categories=of("lesions", "category"), noisy=of("lesions", "noisy"),
        ignore=of("lesions", "ignore"), key_slices=of("lesions", "key_slice"), slices=of("lesions", "slices", (2,)),
        long_mm=of("lesions", "long_mm"),
    )  # fmt: skip
    on_slices = [
        (owner, at, box)
        for owner, one in enumerate(case["detections"])
        for at, box in one.get("slice_boxes", {}).items()
    ]
    boxes = SliceBoxes(
        owners=np.array([one[0] for one in on_slices]),
        slices=np.array([one[1] for one in on_slices]),
        boxes=np.array([one[2] for one in on_slices]),
    )
    found = Detections(
        images=of("detections", "image"), boxes=of("detections", "box", (4,)), scores=of("detections", "score"),
        categories=of("detections", "category"), slices=of("detections", "slices", (2,)),
        slice_boxes=boxes if on_slices else None,
    )  # fmt: skip
    return truth, found


def values(estimates):
    return [one.value for one in estimates]


def check_same(ours, theirs):
    assert [one is None for one in ours] == [one is None for one in theirs]
    assert all(one is None or abs(one - other) <= TOLERANCE for one, other in zip(ours, theirs, strict=True)), (
        ours,
        theirs,
    )


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_figure_is_that_of_plain_loops(name):
    protocol = PROTOCOLS[name]
    random = np.random.default_rng(len(name))
    for turn in range(CASES):
        case = random_case(random)
        truth, found = as_arrays(case)

        scores = evaluate(truth, found, EvaluationSettings(protocol=protocol, type_names=("a", "b")))

        check_same(values(scores.froc.all.sensitivities), plain.froc(case, protocol))
        for part in scores.froc.strata[1:]:
            check_same(values(part.sensitivities), plain.froc(case, protocol, members(part)))
        top = scores.top_one
        check_same([top.all.accuracy.value], [plain.top_one(case, protocol, protocol.threshold)])
        for part in top.strata[1:]:
            check_same([part.accuracy.value], [plain.top_one(case, protocol, protocol.threshold, members(part))])
        check_same(top.sweep, [plain.top_one(case, protocol, overlap) for overlap in TOP_ONE_OVERLAPS])
        precision = scores.average_precision
        for one in (precision.all, *precision.categories):
            at_threshold, whole = plain.average_precision(case, protocol, protocol.threshold, one.category)
            check_same([one.at_threshold.value, one.area_at_threshold], [at_threshold, whole])
        # Ten thresholds in one figure take the plain loops long.
        if precision.all.coco is not None and turn % 5 == 0:
            over = [plain.average_precision(case, protocol, overlap)[0] for overlap in COCO_OVERLAPS]
            check_same([precision.all.coco], [sum(over) / len(over)])


def members(part):
    """Which lesions a stratum of random cases holds, said once more."""
    sizes = {"< 10 mm": (0, 10), "10–30 mm": (10, 30), "≥ 30 mm": (30, np.inf)}
    if part.group == "type":
        return lambda lesion: lesion["type"] == "ab".index(part.name)
    low, high = sizes[part.name]
    return lambda lesion: low <= lesion["long_mm"] < high


@pytest.mark.parametrize("name", ["lesionary", "3dce", "coco", "lens"])
def test_an_interval_is_that_of_patients_copied_by_hand(name):
    protocol = PROTOCOLS[name]
    random = np.random.default_rng(3)
    resampling = Resampling(20, seed=5)
    for turn in range(30):
        case = random_case(random)
        if turn % 2:
            # Average precision goes through equal scores one by one, so that copies of an image part them otherwise.
            for place, one in enumerate(case["detections"]):
                one["score"] += place / 1024
        truth, found = as_arrays(case)
        known = sorted({image["patient"] for image in case["images"]})

        scores = evaluate(truth, found, EvaluationSettings(protocol=protocol, resampling=resampling))

        # A protocol may drop all images of a patient: only those left are drawn.
        images, _, _ = plain.prepared(case, protocol)
        left = [patient for patient in known if any(case["images"][image]["patient"] == patient for image in images)]
        if not left:
            assert scores.top_one.all.accuracy == Estimate(None)
            continue
        drawn = []
        for weights in (row for block in patient_weights(len(left), resampling, 1) for row in block):
            counts = dict.fromkeys(known, 0) | dict(zip(left, weights.tolist(), strict=True))
            drawn.append(plain.resampled(case, counts))
        compared = [
            (scores.froc.all.sensitivities[2], [plain.froc(one, protocol)[2] for one in drawn]),
            (scores.top_one.all.accuracy, [plain.top_one(one, protocol, protocol.threshold) for one in drawn]),
        ]
        if turn % 2:
            precisions = [plain.average_precision(one, protocol, protocol.threshold)[0] for one in drawn]
            compared.append((scores.average_precision.all.at_threshold, precisions))
        for ours, theirs in compared:
            defined = [one for one in theirs if one is not None]
            ends = [plain.percentile(defined, share) if defined else None for share in (2.5, 97.5)]
            check_same([ours.low, ours.high], ends)


def test_a_detection_without_boxes_on_slices_stands_for_all_its_slices():
    protocol = PROTOCOLS["lesion-harvester"]
    random = np.random.default_rng(1)
    for _ in range(100):
        case = random_case(random)
        for one in case["detections"]:
            del one["slice_boxes"]

        truth, found = as_arrays(case)

        check_same(values(froc(truth, found, protocol).all.sensitivities), plain.froc(case, protocol))
        check_same([top_one(truth, found, protocol).all.accuracy.value], [plain.top_one(case, protocol, 0.5)])
        check_same(
            [average_precision(truth, found, protocol).all.at_threshold.value],
            plain.average_precision(case, protocol, 0.5)[:1],
        )
