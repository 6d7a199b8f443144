"""What a worker has to have in common with its driver, and how it says what it has not."""

import importlib.metadata
import json
from pathlib import Path

import numpy as np
import pytest

from lesionary.errors import CodeMismatchError
from lesionary.provenance import PACKAGES, code_fingerprint, package_root, require_same_contract, worker_contract

# Where reading the environment is the driver's business, or changes no row.
READS_ITS_ENVIRONMENT = {
    "lesionary/caches.py",  # where caches of remote lakes lie
    "lesionary/provenance.py",
    "lesionary/object_stores.py",  # how long to be patient; credentials to blot out
    "etl/supervision.py",  # handed on to the child
    "etl/deidentify.py",  # where the key lies; the driver's
    "trainers/launch.py",  # of Ray's controller
    "trainers/node_addresses.py",  # which network Gloo takes; changes no row
    "trainers/fitting.py",  # set, not read
}


def changed(**parts):
    contract = json.loads(worker_contract())
    for name, value in parts.items():
        contract[name] = contract[name] | value if isinstance(value, dict) else value
    return json.dumps(contract)


def refusal(contract):
    with pytest.raises(CodeMismatchError) as caught:
        require_same_contract(contract, "Ray worker on node 10.0.0.7")
    assert "\n" not in caught.value.sentence
    return caught.value.sentence


@pytest.mark.parametrize("networks", [False, True])
def test_a_process_keeps_its_own_contract(networks):
    own = worker_contract(networks=networks)

    require_same_contract(own, "here")
    assert own == worker_contract(networks=networks)


def test_other_code_is_named_with_both_digests_and_the_place():
    sentence = refusal(changed(code="0" * 16))

    assert sentence.startswith("Ray worker on node 10.0.0.7: ")
    assert f"lesionary's code {code_fingerprint()} where the driver has {'0' * 16}" in sentence
    assert str(package_root()) in sentence


def test_another_library_is_named_with_both_versions():
    sentence = refusal(changed(libraries={"numpy": "1.0"}, python="3.9"))

    assert f"numpy {np.__version__} where the driver has 1.0" in sentence
    assert "where the driver has 3.9" in sentence


def test_a_library_that_is_not_there_is_named():
    assert "no-such-library absent where the driver has 3" in refusal(changed(libraries={"no-such-library": "3"}))


def test_values_of_variables_are_never_said(monkeypatch):
    secret = "https://user:secret@store.example"  # noqa: S105
    monkeypatch.setenv("AWS_ENDPOINT_URL", secret)
    fresh = worker_contract.__globals__["_contract"].__wrapped__(("numpy",), ("AWS_ENDPOINT_URL",))

    assert "secret" not in fresh
    sentence = refusal(changed(settings=json.loads(fresh)["settings"]))
    assert "another value of AWS_ENDPOINT_URL" in sentence
    assert "secret" not in sentence


def test_builds_of_one_version_for_other_hardware_are_alike(monkeypatch):
    from lesionary.provenance import _version

    monkeypatch.setattr(importlib.metadata, "version", lambda name: {"torch": "2.15.0+cu132"}[name])

    assert _version("torch") == "2.15.0"


def test_ingest_asks_for_no_network_library():
    assert "torch" not in json.loads(worker_contract())["libraries"]
    assert "torch" in json.loads(worker_contract(networks=True))["libraries"]


def test_workers_take_no_setting_from_their_environment():
    found = {
        path.relative_to(package_root()).as_posix()
        for package in PACKAGES
        if package in {"lesionary", "etl", "trainers"}
        for path in Path(package_root(), package).rglob("*.py")
        if "os.environ" in (text := path.read_text()) or "getenv" in text
    }

    assert found == READS_ITS_ENVIRONMENT
