"""The oddities of the real release, each as a small named change that can be asked for.

There are three kinds, applied in this order: to the plan before anything is drawn (`quirks_of_plans.py`), to rows
after they were measured (`quirks_of_rows.py`), to the text of the table (here). Each one touches one place, chosen
by the release's seed and its own name alone, and prefers a place that no other quirk has touched; the truth file
lists the rows and files it touched. A quirk that finds no place (two intervals need a series with two sub-volumes,
say) touches nothing and the summary names it.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etl.phantom.plan import SeriesPlan
from etl.phantom.quirks_of_plans import PLAN_QUIRKS, PlanQuirk
from etl.phantom.quirks_of_rows import ROW_QUIRKS, RowQuirk
from etl.phantom.release_table import ReleaseRow
from lesionary.errors import UsageError

ALL_QUIRKS = "all"


@dataclass(frozen=True, slots=True)
class TableQuirk:
    """A change to the bytes of `DL_info.csv`."""

    name: str
    sentence: str
    apply: Callable[[bytes], bytes]


def _windows_line_ends(table: bytes) -> bytes:
    return table.replace(b"\n", b"\r\n")


def _byte_order_mark(table: bytes) -> bytes:
    return b"\xef\xbb\xbf" + table


TABLE_QUIRKS: tuple[TableQuirk, ...] = (
    TableQuirk("windows-line-ends", "DL_info.csv has CRLF line ends", _windows_line_ends),
    TableQuirk("byte-order-mark", "DL_info.csv starts with a UTF-8 byte order mark", _byte_order_mark),
)

QUIRKS: tuple[PlanQuirk | RowQuirk | TableQuirk, ...] = (*PLAN_QUIRKS, *ROW_QUIRKS, *TABLE_QUIRKS)


def selected_quirks(names: Sequence[str]) -> tuple[str, ...]:
    """The names in the order in which they are applied, each once; `all` stands for every one.

    Raises:
        UsageError: there is no quirk of that name.
    """
    known = [quirk.name for quirk in QUIRKS]
    unknown = [name for name in names if name not in known and name != ALL_QUIRKS]
    if unknown:
        raise UsageError(
            f"there is no quirk called {unknown[0]!r}", where="--quirk", next_step="see them with --list-quirks"
        )
    return tuple(name for name in known if name in names or ALL_QUIRKS in names)


def apply_to_plans(names: Sequence[str], seed: int, plans: Sequence[SeriesPlan]) -> list[SeriesPlan]:
    """The planned series with the chosen plan quirks in them."""
    changed = list(plans)
    for quirk in PLAN_QUIRKS:
        if quirk.name in names:
            changed = quirk.apply(changed, _own_rng(seed, quirk.name), quirk.name)
    return changed


def apply_to_rows(names: Sequence[str], seed: int, rows: Sequence[ReleaseRow]) -> list[ReleaseRow]:
    """The measured rows with the chosen row quirks in them."""
    changed = list(rows)
    for quirk in ROW_QUIRKS:
        if quirk.name in names:
            changed = quirk.apply(changed, _own_rng(seed, quirk.name), quirk.name)
    return changed


def apply_to_table(names: Sequence[str], text: str) -> bytes:
    """The bytes of the table with the chosen table quirks in them."""
    table = text.encode()
    for quirk in TABLE_QUIRKS:
        if quirk.name in names:
            table = quirk.apply(table)
    return table


def _own_rng(seed: int, name: str) -> np.random.Generator:
    """Random numbers that belong to one quirk alone: asking for another moves it only out of that one's way."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])
