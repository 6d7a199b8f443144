"""Diameters of masks against brute force and against shapes whose diameters are known."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionary.calipers import boundary_edges, measure_calipers


def ellipse(half_long, half_short, degrees, spacing=(1.0, 1.0), side=121):
    """A filled ellipse in mm on pixels of some spacing, a little off the middle of a pixel."""
    y, x = np.mgrid[:side, :side]
    x, y = (x - side // 2 - 0.3) * spacing[0], (y - side // 2 + 0.2) * spacing[1]
    turn = math.radians(degrees)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return (u / half_long) ** 2 + (v / half_short) ** 2 <= 1


def brute_force(mask, spacing):
    """Middles between neighbours of which one is inside: the longest pair, and the widest extent square to it."""
    points = []
    rows, columns = mask.shape
    inside = {(row, column) for row in range(rows) for column in range(columns) if mask[row, column]}
    for row, column in inside:
        for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
            if (row + down, column + right) not in inside:
                points.append(((column + right / 2) * spacing[0], (row + down / 2) * spacing[1]))
    return max(math.dist(one, other) for one, other in combinations(points, 2))


@settings(max_examples=150, deadline=None)
@given(
    arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))),
    st.tuples(st.sampled_from([0.5, 1.0, 1.7]), st.sampled_from([0.6, 1.0, 2.0])),
)
def test_the_long_diameter_is_the_longest_of_all_pairs(mask, spacing):
    found = measure_calipers(mask, spacing)

    if not mask.any():
        assert found is None
        return
    assert found.long_mm == pytest.approx(brute_force(mask, spacing))
    x1, y1, x2, y2 = found.long_ends_px
    assert math.hypot((x2 - x1) * spacing[0], (y2 - y1) * spacing[1]) == pytest.approx(found.long_mm)


@settings(max_examples=60, deadline=None)
@given(
    arrays(bool, (7, 7)).filter(np.any), st.tuples(st.sampled_from([0.5, 1.0, 1.7]), st.sampled_from([0.6, 1.0, 2.0]))
)
def test_the_short_diameter_stands_on_the_long_one_and_no_crossing_is_wider(mask, spacing):
    found = measure_calipers(mask, spacing)
    ends = np.array([found.long_ends_px, found.short_ends_px]).reshape(2, 2, 2) * spacing
    along, across = ends[0, 1] - ends[0, 0], ends[1, 1] - ends[1, 0]

    assert abs(along @ across) <= 1e-9 * max(1, found.long_mm * found.short_mm)
    assert found.short_mm <= found.long_mm + 1e-9
    # Sampled lines across the contour are never wider: the corners are where the extent is largest.
    direction = along / np.linalg.norm(along)
    edges = (boundary_edges(mask) * spacing - ends[0, 0]) @ np.column_stack([direction, [-direction[1], direction[0]]])
    for place in np.linspace(edges[..., 0].min(), edges[..., 0].max(), 40):
        crossing = [
            one[1] + (other[1] - one[1]) * (place - one[0]) / (other[0] - one[0])
            for one, other in edges
            if one[0] != other[0] and min(one[0], other[0]) <= place <= max(one[0], other[0])
        ]
        if crossing:
            assert max(crossing) - min(crossing) <= found.short_mm + 1e-9


@pytest.mark.parametrize("degrees", [0, 17, 45, 90, 128])
@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 0.7), (0.6, 1.1)])
def test_an_ellipse_measures_its_axes_within_a_pixel(degrees, spacing):
    found = measure_calipers(ellipse(24.0, 13.0, degrees, spacing), spacing)

    assert found.long_mm == pytest.approx(48, abs=0.75 * max(spacing))
    assert found.short_mm == pytest.approx(26, abs=max(spacing))


def test_a_single_pixel_is_one_pixel_wide_both_ways():
    mask = np.zeros((5, 5), bool)
    mask[2, 3] = True
    found = measure_calipers(mask, (0.5, 0.5))

    assert (found.long_mm, found.short_mm) == (0.5, 0.5)
    assert sorted((found.long_ends_px, found.short_ends_px)) in (
        [(2.5, 2.0, 3.5, 2.0), (3.0, 1.5, 3.0, 2.5)],
        [(2.5, 2.0, 3.5, 2.0), (3.0, 2.5, 3.0, 1.5)],
        [(3.0, 1.5, 3.0, 2.5), (3.5, 2.0, 2.5, 2.0)],
    )


def test_a_mask_that_fills_its_slice_is_measured_to_the_rim():
    found = measure_calipers(np.ones((3, 9), bool))

    assert found.long_mm == pytest.approx(math.hypot(9, 2))
    assert found.short_mm > 2.5
