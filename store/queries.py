"""Questions to the store: one read-only statement, its columns and its rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from lesionary.errors import StoreError, UnknownLesionError

if TYPE_CHECKING:
    import pyarrow as pa

_FETCH_ROWS = 1024
_QUESTIONS = frozenset({"SELECT", "EXPLAIN", "RELATION"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A question's columns, and its rows as they are fetched."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[object, ...]]


def ask(connection: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    """Run one question.

    Raises:
        StoreError: it is no question, more than one, or DuckDB refuses it.
    """
    question = _the_question(connection, sql)
    try:
        cursor = connection.execute(question)
    except duckdb.Error as error:
        raise _refused(error) from None
    except RuntimeError as error:
        # DuckDB's way of saying that somebody pressed Ctrl-C.
        raise KeyboardInterrupt from error
    return Answer(tuple(column[0] for column in cursor.description or ()), _fetch(cursor))


def ask_for_arrow(connection: duckdb.DuckDBPyConnection, sql: str, batch_rows: int) -> "pa.RecordBatchReader":
    """Run one question and read its answer as Arrow batches.

    Raises:
        StoreError: as for `ask`.
    """
    question = _the_question(connection, sql)
    try:
        return connection.sql(question.query).to_arrow_reader(batch_rows)
    except duckdb.Error as error:
        raise _refused(error) from None


def batches(answer: "pa.RecordBatchReader") -> "Iterator[pa.RecordBatch]":
    """The batches of an answer; what goes wrong while rows are made is the question's fault, and said so.

    Raises:
        StoreError: a row cannot be computed.
    """
    while True:
        try:
            batch = answer.read_next_batch()
        except StopIteration:
            return
        except OSError as error:
            raise StoreError(str(error).split("\n\nLINE")[0].strip(), next_step="change the question") from None
        yield batch


def _the_question(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.Statement:
    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise _refused(error) from None
    if len(statements) != 1:
        raise StoreError(f"one question at a time, found {len(statements)}", next_step="ask them one by one")
    try:
        kind = statements[0].type.name
    except ValueError:
        kind = "a statement of another kind"  # DuckDB knows more kinds than its Python enumeration
    if kind not in _QUESTIONS:
        raise StoreError(
            f"the store only answers questions, found {kind}",
            next_step="use SELECT, WITH, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN",
        )
    return statements[0]


def _fetch(cursor: duckdb.DuckDBPyConnection) -> Iterator[tuple[object, ...]]:
    while True:
        try:
            rows = cursor.fetchmany(_FETCH_ROWS)
        except duckdb.Error as error:
            raise _refused(error) from None
        if not rows:
            return
        yield from rows


def _refused(error: duckdb.Error) -> StoreError:
    """DuckDB's own first paragraph: it names the word it stumbled over and near matches."""
    sentence = str(error).split("\n\nLINE")[0].strip()
    return StoreError(sentence, next_step='`lesionary sql "SHOW TABLES"` lists what there is')


def lesion(connection: duckdb.DuckDBPyConnection, lesion_id: str) -> dict[str, object]:
    """Everything the store knows of one lesion: its features and the ends of its axes.

    Raises:
        UnknownLesionError: the store has no such lesion.
    """
    cursor = connection.execute(
        "SELECT * FROM lesion_features JOIN (SELECT lesion_id, COLUMNS('^(long|short)_[xy][12]_px$'), "
        "coord_convention, box_xyxy_px FROM lesions) USING (lesion_id) WHERE lesion_id = ?",
        [lesion_id],
    )
    row = cursor.fetchone()
    if row is None:
        example = connection.execute("SELECT min(lesion_id) FROM lesions").fetchone()
        known = f"its names look like {example[0]}" if example and example[0] else "it is empty: run `lesionary sync`"
        raise UnknownLesionError("the store has no such lesion", where="lesion", next_step=known)
    return dict(zip((column[0] for column in cursor.description or ()), row, strict=True))
