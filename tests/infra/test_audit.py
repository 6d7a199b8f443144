"""The audit finds what it is for: loose and idle pins, licences, vulnerabilities, a service that does not answer."""

import importlib.util
import json
import os
import re
import socket
import sys
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from infra_files import ROOT


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / ".ci" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    # Data classes look their module up.
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["audit"]


@pytest.fixture
def there(tmp_path):
    """A small world: app needs lib, and with its extra `fast` also quick; quick needs lib."""

    def distribution(name, version, *lines):
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("\n".join([f"Name: {name}", f"Version: {version}", *lines, "", ""]))
        return Distribution.at(folder)

    return {
        "app": distribution("App", "1.0", "Requires-Dist: Lib_A>=1", 'Requires-Dist: quick; extra == "fast"',
                            'Requires-Dist: elsewhere; sys_platform == "nowhere"', "License-Expression: MIT"),
        "lib-a": distribution("lib.a", "2.0", "Classifier: License :: OSI Approved :: BSD License"),
        "quick": distribution("quick", "3.0", "Requires-Dist: lib-a", "License: GPL-3.0"),
        "stray": distribution("stray", "1.0"),
    }  # fmt: skip


def test_closure_follows_extras_and_leaves_other_platforms_out(audit, there):
    assert set(audit.closure(["app"], there).found) == {"app", "lib-a"}
    assert set(audit.closure(["APP[fast]"], there).found) == {"app", "lib-a", "quick"}
    assert audit.closure(["app", "absent"], there).missing == {"absent"}


def test_every_kind_of_loose_pin_is_named(audit, there):
    everything = audit.closure(["app[fast]"], there)

    assert audit.pin_faults({"app": "1.0", "lib-a": "2.0", "quick": "3.0"}, everything) == []
    assert audit.pin_faults({"app": "1.1", "lib-a": "2.0", "idle": "1"}, everything) == [
        "app is installed as 1.0 and pinned as 1.1",
        "quick 3.0 has no pin in constraints.txt",
        "idle is pinned and nothing asks for it",
    ]


def test_pins_of_an_extra_that_is_not_installed_are_not_called_idle(audit, there):
    faults = audit.pin_faults({"lib-a": "2.0", "app": "1.0", "of-absent": "1"}, audit.closure(["app", "absent"], there))

    assert faults == ["absent is required and not installed: install all extras"]


def test_licences_are_found_wherever_a_package_states_them(audit, there):
    assert [audit.licence(there[name]) for name in ("app", "lib-a", "quick", "stray")] == [
        "MIT", "BSD License", "GPL-3.0", "not stated",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "strong"),
    [
        ("GPL-3.0-only", True), ("AGPL-3.0", True), ("GNU General Public License v2 (GPLv2)", True),
        ("GNU Affero General Public License", True), ("LGPL-3.0-only", False), ("MIT", False),
        ("GNU Lesser General Public License v2 (LGPLv2)", False), ("Mozilla Public License 2.0 (MPL 2.0)", False),
    ],
)  # fmt: skip
def test_strong_copyleft_is_told_from_weak(audit, text, strong):
    assert bool(audit._STRONG_COPYLEFT.search(text)) == strong


def test_a_package_that_was_not_asked_about_is_not_called_safe(audit):
    output = json.dumps(
        {
            "dependencies": [
                {"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1"}]},
                {"name": "b", "version": "2", "vulns": []},
                {"name": "c", "skip_reason": "not found"},
            ]
        }
    )

    advisories = audit.read_advisories(output, 3)

    assert advisories.known == ("a 1: PYSEC-1",)
    assert audit.told(advisories) == "advisories: 1 known for 2 of 3 packages; NOT CHECKED: c"


@pytest.mark.parametrize(
    "output", ["", "Traceback …", "{}", "[]", '{"dependencies": [{"name": "a", "skip_reason": "x"}]}']
)
def test_silence_of_the_service_is_said_and_is_no_vulnerability(audit, output):
    advisories = audit.read_advisories(output, 1)

    assert advisories.known == ()
    assert audit.told(advisories) == "advisories: NOT CHECKED, the service answered for none of 1 packages"


def test_bill_names_packages_and_edges_and_nothing_of_the_machine(audit, there):
    pytest.importorskip("cyclonedx", reason="the extra audit is not installed; `make audit` installs it")
    runtime = audit.closure(["app[fast]"], there)

    bill = audit.bill_of_materials(runtime, "0.1.0")

    document = json.loads(bill)
    assert bill == audit.bill_of_materials(runtime, "0.1.0")
    assert [one["purl"] for one in document["components"]] == [
        "pkg:pypi/app@1.0", "pkg:pypi/lib-a@2.0", "pkg:pypi/quick@3.0",
    ]  # fmt: skip
    edges = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    assert edges["lesionary==0.1.0"] == ["app==1.0"]
    assert edges["app==1.0"] == ["lib-a==2.0", "quick==3.0"]
    assert edges["quick==3.0"] == ["lib-a==2.0"]
    for secret in (str(Path.home()), socket.gethostname(), os.getcwd(), "timestamp"):
        assert secret not in bill, secret


def test_what_runs_here_is_installed_as_pinned(audit):
    pins = audit.read_pins((ROOT / "constraints.txt").read_text())
    there = audit.installed()

    runtime = audit.closure(["lesionary[train]"], there)

    assert not runtime.missing
    assert [fault for fault in audit.pin_faults(pins, runtime) if "nothing asks for it" not in fault] == []


def test_pins_are_plain_and_in_order():
    lines = (ROOT / "constraints.txt").read_text().splitlines()

    assert lines == sorted(lines, key=str.lower)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
