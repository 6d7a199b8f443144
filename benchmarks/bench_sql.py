"""Questions in SQL to the store beside pandas on the release's table, cold and warm, the same answers.

    python benchmarks/bench_sql.py [--rounds 15] [--keep FOLDER]

32,735 lesions; the store is made once and kept in a folder, files are in the page cache.

* cold: a whole process for one question: `lesionary sql`, and Python with pandas alone, which reads the CSV, takes
  diameters and spacing out of its texts, and answers (`pandas_questions.py`);
* warm: the store open (`ask`, under its time limit, read only), and the table in memory as pandas has it after that.

Ways take turns; ratios are those of processor time, which other work on the machine disturbs little. Every answer is
compared with the other's.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import duckdb
import pandas_questions
from make_store import DIMENSION, make_store
from measure import in_turn, measured, ratio
from pandas_questions import Rows

from store.database import open_reader
from store.queries import ask

BIN = Path(sys.executable).parent
# One warm question is over before the machine has settled.
_REPEATS = 5
# Our diameters come from the marks' ends, the table's are stated with three decimals.
_TOLERANCE_MM = 0.01

QUESTIONS = {
    "types": "SELECT lesion_type, count(*), avg(long_mm) FROM lesions GROUP BY lesion_type ORDER BY lesion_type",
    "patient": "SELECT study_index, long_mm FROM lesions JOIN series USING (series_id) "
    "WHERE lesions.patient_id = 'dl-001234' ORDER BY study_index, long_mm",
    "growth": "WITH largest AS (SELECT lesions.patient_id, study_index, max(long_mm) AS mm FROM lesions "
    "JOIN series USING (series_id) GROUP BY ALL) "
    "SELECT patient_id[4:]::INTEGER, arg_max(mm, study_index) - arg_min(mm, study_index) AS mm FROM largest "
    "GROUP BY patient_id ORDER BY mm DESC LIMIT 10",
    "condition": "SELECT count(*) FROM (SELECT patient_id FROM lesions GROUP BY patient_id "
    "HAVING count(DISTINCT study_id) >= 3 AND bool_or(lesion_type = 'liver' AND long_mm > 20))",
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "lesionary-benchmarks"))
    with measured(parser, quick={"rounds": 3}) as arguments:
        lake, store = make_store(arguments.keep / f"release-{DIMENSION}")
        table = str(lake.parent / "DL_info.csv")
        cold(store, table, arguments.rounds)
        with open_reader(store) as connection:
            warm(connection, table, arguments.rounds)


def cold(store: Path, table: str, rounds: int) -> None:
    """Whole processes, the first question and the one that joins."""
    script = str(Path(__file__).with_name("pandas_questions.py"))
    for name in ("types", "growth"):
        commands = {
            "lesionary sql": [str(BIN / "lesionary"), "sql", QUESTIONS[name], "--store", str(store)],
            "pandas": [sys.executable, script, name, table],
        }
        ways = {way: partial(run, command) for way, command in commands.items()}
        taken = in_turn(ways, rounds)
        for way, one in taken.items():
            print(f"cold, {name:<10} {way:<14} {one.seconds * 1e3:7.0f} ms, processor {one.processor * 1e3:7.0f} ms")
        ratio(f"cold, {name}: speed over pandas", taken["pandas"].processor / taken["lesionary sql"].processor)


def run(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def warm(connection: duckdb.DuckDBPyConnection, table: str, rounds: int) -> None:
    """All questions to what is open already."""
    frame = pandas_questions.read_table(table)
    for name, sql in QUESTIONS.items():
        to_frame = partial(pandas_questions.QUESTIONS[name], frame)
        check(name, answer(connection, sql), to_frame())
        ways = {
            "ours": lambda sql=sql: [answer(connection, sql) for _ in range(_REPEATS)],
            "pandas": lambda to_frame=to_frame: [to_frame() for _ in range(_REPEATS)],
        }
        taken = in_turn(ways, rounds)
        for way, one in taken.items():
            each, spent = one.seconds / _REPEATS * 1e3, one.processor / _REPEATS * 1e3
            print(f"warm, {name:<10} {way:<14} {each:7.2f} ms, processor {spent:7.2f} ms")
        ratio(f"warm, {name}: speed over pandas", taken["pandas"].processor / taken["ours"].processor)


def answer(connection: duckdb.DuckDBPyConnection, sql: str) -> Rows:
    return list(ask(connection, sql).rows)


def check(name: str, ours: Rows, theirs: Rows) -> None:
    """The same rows, figures in mm to a hundredth."""

    def alike(one: object, other: object) -> bool:
        if isinstance(one, float) and isinstance(other, float):
            return math.isclose(one, other, abs_tol=_TOLERANCE_MM)
        return one == other

    if len(ours) != len(theirs) or not all(
        alike(*pair) for rows in zip(ours, theirs, strict=True) for pair in zip(*rows, strict=True)
    ):
        raise SystemExit(f"{name}: the store says {ours[:3]} …, pandas says {theirs[:3]} …")


if __name__ == "__main__":
    main()
