"""Rows on stdout: a table for people, CSV and JSON for programs. CSV and JSON stream."""

import csv
import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TextIO

from cli.console import note
from cli.options import Format
from lesionary.errors import UsageError

_NULL = "·"
_MAX_TABLE_ROWS = 1000
_MAX_CELL_CHARACTERS = 60
_MAX_TABLE_CHARACTERS = 64 << 20


def write_rows(
    columns: Sequence[str], rows: Iterable[Sequence[object]], form: Format, stream: TextIO | None = None
) -> None:
    """Print rows in the wanted form."""
    out = stream or sys.stdout
    if form is Format.CSV:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_csv_cell(value) for value in row] for row in rows)
    elif form is Format.JSON:
        _write_json(columns, rows, out)
    else:
        _write_table(columns, iter(rows), out)


def write_json(value: object) -> None:
    """Print one value as JSON."""
    print(as_json_text(value))


def as_json_text(value: object) -> str:
    """One value as JSON."""
    return json.dumps(value, indent=2, default=_plain, allow_nan=False)


def write_mapping(values: dict[str, object]) -> None:
    """Print names and values under each other."""
    width = max(map(len, values), default=0)
    for name, value in values.items():
        print(f"{name:<{width}}  {_table_cell(value, cut=sys.stdout.isatty())}")


def _write_json(columns: Sequence[str], rows: Iterable[Sequence[object]], out: TextIO) -> None:
    out.write("[")
    separator = "\n"
    names = distinct_names(columns)
    for row in rows:
        record = dict(zip(names, map(_json_value, row), strict=True))
        out.write(f"{separator}  {json.dumps(record, default=_plain, allow_nan=False)}")
        separator = ",\n"
    out.write("\n]\n")


def _write_table(columns: Sequence[str], rows: Iterator[Sequence[object]], out: TextIO) -> None:
    shown = list(_within_size(islice(rows, _MAX_TABLE_ROWS)))
    numeric = [
        any(value is not None for value in column) and all(_is_number(value) for value in column if value is not None)
        for column in zip(*shown, strict=True)
    ] or [False] * len(columns)
    cut = out.isatty()
    cells = [[_table_cell(value, cut=cut) for value in row] for row in shown]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]

    def line(values: Sequence[str]) -> str:
        padded = (
            value.rjust(width) if right else value.ljust(width)
            for value, width, right in zip(values, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    out.write(f"{line(columns)}\n{'  '.join('─' * width for width in widths)}\n")
    out.writelines(f"{line(row)}\n" for row in cells)
    if next(rows, None) is not None:
        note(f"only the first {_MAX_TABLE_ROWS} rows are shown; --csv or --json gives all")


def _within_size(rows: Iterable[Sequence[object]]) -> Iterator[Sequence[object]]:
    """A table is laid out as a whole, so it has to fit into memory.

    Raises:
        UsageError: it does not.
    """
    size = 0
    for row in rows:
        size += sum(len(cell) for cell in row if isinstance(cell, str | bytes | list | tuple))
        if size > _MAX_TABLE_CHARACTERS:
            raise UsageError("the answer is too large for a table", next_step="--csv and --json write any size")
        yield row


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def distinct_names(columns: Sequence[str]) -> list[str]:
    """The columns' names with a number behind those that came before, which an object would lose: a, a_1."""
    names: dict[str, None] = {}
    for column in columns:
        name, number = column, 0
        # A name that a later column has on its own is left to it.
        while name in names or (number and name in columns):
            number += 1
            name = f"{column}_{number}"
        names[name] = None
    return list(names)


def _json_value(value: object) -> object:
    """The value without what JSON lacks, at any depth: NaN, infinity, keys that are no text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_json_value(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _json_value(one) for key, one in value.items()}
    return value


def _plain(value: object) -> object:
    """What json does not know: dates, decimals, sets, tuples out of the engine."""
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    return str(value)


def _csv_cell(value: object) -> object:
    if isinstance(value, list | tuple | dict):
        return json.dumps(_json_value(value), default=_plain)
    return "" if value is None else value


def _table_cell(value: object, *, cut: bool = False) -> str:
    if value is None:
        return _NULL
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_table_cell(one, cut=cut) for one in value) or _NULL
    text = str(value)
    if cut:
        # A terminal obeys control characters; what stands in a lake that others write into must not reach it.
        text = "".join(one if one.isprintable() else " " for one in text)
        text = text if len(text) <= _MAX_CELL_CHARACTERS else f"{text[: _MAX_CELL_CHARACTERS - 1]}…"
    return text
