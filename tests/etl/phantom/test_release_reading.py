"""The reader: marks lie on the lesion, and a shifted or turned picture carries them along."""

from dataclasses import replace

import numpy as np
import pytest

from etl.phantom.plan import SeriesPlan, SliceEdit
from etl.phantom.reading import confirm, draw_slice, read_key
from etl.phantom.release import ReleaseSettings, plan_series
from lesionary.recist import measure_points


@pytest.fixture(scope="module")
def plans() -> list[SeriesPlan]:
    settings = ReleaseSettings(patients=2, seed=4, image_size=128, max_slices_per_series=5)
    return [plan for index in (1, 2) for plan in plan_series(settings, index)]


def test_marks_reach_from_edge_to_edge_of_their_lesion(plans: list[SeriesPlan]) -> None:
    """A reader's slip is a third of a pixel: four of them and half a pixel of edge stay below two."""
    for plan in plans:
        for key in plan.keys:
            drawn = draw_slice(plan, key.slice_index)
            reading = read_key(plan, key, drawn)
            rows, columns = np.nonzero(drawn.masks[key.lesion_id] > 0.5)
            corners = np.column_stack([columns, rows])[:, None] + [[0.5, 0.5], [0.5, 1.5], [1.5, 0.5], [1.5, 1.5]]
            corners = corners.reshape(-1, 2)
            widest = np.sqrt(((corners[:, None] - corners[None]) ** 2).sum(axis=2)).max()

            assert reading is not None
            points = np.array(reading.points).reshape(4, 2)
            assert reading.long_px == pytest.approx(widest, abs=2.0)
            assert (points > corners.min(axis=0) - 2.0).all()
            assert (points < corners.max(axis=0) + 2.0).all()


def test_every_reading_is_a_proper_measurement(plans: list[SeriesPlan]) -> None:
    for plan in plans:
        for key in plan.keys:
            reading = read_key(plan, key, draw_slice(plan, key.slice_index))
            assert reading is not None
            recist = measure_points(np.array(reading.points).reshape(4, 2), (1.0, 1.0))
            assert recist.axes_cross
            assert recist.perpendicular
            assert not recist.short_exceeds_long


def test_reading_twice_gives_the_same_marks(plans: list[SeriesPlan]) -> None:
    plan = plans[0]
    key = plan.keys[0]

    once, again = (read_key(plan, key, draw_slice(plan, key.slice_index)) for _ in range(2))

    assert once == again


def test_a_shifted_picture_carries_its_marks(plans: list[SeriesPlan]) -> None:
    plan = plans[0]
    key = plan.keys[0]
    moved = replace(plan, shift_xy_px=(6, -3))

    before = read_key(plan, key, draw_slice(plan, key.slice_index))
    after = read_key(moved, key, draw_slice(moved, key.slice_index))

    assert before is not None
    assert after is not None
    assert np.array(after.points) - np.array(before.points) == pytest.approx(np.array([6, -3] * 4))
    assert after.relative_xy == pytest.approx(before.relative_xy)


def test_what_a_shift_uncovers_is_air(plans: list[SeriesPlan]) -> None:
    plan = replace(plans[0], shift_xy_px=(6, -3))

    hu = draw_slice(plan, plan.keys[0].slice_index).hu

    assert (hu[:, :6] == -1024).all()
    assert (hu[-3:] == -1024).all()


def test_a_mirrored_picture_mirrors_its_mark_s_place(plans: list[SeriesPlan]) -> None:
    plan = plans[0]
    key = plan.keys[0]
    mirrored = replace(plan, edits=(SliceEdit(key.slice_index, "flip_left_right", "test"),))

    before = read_key(plan, key, draw_slice(plan, key.slice_index))
    after = read_key(mirrored, key, draw_slice(mirrored, key.slice_index))

    assert before is not None
    assert after is not None
    assert after.relative_xy[0] == pytest.approx(1 - before.relative_xy[0], abs=0.03)
    assert after.relative_xy[1] == pytest.approx(before.relative_xy[1], abs=0.03)


def test_a_lesion_that_is_not_to_be_seen_is_not_marked(plans: list[SeriesPlan]) -> None:
    plan = plans[0]
    gone = tuple(state for state in plan.states if state.lesion.identifier != plan.keys[0].lesion_id)

    confirmed = confirm(replace(plan, states=gone, keys=plan.keys[:1], sub_volumes=()), None)

    assert confirmed is None


def test_confirming_puts_every_key_slice_into_a_sub_volume(plans: list[SeriesPlan]) -> None:
    for plan in plans:
        assert all(key.slice_index in plan.part_of(key.slice_index).slice_indices for key in plan.keys)
