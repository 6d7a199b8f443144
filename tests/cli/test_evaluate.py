"""`evaluate` as a person runs it: on the published rows, against the public pairs, against the phantom's truth."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image


@pytest.fixture
def published(run, official_test_rows):
    """The official test rows in a store."""
    run("ingest", official_test_rows, "--annotations-only")
    run("sync")
    return run, official_test_rows


def test_location_comes_near_the_papers_location_baseline(published):
    run, _ = published

    code, out, _ = run("evaluate", "retrieval", "--feature-set", "location", "--repeats", 1, "--json")

    report = json.loads(out)
    assert code == 0
    assert report["lesions"] == 4927
    assert report["allowed"]["type_percent"]["mean"] == pytest.approx(22.4, abs=1.0)
    assert report["allowed"]["location_percent"]["mean"] == pytest.approx(2.5, abs=0.3)
    # Without the patient's own lesions there is less to find.
    assert report["excluded"]["type_percent"]["mean"] > report["allowed"]["type_percent"]["mean"]
    assert report["lineage"]["feature_set"] == "location@1"
    assert report["lineage"]["lake_versions"]["lesions"] == 1


def test_public_pairs_give_scores_a_sweep_and_an_area(published, tmp_path):
    run, rows = published

    code, out, notes = run(
        "evaluate", "matching", "--truth", rows.with_name("tracking_pairs_test.json"), "--report", "out"
    )

    assert code == 0
    assert "760 lesions in 280 groups of 105 patients; 4,919 same-patient pairs, 879 of them positive" in out
    assert "| chosen | 0.03 | 0.07 | 0.684 | 0.912 | 0.782 | 802 | 371 | 77 |" in out
    report = json.loads((tmp_path / "out" / "matching.json").read_text())
    assert 0.70 < report["sweep"]["auc"] < 0.74
    assert len(report["sweep"]["points"]) > 30
    assert (tmp_path / "out" / "matching.md").read_text().startswith(out.splitlines()[0])
    assert Image.open(tmp_path / "out" / "matching.png").size == (1260, 552)
    assert "report: out/matching.json, .md and .png" in notes


@pytest.fixture
def phantom(run):
    """A phantom release in a store, small in every way."""
    assert run("phantom", "release", "p", "--patients", 8, "--image-size", 64, "--max-slices-per-series", 3)[0] == 0
    assert run("ingest", "p/DL_info.csv", "--annotations-only")[0] == 0
    assert run("sync")[0] == 0
    return run


def test_a_phantom_is_matched_as_its_truth_says(phantom):
    code, out, _ = phantom("evaluate", "matching", "--truth", "p/truth.csv", "--json", "--sweep", "0.01,0.07,0.3")

    report = json.loads(out)
    assert code == 0
    assert report["truth"]["kind"] == "phantom truth"
    assert report["truth"]["unresolved"] == 0
    assert report["scores"]["recall"] > 0.9
    assert [point["t2"] for point in report["sweep"]["points"]] == [0.01, 0.07, 0.3]
    recalls = [point["scores"]["recall"] for point in report["sweep"]["points"]]
    assert recalls[0] < recalls[1]


def test_both_patient_modes_and_the_normaliser_are_always_printed(phantom, tmp_path):
    code, out, notes = phantom(
        "evaluate", "retrieval", "--feature-set", "size", "--size-normaliser-mm", 50, "--top", 3, "--picture", "r.png"
    )

    assert code == 0
    assert "| allowed |" in out
    assert "| excluded |" in out
    assert "first 3 hits" in out
    assert "Sizes are divided by 50 mm." in out
    assert "Made by lesionary" in out
    assert notes.strip().endswith("picture: r.png")
    assert Image.open(tmp_path / "r.png").size == (1500, 648)


def test_a_condition_leaves_lesions_out_as_queries_and_as_hits(phantom):
    every = json.loads(phantom("evaluate", "retrieval", "--json", "--repeats", 1)[1])
    some = json.loads(phantom("evaluate", "retrieval", "--json", "--repeats", 1, "--where", "study_index = 1")[1])

    assert 2 < some["lesions"] < every["lesions"]
    assert some["allowed"]["queries"] == some["lesions"]


def test_mistakes_are_one_line_with_what_to_do(phantom, subtests):
    for arguments, sentence in (
        (["matching", "--truth", "nowhere.csv"], "there is no such file"),
        (["matching", "--truth", "p/DL_info.csv"], "it is no truth that can be read"),
        (["matching", "--truth", "p/truth.csv", "--sweep", "0.1,far"], "--sweep: numbers separated by commas"),
        (["matching", "--truth", "p/truth.csv", "--sweep=-1"], "--sweep: a distance cannot be negative"),
        (["matching", "--truth", "p/truth.csv", "--feature-set", "triplet"], "the store has no such feature set"),
        (["retrieval", "--where", "long_mm > 1e6"], "--where: no lesion is left"),
        (["retrieval", "--where", "lesion_id = 'dl-1'"], "lesions with features are too few to rank: 1"),
    ):
        with subtests.test(arguments):
            code, out, error = phantom("evaluate", *arguments)

            assert code == 2
            assert sentence in error
            assert "\n" not in error
            assert out == ""


def test_files_are_written_even_when_nobody_reads_on(phantom, tmp_path):
    command = [sys.executable, "-c", "from cli.main import main; main()", "evaluate", "retrieval", "--report", "out"]
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        subprocess.run(command, stdout=closed, stderr=subprocess.DEVNULL, check=False, cwd=tmp_path)

    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "retrieval.json", "retrieval.md", "retrieval.png",
    ]  # fmt: skip
