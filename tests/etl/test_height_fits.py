"""What heights say of a series: odd slices do not move lesions, and verdicts are given only where heights tell."""

import numpy as np
import pytest

from etl.height_fits import (
    MIN_ESTIMATED_MM,
    MIN_STATED_MM,
    WRONG_INTERVAL_FACTOR,
    borders_from_types,
    fit_to_release,
    height_at,
    judge,
    rise_per_mm,
    series_heights,
    usual_rise,
)

RISE = 1 / 800


def series(count=40, step=5.0, top=0.2, rise=RISE, noise=0.0, counted=False, stated=None, seed=0):
    """A series whose heights rise as a body's do; `stated` is the interval it claims instead of the true one."""
    places = np.arange(count) * step
    heights = top + rise * places + np.random.default_rng(seed).normal(0, noise, count)
    return series_heights(range(1, count + 1), (np.arange(count) * (stated or step)).tolist(), heights, counted=counted)


def test_one_odd_slice_does_not_move_its_lesion():
    plain, odd = series(noise=0.003), series(noise=0.003)
    odd.heights[19] = 0.95

    assert height_at(odd, 20) == pytest.approx(height_at(plain, 20), abs=0.003)
    assert height_at(odd, 20) == pytest.approx(0.2 + RISE * 95, abs=0.004)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_short_series_place_their_lesions(count):
    found = series(count)

    # Two or three slices do not tell their order, so that the middle one speaks for all.
    assert height_at(found, 1) == pytest.approx(0.2, abs=0.01)
    assert height_at(found, count) == pytest.approx(0.2 + RISE * 5 * (count - 1), abs=0.01)
    assert height_at(found, count + 1) is None


def test_missing_key_slice_lies_between_its_neighbours():
    heights = 0.2 + RISE * 5 * np.array([0, 1, 2, 4, 5, 6])
    found = series_heights([1, 2, 3, 5, 6, 7], [0, 5, 10, 20, 25, 30], heights, counted=False)

    assert height_at(found, 4) == pytest.approx(0.2 + RISE * 15)


def test_far_parts_of_a_series_do_not_matter():
    # Two sub-volumes of a release, and nothing between them.
    indices = [*range(10, 23), *range(110, 123)]
    heights = [0.1 + 0.004 * (index - 10) for index in indices[:13]] + [0.8 + 0.001 * at for at in range(13)]
    found = series_heights(indices, [5.0 * index for index in indices], heights, counted=True)

    assert height_at(found, 16) == pytest.approx(0.1 + 0.004 * 6)
    assert height_at(found, 116) == pytest.approx(0.806)


def test_reversed_order_is_told_and_lesions_keep_their_height():
    found = series(rise=-RISE, top=0.8, noise=0.01)
    verdicts = judge(found, 5.0, RISE, None)

    assert (verdicts.reversed, verdicts.wrong_interval) == (True, False)
    assert verdicts.correlation < -0.95
    assert height_at(found, 11) == pytest.approx(0.8 - RISE * 50, abs=0.01)


@pytest.mark.parametrize("noise", [0.3, 3.0])
def test_noise_gives_no_verdict(noise):
    verdicts = judge(series(12, noise=noise, rise=0), 5.0, RISE, None)

    assert (verdicts.reversed, verdicts.interval_ratio, verdicts.wrong_interval) == (None, None, None)


def test_slices_at_one_place_have_no_order():
    found = series_heights([1, 2, 3, 4], [0.0, 0.0, 0.0, 0.0], [0.4, 0.41, 0.39, 0.4], counted=False)
    verdicts = judge(found, None, RISE, (0.4, 0.7))

    assert (verdicts.correlation, verdicts.reversed, verdicts.interval_ratio) == (None, None, None)
    assert height_at(found, 2) == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(("stated", "wrong"), [(5.0, False), (2.5, True), (10.0, True), (6.0, False)])
def test_wrong_interval_is_told_by_the_usual_rise(stated, wrong):
    usual = usual_rise([series(noise=0.01, seed=seed, rise=RISE * (0.9 + 0.02 * seed)) for seed in range(11)])
    verdicts = judge(series(60, noise=0.01, stated=stated), stated, usual, None)

    assert usual == pytest.approx(RISE, rel=0.05)
    assert verdicts.wrong_interval is wrong
    assert verdicts.estimated_interval_mm == pytest.approx(5.0, rel=0.1)
    assert verdicts.interval_ratio == pytest.approx(5.0 / stated, rel=0.1)
    assert 1.5 <= WRONG_INTERVAL_FACTOR < 2


def test_too_little_of_the_body_tells_no_interval_whatever_is_stated():
    assert MIN_STATED_MM > 61
    assert MIN_ESTIMATED_MM > 2 * 61
    for stated, step in ((1.0, 1.0), (5.0, 5.0), (5.0, 12.0)):
        verdicts = judge(series(13, step, stated=stated), stated, RISE, None)
        assert (verdicts.interval_ratio, verdicts.reversed) == (None, False)
    assert usual_rise([series(13)] * 20) is None


def test_an_interval_that_is_stated_far_too_small_is_told_by_what_the_slices_show():
    verdicts = judge(series(60, 5.0, stated=1.0), 1.0, RISE, None)

    assert (verdicts.wrong_interval, verdicts.interval_ratio) == (True, pytest.approx(5.0))


def test_a_stretch_where_heights_stand_still_is_not_called_reversed():
    heights = 0.45 - 0.01 * np.linspace(0, 1, 13) + np.random.default_rng(5).normal(0, 0.006, 13)
    found = series_heights(range(13), 5.0 * np.arange(13), heights, counted=False)
    verdicts = judge(found, 5.0, RISE, None)

    assert -0.9 < verdicts.correlation < -0.3
    assert verdicts.reversed is None


def test_sub_volumes_of_several_intervals_are_ordered_by_their_numbers():
    # z is the number times the interval: 10 mm at 1 mm each, then 8 × 5 mm.
    indices = [*range(10, 30), *range(40, 48)]
    z_mm = [float(index) for index in indices[:20]] + [5.0 * index for index in indices[20:]]
    found = series_heights(indices, z_mm, 0.01 * np.array(indices), counted=True)

    assert not found.in_mm
    assert rise_per_mm(found) is None
    assert judge(found, 1.0, RISE, None).correlation == pytest.approx(1.0)


def test_places_that_are_not_known_leave_numbers():
    found = series_heights([1, 2, 3, 4, 5], [None] * 5, [0.1, 0.2, 0.3, 0.4, 0.5], counted=True)

    assert judge(found, None, RISE, None).reversed is False
    assert height_at(found, 3) == pytest.approx(0.3)


def test_body_range_names_the_parts_that_are_seen():
    def of(first, last):
        heights = np.linspace(first, last, 50)
        return judge(
            series_heights(range(50), np.arange(50.0), heights, counted=False), 1.0, None, (0.4, 0.7)
        ).body_range

    assert [of(0.1, 0.35), of(0.1, 0.6), of(0.45, 0.65), of(0.3, 0.9), of(0.75, 0.9)] == [
        "chest", "chest+abdomen", "abdomen", "chest+abdomen+pelvis", "pelvis",
    ]  # fmt: skip


def test_odd_slices_name_no_part():
    found = series(top=0.1, rise=RISE / 2)
    found.heights[[3, 20]] = 0.99
    verdicts = judge(found, 5.0, None, (0.4, 0.7))

    assert verdicts.body_range == "chest"
    assert verdicts.largest_height < 0.3


def test_heights_are_brought_to_the_releases_scale_whatever_a_fifth_of_them_say():
    rng = np.random.default_rng(1)
    heights = rng.uniform(0, 1, 200)
    z = 0.1 + 0.8 * heights + rng.normal(0, 0.01, 200)
    z[:40] = rng.uniform(0, 1, 40)
    fit = fit_to_release(heights.tolist(), z.tolist())

    assert (fit.scale, fit.offset) == pytest.approx((0.8, 0.1), abs=0.02)
    assert fit(0.5) == pytest.approx(0.5, abs=0.01)
    assert fit.error < 0.02
    assert fit_to_release(heights[:49].tolist(), z[:49].tolist()) is None
    assert fit_to_release(heights.tolist(), (1 - heights).tolist()) is None


def test_borders_come_from_lesions_whose_type_tells_the_part():
    rng = np.random.default_rng(2)
    heights = {
        "lung": rng.uniform(0.1, 0.42, 60),
        "liver": rng.uniform(0.38, 0.6, 60),
        "pelvis": rng.uniform(0.7, 1, 60),
    }
    pairs = [(height, name) for name, found in heights.items() for height in found]
    pairs += [(height, None) for height in rng.uniform(0, 1, 50)]
    chest_ends, pelvis_begins = borders_from_types(*zip(*pairs, strict=True))

    assert 0.37 < chest_ends < 0.43
    assert 0.6 < pelvis_begins < 0.7
    assert borders_from_types(*zip(*[pair for pair in pairs if pair[1] != "pelvis"], strict=True)) is None
