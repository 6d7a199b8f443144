"""`response` as a person runs it."""

import csv
import io
import json

import pytest
from conftest import annotation_csv, annotation_row


def row(study, x, long_px):
    half = long_px / 2
    ends = f"{x - half}, 300, {x + half}, 300, {x}, 297, {x}, 303"
    return annotation_row(
        File_name=f"000001_{study:02d}_01_003.png", Measurement_coordinates=ends,
        Bounding_boxes=f"{x - half - 5}, 292, {x + half + 5}, 308", Lesion_diameters_Pixel_=f"{long_px}, 6",
        Normalized_lesion_location=f"{x / 512}, 0.5, 0.6", Spacing_mm_px_="1, 1, 5",
    )  # fmt: skip


@pytest.fixture
def followed(run, tmp_path):
    """One patient, two lesions, three studies: 50 mm, 34 mm, 46 mm."""
    sizes = {1: (30, 20), 2: (20, 14), 3: (30, 16)}
    rows = [
        row(study, x, long_px) for study, pair in sizes.items() for x, long_px in zip((100, 400), pair, strict=True)
    ]
    (tmp_path / "DL_info.csv").write_bytes(annotation_csv(*rows))
    assert run("ingest", "DL_info.csv", "--annotations-only")[0] == 0
    assert run("sync")[0] == 0
    return run


def test_a_course_is_printed_with_its_targets_and_what_it_cannot_know(followed):
    code, out, _ = followed("response", "dl-000001")

    assert code == 0
    assert out.startswith("dl-000001: baseline study 1, 2 targets, best response PR (unconfirmed)")
    assert "sum 32 % below the baseline of 50 mm" in out
    assert "sum 35.29 % above the nadir of 34 mm (12 mm)" in out
    for limit in ("Non-target disease is not assessed", "clinical context is unknown", "may still be there"):
        assert limit in out


def test_csv_and_json_hold_the_same_course(followed):
    rows = list(csv.DictReader(io.StringIO(followed("response", "dl-000001", "--csv")[1])))
    report = json.loads(followed("response", "dl-000001", "--json")[1])

    assert [one["response"] for one in rows] == ["baseline", "PR", "PD"]
    assert [float(one["sum_mm"]) for one in rows] == [50.0, 34.0, 46.0]
    assert [one["response"] for one in report["assessments"]] == ["baseline", "PR", "PD"]
    assert [target["group"] for target in report["targets"]] == ["dl-000001.g1", "dl-000001.g2"]
    assert report["lineage"]["feature_set"] == "location@1"
    assert report["rules"]["absent"] == "unknown"


def test_options_change_the_course(followed):
    later = json.loads(followed("response", "dl-000001", "--baseline", 2, "--json")[1])
    one_target = json.loads(followed("response", "dl-000001", "--max-targets", 1, "--json")[1])
    as_nodes = json.loads(followed("response", "dl-000001", "--nodes", "long_mm > 0", "--json")[1])

    assert [one["sum_mm"] for one in later["assessments"]] == [34.0, 46.0]
    assert [one["sum_mm"] for one in one_target["assessments"]] == [30.0, 20.0, 30.0]
    assert as_nodes["targets"] == []
    assert {one["reason"] for one in as_nodes["not_chosen"]} == {"normal_node"}


def test_a_chart_is_drawn(followed, tmp_path):
    code, _, notes = followed("response", "dl-000001", "--chart", "c.png")

    assert (code, notes.strip()) == (0, "chart: c.png")
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dl-9"], "patient: the store has no lesion of such a patient; names look like dl-000001"),
        (["dl-000001", "--baseline", "7"], "no study 7 to take as the baseline; take one of 1, 2, 3"),
        (["dl-000001", "--nodes", "sex"], "--nodes: a condition is true or false"),
        (["dl-000001", "--json", "--csv"], "--json, --csv: an answer has one form; choose one"),
        (["dl-000001", "--where", "long_mm > 99"], "--where: no lesion is left"),
    ],
)
def test_mistakes_are_one_line_with_what_to_do(followed, arguments, sentence):
    code, _, error = followed("response", *arguments)

    assert code == 2
    assert sentence in error
    assert "\n" not in error
