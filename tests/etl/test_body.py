"""Where the trunk lies: the phantom's own extent, the places its release gives, and slices without anybody."""

import numpy as np
import pytest

from etl.body import body_box, place_in_body
from etl.phantom.reading import draw_slice, read_key
from etl.phantom.release import ReleaseSettings, plan_series

SIZE = 192


@pytest.fixture(scope="module")
def marked():
    """Key slices of some patients: picture, the trunk's true extent, and the readings on it."""
    found = []
    settings = ReleaseSettings(patients=8, seed=5, image_size=SIZE, max_slices_per_series=1)
    for number in range(1, 9):
        for plan in plan_series(settings, number):
            for key in plan.keys:
                drawn = draw_slice(plan, key.slice_index)
                reading = read_key(plan, key, drawn)
                if reading is not None:
                    found.append((drawn, reading))
    return found


def test_extent_is_the_drawn_one(marked):
    errors = [np.abs(np.subtract(body_box(drawn.hu), drawn.body_box_xyxy_px)).max() / SIZE for drawn, _ in marked]

    assert len(errors) > 20
    assert np.median(errors) < 0.015
    # An arm that lies against the trunk counts as trunk.
    assert np.quantile(errors, 0.9) < 0.06


def test_places_are_those_the_release_gives(marked):
    """`Normalized_lesion_location` x and y, to which the release's own noise does not apply."""
    errors = []
    for drawn, reading in marked:
        points = np.reshape(reading.points, (4, 2)) - 1.0
        center = (points.min(axis=0) + points.max(axis=0)) / 2
        place = place_in_body((float(center[0]), float(center[1])), body_box(drawn.hu))
        errors.append(np.abs(np.subtract(place, reading.relative_xy)).max())

    assert np.median(errors) < 0.02
    assert np.quantile(errors, 0.9) < 0.07


def test_table_under_the_patient_is_no_part_of_him():
    rows, columns = np.mgrid[:512, :512]
    hu = np.full((512, 512), -1000, np.int16)
    hu[((columns - 256) / 180) ** 2 + ((rows - 240) / 120) ** 2 < 1] = 30
    hu[380:384, 60:450] = 200

    assert np.allclose(body_box(hu), (76, 120, 436, 360), atol=6)


@pytest.mark.parametrize("hu", [np.full((64, 64), -1000), np.full((64, 64), -1024), np.zeros((16, 16)) - 900])
def test_slice_without_anybody_has_no_body(hu):
    assert body_box(hu.astype(np.int16)) is None


def test_points_beside_the_body_are_cut_to_its_edge():
    assert place_in_body((-5.0, 300.0), (0.0, 0.0, 100.0, 200.0)) == (0.0, 1.0)
