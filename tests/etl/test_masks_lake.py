"""Masks in a lake: every lesion ends with a mask or a reason, and nothing is done twice."""

import numpy as np
import pyarrow as pa
import pytest
from conftest import annotation_csv, annotation_row, png_bytes

from etl.ingest import ingest
from etl.mask_making import METHOD
from etl.mask_tasks import MaskTask
from etl.masks import measure
from etl.planning import plan_sources
from lesionary.detection_tables import DETECTION_SERIES, DETECTIONS
from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.run_lengths import decode_runs
from lesionary.settings import IngestSettings

SLICES, SIDE, KEY = 9, 64, 5


def write_series(folder, patient, radius=8.0, images=True):
    """Nine slices with a bright ball of so many pixels around (30, 30)."""
    if not images:
        return
    target = folder / "Images_png" / f"{patient:06d}_01_01"
    target.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:SIDE, :SIDE]
    for index in range(1, SLICES + 1):
        squared = (x - 29) ** 2 + (y - 29) ** 2 + (4 * (index - KEY)) ** 2
        noise = np.random.default_rng([patient, index]).normal(0, 6, x.shape)
        hu = np.where(squared <= radius**2, 70, -90) + noise
        (target / f"{index:03d}.png").write_bytes(png_bytes(np.rint(hu).astype(np.int16)))


def row_of(patient, points="22, 30, 38, 30, 30, 22, 30, 38", **changes):
    fields = {
        "File_name": f"{patient:06d}_01_01_{KEY:03d}.png", "Slice_range": f"1, {SLICES}",
        "Image_size": f"{SIDE}, {SIDE}", "Spacing_mm_px_": "0.5, 0.5, 2", "Measurement_coordinates": points,
    }  # fmt: skip
    return annotation_row(**fields | changes)


def take_in(lake, folder, rows):
    (folder / "DL_info.csv").write_bytes(annotation_csv(*rows))
    ingest(lake, plan_sources([str(folder)], IngestSettings()), IngestSettings())


@pytest.fixture
def folder(tmp_path):
    """Four series; the third has no images, the fourth's lesion is a click."""
    target = tmp_path / "release"
    for patient in (1, 2, 3, 4):
        write_series(target, patient, images=patient != 3)
    return target


ROWS = [row_of(1), row_of(2), row_of(3), row_of(4, "30, 30, 30.4, 30, 30.2, 29.9, 30.2, 30.1")]


@pytest.fixture
def lake(tmp_path, folder):
    opened = Lake.create(str(tmp_path / "lake"))
    take_in(opened, folder, ROWS)
    return opened


def measured(lake):
    return {row["lesion_id"]: row for row in lake.read("masked_lesions").to_pylist()}


def all_rows(lake):
    """Everything of both tables, in an order that does not depend on who wrote it."""
    keys = {"masks": ["lesion_id", "slice_index"], "masked_lesions": ["lesion_id"]}
    return {
        name: lake.read(name).sort_by([(column, "ascending") for column in columns]).to_pylist()
        for name, columns in keys.items()
    }


def adds_up(summary):
    return summary.lesions_found == (
        summary.lesions_masked + summary.lesions_kept + sum(summary.lesions_left_out.values())
    )


def test_every_lesion_has_a_mask_or_a_reason(lake):
    summary = measure(lake)

    assert adds_up(summary)
    assert (summary.lesions_found, summary.lesions_masked, summary.with_volume) == (4, 2, 2)
    assert summary.lesions_left_out == {"key_slice_missing": 1, "too_small": 1}
    rows = measured(lake)
    assert {name: row["left_out"] for name, row in rows.items()} == {
        "dl-1": None, "dl-2": None, "dl-3": "key_slice_missing", "dl-4": "too_small",
    }  # fmt: skip
    assert rows["dl-1"]["long_mm"] == pytest.approx(8, abs=0.6)
    assert rows["dl-1"]["volume_mm3"] == pytest.approx(4 / 3 * np.pi * 4**3, rel=0.25)
    assert rows["dl-1"]["cut_short"] is False
    assert rows["dl-3"]["long_axis_px"] is None
    masks = [row for row in lake.read("masks").to_pylist() if row["lesion_id"] == "dl-1"]
    assert len(masks) == rows["dl-1"]["slices"] >= 3
    (key,) = [row for row in masks if row["slice_index"] == KEY]
    area = decode_runs(key["runs"], key["rows"], key["columns"]).sum() * 0.25
    assert rows["dl-1"]["area_mm2"] == pytest.approx(area)


def test_a_second_run_does_nothing(lake):
    measure(lake)
    before, rows = dict(lake.snapshot().versions), all_rows(lake)
    summary = measure(lake)

    assert adds_up(summary)
    assert (summary.series_due, summary.lesions_masked, summary.lesions_kept) == (0, 0, 2)
    assert dict(lake.snapshot().versions) == before
    assert all_rows(lake) == rows


def test_only_what_changed_is_measured_again(lake, folder):
    measure(lake)
    before = measured(lake)
    take_in(lake, folder, [ROWS[0], row_of(2, "23, 30, 37, 30, 30, 23, 30, 37"), *ROWS[2:]])
    summary = measure(lake)

    assert adds_up(summary)
    assert summary.lesions_masked == 1
    after = measured(lake)
    assert {name for name in after if after[name] != before[name]} == {"dl-2"}


def test_lesions_that_are_gone_take_their_masks_along(lake, folder):
    measure(lake)
    take_in(lake, folder, [ROWS[0], ROWS[2], ROWS[3]])
    # Rows are named by their place in the table: the second is the third patient's now.
    marks = {row["lesion_id"]: row["series_id"] for row in lake.read("lesions").to_pylist()}
    measure(lake)

    assert {name: row["series_id"] for name, row in measured(lake).items()} == marks
    assert {row["lesion_id"] for row in lake.read("masks").to_pylist()} <= set(marks)


def test_what_was_committed_before_a_kill_is_kept(lake):
    whole = Lake.open(lake.url)

    def dies(tasks):
        for done, task in enumerate(tasks):
            if done == 1:
                raise KeyboardInterrupt
            yield task.run()

    def one_series_each(tasks):
        for task in tasks:
            yield from (MaskTask(task.lake_url, task.versions, task.marked_by, (one,)) for one in task.series)

    with pytest.raises(KeyboardInterrupt):
        measure(lake, choose_runner=lambda _: (lambda tasks: dies(one_series_each(tasks)), 1), commit_seconds=0)
    assert len(measured(whole)) == 1
    summary = measure(whole)

    assert adds_up(summary)
    assert (summary.series_due, summary.lesions_kept, summary.lesions_masked) == (3, 1, 1)


def test_rows_do_not_depend_on_how_the_work_was_shared(tmp_path, folder):
    def backwards(tasks):
        for task in reversed(list(tasks)):
            for one in reversed(task.series):
                yield MaskTask(task.lake_url, task.versions, task.marked_by, (one,)).run()

    rows = []
    for name, runner in (("a", None), ("b", backwards)):
        lake = Lake.create(str(tmp_path / name))
        take_in(lake, folder, ROWS)
        measure(lake, **({} if runner is None else {"choose_runner": lambda _, run=runner: (run, 1)}))
        rows.append(all_rows(lake))

    assert rows[0]["masked_lesions"]
    assert [{**row, "fingerprint": ""} for row in rows[0]["masked_lesions"]] == [
        {**row, "fingerprint": ""} for row in rows[1]["masked_lesions"]
    ]
    assert rows[0]["masks"] == rows[1]["masks"]


@pytest.mark.ray
@pytest.mark.slow
def test_workers_on_ray_give_the_same_rows(tmp_path, folder, ray_cluster):
    from etl.ingest_job import run_on_ray

    rows = []
    for name, chosen in (("a", {}), ("b", {"choose_runner": lambda _: (run_on_ray, 2)})):
        lake = Lake.create(str(tmp_path / name))
        take_in(lake, folder, ROWS)
        measure(lake, **chosen)
        rows.append(all_rows(lake)["masks"])

    assert rows[0] == rows[1] != []


def test_only_series_with_chosen_lesions_are_measured(lake):
    summary = measure(lake, chosen=["dl-2"])

    assert (summary.lesions_found, summary.lesions_masked) == (1, 1)
    assert set(measured(lake)) == {"dl-2"}


def test_detections_stand_beside_marked_lesions(lake):
    measure(lake)
    series = "dl-000001_01_01"
    detection = {
        "detection_id": "d-1", "unit_id": f"det-1/{series}", "model_id": "det-1", "series_id": series,
        "patient_id": "dl-000001", "study_id": "dl-000001_01", "slice_index": KEY, "first_slice_index": 4,
        "last_slice_index": 6, "slices": 3, "box_xyxy_px": [20.0, 21.5, 38.0, 37.5], "score": 0.9,
    }  # fmt: skip
    looked = {
        "unit_id": detection["unit_id"], "model_id": "det-1", "series_id": series, "slices": 9, "detections": 1,
        "scope": "all", "fingerprint": "f",
    }  # fmt: skip
    tables = {
        DETECTIONS.name: [pa.Table.from_pylist([detection], schema=DETECTIONS.schema)],
        DETECTION_SERIES.name: [pa.Table.from_pylist([looked], schema=DETECTION_SERIES.schema)],
    }
    write_results(lake, detection["unit_id"], tables)
    summary = measure(lake, detections_of="det-1")

    assert (summary.marked_by, summary.lesions_found, summary.lesions_masked) == ("det-1", 1, 1)
    rows = measured(lake)
    assert set(rows) == {"dl-1", "dl-2", "dl-3", "dl-4", "d-1"}
    assert (rows["d-1"]["marked_by"], rows["dl-1"]["marked_by"]) == ("det-1", "reader")
    assert rows["d-1"]["unit_id"] == f"{METHOD}/det-1/{series}"
    assert rows["d-1"]["long_mm"] == pytest.approx(rows["dl-1"]["long_mm"], abs=1)
    assert measure(lake).series_due == 0


def test_an_empty_lake_is_measured_at_once(tmp_path):
    summary = measure(Lake.create(str(tmp_path / "lake")))

    assert (summary.lesions_found, summary.series_due, summary.masks) == (0, 0, 0)
