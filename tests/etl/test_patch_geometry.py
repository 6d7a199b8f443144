"""Where patches lie and what their pixels are, against values by hand and a slow average."""

import math

import numpy as np
import pytest

from etl.patch_geometry import SlicePlaces, cut_frame, cut_patch, frame_around, slices_around

ONLY_KEY = np.ones((3, 1))


def ramp(rows=400, columns=400, *, x=0.0, y=0.0, start=0.0):
    down, across = np.mgrid[:rows, :columns]
    return np.rint(start + x * across + y * down).astype(np.int16)


def places(*numbers_and_heights, side=512):
    indices, heights = zip(*numbers_and_heights, strict=True)
    sizes = np.full(len(indices), side)
    heights = [math.nan if height is None else height for height in heights]
    return SlicePlaces(np.array(indices), np.array(heights, float), sizes, sizes)


def mix(found):
    """Weights by slice number, row after row, without zeros."""
    numbers, weights = found
    return [
        {number: pytest.approx(weight) for number, weight in zip(numbers, row, strict=True) if weight}
        for row in weights
    ]


# --- frames ---


def test_a_box_is_padded_in_source_pixels_and_measured_in_millimetres():
    # 20 × 10 px and 5 px on every side are 30 × 20 px, at .8 × .5 mm 24 × 10 mm.
    frame = frame_around((19, 24, 39, 34), (0.8, 0.5))

    assert frame.side == 128
    assert frame.box == pytest.approx((52, 59, 76, 69))
    assert frame.extent == pytest.approx((2, 9, 126, 119))
    assert frame.center_px == (29, 29)
    assert frame.whole


@pytest.mark.parametrize(
    ("box_mm", "side"),
    [(28, 128), (28.01, 160), (60, 160), (61, 192), (92, 192), (156, 256), (220, 320), (348, 448), (349, 448)],
)
def test_the_smallest_side_that_holds_box_and_context(box_mm, side):
    wide = frame_around((100, 100, 100 + box_mm, 101), (1.0, 1.0), padding_px=0)
    tall = frame_around((100, 100, 101, 100 + box_mm), (1.0, 1.0), padding_px=0)

    assert wide.side == tall.side == side
    assert wide.whole == (box_mm <= 348)


def test_what_is_larger_than_the_largest_side_is_cut_at_the_patch():
    frame = frame_around((0, 100, 500, 140), (1.0, 1.0), padding_px=0)

    assert frame.box == (0, 204, 448, 244)
    assert frame.extent == (0, 154, 448, 294)


@pytest.mark.parametrize(
    ("box", "spacing"),
    [((0, 0, math.nan, 1), (1, 1)), ((0, 0, 1, 1), (0, 1)), ((0, 0, 1, 1), (1, 1e-9)), ((0, 0, 1, 1), (1, math.inf))],
)
def test_nothing_is_cut_around_numbers_that_are_none(box, spacing):
    with pytest.raises(ValueError, match="no patch around"):
        frame_around(box, spacing)


# --- pixels ---


@pytest.mark.parametrize("spacing", [0.25, 0.5, 0.7, 0.96, 1.0, 1.4])
def test_a_ramp_stays_the_ramp(spacing):
    # 15 HU a millimetre along x; the box's middle lies between pixels.
    image = ramp(1200, 1200, x=15 * spacing, start=-9000)
    box = (600.3, 600, 610.3, 610)
    patch = cut_patch([image], ONLY_KEY, box, (spacing, spacing))

    exact = -9000 + 15 * (605.3 * spacing + np.arange(128) + 0.5 - 64)
    # The source rounds to whole HU, and so does the patch.
    assert np.abs(patch - exact).max() <= 1.0


def test_pixels_of_a_millimetre_are_taken_as_they_are():
    image = np.random.default_rng(0).integers(-1000, 1000, (300, 320)).astype(np.int16)
    # The middle lies on the edge between two pixels, as a patch of even side needs it.
    patch = cut_patch([image], ONLY_KEY, (150.5, 140.5, 160.5, 150.5), (1.0, 1.0))

    assert patch.shape == (3, 128, 128)
    assert patch.dtype == np.int16
    assert (patch == image[146 - 64 : 146 + 64, 156 - 64 : 156 + 64]).all()


def test_small_pixels_are_averaged_and_none_is_passed_over():
    # 4 × 4 source pixels a millimetre: one bright pixel keeps about its weight, wherever it lies.
    for position in range(4):
        image = np.zeros((900, 900), np.int16)
        image[450, 450 + position] = 16_000
        patch = cut_patch([image], ONLY_KEY, (445.5, 445.5, 453.5, 453.5), (0.25, 0.25), padding_px=0)
        assert patch[1].sum() == pytest.approx(16_000 / 16, rel=0.1)


def slow_average(line, middle, spacing, steps=2001):
    """One millimetre's pixel: the interpolated line, read at many points of its window and averaged."""
    width = math.sqrt(max(0.0, 1 - spacing**2)) / spacing
    points = middle + (np.arange(steps) + 0.5) / steps * width - width / 2
    return np.interp(points, np.arange(len(line)), line).mean()


@pytest.mark.parametrize("spacing", [0.4, 0.79, 1.0, 1.3])
def test_pixels_are_averages_of_the_interpolated_image(spacing):
    line = np.random.default_rng(1).integers(-1000, 1000, 500).astype(np.int16)
    frame = frame_around((240.2, 240, 250.2, 250), (spacing, spacing))
    across = cut_frame([np.tile(line, (500, 1))], ONLY_KEY, frame, (spacing, spacing))
    down = cut_frame(
        [np.tile(line[:, None], (1, 500))],
        ONLY_KEY,
        frame_around((240, 240.2, 250, 250.2), (spacing, spacing)),
        (spacing, spacing),
    )

    middles = 245.2 + (np.arange(frame.side) + 0.5 - frame.side / 2) / spacing
    exact = [slow_average(line, middle, spacing) for middle in middles]
    assert np.abs(across[0, 0] - exact).max() <= 1.0
    assert np.abs(down[0, :, 0] - exact).max() <= 1.0


def test_spacings_may_differ():
    # 30 HU a pixel of .5 mm along x and 80 HU a pixel of 1.6 mm along y: 60 and 50 HU a millimetre.
    image = ramp(256, 512, x=30, y=80)
    patch = cut_patch([image], ONLY_KEY, (250, 120, 260, 130), (0.5, 1.6), padding_px=0)

    here = 255 * 30 + 125 * 80
    offsets = np.arange(128) + 0.5 - 64
    assert np.abs(patch[0] - (here + 60 * offsets[None] + 50 * offsets[:, None])).max() <= 1.0


def test_beyond_the_image_its_edge_goes_on():
    image = ramp(80, 60, x=10, y=1000 / 80)
    patch = cut_patch([image], ONLY_KEY, (0.5, 0.5, 10.5, 10.5), (1.0, 1.0), padding_px=0)

    padded = np.pad(image, 200, mode="edge")
    assert (patch == padded[206 - 64 : 206 + 64, 206 - 64 : 206 + 64]).all()


def test_a_frame_far_outside_shows_the_nearest_corner():
    image = ramp(80, 60, x=10)
    patch = cut_patch([image], ONLY_KEY, (1e9, 1e9, 1e9 + 10, 1e9 + 10), (0.7, 0.7))

    assert (patch == image[-1, -1]).all()


def test_slices_are_mixed_by_their_weights():
    images = [np.full((200, 200), value, np.int16) for value in (0, 100, 500)]
    weights = np.array([[0.4, 0.6, 0.0], [0.0, 1.0, 0.0], [0.0, 0.25, 0.75]])
    patch = cut_patch(images, weights, (90, 90, 100, 100), (0.8, 0.8))

    assert [set(np.unique(one)) for one in patch] == [{60}, {100}, {400}]


def test_extreme_values_stay_what_they_are():
    for value in (-32768, 32767):
        image = np.full((200, 200), value, np.int16)
        assert (cut_patch([image], ONLY_KEY, (90, 90, 100, 100), (0.77, 0.77)) == value).all()


# --- slices ---


def test_five_millimetres_apart_two_fifths_come_from_the_neighbour():
    found = slices_around(places((10, 50), (11, 55), (12, 60)), 11, 5.0)

    assert mix(found) == [{10: 0.4, 11: 0.6}, {11: 1.0}, {11: 0.6, 12: 0.4}]


def test_two_millimetres_apart_the_neighbours_are_taken():
    found = slices_around(places(*((n, 2 * n) for n in range(5, 12))), 8, 2.0)

    assert mix(found) == [{7: 1.0}, {8: 1.0}, {9: 1.0}]


def test_one_millimetre_apart_the_second_neighbours_are_taken():
    found = slices_around(places(*((n, n) for n in range(5, 12))), 8, 1.0)

    assert mix(found) == [{6: 1.0}, {8: 1.0}, {10: 1.0}]


def test_slices_of_one_and_a_half_millimetres():
    found = slices_around(places(*((n, 1.5 * n) for n in range(5, 12))), 8, 1.5)

    # Two millimetres are one step of 1.5 and a third of the next.
    assert mix(found) == [{7: 2 / 3, 6: 1 / 3}, {8: 1.0}, {9: 2 / 3, 10: 1 / 3}]


def test_at_the_end_of_the_volume_the_last_slice_goes_on():
    series = places((10, 50), (11, 55), (12, 60))

    assert mix(slices_around(series, 12, 5.0)) == [{11: 0.4, 12: 0.6}, {12: 1.0}, {12: 1.0}]
    assert mix(slices_around(series, 10, 5.0)) == [{10: 1.0}, {10: 1.0}, {10: 0.6, 11: 0.4}]
    assert mix(slices_around(places((4, 4), (5, 5)), 4, 1.0)) == [{4: 1.0}, {4: 1.0}, {5: 1.0}]
    assert mix(slices_around(places((4, 4)), 4, 1.0)) == [{4: 1.0}] * 3


def test_a_gap_is_an_end():
    # Slices 8 and 12 are missing: an interval of 1 mm, a step of 2.
    series = places(*((n, float(n)) for n in (6, 7, 9, 10, 11, 13)))

    assert mix(slices_around(series, 10, 1.0)) == [{9: 1.0}, {10: 1.0}, {11: 1.0}]
    assert mix(slices_around(series, 13, 1.0)) == [{13: 1.0}] * 3
    # Where slices are counted one after the other, their places tell.
    counted = places((1, 0), (2, 5), (3, 25), (4, 30))
    assert mix(slices_around(counted, 2, 5.0)) == [{1: 0.4, 2: 0.6}, {2: 1.0}, {2: 1.0}]


def test_steps_up_to_one_and_a_half_intervals_are_none():
    series = places((1, 0), (2, 2), (3, 5), (4, 8.01))

    assert mix(slices_around(series, 2, 2.0)) == [{1: 1.0}, {2: 1.0}, {2: 1 / 3, 3: 2 / 3}]
    assert mix(slices_around(places((1, 0), (2, 2), (3, 5.01)), 2, 2.0))[2] == {2: 1.0}


def test_sub_volumes_with_other_intervals_do_not_reach_into_each_other():
    # Heights of a release are number times interval: 1 mm up to 22, 5 mm from 23 on, then 1 mm again.
    series = places((21, 21), (22, 22), (23, 115), (24, 120), (25, 25), (26, 26))

    assert mix(slices_around(series, 22, 1.0)) == [{21: 1.0}, {22: 1.0}, {22: 1.0}]
    assert mix(slices_around(series, 23, 1.0)) == [{23: 1.0}, {23: 1.0}, {23: 0.6, 24: 0.4}]
    assert mix(slices_around(series, 24, 1.0)) == [{23: 0.4, 24: 0.6}, {24: 1.0}, {24: 1.0}]


def test_unknown_places_are_counted_with_the_series_interval():
    series = places((3, None), (4, None), (5, None), (7, None))

    assert mix(slices_around(series, 4, 5.0)) == [{3: 0.4, 4: 0.6}, {4: 1.0}, {4: 0.6, 5: 0.4}]
    assert mix(slices_around(series, 5, 1.0)) == [{3: 1.0}, {5: 1.0}, {5: 1.0}]
    for nothing in (None, 0.0, -1.0, math.nan):
        assert mix(slices_around(series, 4, nothing)) == [{4: 1.0}] * 3


def test_a_neighbour_whose_place_is_unknown_is_an_end():
    assert mix(slices_around(places((3, 15), (4, 20), (5, None)), 4, 5.0)) == [{3: 0.4, 4: 0.6}, {4: 1.0}, {4: 1.0}]


def test_slices_at_one_place_are_passed_over():
    series = places((1, 0), (2, 0), (3, 2), (4, 2), (5, 4))

    assert mix(slices_around(series, 3, 2.0)) == [{2: 1.0}, {3: 1.0}, {5: 1.0}]
    assert mix(slices_around(places((1, 3), (2, 3), (3, 3)), 2, None)) == [{2: 1.0}] * 3


def test_another_matrix_is_an_end():
    series = SlicePlaces(*(np.array(one) for one in ([1, 2, 3], [0.0, 2.0, 4.0], [512, 512, 256], [512, 512, 256])))

    assert mix(slices_around(series, 2, 2.0)) == [{1: 1.0}, {2: 1.0}, {2: 1.0}]


def test_without_its_key_slice_nothing_can_be_mixed():
    assert slices_around(places((3, 3), (5, 5)), 4, 1.0) is None
    assert slices_around(places((3, 3), (5, 5)), 6, 1.0) is None
    empty = SlicePlaces(*(np.array([], kind) for kind in (int, float, int, int)))
    assert slices_around(empty, 4, 1.0) is None
