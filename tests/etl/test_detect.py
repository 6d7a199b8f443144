"""Detecting in a lake: what stands in the rows, what is looked at again, and what is left out.

The detector finds bright blobs; slices, stacks, boxes, tracklets, Ray and the lake are real.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from blob_finder import BlobFinder, blob_detector
from blob_series import BLOBS, NAMES, SIDE, SLICES, row_of, take_in, write_series
from conftest import png_bytes
from pacs_files import changed, ct, mine

from etl.detect import detect
from etl.detect_slices import DetectSettings, slices_for_frame, without_padding
from etl.detect_tasks import LeftOut, Scope, SeriesChoice
from etl.inference import infer_here
from etl.patch_cutting import Series
from etl.patch_geometry import SlicePlaces
from lesionary.errors import InternalError, UsageError
from lesionary.lake import Lake
from lesionary.slices import SliceReader
from lesionary.stack_schema import Found

TABLES = ("detections", "detection_boxes", "detection_series")
KEEP_ALL = DetectSettings(min_score=0.0)
ROWS = [row_of(name, Train_Val_Test=str(split)) for split, name in enumerate(NAMES, 1)]


@pytest.fixture
def folder(tmp_path):
    for name in NAMES:
        write_series(tmp_path / "release", name, BLOBS)
    return tmp_path / "release"


@pytest.fixture
def lake(tmp_path, folder):
    return take_in(Lake.create(str(tmp_path / "lake")), folder, *ROWS)


def rows_of(lake, where=lambda row: True):
    """Every row of the three tables, without the order that they were written in."""
    return {name: sorted(map(repr, filter(where, lake.read(name).to_pylist()))) for name in TABLES}


def adds_up(summary):
    known = summary.series_looked_at + summary.series_kept + sum(summary.series_left_out.values())
    assert known == summary.series_found
    return True


def looked_at(diary):
    return sum(map(int, diary.read_text().split())) if diary.exists() else 0


def test_a_lesion_through_slices_is_one_detection_with_tight_boxes(lake):
    summary = detect(lake, blob_detector(), KEEP_ALL)

    assert adds_up(summary)
    assert (summary.series_looked_at, summary.slices_looked_at) == (3, 3 * SLICES)
    assert (summary.detections, summary.boxes) == (6, 12)
    first, second = (
        row for row in lake.read("detections").sort_by("detection_id").to_pylist() if row["patient_id"] == "dl-000001"
    )
    assert first["detection_id"] == "detector-1/dl-000001_01_01/1"
    assert (first["slice_index"], first["first_slice_index"], first["last_slice_index"], first["slices"]) == (
        3,
        2,
        4,
        3,
    )
    assert first["box_xyxy_px"] == pytest.approx([36, 25, 46, 35], abs=1e-4)
    assert first["score"] == pytest.approx(0.6)
    assert (first["category"], first["category_model_id"]) == (None, None)
    assert (first["series_id"], first["study_id"]) == ("dl-000001_01_01", "dl-000001_01")
    assert second["box_xyxy_px"] == pytest.approx([58, 48, 62, 52], abs=1e-4)
    boxes = {
        row["slice_index"]: row
        for row in lake.read("detection_boxes").to_pylist()
        if row["unit_id"].endswith("3_01_01")
    }
    assert boxes[2]["box_xyxy_px"] == pytest.approx([36, 26, 44, 34], abs=1e-4)
    assert boxes[4]["score"] == pytest.approx(0.5)
    assert {row["detections"] for row in lake.read("detection_series").to_pylist()} == {2}


def test_boxes_belong_to_the_lake_s_detections_and_counts_agree(lake):
    detect(lake, blob_detector(), KEEP_ALL)

    counts = Counter(row["detection_id"] for row in lake.read("detection_boxes").to_pylist())
    detections = {row["detection_id"]: row for row in lake.read("detections").to_pylist()}
    assert counts == {name: row["slices"] for name, row in detections.items()}
    by_unit = Counter(row["unit_id"] for row in detections.values())
    assert by_unit == {row["unit_id"]: row["detections"] for row in lake.read("detection_series").to_pylist()}


def test_stacks_and_batches_of_any_size_give_the_same_rows(lake):
    detect(lake, blob_detector(batch_slices=1), KEEP_ALL)
    wanted = rows_of(lake)
    for number, (size, tasks) in enumerate([(3, 1), (64, 100)], 2):
        detect(lake, blob_detector(f"detector-{number}", batch_slices=size), KEEP_ALL, slices_per_task=tasks)
        found = rows_of(lake, lambda row: row["unit_id"].startswith(f"detector-{number}/"))  # noqa: B023
        assert found == {
            name: [row.replace("detector-1", f"detector-{number}") for row in rows] for name, rows in wanted.items()
        }


def test_second_run_looks_at_nothing_and_changed_or_new_series_alone_are_looked_at(lake, folder, tmp_path):
    diary = tmp_path / "diary"
    detect(lake, blob_detector(), KEEP_ALL)
    versions = dict(lake.snapshot().versions)
    again = detect(lake, blob_detector(diary=diary), KEEP_ALL)
    assert adds_up(again)
    assert (again.series_kept, again.detections, looked_at(diary)) == (3, 0, 0)
    assert lake.snapshot().versions == versions

    write_series(folder, NAMES[1], {5: [(30, 40, 3, 700)]})
    write_series(folder, "000004_01_01", BLOBS)
    take_in(lake, folder, *ROWS, row_of("000004_01_01"))
    later = detect(lake, blob_detector(diary=diary), KEEP_ALL)

    assert adds_up(later)
    assert (later.series_looked_at, later.series_kept, looked_at(diary)) == (2, 2, 2 * SLICES)
    found = [row for row in lake.read("detections").to_pylist() if row["patient_id"] == "dl-000002"]
    assert [(row["slice_index"], row["slices"]) for row in found] == [(5, 1)]
    assert lake.read("detections").num_rows == 7


def test_other_thresholds_make_a_series_due_and_replace_its_rows(lake):
    detect(lake, blob_detector(), KEEP_ALL)
    summary = detect(lake, blob_detector(), DetectSettings(min_score=0.45))

    assert summary.series_looked_at == 3
    assert sorted(row["slices"] for row in lake.read("detections").to_pylist()) == [2, 2, 2]
    assert lake.read("detection_boxes").num_rows == 6


def test_key_slices_are_looked_at_alone_and_whole_series_later(lake, tmp_path):
    diary = tmp_path / "diary"
    key = SeriesChoice(scope=Scope.KEY_SLICES)
    summary = detect(lake, blob_detector(diary=diary), KEEP_ALL, choice=key)

    assert adds_up(summary)
    assert (summary.slices_looked_at, summary.detections, looked_at(diary)) == (3, 3, 3)
    assert {(row["scope"], row["slices"]) for row in lake.read("detection_series").to_pylist()} == {("key_slices", 1)}
    assert detect(lake, blob_detector(), KEEP_ALL, choice=key).series_kept == 3

    whole = detect(lake, blob_detector(), KEEP_ALL)
    assert (whole.series_looked_at, whole.slices_looked_at) == (3, 3 * SLICES)
    assert {row["scope"] for row in lake.read("detection_series").to_pylist()} == {"all"}
    # Who has looked at all slices has looked at these.
    assert detect(lake, blob_detector(), KEEP_ALL, choice=key).series_kept == 3
    assert lake.read("detections").num_rows == 6


def test_another_marked_slice_makes_a_series_due_for_key_slices(lake, folder):
    key = SeriesChoice(scope=Scope.KEY_SLICES)
    detect(lake, blob_detector(), KEEP_ALL, choice=key)
    take_in(lake, folder, *ROWS, row_of(NAMES[0], key=6, Train_Val_Test="1"))

    assert detect(lake, blob_detector(), KEEP_ALL, choice=key).series_looked_at == 1
    found = [row["slice_index"] for row in lake.read("detections").to_pylist() if row["patient_id"] == "dl-000001"]
    assert sorted(found) == [3, 6]


def test_neighbours_marked_as_key_slices_are_not_linked(tmp_path, folder):
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder, row_of(NAMES[0], key=3), row_of(NAMES[0], key=4))
    detect(lake, blob_detector(), KEEP_ALL, choice=SeriesChoice(scope=Scope.KEY_SLICES))

    assert sorted((row["slice_index"], row["slices"]) for row in lake.read("detections").to_pylist()) == [
        (3, 1),
        (4, 1),
    ]


def test_series_are_chosen_by_name_patient_and_split(lake):
    def chosen(**choice):
        return detect(lake, blob_detector(), KEEP_ALL, choice=SeriesChoice(**choice)).series_found

    assert chosen(split="test") == 1
    assert [row["series_id"] for row in lake.read("detection_series").to_pylist()] == ["dl-000003_01_01"]
    assert chosen(patient_id="dl-000001") == 1
    assert chosen(series_ids=("dl-000001_01_01", "dl-000002_01_01")) == 2
    assert chosen(series_ids=("dl-000001_01_01",), split="test") == 0
    with pytest.raises(UsageError, match="dl-9: the lake has no such series"):
        chosen(series_ids=("dl-000001_01_01", "dl-9"))
    with pytest.raises(UsageError, match="dl-000009: the lake has no series of such a patient"):
        chosen(patient_id="dl-000009")


def dies_after_two(tasks, make_model):
    for done, task in enumerate(tasks):
        if done == 2:
            raise KeyboardInterrupt
        yield task.run(make_model())


def test_an_interrupted_run_loses_and_doubles_nothing(lake, tmp_path):
    detect(lake, blob_detector("detector-2"), KEEP_ALL)
    diary = tmp_path / "diary"
    with pytest.raises(KeyboardInterrupt):
        detect(
            lake, blob_detector(diary=diary), KEEP_ALL, choose_inference=lambda _: (dies_after_two, 1),
            slices_per_task=1, commit_seconds=0,
        )  # fmt: skip
    summary = detect(lake, blob_detector(diary=diary), KEEP_ALL)

    assert adds_up(summary)
    assert (summary.series_looked_at, summary.series_kept, looked_at(diary)) == (1, 2, 3 * SLICES)
    mine, whole = (
        rows_of(lake, lambda row: row["unit_id"].startswith(f"detector-{number}/"))  # noqa: B023
        for number in (1, 2)
    )
    assert mine == {name: [row.replace("detector-2", "detector-1") for row in rows] for name, rows in whole.items()}


def test_a_kill_between_two_tables_is_made_good_by_the_next_run(lake, monkeypatch):
    """The table that says a series is done comes last."""
    import etl.detect

    real = etl.detect.write_results

    def first_two_only(lake, unit, tables):
        real(lake, unit, {name: parts for name, parts in tables.items() if name != "detection_series"})
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("etl.detect.write_results", first_two_only)
        with pytest.raises(KeyboardInterrupt):
            detect(lake, blob_detector(), KEEP_ALL)
    assert lake.read("detections").num_rows == 6

    assert detect(lake, blob_detector(), KEEP_ALL).series_looked_at == 3
    assert (lake.read("detections").num_rows, lake.read("detection_boxes").num_rows) == (6, 12)


def test_series_that_cannot_be_looked_through_are_counted_by_reason(tmp_path, folder):
    write_series(folder, "000004_01_01", BLOBS)
    rows = [row_of(name) for name in NAMES]
    rows += [row_of("000004_01_01", Spacing_mm_px_="")]
    # Marked, but without an image; and a mark on a slice that is not there.
    rows += [row_of("000005_01_01")]
    rows[2] = row_of(NAMES[2], key=40, Slice_range="34, 46")
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder, *rows)

    summary = detect(lake, blob_detector(), KEEP_ALL)
    assert adds_up(summary)
    assert summary.series_left_out == {LeftOut.NO_IMAGES.value: 1, LeftOut.NO_PIXEL_SPACING.value: 1}
    key = detect(lake, blob_detector("detector-2"), KEEP_ALL, choice=SeriesChoice(scope=Scope.KEY_SLICES))
    assert adds_up(key)
    assert key.series_left_out[LeftOut.NO_MARKED_SLICE.value] == 1


def test_series_across_the_body_are_left_out(tmp_path):
    axial = {f"a{number}": ct(number, series=1) for number in (1, 2)}
    coronal = {
        f"c{number}": changed(ct(number, series=2), ImageOrientationPatient=[1, 0, 0, 0, 0, -1]) for number in (1, 2)
    }
    lake, _ = mine(tmp_path, axial | coronal)
    summary = detect(lake, blob_detector())

    assert adds_up(summary)
    assert summary.series_left_out == {LeftOut.NOT_AXIAL.value: 1}
    assert (summary.series_looked_at, summary.slices_looked_at) == (1, 2)


def test_a_series_of_one_slice_and_one_without_a_finding_are_done(tmp_path):
    folder = tmp_path / "release"
    write_series(folder, NAMES[0], {1: [(40, 40, 4, 500)]}, slices=1)
    write_series(folder, NAMES[1], {})
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder, row_of(NAMES[0], key=1, slices=1), row_of(NAMES[1]))
    detect(lake, blob_detector(slices=3), KEEP_ALL)

    found = {row["series_id"]: (row["slices"], row["detections"]) for row in lake.read("detection_series").to_pylist()}
    assert found == {"dl-000001_01_01": (1, 1), "dl-000002_01_01": (SLICES, 0)}
    assert detect(lake, blob_detector(slices=3), KEEP_ALL).series_kept == 2


def test_an_empty_lake_is_done_at_once(tmp_path):
    summary = detect(Lake.create(str(tmp_path / "lake")), blob_detector())

    assert adds_up(summary)
    assert (summary.series_found, summary.detections) == (0, 0)


def test_boxes_at_the_image_s_border_stay_within_it(tmp_path):
    folder = tmp_path / "release"
    # A body that fills the slice, with a lesion in the corner and one at the edge.
    target = folder / "Images_png" / NAMES[0]
    target.mkdir(parents=True)
    hu = np.full((SIDE, SIDE), 40, np.int16)
    hu[:6, :6], hu[50:60, SIDE - 4 :] = 600, 700
    (target / "001.png").write_bytes(png_bytes(hu))
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder, row_of(NAMES[0], key=1, slices=1))
    detect(lake, blob_detector(), KEEP_ALL)

    edge, corner = (row["box_xyxy_px"] for row in lake.read("detections").sort_by("detection_id").to_pylist())
    assert corner == pytest.approx([0, 0, 5, 5], abs=1e-4)
    assert edge == pytest.approx([SIDE - 4, 50, SIDE - 1, 59], abs=1e-4)


def test_padding_comes_off_and_never_turns_a_box_inside_out():
    assert without_padding((10, 20, 30, 40), 5, 100, 100) == (15, 25, 25, 35)
    assert without_padding((10, 20, 18, 40), 5, 100, 100) == (14, 25, 14, 35)
    assert without_padding((-9, -9, 3, 120), 2, 100, 90) == (0, 0, 1, 89)
    assert without_padding((-30, 5, -20, 15), 2, 100, 90) == (0, 7, 0, 13)


@pytest.mark.parametrize("interval", [0.5, 1.0, 2.0, 4.9, 5.0, 12.0, float("nan")])
def test_the_frame_is_found_on_slices_that_are_near_to_all_of_them(interval):
    indices = np.arange(3, 43)
    z_mm = indices * interval
    sizes = np.full(len(indices), 8)
    series = Series("s", (1.0, 1.0), None, SlicePlaces(indices, z_mm, sizes, sizes))

    chosen = slices_for_frame(indices.tolist(), series)
    assert chosen == sorted(set(chosen))
    assert (chosen[0], chosen[-1]) == (3, 42)
    if not interval < 5:
        assert len(chosen) == len(indices)
    else:
        # Between two slices that are looked at lie 5 mm at most.
        assert max(np.diff(chosen)) * interval <= 5.0
        assert len(chosen) <= 2 + 2 * len(indices) * interval / 5.0


def test_every_slice_is_read_once(lake, monkeypatch):
    read = Counter()
    real = SliceReader.read

    def counting(reader, series_id, slice_index):
        read[series_id, slice_index] += 1
        return real(reader, series_id, slice_index)

    monkeypatch.setattr(SliceReader, "read", counting)
    detect(lake, blob_detector(slices=3), KEEP_ALL)
    assert len(read) == 3 * SLICES
    assert set(read.values()) == {1}


def test_categories_are_kept_with_the_categoriser_s_name(lake):
    detect(lake, blob_detector(categories=7), KEEP_ALL)

    found = {
        (row["score"] > 0.5, row["category"], row["category_model_id"]) for row in lake.read("detections").to_pylist()
    }
    assert found == {(True, 600 % 7, "categories-1"), (False, 300 % 7, "categories-1")}


def test_categories_of_the_detector_s_own_are_named_once(lake):
    own = replace(blob_detector(categories=2), category_model_id="detector-1", own_categories=("lung", "liver"))
    detect(lake, own, KEEP_ALL)
    detect(lake, own, DetectSettings(min_score=0.1))

    named = {(row["model_id"], row["category"], row["name"]) for row in lake.read("categories").to_pylist()}
    assert named == {("detector-1", 0, "lung"), ("detector-1", 1, "liver")}
    assert lake.read("categories").num_rows == 2


def test_no_more_boxes_than_asked_for_are_kept_on_a_slice(tmp_path):
    folder = tmp_path / "release"
    write_series(folder, NAMES[0], {1: [(20 + 14 * at, 48, 3, 300 + 50 * at) for at in range(5)]}, slices=1)
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder, row_of(NAMES[0], key=1, slices=1))
    detect(lake, blob_detector(), replace(KEEP_ALL, max_per_slice=2))

    assert sorted(row["score"] for row in lake.read("detections").to_pylist()) == pytest.approx([0.45, 0.5])


class _NoNumbers(BlobFinder):
    def __call__(self, stacks):
        nothing = np.full((1, 4), np.nan, np.float32)
        return [Found(nothing, np.ones(1, np.float32), np.zeros(1, np.int64)) for _ in stacks]


class _Forgetful(BlobFinder):
    def __call__(self, stacks):
        return super().__call__(stacks)[1:]


@pytest.mark.parametrize(
    ("maker", "sentence"), [(_NoNumbers, "boxes that are no numbers"), (_Forgetful, "answers for")]
)
def test_a_model_that_answers_nonsense_leaves_the_lake_as_it_was(lake, maker, sentence):
    with pytest.raises(InternalError, match=f"detector-1: .*{sentence}"):
        detect(lake, replace(blob_detector(), maker=maker), choose_inference=lambda _: (infer_here, 1))
    assert lake.read("detections").num_rows == 0


@pytest.mark.parametrize("change", [{"min_score": 1.5}, {"min_score": float("nan")}, {"max_per_slice": 0}])
def test_thresholds_that_make_no_sense_are_refused(change):
    with pytest.raises(UsageError):
        DetectSettings(**change)


@pytest.mark.slow
def test_actors_on_ray_give_the_rows_of_one_process(lake, ray_cluster):
    from etl.inference_job import ActorPool

    detect(lake, blob_detector(), KEEP_ALL)
    summary = detect(
        lake, blob_detector("detector-2"), KEEP_ALL, choose_inference=lambda _: (ActorPool(2), 2), slices_per_task=1
    )

    assert adds_up(summary)
    here, there = (
        rows_of(lake, lambda row: row["unit_id"].startswith(f"detector-{number}/"))  # noqa: B023
        for number in (1, 2)
    )
    assert there == {name: [row.replace("detector-1", "detector-2") for row in rows] for name, rows in here.items()}
