import numpy as np
import pytest

from cli.figures.patches import cut_patch, field_of_view_mm

WINDOW = (-100.0, 100.0)


def disc_slice(center_xy_px, diameter_mm, spacing_xy_mm, shape=(256, 256)):
    rows, columns = np.indices(shape)
    x_mm = (columns - center_xy_px[0]) * spacing_xy_mm[0]
    y_mm = (rows - center_xy_px[1]) * spacing_xy_mm[1]
    return np.where(np.hypot(x_mm, y_mm) <= diameter_mm / 2, 100, -100).astype(np.int16)


def disc_box(center_xy_px, diameter_mm, spacing_xy_mm):
    reach = [diameter_mm / 2 / spacing for spacing in spacing_xy_mm]
    (x, y), (reach_x, reach_y) = center_xy_px, reach
    return (x - reach_x, y - reach_y, x + reach_x, y + reach_y)


@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.4, 1.1), (1.3, 0.6)])
@pytest.mark.parametrize("side", [96, 160, 333])
def test_disc_of_20_mm_measures_20_mm_both_ways(spacing, side):
    hu = disc_slice((120, 130), 20, spacing)
    box = disc_box((120, 130), 20, spacing)
    patch = cut_patch(hu, box, np.empty((0, 2)), spacing, WINDOW, side_px=side)

    bright = patch.grey > 127
    across, down = (float(np.count_nonzero(bright.any(axis=axis))) * patch.mm_per_px for axis in (0, 1))
    tolerance = 2 * patch.mm_per_px + max(spacing)
    assert patch.grey.shape == (side, side)
    assert patch.mm_per_px * side == pytest.approx(70)
    assert across == pytest.approx(20, abs=tolerance)
    assert down == pytest.approx(20, abs=tolerance)
    assert (patch.box_xyxy_px[2] - patch.box_xyxy_px[0]) * patch.mm_per_px == pytest.approx(20)
    assert (patch.box_xyxy_px[3] - patch.box_xyxy_px[1]) * patch.mm_per_px == pytest.approx(20)
    assert bright.sum() * patch.mm_per_px**2 == pytest.approx(np.pi * 100, rel=0.08)


def test_points_land_on_what_they_marked():
    spacing = (0.5, 1.0)
    hu = np.full((200, 200), -100, np.int16)
    hu[90:93, 70:75] = 100
    patch = cut_patch(hu, (60, 80, 100, 120), np.array([[72.0, 91.0], [60.0, 80.0]]), spacing, WINDOW)

    rows, columns = np.nonzero(patch.grey > 127)
    assert patch.points_xy_px[0] == pytest.approx((columns.mean(), rows.mean()), abs=0.3)
    assert patch.points_xy_px[1] == pytest.approx(patch.box_xyxy_px[:2])


def test_patch_without_resampling_is_the_slice_itself():
    hu = np.random.default_rng(3).integers(-100, 100, (64, 64)).astype(np.int16)
    patch = cut_patch(hu, (20, 10, 39, 29), np.empty((0, 2)), (1, 1), WINDOW, field_mm=20, side_px=20)

    expected = np.clip(np.rint((hu[10:30, 20:40].astype(float) + 100) * 255 / 200), 0, 255)
    assert np.array_equal(patch.grey, expected)
    assert patch.box_xyxy_px == pytest.approx((0, 0, 19, 19))


@pytest.mark.parametrize(
    "box", [(0, 0, 8, 8), (-20, -6, 5, 9), (245, 250, 255, 255), (250, 250, 400, 300), (-900, -900, -700, -800)]
)
def test_box_at_or_over_the_edge_is_cut_and_padded_with_black(box):
    hu = np.full((256, 256), 100, np.int16)
    patch = cut_patch(hu, box, np.array([[box[0], box[1]], [box[2], box[3]]], float), (0.8, 0.8), WINDOW)

    assert patch.grey.shape == (160, 160)
    assert (patch.grey == 0).any()
    middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    if all(0 <= value <= 255 for value in middle):
        assert patch.grey[80, 80] == 255


def test_corner_of_the_image_lies_where_it_belongs():
    hu = np.full((100, 100), 100, np.int16)
    patch = cut_patch(hu, (0, 0, 0, 0), np.array([[0.0, 0.0]]), (1, 1), WINDOW, margin_mm=20, side_px=40)

    assert np.array_equal(patch.grey[20:, 20:] > 127, np.ones((20, 20), bool))
    assert not patch.grey[:19].any()
    assert not patch.grey[:, :19].any()
    assert patch.points_xy_px[0] == pytest.approx((19.5, 19.5))


@pytest.mark.parametrize("box", [(-1e9, -1e9, 1e9, 1e9), (1e12, 1e12, 1e12, 1e12), (-1e9, 5, 1e9, 6)])
def test_absurd_boxes_cost_no_memory(box):
    patch = cut_patch(np.zeros((64, 64), np.int16), box, np.empty((0, 2)), (0.7, 0.7), WINDOW)

    assert patch.grey.shape == (160, 160)
    assert patch.mm_per_px * 160 <= 64 * 0.7 + 50 + 1e-6


def test_given_field_of_view_sets_the_scale():
    hu = disc_slice((64, 64), 20, (1, 1), (128, 128))
    box = disc_box((64, 64), 20, (1, 1))
    patch = cut_patch(hu, box, np.empty((0, 2)), (1, 1), WINDOW, field_mm=100)

    assert patch.mm_per_px == 100 / 160
    assert field_of_view_mm(box, (1, 1), 10) == 40
    assert field_of_view_mm((0, 0, 10, 20), (2, 0.5), 0) == 20


@pytest.mark.parametrize(
    "change",
    [
        {"box": (0, 0, float("nan"), 1)},
        {"box": (5, 5, 4, 9)},
        {"points": np.array([[np.inf, 0.0]])},
        {"spacing": (0.0, 1.0)},
        {"spacing": (1e-6, 1.0)},
        {"window": (50, 50)},
        {"hu": np.zeros((0, 4), np.int16)},
        {"margin_mm": -1},
        {"side_px": 0},
        {"field_mm": 0},
        {"margin_mm": 0, "box": (5, 5, 5, 5)},
    ],
)
def test_what_cannot_be_shown_is_refused(change):
    given = {
        "hu": np.zeros((64, 64), np.int16),
        "box": (5, 5, 9, 9),
        "points": np.empty((0, 2)),
        "spacing": (1, 1),
        "window": WINDOW,
    } | change
    first = [given.pop(name) for name in ("hu", "box", "points", "spacing", "window")]

    with pytest.raises(ValueError):
        cut_patch(*first, **given)
