"""Questions to the store: one read-only statement, its columns and its rows."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from lesionary.errors import StoreError, UnknownLesionError
from lesionary.identifiers import is_detection
from store.limits import DEFAULT_SECONDS, Deadline

if TYPE_CHECKING:
    import pyarrow as pa

# Rows fetched at once: few while they are heavy, so that what waits to be printed stays small.
_MOST_FETCHED_ROWS = 1024
_HEAVY_CHARACTERS = 1 << 20
_LONGEST_REFUSAL = 600
# What figures need of a lesion, of a detection: it has no axes, and counts pixels from zero.
_DETECTION = """
SELECT detection.* EXCLUDE (lesion_number), detection.category_name AS lesion_type, true AS image_available,
    'zero_based' AS coord_convention, series.window_low_hu, series.window_high_hu,
    NULL AS long_x1_px, NULL AS long_y1_px, NULL AS long_x2_px, NULL AS long_y2_px,
    NULL AS short_x1_px, NULL AS short_y1_px, NULL AS short_x2_px, NULL AS short_y2_px
FROM store.numbered_detections AS detection JOIN lake_rows.series AS series USING (series_id)
WHERE detection.lesion_id = ?
"""
_QUESTIONS = frozenset({"SELECT", "EXPLAIN", "RELATION"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A question's columns, and its rows as they are fetched."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[object, ...]]


def ask(connection: duckdb.DuckDBPyConnection, sql: str, seconds: float = DEFAULT_SECONDS) -> Answer:
    """Run one question.

    Raises:
        StoreError: it is no question, more than one, takes too long, or DuckDB refuses it.
    """
    deadline = Deadline(connection, seconds)
    try:
        with deadline.running():
            cursor = connection.execute(_the_question(connection, sql))
    except duckdb.Error as error:
        raise _refused(error) from None
    return Answer(tuple(column[0] for column in cursor.description or ()), _fetch(cursor, deadline))


def ask_for_arrow(
    connection: duckdb.DuckDBPyConnection, sql: str, batch_rows: int, seconds: float = DEFAULT_SECONDS
) -> "tuple[pa.Schema, Iterator[pa.RecordBatch]]":
    """Run one question and read its answer as Arrow: its schema, and its batches as they are made.

    Raises:
        StoreError: as for `ask`; also while batches are read.
    """
    deadline = Deadline(connection, seconds)
    try:
        with deadline.running():
            reader = connection.sql(_the_question(connection, sql).query).to_arrow_reader(batch_rows)
    except duckdb.Error as error:
        raise _refused(error) from None
    return reader.schema, _batches(reader, deadline)


def _batches(reader: "pa.RecordBatchReader", deadline: Deadline) -> "Iterator[pa.RecordBatch]":
    """What goes wrong while rows are made is the question's fault, and said so."""
    while True:
        try:
            with deadline.running():
                batch = reader.read_next_batch()
        except StopIteration:
            return
        except OSError as error:
            # The engine's errors come through Arrow's reader as these, an interruption among them.
            deadline.raise_if_expired()
            raise StoreError(_first_paragraph(error), next_step="change the question") from None
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


def _fetch(cursor: duckdb.DuckDBPyConnection, deadline: Deadline) -> Iterator[tuple[object, ...]]:
    count = 1
    while True:
        try:
            with deadline.running():
                rows = cursor.fetchmany(count)
        except duckdb.Error as error:
            raise _refused(error) from None
        if not rows:
            return
        yield from rows
        heavy = sum(len(cell) for row in rows for cell in row if isinstance(cell, str | bytes | list))
        count = max(1, count // 2) if heavy > _HEAVY_CHARACTERS else min(_MOST_FETCHED_ROWS, count * 2)


def refusal(error: duckdb.Error) -> str:
    """DuckDB's own first paragraph as one line: it names the word it stumbled over and near matches."""
    return " ".join(_first_paragraph(error).split())[:_LONGEST_REFUSAL]


def _refused(error: duckdb.Error) -> StoreError:
    return StoreError(refusal(error), next_step='`lesionary sql "SHOW TABLES"` lists what there is')


def _first_paragraph(error: Exception) -> str:
    return str(error).split("\n\nLINE", maxsplit=1)[0].strip()


def lesion(connection: duckdb.DuckDBPyConnection, lesion_id: str) -> dict[str, object]:
    """Everything the store knows of one lesion: its features and the ends of its axes; or of one detection.

    Raises:
        UnknownLesionError: the store has no such lesion.
    """
    cursor = connection.execute(
        "SELECT * FROM lesion_features JOIN (SELECT lesion_id, COLUMNS('^(long|short)_[xy][12]_px$'), "
        "coord_convention, box_xyxy_px FROM lesions) USING (lesion_id) WHERE lesion_id = ?",
        [lesion_id],
    )
    row = cursor.fetchone()
    if row is None and is_detection(lesion_id):
        cursor = connection.execute(_DETECTION, [lesion_id])
        row = cursor.fetchone()
    if row is None:
        example = connection.execute("SELECT min(lesion_id) FROM lesions").fetchone()
        known = f"its names look like {example[0]}" if example and example[0] else "it is empty: run `lesionary sync`"
        raise UnknownLesionError("the store has no such lesion", where="lesion", next_step=known)
    return dict(zip((column[0] for column in cursor.description or ()), row, strict=True))
