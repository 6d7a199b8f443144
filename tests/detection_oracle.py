"""The evaluator of detections as plain loops over lists and dictionaries: slow, obvious, and sharing no code with it.

A case is a dictionary: `images` (patient, interval), `lesions` and `detections` (image, box and what else is known).
"""

import dataclasses
import math

CLOSE = 1e-9


def area(box, plus):
    return (box[2] - box[0] + plus) * (box[3] - box[1] + plus)


def common(first, second, plus):
    width = min(first[2], second[2]) - max(first[0], second[0]) + plus
    height = min(first[3], second[3]) - max(first[1], second[1]) + plus
    return width * height if width > 0 and height > 0 else 0.0


def overlap(found, lesion, protocol):
    plus = 1.0 if protocol.plus_one else 0.0
    box, depth, lesion_depth, shared_depth = found["box"], 1, 1, 1
    if protocol.dimensions == "p3d":
        key = lesion["key_slice"]
        if "slice_boxes" in found:
            if key not in found["slice_boxes"]:
                return 0.0
            box = found["slice_boxes"][key]
        elif not found["slices"][0] <= key <= found["slices"][1]:
            return 0.0
    if protocol.dimensions == "3d":
        (first, last), (lesion_first, lesion_last) = found["slices"], lesion["slices"]
        shared_depth = len(set(range(first, last + 1)) & set(range(lesion_first, lesion_last + 1)))
        depth, lesion_depth = last - first + 1, lesion_last - lesion_first + 1
    shared = common(box, lesion["box"], plus) * shared_depth
    size = area(box, plus) * depth
    whole = size
    if protocol.overlap == "iou" and not lesion["ignore"]:
        whole = size + area(lesion["box"], plus) * lesion_depth - shared
    return shared / whole if whole > 0 else 0.0


def prepared(case, protocol):
    """Images, lesions and ranked detections that count, image by image."""
    lesions = [dict(one) for one in case["lesions"]]
    dropped_images = set()
    if protocol.noisy == "ignore":
        for one in lesions:
            one["ignore"] = one["ignore"] or one["noisy"]
    if protocol.noisy == "drop":
        for image in range(len(case["images"])):
            here = [one for one in lesions if one["image"] == image and not one["ignore"]]
            if here and all(one["noisy"] for one in here):
                dropped_images.add(image)
        lesions = [one for one in lesions if one["ignore"] or not one["noisy"]]
    images = [image for image in range(len(case["images"])) if image not in dropped_images]
    lesions = [one for one in lesions if one["image"] in images]
    detections = []
    for image in images:
        here = [one for one in case["detections"] if one["image"] == image]
        if protocol.least_score is not None:
            here = [one for one in here if one["score"] >= protocol.least_score]
        here.sort(key=lambda one: -one["score"])
        detections += here[: protocol.most_boxes]
    # Stable: of equal scores the lower image first, then the one given first.
    detections.sort(key=lambda one: -one["score"])
    return images, lesions, detections


def judged(lesions, detections, protocol, threshold, one_each):
    """For every detection "right", "second", "ignored" or "wrong", and the lesions that it hits first."""
    hit = [False] * len(lesions)
    said = []
    for found in detections:
        reached = [
            (overlap(found, lesion, protocol), at)
            for at, lesion in enumerate(lesions)
            if lesion["image"] == found["image"]
        ]
        reached = [(value, at) for value, at in reached if value >= threshold - CLOSE / 10]
        true = [(value, at) for value, at in reached if not lesions[at]["ignore"]]
        new = [(value, at) for value, at in true if not hit[at]]
        if one_each:
            new = [max(new)] if new else []
        for _, at in new:
            hit[at] = True
        if new:
            kind = "right"
        elif len(reached) > len(true):
            kind = "ignored"
        else:
            kind = "second" if true else "wrong"
        said.append((kind, [at for _, at in new]))
    return said


def froc(case, protocol, wanted=lambda lesion: True):
    """Sensitivity at each rate, for some of the lesions; None where there are none."""
    images, lesions, detections = prepared(case, protocol)
    said = judged(lesions, detections, protocol, protocol.threshold, protocol.assignment == "one")
    total = sum(wanted(lesion) and not lesion["ignore"] for lesion in lesions)
    if not total or not images:
        return [None] * len(protocol.rates)
    curve, wrong, right = [(0.0, 0.0)], 0, 0
    for at, (kind, hits) in enumerate(said):
        wrong += kind == "wrong" or (kind == "second" and protocol.second_hits == "false-positive")
        right += sum(wanted(lesions[one]) for one in hits)
        if at + 1 == len(said) or detections[at + 1]["score"] != detections[at]["score"]:
            curve.append((wrong / len(images), right / total))
    read = read_clamped if protocol.beyond == "clamp" else read_extrapolated
    return [read(curve, rate) for rate in protocol.rates]


def read_clamped(curve, rate):
    before = [point for point in curve if point[0] <= rate + CLOSE]
    after = [point for point in curve if point[0] > rate + CLOSE]
    return line(before[-1], after[0], rate) if after else before[-1][1]


def read_extrapolated(curve, rate):
    for at, point in enumerate(curve):
        if point[0] >= rate - CLOSE:
            return line(curve[at - 1], point, rate)
    end = curve[-1]
    rising = [at for at in range(1, len(curve)) if curve[at][0] > curve[at - 1][0]]
    if not rising:
        return end[1]
    start, stop = curve[rising[-1] - 1], curve[rising[-1]]
    return min(1.0, line(start, stop, rate) + end[1] - stop[1])


def line(first, second, x):
    return first[1] + (x - first[0]) / (second[0] - first[0]) * (second[1] - first[1])


def top_one(case, protocol, threshold, wanted=lambda lesion: True):
    """Share of images with such a lesion whose surest box overlaps one; None without such an image."""
    images, lesions, detections = prepared(case, protocol)
    right = total = 0
    for image in images:
        here = [one for one in lesions if one["image"] == image and not one["ignore"] and wanted(one)]
        if not here:
            continue
        total += 1
        boxes = [one for one in detections if one["image"] == image and not aside(one, lesions, protocol)]
        right += bool(boxes) and max(overlap(boxes[0], one, protocol) for one in here) > threshold + CLOSE / 10
    return right / total if total else None


def aside(found, lesions, protocol):
    """Whether it lies in an ignore region and hits no lesion."""
    reached = [
        lesion["ignore"]
        for lesion in lesions
        if lesion["image"] == found["image"] and overlap(found, lesion, protocol) >= protocol.threshold - CLOSE / 10
    ]
    return bool(reached) and all(reached)


def average_precision(case, protocol, threshold, category=None):
    """Over 101 recalls and over the whole area; None without a lesion."""
    if category is not None:
        # Which images and lesions count is decided with all categories at hand.
        images, lesions, _ = prepared(case, protocol)
        case = {
            "images": case["images"],
            "lesions": [
                one for one in lesions if one["category"] == category or (one["category"] == -1 and one["ignore"])
            ],
            "detections": [one for one in case["detections"] if one["category"] == category and one["image"] in images],
        }
        protocol = dataclasses.replace(protocol, noisy="keep")
    _, lesions, detections = prepared(case, protocol)
    total = sum(not lesion["ignore"] for lesion in lesions)
    if not total:
        return None, None
    points, right, wrong = [], 0, 0
    for kind, _ in judged(lesions, detections, protocol, threshold, one_each=True):
        right += kind == "right"
        wrong += kind in ("wrong", "second")
        if kind != "ignored":
            points.append((right / total, right / (right + wrong)))
    interpolated = sum(
        # COCO compares without a tolerance, with hundredths that are multiples of .01.
        max((precision for recall, precision in points if recall >= step * 0.01), default=0.0)
        for step in range(101)
    )
    before, whole = 0.0, 0.0
    for at, (recall, _) in enumerate(points):
        whole += (recall - before) * max(precision for _, precision in points[at:])
        before = recall
    return interpolated / 101, whole


def resampled(case, weights):
    """The case in which each patient is there as often as its weight says, as a case of its own."""
    images, lesions, detections = [], [], []
    for image, held in enumerate(case["images"]):
        for _ in range(weights[held["patient"]]):
            lesions += [one | {"image": len(images)} for one in case["lesions"] if one["image"] == image]
            detections += [one | {"image": len(images)} for one in case["detections"] if one["image"] == image]
            images.append(held)
    return {"images": images, "lesions": lesions, "detections": detections}


def percentile(values, share):
    """Linear between neighbours."""
    ranked = sorted(values)
    place = share / 100 * (len(ranked) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])
