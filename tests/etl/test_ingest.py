"""A release goes in: every input accounted for, twice changes nothing, killed or changed it still comes out right."""

import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
from conftest import annotation_csv, annotation_row, png_bytes, slice_hu, write_release
from faults.digests import content_digest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from etl.ingest import ingest, tally, units_to_do
from etl.ingest_tasks import run_task
from etl.planning import plan_sources
from etl.quality import Flag, Reason
from etl.running import run_here
from lesionary.errors import CodeMismatchError, InternalError, SourceError
from lesionary.lake import Lake
from lesionary.provenance import code_fingerprint, worker_contract
from lesionary.schema import TABLES
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from lesionary.upkeep import vacuum, verify

QUICK = IngestSettings(commit_seconds=1)


@pytest.fixture
def lake(tmp_path):
    return Lake.create(str(tmp_path / "lake"))


def take_in(lake, *sources, runner=run_here, **options):
    plan = plan_sources([str(source) for source in sources], IngestSettings(namespace="dl", **options))
    return ingest(lake, plan, QUICK, choose_runner=lambda _: (runner, 2))


def lesions(lake):
    return {row["lesion_id"]: row for row in lake.read("lesions").to_pylist()}


def test_everything_found_is_accounted_for(lake, release):
    (release / "Images_png" / "notes.txt").write_text("stray")
    (release / "Images_png" / "000001_01_01" / "002.png").write_bytes(b"not a picture")

    summary = take_in(lake, release)

    assert summary.tally.counts == {
        "rows_found": 4,
        "rows_accepted": 3,
        "rows_flagged": 1,
        "rows_quarantined": 0,
        "files_found": 16,
        "files_accepted": 14,
        "files_flagged": 0,
        "files_quarantined": 2,
    }
    assert summary.tally.reasons == {Reason.NOT_A_PNG: 1, Reason.STRAY_FILE: 1}
    assert summary.tally.flags == {Flag.IMAGE_MISSING: 1}
    assert summary.slices_written == 14
    assert verify(lake, deep=True).problems == ()


def test_pixels_are_the_images(lake, release):
    take_in(lake, release)

    with SliceReader(lake) as reader:
        for series in ("000001_01_01", "000001_02_01", "000002_01_01"):
            for index in range(1, 6):
                np.testing.assert_array_equal(reader.read(f"dl-{series}", index), slice_hu(series, index))


def test_tables_hold_what_the_release_says(lake, release):
    take_in(lake, release)

    lesion = lesions(lake)["dl-1"]
    series = {row["series_id"]: row for row in lake.read("series").to_pylist()}

    assert lesion["lesion_type"] == "lung"
    assert (lesion["patient_id"], lesion["study_id"], lesion["series_id"]) == (
        "dl-000001",
        "dl-000001_01",
        "dl-000001_01_01",
    )
    assert (lesion["long_mm"], lesion["stated_long"], lesion["stated_unit"], lesion["stated_ratio"]) == (
        16,
        20,
        "px",
        1,
    )
    assert lesion["box_xyxy_px"] == [20, 25, 40, 35]
    assert lesion["raw"]["Measurement_coordinates"] == "20, 30, 40, 30, 30, 25, 30, 35"
    assert lesions(lake)["dl-3"]["lesion_type"] is None
    one = series["dl-000001_01_01"]
    assert (one["slice_count"], one["rows"], one["spacing_z_mm"], one["study_index"]) == (5, 512, 5.0, 1)
    assert one["flags"] == [Flag.SLICES_MISSING]  # the row states slices 0 to 6, five are there
    assert one["regular_spacing"]
    assert lake.read("slices", columns=["z_mm"])["z_mm"].to_pylist()[:5] == [5.0, 10.0, 15.0, 20.0, 25.0]


def test_second_run_finds_nothing_to_do(lake, release):
    take_in(lake, release)
    before = lake.snapshot()

    again = take_in(lake, release)

    assert (again.units_written, again.slices_written) == (0, 0)
    assert again.units_skipped == again.units_found
    assert again.tally.counts["rows_found"] == 4
    assert lake.snapshot() == before


def test_repaired_image_is_taken_in_and_nothing_doubles(lake, release):
    broken = release / "Images_png" / "000001_01_01" / "003.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:300])
    take_in(lake, release)
    assert lesions(lake)["dl-1"]["flags"] == [Flag.IMAGE_MISSING]

    broken.write_bytes(whole)
    again = take_in(lake, release)

    assert again.units_written == 1
    assert lesions(lake)["dl-1"]["flags"] == []
    assert len(lesions(lake)) == 4
    assert verify(lake, deep=True).problems == ()


def test_annotations_first_and_images_later(lake, release):
    first = take_in(lake, release / "DL_info.csv", annotations_only=True)
    assert first.tally.flags == {Flag.IMAGE_MISSING: 4}
    take_in(lake, release)

    assert lesions(lake)["dl-1"]["flags"] == []
    assert lake.read("slices").num_rows == 15
    assert verify(lake).problems == ()


def test_annotations_alone_never_take_images_away(lake, release):
    take_in(lake, release)

    again = take_in(lake, release / "DL_info.csv", annotations_only=True)

    assert again.tally.flags == {Flag.IMAGE_MISSING: 1}
    assert lake.read("slices").num_rows == 15


def zipped(release, target, parts):
    """The release's images in zips of some series each, the table beside them."""
    target.mkdir()
    shutil.copy(release / "DL_info.csv", target)
    for number, series in enumerate(parts, 1):
        with zipfile.ZipFile(target / f"Images_png_{number:02d}.zip", "w") as archive:
            for name in series:
                for path in sorted((release / "Images_png" / name).iterdir()):
                    archive.write(path, f"Images_png/{name}/{path.name}")
    return target


def test_zips_and_folders_give_the_same_rows(lake, release, tmp_path):
    parts = [["000001_01_01", "000001_02_01"], ["000002_01_01"]]
    take_in(lake, zipped(release, tmp_path / "zips", parts))
    other = Lake.create(str(tmp_path / "other"))
    take_in(other, release)

    assert content_digest(lake, moved=True) == content_digest(other, moved=True)


def test_zips_may_come_one_at_a_time(lake, release, tmp_path):
    target = zipped(release, tmp_path / "zips", [["000001_01_01"], ["000001_02_01", "000002_01_01"]])

    for name in ("Images_png_01.zip", "Images_png_02.zip"):
        take_in(lake, target / "DL_info.csv", target / name)

    assert lake.read("slices").num_rows == 15
    assert sorted(row["lesion_id"] for row in lesions(lake).values() if row["flags"]) == ["dl-4"]


def test_images_of_other_sizes_are_taken_and_told(lake, tmp_path):
    rows = [annotation_row(Image_size="96, 96"), annotation_row(File_name="000002_01_01_003.png")]
    release = write_release(tmp_path / "r", {"000001_01_01": [2, 3], "000002_01_01": [3]}, rows, side=96)
    (release / "Images_png/000001_01_01/002.png").write_bytes(png_bytes(slice_hu("000001_01_01", 2, 64)))

    summary = take_in(lake, release)

    assert summary.tally.flags == {Flag.IMAGE_NOT_512: 1, Flag.IMAGE_SIZE_DIFFERS: 1}
    sizes = lake.read("slices", columns=["series_id", "slice_index", "rows", "flags"]).to_pylist()
    assert {(one["series_id"], one["slice_index"]): (one["rows"], one["flags"]) for one in sizes} == {
        ("dl-000001_01_01", 2): (64, []),
        ("dl-000001_01_01", 3): (96, []),
        ("dl-000002_01_01", 3): (96, [Flag.IMAGE_SIZE_DIFFERS]),
    }


def test_two_files_for_one_slice_keep_the_published_name(lake, tmp_path):
    release = write_release(tmp_path / "r", {"000001_01_01": [3]}, [annotation_row()])
    folder = release / "Images_png/000001_01_01"
    (folder / "3.png").write_bytes(png_bytes(slice_hu("000001_01_01", 9)))

    summary = take_in(lake, release)

    assert summary.tally.reasons == {Reason.DUPLICATE_SLICE: 1}
    with SliceReader(lake) as reader:
        np.testing.assert_array_equal(reader.read("dl-000001_01_01", 3), slice_hu("000001_01_01", 3))


def test_series_without_rows_are_taken(lake, tmp_path):
    release = write_release(tmp_path / "r", {"000001_01_01": [3], "000009_01_01": [1, 2]}, [annotation_row()])

    take_in(lake, release)

    row = next(r for r in lake.read("series").to_pylist() if r["series_id"] == "dl-000009_01_01")
    assert (row["slice_count"], row["spacing_x_mm"], row["sex"]) == (2, None, None)
    assert verify(lake).problems == ()


def test_two_intervals_give_each_sub_volume_its_own(lake, tmp_path):
    rows = [
        annotation_row(Slice_range="1, 4", Spacing_mm_px_="0.8, 0.8, 5"),
        annotation_row(File_name="000001_01_01_007.png", Slice_range="6, 9", Spacing_mm_px_="0.8, 0.8, 1"),
    ]
    release = write_release(tmp_path / "r", {"000001_01_01": [3, 5, 7]}, rows)

    take_in(lake, release)

    table = lake.read("slices", columns=["slice_index", "z_mm"]).to_pylist()
    assert {row["slice_index"]: row["z_mm"] for row in table} == {3: 15.0, 5: None, 7: 7.0}
    series = lake.read("series").to_pylist()[0]
    assert series["regular_spacing"] is False
    assert Flag.INTERVALS_DIFFER in series["flags"]


def test_other_bit_depths_and_damage_are_quarantined_with_their_reason(lake, tmp_path):
    release = write_release(tmp_path / "r", {"000001_01_01": range(1, 6)}, [annotation_row()])
    folder = release / "Images_png/000001_01_01"
    (folder / "001.png").write_bytes(imagecodecs.png_encode(np.zeros((64, 64), np.uint8)))
    (folder / "002.png").write_bytes(b"")
    (folder / "004.png").write_bytes((folder / "004.png").read_bytes()[:-400])

    summary = take_in(lake, release)

    assert summary.tally.reasons == {Reason.PNG_NOT_16_BIT: 1, Reason.FILE_EMPTY: 1, Reason.PNG_DAMAGED: 1}
    members = {row["member"] for row in lake.read("quarantine").to_pylist()}
    assert members == {"000001_01_01/001.png", "000001_01_01/002.png", "000001_01_01/004.png"}


def test_unreadable_file_is_tried_again_next_time(lake, release):
    plan = plan_sources([str(release)], IngestSettings(namespace="dl"))
    gone = release / "Images_png/000001_01_01/003.png"
    content, stat = gone.read_bytes(), gone.stat()
    gone.unlink()  # between listing and reading
    summary = ingest(lake, plan, QUICK)
    assert summary.tally.reasons == {Reason.FILE_UNREADABLE: 1}
    gone.write_bytes(content)
    os.utime(gone, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    again = take_in(lake, release)

    assert again.units_written == 1
    assert lake.read("slices").num_rows == 15


def test_two_releases_live_side_by_side_under_their_namespaces(lake, release):
    take_in(lake, release)
    other = plan_sources([str(release)], IngestSettings(namespace="second"))
    ingest(lake, other, QUICK)

    assert lake.read("lesions").num_rows == 8
    assert {"dl-1", "second-1"} <= set(lesions(lake))


def test_identifiers_in_names_and_fields_reach_no_table_and_no_record(lake, tmp_path):
    planted = "DOE^JANE"
    rows = [annotation_row(), annotation_row(Patient_gender=planted), annotation_row(File_name=f"{planted}.png")]
    release = write_release(tmp_path / "r", {"000001_01_01": [3]}, rows)
    (release / f"{planted}.txt").write_text(planted)
    (release / "Images_png" / planted).mkdir()
    (release / "Images_png" / planted / "001.png").write_bytes(b"x")

    summary = take_in(lake, release)

    assert summary.tally.counts["files_quarantined"] == 2
    for path in Path(lake.url).rglob("*"):
        assert "DOE" not in path.name
    for name in TABLES:
        assert planted not in repr(lake.read(name).to_pylist())
    assert planted not in "".join(path.read_text() for path in Path(lake.url, "ingests").iterdir())


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "neither a DeepLesion release nor any DICOM"),
        ({"DL_info.csv": annotation_csv(annotation_row())}, "there are no images"),
        ({"a.txt": b"x"}, "neither a DeepLesion release nor any DICOM"),
    ],
)
def test_source_without_images_is_named(tmp_path, content, sentence):
    (tmp_path / "r").mkdir()
    for name, data in content.items():
        (tmp_path / "r" / name).write_bytes(data)

    with pytest.raises(SourceError, match=sentence):
        plan_sources([str(tmp_path / "r")], IngestSettings(key_file=str(tmp_path / "key")))


@pytest.mark.parametrize("finished_tasks", [0, 1, 2])
def test_interrupted_ingest_resumes_and_ends_as_if_never_interrupted(tmp_path, release, finished_tasks, monkeypatch):
    monkeypatch.setattr("etl.ingest_tasks._SMALLEST_TASK_BYTES", 1)  # a task for every series
    calm, hurried = Lake.create(str(tmp_path / "calm")), Lake.create(str(tmp_path / "hurried"))
    take_in(calm, release)
    plan = plan_sources([str(release)], IngestSettings(namespace="dl"))

    class InterruptedForTestError(Exception):
        pass

    def stops(tasks):
        for number, task in enumerate(tasks):
            if number == finished_tasks:
                run_task(task)  # its shard is written and will never be committed
                raise InterruptedForTestError
            yield run_task(task)

    with pytest.raises(InterruptedForTestError):
        ingest(hurried, plan, QUICK, choose_runner=lambda _: (stops, 100))
    rest = take_in(hurried, release)

    assert rest.units_written <= len(plan.units)
    vacuum(hurried, dry_run=False, older_than_hours=0)
    assert content_digest(hurried, moved=True) == content_digest(calm, moved=True)
    assert verify(hurried, deep=True).problems == ()


def test_dry_plan_needs_no_lake(release):
    plan = plan_sources([str(release)], IngestSettings(namespace="dl"))

    assert len(units_to_do(None, plan)) == len(plan.units)
    assert (plan.rows_found, plan.files_found) == (4, 15)
    assert plan.bytes_found == sum(path.stat().st_size for path in release.rglob("*.png"))


@pytest.mark.ray
def test_ray_gives_the_same_rows_as_this_process(tmp_path, release, ray_cluster):
    from etl.ingest_job import run_on_ray

    here, there = Lake.create(str(tmp_path / "here")), Lake.create(str(tmp_path / "there"))
    take_in(here, release)
    summary = take_in(there, release, runner=run_on_ray)

    assert summary.slices_written == 15
    assert content_digest(there, moved=True) == content_digest(here, moved=True)
    assert verify(there, deep=True).problems == ()


@pytest.mark.ray
def test_a_task_that_kills_its_workers_ends_the_job_with_a_sentence(ray_cluster, monkeypatch):
    from etl.ingest_job import run_on_ray

    monkeypatch.setattr("etl.ingest_job.MOST_DEATHS", 2)

    with pytest.raises(InternalError, match="the worker of one task died 2 times: an input crashes it"):
        list(run_on_ray([SimpleNamespace(run=os.abort)]))


@pytest.mark.ray
def test_our_errors_come_back_from_ray_as_themselves(lake, release, ray_cluster, monkeypatch):
    from etl.ingest_job import run_on_ray

    other = json.loads(worker_contract()) | {"code": "0" * 16}
    monkeypatch.setattr("etl.ingest_job.worker_contract", lambda: json.dumps(other))

    with pytest.raises(CodeMismatchError, match=f"code {code_fingerprint()} where the driver has 0000") as caught:
        take_in(lake, release, runner=run_on_ray)
    # A sentence, not the traceback that Ray's own class for it would say.
    assert re.fullmatch(r"Ray worker on node .*", str(caught.value))
    assert lake.read("units").num_rows == 0


made_up_fields = st.sampled_from(["", "NaN", "-1", "1, 2", "768, 768", "0.8, 0.8, -5", "x", "9" * 30, "1e9, 1", "3, 1"])
made_up_rows = st.lists(
    st.dictionaries(st.sampled_from(sorted(set(annotation_row()) - {"File_name"})), made_up_fields, max_size=4).map(
        lambda changes: annotation_row(**changes)
    ),
    max_size=6,
)
made_up_files = st.dictionaries(
    st.sampled_from(["000001_01_01/003.png", "000001_01_01/3.png", "000002_01_01/001.png", "x/1.png", "a.zip", ".DS"]),
    st.sampled_from([b"", b"junk", png_bytes(slice_hu("000001_01_01", 3)), png_bytes(slice_hu("1_1_1", 1))[:300]]),
    max_size=5,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=made_up_rows, files=made_up_files)
def test_counts_add_up_whatever_comes(tmp_path_factory, rows, files):
    root = tmp_path_factory.mktemp("any")
    release = write_release(root / "r", {"000003_01_01": [1]}, rows)
    for name, data in files.items():
        path = release / "Images_png" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    lake = Lake.create(str(root / "lake"))

    summary = take_in(lake, release)

    counts = summary.tally.counts
    assert counts["rows_found"] == len(rows)
    assert counts["files_found"] == len(files) + 1
    for kind in ("rows", "files"):
        assert counts[f"{kind}_found"] == sum(counts[f"{kind}_{s}"] for s in ("accepted", "flagged", "quarantined"))
    assert verify(lake, deep=True).problems == ()
    assert tally(lake, lake.read("units")["unit_id"].to_pylist()) == summary.tally


def test_diameters_in_millimetres_are_stated_as_such(lake, tmp_path):
    plain = annotation_row()
    in_mm = annotation_row(Lesion_diameters_Pixel_=_scaled(plain))
    release = write_release(tmp_path / "r", {"000001_01_01": [3]}, [in_mm])
    take_in(lake, release)

    (row,) = lesions(lake).values()
    assert Flag.DIAMETERS_IN_MM in row["flags"]
    assert row["stated_unit"] == "mm"
    assert row["stated_ratio"] == pytest.approx(1.0, abs=0.01)


def _scaled(row):
    spacing = float(row["Spacing_mm_px_"].split(",")[0])
    return ", ".join(f"{float(part) * spacing:.6g}" for part in row["Lesion_diameters_Pixel_"].split(","))


def test_measurement_of_no_length_has_no_ratio(lake, tmp_path):
    tiny = annotation_row(Measurement_coordinates="5, 5, 5, 5, 5, 5, 5, 5")
    release = write_release(tmp_path / "r", {"000001_01_01": [3]}, [tiny])
    take_in(lake, release)

    (row,) = lesions(lake).values()
    assert row["stated_ratio"] is None


def test_slice_file_larger_than_any_slice_is_refused_unread(lake, release):
    (release / "Images_png" / "000001_01_01" / "009.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(65 << 20))

    summary = take_in(lake, release)

    assert summary.tally.reasons[Reason.MEMBER_TOO_LARGE] == 1
