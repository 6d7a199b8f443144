"""RECIST geometry against slow, obvious oracles."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionary.recist import (
    RELEASE_PADDING_PX,
    angle_between_axes_deg,
    axes_cross,
    measure_mask,
    measure_points,
    padded_box,
)

# Row 1 of the official test split, as published.
PUBLISHED_POINTS = np.array([[233.537, 95.0204], [234.057, 106.977], [231.169, 101.605], [236.252, 101.143]])
PUBLISHED_BOX = (226.169, 90.0204, 241.252, 111.977)
PUBLISHED_DIAMETERS = (11.9677, 5.10387)

coordinate = st.floats(-500, 500, allow_nan=False)
points = st.lists(st.tuples(coordinate, coordinate), min_size=4, max_size=4).map(np.array)


def test_published_row_is_reproduced():
    measured = measure_points(PUBLISHED_POINTS, (0.488281, 0.488281))

    assert measured.long_px == pytest.approx(PUBLISHED_DIAMETERS[0], abs=1e-3)
    assert measured.short_px == pytest.approx(PUBLISHED_DIAMETERS[1], abs=1e-3)
    assert measured.long_mm == pytest.approx(PUBLISHED_DIAMETERS[0] * 0.488281, abs=1e-3)
    assert padded_box(measured.box_xyxy_px, RELEASE_PADDING_PX) == pytest.approx(PUBLISHED_BOX)
    assert measured.axes_cross
    assert not measured.short_exceeds_long


def test_anisotropic_spacing_stretches_each_axis_by_its_own_share():
    cross = np.array([[0.0, 5], [10, 5], [5, 0], [5, 10]])

    measured = measure_points(cross, (0.5, 2.0))

    assert (measured.long_mm, measured.short_mm) == (5.0, 20.0)


@given(points)
def test_box_holds_every_point_and_touches_its_extremes(four):
    box = measure_points(four, (1, 1)).box_xyxy_px

    assert box == (min(four[:, 0]), min(four[:, 1]), max(four[:, 0]), max(four[:, 1]))


@given(points, st.floats(0, 2 * math.pi))
def test_angle_does_not_change_when_the_image_is_turned(four, turn):
    rotation = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    before = angle_between_axes_deg(four)
    if min(math.dist(four[0], four[1]), math.dist(four[2], four[3])) < 1e-3:
        return

    assert angle_between_axes_deg(four @ rotation.T) == pytest.approx(before, abs=1e-3)


def test_axis_without_length_has_no_angle():
    assert math.isnan(angle_between_axes_deg(np.array([[1.0, 1], [1, 1], [0, 0], [2, 2]])))


@pytest.mark.parametrize(
    ("four", "crossing"),
    [
        ([[0, 0], [10, 0], [5, -3], [5, 3]], True),
        ([[0, 0], [10, 0], [5, 0.0005], [5, 3]], True),  # misses by less than rounding
        ([[0, 0], [10, 0], [5, 1], [5, 3]], False),
        ([[0, 0], [10, 0], [12, -3], [12, 3]], False),
        ([[0, 0], [10, 0], [2, 1], [8, 1]], False),  # parallel
    ],
)
def test_crossing_is_told_from_missing(four, crossing):
    assert axes_cross(np.array(four, dtype=float)) is crossing


@settings(max_examples=200)
@given(points)
def test_crossing_agrees_with_densely_sampled_segments(four):
    long_px, short_px = math.dist(four[0], four[1]), math.dist(four[2], four[3])
    if min(long_px, short_px) < 1.0:
        return
    steps = np.linspace(0, 1, 400)[:, None]
    first, second = four[0] + steps * (four[1] - four[0]), four[2] + steps * (four[3] - four[2])
    gap = min(np.linalg.norm(first - point, axis=1).min() for point in second)
    spacing = (long_px + short_px) / 399
    angle = angle_between_axes_deg(four)
    if angle < 5 or gap < 0.2 + spacing * 2:
        return  # too close to call by sampling

    assert not axes_cross(four)


@pytest.mark.parametrize("wrong", [np.zeros((3, 2)), np.full((4, 2), np.nan), np.full((4, 2), np.inf)])
def test_points_that_are_no_points_are_refused(wrong):
    with pytest.raises(ValueError, match="four finite"):
        measure_points(wrong, (1, 1))


def ellipse(long_px, short_px, angle_deg, size=96):
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    turn = math.radians(angle_deg)
    along = columns * math.cos(turn) + rows * math.sin(turn)
    across = rows * math.cos(turn) - columns * math.sin(turn)
    return (along / (long_px / 2)) ** 2 + (across / (short_px / 2)) ** 2 <= 1


@pytest.mark.parametrize(("long_px", "short_px"), [(60, 30), (40, 38), (20, 9), (70, 12)])
@pytest.mark.parametrize("angle_deg", [0, 17, 45, 90, 133])
def test_mask_of_an_ellipse_gives_its_axes(long_px, short_px, angle_deg):
    measured = measure_points(measure_mask(ellipse(long_px, short_px, angle_deg)), (1, 1))

    assert measured.long_px == pytest.approx(long_px, abs=1.8)
    assert measured.short_px == pytest.approx(short_px, abs=1.8)
    assert measured.perpendicular
    assert measured.axes_cross


def test_longest_diameter_equals_the_exhaustive_one():
    mask = np.random.default_rng(5).random((24, 24)) > 0.8
    rows, columns = np.nonzero(mask)
    corners = [(x + dx, y + dy) for x, y in zip(columns, rows, strict=True) for dx in (-0.5, 0.5) for dy in (-0.5, 0.5)]
    exhaustive = max(math.dist(a, b) for a, b in itertools.combinations(corners, 2))

    found = measure_mask(mask)

    assert math.dist(found[0], found[1]) == pytest.approx(exhaustive, rel=1e-3)


def test_single_pixel_has_the_size_of_a_pixel():
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = True

    found = measure_mask(mask)

    assert measure_points(found, (1, 1)).box_xyxy_px == pytest.approx((2.5, 1.5, 3.5, 2.5))


def test_empty_mask_has_no_diameter():
    assert measure_mask(np.zeros((4, 4), bool)) is None


@pytest.mark.parametrize("tiny", [5.5e-213, 1e-320, 0.0])
def test_axes_of_almost_no_length_are_measured_without_a_fault(tiny):
    for four in ([[0, 0], [tiny, 0], [0, 0], [0, 1]], [[0, 0], [0, 1], [0, 0], [tiny, 0]], [[0, 0], [0, tiny]] * 2):
        assert measure_points(np.array(four, float), (1, 1)).long_px in {tiny, 1.0}
