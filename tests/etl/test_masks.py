"""Masks of single lesions: found by contrast, held by the outline where there is none, followed through slices."""

import math
from dataclasses import replace

import numpy as np
import pytest

from etl.mask_making import LeftOut, Mark, make_masks
from etl.mask_outlines import frame_of, outline_of_box, outline_of_diameters
from etl.patch_cutting import Series
from etl.patch_geometry import SlicePlaces
from lesionary.run_lengths import decode_mask

SIDE, SPACING, INTERVAL, COUNT, KEY = 64, 0.8, 2.0, 21, 11


def series_of(side=SIDE, spacing=(SPACING, SPACING), interval=INTERVAL, numbers=None, z_mm=None):
    """A series of slices at even places, or at those given."""
    numbers = np.arange(1, COUNT + 1) if numbers is None else np.array(numbers)
    places = numbers * (math.nan if interval is None else interval) if z_mm is None else np.array(z_mm, float)
    sides = np.full(len(numbers), side)
    return Series("s", spacing, interval, SlicePlaces(numbers, places, sides, sides))


def ball(radius_mm, inside_hu=60, outside_hu=-100, noise=8, center=(31.0, 32.0), spacing=(SPACING, SPACING)):
    """Slices (21, 64, 64) with a ball in the middle of the key slice, and its true mask."""
    z, y, x = np.mgrid[:COUNT, :SIDE, :SIDE].astype(float)
    from_center = np.sqrt(
        ((x - center[0]) * spacing[0]) ** 2 + ((y - center[1]) * spacing[1]) ** 2 + ((z - KEY + 1) * INTERVAL) ** 2
    )
    true = from_center <= radius_mm
    hu = np.where(true, inside_hu, outside_hu) + np.random.default_rng(5).normal(0, noise, true.shape)
    return np.rint(hu).astype(np.int16), true


def mark_of(radius_mm, center=(31.0, 32.0), spacing=(SPACING, SPACING), slice_index=KEY, **changes):
    """The mark of a careful reader of a ball."""
    x, y = center
    a, b = radius_mm / spacing[0], radius_mm / spacing[1]
    mark = Mark("dl-1", slice_index, (x - a, y - b, x + a, y + b), (x - a, y, x + a, y, x, y - b, x, y + b))
    return replace(mark, **changes)


def made(hu, mark, series=None):
    """Masks of a mark, and whole boolean slices by number."""
    found = make_masks(mark, series or series_of(), lambda index: hu[index - 1])
    if isinstance(found, LeftOut):
        return found, {}
    return found, {index: decode_mask(mask, hu.shape[1:]) for index, mask in found.masks}


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("radius_mm", [4.0, 9.0, 16.0])
@pytest.mark.parametrize("inside_hu", [60, -160, 900])
def test_a_ball_is_found_in_the_plane_and_in_space(radius_mm, inside_hu):
    hu, true = ball(radius_mm, inside_hu)
    found, slices = made(hu, mark_of(radius_mm))

    assert dice(slices[KEY], true[KEY - 1]) > 0.93
    assert dice(np.stack([slices.get(at + 1, np.zeros((SIDE, SIDE), bool)) for at in range(COUNT)]), true) > 0.87
    assert found.calipers.long_mm == pytest.approx(2 * radius_mm, abs=1.0)
    assert found.volume_mm3 == pytest.approx(4 / 3 * math.pi * radius_mm**3, rel=0.2)
    assert found.area_mm2 == pytest.approx(math.pi * radius_mm**2, rel=0.12)
    assert found.cut_short is False


def test_a_dent_that_the_outline_covers_is_left_out():
    hu, true = ball(12.0)
    hu[:, :, :24] = -100
    _, slices = made(hu, mark_of(12.0))
    true[:, :, :24] = False

    assert dice(slices[KEY], true[KEY - 1]) > 0.92


def test_a_detection_needs_no_diameters_and_forgives_its_box():
    hu, true = ball(10.0)
    exact = mark_of(10.0).box_px
    off = (exact[0] - 2, exact[1] + 1, exact[2] - 1, exact[3] + 2)
    _, slices = made(hu, Mark("d-1", KEY, off))

    assert dice(slices[KEY], true[KEY - 1]) > 0.92


def test_touching_tissue_of_the_same_hu_is_not_run_into():
    hu, true = ball(8.0)
    organ = np.zeros(hu.shape, bool)
    organ[:, :, 36:] = True
    hu[organ] = 60 + np.random.default_rng(6).normal(0, 8, organ.sum())
    _, slices = made(hu, mark_of(8.0))

    beyond = slices[KEY] & ~true[KEY - 1]
    assert beyond.sum() < 0.12 * true[KEY - 1].sum()
    assert not slices[KEY][:, 31 + 10 + 3 :].any()
    assert not any(mask[:, 31 + 10 + 4 :].any() for mask in slices.values())


def test_without_any_contrast_the_outline_is_the_mask():
    hu = np.full((COUNT, SIDE, SIDE), 40, np.int16)
    _, true = ball(10.0)
    _, slices = made(hu, mark_of(10.0))

    assert dice(slices[KEY], true[KEY - 1]) > 0.9


def test_metal_beside_a_lesion_does_not_belong_to_it():
    hu, true = ball(8.0)
    hu[:, 26:40, 42:46] = 3000
    _, slices = made(hu, mark_of(8.0))

    assert dice(slices[KEY], true[KEY - 1]) > 0.92
    assert not slices[KEY][:, 43:].any()


def test_a_lesion_of_one_pixel_has_a_mask_of_about_one():
    hu = np.full((COUNT, SIDE, SIDE), -800, np.int16)
    hu[KEY - 1, 20, 30] = 50
    found, slices = made(hu, Mark("dl-1", KEY, (29.5, 19.5, 30.5, 20.5), (29.5, 20, 30.5, 20, 30, 19.5, 30, 20.5)))

    assert slices[KEY][20, 30]
    assert 1 <= slices[KEY].sum() <= 5
    assert list(slices) == [KEY]
    assert found.cut_short is False


@pytest.mark.parametrize("center", [(2.0, 30.0), (61.0, 62.0), (0.0, 0.0)])
def test_a_lesion_at_the_edge_of_its_image_is_cut_there(center):
    hu, true = ball(7.0, center=center)
    _, slices = made(hu, mark_of(7.0, center=center))

    assert dice(slices[KEY], true[KEY - 1]) > 0.88


def test_pixels_need_not_be_square():
    spacing = (0.6, 1.1)
    hu, true = ball(10.0, spacing=spacing)
    found, slices = made(hu, mark_of(10.0, spacing=spacing), series_of(spacing=spacing))

    assert dice(slices[KEY], true[KEY - 1]) > 0.93
    assert found.calipers.long_mm == pytest.approx(20, abs=1.2)
    assert found.volume_mm3 == pytest.approx(4 / 3 * math.pi * 1000, rel=0.2)


def test_growing_stops_at_a_gap_and_says_that_the_volume_is_a_lower_bound():
    hu, _ = ball(12.0)
    numbers = [*range(8, 13), *range(15, 22)]
    found, slices = made(hu, mark_of(12.0), series_of(numbers=numbers))
    whole, _ = made(hu, mark_of(12.0))

    assert sorted(slices) == [8, 9, 10, 11, 12]
    assert found.cut_short is True
    assert found.volume_mm3 < 0.9 * whole.volume_mm3


def test_without_an_interval_there_is_an_area_and_no_volume():
    hu, _ = ball(12.0)
    found, slices = made(hu, mark_of(12.0), series_of(interval=None))

    assert list(slices) == [KEY]
    assert found.area_mm2 > 0
    assert (found.volume_mm3, found.cut_short) == (None, None)


def test_without_a_pixel_spacing_there_are_pixels_and_no_millimetres():
    hu, true = ball(12.0)
    found, slices = made(hu, mark_of(12.0), series_of(spacing=(math.nan, math.nan)))

    assert dice(slices[KEY], true[KEY - 1]) > 0.93
    assert not found.has_spacing
    assert (found.area_mm2, found.volume_mm3, found.cut_short) == (None, None, None)


def test_a_single_slice_has_a_volume_that_is_a_lower_bound():
    hu, _ = ball(12.0)
    found, _ = made(hu, mark_of(12.0), series_of(numbers=[KEY]))

    assert found.volume_mm3 == pytest.approx(found.area_mm2 * INTERVAL)
    assert found.cut_short is True


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        (mark_of(5.0, slice_index=99), LeftOut.KEY_SLICE_MISSING),
        (mark_of(5.0, center=(-30.0, 10.0)), LeftOut.BOX_OUTSIDE_IMAGE),
        (mark_of(5.0, box_px=(math.nan,) * 4), LeftOut.BOX_OUTSIDE_IMAGE),
        (mark_of(5.0, box_px=(10.0, 10.0, 10.5, 10.2)), LeftOut.TOO_SMALL),
    ],
)
def test_what_gets_no_mask_says_why(mark, reason):
    assert made(ball(5.0)[0], mark)[0] is reason


def test_the_outline_runs_through_all_four_ends():
    points = np.array([[10.0, 20.0], [40.0, 26.0], [20.0, 10.0], [16.0, 33.0]])
    frame = frame_of(outline_of_diameters(points), (64, 64))

    for x, y in points:
        column = round((x + 0.5 - frame.left_px) * frame.finer - 0.5)
        row = round((y + 0.5 - frame.top_px) * frame.finer - 0.5)
        assert frame.radii[row, column] == pytest.approx(1, abs=0.08)
    assert frame.radii.min() < 0.1


def test_diameters_that_do_not_meet_leave_it_to_the_box():
    apart = np.array([[10.0, 10.0], [20.0, 10.0], [12.0, 30.0], [12.0, 40.0]])

    assert outline_of_diameters(apart) is None
    assert outline_of_diameters(np.array([[3.0, 3.0], [3.2, 3.0]])) is None
    assert outline_of_box((10.0, 10.0, 20.0, 40.0)).center_px == (15.0, 25.0)


def test_a_long_diameter_alone_limits_how_far_a_lesion_goes():
    hu, true = ball(9.0)
    x, y, reach = 31.0, 32.0, 9.0 / SPACING
    _, slices = made(hu, mark_of(9.0, points_px=(x - reach, y, x + reach, y)))

    assert dice(slices[KEY], true[KEY - 1]) > 0.9
