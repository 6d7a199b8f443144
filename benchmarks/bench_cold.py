"""Cold starts of the command line, whole processes from nothing, against an empty Python and the bare engine.

    python benchmarks/bench_cold.py [--rounds 15] [--keep FOLDER]

`similar` asks a store of the release's size (32,735 lesions, a set of 1,024 values), made once and kept in a folder;
files are in the page cache. Also says which heavy packages a cold `similar` imports.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from make_store import DIMENSION, make_store
from measure import median, report

from store.database import open_writer

HELP_SECONDS, SQL_SECONDS, SIMILAR_SECONDS = 0.5, 0.6, 0.6
HEAVY = ("torch", "ray", "pyarrow", "faiss", "sklearn", "scipy", "matplotlib", "deltalake")
_BARE = (
    "import sys, duckdb\n"
    "print(duckdb.connect(sys.argv[1], read_only=True).execute('select count(*) from lesions').fetchall())"
)
_WHERE = ("--where", "lesion_type = 'liver' AND long_mm > 10")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "lesionary-benchmarks"))
    arguments = parser.parse_args()
    _, release = make_store(arguments.keep / f"release-{DIMENSION}")
    ours = str(Path(sys.executable).with_name("lesionary"))
    similar = [ours, "similar", "dl-4711", "--store", str(release)]
    embedding = [*similar, "--feature-set", "embedding"]
    with tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch:
        store = Path(scratch, "features.duckdb")
        with open_writer(store):
            pass
        medians = timed(
            {
                "python -c pass": [sys.executable, "-c", "pass"],
                "duckdb in Python": [sys.executable, "-c", _BARE, str(store)],
                "lesionary --help": [ours, "--help"],
                "lesionary sql": [ours, "sql", "select count(*) from lesions", "--store", str(store)],
                "lesionary similar": similar,
                "similar, --where": [*similar, *_WHERE],
                "similar, 1,024 values": embedding,
                "similar, 1,024 values, --where": [*embedding, *_WHERE],
            },
            arguments.rounds,
        )
    print(f"whole processes, medians of {arguments.rounds} rounds after one to warm up")
    for name, value in medians.items():
        print(f"  {name:<32} {value * 1e3:6.0f} ms  {value / medians['python -c pass']:5.1f} × an empty Python")
    promised = {"lesionary --help": HELP_SECONDS, "lesionary sql": SQL_SECONDS}
    promised |= {name: SIMILAR_SECONDS for name in medians if "similar" in name}
    for name, wanted in promised.items():
        report(name, f"{medians[name]:.2f} s", f"< {wanted} s", holds=medians[name] < wanted)
    imported = heavy_imports([*embedding, *_WHERE])
    report("heavy packages that similar imports", ", ".join(imported) or "none", "none", holds=not imported)


def timed(commands: Mapping[str, list[str]], rounds: int) -> dict[str, float]:
    """Median seconds of each command, all of them in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    return {name: median(measured[1:]) for name, measured in seconds.items()}


def heavy_imports(command: list[str]) -> list[str]:
    """Which of the heavy packages a command of ours imports."""
    told = subprocess.run([sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True)
    modules = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    return [name for name in HEAVY if name in modules]


if __name__ == "__main__":
    main()
