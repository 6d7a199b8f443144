"""`lesionary sql`: read-only questions, from the command line or at a prompt."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DEFAULT_LAKE, ForceOption, Format, JsonOption, LakeOption, StoreOption
from cli.reading import reading
from cli.render import distinct_names, write_rows
from lesionary.errors import LesionaryError, UsageError

if TYPE_CHECKING:
    import duckdb

_SHORTHANDS = {
    ".tables": "SHOW TABLES",
    ".schema": "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'main'",
}
_BATCH_ROWS = 65_536


def sql(
    question: Annotated[str | None, typer.Argument(metavar="[SQL]", help="One question; none = a prompt.")] = None,
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", metavar="FILE", help="Write the answer to a Parquet file.")
    ] = None,
    force: ForceOption = False,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.01, max=999_999, help="Time a question may take in the engine.")
    ] = 300.0,
    memory_mb: Annotated[
        int,
        typer.Option("--memory-mb", min=0, help="Memory the engine may take; 0 = half of the machine's, at most 4 GB."),
    ] = 0,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Ask the feature store in SQL: read-only, no files, no network, no extensions.

    For example: lesionary sql "SELECT lesion_type, median(long_mm) FROM lesion_features GROUP BY ALL"
    """
    from store.limits import QueryLimits

    if as_json + as_csv + (parquet is not None) > 1:
        raise UsageError("an answer has one form", where="--json, --csv, --parquet", next_step="choose one")
    form = Format.JSON if as_json else Format.CSV if as_csv else Format.TABLE
    with reading(lake, store, QueryLimits(memory_mb, seconds)) as (_, connection):
        if question is None:
            _prompt(connection, form, seconds)
        elif parquet is not None:
            _write_parquet(connection, question, parquet, seconds, force=force)
        else:
            _answer(connection, question, form, seconds)


def _answer(connection: "duckdb.DuckDBPyConnection", question: str, form: Format, seconds: float) -> None:
    from store.queries import ask

    answer = ask(connection, question, seconds)
    write_rows(answer.columns, answer.rows, form)


def _write_parquet(
    connection: "duckdb.DuckDBPyConnection", question: str, path: Path, seconds: float, *, force: bool
) -> None:
    """Our own writer, not COPY: the engine itself may not touch files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lesionary.artifacts import atomic_file
    from store.queries import ask_for_arrow

    if path.exists() and not force:
        raise UsageError("the file exists", where=path.name, next_step="add --force to overwrite it")
    found, batches = ask_for_arrow(connection, question, _BATCH_ROWS, seconds)
    # Few readers take two columns of one name.
    schema = pa.schema([field.with_name(name) for field, name in zip(found, distinct_names(found.names), strict=True)])
    with atomic_file(path) as sink, pq.ParquetWriter(sink, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch.rename_columns(schema.names))


def _prompt(connection: "duckdb.DuckDBPyConnection", form: Format, seconds: float) -> None:
    """Statements end with a semicolon; a mistake costs its statement, not the session."""
    interactive = sys.stdin.isatty()
    if interactive:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (gives the prompt line editing and history)
        print("one question at a time, ended by ;   .tables  .schema  .quit")
    for statement in _statements(interactive=interactive):
        try:
            _answer(connection, _SHORTHANDS.get(statement, statement), form, seconds)
        except LesionaryError as error:
            if not interactive:
                raise
            print(error, file=sys.stderr)


def _statements(*, interactive: bool) -> Iterator[str]:
    waiting = ""
    while True:
        try:
            line = input(("sql> " if not waiting else "...> ") if interactive else "")
        except EOFError:
            break
        if line.strip() == ".quit":
            return
        if line.strip() in _SHORTHANDS and not waiting:
            yield line.strip()
            continue
        waiting = f"{waiting}\n{line}" if waiting else line
        if waiting.rstrip().endswith(";"):
            yield waiting.rstrip().rstrip(";")
            waiting = ""
    if waiting.strip():
        yield waiting
