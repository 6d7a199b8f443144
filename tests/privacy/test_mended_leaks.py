"""Places where an identifier did get out, each with what keeps it in now."""

import io
import json
import os
import subprocess
import sys

import pydicom
import pytest
from pacs_files import ct, mine, set_syntax

from cli.cluster import _command_line_kept_back
from etl.archive import safe_label
from lesionary.settings import IngestSettings, resolve


@pytest.mark.parametrize("name", ["IM0001.Doe", "a/b/scan.4711", "x.Käthe", "x.d\noe", "x.", "x", ".doe", "x.dcm.doe"])
def test_suffix_that_could_be_a_name_is_not_said(name):
    assert safe_label(name, 3) == "a nameless file of container #3"


@pytest.mark.parametrize("name", ["a.dcm", "b/a.DCM", "Doe.zip", "x\\y.png"])
def test_usual_suffix_is_said(name):
    assert safe_label(name, 0) == f"a {name[-4:].lower()} file of container #0"


def test_transfer_syntax_of_no_list_is_not_named(tmp_path):
    odd = set_syntax(ct(1, syntax="jpeg-ls"), "1.2.840.10008.1.947113")
    known = set_syntax(ct(2, syntax="jpeg-ls", series=2), "1.2.840.10008.1.2.4.50")

    lake, _ = mine(tmp_path, {"odd": odd, "known": known})

    details = {row["detail"] for row in lake.read("quarantine").to_pylist()}
    assert details == {"of no published list", "1.2.840.10008.1.2.4.50"}


def test_saved_settings_do_not_say_where_the_key_lies():
    resolved = resolve(IngestSettings, "ingest", flags={"key_file": "/keys/doe/key", "workers": 3}, environment={})

    record = resolved.record()

    assert record["key_file"] == {"from": "flag"}
    assert record["workers"] == {"value": 3, "from": "flag"}
    assert "doe" not in json.dumps(record)


def test_ray_is_not_told_the_command_line():
    from ray._private import utils

    assert utils.get_entrypoint_name() != "lesionary"
    with _command_line_kept_back():
        assert utils.get_entrypoint_name() == "lesionary"
    assert utils.get_entrypoint_name() != "lesionary"


def test_no_process_of_a_command_may_leave_a_core_dump(tmp_path):
    program = (
        "import resource, subprocess, sys\n"
        "_, most = resource.getrlimit(resource.RLIMIT_CORE)\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
        "from cli.main import main\n"
        "sys.argv = ['lesionary', 'ingest', 'x', '--lake', 'lake', '--key-file', 'key']\n"
        "from etl import supervised, supervision\n"
        "handed = supervision.Child.start\n"
        "def start(self):\n"
        "    handed(self)\n"
        "    print(open(f'/proc/{self.pid}/limits').read())\n"
        "supervision.Child.start = start\n"
        "main()\n"
    )
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a").write_bytes(ct())

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ
    )

    (line, *_) = [line for line in done.stdout.splitlines() if line.startswith("Max core file size")]
    # None where no process here may leave one anyway.
    assert line.split()[4] == ("0" if line.split()[5] == "0" else "1")


def test_reading_an_odd_file_says_nothing_of_its_values(tmp_path, capfd, caplog):
    """pydicom logs and warns with values of the file; it is silenced in the child, and reads nowhere else."""
    dataset = pydicom.dcmread(io.BytesIO(ct()))
    with pytest.warns(UserWarning, match="PLANTEDX"):
        dataset.PatientBirthDate = "PLANTEDX"
    data = io.BytesIO()
    dataset.save_as(data)
    odd = data.getvalue().replace(b"0.8\\0.8 ", b"PLANTEDX")
    caplog.set_level("DEBUG")
    caplog.clear()

    mine(tmp_path, {"a": odd, "b": odd[:400]})

    said = capfd.readouterr()
    assert "PLANTEDX" not in said.out + said.err + caplog.text
