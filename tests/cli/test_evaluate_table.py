"""`evaluate table` as a person runs it: over built-in and imported sets, with what is missing, and its files."""

import json
import shlex

import numpy as np
import pytest
from PIL import Image
from small_stores import make_store
from typer.main import get_command

from cli.main import app
from store.table_rows import PAPER_ROWS


@pytest.fixture
def marked(run, tmp_path):
    """A store of ten patients with two studies of three lesions each, two seeds of a set, and the truth."""
    generator = np.random.default_rng(0)
    rows, groups = [], ["lesion_id,group"]
    for patient in range(10):
        places = generator.random((3, 3))
        for study in (1, 2):
            for at, place in enumerate(places + 0.01 * study):
                name = f"t-{patient}{study}{at}"
                rows.append(
                    {
                        "lesion_id": name, "patient_id": f"p{patient}", "study_id": f"p{patient}_{study}",
                        "series_id": f"p{patient}_{study}", "study_index": study,
                        "lesion_type": ("lung", "liver")[at % 2], "long_mm": 10.0 + at,
                        **dict(zip(("release_x", "release_y", "release_z"), place, strict=True)),
                    }
                )  # fmt: skip
                groups.append(f"{name},{at}")
    sets = {}
    for seed in range(2):
        generator = np.random.default_rng(seed)
        sets[f"full-s{seed}"] = {row["lesion_id"]: generator.random(3) for row in rows}
    make_store(tmp_path / "s.duckdb", rows, sets)
    (tmp_path / "truth.csv").write_text("\n".join(groups))
    return lambda *arguments: run("evaluate", "table", *arguments, "--store", "s.duckdb")


def test_the_papers_rows_are_asked_for_unless_sets_are_named(marked, tmp_path):
    code, out, notes = marked(
        "--truth", "truth.csv", "--repeats", 1, "--report", "out", "--picture", "t.png",
        "--curves", "c.png",
    )  # fmt: skip

    assert code == 0
    for row in PAPER_ROWS:
        assert f"| {row.name}: {row.title} |" in out
    assert "| full: triplet: type + location + size | 2 of 3 |" in out
    assert "lesionary train triplet --name full-s2 --seed 2 && lesionary embed --model full-s2" in out
    assert "| multi-scale | multi-scale | `lesionary embed --features multi-scale --weights none` |" in out
    assert "The ordering of the paper's Table 1" in out
    report = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [len(row["feature_sets"]) for row in report["rows"]] == [0, 1, 0, 0, 0, 0, 0, 2]
    assert report["rows"][7]["figures"]["matching_auc"]["sd"] is not None
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.startswith(out.splitlines()[0])
    assert "![table-matching](table-matching.png)" in text
    for name in ("t.png", "c.png", "out/table.png", "out/table-matching.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 0
    assert "report: out/table.json, .md and .png, table-matching.png" in notes


def test_named_sets_alone_make_no_demands(marked):
    code, out, _ = marked(
        "--feature-set", "both=location,size", "--feature-set", "full", "--repeats", 1,
        "--where", "study_index = 1", "--json",
    )  # fmt: skip

    report = json.loads(out)
    assert code == 0
    assert [(row["name"], row["feature_sets"]) for row in report["rows"]] == [
        ("both", ["location@1", "size@1"]),
        ("full", ["full-s0@1", "full-s1@1"]),
    ]
    assert report["truth"] is None
    assert report["sets"][0]["matching"] is None
    assert report["where"] == "study_index = 1"


def test_odd_names_and_truths_without_a_pair_are_drawn(marked, tmp_path):
    (tmp_path / "alone.csv").write_text("lesion_id,group\nt-010,a\nt-011,b\n")

    code, out, _ = marked(
        "--feature-set", "$\\frac{x|=location", "--truth", "alone.csv", "--repeats", 1, "--curves", "c.png",
        "--picture", "t.png",
    )  # fmt: skip

    assert code == 0
    assert "| $\\frac{x\\| | 1 |" in out
    assert Image.open(tmp_path / "c.png").size == (1176, 624)


def test_mistakes_are_one_line_with_what_to_do(marked, subtests):
    for arguments, sentence in (
        (
            ["--feature-set", "nothing"],
            "--feature-set: the store has no feature set 'nothing'; it has full-s0, full-s1",
        ),
        (["--feature-set", "=size"], "--feature-set: a row's name is 1 to 63"),
        (["--expect", "paper,"], "--expect: a row's name is 1 to 63"),
        (["--curves", "c.png"], "nothing is matched without a truth; add --truth FILE"),
        (["--t1", "0.1"], "nothing is matched without a truth"),
        (["--truth", "nowhere.csv"], "there is no such file"),
        (["--where", "long_mm > 1e6"], "--where: no lesion is left"),
        (["--where", "no_such_column = 1"], "--where"),
    ):
        with subtests.test(arguments):
            code, out, error = marked(*arguments)

            assert code == 2
            assert sentence in error
            assert "\n" not in error
            assert out == ""


def test_commands_beside_missing_rows_are_commands_of_ours(subtests):
    for row in PAPER_ROWS:
        for words in map(shlex.split, row.command_for([0]).split("&&")):
            with subtests.test(" ".join(words)):
                command = get_command(app)
                assert words.pop(0) == "lesionary"
                if words[0] not in command.commands:
                    pytest.skip(f"{words[0]} is not here yet")
                command.commands[words[0]].make_context(words[0], words[1:], resilient_parsing=False)
