"""Categories as a person meets them: trained, shown, named, given to new lesions, and scored against types."""

import json
import shutil

import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.main import app
from lesionary.categories import last_labels, read_categories
from lesionary.lake import Lake
from lesionary.results import write_results

_TRAINING = ("train", "categories", "--preset", "smoke", "--threads", 1, "--seed", 1)
_SMALL = ("--set", "max_rounds=2", "--set", "least_k=3", "--set", "input_px=32", "--steps", 4)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory):
    """A release, and beside it a lake whose lesions are sorted into categories: made once."""
    from etl.phantom.release import ReleaseSettings, write_release

    folder = tmp_path_factory.mktemp("phantom")
    settings = ReleaseSettings(patients=12, image_size=64, max_slices_per_series=3, seed=3)
    write_release(folder / "p", settings, workers=1)
    for words in (("ingest", folder / "p"), (*_TRAINING, *_SMALL)):
        done = CliRunner().invoke(app, [str(one) for one in (*words, "--lake", folder / "lake")])
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def sorted_lake(run, phantom, tmp_path):
    """A lake of the test's own whose lesions are sorted into categories."""
    shutil.copytree(phantom / "lake", tmp_path / "lake")
    return run


def test_training_lands_labels_of_every_round_and_the_categories(sorted_lake):
    lake = Lake.open("lake")
    labels = lake.read("labels").to_pylist()
    assert {row["model_id"] for row in labels} == {"categoriser-1"}
    assert {row["round"] for row in labels} == {0, 1, 2}
    last = last_labels(lake, "categoriser-1")
    assert last.num_rows == lake.read("lesions").num_rows
    categories = read_categories(lake, "categoriser-1")
    assert [one.number for one in categories] == list(range(len(categories)))
    assert len(categories) >= 3
    assert sum(one.lesions for one in categories) == last.num_rows
    for one in categories:
        assert one.lesions == sum(number == one.number for number in last["category"].to_pylist())
        assert one.name is None


def test_names_are_kept_shown_and_travel_into_the_store(sorted_lake):
    code, out, _ = sorted_lake("categorise", "name", "1", "chest lymph-node 2")
    assert code == 0
    assert "categoriser-1: category 1 is chest lymph-node 2" in out
    code, _, notes = sorted_lake("categorise", "name", "2", "chest lymph-node 2", "--model", "categoriser")
    assert code == 0
    assert "also the name of category 1" in notes

    listed = json.loads(sorted_lake("categorise", "list", "--json")[1])
    assert [row["name"] for row in listed][:3] == [None, "chest lymph-node 2", "chest lymph-node 2"]
    assert sorted_lake("sync")[0] == 0
    asked = sorted_lake("sql", "select category, name from categories where name is not null order by 1", "--csv")
    assert asked[1].split() == ["category,name", "1,chest", "lymph-node", "2", "2,chest", "lymph-node", "2"]
    # A name can be changed, and nothing else changes with it.
    assert sorted_lake("categorise", "name", "1", "liver")[0] == 0
    again = json.loads(sorted_lake("categorise", "list", "--json")[1])
    assert [row["lesions"] for row in again] == [row["lesions"] for row in listed]
    assert again[1]["name"] == "liver"


def test_hostile_names_are_one_line(sorted_lake, subtests):
    hostile = (
        "", " liver", "liver ", "a  b", "li/ver", "liver\n", "<b>liver</b>", "'; drop table", "=cmd()", "x" * 41,
        "läsion", "a\x1b[31m",
    )  # fmt: skip
    for words in hostile:
        with subtests.test(words=words):
            code, _, error = sorted_lake("categorise", "name", "0", words)
            assert code == 2
            assert "a category's name is 1 to 40 letters and digits" in error
            assert "\n" not in error
    assert all(one.name is None for one in read_categories(Lake.open("lake"), "categoriser-1"))


def test_the_contact_sheet_shows_each_category_and_one_lesion_a_patient(sorted_lake, tmp_path):
    code, out, notes = sorted_lake("categorise", "show", "--most", 4, "--picture", "sheet.png", "--json")
    assert code == 0
    assert "picture: sheet.png" in notes
    shown = json.loads(out)
    lake = Lake.open("lake")
    rows = lake.read("lesions", columns=["lesion_id", "patient_id"]).to_pylist()
    patients = {row["lesion_id"]: row["patient_id"] for row in rows}
    last = {row["lesion_id"]: row for row in last_labels(lake, "categoriser-1").to_pylist()}
    for one in shown:
        assert 1 <= len(one["typical"]) <= 4
        assert len({patients[name] for name in one["typical"]}) == len(one["typical"])
        assert all(last[name]["category"] == one["category"] for name in one["typical"])
        scores = [last[name]["score"] for name in one["typical"]]
        assert scores == sorted(scores, reverse=True)
        assert scores[0] == max(row["score"] for row in last.values() if row["category"] == one["category"])
    picture = Image.open(tmp_path / "sheet.png").convert("L")
    assert picture.height > 150 * len(shown)
    # Tiles are there: not all of it is white.
    assert sum(picture.histogram()[:200]) > 10_000 * len(shown)
    some = json.loads(sorted_lake("categorise", "show", shown[0]["category"], "--json")[1])
    assert [one["category"] for one in some] == [shown[0]["category"]]


def test_new_lesions_get_a_category_and_a_second_run_does_nothing(sorted_lake, subtests):
    lake = Lake.open("lake")
    rows = lake.read("labels")
    before = last_labels(lake, "categoriser-1").sort_by("lesion_id").to_pylist()
    categories = read_categories(lake, "categoriser-1")
    assert "0 given a category" in sorted_lake("categorise", "apply")[1]
    # As if so many lesions had been there at the training; the others come out of the cache, or are cut on the spot.
    for known, cached in ((5, True), (0, True), (len(before) - 3, False), (0, False)):
        with subtests.test(known=known, cached=cached):
            if not cached:
                shutil.rmtree("lake/cache", ignore_errors=True)
            there = {row["lesion_id"] for row in before[:known]}
            held = [row for row in rows.to_pylist() if row["round"] < 2 or row["lesion_id"] in there]
            write_results(lake, "categoriser-1", {"labels": [pa.Table.from_pylist(held, rows.schema)]})
            code, out, _ = sorted_lake("categorise", "apply", "--json")
            assert code == 0
            told = json.loads(out)
            assert told["lesions"] == told["kept"] + told["given"] + sum(told["left_out"].values())
            assert told["given"] == len(before) - known
            after = last_labels(lake, "categoriser-1").sort_by("lesion_id").to_pylist()
            assert [row["category"] for row in after] == [row["category"] for row in before]
            assert [row["score"] for row in after] == pytest.approx([row["score"] for row in before], abs=1e-4)
            assert read_categories(lake, "categoriser-1") == categories


def test_categories_are_scored_against_types(sorted_lake, phantom, tmp_path):
    given = ("evaluate", "categories", "--truth", phantom / "p" / "truth.csv", "--report", "r", "--json")
    code, out, notes = sorted_lake(*given)
    assert code == 0
    assert "report: r/categories.json, .md and .png" in notes
    report = json.loads(out)
    assert [one["round"] for one in report["rounds"]] == [0, 1]
    assert report["rounds"][0]["nmi_before"] is None
    assert 0 <= report["rounds"][1]["nmi_before"] <= 1
    assert all(0 < one["purity"] <= 1 and 0 <= one["nmi"] <= 1 for one in report["rounds"])
    lake = Lake.open("lake")
    assert sum(one["lesions"] for one in report["last_word"]) == lake.read("lesions").num_rows
    # Outside the test split a name is the commonest type, which is what purity counts.
    seen = [one for one in report["last_word"] if one["split"] != "test"]
    assert all(one["named"] <= one["purity"] + 1e-9 for one in seen)
    assert "# Categories by `categoriser-1`" in (tmp_path / "r" / "categories.md").read_text()
    assert Image.open(tmp_path / "r" / "categories.png").width > 1_000
    # Without a truth the lake's own types are taken, which are known of some lesions only.
    own = json.loads(sorted_lake("evaluate", "categories", "--json")[1])
    assert sum(one["lesions"] for one in own["last_word"]) < lake.read("lesions").num_rows


def test_mistakes_are_one_line_with_what_to_do(sorted_lake, subtests, tmp_path):
    (tmp_path / "no.csv").write_text("a,b\n1,2\n")
    for words, sentence in (
        (("categorise", "list", "--model", "other"), "the lake has no categoriser model 'other'"),
        (("categorise", "name", "99", "liver"), "categoriser-1 has no category 99"),
        (("categorise", "show", "99"), "categoriser-1 has no category 99"),
        (("evaluate", "categories", "--truth", "no.csv"), "the truth cannot be read"),
        (("evaluate", "categories", "--truth", "absent.csv"), "the truth cannot be read"),
    ):
        with subtests.test(words=words):
            code, _, error = sorted_lake(*words)
            assert code == 2
            assert sentence in error
            assert "\n" not in error


def test_a_lake_without_a_categoriser_or_with_too_few_patients_says_what_to_do(run, release):
    assert run("ingest", release)[0] == 0
    code, _, error = run("categorise", "list")
    assert code == 2
    assert "train one with `lesionary train categories`" in error
    code, _, error = run(*_TRAINING)
    assert code == 2
    assert "at least 3 patients are needed" in error
    assert "\n" not in error
