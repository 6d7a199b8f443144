"""The guard that holds a run's ratios against the committed ones."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("compare")


@pytest.fixture
def measure(compare: ModuleType) -> ModuleType:
    return sys.modules["measure"]


def lines(compare: ModuleType, before: dict, now: dict) -> list[tuple[str, bool]]:
    found = compare.findings(compare.read_ratios(before), compare.read_ratios(now))
    return [(one.line.split(":")[0], one.warns) for one in found]


def one(value: float, better: str = "higher") -> dict[str, object]:
    return {"value": value, "better": better}


@pytest.mark.parametrize(
    ("better", "now", "said"),
    [
        ("higher", 8.4, []),
        ("higher", 8.3, [("WARNING speed", True)]),
        ("higher", 11.9, []),
        ("higher", 12.1, [("note    speed", False)]),
        ("lower", 11.9, []),
        ("lower", 12.1, [("WARNING speed", True)]),
        ("lower", 8.3, [("note    speed", False)]),
    ],
)
def test_a_ratio_warns_past_a_fifth_in_the_worse_direction_only(
    compare: ModuleType, better: str, now: float, said: list[tuple[str, bool]]
):
    assert lines(compare, {"speed": one(10, better)}, {"speed": one(now, better)}) == said


def test_a_ratio_that_is_no_longer_told_warns_and_a_new_one_does_not(compare: ModuleType):
    said = lines(compare, {"gone": one(2), "kept": one(3)}, {"kept": one(3), "new": one(4)})

    assert said == [("WARNING gone", True), ("note    new", False)]


@pytest.mark.parametrize(("value", "better"), [(0.0, "higher"), (-1.0, "lower"), (1.0, "bigger")])
def test_what_cannot_be_compared_is_refused(compare: ModuleType, value: float, better: str):
    with pytest.raises(ValueError, match="above 0|not higher or lower"):
        lines(compare, {"speed": one(1)}, {"speed": one(value, better)})


@pytest.mark.parametrize(("options", "code"), [((), 0), (("--strict",), 1)])
def test_the_guard_is_loud_but_only_strict_fails(
    compare: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    code: int,
):
    committed = tmp_path / "committed.json"
    committed.write_text(json.dumps({"quick": {"read": {"speed": one(6)}}, "full": {"read": {"speed": one(4)}}}))
    monkeypatch.setattr(compare, "EXPECTED", committed)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "read.json").write_text(json.dumps({"speed": one(4)}))
    monkeypatch.setattr(sys, "argv", ["compare.py", "--found", str(tmp_path / "found"), *options])

    with pytest.raises(SystemExit) as end:
        compare.main()

    assert end.value.code == code
    assert "read: WARNING speed: 6 → 4 (higher is better), worse by 50%" in capsys.readouterr().out


def test_update_keeps_the_other_benchmarks_and_sizes(
    compare: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    committed = tmp_path / "committed.json"
    before = {"quick": {"read": {"speed": one(6)}, "cold": {"start": one(2)}}, "full": {"read": {"speed": one(4)}}}
    committed.write_text(json.dumps(before))
    monkeypatch.setattr(compare, "EXPECTED", committed)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "read.json").write_text(json.dumps({"speed": one(5.12345)}))
    monkeypatch.setattr(sys, "argv", ["compare.py", "--found", str(tmp_path / "found"), "--update"])

    with pytest.raises(SystemExit):
        compare.main()

    before["quick"]["read"]["speed"]["value"] = 5.12
    assert json.loads(committed.read_text()) == before


def test_a_benchmark_writes_what_it_told(
    measure: ModuleType, compare: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(sys, "argv", ["bench.py", "--quick", "--json", str(tmp_path / "ratios.json")])
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)

    with measure.measured(parser, quick={"rounds": 2}) as arguments:
        measure.ratio("speed", 3.5, at_least=3)
        measure.ratio("time", 1.5, better="lower")

    assert arguments.rounds == 2
    told = compare.read_ratios(json.loads((tmp_path / "ratios.json").read_text()))
    assert told == {"speed": measure.Ratio(3.5, "higher"), "time": measure.Ratio(1.5, "lower")}


def test_committed_ratios_can_be_read_and_belong_to_benchmarks(compare: ModuleType):
    committed = json.loads(compare.EXPECTED.read_text())

    assert committed["quick"]
    assert set(committed["quick"]) <= set(compare.names())
    for ratios in committed["quick"].values():
        assert compare.read_ratios(ratios)
