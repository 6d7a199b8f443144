"""The commands of PACS exports as people type them: what they print, and what they say when something is wrong."""

import json
import os
import subprocess
import sys

import pytest
from pacs_files import ct


@pytest.fixture
def run(tmp_path):
    """Runs a command with a lake and a key of its own; exit code, output and errors."""
    # Commands run in this process before may have left settings of theirs.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LESIONARY_")} | {
        "LESIONARY_LAKE": str(tmp_path / "lake"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLUMNS": "200",
    }

    def command(*arguments):
        done = subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", *map(str, arguments)],
            env=environment, capture_output=True, text=True, check=False, cwd=tmp_path,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    return command


def test_from_phantom_to_report_and_back(run, tmp_path):
    assert run("phantom", "pacs", "x", "--patients", 3, "--image-size", 64, "--max-slices-per-series", 3)[0] == 0

    code, out, _ = run("ingest", "x/export", "--keep-map", "map")

    assert code == 0
    assert "rows and marks:" in out
    assert (tmp_path / "config" / "lesionary" / "pseudonyms.key").stat().st_mode & 0o777 == 0o600
    assert run("ingest", "x/export")[2].startswith("nothing to do")
    assert run("sync")[0] == 0
    code, out, _ = run("sql", "--json", "SELECT patient_id, lesion_id, body_x FROM lesion_features ORDER BY 2 LIMIT 1")
    (lesion,) = json.loads(out)
    assert 0 <= lesion["body_x"] <= 1
    assert run("show", lesion["lesion_id"], "--picture", "lesion.png")[0] == 0
    assert (tmp_path / "lesion.png").stat().st_size > 1000
    code, out, _ = run("reidentify", lesion["patient_id"], "--map", "map")
    assert (code, "PLANTEDMRN" in out) == (0, True)
    code, out, _ = run("export", "sr", "out", "--json")
    assert (code, json.loads(out)["left_out"]) == (0, {})
    assert run("lake", "verify", "--deep")[0] == 0


def test_single_length_can_be_shown(run, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_bytes(ct())
    image = "1.2.826.0.1.3680043.8.498.2.1.1.1"
    (tmp_path / "x" / "m.csv").write_text(f"sop_instance_uid,long_x1,long_y1,long_x2,long_y2\n{image},5,5,20,5\n")
    assert run("ingest", "x")[0] == 0
    run("sync")
    lesion = json.loads(run("sql", "--json", "SELECT lesion_id, flags FROM lesions")[1])[0]

    code, _, errors = run("show", lesion["lesion_id"], "--picture", "l.png")

    assert lesion["flags"] == ["no_short_axis"]
    assert (code, "picture: l.png" in errors) == (0, True)


def test_dry_run_makes_neither_key_nor_lake(run, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_bytes(ct())

    code, out, _ = run("ingest", "x", "--dry-run")

    assert code == 0
    assert "images to read" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ingest", "x", "--key-file", "lake/key"], "the key lies inside the lake"),
        (["reidentify", "pacs-x", "--map", "none"], "there is no key"),
        (["export", "sr", "out", "--codes", "latin"], "there are no such codes"),
        (["export", "coco", "out", "--split", "dev"], "there is no split dev"),
        (["export", "nifti", "out"], "there is no lake here"),
        (["phantom", "pacs", "y", "--syntax", "gif"], "known are mixed"),
        (["ingest", "empty"], "neither a DeepLesion release nor any DICOM"),
    ],
)
def test_mistakes_get_one_clear_line(run, tmp_path, arguments, sentence):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_bytes(ct())
    (tmp_path / "empty").mkdir()
    if arguments[0] == "ingest" and "--key-file" in arguments:
        arguments = [*arguments[:-1], str(tmp_path / "lake" / "key")]

    code, out, errors = run(*arguments)

    assert (code, out) == (2, "")
    assert sentence in errors
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1


def test_wrong_key_gives_nothing_away(run, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_bytes(ct())
    run("ingest", "x", "--keep-map", "map")
    run("sync")
    patient = json.loads(run("sql", "--json", "SELECT patient_id FROM series")[1])[0]["patient_id"]
    key = tmp_path / "other"
    key.write_text("00" * 32)
    key.chmod(0o600)

    code, out, errors = run("reidentify", patient, "--map", "map", "--key-file", key)

    assert (code, out) == (2, "")
    assert "PATIENT1" not in errors
