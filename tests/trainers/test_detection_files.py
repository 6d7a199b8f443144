"""Files of detections: what ours and COCO's say, and one clear line for whatever is not as it should be."""

import json

import numpy as np
import pytest

from lesionary.errors import UsageError
from trainers.detector.detection_files import read_coco, read_detections
from trainers.detector.evaluate import PUBLISHED, evaluate, froc

OURS = {
    "format": "lesionary-detections-1",
    "images": [{"image": "a", "patient": "p", "interval_mm": 5}, {"image": "b", "patient": "p"}, {"image": 3}],
    "lesions": [
        {
            "image": "a", "box": [1, 2, 30, 40.5], "type": "liver", "category": 2, "long_mm": 22, "short_mm": 11.5,
            "key_slice": 4, "slices": [3, 5],
        },
        {"image": "b", "box": [5, 5, 9, 9], "noisy": True, "ignore": 0, "key_slice": 1, "slices": [1, 1]},
    ],
    "detections": [
        {
            "image": "a", "box": [1, 2, 30, 40], "score": 0.9, "category": 2, "slices": [4, 5],
            "slice_boxes": {"4": [1, 2, 30, 40], "5": [1, 2, 8, 8]},
        },
        {"image": 3, "box": [0, 0, 4, 4], "score": 0, "slices": [1, 1], "slice_boxes": {"1": [0, 0, 4, 4]}},
    ],
}  # fmt: skip
COCO = {
    "images": [{"id": 9}, {"id": 2, "patient": "p"}],
    "annotations": [{"image_id": 9, "bbox": [1, 2, 3, 4], "category_id": 5, "iscrowd": 0}],
    "categories": [{"id": 5, "name": "lesion"}],
}
RESULTS = [{"image_id": 9, "bbox": [1, 2, 3, 4], "category_id": 5, "score": 0.25}]


@pytest.fixture
def write(tmp_path):
    def put(held, name="found.json"):
        file = tmp_path / name
        file.write_text(held if isinstance(held, str) else json.dumps(held))
        return file

    return put


def changed(*path, value=None):
    """Ours with one value changed, or taken out."""
    copy = json.loads(json.dumps(OURS))
    *way, last = path
    held = copy
    for step in way:
        held = held[step]
    if value is None:
        del held[last]
    else:
        held[last] = value
    return copy


def test_ours_says_everything_the_evaluator_knows(write):
    read = read_detections(write(OURS))

    assert read.truth.patients.tolist() == [0, 0, 1]
    assert read.truth.boxes.tolist() == [[1, 2, 30, 40.5], [5, 5, 9, 9]]
    assert (read.type_names, read.truth.types.tolist()) == (("liver",), [0, -1])
    assert (read.category_names, read.truth.categories.tolist()) == (("2",), [0, -1])
    assert read.detections.categories.tolist() == [0, -1]
    assert read.truth.noisy.tolist() == [False, True]
    np.testing.assert_array_equal(read.truth.long_mm, [22, np.nan])
    np.testing.assert_array_equal(read.truth.intervals_mm, [5, np.nan, np.nan])
    assert read.detections.images.tolist() == [0, 2]
    assert read.detections.slice_boxes.slices.tolist() == [4, 5, 1]
    for name in ("lesionary", "lesion-harvester", "lens"):
        assert froc(read.truth, read.detections, PUBLISHED[name]).hits == 1


def test_the_truth_may_be_a_file_of_its_own(write):
    truth = {name: OURS[name] for name in ("format", "images", "lesions")}
    found = {name: OURS[name] for name in ("format", "detections")}

    apart = read_detections(write(found), write(truth, "truth.json"))

    together = read_detections(write(OURS))
    assert evaluate(apart.truth, apart.detections).froc.all == evaluate(together.truth, together.detections).froc.all


def test_cocos_boxes_become_corners_and_images_go_by_id(write):
    read = read_coco(write(COCO, "truth.json"), write(RESULTS))

    assert read.truth.images.tolist() == [1]
    assert read.truth.boxes.tolist() == read.detections.boxes.tolist() == [[1, 2, 4, 6]]
    assert read.category_names == ("lesion",)


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        ("{", "found.json: this is no JSON (JSONDecodeError)"),
        ("[" * 100_000, "found.json: this is no JSON (ValueError)"),
        ("1" * 5_000, "found.json: this is no JSON (ValueError)"),
        ('"text"', "found.json: an object is needed here; docs/detection-scores.md shows one"),
        ({}, 'found.json: this is no file of detections: "format" is not "lesionary-detections-1"'),
        (changed("images"), "found.json: the list images is missing"),
        (changed("detections"), "found.json: the list detections is missing"),
        (changed("lesions", value={"a": 1}), "found.json: the list lesions is missing"),
        (changed("images", 1, value="a"), "found.json: images[1]: an object is needed"),
        (changed("images", 1, "image", value="a"), "found.json: images[1]: image a is there twice"),
        (changed("images", 0, "interval_mm", value="5"), "images[0]: interval_mm is no finite number"),
        (changed("images", 0, "image", value=1.5), "images[0]: image is neither a text nor a whole number"),
        (changed("lesions", 0, "image", value="z"), "lesions[0]: image z is not in the truth"),
        (changed("lesions", 0, "box"), "lesions[0]: box is no list of 4 numbers"),
        (changed("lesions", 0, "box", 2, value=0), "lesions[0]: box ends before it begins: x0, y0, x1, y1 are needed"),
        (changed("lesions", 0, "box", 1, value=True), "lesions[0]: box is no finite number"),
        (changed("lesions", 0, "noisy", value="no"), "lesions[0]: noisy is neither true nor false"),
        (changed("lesions", 0, "key_slice", value=4.5), "lesions[0]: key_slice is no whole number"),
        (changed("lesions", 1, "key_slice"), "lesions[1]: key_slice is missing, others have it"),
        (changed("lesions", 1, "slices", value=[2, 1]), "lesions[1]: slices end before they begin"),
        (changed("detections", 0, "score"), "detections[0]: score is missing"),
        (changed("detections", 0, "score", value=float("nan")), "detections[0]: score is no finite number"),
        (changed("detections", 0, "score", value=10**400), "detections[0]: score is no finite number"),
        (changed("detections", 1, "box", 0, value=5), "detections[1]: box ends before it begins"),
        (changed("detections", 1, "slices"), "detections[1]: slices is missing, others have it"),
        (changed("detections", 0, "slice_boxes", value=[1]), "slice_boxes is no object of boxes by slice"),
        (changed("detections", 0, "slice_boxes", "x", value=[0] * 4), "names a slice that is no whole number"),
        (RESULTS, "found.json: these are results as COCO's; name their annotations with --truth"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(write, held, sentence):
    with pytest.raises(UsageError) as caught:
        read_detections(write(held))

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("truth", "results", "sentence"),
    [
        ([], RESULTS, "truth.json: an object is needed here"),
        (COCO | {"categories": 3}, RESULTS, "truth.json: the list categories is missing"),
        (COCO | {"images": [{"id": 9}, {"id": 9}]}, RESULTS, "truth.json: images[1]: id 9 is there twice"),
        (COCO, [RESULTS[0] | {"image_id": 4}], "found.json: results[0]: image_id 4 is not in the truth"),
        (COCO, [RESULTS[0] | {"category_id": 6}], "found.json: results[0]: category_id 6 is not in the truth"),
        (COCO, [RESULTS[0] | {"bbox": [1, 2, -3, 4]}], "found.json: results[0]: bbox has a negative width or height"),
        (COCO, [3], "found.json: results[0]: an object is needed"),
    ],
)
def test_what_is_wrong_with_cocos_files_is_one_line(write, truth, results, sentence):
    with pytest.raises(UsageError) as caught:
        read_detections(write(results), write(truth, "truth.json"))

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"^gone\.json: the file cannot be read \(No such file or directory\)$"):
        read_detections(tmp_path / "gone.json")
