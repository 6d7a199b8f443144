"""`measure`, `evaluate masks` and what the store says of masks, as a person uses them."""

import json

import pyarrow as pa
import pytest
from PIL import Image

from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.schema import RESULT_TABLES


@pytest.fixture
def phantom(run):
    """A lake of a small phantom."""
    release = ("phantom", "release", "p", "--patients", 3, "--image-size", 128, "--seed", 3)
    assert run(*release, "--max-slices-per-series", 9, "--workers", 1)[0] == 0
    assert run("ingest", "p")[0] == 0
    return run


def test_lesions_are_measured_scored_drawn_and_asked_for(phantom, tmp_path):
    code, out, notes = phantom("measure", "--workers", 1, "--json")
    assert code == 0
    done = json.loads(out)
    assert done["lesions_masked"] > 5
    assert done["lesions_found"] == done["lesions_masked"] + sum(done["lesions_left_out"].values())
    code, out, notes = phantom("measure")
    assert f"{done['lesions_found']} found = 0 masked + {done['lesions_masked']} masked before" in out
    assert "nothing to do" in notes

    words = ("evaluate", "masks", "--truth", "p/truth_masks.json")
    code, out, notes = phantom(*words, "--report", "r", "--picture", "m.png")
    assert code == 0
    assert "# Masks by `contrast-1`" in out
    assert "report: r/masks.json, .md and .png" in notes
    report = json.loads((tmp_path / "r" / "masks.json").read_text())
    assert report["scores"]["lesions"] == done["lesions_masked"]
    assert report["scores"]["dice_2d_mean"] > 0.8
    assert report["scores"]["dice_3d_mean"] > 0.7
    assert sum(group["lesions"] for group in report["by_type"].values()) == report["scores"]["lesions"]
    assert sum(group["lesions"] for group in report["by_size"].values()) == report["scores"]["lesions"]
    assert json.loads(phantom(*words, "--json")[1]) == report
    assert Image.open(tmp_path / "m.png").size == Image.open(tmp_path / "r" / "masks.png").size

    code, _, notes = phantom("measure", "dl-1", "--picture", "dl-1.png")
    assert code == 0
    assert "picture: dl-1.png" in notes
    assert min(Image.open(tmp_path / "dl-1.png").size) > 320

    assert phantom("sync")[0] == 0
    question = (
        "SELECT count(*) AS lesions, count(mask_volume_mm3) AS volumes, "
        "max(abs(mask_long_mm - long_mm)) < 8 AS near FROM lesion_measurements"
    )
    (row,) = json.loads(phantom("sql", question, "--json")[1])
    assert row == {"lesions": done["lesions_found"], "volumes": done["with_volume"], "near": True}


def test_a_condition_chooses_series(phantom):
    assert phantom("sync")[0] == 0
    code, out, _ = phantom("measure", "--where", "lesion_id = 'dl-1'", "--json")

    assert code == 0
    series = {row["series_id"] for row in Lake.open("lake").read("masked_lesions").to_pylist()}
    assert len(series) == json.loads(out)["series_due"] == 1


def test_detections_get_sizes_that_the_store_knows(phantom):
    lake = Lake.open("lake")
    lesion = lake.read("lesions").sort_by("long_mm").to_pylist()[-1]
    unit = f"det-1/{lesion['series_id']}"
    detection = {name: lesion[name] for name in ("series_id", "patient_id", "study_id", "slice_index")} | {
        "detection_id": "d-1", "unit_id": unit, "model_id": "det-1", "first_slice_index": lesion["slice_index"],
        "last_slice_index": lesion["slice_index"], "slices": 1, "score": 0.8,
        "box_xyxy_px": [value - 1 for value in lesion["box_xyxy_px"]],
    }  # fmt: skip
    looked = {
        "unit_id": unit, "model_id": "det-1", "series_id": lesion["series_id"], "slices": 9, "detections": 1,
        "scope": "all",
        "fingerprint": "f",
    }  # fmt: skip
    rows = {"detections": detection, "detection_series": looked}
    write_results(
        lake,
        unit,
        {name: [pa.Table.from_pylist([row], schema=RESULT_TABLES[name].schema)] for name, row in rows.items()},
    )
    assert phantom("measure", "--detections", "det-1")[0] == 0
    assert phantom("sync")[0] == 0
    (row,) = json.loads(phantom("sql", "SELECT long_mm, short_mm, volume_mm3 FROM detection_features", "--json")[1])

    assert row["long_mm"] == pytest.approx(lesion["long_mm"], rel=0.4)
    assert row["volume_mm3"] > 0


def test_mistakes_are_one_line_with_what_to_do(phantom, subtests, tmp_path):
    (tmp_path / "no.json").write_text("{}")
    for words, sentence in (
        (("measure", "dl-1"), "a picture shows one lesion"),
        (("measure", "--picture", "x.png"), "a picture shows one lesion"),
        (("measure", "dl-1", "--picture", "x.png"), "no lesion of this name has been measured"),
        (("measure", "--lesions", "--detections", "m"), "one kind at a time"),
        (("measure", "--detections", "m", "--where", "true"), "conditions are about marked lesions"),
        (("measure", "--detections", "det-9"), "the lake has no detector model 'det-9'"),
        (("evaluate", "masks", "--truth", "no.json"), "these are no true masks (KeyError)"),
        (("evaluate", "masks", "--truth", "p/truth_masks.json"), "the truth knows none of the lesions"),
    ):
        with subtests.test(words=words):
            code, _, error = phantom(*words)
            assert code == 2
            assert sentence in error
