"""Out of the lake and in again: nothing that an export holds differs from what the lake holds."""

import json
import math

import nibabel
import numpy as np
import pydicom
import pytest
from pacs_files import ct, mine, take_in

from etl.export.coco import export_coco
from etl.export.deeplesion import export_deeplesion
from etl.export.nifti import export_nifti
from etl.export.selection import Choice
from etl.export.sr import export_sr
from etl.marks.reports import read_report
from lesionary.errors import LakeError, UsageError
from lesionary.lake import Lake
from lesionary.recist import FIRST_CENTERS
from lesionary.schema import COORDINATE_COLUMNS
from lesionary.slices import SliceReader

ALL = Choice()


@pytest.fixture(scope="module")
def lake(phantom_pacs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("lake")
    made = Lake.create(str(folder / "lake"))
    take_in(made, phantom_pacs[0], folder)
    return made


def zero_based(row):
    origin = FIRST_CENTERS[row["coord_convention"]]
    return [row[name] - origin for name in COORDINATE_COLUMNS]


def digests(lake):
    return sorted(lake.read("slices", columns=["pixel_digest"])["pixel_digest"].to_pylist())


def test_release_out_of_a_pacs_lake_comes_in_again_the_same(lake, tmp_path):
    done = export_deeplesion(lake, tmp_path / "release", ALL)
    again = Lake.create(str(tmp_path / "again"))
    take_in(again, tmp_path / "release", tmp_path)

    before, after = (one.read("lesions").to_pylist() for one in (lake, again))
    assert (done.lesions, done.left_out) == (len(before), {})
    assert digests(again) == digests(lake)
    for one, other in zip(sorted(map(zero_based, before)), sorted(map(zero_based, after)), strict=True):
        assert np.allclose(one, other, atol=1e-6)
    for name in ("long_mm", "short_mm"):
        sizes = [sorted(row[name] for row in rows) for rows in (before, after)]
        assert np.allclose(*sizes, rtol=1e-6)
    kinds = [sorted(str(row["lesion_type"]) for row in rows) for rows in (before, after)]
    assert kinds[0] == kinds[1]


def test_release_out_of_a_release_lake_keeps_names_and_order(release, tmp_path):
    first = Lake.create(str(tmp_path / "first"))
    take_in(first, release, tmp_path)
    export_deeplesion(first, tmp_path / "out", ALL)
    second = Lake.create(str(tmp_path / "second"))
    take_in(second, tmp_path / "out", tmp_path)

    # A series without images has no place in a release.
    names = [sorted({*one.read("slices")["series_id"].to_pylist()}) for one in (first, second)]
    assert names[0] == names[1]
    assert digests(first) == digests(second)


def test_lesion_without_short_axis_or_image_is_counted_and_left_out(tmp_path):
    table = (
        "sop_instance_uid,long_x1,long_y1,long_x2,long_y2\n"
        f"{pydicom.dcmread(_path(tmp_path, ct())).SOPInstanceUID},5,5,20,5\n"
    )
    made, _ = mine(tmp_path, {"a": ct(), "marks.csv": table.encode()})

    done = export_deeplesion(made, tmp_path / "out", ALL)

    assert (done.lesions, done.left_out) == (0, {"no short axis": 1})


def _path(folder, data):
    path = folder / "one.dcm"
    path.write_bytes(data)
    return path


def test_nifti_has_the_lakes_pixels_at_the_scanners_places(lake, tmp_path):
    done = export_nifti(lake, tmp_path / "out", ALL)

    rows = {row["series_id"]: row for row in lake.read("series").to_pylist()}
    places = lake.read("slices", columns=["series_id", "slice_index", "position_xyz_mm"]).to_pylist()
    position = {(row["series_id"], row["slice_index"]): row["position_xyz_mm"] for row in places}
    assert done.slices == len(places)
    with SliceReader(lake) as reader:
        for path in (tmp_path / "out").glob("*.nii.gz"):
            series, _, span = path.name.removesuffix(".nii.gz").rpartition("_")
            first, last = map(int, span.split("-"))
            image = nibabel.load(path)
            volume = np.asanyarray(image.dataobj)
            assert volume.shape[2] == last - first + 1
            assert np.array_equal(volume[:, :, 0].T, reader.read(series, first))
            for k, index in ((0, first), (volume.shape[2] - 1, last)):
                x, y, z = image.affine[:3] @ [0, 0, k, 1]
                assert np.allclose([-x, -y, z], position[series, index], atol=1e-3)
            assert image.header.get_zooms()[0] == pytest.approx(rows[series]["spacing_x_mm"], rel=1e-5)


def test_nifti_lesions_lie_on_their_voxels(lake, tmp_path):
    done = export_nifti(lake, tmp_path / "out", ALL, compressed=False)

    lines = (tmp_path / "out" / "lesions.csv").read_text().splitlines()
    assert len(lines) == 1 + done.lesions == 1 + lake.read("lesions").num_rows
    assert not list((tmp_path / "out").glob("*.gz"))


def test_gaps_part_a_series_into_volumes_of_one_interval(tmp_path):
    made, _ = mine(tmp_path, {f"f{number}": ct(number) for number in (1, 2, 3, 6, 7)})

    export_nifti(made, tmp_path / "out", ALL)

    names = sorted(path.name.rpartition("_")[2] for path in (tmp_path / "out").glob("*.nii.gz"))
    assert names == ["001-003.nii.gz", "004-005.nii.gz"]


def test_series_at_one_place_is_no_volume(tmp_path):
    made, _ = mine(tmp_path, {f"f{number}": ct(number, z=0.0) for number in (1, 2)})

    assert export_nifti(made, tmp_path / "out", ALL).left_out == {"all slices at one place": 1}


def test_coco_boxes_hold_their_points(lake, tmp_path):
    done = export_coco(lake, tmp_path / "out", ALL, pictures=True)

    content = json.loads((tmp_path / "out" / "annotations_all.json").read_text())
    assert done.lesions == len(content["annotations"]) == lake.read("lesions").num_rows
    images = {image["id"]: image for image in content["images"]}
    for one in content["annotations"]:
        x, y, width, height = one["bbox"]
        points = np.reshape(one["recist"], (4, 2))
        assert np.allclose(points.min(axis=0), [x + 5, y + 5], atol=1e-3)
        assert np.allclose(points.max(axis=0), [x + width - 5, y + height - 5], atol=1e-3)
        assert (tmp_path / "out" / images[one["image_id"]]["file_name"]).stat().st_size > 100


def test_report_out_is_read_in_with_the_same_points(lake, tmp_path):
    done = export_sr(lake, tmp_path / "out", ALL)

    marks = [mark for path in (tmp_path / "out").glob("*.dcm") for mark in read_report(pydicom.dcmread(path)).marks]
    read = sorted([x - 0.5 for axis in (mark.long_axis, mark.short_axis) for p in axis for x in p] for mark in marks)
    rows = lake.read("lesions").to_pylist()
    assert done.lesions == len(marks) == len(rows)
    assert np.allclose(read, sorted(map(zero_based, rows)), atol=1e-4)
    assert sorted(round(mark.stated_long, 6) for mark in marks) == sorted(round(row["long_mm"], 6) for row in rows)


@pytest.mark.parametrize("codes", ["srt", "sct"])
def test_report_is_read_by_highdicom(lake, tmp_path, codes):
    import highdicom

    export_sr(lake, tmp_path / "out", ALL, codes=codes)

    found = 0
    for path in (tmp_path / "out").glob("*.dcm"):
        document = highdicom.sr.srread(path)
        for group in document.content.get_image_measurement_groups():
            values = [measurement.value for measurement in group.get_measurements()]
            found += 1
            assert len(values) == 2
            assert all(math.isfinite(value) for value in values)
    assert found == lake.read("lesions").num_rows


def test_report_can_carry_the_hospitals_own_uids(phantom_pacs, tmp_path):
    from etl.deidentify import confirmed_names, keep_map, load_key
    from etl.ingest import ingest
    from etl.planning import plan_sources
    from lesionary.settings import IngestSettings

    settings = IngestSettings(key_file=str(tmp_path / "key"))
    plan = plan_sources([str(phantom_pacs[0])], settings)
    keep_map(tmp_path / "map", plan.names)
    made = Lake.create(str(tmp_path / "lake"))
    ingest(made, plan, settings)
    export_sr(made, tmp_path / "out", ALL, real_uids=confirmed_names(tmp_path / "map", load_key(tmp_path / "key")))

    named = {
        mark.image_uid for path in (tmp_path / "out").glob("*.dcm") for mark in read_report(pydicom.dcmread(path)).marks
    }
    assert named == {lesion["sop_uid"] for lesion in phantom_pacs[1]["lesions"]}


def test_exports_say_the_same_bytes_twice(lake, tmp_path):
    for name in ("a", "b"):
        export_nifti(lake, tmp_path / name / "nifti", ALL)
        export_sr(lake, tmp_path / name / "sr", ALL)
        export_coco(lake, tmp_path / name / "coco", ALL)

    files = [
        {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("a", "b")
    ]
    assert files[0] == files[1]


def test_patient_can_be_chosen(lake, tmp_path):
    patient = lake.read("lesions")["patient_id"][0].as_py()
    wanted = lake.read("lesions").to_pylist()

    done = export_coco(lake, tmp_path / "out", Choice(patients=(patient,)))

    assert done.lesions == sum(row["patient_id"] == patient for row in wanted)
    with pytest.raises(LakeError, match="nothing in the lake matches"):
        export_coco(lake, tmp_path / "none", Choice(patients=("nobody",)))


def test_folder_with_other_files_is_left_alone(lake, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("do not touch")
    for force in (False, True):
        with pytest.raises(UsageError, match="not empty"):
            export_sr(lake, out, ALL, force=force)

    (out / "thesis.txt").unlink()
    export_sr(lake, out, ALL)
    (out / "thesis.txt").write_text("do not touch")
    with pytest.raises(UsageError, match="also holds 1 other"):
        export_sr(lake, out, ALL, force=True)
    (out / "thesis.txt").unlink()
    assert export_sr(lake, out, ALL, force=True).lesions > 0


@pytest.mark.parametrize("column", ["series_id", "study_id"])
@pytest.mark.parametrize("name", ["../../elsewhere", "/etc/x", "a/b", "", ".", "..", "a\x00b", "x" * 300])
def test_names_that_another_writer_put_into_the_lake_lead_nowhere(lake, tmp_path, monkeypatch, column, name):
    truthful = Lake.read

    def poisoned(self, table, **options):
        rows = truthful(self, table, **options)
        if table != "series":
            return rows
        return rows.set_column(rows.schema.get_field_index(column), column, [[name] * rows.num_rows])

    monkeypatch.setattr(Lake, "read", poisoned)
    for export in (export_nifti, export_sr, export_deeplesion):
        with pytest.raises(LakeError, match="a name that ingest never gives"):
            export(lake, tmp_path / "out", ALL)

    assert not list(tmp_path.rglob("*"))
