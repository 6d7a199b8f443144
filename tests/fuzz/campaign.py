"""Fuzz every target for a while, one after the other: `python tests/fuzz/campaign.py --seconds 20 [NAME …]`.

Each target runs in a process of its own, begins with the seeds and the corpus of the repository, and keeps what it
finds under `build/fuzz/NAME/`: inputs that reached new code, and the one that broke the contract, if any. Figures are
libFuzzer's own; `build/fuzz/totals.json` adds them up over all runs. Ends with 1 at a finding.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from fuzz.corpus import CORPUS, FINDINGS  # noqa: E402
from fuzz.registry import ENTRIES  # noqa: E402

BUILD = HERE.parents[1] / "build" / "fuzz"
_STATISTICS = re.compile(r"^stat::(\w+):\s+(\d+)", re.MULTILINE)
_PROGRESS = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")
_SEED = re.compile(r"^INFO: Seed: (\d+)", re.MULTILINE)
# Beyond what a target allows itself; only what no signal stops gets that far.
_HANG_S = 120
_RSS_MB = 4096


def fuzz(name: str, seconds: int, executions: int) -> dict[str, int]:
    """One target for so long, or for so many executions: libFuzzer's figures, and how it ended."""
    folder = BUILD / name
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    stored = [str(place) for place in (CORPUS / name, FINDINGS / name) if place.is_dir()]
    command = [
        sys.executable, str(HERE / "fuzz_one.py"), name, f"-max_total_time={seconds}",
        f"-timeout={_HANG_S}", f"-rss_limit_mb={_RSS_MB}", "-print_final_stats=1",
        f"-artifact_prefix={folder}/", *([f"-runs={executions}"] if executions else []), str(folder / "corpus"),
        *stored,
    ]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    before = _processor_seconds()
    done = subprocess.run(command, capture_output=True, check=False, env=environment)
    log = done.stderr.decode(errors="replace") + done.stdout.decode(errors="replace")
    (folder / "log").write_text(log, encoding="utf-8")
    figures = {key: int(value) for key, value in _STATISTICS.findall(log)}
    progress = _PROGRESS.findall(log)
    return {
        "executions": figures.get("number_of_executed_units", 0),
        "new_inputs": figures.get("new_units_added", 0),
        "edges": int(progress[-1][0]) if progress else 0,
        "processor_s": round(_processor_seconds() - before),
        "peak_mb": figures.get("peak_rss_mb", 0),
        "seed": int((_SEED.findall(log) or ["0"])[0]),
        "exit_code": done.returncode,
    }


def _processor_seconds() -> float:
    """Of all processes that have ended below this one."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def add_up(name: str, figures: dict[str, int]) -> None:
    """Into the totals over all runs."""
    path = BUILD / "totals.json"
    totals = json.loads(path.read_bytes()) if path.is_file() else {}
    held = totals.setdefault(name, {"executions": 0, "runs": 0, "edges": 0})
    held["executions"] += figures["executions"]
    held["runs"] += 1
    held["processor_s"] = held.get("processor_s", 0) + figures["processor_s"]
    held["edges"] = max(held["edges"], figures["edges"])
    path.write_text(json.dumps(totals, indent=1, sort_keys=True), encoding="utf-8")


def main() -> int:
    """Run what was asked for; 1 at a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], help="targets; all unless given")
    parser.add_argument("--seconds", type=int, default=int(os.environ.get("FUZZ_SECONDS", "10")), help="for each")
    parser.add_argument("--executions", type=int, default=0, help="at most, for each; 0 = no limit")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first finding")
    wanted = parser.parse_args()
    if unknown := set(wanted.names) - set(ENTRIES):
        parser.error(f"there is no target {', '.join(sorted(unknown))}")
    total, found = 0, []
    print(f"{'target':<18}{'executions':>12}{'new inputs':>12}{'edges':>8}{'peak MB':>9}{'seed':>12}", flush=True)
    for name in wanted.names or ENTRIES:
        figures = fuzz(name, wanted.seconds, wanted.executions)
        add_up(name, figures)
        total += figures["executions"]
        shown = (figures["executions"], figures["new_inputs"], figures["edges"], figures["peak_mb"], figures["seed"])
        print(f"{name:<18}{shown[0]:>12,}{shown[1]:>12,}{shown[2]:>8,}{shown[3]:>9,}{shown[4]:>12}", flush=True)
        if figures["exit_code"]:
            found.append(name)
            print(f"  finding: see {BUILD / name}/log and the input beside it", flush=True)
            if not wanted.go_on:
                break
    print(f"{'in all':<18}{total:>12,}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
