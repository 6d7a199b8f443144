"""Every stored input against its parser's contract, without a fuzzer: the corpus, and whatever once broke one."""

import re
from pathlib import Path

import pytest
from fuzz.contract import BrokenContractError, Target, execute
from fuzz.corpus import CORPUS, FINDINGS, stored_inputs
from fuzz.registry import ENTRIES, load

ROOT = Path(__file__).resolve().parents[2]
MOST_CORPUS_BYTES = 300_000


def findings():
    return [pytest.param(path, id=f"{path.parent.name}/{path.name}") for path in sorted(FINDINGS.glob("*/*"))]


@pytest.mark.parametrize("path", findings())
def test_what_once_broke_a_parser_no_longer_does(path):
    assert execute(load(path.parent.name), path.read_bytes()) is None


@pytest.mark.parametrize("name", ENTRIES)
def test_every_stored_input_keeps_the_contract(name):
    target = load(name)
    inputs = stored_inputs(name)

    assert inputs
    for path in inputs:
        try:
            execute(target, path.read_bytes())
        except Exception as error:  # noqa: BLE001 (named together with its input)
            pytest.fail(f"{path.relative_to(ROOT)}: {type(error).__name__}: {error}")


def test_the_corpus_stays_small_and_belongs_to_targets():
    files = [path for folder in (CORPUS, FINDINGS) for path in folder.glob("*/*")]

    assert {path.parent.name for path in files} <= set(ENTRIES)
    assert sum(path.stat().st_size for path in files) < MOST_CORPUS_BYTES


def test_the_page_lists_every_target_with_its_parser():
    page = (ROOT / "docs" / "fuzzing.md").read_text(encoding="utf-8")

    listed = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert listed == set(ENTRIES)
    assert all(f"`{load(name).parser}`" in page for name in ENTRIES)


def target(run, **limits):
    return Target("trial", "nothing", run, list, **limits)


def run_on(_data):
    while True:
        pass


def swallow_the_stop(_data):
    for _ in range(2):
        try:
            run_on(_data)
        except BrokenContractError:
            return


def connect(_data):
    import socket

    with socket.socket() as one:
        one.settimeout(0.1)
        one.connect_ex(("127.0.0.1", 9))


def unpickle(_data):
    import pickle

    pickle.loads(pickle.dumps(Path("x")))


@pytest.mark.parametrize("run", [run_on, swallow_the_stop, connect, unpickle])
def test_breaking_the_contract_is_noticed(run):
    with pytest.raises(BrokenContractError):
        execute(target(run, seconds=0.2), b"")


def test_writing_outside_the_scratch_folder_is_noticed(tmp_path):
    with pytest.raises(BrokenContractError):
        execute(target((tmp_path / "file").write_bytes), b"x")


def test_memory_beyond_the_limit_is_noticed():
    with pytest.raises(MemoryError):
        execute(target(lambda _: bytearray(256 << 20), memory_mb=64), b"")


def test_an_error_that_is_not_declared_comes_out():
    with pytest.raises(ZeroDivisionError):
        execute(target(lambda _: 1 / 0), b"")
