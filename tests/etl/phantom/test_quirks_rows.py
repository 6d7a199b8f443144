"""Row quirks, one by one, on rows made by hand."""

import math

import numpy as np
import pytest

from etl.phantom.quirks import apply_to_rows, apply_to_table, selected_quirks
from etl.phantom.quirks_of_rows import ROW_QUIRKS
from etl.phantom.release_table import ReleaseRow, cells
from lesionary.errors import UsageError
from lesionary.recist import Recist, measure_points

SEED = 3
NAMES = [quirk.name for quirk in ROW_QUIRKS]


def clean_rows() -> list[ReleaseRow]:
    """Two patients with two studies each."""
    return [
        ReleaseRow(
            series_name=f"{patient:06d}_{study:02d}_01",
            patient_index=patient,
            study_index=study,
            series_index=1,
            slice_index=40,
            points=(100.0, 200.0, 130.0, 240.0, 107.0, 226.0, 123.0, 214.0),
            location_xyz=(0.5, 0.25, 0.4),
            type_code=4,
            noisy=False,
            slice_range=(34, 46),
            spacing_xyz_mm=(0.8, 0.8, 5.0),
            image_size_px=512,
            window_low_high_hu=(-175.0, 275.0),
            sex="F",
            age_years=60.0 + study,
            split_code=3,
            lesion_id=f"{patient:06d}-01",
            true_type="liver",
            true_height=0.4,
            growth=1.0,
        )
        for patient in (1, 2)
        for study in (1, 2)
    ]


def touched(name: str) -> list[ReleaseRow]:
    return [row for row in apply_to_rows([name], SEED, clean_rows()) if name in row.quirks]


def geometry(name: str) -> Recist:
    (row,) = touched(name)
    return measure_points(np.array(row.points).reshape(4, 2), (1.0, 1.0))


@pytest.mark.parametrize("name", NAMES)
def test_a_quirk_changes_what_the_rows_say_and_only_where_it_says_so(name: str) -> None:
    changed = apply_to_rows([name], SEED, clean_rows())

    untouched = [cells(row) for row in changed if name not in row.quirks]
    assert [cells(row) for row in changed] != [cells(row) for row in clean_rows()]
    assert len(untouched) == len(clean_rows()) - 1
    assert all(line in [cells(row) for row in clean_rows()] for line in untouched)


@pytest.mark.parametrize("name", NAMES)
def test_a_quirk_finds_the_same_place_again(name: str) -> None:
    once, again = (apply_to_rows([name], SEED, clean_rows()) for _ in range(2))

    assert [cells(row) for row in once] == [cells(row) for row in again]


@pytest.mark.parametrize("name", NAMES)
def test_a_quirk_leaves_an_empty_table_alone(name: str) -> None:
    assert apply_to_rows([name], SEED, []) == []


def test_quirks_keep_out_of_each_others_way() -> None:
    four = ["short-exceeds-long", "axes-apart", "window-fraction", "height-missing"]

    assert [len(row.quirks) for row in apply_to_rows(four, SEED, clean_rows())] == [1, 1, 1, 1]


def test_the_short_diameter_exceeds_the_long_one() -> None:
    assert geometry("short-exceeds-long").short_exceeds_long


def test_diameters_that_do_not_cross_still_stand_on_each_other() -> None:
    recist = geometry("axes-apart")

    assert not recist.axes_cross
    assert recist.perpendicular


def test_oblique_diameters_meet_at_55_degrees() -> None:
    recist = geometry("axes-oblique")

    assert recist.axes_angle_deg == pytest.approx(55.0)
    assert recist.axes_cross
    assert recist.short_px == pytest.approx(20.0)


def test_the_last_study_is_younger_than_the_first() -> None:
    (row,) = touched("age-falls")

    assert row.study_index == 2
    assert row.age_years == 60.0


def test_the_key_slice_is_outside_its_range() -> None:
    (row,) = touched("key-outside-range")

    assert row.slice_index not in range(row.slice_range[0], row.slice_range[1] + 1)


def test_diameters_in_mm_are_pixels_times_spacing() -> None:
    (row,) = touched("diameters-in-mm")

    assert row.stated_diameters_px == pytest.approx((40.0, 16.0))


def test_what_a_quirk_takes_away_is_not_a_number() -> None:
    assert math.isnan(touched("age-missing")[0].age_years)
    assert math.isnan(touched("spacing-missing")[0].spacing_xyz_mm[2])
    assert math.isnan(touched("height-missing")[0].location_xyz[2])


def test_spacing_turns_negative() -> None:
    assert touched("spacing-negative")[0].spacing_xyz_mm == (0.8, 0.8, -5.0)


def test_a_duplicate_stands_next_to_its_original() -> None:
    first, second = touched("duplicate-row")

    assert cells(first) == cells(second)


def test_a_backslash_stands_before_the_slice_number() -> None:
    assert touched("windows-separator")[0].file_name.endswith("_01\\040.png")


def test_table_quirks_change_line_ends_and_the_first_bytes() -> None:
    both = ["windows-line-ends", "byte-order-mark"]

    assert apply_to_table(both, "a,b\n1,2\n") == b"\xef\xbb\xbfa,b\r\n1,2\r\n"
    assert apply_to_table([], "a,b\n1,2\n") == b"a,b\n1,2\n"


def test_all_stands_for_every_quirk_and_names_count_once() -> None:
    everything = selected_quirks(["all"])

    assert len(everything) == len(set(everything)) > 30
    assert selected_quirks(["age-missing", "age-missing"]) == ("age-missing",)
    assert selected_quirks(["age-missing", "all"]) == everything


def test_an_unknown_quirk_is_refused_with_the_way_to_see_them() -> None:
    with pytest.raises(UsageError, match=r"no quirk called 'flying'; see them with --list-quirks"):
        selected_quirks(["flying"])
