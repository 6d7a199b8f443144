"""From whole scans to lesions with a height: `train ssbr`, `locate`, `evaluate ssbr`, as a person runs them."""

import json

import pytest
from PIL import Image

from lesionary.lake import Lake


@pytest.fixture
def scans(run):
    """A lake of whole phantom scans and marked lesions, small in every way."""
    release = ("phantom", "release", "p", "--patients", 4, "--volumes", 8, "--image-size", 64, "--seed", 3)
    assert run(*release, "--max-slices-per-series", 3)[0] == 0
    assert run("ingest", "p")[0] == 0
    return run


def test_a_regressor_places_lesions_and_is_scored_against_the_truth(scans, tmp_path):
    trained = scans("train", "ssbr", "--preset", "smoke", "--steps", 12, "--threads", 1, "--json")
    assert trained[0] == 0
    assert json.loads(trained[1])["model_id"] == "ssbr-1"

    code, out, _ = scans("locate", "--json")
    assert code == 0
    located = json.loads(out)
    assert located["series_found"] == located["series_scored"] + sum(located["series_left_out"].values())
    assert located["lesions_found"] == located["lesions_placed"] + sum(located["lesions_left_out"].values())
    assert located["slices_scored"] > 500
    assert "scored every series before" in scans("locate")[2]

    places = Lake.open("lake").read("locations")
    assert places.num_rows == located["lesions_placed"] > 0
    assert set(places["model_id"].to_pylist()) == {"ssbr-1"}

    code, out, notes = scans("evaluate", "ssbr", "--split", "all", "--truth", "p/truth.json", "--report", "r")
    assert code == 0
    assert "# Body-part regression by `ssbr-1`" in out
    assert "report: r/ssbr.json, .md and .png" in notes
    report = json.loads((tmp_path / "r" / "ssbr.json").read_text())
    assert report["order"]["volumes"] >= 8
    assert 1 / 3 < report["body_parts"]["accuracy"] <= 1
    assert sum(map(sum, report["body_parts"]["confusion"])) == report["body_parts"]["slices"]
    assert "chosen on the same slices" in out
    assert report["lake_versions"]["slice_heights"] == 1
    assert Image.open(tmp_path / "r" / "ssbr.png").size == (1380, 600)
    assert scans("evaluate", "ssbr", "--split", "all", "--picture", "h.png")[0] == 0
    assert Image.open(tmp_path / "h.png").size == (1380, 600)
    wrong = scans("evaluate", "ssbr", "--split", "all", "--truth", "p/truth.json", "--namespace", "x")
    assert wrong[0] == 2
    assert "the truth knows none of these series" in wrong[2]


def test_mistakes_are_one_line_with_what_to_do(scans, subtests, tmp_path):
    (tmp_path / "no.json").write_text("{}")
    for words, sentence in (
        (("locate",), "the lake has no ssbr model yet"),
        (("evaluate", "ssbr"), "the lake has no ssbr model yet"),
        (("evaluate", "ssbr", "--split", "half"), "a split is train, val, test or all"),
        (("evaluate", "ssbr", "--truth", "no.json"), "this is not the truth file of a phantom"),
        (("evaluate", "ssbr", "--truth", "gone.json"), "the truth cannot be read"),
    ):
        with subtests.test(words):
            code, out, err = scans(*words)
            assert code == 2
            assert out == ""
            assert sentence in err
            assert "\n" not in err.strip()
