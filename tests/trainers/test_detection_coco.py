"""Average precision is that of COCO's own tool wherever both measure the same."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from trainers.detector.detection_files import read_coco
from trainers.detector.evaluate import PUBLISHED, average_precision

AGREE = 1e-6


def random_set(random, *, whole_numbers):
    """A COCO truth and its results: three categories, crowds, empty images, equal scores."""

    def box():
        values = np.concatenate([random.uniform(0, 60, 2), random.uniform(1, 40, 2)])
        return [float(value) for value in (np.ceil(values) if whole_numbers else values)]

    image_ids = random.permutation(40)[: random.integers(1, 12)].tolist()
    annotations = [
        {
            "id": number + 1, "image_id": int(random.choice(image_ids)), "category_id": int(random.choice([3, 7, 9])),
            "bbox": box(), "iscrowd": int(random.random() < 0.15),
        }
        for number in range(random.integers(1, 40))
    ]  # fmt: skip
    for one in annotations:
        one["area"] = one["bbox"][2] * one["bbox"][3]
    results = []
    for _ in range(random.integers(1, 120)):
        near = annotations[random.integers(len(annotations))]
        moved = np.array(near["bbox"]) + random.normal(0, 2, 4)
        moved[2:] = np.maximum(moved[2:], 0.5)
        results.append(
            {
                "image_id": near["image_id"],
                "category_id": near["category_id"] if random.random() < 0.8 else int(random.choice([3, 7, 9])),
                "bbox": [float(value) for value in moved] if random.random() < 0.7 else box(),
                "score": float(random.integers(1, 40)) / 40,
            }
        )
    truth = {
        "images": [{"id": int(one), "width": 100, "height": 100} for one in image_ids],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"c{number}"} for number in (3, 7, 9)],
    }
    return truth, results


def in_one(rows):
    return [row | {"category_id": 3} for row in rows]


def by_their_tool(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = truth
        known.createIndex()
        evaluation = COCOeval(known, known.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    # -1 where a category has no lesion.
    return evaluation.stats[0], evaluation.stats[1], [_mean(precision[:, :, at]) for at in range(precision.shape[2])]


def _mean(values):
    return float(values.mean()) if (values > -1).all() else None


@pytest.mark.parametrize("whole_numbers", [False, True])
def test_average_precision_is_that_of_pycocotools(whole_numbers, tmp_path):
    random = np.random.default_rng(11 + whole_numbers)
    truth_file, results_file = tmp_path / "truth.json", tmp_path / "results.json"
    compared = 0
    for _ in range(120):
        truth, results = random_set(random, whole_numbers=whole_numbers)
        truth_file.write_text(json.dumps(truth))
        results_file.write_text(json.dumps(results))

        read = read_coco(truth_file, results_file)
        ours = average_precision(read.truth, read.detections, PUBLISHED["coco"])

        annotations = truth["annotations"]
        mean, mean_at_half, per_category = by_their_tool(truth, results)
        if mean > -1:
            compared += 1
            assert ours.mean_coco == pytest.approx(mean, abs=AGREE)
            assert ours.mean_at_threshold == pytest.approx(mean_at_half, abs=AGREE)
            by_name = {read.category_names[one.category]: one.coco for one in ours.categories}
            for name, theirs in zip(("c3", "c7", "c9"), per_category, strict=True):
                assert by_name.get(name) == (None if theirs is None else pytest.approx(theirs, abs=AGREE))
            # Their own way to ignore classes sorts boxes by class, so that equal scores are ranked otherwise.
            everything = by_their_tool(truth | {"annotations": in_one(annotations)}, in_one(results))
            assert ours.all.coco == pytest.approx(everything[0], abs=AGREE)
            assert ours.all.at_threshold.value == pytest.approx(everything[1], abs=AGREE)
    assert compared > 100
