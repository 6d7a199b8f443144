"""Cold starts of the command line, whole processes from nothing, against an empty Python and the bare engine.

python benchmarks/bench_cold.py [--rounds 15]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from measure import median, report

from store.database import open_writer

HELP_SECONDS, SQL_SECONDS = 0.5, 0.6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch:
        store = Path(scratch, "features.duckdb")
        with open_writer(store):
            pass
        ours = str(Path(sys.executable).with_name("lesionary"))
        bare = (
            "import sys, duckdb\n"
            "print(duckdb.connect(sys.argv[1], read_only=True).execute('select count(*) from lesions').fetchall())"
        )
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "duckdb in Python": [sys.executable, "-c", bare, str(store)],
            "lesionary --help": [ours, "--help"],
            "lesionary sql": [ours, "sql", "select count(*) from lesions", "--store", str(store)],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):
            for name, command in commands.items():
                started = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds[name].append(time.perf_counter() - started)
    print(f"whole processes, medians of {rounds} rounds after one to warm up")
    medians = {name: median(measured[1:]) for name, measured in seconds.items()}
    for name, value in medians.items():
        print(f"  {name:<18} {value * 1e3:6.0f} ms  {value / medians['python -c pass']:5.1f} × an empty Python")
    shown, asked = medians["lesionary --help"], medians["lesionary sql"]
    report("lesionary --help", f"{shown:.2f} s", f"< {HELP_SECONDS} s", holds=shown < HELP_SECONDS)
    report("lesionary sql", f"{asked:.2f} s", f"< {SQL_SECONDS} s", holds=asked < SQL_SECONDS)


if __name__ == "__main__":
    main()
