"""Sub-volumes against a plain set of slices."""

from itertools import pairwise

import numpy as np
import pytest

from etl.phantom.coverage import CONTEXT_MM, SliceGrid, slice_grid, sub_volumes, whole_series


def kept_slices(grid: SliceGrid, keys: list[int]) -> list[int]:
    """The obvious way: every slice no farther than the context from some key slice."""
    reach = CONTEXT_MM + 1e-9
    return [
        index
        for index in range(1, grid.count + 1)
        if any(abs(grid.z_mm(index) - grid.z_mm(key)) <= reach for key in keys)
    ]


@pytest.mark.parametrize("interval_mm", [1.0, 2.0, 2.5, 5.0])
@pytest.mark.parametrize("seed", range(5))
def test_sub_volumes_hold_exactly_the_slices_within_the_context_of_a_key(interval_mm: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = SliceGrid(13.0, interval_mm, 200)
    keys = rng.integers(1, 201, size=4).tolist()

    parts = sub_volumes(grid, keys)

    assert [index for part in parts for index in part.slice_indices] == kept_slices(grid, keys)


@pytest.mark.parametrize("seed", range(5))
def test_sub_volumes_leave_at_least_one_slice_between_them(seed: int) -> None:
    keys = np.random.default_rng(seed).integers(1, 201, size=6).tolist()

    parts = sub_volumes(SliceGrid(0.0, 5.0, 200), keys)

    assert all(high.first_index - low.last_index >= 2 for low, high in pairwise(parts))


def test_stretches_that_touch_become_one() -> None:
    grid = SliceGrid(0.0, 5.0, 100)

    assert len(sub_volumes(grid, [20, 33])) == 1
    assert len(sub_volumes(grid, [20, 34])) == 2


@pytest.mark.parametrize("most", [1, 5, 9, 20])
def test_the_context_narrows_until_the_series_is_small_enough(most: int) -> None:
    parts = sub_volumes(SliceGrid(0.0, 1.0, 300), [100], max_slices=most)

    slices = [index for part in parts for index in part.slice_indices]
    assert most - 1 <= len(slices) <= most
    assert 100 in slices


def test_key_slices_are_never_given_up() -> None:
    parts = sub_volumes(SliceGrid(0.0, 5.0, 100), [10, 50, 90], max_slices=2)

    assert [index for part in parts for index in part.slice_indices] == [10, 50, 90]


def test_a_sub_volume_knows_the_heights_of_the_grid() -> None:
    grid = slice_grid(40.0, 500.0, 2.5)

    for part in sub_volumes(grid, [3, 120]):
        assert [part.z_mm(index) for index in part.slice_indices] == [grid.z_mm(index) for index in part.slice_indices]


def test_a_scan_reaches_from_its_low_end_to_its_high_end() -> None:
    part = whole_series(slice_grid(40.0, 500.0, 2.5))

    assert part.z_mm(part.first_index) == 40.0
    assert 497.5 < part.z_mm(part.last_index) <= 500.0


def test_the_nearest_slice_is_the_one_a_search_finds() -> None:
    grid = SliceGrid(7.3, 2.5, 60)

    for z_mm in np.linspace(-20.0, 200.0, 97):
        distances = [abs(grid.z_mm(index) - z_mm) for index in range(1, 61)]
        assert distances[grid.nearest(float(z_mm)) - 1] == pytest.approx(min(distances))
