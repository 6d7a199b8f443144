"""`lesionary detect` as a person runs it, with a detector that finds bright blobs in place of a network."""

import json
import sys
from types import SimpleNamespace

import pytest
from blob_finder import PADDING_PX, PIXEL_MM, BlobFinder
from blob_series import body_with_blobs
from conftest import annotation_csv, annotation_row, png_bytes
from pacs_files import ct
from PIL import Image
from small_models import publish_small

from lesionary.lake import Lake
from lesionary.models import ModelDraft, publish

SETTINGS = {
    "pixel_mm": PIXEL_MM, "slices": 3, "step_mm": 2.0, "max_side_px": 512, "box_padding_px": PADDING_PX,
    "categories": "none", "category_names": ["lesion"], "precision": "fp32",
}  # fmt: skip


def publish_detector(name="detector", categories_of=None, **changes):
    data = {"categories_of": categories_of} if categories_of else {}
    draft = ModelDraft(
        kind="detector", preset="smoke", settings=SETTINGS | changes, lake={}, data=data, metrics={}, seed=0
    )  # fmt: skip
    return publish(Lake.open("lake"), name, draft, b"weights")


@pytest.fixture
def finder(monkeypatch):
    """A network's place is taken; what it was asked for is kept."""
    asked = []

    def published(lake_url, model_id, *, on_gpu=False, precision="fp32"):
        asked.append((model_id, on_gpu, precision))
        return BlobFinder(categories=2)

    monkeypatch.setitem(sys.modules, "trainers.detector.inference", SimpleNamespace(published_detector=published))
    return asked


@pytest.fixture
def filled(run, tmp_path, finder):
    """Two patients, each with a lesion through three slices that is marked on the middle one, and one on the last."""
    rows = []
    for patient, split in ((1, "1"), (2, "3")):
        name = f"00000{patient}_01_01"
        target = tmp_path / "release" / "Images_png" / name
        target.mkdir(parents=True)
        for index in range(1, 7):
            blobs = [(41, 30, 5, 500 + index)] if 2 <= index <= 4 else [(60, 50, 2, 301)] if index == 6 else []
            (target / f"{index:03d}.png").write_bytes(png_bytes(body_with_blobs(blobs)))
        rows.append(
            annotation_row(
                File_name=f"{name}_003.png",
                Slice_range="1, 6",
                Image_size="96, 96",
                Spacing_mm_px_="0.8, 0.8, 2",
                Measurement_coordinates="37, 31, 47, 31, 42, 26, 42, 36",
                Train_Val_Test=split,
            )
        )
    (tmp_path / "release" / "DL_info.csv").write_bytes(annotation_csv(*rows))
    assert run("ingest", "release")[0] == 0
    publish_detector()
    return run


def test_detections_come_into_the_lake_and_the_store(filled):
    code, out, notes = filled("detect")
    assert code == 0
    assert "2 meant = 2 looked through + 0 looked through before + 0 left out" in out
    assert "4 on 12 slices, of 8 boxes" in out
    assert "lesionary sync" in notes
    assert "nothing to do: detector-1" in filled("detect")[2]

    assert filled("sync")[0] == 0
    sql = "SELECT detection_id, slice_index, slices, box_xyxy_px, sex, category_name FROM detection_features ORDER BY 1"
    rows = json.loads(filled("sql", sql, "--json")[1])
    assert [row["detection_id"] for row in rows] == [
        f"detector-1/dl-00000{patient}_01_01/{number}" for patient in (1, 2) for number in (1, 2)
    ]
    assert (rows[0]["slice_index"], rows[0]["slices"], rows[0]["sex"], rows[0]["category_name"]) == (4, 3, "F", None)
    assert rows[0]["box_xyxy_px"] == pytest.approx([36, 25, 46, 35], abs=1e-4)
    assert filled("sql", "SELECT count(*) AS n FROM detections", "--csv")[1].split() == ["n", "4"]


def test_options_choose_series_slices_and_scores(filled, finder):
    summary = json.loads(filled("detect", "--split", "test", "--key-slices", "--json")[1])
    assert (summary["series_found"], summary["slices_looked_at"], summary["scope"]) == (1, 1, "key_slices")
    summary = json.loads(filled("detect", "--patient", "dl-000001", "--min-score", "0.4", "--json")[1])
    assert (summary["series_found"], summary["detections"], summary["boxes"]) == (1, 1, 3)
    summary = json.loads(filled("detect", "--series", "dl-000002_01_01", "--precision", "bf16", "--json")[1])
    assert (summary["series_found"], summary["detections"]) == (1, 2)
    assert finder[-1] == ("detector-1", False, "bf16")
    assert "dl-9: the lake has no such series" in filled("detect", "--series", "dl-9")[2]


def test_a_picture_shows_the_surest_slices_with_marks(filled, tmp_path, monkeypatch):
    import cli.detection_pictures

    drawn = []
    real = cli.detection_pictures.draw_detections
    monkeypatch.setattr(cli.detection_pictures, "draw_detections", lambda *what: drawn.append(what) or real(*what))
    code, _, notes = filled("detect", "--picture", "found.png")
    assert code == 0
    assert "picture: found.png" in notes
    assert Image.open(tmp_path / "found.png").size[0] > 1000

    ((tiles, title),) = drawn
    assert "detector-1" in title
    assert [tile.name for tile in tiles] == [
        f"dl-00000{patient}_01_01, slice {index}" for index in (4, 6) for patient in (1, 2)
    ]
    assert [len(tile.detections) for tile in tiles] == [1, 1, 1, 1]
    # The lesion is marked on slice 3, where its detection is not surest.
    assert [len(tile.marks) for tile in tiles] == [0, 0, 0, 0]
    filled("detect", "--key-slices", "--model", "detector", "--min-score", "0.2", "--picture", "key.png")
    tiles, _ = drawn[-1]
    assert tiles[0].marks == [(36.0, 25.0, 46.0, 35.0)]


def test_names_of_categories_travel_to_detections(filled, tmp_path):
    from datetime import UTC, datetime

    import pyarrow as pa

    from lesionary.detection_tables import CATEGORIES
    from lesionary.results import write_results

    made = {"lesions": 1, "created_at": datetime(2026, 1, 2, tzinfo=UTC), "model_id": "categories-1"}
    rows = [made | {"category": 0, "name": None}, made | {"category": 1, "name": "bright"}]
    write_results(
        Lake.open("lake"), "categories-1", {"categories": [pa.Table.from_pylist(rows, schema=CATEGORIES.schema)]}
    )
    publish_detector("sorter", "categories-1", categories="categories", category_names=["0", "1"])
    publish_detector("typist", categories="types", category_names=["lung", "liver"])
    assert filled("detect", "--model", "sorter")[0] == filled("detect", "--model", "typist")[0] == 0
    filled("sync")

    sql = "SELECT DISTINCT model_id, category, category_name FROM detection_features ORDER BY ALL"
    rows = [tuple(row.values()) for row in json.loads(filled("sql", sql, "--json")[1])]
    assert rows == [
        ("sorter-1", 0, None), ("sorter-1", 1, "bright"), ("typist-1", 0, "lung"), ("typist-1", 1, "liver"),
    ]  # fmt: skip
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "1").write_bytes(ct(1, hu=body_with_blobs([(40, 30, 4, 400), (60, 50, 3, 501)])))
    listed = json.loads(filled("detect", "scan", "--model", "sorter", "--json")[1])
    assert [row["category"] for row in listed] == ["bright", "category 0"]


def test_a_fresh_folder_is_looked_through_and_nothing_is_kept(filled, tmp_path):
    folder = tmp_path / "scan"
    folder.mkdir()
    for number in range(1, 6):
        blobs = [(41, 30, 5, 500 + number)] if 2 <= number <= 4 else []
        (folder / f"DOE^JANE-{number}.dcm").write_bytes(ct(number, hu=body_with_blobs(blobs)))
    (folder / "again.dcm").write_bytes(ct(1, hu=body_with_blobs([])))
    (folder / "letter.txt").write_text("DOE^JANE")
    before = dict(Lake.open("lake").snapshot().versions)

    code, out, notes = filled("detect", "scan", "--picture", "found.png", "--json")
    assert code == 0
    (row,) = json.loads(out)
    assert (row["series"], row["slice"], row["first"], row["last"]) == (1, 4, 2, 4)
    assert [row[name] for name in ("x0", "y0", "x1", "y1")] == [36.0, 25.0, 46.0, 35.0]
    assert row["score"] == pytest.approx(0.504, abs=1e-3)
    assert row["category"] is None
    assert "7 found = 5 images + 2 others" in notes
    assert "series: 1 found = 1 looked through + 0 left out" in notes
    assert Image.open(tmp_path / "found.png").size[0] > 800
    assert dict(Lake.open("lake").snapshot().versions) == before
    said = out + notes + filled("detect", "scan")[1]
    for secret in ("DOE", "JANE", "PATIENT1", "1.2.826"):
        assert secret not in said


def test_series_of_a_folder_that_are_not_axial_or_cannot_be_read_are_counted(filled, tmp_path):
    from pacs_files import changed

    folder = tmp_path / "scan"
    folder.mkdir()
    for number in (1, 2):
        coronal = changed(ct(number, series=2), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
        (folder / f"c{number}").write_bytes(coronal)
    code, out, notes = filled("detect", "scan", "--json", "--picture", "none.png")
    assert (code, json.loads(out)) == (0, [])
    assert "1 found = 0 looked through + 1 left out (not axial 1)" in notes
    assert "no picture" in notes
    assert not (tmp_path / "none.png").exists()


def test_mistakes_are_one_line_with_what_to_do(filled, subtests, tmp_path):
    (tmp_path / "empty").mkdir()
    publish_detector("broken", pixel_mm=None)
    for words, sentence in (
        (("detect", "absent"), "there is no such file or folder"),
        (("detect", "empty"), "there is no CT image in it"),
        (("detect", "empty", "--split", "test"), "these belong to the lake's series"),
        (("detect", "--model", "absent"), "the lake has no detector model 'absent'"),
        (("detect", "--model", "broken"), "its card does not say what it is to be shown"),
        (("detect", "--patient", "dl-9"), "the lake has no series of such a patient"),
    ):
        with subtests.test(words):
            code, out, err = filled(*words)
            assert (code, out) == (2, "")
            assert sentence in err
            assert "\n" not in err.strip()


@pytest.fixture
def embedded(filled):
    """Marks and detections with vectors, in the store."""
    publish_small(Lake.open("lake"))
    assert filled("detect")[0] == 0
    assert filled("embed", "--precision", "fp32")[0] == 0
    assert filled("embed", "--precision", "fp32", "--detections", "detector")[0] == 0
    assert filled("sync")[0] == 0
    return filled


def test_detections_are_embedded_with_counts_that_add_up(filled):
    publish_small(Lake.open("lake"))
    assert "no detection by detector-1 in it" in filled("embed", "--detections", "detector")[2]
    filled("detect")
    code, out, notes = filled("embed", "--detections", "detector-1", "--min-score", "0.4")
    assert code == 0
    assert "triplet-detections@1: 4 detections = 2 embedded + 0 that had a vector + 2 without a vector" in out
    assert "(score below 0.4 2)" in out
    assert "similar DETECTION" in notes
    summary = json.loads(filled("embed", "--detections", "detector", "--json")[1])
    assert (summary["embedded"], summary["kept"], summary["feature_set_id"]) == (2, 2, "triplet-detections@1")
    assert "nothing to do: every detection" in filled("embed", "--detections", "detector")[2]


def test_detections_and_lesions_find_each_other(embedded, tmp_path):
    mine, other = ("detector-1/dl-000001_01_01/1", "detector-1/dl-000002_01_01/1")
    # The newest set with detections is meant, unless another is named.
    code, out, notes = embedded("similar", mine, "--json")
    assert code == 0
    assert [(row["query"], row["lesion_id"], row["patient_id"]) for row in json.loads(out)] == [
        (mine, "dl-2", "dl-000002")
    ]
    assert "triplet@1" in notes
    both = json.loads(embedded("similar", mine, "--any-patient", "--feature-set", "triplet", "--json")[1])
    assert {row["lesion_id"] for row in both} == {"dl-1", "dl-2"}

    code, out, _ = embedded("similar", "dl-1", "--among", "detections", "--csv", "--picture", "found.png")
    assert code == 0
    header, first, second = out.splitlines()
    assert header == "query,rank,distance,detection_id,patient_id,study_id,category_name,long_mm,short_mm"
    assert first.split(",")[3] == other
    assert second.split(",")[3] == "detector-1/dl-000002_01_01/2"
    assert Image.open(tmp_path / "found.png").size[0] > 600
    sure = embedded("similar", "dl-1", "--among", "detections", "--where", "score > 0.4", "--json")[1]
    assert [row["detection_id"] for row in json.loads(sure)] == [other]
    assert embedded("similar", mine, "--picture", "mine.png")[0] == 0
    assert embedded("features", "describe", "triplet-detections", "--json")[0] == 0


def test_what_detections_cannot_be_asked_is_one_line(embedded, subtests):
    lake = Lake.open("lake")
    publish_small(lake, "x-detections")
    for words, sentence in (
        (
            ("similar", "dl-1", "--among", "detections", "--feature-set", "size"),
            "no vectors of detections beside size@1",
        ),
        (("similar", "detector-1/dl-000001_01_01/1", "--feature-set", "size"), "the detection has no vector beside"),
        (("similar", "detector-1/dl-000001_01_01/9"), "the store has no such lesion"),
        (("similar", "dl-1", "--feature-set", "triplet-detections"), "holds vectors of detections"),
        (("embed", "--min-score", "0.4"), "marked lesions have no scores"),
        (("embed", "--detections", "triplet"), "the lake has no detector model 'triplet'"),
        (("embed", "--model", "x-detections"), "would have the name of one with vectors of detections"),
    ):
        with subtests.test(words):
            code, out, err = embedded(*words)
            assert (code, out) == (2, "")
            assert sentence in err
            assert "\n" not in err.strip()
