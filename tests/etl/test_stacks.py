"""Every marked slice of a lake becomes a stack or is counted; marks lie on their pixels, slices without are clear."""

import numpy as np
import pytest
from conftest import annotation_row, write_release

from etl.ingest import ingest
from etl.patch_cutting import read_series
from etl.planning import plan_sources
from etl.running import run_here
from etl.stack_geometry import StackFrame, StackMaker, frame_for, mix, resample
from etl.stacks import StackTask, TrainingStacks, make_stacks
from lesionary.caches import find_cache, open_cache
from lesionary.errors import LakeError, UsageError
from lesionary.lake import Lake
from lesionary.pixels import decode_slice
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from lesionary.stack_schema import STACKS, StackSettings

SIDE = 256
AT = {
    "Measurement_coordinates": "90, 90, 110, 90, 100, 85, 100, 95",
    "Bounding_boxes": "85, 80, 115, 100",
    "Image_size": f"{SIDE}, {SIDE}",
    "Spacing_mm_px_": "1, 1, 2",
}
SETTINGS = TrainingStacks(StackSettings(pixel_mm=2.0, slices=3, max_side_px=200), empty_share=1.0, clear_mm=2.0)


def row(**changes):
    return annotation_row(**(AT | changes))


def take_in(lake, folder, rows, series):
    source = write_release(folder, series, rows, SIDE)
    ingest(
        lake,
        plan_sources([str(source)], IngestSettings(namespace="dl")),
        IngestSettings(),
        choose_runner=lambda _: (run_here, 1),
    )


@pytest.fixture
def lake(tmp_path):
    """Four marks: two on one slice, one without its slice, one without a pixel spacing."""
    lake = Lake.create(str(tmp_path / "lake"))
    rows = [
        row(),
        row(Measurement_coordinates="30, 40, 60, 40, 45, 35, 45, 45", Bounding_boxes="25, 30, 65, 50"),
        row(File_name="000002_01_01_039.png"),
        row(File_name="000003_01_01_002.png", Spacing_mm_px_="0, 0, 0"),
    ]
    take_in(lake, tmp_path / "release", rows, {f"00000{n}_01_01": range(1, 31) for n in (1, 2, 3)})
    return lake


def test_stacks_and_slices_left_out_are_all_marked_slices(lake):
    told = []
    cache = make_stacks(lake, SETTINGS, progress=lambda done, total: told.append((done, total)))

    assert cache.record["counts"] == {
        "lesions": 2,
        "marked": 1,
        "empty": 1,
        "left_out": {"key_slice_missing": 1, "no_pixel_spacing": 1},
    }
    assert told == [(3, 3)]
    table = open_cache(cache.url)
    assert table.schema.equals(STACKS)
    marked, empty = sorted(table.to_pylist(), key=lambda one: not one["lesion_ids"])
    assert marked["lesion_ids"] == ["dl-1", "dl-2"]
    # 15 mm of the longer lesion and 2 mm more are free, at 2 mm a slice.
    assert abs(empty["slice_index"] - marked["slice_index"]) * 2 > 17
    assert marked["patient_id"] == empty["patient_id"] == "dl-000001"


def test_marks_lie_on_their_pixels(lake):
    (marked,) = [one for one in open_cache(make_stacks(lake, SETTINGS).url).to_pylist() if one["lesion_ids"]]
    frame = frame_for([SliceReader(lake).read("dl-000001_01_01", marked["slice_index"])], (1.0, 1.0), SETTINGS.stack)

    assert (marked["scale_x"], marked["scale_y"]) == (frame.scale_x, frame.scale_y)
    # One-based in the release: the tight box is 89…109 by 84…94 in zero-based pixel centres.
    expected = frame.to_stack(np.array([[89.0, 84.0, 109.0, 94.0]]))[0]
    assert marked["boxes"][0] == pytest.approx(expected.tolist(), abs=1e-3)
    assert marked["axes"][0] == pytest.approx(
        frame.to_stack(np.array([89.0, 89, 109, 89, 99, 84, 99, 94])).tolist(), abs=1e-3
    )
    images = [decode_slice(one) for one in marked["pixels"]]
    assert len(images) == 3
    assert all(image.shape == (marked["rows"], marked["columns"]) for image in images)


def test_a_stack_is_its_slices_two_millimetres_apart(lake):
    name = "dl-000001_01_01"
    series = read_series(lake, [name])[name]
    reader = SliceReader(lake)
    frame = StackFrame(0, 0, 1.0, 1.0, SIDE, SIDE)
    maker = StackMaker(reader, name, series.places, series.spacing_z_mm, frame, StackSettings(1.0, 3, 2.0, 512))

    stacks = list(maker.stacks([1, 2, 5, 30]))

    assert np.array_equal(stacks[2], np.stack([reader.read(name, index) for index in (4, 5, 6)]))
    # At either end the last slice goes on.
    assert np.array_equal(stacks[0], np.stack([reader.read(name, index) for index in (1, 1, 2)]))
    assert np.array_equal(stacks[3], np.stack([reader.read(name, index) for index in (29, 30, 30)]))
    with pytest.raises(LakeError, match="there is no slice 31"):
        next(maker.stacks([31]))


def test_boxes_go_to_the_stack_and_come_back():
    frame = StackFrame(left=10, top=20, scale_x=0.5, scale_y=0.25, columns=50, rows=40)
    boxes = np.random.default_rng(0).uniform(0, 90, (20, 4))

    assert np.allclose(frame.to_slice(frame.to_stack(boxes)), boxes)
    # The edge of the frame is the edge of its first pixel, half a pixel before the pixel's centre.
    assert frame.to_stack(np.array([[9.5, 19.5, 10.5, 20.5]])).tolist() == [[0, 0, 0.5, 0.25]]


@pytest.mark.parametrize(("spacing", "pixel_mm"), [((0.5, 0.5), 1.0), ((1.0, 2.0), 1.0), ((0.8, 0.8), 0.5)])
def test_a_ramp_stays_a_ramp_on_the_stack(spacing, pixel_mm):
    across, down = np.meshgrid(np.arange(120), np.arange(90))
    image = (4 * across + 3 * down).astype(np.int16)
    settings = StackSettings(pixel_mm, 1, 2.0, 512)
    frame = frame_for([np.full((90, 120), 40, np.int16)], spacing, settings)

    shown = resample(image, frame)

    middles = np.stack(
        np.meshgrid(np.arange(frame.columns) + 0.5, np.arange(frame.rows) + 0.5), axis=-1
    ).reshape(-1, 2)  # fmt: skip
    x, y = frame.to_slice(middles).T
    inside = (x > 2) & (x < 117) & (y > 2) & (y < 87)
    assert np.allclose(shown.ravel()[inside], (4 * x + 3 * y)[inside], atol=0.02)


def test_what_lies_beyond_the_body_is_cut_off_and_large_slices_get_larger_pixels():
    air = np.full((200, 200), -1000, np.int16)
    body = air.copy()
    body[60:140, 40:160] = 40

    frame = frame_for([body], (1.0, 1.0), StackSettings(1.0, 1, 2.0, 512))
    assert 100 < frame.rows < 120
    assert 140 < frame.columns < 160
    both = frame_for([body, np.roll(body, 20, axis=0)], (1.0, 1.0), StackSettings(1.0, 1, 2.0, 512))
    assert both.rows > frame.rows + 15
    assert frame_for([air], (1.0, 1.0), StackSettings(1.0, 1, 2.0, 512)).columns == 200
    small = frame_for([body], (1.0, 1.0), StackSettings(1.0, 1, 2.0, 64))
    assert small.columns == 64
    assert small.scale_x == pytest.approx(64 / frame.columns, rel=0.01)


def test_mixing_rounds_and_stays_within_int16():
    images = [np.full((2, 2), 32760.0, np.float32), np.full((2, 2), 11.0, np.float32)]

    mixed = mix(images, np.array([[1.5, 0.0], [0.0, 0.5]]))

    assert mixed[0].tolist() == [[32767, 32767]] * 2
    assert mixed[1].tolist() == [[6, 6]] * 2


def test_a_second_cache_of_the_same_is_the_first_and_workers_change_nothing(lake):
    first = make_stacks(lake, SETTINGS)
    assert make_stacks(lake, SETTINGS).url == first.url

    table = open_cache(first.url).to_pylist()
    backwards = make_stacks(
        lake,
        TrainingStacks(SETTINGS.stack, 1.0, 2.5),
        choose_runner=lambda _: (lambda tasks: (task.run() for task in reversed(list(tasks))), 1),
    )
    assert backwards.url != first.url
    assert [one["lesion_ids"] for one in open_cache(backwards.url).to_pylist()] == [one["lesion_ids"] for one in table]


def test_a_killed_making_counts_as_absent(lake, monkeypatch):
    def die(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(StackTask, "run", die)
        with pytest.raises(KeyboardInterrupt):
            make_stacks(lake, SETTINGS)
    versions = {name: lake.shards(name)[0] for name in ("lesions", "series", "slices")}
    assert find_cache(lake, "stacks", {}, versions) is None
    assert make_stacks(lake, SETTINGS).record["counts"]["marked"] == 1


def test_a_lake_without_images_says_what_is_missing(tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    take_in(lake, tmp_path / "release", [row(File_name="000001_01_01_009.png")], {"000001_01_01": range(1, 3)})

    with pytest.raises(LakeError, match="none of the lake's marked slices has an image"):
        make_stacks(lake, SETTINGS)


@pytest.mark.parametrize(
    "changes", [{"pixel_mm": 0.0}, {"slices": 2}, {"slices": 29}, {"step_mm": -1.0}, {"max_side_px": 8}]
)
def test_stacks_that_cannot_be_made_are_refused(changes):
    with pytest.raises(UsageError):
        StackSettings(**changes)
    with pytest.raises(UsageError, match="clear_mm"):
        TrainingStacks(StackSettings(), clear_mm=-1.0)
