"""Whatever is asked: nothing outside the store is written or read, limits hold, and the answer is rows or one line."""

import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from itertools import islice

import pytest
from hostile_sql import HEAVY, SECRET, hostile_strings
from small_stores import make_store

from lesionary.errors import StoreError, UsageError
from store.conditions import checked_condition
from store.database import open_reader
from store.limits import QueryLimits, guard_process
from store.queries import ask, ask_for_arrow
from store.selection import lesions_where

LIMITS = QueryLimits(memory_mb=256, seconds=0.4)
MOST_ROWS = 2_000

# What a replacement scan of Python's variables would find.
python_variable = hostile_frame = SECRET


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "store" / "features.duckdb", [{"lesion_id": f"t-{at}"} for at in range(20)])


@pytest.fixture
def outside(tmp_path, monkeypatch):
    """A folder to write to if one could, with a file to read if one could."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret.csv").write_text(f"a,b\n{SECRET},1\n")
    monkeypatch.chdir(folder)
    return folder


def tries(connection, text):
    """The text as a question, as a condition, and as Arrow: what came back, as text."""

    def as_question():
        return repr(list(islice(ask(connection, text, LIMITS.seconds).rows, MOST_ROWS)))

    def as_condition():
        return repr(lesions_where(connection, text, seconds=LIMITS.seconds).tolist())

    def as_arrow():
        return repr([batch.num_rows for batch in islice(ask_for_arrow(connection, text, 1_000, LIMITS.seconds)[1], 5)])

    for attempt in (as_question, as_condition, as_arrow):
        started = time.monotonic()
        try:
            came_back = attempt()
        except StoreError as refused:
            came_back = str(refused)
        # Whether the engine heeds an interruption at once is its own affair; that it does is ours.
        assert time.monotonic() - started < LIMITS.seconds + 15, text[:200]
        assert "\n" not in came_back
        yield came_back


def state_of(folder):
    return {
        file.relative_to(folder): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def test_a_thousand_hostile_strings(path, outside, tmp_path):
    strings = hostile_strings(outside / "secret.csv", outside / "out", outside)
    assert len(set(strings)) == 1_000
    before = state_of(tmp_path)
    with open_reader(path, LIMITS) as connection:
        for text in strings:
            for came_back in tries(connection, text):
                assert SECRET not in came_back, text

        assert ask(connection, "SELECT count(*) FROM lesions").rows.__next__() == (20,)
    assert state_of(tmp_path) == before


def _one_heavy(path, question):
    """In a process of its own, whose memory is its own; writes by how many MB that grew at most."""

    def leave(error):
        sys.stdout.write(f"left: {error}")
        sys.stdout.flush()
        os._exit(error.exit_code)

    with open_reader(path, LIMITS) as connection:
        guard_process(LIMITS, leave)
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for text in (question, f"({question}) IS NOT NULL"):
            list(tries(connection, text))
        assert list(ask(connection, "SELECT count(*) FROM lesions").rows) == [(20,)]
    sys.stdout.write(f"grew {(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) // 1024}")


@pytest.mark.slow
@pytest.mark.parametrize("question", HEAVY)
def test_questions_that_would_take_all_memory_or_time_end_within_limits(path, outside, question):
    code = (
        f"import sys; sys.path[:0] = {[os.path.dirname(__file__), *sys.path]!r}\n"
        "from pathlib import Path\n"
        "from test_hostile_sql import _one_heavy\n"
        f"_one_heavy(Path({str(path)!r}), {question!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=120)

    # Some do not heed an interruption; the guard then ends the process with a sentence.
    if done.returncode == 2:
        assert done.stdout == "left: the question took longer than 0.4 s; ask for less, or allow more with --seconds"
    else:
        assert done.returncode == 0, done.stderr[-2000:]
        # The engine's limit, and the headroom of a guarded process.
        assert int(done.stdout.removeprefix("grew ")) < LIMITS.memory_mb + 600
    assert [file.name for file in outside.iterdir()] == ["secret.csv"]


def test_time_limit_names_itself_and_leaves_the_connection_usable(path):
    with open_reader(path) as connection:
        before = set(threading.enumerate())
        with pytest.raises(StoreError, match=r"longer than 0\.2 s; ask for less, or allow more with --seconds"):
            list(ask(connection, HEAVY[0], 0.2).rows)
        with pytest.raises(StoreError, match=r"longer than 0\.2 s"):
            list(ask_for_arrow(connection, "SELECT hash(range) AS h FROM range(100000000000)", 1_000, 0.2)[1])

        assert list(ask(connection, "SELECT 1").rows) == [(1,)]
        # A clock that was stopped ends by itself, only not at once.
        for clock in set(threading.enumerate()) - before:
            clock.join(5)
        assert set(threading.enumerate()) <= before


def test_time_for_printing_does_not_count(path):
    with open_reader(path) as connection:
        answer = ask(connection, "FROM range(20)", 0.5)
        for _ in islice(answer.rows, 6):
            time.sleep(0.1)

        assert len(list(answer.rows)) == 14


def test_interruption_by_the_person_stays_one(path):
    with open_reader(path) as connection:
        threading.Timer(0.3, connection.interrupt).start()

        with pytest.raises(KeyboardInterrupt):
            list(ask(connection, HEAVY[0], 60).rows)


def test_memory_limit_is_a_sentence(path):
    with (
        open_reader(path, QueryLimits(memory_mb=100)) as connection,
        pytest.raises(StoreError, match="needs more memory than it may take; ask for less, or allow more"),
    ):
        list(ask(connection, "SELECT list(range) FROM range(100000000)").rows)


@pytest.mark.parametrize(
    ("memory_mb", "seconds"), [(10, 1), (-1, 1), (100, 0), (100, -1), (100, float("nan")), (100, 1e9)]
)
def test_limits_under_which_nothing_runs_are_refused(memory_mb, seconds):
    with pytest.raises(UsageError):
        QueryLimits(memory_mb, seconds)


@pytest.mark.parametrize(
    "condition",
    [
        "long_mm > 10",
        "lesion_type = 'lung' AND age_years BETWEEN 50 AND 70",
        "true -- with a remark",
        "lesion_features.long_mm > 2",
        "lesion_id IN (SELECT lesion_id FROM lesions WHERE long_mm > 1)",
        "(SELECT count(*) FROM lesions AS other WHERE other.patient_id = lesion_features.patient_id) > 1",
        "list_contains(flags, 'x') IS NOT TRUE",
        "hash(lesion_id) % 2 IN (0, 1)",
        "case when sex = 'F' then true else false end",
    ],
)
def test_conditions_people_write_are_taken_as_they_are(path, condition):
    with open_reader(path) as connection:
        assert checked_condition(connection, condition) == condition
        assert len(lesions_where(connection, f"({condition}\n) OR true")) == 20


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("1 = 1) OR (2 = 2", "more than one expression"),
        ("true, false", "more than one expression"),
        ("true) , coalesce(true", "more than one expression"),
        ("long_mm", "true or false, this one is DOUBLE"),
        ("'true'", "true or false, this one is VARCHAR"),
        ("count(*) > 1", "cannot contain aggregates"),
        ("row_number() OVER () > 1", "cannot contain window functions"),
        ("longmm > 1", 'Candidate bindings: .*"long_mm"'),
        ("long_mm > ?", "no parameters"),
        ("long_mm > $1", "no parameters"),
        ("true; true", "syntax error"),
        ("true ORDER BY 1", "syntax error"),
        ("true /*", "unterminated"),
        ("", "1 to 10000 characters"),
        ("x" * 10_001, "1 to 10000 characters"),
        ("true\0", "1 to 10000 characters"),
        ("NOT " * 900 + "true", "nested too deeply"),
        ("[" * 600 + "]" * 600 + " IS NOT NULL", "nested too deeply"),
    ],
)
def test_what_is_no_condition_is_named(path, condition, sentence):
    with open_reader(path) as connection, pytest.raises(StoreError, match=f"--where: .*{sentence}"):
        checked_condition(connection, condition)
