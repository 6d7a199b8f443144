"""Every lesion of a lake becomes a patch or is counted; the cache is made once, whole, and again only when it must."""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import annotation_row, slice_hu, write_release

from etl.ingest import ingest
from etl.patch_cutting import LeftOut, PatchSettings, Series, cut_all, lesion_patch, patch_of, plan_patch, read_series
from etl.patch_geometry import SlicePlaces
from etl.patches import make_patches
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.caches import find_cache, open_cache
from lesionary.errors import UnknownLesionError
from lesionary.lake import Lake
from lesionary.patch_schema import PATCHES
from lesionary.recist import FIRST_CENTERS
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader

SIDE = 256
# Boxes of 20 × 10 px around (100, 90), as published: one-based, padded by 5 px.
AT = {
    "Measurement_coordinates": "90, 90, 110, 90, 100, 85, 100, 95",
    "Bounding_boxes": "85, 80, 115, 100",
    "Image_size": f"{SIDE}, {SIDE}",
    "Spacing_mm_px_": "1, 1, 2",
}


def row(**changes):
    return annotation_row(**(AT | changes))


def take_in(lake, folder, rows, series, name="dl"):
    source = write_release(folder, series, rows, SIDE)
    ingest(
        lake,
        plan_sources([str(source)], IngestSettings(namespace=name)),
        IngestSettings(),
        choose_runner=lambda _: (run_here, 1),
    )


@pytest.fixture
def lake(tmp_path):
    """Four lesions: two on one slice, one without its slice, one without a pixel spacing."""
    lake = Lake.create(str(tmp_path / "lake"))
    rows = [
        row(),
        row(
            Measurement_coordinates="10, 20, 200, 20, 100, 15, 100, 25",
            Bounding_boxes="5, 10, 205, 30",
            Normalized_lesion_location="-1, -1, -1",
            Coarse_lesion_type="-1",
            Train_Val_Test="1",
        ),
        row(File_name="000002_01_01_009.png"),
        row(File_name="000003_01_01_002.png", Spacing_mm_px_="0, 0, 0"),
    ]
    take_in(lake, tmp_path / "release", rows, {f"00000{n}_01_01": range(1, 6) for n in (1, 2, 3)})
    return lake


def rows_of(cache):
    return {one["lesion_id"]: one for one in open_cache(cache.url).to_pylist()}


def pixels_of(one):
    return np.frombuffer(one["pixels"], "<i2").reshape(3, one["side"], one["side"])


def test_patches_and_lesions_left_out_are_all_lesions(lake):
    told = []
    cache = make_patches(lake, progress=lambda done, total: told.append((done, total)))

    assert cache.record["counts"] == {
        "lesions": 4,
        "patches": 2,
        "cut": 0,
        "left_out": {"key_slice_missing": 1, "no_pixel_spacing": 1},
    }
    assert told == [(4, 4)]
    table = open_cache(cache.url)
    assert table.schema.equals(PATCHES)
    assert table["lesion_id"].to_pylist() == ["dl-1", "dl-2"]
    assert table["side"].to_pylist() == [160, 320]


def test_a_row_says_what_the_lake_says(lake):
    one, two = (
        rows_of(make_patches(lake, located={"dl-1": 0.1, "dl-2": 0.25, "dl-9": 0.3}))[n] for n in ("dl-1", "dl-2")
    )

    assert (one["patient_id"], one["study_id"]) == ("dl-000001", "dl-000001_01")
    assert (one["lesion_type"], one["split"]) == ("lung", "test")
    assert (two["lesion_type"], two["split"]) == (None, "train")
    assert (one["x"], one["y"], one["z"]) == pytest.approx((0.4, 0.5, 0.6))
    assert (two["x"], two["y"], two["z"]) == (None, None, 0.25)
    assert (one["long_mm"], one["short_mm"]) == (20, 10)
    # 20 × 10 mm and 5 mm on every side, in the middle of 160 mm; 50 mm around them.
    assert one["box"] == [65, 70, 95, 90]
    assert one["extent"] == [15, 20, 145, 140]


def test_pixels_are_the_images_around_the_box(lake):
    cache = make_patches(lake)

    for lesion, (x, y) in {"dl-1": (99, 89), "dl-2": (104, 19)}.items():
        one = rows_of(cache)[lesion]
        # The box's middle is pixel (x, y)'s, and of an even side the middle is an edge: half of two pixels each.
        images = [np.pad(slice_hu("000001_01_01", index, SIDE), 400, mode="edge").astype(float) for index in (2, 3, 4)]
        half = one["side"] // 2
        low_y, low_x = y + 400 - half, x + 400 - half
        four = [
            [image[low_y + dy : low_y + dy + 2 * half, low_x + dx : low_x + dx + 2 * half] for image in images]
            for dy in (0, 1)
            for dx in (0, 1)
        ]
        assert np.abs(pixels_of(one) - np.mean(four, axis=0)).max() <= 0.51


def test_one_lesion_alone_is_cut_the_same(lake):
    cached = rows_of(make_patches(lake))["dl-2"]
    alone = lesion_patch(lake, "dl-2")

    assert (alone.pixels == pixels_of(cached)).all()
    assert (list(alone.box), list(alone.extent), alone.side) == (cached["box"], cached["extent"], cached["side"])
    assert lesion_patch(lake, "dl-3") is LeftOut.KEY_SLICE_MISSING
    assert lesion_patch(lake, "dl-4") is LeftOut.NO_PIXEL_SPACING
    with pytest.raises(UnknownLesionError):
        lesion_patch(lake, "dl-99")


def test_a_second_call_cuts_nothing(lake):
    first = make_patches(lake)

    def refuse(_):
        raise AssertionError("there is a cache")

    again = make_patches(lake, choose_runner=refuse)
    assert (again.url, dict(again.record)) == (first.url, dict(first.record))


def test_the_same_parts_whoever_cuts_them(lake, tmp_path):
    first = make_patches(lake)
    parts = {path.name: path.read_bytes() for path in Path(first.url).glob("part-*")}
    Path(first.url, "cache.json").unlink()

    backwards = make_patches(lake, choose_runner=lambda _: (lambda tasks: run_here(reversed(list(tasks))), 1))

    assert backwards.url == first.url
    assert {path.name: path.read_bytes() for path in Path(first.url).glob("part-*")} == parts


def test_new_lesions_make_a_new_cache_and_the_old_one_goes(lake, tmp_path):
    old = make_patches(lake)
    take_in(lake, tmp_path / "more", [row()], {"000001_01_01": range(1, 6)}, "more")
    new = make_patches(lake)

    assert new.url != old.url
    assert set(rows_of(new)) == {"dl-1", "dl-2", "more-1"}
    assert not Path(old.url).exists()


def test_other_settings_and_other_heights_make_another_cache(lake):
    urls = {
        make_patches(lake, settings, located=located, drop_old=False).url
        for settings in (PatchSettings(), PatchSettings(box_padding_px=0), PatchSettings(context_mm=20))
        for located in (None, {"dl-2": 0.5}, {"dl-2": 0.6})
    }

    assert len(urls) == 9
    assert all(Path(url, "cache.json").is_file() for url in urls)


def test_a_builder_that_is_killed_leaves_no_cache(lake):
    program = (
        "import os, signal, sys\n"
        "from etl.patches import make_patches\n"
        "from etl.running import run_here\n"
        "from lesionary.lake import Lake\n"
        "def killed(tasks):\n"
        "    yield from run_here(tasks)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "make_patches(Lake.open(sys.argv[1]), choose_runner=lambda _: (killed, 1))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, lake.url], cwd=Path(__file__).parents[2], check=False)

    assert done.returncode == -9
    (folder,) = Path(lake.url, "cache").iterdir()
    assert [path.name for path in folder.iterdir()] == ["part-00000.arrow"]
    versions = {name: lake.shards(name)[0] for name in ("lesions", "series", "slices")}
    assert find_cache(lake, "patches", {}, versions) is None
    assert make_patches(lake).url == str(folder)


def test_a_lake_without_lesions_has_an_empty_cache(tmp_path):
    cache = make_patches(Lake.create(str(tmp_path / "empty")))

    assert cache.record["counts"] == {"lesions": 0, "patches": 0, "cut": 0, "left_out": {}}
    assert open_cache(cache.url).num_rows == 0


class CountingReader(SliceReader):
    """A reader that remembers what it read."""

    def __init__(self, lake):
        super().__init__(lake)
        self.seen = []

    def read(self, series_id, slice_index):
        self.seen.append((series_id, slice_index))
        return super().read(series_id, slice_index)


def test_a_slice_is_read_once_however_many_lesions_need_it(lake):
    lesions = lake.read("lesions").to_pylist()
    series = read_series(lake, sorted({one["series_id"] for one in lesions}))
    key = next(one for one in lesions if one["lesion_id"] == "dl-1")
    wanted = [key | {"slice_index": index, "lesion_id": f"{index}-{n}"} for n in range(3) for index in (4, 2, 3)]
    planned = [(one, plan_patch(one, series[one["series_id"]], PatchSettings())) for one in wanted]

    with CountingReader(lake) as reader:
        cut_all(reader, planned, series)

    assert reader.seen == [("dl-000001_01_01", index) for index in range(1, 6)]


# --- one lesion ---

LESION = {"slice_index": 3, "box_xyxy_px": [20.0, 25.0, 40.0, 35.0], "coord_convention": "zero_based"}
PLACES = SlicePlaces(np.arange(1, 6), np.arange(1, 6) * 2.0, np.full(5, 100), np.full(5, 120))
SERIES = Series("s", (0.8, 0.5), 2.0, PLACES)


@pytest.mark.parametrize("convention", sorted(FIRST_CENTERS))
def test_boxes_mean_the_same_place_in_every_convention(convention):
    first = {"one_based": 1.0, "half_based": 0.5, "zero_based": 0.0}[convention]
    lesion = LESION | {"coord_convention": convention, "box_xyxy_px": [one + first for one in LESION["box_xyxy_px"]]}

    frame = plan_patch(lesion, SERIES, PatchSettings()).frame

    assert frame.center_px == (30, 30)
    # (20 + 10) × .8 mm by (10 + 10) × .5 mm, around the middle of 128 mm.
    assert frame.box == pytest.approx((52, 59, 76, 69))


def test_padding_and_context_are_settings():
    frame = plan_patch(LESION, SERIES, PatchSettings(box_padding_px=20, context_mm=10)).frame

    assert frame.box == pytest.approx((64 - 24, 64 - 12.5, 64 + 24, 64 + 12.5))
    assert frame.extent == pytest.approx((64 - 34, 64 - 22.5, 64 + 34, 64 + 22.5))


@pytest.mark.parametrize(
    ("lesion", "series", "reason"),
    [
        ({"slice_index": 6}, {}, LeftOut.KEY_SLICE_MISSING),
        ({}, {"spacing_xy_mm": (math.nan, 0.5)}, LeftOut.NO_PIXEL_SPACING),
        ({}, {"spacing_xy_mm": (0.8, 0.0)}, LeftOut.ODD_PIXEL_SPACING),
        ({}, {"spacing_xy_mm": (900.0, 0.5)}, LeftOut.ODD_PIXEL_SPACING),
        ({"box_xyxy_px": [120.0, 20.0, 130.0, 30.0]}, {}, LeftOut.BOX_OUTSIDE_IMAGE),
        ({"box_xyxy_px": [20.0, 100.0, 30.0, 110.0]}, {}, LeftOut.BOX_OUTSIDE_IMAGE),
        ({"box_xyxy_px": [-20.0, -20.0, -5.0, 10.0]}, {}, LeftOut.BOX_OUTSIDE_IMAGE),
        ({"box_xyxy_px": [math.nan, 20.0, 30.0, 30.0]}, {}, LeftOut.BOX_OUTSIDE_IMAGE),
        ({"box_xyxy_px": [1e300, 20.0, -1e300, 30.0]}, {}, LeftOut.BOX_OUTSIDE_IMAGE),
    ],
)
def test_what_cannot_be_cut_says_why(lake, lesion, series, reason):
    with SliceReader(lake) as reader:
        assert patch_of(reader, LESION | lesion, replace(SERIES, **series), PatchSettings()) is reason


def test_a_box_that_reaches_beyond_the_image_is_cut():
    assert plan_patch(LESION | {"box_xyxy_px": [110.0, 90.0, 130.0, 105.0]}, SERIES, PatchSettings()).frame.side == 128


def test_a_series_that_the_lake_does_not_describe_has_nothing(lake):
    series = read_series(lake, ["dl-000001_01_01", "nobody"])

    assert math.isnan(series["nobody"].spacing_xy_mm[0])
    assert len(series["nobody"].places.indices) == 0
    assert series["dl-000001_01_01"].places.z_mm.tolist() == [2, 4, 6, 8, 10]
    assert series["dl-000001_01_01"].places.rows.tolist() == [SIDE] * 5


@pytest.mark.ray
def test_patches_are_made_on_ray_as_here(lake, ray_cluster):
    from etl.ingest_job import run_on_ray

    here = rows_of(make_patches(lake))
    Path(make_patches(lake).url, "cache.json").unlink()

    assert rows_of(make_patches(lake, choose_runner=lambda _: (run_on_ray, 2))) == here
