"""`lesionary map`: pictures and coordinates of many lesions, and what it refuses."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from small_stores import make_store

TYPES = ("lung", "liver", "bone", None)


@pytest.fixture
def lesions(run, tmp_path):
    """Forty lesions in four groups; one without a place, one without a size."""
    rows = [
        {
            "lesion_id": f"t-{at:02d}",
            "patient_id": f"p{at % 12}",
            "series_id": f"s{at}",
            "lesion_type": TYPES[at % 4],
            "split": ("train", "val", "test", None)[at // 10],
            "release_z": None if at == 7 else 0.2 * (at % 4) + 0.01 * at,
            "long_mm": None if at == 9 else 5.0 + at,
        }
        for at in range(40)
    ]
    vectors = {row["lesion_id"]: np.eye(6)[at % 4] + 0.01 * np.sin(at * np.arange(6)) for at, row in enumerate(rows)}
    make_store(tmp_path / "s.duckdb", rows, {"mine": vectors})
    return lambda *arguments: run(*arguments, "--store", "s.duckdb")


def test_a_map_is_a_picture_and_a_summary(lesions, tmp_path):
    code, out, notes = lesions("map", "--feature-set", "mine", "--picture", "m.png")

    assert code == 0
    assert "mine@1" in out
    assert "perplexity" in out
    assert notes.strip() == "picture: m.png"
    assert Image.open(tmp_path / "m.png").size == (1608, 720)


def test_coordinates_are_the_same_every_time_and_every_value_has_its_column(lesions):
    first = lesions("map", "--feature-set", "mine", "--seed", 4, "--csv")[1]
    again = lesions("map", "--feature-set", "mine", "--seed", 4, "--csv")[1]
    report = json.loads(lesions("map", "--feature-set", "mine", "--seed", 4, "--json")[1])

    assert first == again
    rows = list(csv.DictReader(io.StringIO(first)))
    assert len(rows) == 40
    assert [float(row["map_x"]) for row in rows] == [row["map_x"] for row in report["rows"]]
    assert (rows[7]["lesion_id"], rows[7]["location_z"]) == ("t-07", "")
    assert report["rows"][9]["long_mm"] is None
    assert report["rows"][3]["lesion_type"] is None
    assert (report["seed"], report["method"], report["perplexity"]) == (4, "tsne", 13.0)


def test_every_meaning_of_colour_is_drawn(lesions, tmp_path):
    colours = [word for name in ("patient", "split", "size", "location", "type") for word in ("--color", name)]

    code, _, _ = lesions("map", "--feature-set", "mine", "--method", "pca", *colours, "--picture", "m.png")

    assert code == 0
    assert Image.open(tmp_path / "m.png").width > 3000


def test_a_body_is_drawn_from_lesions_with_a_place(lesions, tmp_path):
    code, out, _ = lesions("map", "--body", "--picture", "b.png", "--color", "size")
    report = json.loads(lesions("map", "--body", "--json")[1])

    assert code == 0
    assert "left_out_without_place  1" in out
    assert np.asarray(Image.open(tmp_path / "b.png").convert("L")).std() > 0
    assert report["lesions"] == 39
    first = report["rows"][0]
    assert (first["map_x"], first["map_y"]) == (first["location_x"], first["location_z"])


def test_of_too_many_lesions_some_are_drawn_and_it_is_said(lesions):
    report = json.loads(lesions("map", "--feature-set", "mine", "--method", "pca", "--most", 10, "--json")[1])

    assert (report["lesions"], report["left_out_by_lot"], len(report["rows"])) == (10, 30, 10)


def test_sets_of_few_and_of_one_kind_are_drawn(lesions, tmp_path):
    for where in ("lesion_id IN ('t-07', 't-11')", "lesion_type IS NULL AND split IS NULL"):
        code, _, _ = lesions(
            "map", "--feature-set", "mine", "--method", "pca", "--where", where, "--picture", "m.png",
            "--color", "type", "--color", "location", "--color", "size", "--color", "patient",
        )  # fmt: skip

        assert code == 0


def test_mistakes_are_one_line_with_what_to_do(lesions, subtests):
    for arguments, sentence in (
        ([], "map: a map is a picture, or coordinates; add --picture FILE.png, --csv or --json"),
        (["--csv", "--json"], "an answer has one form"),
        (["--feature-set", "none", "--csv"], "the store has no such feature set"),
        (["--body", "--color", "type", "--color", "size", "--csv"], "a body has one meaning of colour"),
        (["--method", "pca", "--perplexity", "5", "--csv"], "only t-SNE has a perplexity"),
        (["--perplexity", "40", "--feature-set", "mine", "--csv"], "below the number of lesions, 40"),
        (["--where", "lesion_id = 't-01'", "--csv"], "1 lesion is too few for a map"),
        (["--body", "--where", "lesion_id = 't-07'", "--csv"], "none of the 1 lesions has a place in the body"),
        (["--feature-set", "mine", "--csv", "--where", "nonsense"], "--where"),
    ):
        with subtests.test(arguments):
            code, out, error = lesions("map", *arguments)

            assert code == 2
            assert sentence in error
            assert "\n" not in error
            assert out == ""
