"""A release's true masks: those that its readers measured, on slices that are there."""

import json

import numpy as np
import pytest

from etl.phantom.release import ReleaseSettings, write_release
from lesionary.recist import measure_mask
from lesionary.run_lengths import MaskRuns, decode_mask


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "out"
    write_release(folder, ReleaseSettings(patients=3, seed=4, volumes=1, image_size=96, max_slices_per_series=9))
    return folder


def entries(folder):
    return json.loads((folder / "truth_masks.json").read_text())["lesions"]


def test_every_row_has_the_mask_its_reader_measured(written):
    lines = (written / "DL_info.csv").read_text().splitlines()[1:]
    truth = [line.split(",") for line in (written / "truth.csv").read_text().splitlines()[1:]]
    by_row = {row: one for one in entries(written) for row in one["rows"]}

    assert sorted(by_row) == list(range(1, len(lines) + 1))
    for number, line in enumerate(lines, start=1):
        one = by_row[number]
        assert [one["series"], one["lesion_id"], one["type"]] == [truth[number - 1][at] for at in (2, 4, 5)]
        key = int(truth[number - 1][3])
        (mask,) = [
            MaskRuns(left, top, columns, rows, tuple(runs))
            for index, _, left, top, columns, rows, runs in one["slices"]
            if index == key
        ]
        exact = measure_mask(decode_mask(mask, (96, 96)))
        clicked = np.array([float(value) for value in line.split('"')[1].split(",")]).reshape(4, 2) - 1
        assert np.abs(exact - clicked).max() < 1.5


def test_unmarked_lesions_have_masks_and_no_row(written):
    unmarked = json.loads((written / "truth.json").read_text())["unmarked"]
    without_row = {(one["series"], one["lesion_id"]) for one in entries(written) if not one["rows"]}

    assert unmarked
    assert {(one["series"], one["lesion_id"]) for one in unmarked} <= without_row


def test_masks_lie_on_written_slices(written):
    for one in entries(written):
        numbers = [entry[0] for entry in one["slices"]]
        assert numbers == sorted(set(numbers))
        for index in numbers:
            assert (written / "Images_png" / one["series"] / f"{index:03d}.png").is_file()


def test_nothing_of_the_masks_is_in_the_table(written):
    assert "mask" not in (written / "DL_info.csv").read_text().splitlines()[0].lower()
