"""`similar --picture` and `match --picture --growth-chart` from a small lake with images, and what they refuse."""

import json
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import annotation_row, write_release
from PIL import Image
from typer.testing import CliRunner

from cli.figures import gallery
from cli.figures.growth import GrowthLine
from cli.figures.lesion_images import shown_window
from cli.main import app
from lesionary.errors import LesionaryError
from store.match_runs import Mark, MatchedRow
from store.matching import Thresholds

MISSING = "000002_01_01_003.png"


def run(*arguments):
    result = CliRunner().invoke(app, [str(one) for one in arguments])
    if isinstance(result.exception, LesionaryError):
        return result.exception.exit_code, result.stdout, str(result.exception)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in ("LESIONARY_LAKE", "LESIONARY_STORE", "LESIONARY_FEATURE_SET", "LESIONARY_QUIET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A patient with three studies, the second mark of the last one new, and two others, one of them without image."""
    folder = tmp_path_factory.mktemp("pictures")
    rows = [
        annotation_row(),
        annotation_row(File_name="000001_02_01_003.png", Patient_age="62.0"),
        annotation_row(File_name="000001_03_01_003.png", Patient_age="63.0"),
        annotation_row(
            File_name="000001_03_01_003.png", Normalized_lesion_location="0.9, 0.1, 0.2", Coarse_lesion_type="4"
        ),
        annotation_row(File_name=MISSING),
        annotation_row(File_name="000003_01_01_003.png", Coarse_lesion_type="-1"),
    ]
    series = {name: [3] for name in ("000001_01_01", "000001_02_01", "000001_03_01", "000003_01_01")}
    write_release(folder / "release", series, rows)
    assert run("ingest", folder / "release", "--lake", folder / "lake", "--workers", 1)[0] == 0
    assert run("sync", "--lake", folder / "lake")[0] == 0
    return folder / "lake"


@pytest.fixture
def sheets(monkeypatch):
    """What the commands draw, with every text."""
    from cli.figures import longitudinal, retrieval

    drawn = []

    def keep(lay_out):
        def draw(*arguments):
            drawn.append(lay_out(*arguments))
            return drawn[-1].image

        return draw

    monkeypatch.setattr(gallery, "draw_retrieval", keep(retrieval.lay_out_retrieval))
    monkeypatch.setattr(gallery, "draw_longitudinal", keep(longitudinal.lay_out_longitudinal))
    return drawn


def test_similar_draws_what_it_prints(lake, tmp_path, sheets):
    code, out, notes = run(
        "similar", "dl-1", "dl-5", "-k", 4, "--json", "--lake", lake, "--picture", tmp_path / "a.png"
    )

    assert (code, notes) == (0, f"picture: {tmp_path / 'a.png'}\n")
    picture = Image.open(tmp_path / "a.png")
    assert picture.format == "PNG"
    assert (picture.width, picture.height) > (600, 600)
    said = Counter(text.text for text in sheets[0].texts)
    hits = json.loads(out)
    assert len(hits) > 3
    for hit in hits:
        assert said[hit["lesion_id"]] >= 1
        assert f"d {hit['distance']:.3f}" in said
    assert said["no image"] == 1 + sum(hit["lesion_id"] == "dl-5" for hit in hits)
    assert said["16.0 × 8.0 mm"] == 2 + len(hits)


def test_similar_draws_a_vector(lake, tmp_path, sheets):
    arguments = ("similar", "--vector", "0.4,0.5,0.6", "--feature-set", "location", "-k", 2, "--lake", lake)

    assert run(*arguments, "--picture", tmp_path / "a.png")[0] == 0
    assert {"vector", "3 numbers", "0.4, 0.5, 0.6"} <= {text.text for text in sheets[0].texts}


def test_match_draws_what_it_prints(lake, tmp_path, sheets):
    files = tmp_path / "m.png", tmp_path / "g.png"
    code, out, notes = run(
        "match", "dl-000001", "--json", "--lake", lake, "--picture", files[0], "--growth-chart", files[1]
    )

    assert code == 0
    assert notes == f"picture: {files[0]}\ngrowth chart: {files[1]}\n"
    for file in files:
        picture = Image.open(file)
        assert picture.format == "PNG"
        assert picture.width > 600
        assert 300 < picture.height < 1500
        assert np.asarray(picture.convert("L")).std() > 5
    answer = json.loads(out)
    assert answer["states"] == {"baseline": 1, "new": 1, "persistent": 2}
    said = Counter(text.text for text in sheets[0].texts)
    assert all(said[row["lesion_id"]] == 1 for row in answer["rows"])
    # Each state once more in the legend.
    assert {state: said[state] - 1 for state in answer["states"]} == answer["states"]
    assert {"lesion 1", "lesion 2", "study 1", "study 2", "study 3", "age 61", "age 62", "age 63"} <= set(said)
    assert not [text for text in said if text.startswith("day ")]


def test_the_same_question_draws_the_same_bytes(lake, tmp_path):
    for name in ("a", "b"):
        run("match", "dl-000001", "--lake", lake, "--picture", tmp_path / f"{name}.png")
        run("match", "dl-000001", "--lake", lake, "--growth-chart", tmp_path / f"{name}g.png")
        run("similar", "dl-1", "--lake", lake, "--picture", tmp_path / f"{name}s.png")

    for kind in ("", "g", "s"):
        assert (tmp_path / f"a{kind}.png").read_bytes() == (tmp_path / f"b{kind}.png").read_bytes()


def test_a_patient_without_images_is_drawn_in_grey(lake, tmp_path, sheets):
    assert run("match", "dl-000002", "--lake", lake, "--picture", tmp_path / "a.png")[0] == 0
    assert "no image" in {text.text for text in sheets[0].texts}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["match", "--all", "--picture", "a.png"], "pictures show one patient"),
        (["match", "--all", "--growth-chart", "a.png"], "pictures show one patient"),
        (["match", "dl-000099", "--picture", "a.png"], "no lesion of such a patient"),
        (["similar", "dl-1", "-k", "21", "--picture", "a.png"], "a picture holds 10 lesions with 20 hits each"),
        (["similar", *["dl-1"] * 11, "--picture", "a.png"], "a picture holds 10 lesions"),
        (["similar", "dl-99", "--picture", "a.png"], "dl-99"),
    ],
)
def test_refusals_leave_no_file(lake, tmp_path, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(*arguments, "--lake", lake)

    assert code == 2
    assert sentence in error
    assert not list(tmp_path.iterdir())


def found_with(*marks):
    """A run of match with one lesion: (study, day, type, long_mm) of each mark."""
    rows = [
        MatchedRow(
            "t-p1", f"t-p1_{study}", study, day, "t-p1.g1", "persistent", None,
            Mark(f"t-{number}", "t-p1", f"t-p1_{study}", study, study, day, lesion_type, long_mm, None),
        )
        for number, (study, day, lesion_type, long_mm) in enumerate(marks)
    ]  # fmt: skip

    class Found:
        feature_set = SimpleNamespace(feature_set_id="location@1")
        thresholds = Thresholds(0.03, 0.07)

        def rows(self):
            return iter([*rows, MatchedRow("t-p1", "t-p1_9", 9, 90, "t-p1.g1", "vanished", None, None)])

    return Found()


@pytest.mark.parametrize(
    ("day", "when", "gone", "axis"),
    [(20, [10, 20], 90, "days since the patient's first study"), (None, [1, 2], 9, "study (not every day is known)")],
)
def test_growth_takes_the_largest_mark_of_a_study(tmp_path, monkeypatch, day, when, gone, axis):
    given = []
    monkeypatch.setattr(gallery, "growth_chart", lambda *arguments: given.append(arguments) or b"x")
    found = found_with((1, 10, None, 12.0), (1, 10, "lung", 15.0), (1, 10, "liver", 9.0), (2, day, None, 20.0))
    gallery.write_growth(found, tmp_path / "a.png")

    title = "t-p1: 1 lesion in 3 studies, matched by location@1 (T1 0.03, T2 0.07)"
    assert given == [([GrowthLine("lesion 1, lung", when, [15.0, 20.0], gone)], title, axis)]


def test_a_growth_chart_without_any_diameter_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(LesionaryError, match="no lesion of t-p1 has a long diameter"):
        gallery.write_growth(found_with((1, 10, "lung", None)), tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize(("inside", "window"), [(-850, (-1350, 150)), (40, (-175, 275)), (900, (-175, 275))])
def test_lesions_darker_than_their_window_are_shown_in_that_of_lungs(inside, window):
    hu = np.full((50, 50), 0, np.int16)
    hu[10:20, 10:20] = inside

    assert shown_window(hu, (10, 10, 19, 19), (-175, 275)) == window
    assert shown_window(hu, (90, 90, 99, 99), (-9, 9)) == (-9, 9)
