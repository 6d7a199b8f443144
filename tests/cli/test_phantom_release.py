"""`lesionary phantom release` as a person meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from lesionary.errors import UsageError

SMALL = ["--patients", "1", "--seed", "4", "--image-size", "64", "--max-slices-per-series", "3", "--workers", "1"]


def test_a_release_is_written_and_summed_up(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["phantom", "release", str(tmp_path / "out"), *SMALL])

    assert result.exit_code == 0, result.output
    assert "rows of 1 patients" in result.stdout
    assert "slices a second" in result.stdout
    assert (tmp_path / "out" / "DL_info.csv").exists()


def test_the_summary_comes_as_json(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["phantom", "release", str(tmp_path / "out"), *SMALL, "--zips", "--json"])

    summary = json.loads(result.stdout)
    assert summary["zips"] == 1
    assert summary["slice_files"] > 0


def test_the_live_line_goes_to_stderr_and_only_when_asked_for(tmp_path: Path) -> None:
    asked = CliRunner().invoke(app, ["phantom", "release", str(tmp_path / "one"), *SMALL, "--progress"])
    silent = CliRunner().invoke(app, ["phantom", "release", str(tmp_path / "two"), *SMALL])

    assert "slices drawn" in asked.stderr
    assert "slices drawn" not in asked.stdout
    assert silent.stderr == ""


def test_quirks_without_a_place_are_named(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    result = CliRunner().invoke(app, ["phantom", "release", out, *SMALL, "--quirk", "all"])

    assert "quirks: " in result.stdout
    assert result.exit_code == 0


def test_quirks_are_listed_with_a_sentence_each() -> None:
    lines = CliRunner().invoke(app, ["phantom", "release", "--list-quirks"]).stdout.splitlines()
    listed = json.loads(CliRunner().invoke(app, ["phantom", "release", "--list-quirks", "--json"]).stdout)

    assert [line.split()[0] for line in lines] == list(listed)
    assert listed["key-on-edge"] == "a key slice is the last of its slice range"


def test_a_folder_is_needed() -> None:
    result = CliRunner().invoke(app, ["phantom", "release", *SMALL])

    assert isinstance(result.exception, UsageError)
    assert "no folder to write into" in str(result.exception)


def test_a_full_folder_is_refused_until_force_is_given(tmp_path: Path) -> None:
    (tmp_path / "DL_info.csv").write_text("older")

    refused = CliRunner().invoke(app, ["phantom", "release", str(tmp_path), *SMALL])
    forced = CliRunner().invoke(app, ["phantom", "release", str(tmp_path), *SMALL, "--force"])

    assert isinstance(refused.exception, UsageError)
    assert forced.exit_code == 0
    assert (tmp_path / "DL_info.csv").read_text() != "older"


@pytest.mark.parametrize("module", ["numpy", "imagecodecs", "etl.phantom.release"])
def test_importing_the_command_imports_nothing_heavy(module: str) -> None:
    code = f"import cli.phantom, sys; sys.exit({module!r} in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
