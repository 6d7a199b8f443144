"""The regression guard: this run's ratios against the committed ones, with a loud line past 20 %.

    python benchmarks/compare.py [--full] [--only cold --only read] [--strict] [--update]
    python benchmarks/compare.py --found FOLDER

Runs every benchmark (`--quick` sizes, unless `--full`), or takes the files that `--json` wrote into a folder, each
named as its benchmark. `expected.json` holds the ratios of quick and full sizes apart; `--update` puts this run's
there. It exits with 0 whatever it finds; `--strict` exits with 1 after a warning.

Only ratios of one run are compared, never seconds: a slower machine changes both sides.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import Ratio

HERE = Path(__file__).parent
EXPECTED = HERE / "expected.json"
TOLERANCE = 0.20

Ratios = Mapping[str, Ratio]
"""By title."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One ratio that is not as it was."""

    line: str
    warns: bool


def findings(expected: Ratios, found: Ratios, tolerance: float = TOLERANCE) -> Iterator[Finding]:
    """What of a benchmark's ratios changed by more than the tolerance, is missing, or is new."""
    for title, before in expected.items():
        if title not in found:
            yield Finding(f"WARNING {title}: was {before.value:.3g}, is not told any more", warns=True)
            continue
        gain = improvement(before, found[title].value)
        told = f"{title}: {before.value:.3g} → {found[title].value:.3g} ({before.better} is better)"
        if gain < 1 / (1 + tolerance):
            yield Finding(f"WARNING {told}, worse by {1 / gain - 1:.0%}", warns=True)
        elif gain > 1 + tolerance:
            yield Finding(f"note    {told}, better by {gain - 1:.0%}: --update keeps it", warns=False)
    for title in found.keys() - expected.keys():
        yield Finding(f"note    {title}: {found[title].value:.3g} is new: --update keeps it", warns=False)


def improvement(before: Ratio, now: float) -> float:
    """By what factor a ratio got better; below 1 it got worse."""
    if before.value <= 0 or now <= 0:
        raise ValueError(f"ratios are above 0, not {before.value} and {now}")
    return now / before.value if before.better == "higher" else before.value / now


def read_ratios(values: Mapping[str, Mapping[str, object]]) -> dict[str, Ratio]:
    """Ratios as `--json` and `expected.json` have them.

    Raises:
        ValueError: one says neither `higher` nor `lower`.
    """
    ratios = {title: Ratio(float(str(one["value"])), str(one["better"])) for title, one in values.items()}
    for title, one in ratios.items():
        if one.better not in {"higher", "lower"}:
            raise ValueError(f"{title}: better is {one.better!r}, not higher or lower")
    return ratios


def names() -> list[str]:
    """All benchmarks, without `bench_`."""
    return sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))


def run(name: str, folder: Path, *, full: bool) -> None:
    """Run one benchmark into a folder; where it fails, it leaves no file there."""
    print(f"== {name}", flush=True)
    command = [sys.executable, str(HERE / f"bench_{name}.py"), "--json", str(folder / f"{name}.json")]
    subprocess.run([*command, *([] if full else ["--quick"])], check=False)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="the sizes of docs/benchmarks.md; hours")
    parser.add_argument("--only", action="append", choices=names(), help="this benchmark; repeatable")
    parser.add_argument("--found", type=Path, help="compare the files that --json wrote here, and run nothing")
    parser.add_argument("--strict", action="store_true", help="exit with 1 after a warning")
    parser.add_argument("--update", action="store_true", help="put what was found into expected.json")
    arguments = parser.parse_args()
    size = "full" if arguments.full else "quick"
    with tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch:
        folder = arguments.found or Path(scratch)
        wanted = arguments.only or sorted(path.stem for path in folder.glob("*.json")) or names()
        for name in () if arguments.found else wanted:
            run(name, folder, full=arguments.full)
        files = {name: folder / f"{name}.json" for name in wanted}
        found = {name: read_ratios(json.loads(file.read_text())) for name, file in files.items() if file.exists()}
    committed = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    expected = {name: read_ratios(one) for name, one in committed.get(size, {}).items()}
    print(f"\nratios of {size} sizes against those of expected.json, {TOLERANCE:.0%} either way:")
    warned = False
    for name in wanted:
        if name not in found:
            warned = True
            print(f"  {name}: WARNING it did not come to its end")
            continue
        for finding in findings(expected.get(name, {}), found[name]):
            warned |= finding.warns
            print(f"  {name}: {finding.line}")
    compared = sum(len(found[name].keys() & expected.get(name, {}).keys()) for name in found)
    print(f"{compared} ratios compared" + (", with warnings" if warned else ", none worse"))
    if arguments.update:
        keep(committed, size, found)
    sys.exit(1 if warned and arguments.strict else 0)


def keep(committed: dict[str, dict[str, object]], size: str, found: Mapping[str, Ratios]) -> None:
    """Write expected.json with the ratios of the benchmarks that ran."""
    for name, ratios in found.items():
        rounded = {title: asdict(one) | {"value": float(f"{one.value:.3g}")} for title, one in ratios.items()}
        committed.setdefault(size, {})[name] = rounded
    EXPECTED.write_text(json.dumps(committed, indent=1, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
