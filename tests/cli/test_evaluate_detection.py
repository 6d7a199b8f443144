"""`evaluate detection` as a person runs it: over detections in a lake, and over files."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import annotation_csv, annotation_row
from PIL import Image

from lesionary.detection_tables import CATEGORIES, DETECTION_BOXES, DETECTION_SERIES, DETECTIONS, MASKS
from lesionary.lake import Lake
from lesionary.recist import FIRST_CENTERS
from lesionary.results import write_results
from lesionary.schema import LABELS
from lesionary.splits import split_of_patient


def published_row(patient, key, x, y, long_px, **more):
    """A row of a release: a lesion half as wide as it is long, at a place of its own."""
    middle, half = x + long_px / 2, long_px / 4
    ends = [x, y, x + long_px, y, middle, y - half, middle, y + half]
    box = [x - 5, y - half - 5, x + long_px + 5, y + half + 5]
    changes = {
        "File_name": f"{patient:06d}_01_01_{key:03d}.png",
        "Measurement_coordinates": ", ".join(f"{value:g}" for value in ends),
        "Bounding_boxes": ", ".join(f"{value:g}" for value in box),
        "Lesion_diameters_Pixel_": f"{long_px:g}, {long_px / 2:g}",
        "Slice_range": f"{key - key % 10}, {key - key % 10 + 9}",
        "Coarse_lesion_type": str(1 + patient % 8),
        "Train_Val_Test": str(1 + patient % 3),
        "Spacing_mm_px_": f"0.8, 0.8, {1 + 4 * (patient % 2)}",
    }
    return annotation_row(**(changes | more))


@pytest.fixture
def looked(run, tmp_path):
    """A lake of ten patients in which two detectors have looked; gives `run` and the lesions of the lake."""
    rows = []
    for patient in range(1, 11):
        rows.append(published_row(patient, 3, 40, 60, 10 + patient))
        rows.append(published_row(patient, 3, 240, 300, 30))
        rows.append(published_row(patient, 27, 140, 200, 8 + 3 * patient, Possibly_noisy=str(patient // 10)))
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "DL_info.csv").write_bytes(annotation_csv(*rows))
    assert run("ingest", "p", "--annotations-only")[0] == 0
    lake = Lake.open("lake")
    lesions = lake.read("lesions").to_pylist()
    write_found(lake, "good-1", lesions)
    # Boxes of the other are 30 px beside, and of one series in five it knows nothing.
    series = sorted({row["series_id"] for row in lesions})
    write_found(lake, "bad-1", [row for row in lesions if series.index(row["series_id"]) % 5], shift=30.0, score=0.5)
    return run, lesions


def write_found(lake, model_id, lesions, shift=0.0, score=0.9, categoriser=None, scope="all"):
    """What a detector finds that sees every lesion, at its place or beside it, on its key slice and the next one."""
    found, boxes, series = [], [], {}
    for row in lesions:
        first = FIRST_CENTERS[row["coord_convention"]]
        box = [value - first + shift for value in row["box_xyxy_px"]]
        key = row["slice_index"]
        unit = f"{model_id}/{row['series_id']}"
        name = f"{model_id}/{row['lesion_id']}"
        found.append(
            {
                "detection_id": name, "unit_id": unit, "model_id": model_id, "series_id": row["series_id"],
                "patient_id": row["patient_id"], "study_id": row["study_id"], "slice_index": key,
                "first_slice_index": key, "last_slice_index": key + 1, "slices": 2, "box_xyxy_px": box, "score": score,
                "category": 1 if categoriser else None, "category_model_id": categoriser,
            }
        )  # fmt: skip
        for at in (key, key + 1):
            one = {"unit_id": unit, "detection_id": name, "slice_index": at, "box_xyxy_px": box, "score": score}
            boxes.append(one)
        series[row["series_id"]] = {
            "unit_id": unit, "model_id": model_id, "series_id": row["series_id"], "slices": 3, "detections": 1,
            "scope": scope, "fingerprint": "f",
        }  # fmt: skip
    tables = ((DETECTION_BOXES, boxes), (DETECTIONS, found), (DETECTION_SERIES, list(series.values())))
    write_results(
        lake,
        [one["unit_id"] for one in series.values()],
        {table.name: [pa.Table.from_pylist(rows, schema=table.schema)] for table, rows in tables},
    )


def of_split(lesions, split):
    return [row for row in lesions if (row["split"] or split_of_patient(row["patient_id"])) == split]


def test_a_detector_that_saw_key_slices_only_is_not_scored_through_slices(run, looked):
    _, lesions = looked
    lake = Lake.open("lake")
    for model_id in ("good-1", "bad-1"):
        write_found(lake, model_id, lesions, scope="key_slices")

    assert run("evaluate", "detection", "--split", "all", "--json")[0] == 0
    code, _, error = run("evaluate", "detection", "--split", "all", "--protocol", "lesion-harvester")
    assert code == 2
    assert "no detector has looked through whole series here yet; run `lesionary detect` without --key-slices" in error


def test_models_stand_side_by_side_on_the_series_that_both_have_seen(looked, tmp_path):
    run, lesions = looked

    code, out, notes = run(
        "evaluate", "detection", "--model", "good", "--model", "bad-1", "--split", "all", "--noisy", "keep",
        "--resamples", 20, "--report", "r", "--picture", "f.png",
    )  # fmt: skip

    assert code == 0
    assert "# Detection: `good-1`, `bad-1`" in out
    assert "report: r/detection.json, .md and .png" in notes
    report = json.loads((tmp_path / "r" / "detection.json").read_text())
    good, bad = report["models"]
    counts = report["truth"]
    assert counts["lesions"] == len(lesions)
    series = sorted({row["series_id"] for row in lesions})
    elsewhere = sum(series.index(row["series_id"]) % 5 == 0 for row in lesions)
    assert counts["elsewhere"] == elsewhere > 0
    assert good["lesions"] == bad["lesions"] == len(lesions) - elsewhere
    assert good["froc"]["images"] == len(
        {(row["series_id"], row["slice_index"]) for row in lesions if series.index(row["series_id"]) % 5}
    )
    assert good["froc"]["strata"][0]["mean"]["value"] == good["top_one"]["strata"][0]["accuracy"]["value"] == 1.0
    assert good["average_precision"]["all"]["coco"] == 1.0
    assert good["froc"]["false_positives"] == 0
    assert bad["froc"]["strata"][0]["mean"]["value"] < 0.3
    assert good["detections_elsewhere"] == good["lesions"]
    assert {one["group"] for one in good["froc"]["strata"]} >= {"all", "size", "short axis", "slices"}
    assert report["protocol"]["noisy"] == "keep"
    assert report["padding_px"] == 5.0
    assert set(report["lake_versions"]) == {"series", "lesions", "detection_series", "detections", "detection_boxes"}
    assert f"{elsewhere} of {len(lesions)} lesions lie in series that were not looked at." in out
    assert (tmp_path / "r" / "detection.md").read_text().startswith(out.splitlines()[0])
    assert Image.open(tmp_path / "f.png").size == (1380, 600)
    assert np.asarray(Image.open(tmp_path / "r" / "detection.png").convert("L")).std() > 0


def test_a_split_is_scored_alone_and_without_names_all_models_are(looked):
    run, lesions = looked

    code, out, _ = run("evaluate", "detection", "--split", "train", "--resamples", 0, "--json")

    report = json.loads(out)
    assert code == 0
    assert [one["name"] for one in report["models"]] == ["bad-1", "good-1"]
    assert report["truth"]["lesions"] == len(of_split(lesions, "train")) < len(lesions)
    assert report["models"][1]["froc"]["strata"][0]["mean"] == {"value": 1.0, "low": None, "high": None}


def test_tracklets_are_scored_on_key_slices_of_sub_volumes(looked):
    run, lesions = looked

    code, out, _ = run(
        "evaluate", "detection", "--model", "good", "--split", "all", "--protocol", "lesion-harvester", "--noisy",
        "keep", "--json",
    )  # fmt: skip

    report = json.loads(out)
    assert code == 0
    froc = report["models"][0]["froc"]
    volumes = {(row["series_id"], row["range_first_slice"], row["range_last_slice"]) for row in lesions}
    assert (froc["images"], froc["hits"], froc["second_hits"]) == (len(volumes), len(lesions), 0)
    assert report["models"][0]["detections_elsewhere"] == 0
    code, _, error = run("evaluate", "detection", "--protocol", "lens")
    assert code == 2
    assert "nobody knows which slices the lesions reach through; run `lesionary measure` first" in error


def test_masks_say_which_slices_a_lesion_reaches_through(looked):
    run, lesions = looked
    lake = Lake.open("lake")
    measured = [row for row in lesions if row["long_px"] > 15]
    masks = [
        {
            "unit_id": f"{method}/{row['series_id']}", "method": method, "lesion_id": row["lesion_id"],
            "series_id": row["series_id"], "slice_index": row["slice_index"] + step, "left_px": 0, "top_px": 0,
            "columns": 1, "rows": 1, "runs": [0, 1],
        }
        for row in measured
        for method, steps in (("grabcut-1", (5,)), ("grabcut-2", (0, 1)))
        for step in steps
    ]  # fmt: skip
    units = {row["unit_id"] for row in masks}
    write_results(lake, units, {MASKS.name: [pa.Table.from_pylist(masks, schema=MASKS.schema)]})

    code, out, _ = run(
        "evaluate", "detection", "--model", "good", "--split", "all", "--protocol", "lens", "--overlap", "iou",
        "--noisy", "keep", "--threshold", "0.99", "--json",
    )  # fmt: skip

    report = json.loads(out)
    assert code == 0
    assert report["truth"]["without_extent"] == len(lesions) - len(measured) > 0
    assert report["models"][0]["froc"]["hits"] == len(measured)


def test_categories_come_with_the_names_that_people_gave_them(looked):
    run, lesions = looked
    lake = Lake.open("lake")
    write_found(lake, "many-1", lesions, categoriser="cat-1")
    labels = [
        {
            "model_id": "cat-1", "lesion_id": row["lesion_id"], "round": turn, "label": str(at % 2 if turn else 0),
            "score": 1.0,
        }
        for at, row in enumerate(lesions)
        for turn in (0, 1)
    ]  # fmt: skip
    names = [
        {"model_id": "cat-1", "category": at, "name": name, "lesions": 1, "created_at": 0}
        for at, name in enumerate((None, "lung"))
    ]
    tables = {LABELS: labels, CATEGORIES: names}
    write_results(
        lake,
        "cat-1",
        {table.name: [pa.Table.from_pylist(rows, schema=table.schema)] for table, rows in tables.items()},
    )

    code, out, _ = run("evaluate", "detection", "--model", "many", "--split", "all", "--noisy", "keep")

    assert code == 0
    assert "| category 0 |" in out
    assert "| category: lung |" in out
    assert "| lung | " in out
    code, out, _ = run("evaluate", "detection", "--model", "many", "--split", "all", "--noisy", "keep", "--json")
    precision = json.loads(out)["models"][0]["average_precision"]
    # Every detection says category 1, which is right for every other lesion.
    assert [one["at_threshold"]["value"] for one in precision["categories"]] == [0.0, pytest.approx(0.5, abs=0.1)]


def test_lesions_that_nobody_marked_count_as_asked(looked, tmp_path):
    run, lesions = looked
    key = next(row for row in lesions if not row["possibly_noisy"])
    unmarked = [
        {"series": key["series_id"].removeprefix("dl-"), "slice_index": at, "type": "liver", "points": points}
        for at, points in (
            (key["slice_index"], [41, 41, 51, 41, 46, 38, 46, 44]),
            (999, [1, 1, 9, 1, 5, 1, 5, 9]),
        )
    ]
    (tmp_path / "full.json").write_text(json.dumps({"unmarked": unmarked}))
    asked = ("evaluate", "detection", "--model", "good", "--split", "all", "--full-truth", "full.json", "--json")

    as_region, as_truth = (json.loads(run(*asked, "--unmarked", kind)[1]) for kind in ("ignore", "truth"))

    for report in (as_region, as_truth):
        assert (report["truth"]["unmarked"], report["truth"]["unmarked_elsewhere"]) == (1, 1)
    assert as_region["models"][0]["regions"] == 1
    assert as_truth["models"][0]["lesions"] == as_region["models"][0]["lesions"] + 1
    assert as_truth["models"][0]["froc"]["strata"][0]["sensitivities"][0]["value"] < 1.0


def test_a_condition_leaves_other_lesions_of_the_same_slices_as_regions(looked):
    run, lesions = looked
    assert run("sync")[0] == 0
    wanted = [row["lesion_id"] for row in lesions if row["long_mm"] and row["long_mm"] > 15]

    code, out, _ = run(
        "evaluate", "detection", "--model", "good", "--split", "all", "--noisy", "keep", "--where", "long_mm > 15",
        "--json",
    )  # fmt: skip

    report = json.loads(out)
    assert code == 0
    assert report["where"] == "long_mm > 15"
    assert report["models"][0]["lesions"] == len(wanted) < len(lesions)
    assert report["models"][0]["froc"]["false_positives"] == 0
    assert report["models"][0]["froc"]["strata"][0]["mean"]["value"] == 1.0


def test_mistakes_in_a_lake_are_one_line_with_what_to_do(looked, subtests, tmp_path):
    run, _ = looked
    (tmp_path / "no.json").write_text("{}")
    for words, sentence in (
        (("--model", "gone"), "--model: 'gone' has looked at nothing here; models that have: bad-1, good-1"),
        (("--split", "half"), "--split: a split is train, val, test or all"),
        (("--full-truth", "no.json"), "--full-truth: this is not the truth file of a phantom (KeyError)"),
        (("--truth", "no.json"), "--truth: a truth goes with files of detections; add --detections FILE"),
        (("--detections", "no.json", "--model", "x"), "--model: this is asked of a lake, --detections names files"),
        (("--protocol", "mine"), "--protocol: there is no protocol 'mine'; one of lesionary, 3dce"),
        (("--threshold", "0"), "--threshold: an overlap's threshold lies above 0"),
        (("--rates", "2,1"), "--rates: rates of false positives are positive and ascend"),
        (("--size-edges", "30,10", "--split", "all"), "edges of sizes are positive and ascend"),
        (("--where", "1 = 1", "--full-truth", "no.json", "--unmarked", "truth"), "nobody can ask lesions"),
        (("--where", "nonsense = 1", "--split", "all"), "features.duckdb"),
    ):
        with subtests.test(words):
            code, out, error = run("evaluate", "detection", *words)
            assert code == 2
            assert out == ""
            assert sentence in error
            assert "\n" not in error.strip()


def test_a_lake_in_which_nobody_looked_says_so(run, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "DL_info.csv").write_bytes(annotation_csv(annotation_row()))
    assert run("ingest", "p", "--annotations-only")[0] == 0

    code, out, error = run("evaluate", "detection")

    assert (code, out) == (2, "")
    assert "no detector has looked at anything here yet; run `lesionary detect` first" in error


def test_files_are_scored_without_a_lake(run, tmp_path):
    held = {
        "format": "lesionary-detections-1",
        "images": [{"image": "a"}, {"image": "b"}],
        "lesions": [{"image": "a", "box": [0, 0, 9, 9], "type": "liver"}, {"image": "b", "box": [0, 0, 9, 9]}],
        "detections": [{"image": "a", "box": [0, 0, 9, 9], "score": 0.5}],
    }
    (tmp_path / "one.json").write_text(json.dumps(held))
    (tmp_path / "two.json").write_text(json.dumps(held | {"detections": []}))

    code, out, _ = run(
        "evaluate", "detection", "--detections", "one.json", "--detections", "two.json", "--resamples", 0,
        "--picture", "f.png",
    )  # fmt: skip

    assert code == 0
    assert "one.json, two.json: 2 lesions on 2 images of 2 patients." in out
    assert "| one | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 | 50.00 |" in out
    assert "| two | 0.00 | 0.00 |" in out
    assert "| type: liver | 1 | 100.00 |" in out
    assert Image.open(tmp_path / "f.png").size == (1380, 600)
    (tmp_path / "one.json").write_text("[")
    assert run("evaluate", "detection", "--detections", "one.json")[2] == "one.json: this is no JSON (JSONDecodeError)"


def test_the_example_of_the_docs_is_what_the_command_says(run, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "detection-scores.md").read_text()
    (held,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "example.json").write_text(held)

    code, out, _ = run(
        "evaluate", "detection", "--detections", "example.json", "--rates", "0.25,0.5,1", "--resamples", 0
    )  # fmt: skip

    assert code == 0
    assert f"```text\n{out.strip()}\n```" in page
