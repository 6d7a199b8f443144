"""The figure of detections: every number is on its slice and below it, marks are told apart, nothing runs together."""

import numpy as np
import pytest
from tidy_sheets import assert_tidy

from cli.figures.detections import (
    DETECTION_COLOUR,
    MARK_COLOUR,
    MAX_BOXES,
    MAX_TILES,
    ShownBox,
    SliceTile,
    draw_detections,
    lay_out_detections,
)

GREY = np.zeros((80, 100), np.int16)


def boxes(count, category="liver"):
    return [ShownBox((10 + 9 * at, 20, 16 + 9 * at, 30), 0.95 - at / 10, category) for at in range(count)]


def tile(number=1, detections=2, marks=(), shown=(0.0, 0.0, 100.0, 80.0), category="liver"):
    name = f"dl-00000{number}_01_01, slice {number}"
    return SliceTile(name, GREY, shown, (0.8, 0.8), (-100.0, 100.0), boxes(detections, category), marks)


def pixels_of(image, colour):
    wanted = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)])
    return np.argwhere((np.asarray(image) == wanted).all(axis=-1))


@pytest.mark.parametrize("count", [1, 2, 4, MAX_TILES])
def test_every_slice_says_what_is_on_it(count):
    sheet = lay_out_detections([tile(number, marks=[(1, 2, 5, 6)]) for number in range(count)], "Found")

    said = [text.text for text in sheet.texts]
    for number in range(count):
        assert f"dl-00000{number}_01_01, slice {number}" in said
    assert said.count("1: 0.95 liver") == said.count("2: 0.85 liver") == count
    assert "marked lesion" in said
    assert_tidy(sheet)


def test_boxes_lie_where_the_lesions_are():
    """The slice is 100 × 80 pixels on 420: each pixel is 4.2 wide, and 42 rows of black lie above it."""
    marked = (60.0, 40.0, 80.0, 60.0)
    image = draw_detections([tile(detections=1, marks=[marked])], "Found")

    black_rows = (np.asarray(image)[:, 24:444] == 0).all(axis=(1, 2))
    top_left = np.array([int(np.flatnonzero(black_rows)[0]), 24])
    for colour, (x0, y0, x1, y1) in ((DETECTION_COLOUR, (10, 20, 16, 30)), (MARK_COLOUR, marked)):
        corner = np.array([(y0 + 0.5) * 4.2 + 42, (x0 + 0.5) * 4.2])
        end = np.array([(y1 + 0.5) * 4.2 + 42, (x1 + 0.5) * 4.2])
        there = pixels_of(image, colour) - top_left
        inside = there[(there[:, 0] < 420) & (there[:, 1] < 420)]
        # The number stands above the box.
        boxed = inside[inside[:, 0] >= corner[0] - 3]
        np.testing.assert_allclose(boxed.min(axis=0), corner, atol=3)
        np.testing.assert_allclose(boxed.max(axis=0), end, atol=3)


def test_more_boxes_than_fit_are_counted_and_none_is_said():
    said = [text.text for text in lay_out_detections([tile(detections=MAX_BOXES + 2)], "Found").texts]
    assert "and 2 less sure" in said
    assert sum(text.endswith("liver") for text in said) == MAX_BOXES
    assert "nothing found" in [text.text for text in lay_out_detections([tile(detections=0)], "Found").texts]


def test_a_detector_of_one_class_gives_scores_alone():
    said = [text.text for text in lay_out_detections([tile(category=None)], "Found").texts]
    assert "1: 0.95" in said
    assert "marked lesion" not in said


@pytest.mark.parametrize("count", [0, MAX_TILES + 1])
def test_no_slice_and_too_many_are_refused(count):
    with pytest.raises(ValueError, match=f"found {count}"):
        draw_detections([tile(1)] * count, "Found")
