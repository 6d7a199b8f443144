"""Users ask, and can do nothing else: the engine itself refuses writes, files, network and extensions."""

import threading
import time

import duckdb
import pytest

from lesionary.errors import StoreError, UnknownLesionError
from store.database import open_reader, open_writer
from store.queries import ask, lesion


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "features.duckdb"
    with open_writer(path) as connection:
        connection.execute("INSERT INTO lake_rows.lesions (lesion_id, long_mm, shard) VALUES ('dl-1', 12.5, 1)")
        connection.execute("INSERT INTO lake_rows.lesion_features SELECT 1, * FROM store.lesion_features_now")
    return path


@pytest.fixture
def reader(path):
    with open_reader(path) as connection:
        yield connection


@pytest.mark.parametrize(
    "question",
    [
        "SELECT count(*) FROM lesions",
        "WITH a AS (SELECT 1 AS x) SELECT * FROM a;",
        "FROM lesions SELECT lesion_id",
        "DESCRIBE lesions",
        "SHOW TABLES",
        "SUMMARIZE units",
        "EXPLAIN SELECT 1",
        "VALUES (1), (2)",
        "SELECT now()",
        "SELECT synced_at FROM store.synced UNION ALL SELECT now()",
    ],
)
def test_questions_are_answered(reader, question):
    answer = ask(reader, question)

    assert answer.columns
    assert list(answer.rows)


def test_answers_stream_in_order(reader):
    answer = ask(reader, "SELECT i FROM range(5000) AS r(i)")

    assert [row[0] for row in answer.rows] == list(range(5000))


STATEMENTS = [
    "CREATE TABLE x (a INTEGER)",
    "CREATE TEMP TABLE x AS SELECT 1",
    "INSERT INTO units VALUES (1)",
    "DELETE FROM lesions",
    "UPDATE lesions SET long_mm = 1",
    "DROP VIEW lesions",
    "COPY lesions TO '{out}'",
    "COPY (SELECT 1) TO '{out}' (FORMAT parquet)",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}'",
    "INSTALL httpfs",
    "LOAD json",
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "PRAGMA database_list",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "BEGIN",
    "USE store",
    "UPDATE EXTENSIONS",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_is_no_question_is_refused_with_a_remedy(reader, tmp_path, statement):
    with pytest.raises(StoreError, match="only answers questions, found"):
        ask(reader, statement.format(out=tmp_path / "out"))

    assert not (tmp_path / "out").exists()


FILES = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM '{file}'",
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM read_json('{file}')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_duckdb('{other}', table_name = 't')",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "SELECT * FROM read_csv('https://example.org/x.csv')",
    "DESCRIBE SELECT * FROM read_csv('{file}')",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "EXPLAIN ANALYZE DELETE FROM lake_rows.lesions",
    "SELECT getenv('HOME')",
    "SELECT * FROM a_variable_of_this_process",
    "FROM query('DROP TABLE lake_rows.lesions')",
]


@pytest.mark.parametrize("question", FILES)
def test_no_question_reaches_files_network_or_this_process(reader, tmp_path, question):
    a_variable_of_this_process = [1]
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n42\n")
    with duckdb.connect(tmp_path / "other.duckdb") as other:
        other.execute("CREATE TABLE t AS SELECT 42 AS a")
    places = {"file": secret, "folder": tmp_path, "out": tmp_path / "out", "other": tmp_path / "other.duckdb"}

    with pytest.raises(StoreError) as caught:
        list(ask(reader, question.format(**places)).rows)

    assert "42" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert a_variable_of_this_process == [1]


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM lake_rows.lesions", "COPY (SELECT 1) TO '{out}'", "SET enable_external_access = true", "LOAD httpfs"],
)
def test_engine_refuses_even_what_our_own_check_would_miss(reader, tmp_path, statement):
    with pytest.raises(duckdb.Error):
        reader.execute(statement.format(out=tmp_path / "out"))

    assert not (tmp_path / "out").exists()
    assert reader.execute("SELECT count(*) FROM lesions").fetchone() == (1,)


@pytest.mark.parametrize("text", ["", ";", "SELECT 1; SELECT 2"])
def test_one_question_at_a_time(reader, text):
    with pytest.raises(StoreError, match="one question at a time"):
        ask(reader, text)


@pytest.mark.parametrize(
    ("question", "hint"),
    [("SELEC 1", "SELEC"), ("SELECT lng_mm FROM lesions", "long_mm"), ("SELECT * FROM lesion", "lesions")],
)
def test_mistakes_name_the_word_and_what_may_be_meant_in_one_line(reader, question, hint):
    with pytest.raises(StoreError) as caught:
        ask(reader, question)

    assert hint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_error_while_rows_are_fetched_is_ours_too(reader):
    answer_or_error = pytest.raises(StoreError, match="[Cc]onver")

    with answer_or_error:
        list(ask(reader, "SELECT CAST(CASE WHEN i = 4000 THEN 'x' ELSE '1' END AS INTEGER) FROM range(5000) r(i)").rows)


def test_an_answered_question_leaves_no_thread_that_holds_the_connection(reader, monkeypatch):
    run = threading.Timer.run
    # As on a busy machine, where a thread that was called off gets its turn late.
    monkeypatch.setattr(threading.Timer, "run", lambda timer: (run(timer), time.sleep(0.05)))

    assert list(ask(reader, "SELECT 1").rows) == [(1,)]

    assert not [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def test_lesion_is_found_with_its_axes(reader):
    found = lesion(reader, "dl-1")

    assert found["long_mm"] == 12.5
    assert {"long_x1_px", "short_y2_px", "coord_convention", "box_xyxy_px"} <= set(found)


@pytest.mark.parametrize("name", ["dl-2", "'; DROP TABLE x", ""])
def test_unknown_lesion_is_named_with_an_example(reader, name):
    with pytest.raises(UnknownLesionError, match="its names look like dl-1"):
        lesion(reader, name)
