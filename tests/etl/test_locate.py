"""Locating in a lake: what is scored once stays, what changed is scored again, and the places follow from the heights.

Pictures say their own height here: the mean HU of a slice is its height in thousandths.
"""

from collections import Counter
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import annotation_csv, annotation_row, png_bytes

from etl.height_fits import MIN_RELEASE_LESIONS
from etl.inference import infer_here
from etl.ingest import ingest
from etl.locate import NO_KEY_SLICE, SERIES_LEFT_OUT, HeightModel, locate
from etl.locate_tasks import LeftOut
from etl.planning import plan_sources
from lesionary.errors import InternalError
from lesionary.lake import Lake
from lesionary.settings import IngestSettings

MADE_AT = datetime(2026, 1, 2, tzinfo=UTC)
SLICES = 13
INTERVAL_MM = 5
RISE = 1 / 800


def read_heights(diary, images):
    """The model: what the pictures say. Every call leaves a line."""
    with Path(diary).open("a") as lines:
        lines.write(f"{len(images)}\n")
    assert images.dtype == np.int16
    assert images.shape[1:] == (32, 32)
    return (images.mean(axis=(1, 2)) / 1000).astype(np.float32)


def make_reader(diary):
    return partial(read_heights, diary)


@pytest.fixture
def model(tmp_path):
    return HeightModel("ssbr-1", MADE_AT, partial(make_reader, str(tmp_path / "diary")), 32)


def slices_scored(tmp_path):
    diary = tmp_path / "diary"
    return sum(map(int, diary.read_text().split())) if diary.exists() else 0


def write_series(folder, name, top, step=RISE * INTERVAL_MM):
    target = folder / "Images_png" / name
    target.mkdir(parents=True, exist_ok=True)
    for at in range(SLICES):
        height = round(1000 * (top + step * at))
        (target / f"{at + 1:03d}.png").write_bytes(png_bytes(np.full((64, 64), height, np.int16)))


def write_heights(folder, tops, steps=None, key=7, **changes):
    """A release with one series and one lesion for each of these heights at the top."""
    rows = []
    for patient, top in enumerate(tops, start=1):
        name = f"{patient:06d}_01_01"
        write_series(folder, name, top, *([steps[patient]] if patient in (steps or {}) else []))
        z = 0.1 + 0.8 * (top + RISE * INTERVAL_MM * (key - 1))
        row = {
            "File_name": f"{name}_{key:03d}.png", "Slice_range": f"1, {SLICES}", "Image_size": "64, 64",
            "Spacing_mm_px_": f"0.8, 0.8, {INTERVAL_MM}", "Normalized_lesion_location": f"0.5, 0.5, {z:.6f}",
            "Measurement_coordinates": "20, 30, 40, 30, 30, 25, 30, 35",
        }  # fmt: skip
        rows.append(annotation_row(**row | changes))
    (folder / "DL_info.csv").write_bytes(annotation_csv(*rows))
    return folder


def take_in(lake, folder):
    ingest(lake, plan_sources([str(folder)], IngestSettings()), IngestSettings())
    return lake


@pytest.fixture
def lake(tmp_path):
    folder = write_heights(tmp_path / "release", [0.1, 0.3, 0.5, 0.7])
    return take_in(Lake.create(str(tmp_path / "lake")), folder)


def rows_of(lake, name):
    rows = lake.read(name).to_pylist()
    return {row.get("series_id") or row.get("lesion_id") or row["model_id"]: row for row in rows}


def adds_up(summary):
    scored = summary.series_scored + summary.series_kept
    assert scored + sum(summary.series_left_out.values()) == summary.series_found
    assert summary.series_in_order + summary.series_reversed + summary.series_order_unknown == scored
    assert summary.intervals_right + summary.intervals_wrong + summary.intervals_unknown == scored
    assert summary.lesions_placed + sum(summary.lesions_left_out.values()) == summary.lesions_found
    return True


def test_every_slice_gets_a_height_and_every_lesion_its_z(lake, model):
    summary = locate(lake, model)

    assert adds_up(summary)
    assert (summary.series_scored, summary.slices_scored, summary.lesions_placed) == (4, 4 * SLICES, 4)
    heights = lake.read("slice_heights").to_pylist()
    assert {(row["series_id"], row["slice_index"]) for row in heights} == {
        (f"dl-{patient:06d}_01_01", at + 1) for patient in range(1, 5) for at in range(SLICES)
    }
    for patient, top in enumerate([0.1, 0.3, 0.5, 0.7], start=1):
        assert rows_of(lake, "locations")[f"dl-{patient}"]["z"] == pytest.approx(top + RISE * 30, abs=0.001)
        said = rows_of(lake, "series_locations")[f"dl-{patient:06d}_01_01"]
        assert (said["slices"], said["reversed"], said["wrong_interval"], said["body_range"]) == (
            SLICES, False, None, None,
        )  # fmt: skip
    assert summary.release_fit is None


def test_second_run_scores_and_writes_nothing(lake, model, tmp_path):
    locate(lake, model)
    versions = dict(lake.snapshot().versions)
    summary = locate(lake, model)

    assert adds_up(summary)
    assert (summary.series_scored, summary.series_kept, summary.slices_scored) == (0, 4, 0)
    assert summary.tables_written == ()
    assert lake.snapshot().versions == versions
    assert slices_scored(tmp_path) == 4 * SLICES


def test_what_an_interrupted_run_committed_is_not_scored_again(lake, model, tmp_path):
    def dies_after_two(tasks, make_model):
        for done, task in enumerate(tasks):
            if done == 2:
                raise KeyboardInterrupt
            yield task.run(make_model())

    with pytest.raises(KeyboardInterrupt):
        locate(lake, model, choose_inference=lambda _: (dies_after_two, 1), slices_per_task=1, commit_seconds=0)
    assert not lake.has_table("location_models")

    summary = locate(lake, model)

    assert adds_up(summary)
    assert (summary.series_scored, summary.series_kept) == (2, 2)
    assert slices_scored(tmp_path) == 4 * SLICES
    assert lake.read("slice_heights").num_rows == 4 * SLICES


def test_changed_and_new_series_alone_are_scored(lake, model, tmp_path):
    locate(lake, model)
    write_series(tmp_path / "release", "000002_01_01", 0.6)
    other = write_heights(tmp_path / "other", [0.1, 0.3, 0.5, 0.7, 0.2])
    write_series(tmp_path / "release", "000005_01_01", 0.2)
    (tmp_path / "release/DL_info.csv").write_bytes((other / "DL_info.csv").read_bytes())
    take_in(lake, tmp_path / "release")
    summary = locate(lake, model)

    assert adds_up(summary)
    assert (summary.series_scored, summary.series_kept) == (2, 3)
    assert lake.read("slice_heights").num_rows == 5 * SLICES
    places = rows_of(lake, "locations")
    assert places["dl-2"]["z"] == pytest.approx(0.6 + RISE * 30, abs=0.001)
    assert places["dl-5"]["z"] == pytest.approx(0.2 + RISE * 30, abs=0.001)


def test_models_stand_beside_each_other(lake, model, tmp_path):
    locate(lake, model)
    locate(lake, HeightModel("ssbr-2", MADE_AT, model.maker, 32))

    assert Counter(lake.read("locations")["model_id"].to_pylist()) == {"ssbr-1": 4, "ssbr-2": 4}
    assert lake.read("slice_heights").num_rows == 8 * SLICES


def test_heights_follow_the_release_where_it_places_enough_lesions(tmp_path, model):
    tops = np.linspace(0.05, 0.85, MIN_RELEASE_LESIONS).round(3)
    lake = take_in(Lake.create(str(tmp_path / "lake")), write_heights(tmp_path / "release", tops))
    summary = locate(lake, model)

    assert summary.release_lesions == MIN_RELEASE_LESIONS
    assert (summary.release_fit.scale, summary.release_fit.offset) == pytest.approx((0.8, 0.1), abs=0.01)
    z = {name: row["z"] for name, row in rows_of(lake, "locations").items()}
    given = dict(zip(*(lake.read("lesions")[name].to_pylist() for name in ("lesion_id", "release_z")), strict=True))
    assert z == pytest.approx(given, abs=0.003)
    record = rows_of(lake, "location_models")["ssbr-1"]
    assert (record["release_scale"], record["release_lesions"]) == (summary.release_fit.scale, MIN_RELEASE_LESIONS)
    # Heights of slices stay the model's own.
    assert lake.read("slice_heights")["height"].to_numpy().min() == pytest.approx(0.05, abs=0.001)


def test_reversed_series_are_flagged_and_left_out_ones_counted(tmp_path, model):
    folder = write_heights(tmp_path / "release", [0.1, 0.9, 0.3], steps={2: -RISE * INTERVAL_MM})
    rows = (folder / "DL_info.csv").read_text().splitlines()
    # One lesion on a slice that is not there, one in a series without images.
    row = annotation_row(File_name="000001_01_01_040.png", Slice_range="34, 46", Image_size="64, 64")
    rows += annotation_csv(row, annotation_row(File_name="000009_01_01_003.png")).decode().splitlines()[1:]
    (folder / "DL_info.csv").write_text("\n".join(rows) + "\n")
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder)
    summary = locate(lake, model)

    assert adds_up(summary)
    assert (summary.series_in_order, summary.series_reversed) == (2, 1)
    assert summary.series_left_out == {LeftOut.NO_IMAGES.value: 1}
    assert summary.lesions_left_out == {NO_KEY_SLICE: 1, SERIES_LEFT_OUT: 1}
    assert rows_of(lake, "series_locations")["dl-000002_01_01"]["reversed"] is True
    assert rows_of(lake, "locations")["dl-2"]["z"] == pytest.approx(0.9 - RISE * 30, abs=0.001)


def test_model_that_gives_no_numbers_leaves_the_lake_as_it_was(lake, tmp_path):
    bad = HeightModel("ssbr-1", MADE_AT, lambda: lambda images: np.full(len(images), np.nan, np.float32), 32)
    with pytest.raises(InternalError, match="ssbr-1: the model gives slices heights that are no numbers"):
        locate(lake, bad, choose_inference=lambda _: (infer_here, 1))
    assert not lake.has_table("slice_heights")


def test_empty_lake_is_located_at_once(tmp_path, model):
    summary = locate(Lake.create(str(tmp_path / "lake")), model)

    assert adds_up(summary)
    assert (summary.series_found, summary.lesions_found) == (0, 0)
