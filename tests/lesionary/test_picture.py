"""Pictures: the window is exact, marks lie where the pixels are."""

import numpy as np
import pytest

from lesionary.picture import MIN_PICTURE_SIDE_PX, contact_sheet, draw_lesion, window_to_grey

POINTS = np.array([[10.0, 20], [30, 20], [20, 15], [20, 25]])


def test_window_ends_are_black_and_white_and_the_middle_is_grey():
    hu = np.array([[-1024, -175, 50, 275, 3071]], np.int16)

    assert window_to_grey(hu, (-175, 275)).tolist() == [[0, 0, 128, 255, 255]]


def test_marks_lie_on_their_pixels():
    picture = np.asarray(draw_lesion(np.zeros((64, 64), np.int16), POINTS, (5, 10, 35, 30), (-100, 100), "caption"))
    scale = MIN_PICTURE_SIDE_PX // 64

    def colour_at(x, y):
        return tuple(int(value) for value in picture[int((y + 0.5) * scale), int((x + 0.5) * scale)])

    assert colour_at(12, 20) == (255, 80, 80)
    assert colour_at(20, 23) == (80, 200, 255)
    assert colour_at(5, 20) == (255, 220, 60)
    assert colour_at(50, 50) == (128, 128, 128)


def test_marks_beyond_the_image_do_not_fail():
    picture = draw_lesion(np.zeros((16, 32), np.int16), POINTS - 40, (-50, -50, 5, 5), (0, 1), "")

    assert picture.size == (768, 16 * 24 + 30)


def test_contact_sheet_puts_tiles_in_reading_order():
    slices = [np.full((8, 8), value, np.int16) for value in (0, 100, 0)]

    sheet = np.asarray(contact_sheet(slices, ["", "", ""], (0, 100), columns=2, tile_px=10))

    assert sheet.shape == (20, 20, 3)
    assert (sheet[5, 5, 0], sheet[5, 15, 0], sheet[15, 5, 0], sheet[15, 15, 0]) == (0, 255, 0, 0)


@pytest.mark.parametrize(("slices", "labels"), [([], []), ([np.zeros((4, 4), np.int16)], [])])
def test_contact_sheet_needs_a_label_for_each(slices, labels):
    with pytest.raises(ValueError, match="labels"):
        contact_sheet(slices, labels, (0, 1))
