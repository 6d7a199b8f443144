"""Cold starts of the command line, whole processes from nothing, beside the commands of DuckDB and of sqlite-utils.

    python benchmarks/bench_cold.py [--rounds 15] [--keep FOLDER]

One store of the release's size (32,735 lesions, a set of 1,024 values), made once and kept in a folder; files are in
the page cache. `sql` and its peers answer the same question about the same lesions: `duckdb` from a database of its own
(its engine is of another release than ours), `sqlite-utils` from an SQLite file. Commands take turns. Ratios are those
of processor time, user and system of the whole process, which other work on the machine disturbs little. Also says
which heavy packages a cold `similar` imports.
"""

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from make_store import DIMENSION, make_store
from measure import in_turn, measured, ratio, report

from store.database import open_reader

HELP_SECONDS, SQL_SECONDS, SIMILAR_SECONDS = 0.5, 0.6, 0.6
HEAVY = ("torch", "ray", "pyarrow", "faiss", "sklearn", "scipy", "matplotlib", "deltalake")
BIN = Path(sys.executable).parent
QUESTION = "select lesion_type, count(*) as n, avg(long_mm) as mm from lesions group by lesion_type order by n desc"
_COLUMNS = "lesion_id, patient_id, study_id, lesion_type, long_mm, short_mm"
_BARE = (
    "import sys, duckdb\n"
    "for row in duckdb.connect(sys.argv[1], read_only=True).execute(sys.argv[2]).fetchall(): print(row)"
)
_WHERE = ("--where", "lesion_type = 'liver' AND long_mm > 10")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "lesionary-benchmarks"))
    with (
        measured(parser, quick={"rounds": 5}) as arguments,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        _, store = make_store(arguments.keep / f"release-{DIMENSION}")
        compare(store, copies(store, Path(scratch)), arguments.rounds)


def compare(store: Path, peers: Mapping[str, list[str]], rounds: int) -> None:
    """All commands in turn."""
    ours = str(BIN / "lesionary")
    similar = [ours, "similar", "dl-4711", "--store", str(store)]
    embedding = [*similar, "--feature-set", "embedding"]
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        **peers,
        "duckdb in Python": [sys.executable, "-c", _BARE, str(store.resolve()), QUESTION],
        "lesionary --help": [ours, "--help"],
        "lesionary sql": [ours, "sql", QUESTION, "--store", str(store)],
        "lesionary similar": similar,
        "similar, --where": [*similar, *_WHERE],
        "similar, 1,024 values": embedding,
        "similar, 1,024 values, --where": [*embedding, *_WHERE],
    }
    taken = in_turn({name: partial(run, command) for name, command in commands.items()}, rounds)
    print(f"whole processes, medians of {rounds} rounds after one to warm up, ms: clock, processor")
    for name, one in taken.items():
        print(f"  {name:<32} {one.seconds * 1e3:6.0f} {one.processor * 1e3:6.0f}")
    for name, wanted in {"lesionary --help": HELP_SECONDS, "lesionary sql": SQL_SECONDS}.items():
        report(name, f"{taken[name].seconds:.2f} s", f"< {wanted} s", holds=taken[name].seconds < wanted)
    for name, one in taken.items():
        if "similar" in name:
            report(name, f"{one.seconds:.2f} s", f"< {SIMILAR_SECONDS} s", holds=one.seconds < SIMILAR_SECONDS)
    for peer in (*peers, "duckdb in Python", "python -c pass"):
        ratio(f"lesionary sql over {peer}", taken["lesionary sql"].processor / taken[peer].processor, better="lower")
    for name in ("lesionary --help", "lesionary similar", "similar, 1,024 values"):
        ratio(f"{name} over an empty Python", taken[name].processor / taken["python -c pass"].processor, better="lower")
    imported = heavy_imports([*embedding, *_WHERE])
    report("heavy packages that similar imports", ", ".join(imported) or "none", "none", holds=not imported)


def copies(store: Path, folder: Path) -> dict[str, list[str]]:
    """The same lesions as DuckDB's and as SQLite's file, and the commands that ask them."""
    with open_reader(store) as connection:
        rows = connection.execute(f"SELECT {_COLUMNS} FROM lesions ORDER BY lesion_id").fetchall()  # noqa: S608
    table, database, sqlite = folder / "lesions.csv", folder / "lesions.duckdb", folder / "lesions.sqlite"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([_COLUMNS.split(", "), *rows])
    duckdb, sqlite_utils = str(BIN / "duckdb"), str(BIN / "sqlite-utils")
    create = f"CREATE TABLE lesions AS SELECT * FROM read_csv('{table}')"  # noqa: S608
    for command in (
        [duckdb, str(database), create],
        [sqlite_utils, "insert", str(sqlite), "lesions", str(table), "--csv"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {
        "duckdb": [duckdb, "-readonly", str(database), QUESTION],
        "sqlite-utils": [sqlite_utils, "query", str(sqlite), QUESTION],
    }


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def heavy_imports(command: list[str]) -> list[str]:
    """Which of the heavy packages a command of ours imports."""
    told = subprocess.run([sys.executable, "-X", "importtime", *command], check=True, capture_output=True, text=True)
    modules = {line.rpartition("|")[2].strip() for line in told.stderr.splitlines()}
    return [name for name in HEAVY if name in modules]


if __name__ == "__main__":
    main()
