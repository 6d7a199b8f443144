"""Whole series become volumes: shrunk exactly, in order, split by patient; what is odd is left out and counted."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import annotation_row, slice_hu, write_release

import etl.volumes
from etl.ingest import ingest
from etl.planning import plan_sources
from etl.running import run_here
from etl.volumes import VolumeSettings, _unfit, choose_volumes, make_volumes, shrink
from lesionary.caches import find_cache, open_cache
from lesionary.errors import LakeError, UsageError
from lesionary.lake import Lake
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from lesionary.splits import split_of_patient

SETTINGS = VolumeSettings(side=32, min_slices=12, min_extent_mm=40.0)


def make_lake(folder, series, rows):
    lake = Lake.create(str(folder / "lake"))
    source = write_release(folder / "release", series, rows, side=64)
    plan = plan_sources([str(source)], IngestSettings(namespace="dl"))
    ingest(lake, plan, IngestSettings(), choose_runner=lambda _: (run_here, 1))
    return lake


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Two whole scans, one of them marked; one with a gap, one short, one of thin slices."""
    series = {
        "000001_01_01": range(1, 13),
        "000002_01_01": range(3, 18),
        "000003_01_01": [*range(1, 9), *range(12, 24)],
        "000004_01_01": range(1, 6),
        "000005_01_01": range(1, 16),
    }
    rows = [
        annotation_row(File_name="000001_01_01_006.png", Train_Val_Test="3"),
        annotation_row(File_name="000005_01_01_006.png", Spacing_mm_px_="0.8, 0.8, 1"),
    ]
    return make_lake(tmp_path_factory.mktemp("volumes"), series, rows)


def area_mean(hu, side):
    """The same by looking at every pixel."""
    whole = max(hu.shape)
    square = np.full((whole, whole), -1024.0)
    top, left = (whole - hu.shape[0]) // 2, (whole - hu.shape[1]) // 2
    square[top : top + hu.shape[0], left : left + hu.shape[1]] = hu
    size, found = whole / side, np.zeros((side, side))
    for y in range(side):
        for x in range(side):
            total = weight = 0.0
            for i in range(whole):
                for j in range(whole):
                    high = max(0.0, min(i + 1, (y + 1) * size) - max(i, y * size))
                    wide = max(0.0, min(j + 1, (x + 1) * size) - max(j, x * size))
                    total, weight = total + high * wide * square[i, j], weight + high * wide
            found[y, x] = total / weight
    return found


@pytest.mark.parametrize("shape", [(12, 12), (15, 15), (9, 14), (17, 11), (5, 5)])
def test_each_pixel_is_the_mean_of_its_area(shape):
    hu = np.random.default_rng(1).integers(-1024, 3000, shape).astype(np.int16)

    assert np.abs(shrink(hu, 6) - area_mean(hu, 6)).max() <= 0.51


def test_an_image_of_the_right_size_stays_as_it_is():
    hu = slice_hu("1_1_1", 1, side=32)

    assert np.array_equal(shrink(hu, 32), hu)


def test_whole_series_serve_and_the_others_are_counted(lake):
    record = make_volumes(lake, SETTINGS).record

    assert record["counts"] == {
        "volumes": 2,
        "patients": 2,
        "slices": 27,
        "volumes_by_split": {"test": 1, split_of_patient("dl-000002"): 1}
        if split_of_patient("dl-000002") != "test"
        else {"test": 2},
        "left_out": {"gaps": 1, "too_few_slices": 1, "too_short": 1},
    }


def test_rows_are_the_lakes_slices_in_order(lake, monkeypatch):
    monkeypatch.setattr(etl.volumes, "_ROWS_PER_PART", 13)
    cache = make_volumes(lake, replace(SETTINGS, min_extent_mm=41.0))
    table = open_cache(cache.url)

    assert len(cache.record["parts"]) == 2
    rows = table.drop_columns(["pixels"]).to_pylist()
    assert [(row["series_id"], row["slice_index"]) for row in rows] == [
        *(("dl-000001_01_01", index) for index in range(1, 13)),
        *(("dl-000002_01_01", index) for index in range(3, 18)),
    ]
    assert {row["split"] for row in rows[:12]} == {"test"}  # as the release says
    assert {row["split"] for row in rows[12:]} == {split_of_patient("dl-000002")}  # it says nothing
    assert rows[0]["spacing_z_mm"] == 5.0
    assert rows[12]["spacing_z_mm"] is None
    reader = SliceReader(lake)
    for row, pixels in zip(rows, table["pixels"].to_pylist(), strict=True):
        assert np.array_equal(
            np.array(pixels).reshape(32, 32), shrink(reader.read(row["series_id"], row["slice_index"]), 32)
        )


def test_of_long_series_every_nth_slice_is_taken(lake):
    chosen, _ = choose_volumes(lake, replace(SETTINGS, max_slices=12, min_slices=6), lake.snapshot().versions)

    longest = next(one for one in chosen if one.series_id == "dl-000002_01_01")
    assert longest.slice_indices == tuple(range(3, 18, 2))


def test_what_was_made_is_found_again_until_settings_or_lake_change(lake):
    made = make_volumes(lake, SETTINGS)

    assert make_volumes(lake, SETTINGS, choose_runner=lambda _: pytest.fail("made again")) == made
    assert make_volumes(lake, replace(SETTINGS, side=16)).url != made.url
    assert find_cache(lake, "volumes", {"side": 1}, {}) is None


def test_a_lake_without_whole_series_says_what_it_has(lake):
    with pytest.raises(LakeError, match=r"too few slices 4\).*ingest whole series"):
        make_volumes(lake, replace(SETTINGS, min_slices=100))


@pytest.mark.parametrize(
    ("odd", "reason"),
    [
        ({}, ""),
        ({"axial": False}, "not_axial"),
        ({"axial": None}, "not_axial"),
        ({"tilt_deg": -12.0}, "tilted"),
        ({"tilt_deg": 0.4}, ""),
        ({"single_position": True}, "several_slices_at_one_place"),
        ({"doubled_positions": True}, "several_slices_at_one_place"),
        ({"has_gaps": True}, "gaps"),
        ({"spacing_z_mm": 1.0}, "too_short"),
    ],
)
def test_odd_geometry_is_named(odd, reason):
    row = {
        "axial": True, "tilt_deg": None, "single_position": False, "doubled_positions": False, "has_gaps": False,
        "spacing_z_mm": 5.0,
    }  # fmt: skip

    assert _unfit(row | odd, range(1, 21), [None] * 20, SETTINGS) == reason


def test_settings_that_could_not_run_are_refused():
    with pytest.raises(UsageError, match="side must lie between 16 and 1024"):
        VolumeSettings(side=0)
    with pytest.raises(UsageError, match="max_slices"):
        VolumeSettings(max_slices=10)
