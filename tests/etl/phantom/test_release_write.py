"""A whole release on disk: its files, its table, its truth, and that nothing but the settings decides its bytes."""

import csv
import hashlib
import json
import zipfile
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from etl.phantom.release import ReleaseSettings, ReleaseSummary, ordered_map, write_release
from lesionary.errors import UsageError

SETTINGS = ReleaseSettings(patients=3, seed=4, image_size=96, volumes=1, max_slices_per_series=9)
ZIPPED = ReleaseSettings(patients=3, seed=4, image_size=96, volumes=1, max_slices_per_series=9, slices_per_zip=30)
TINY = ReleaseSettings(patients=1, seed=4, image_size=64, max_slices_per_series=3)

Written = tuple[Path, ReleaseSummary]


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def table(folder: Path, name: str = "DL_info.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def numbers(cell: str) -> list[float]:
    return [float(part) for part in cell.split(",")]


def image_path(row: dict[str, str]) -> str:
    series, file = row["File_name"].rsplit("_", 1)
    return f"Images_png/{series}/{file}"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("release") / "out"
    return folder, write_release(folder, SETTINGS)


@pytest.fixture(scope="module")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("zipped") / "out"
    return folder, write_release(folder, ZIPPED, workers=2)


def test_the_summary_counts_what_is_on_disk(written: Written) -> None:
    folder, summary = written
    images = list(folder.rglob("*.png"))

    assert summary.rows == len(table(folder)) > 5
    assert summary.slice_files == len(images)
    assert summary.bytes == sum(path.stat().st_size for path in images)
    assert summary.series + summary.volumes == len({path.parent for path in images})
    assert summary.patients == len({row["Patient_index"] for row in table(folder)}) <= 3
    assert summary.slices_per_second > 0


def test_folders_and_zips_hold_the_same_bytes_whatever_the_number_of_workers(written: Written, zipped: Written) -> None:
    plain, packed = digests(written[0]), digests(zipped[0])
    members: dict[str, str] = {}
    for archive in sorted(zipped[0].glob("Images_png_*.zip")):
        with zipfile.ZipFile(archive) as opened:
            members |= {name: hashlib.sha256(opened.read(name)).hexdigest() for name in opened.namelist()}

    assert members == {name: digest for name, digest in plain.items() if name.endswith(".png")}
    assert {name for name in packed if "zip" not in name} == {
        "DL_info.csv", "truth.csv", "truth.json", "truth_masks.json",
    }  # fmt: skip
    assert packed["DL_info.csv"] == plain["DL_info.csv"]
    assert packed["truth.csv"] == plain["truth.csv"]
    assert packed["truth_masks.json"] == plain["truth_masks.json"]


def test_the_same_settings_give_the_same_zips(zipped: Written, tmp_path: Path) -> None:
    write_release(tmp_path / "again", ZIPPED)

    assert digests(tmp_path / "again") == digests(zipped[0])


def test_zips_hold_about_so_many_slices_and_never_divide_a_series(zipped: Written) -> None:
    folder, summary = zipped
    archives = sorted(folder.glob("*.zip"))
    contents = [zipfile.ZipFile(archive).namelist() for archive in archives]
    series = [{name.split("/")[1] for name in names} for names in contents]

    assert [archive.name for archive in archives] == [f"Images_png_{n:02d}.zip" for n in range(1, summary.zips + 1)]
    assert len(archives) > 1
    assert all(len(names) <= 30 or len(names_of) == 1 for names, names_of in zip(contents, series, strict=True))
    assert sum(len(names) for names in series) == len(set().union(*series))


def test_the_files_are_exactly_the_slices_of_the_ranges_and_the_whole_scan(written: Written) -> None:
    folder, _ = written
    wanted: set[str] = set()
    for row in table(folder):
        first, last = (int(value) for value in numbers(row["Slice_range"]))
        series = row["File_name"].rsplit("_", 1)[0]
        wanted |= {f"Images_png/{series}/{index:03d}.png" for index in range(first, last + 1)}
    scan = {str(path.relative_to(folder)) for path in (folder / "Images_png" / "000004_01_01").iterdir()}

    assert {name for name in digests(folder) if name.endswith(".png")} == wanted | scan
    assert len(scan) > 20


def test_pictures_are_16_bit_hu_with_the_release_s_offset(written: Written) -> None:
    folder, _ = written
    row = table(folder)[0]

    stored = imagecodecs.png_decode((folder / image_path(row)).read_bytes())

    assert stored.dtype == np.uint16
    assert stored.shape == (96, 96)
    hu = stored.astype(np.int32) - 32768
    assert hu.min() >= -1024
    assert hu[hu > -200].size > 0.05 * hu.size
    assert -200 < np.median(hu[hu > -200]) < 200


def test_rows_agree_with_themselves(written: Written) -> None:
    """No row of a release without quirks has anything odd about it."""
    for row in table(written[0]):
        points = np.array(numbers(row["Measurement_coordinates"])).reshape(4, 2)
        box = numbers(row["Bounding_boxes"])
        long_px, short_px = numbers(row["Lesion_diameters_Pixel_"])
        first, last = numbers(row["Slice_range"])

        assert box == pytest.approx([*points.min(axis=0) - 5, *points.max(axis=0) + 5], abs=2e-3)
        assert min(box) >= 1
        assert max(box) <= 96
        assert long_px == pytest.approx(float(np.hypot(*(points[0] - points[1]))), abs=2e-3)
        assert short_px <= long_px
        assert first <= int(row["Key_slice_index"]) <= last
        assert all(0 <= value <= 1 for value in numbers(row["Normalized_lesion_location"]))
        assert row["Possibly_noisy"] == "0"
        assert (row["Coarse_lesion_type"] == "-1") == (row["Train_Val_Test"] == "1")


def test_rows_stand_in_the_order_of_patients_studies_series_and_slices(written: Written) -> None:
    keys = [
        tuple(int(row[name]) for name in ("Patient_index", "Study_index", "Series_ID", "Key_slice_index"))
        for row in table(written[0])
    ]

    assert keys == sorted(keys)


def test_the_truth_names_every_row_s_lesion(written: Written) -> None:
    folder, _ = written
    truth = json.loads((folder / "truth.json").read_text())
    rows, true_rows = table(folder), table(folder, "truth.csv")

    assert [row["File_name"] for row in rows] == [row["file_name"] for row in true_rows]
    assert [int(row["row_number"]) for row in true_rows] == list(range(1, len(rows) + 1))
    for row, true in zip(rows, true_rows, strict=True):
        lesion = truth["lesions"][true["lesion_id"]]
        height = numbers(row["Normalized_lesion_location"])[2]
        assert lesion["type"] == true["true_type"]
        assert lesion["growth_by_study"][str(int(row["Study_index"]))] == pytest.approx(float(true["growth"]))
        assert true["lesion_id"].startswith(f"{int(row['Patient_index']):06d}-")
        assert height == pytest.approx(float(true["true_height"]), abs=0.06)


def test_a_lesion_keeps_its_name_through_studies_and_series(written: Written) -> None:
    series_of: dict[str, set[str]] = {}
    for row in table(written[0], "truth.csv"):
        series_of.setdefault(row["lesion_id"], set()).add(row["series"])

    assert max(len(series) for series in series_of.values()) >= 2


def test_the_truth_knows_the_height_of_every_slice_file(written: Written) -> None:
    folder, _ = written
    series = json.loads((folder / "truth.json").read_text())["series"]
    known = {
        f"Images_png/{name}/{index:03d}.png"
        for name, truth in series.items()
        for index, _z_mm, _height in truth["slice_index_z_mm_height"]
    }

    assert known == {name for name in digests(folder) if name.endswith(".png")}
    for truth in series.values():
        heights = [height for _index, _z_mm, height in truth["slice_index_z_mm_height"]]
        assert heights == sorted(heights)
        assert 0 <= heights[0] <= heights[-1] <= 1


def test_unmarked_lesions_are_on_written_slices_and_in_no_row(written: Written) -> None:
    folder, summary = written
    truth = json.loads((folder / "truth.json").read_text())
    marked = {(row["series"], row["lesion_id"]) for row in table(folder, "truth.csv")}

    assert len(truth["unmarked"]) == summary.unmarked_lesions > 0
    for lesion in truth["unmarked"]:
        assert (lesion["series"], lesion["lesion_id"]) not in marked
        assert (folder / "Images_png" / lesion["series"] / f"{lesion['slice_index']:03d}.png").exists()


def test_a_patient_is_the_same_in_a_larger_release(written: Written, tmp_path: Path) -> None:
    write_release(tmp_path / "small", ReleaseSettings(patients=1, seed=4, image_size=96, max_slices_per_series=9))

    assert table(tmp_path / "small")
    assert table(tmp_path / "small") == [row for row in table(written[0]) if row["Patient_index"] == "1"]


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match=r"the folder is not empty; choose another .* --force"):
        write_release(tmp_path, TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_force_replaces_a_broken_off_release_and_leaves_other_files(tmp_path: Path) -> None:
    write_release(tmp_path / "fresh", TINY)
    broken = tmp_path / "broken"
    (broken / "Images_png" / "000099_01_01").mkdir(parents=True)
    (broken / ".writing" / ".000001_01_01.part").mkdir(parents=True)
    (broken / "Images_png_07.zip").write_bytes(b"half a zip")
    (broken / ".Images_png_08.zip.part").write_bytes(b"half a zip")
    (broken / "notes.txt").write_text("mine")

    write_release(broken, TINY, force=True)

    assert digests(broken) == digests(tmp_path / "fresh") | {"notes.txt": hashlib.sha256(b"mine").hexdigest()}
    assert not (broken / ".writing").exists()


def test_progress_tells_of_patients_and_slices_to_the_end(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []

    summary = write_release(tmp_path / "out", TINY, progress=lambda *step: told.append(step))

    assert told[0] == ("patients planned", 1, 1)
    assert told[-1] == ("slices drawn", summary.slice_files, summary.slice_files)


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        (ReleaseSettings(patients=0), "--patients"),
        (ReleaseSettings(patients=1, image_size=8), "--image-size"),
        (ReleaseSettings(patients=1, volumes=-1), "--volumes"),
        (ReleaseSettings(patients=1, seed=-1), "--seed"),
        (ReleaseSettings(patients=1, slices_per_zip=0), "--slices-per-zip"),
        (ReleaseSettings(patients=1, max_slices_per_series=0), "--max-slices-per-series"),
        (ReleaseSettings(patients=1, png_level=11), "--png-level"),
        (ReleaseSettings(patients=1, quirks=("flying",)), "--quirk"),
    ],
)
def test_a_setting_out_of_range_is_refused_before_anything_is_written(
    settings: ReleaseSettings, option: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=option):
        write_release(tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_results_come_in_the_order_of_the_tasks() -> None:
    tasks = list(range(23))

    assert list(ordered_map(str, tasks, workers=2)) == [str(task) for task in tasks]
    assert list(ordered_map(str, tasks, workers=1)) == [str(task) for task in tasks]


def test_a_worker_s_failure_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(ordered_map(int, ["1", "two", "3"], workers=2))
