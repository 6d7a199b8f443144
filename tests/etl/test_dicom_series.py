"""Which images form a series, in what order, and what is said of its geometry."""

import math
import random

import pytest
from pacs_files import changed, ct, take_in

from etl.dicom_fields import read_encoding, read_fields
from etl.dicom_images import WANTED_TAGS, FilePlace, read_images
from etl.dicom_series import group_series
from lesionary.lake import Lake


def images_of(*files):
    found = []
    for number, data in enumerate(files):
        encoding = read_encoding(data)
        fields, pixels = read_fields(encoding, WANTED_TAGS)
        found += read_images(fields, encoding, pixels, FilePlace(0, f"f{number}", len(data), 0))
    return found


def geometry(*files):
    (series,) = group_series(images_of(*files))
    return series


def test_order_comes_from_space_whatever_the_instance_numbers_and_files():
    files = [ct(number) for number in range(1, 9)]
    random.Random(3).shuffle(files)

    series = geometry(*files)

    assert [image.position_mm[2] for image in series.images] == [95.0 - 5 * number for number in range(8)]
    assert series.geometry.z_mm == tuple(5.0 * number for number in range(8))
    assert (series.geometry.regular, series.geometry.interval_mm, series.geometry.tilt_deg) == (True, 5.0, 0.0)


def test_gap_is_said_and_not_filled():
    series = geometry(*(ct(number) for number in (1, 2, 4, 5)))

    assert series.geometry.z_mm == (0.0, 5.0, 15.0, 20.0)
    assert (series.geometry.regular, series.geometry.has_gaps, series.geometry.interval_mm) == (False, True, 5.0)


def test_uneven_steps_are_irregular_without_being_gaps():
    series = geometry(*(ct(number, z=z) for number, z in enumerate((0.0, -5.0, -10.6, -15.0), 1)))

    assert (series.geometry.regular, series.geometry.has_gaps) == (False, False)


def test_rounding_of_positions_is_no_irregularity():
    series = geometry(*(ct(number, z=round(-number * 0.33333, 2)) for number in range(1, 30)))

    assert series.geometry.regular is True


def test_doubled_places_keep_every_image():
    files = [ct(number, z=-5.0 * (number // 2)) for number in range(1, 8)]

    series = geometry(*files)

    assert len(series.images) == 7
    assert (series.geometry.doubled, series.geometry.regular, series.geometry.single_position) == (True, False, False)


def test_many_images_at_one_place_are_no_volume():
    series = geometry(*(ct(number, z=0.0) for number in range(1, 5)))

    assert (series.geometry.single_position, series.geometry.regular, series.geometry.interval_mm) == (
        True,
        False,
        None,
    )


@pytest.mark.parametrize("degrees", [14.0, 18.5, -18.5])
def test_tilt_is_computed_from_places_without_any_tag(degrees):
    # The gantry leans, the table moves straight: each slice is shifted along the body's axis.
    row, lean = (1.0, 0.0, 0.0), math.radians(degrees)
    column = (0.0, math.cos(lean), math.sin(lean))

    def slice_at(number):
        return changed(ct(number, position=(0.0, 0.0, -2.5 * number)), ImageOrientationPatient=[*row, *column])

    series = geometry(*(slice_at(number) for number in range(1, 6)))

    assert series.geometry.tilt_deg == pytest.approx(abs(degrees), abs=1e-4)
    assert series.geometry.interval_mm == pytest.approx(2.5 * math.cos(lean), abs=1e-4)
    assert series.geometry.regular is True
    assert series.geometry.axial


def test_single_image_has_no_interval_and_no_tilt():
    series = geometry(ct(1))

    assert series.geometry.interval_mm is series.geometry.regular is series.geometry.tilt_deg is None
    assert series.geometry.single_position is False


def test_rounded_directions_stay_one_series():
    files = [ct(1), changed(ct(2), ImageOrientationPatient=[0.99999, 0.004, 0, -0.004, 0.99999, 0])]

    assert len(group_series(images_of(*files))) == 1


def test_verdicts_of_real_series(tmp_path, shared_pacs):
    lake = Lake.create(str(tmp_path / "lake"))
    take_in(lake, shared_pacs / "ct", tmp_path)

    verdicts = {
        (row["slice_count"], round(row["tilt_deg"], 1) if row["tilt_deg"] is not None else None): (
            row["regular_spacing"], row["has_gaps"], row["single_position"], row["doubled_positions"],
        )
        for row in lake.read("series").to_pylist()
    }  # fmt: skip
    assert verdicts == {
        (28, 18.5): (False, True, False, False),
        (4, 14.0): (True, False, False, False),
        (4, 15.5): (False, True, False, False),
        (4, 0.0): (False, True, False, False),
        (4, None): (False, None, True, True),
    }
