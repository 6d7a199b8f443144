"""What the Deep Lesion Graphs paper found in its Table 1, checked against the rows of another one.

Each claim is a comparison of two rows' means. Its gap is told in units of one standard deviation over seeds: that of
the difference, √(sd² + sd²). A row of one set adds nothing to it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import hypot

from store.table_rows import FULL, LOCATION, MULTI_SCALE
from store.type_scores import Spread


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table."""

    key: str
    title: str
    lower_is_better: bool
    digits: int = 1
    mode: str | None = None
    """Whether the query's own patient is allowed among the hits or excluded; None where it does not matter."""


COLUMNS: tuple[Column, ...] = (
    *(
        Column(f"{name}_error_{mode}", title, True, mode=mode)
        for mode in ("allowed", "excluded")
        for name, title in (("type", "type error %"), ("location", "location error"), ("size", "size error"))
    ),
    Column("purity_percent", "purity %", False),
    Column("nmi_percent", "NMI %", False),
    Column("accuracy_percent", "type accuracy %", False),
    Column("matching_auc", "matching AUC", False, digits=3),
)
_COLUMN = {column.key: column for column in COLUMNS}
_TYPE = ("type_error_allowed", "type_error_excluded")
_LOCATION_ERROR = ("location_error_allowed", "location_error_excluded")
_SIZE = ("size_error_allowed", "size_error_excluded")
_TYPE_SCORES = ("purity_percent", "nmi_percent", "accuracy_percent")

Figures = Mapping[str, Spread | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two rows in one column; the gap is positive where the claim holds."""

    column: str
    row: str
    other: str
    mean: float
    other_mean: float
    gap: float
    sd: float | None
    gap_in_sd: float | None
    """None where no standard deviation is known, or it is 0."""
    holds: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A sentence of the paper's, and whether it is so here."""

    sentence: str
    part_of_ordering: bool
    """Whether the paper's ordering stands or falls with it; others are told beside it."""
    comparisons: tuple[Comparison, ...]
    holds: bool | None
    """None where a row, or its figure, is not there."""


def claims_of(rows: Mapping[str, Figures]) -> tuple[Claim, ...]:
    """Check every claim on the rows of a table, by their names.

    The full triplet is the row `FULL`; the others that claims speak of are `LOCATION` and `MULTI_SCALE`.
    """
    others = [name for name in rows if name != FULL]
    return (
        _claim("the full triplet is best on type", True, _best(rows, _TYPE, others)),
        _claim(
            "the full triplet is better than the location feature at size", True, _each(rows, _SIZE, FULL, LOCATION)
        ),
        _claim(
            "the full triplet is above the location feature in matching",
            True,
            _each(rows, ("matching_auc",), FULL, LOCATION),
        ),
        _claim("the full triplet is best in purity, NMI and type accuracy", False, _best(rows, _TYPE_SCORES, others)),
        _claim("the location feature is best at location", False, _each(rows, _LOCATION_ERROR, LOCATION, FULL)),
        _claim(
            "the full triplet is better than untrained features at location",
            False,
            _each(rows, _LOCATION_ERROR, FULL, MULTI_SCALE),
        ),
    )


def ordering_holds(claims: Sequence[Claim]) -> bool | None:
    """Whether the paper's ordering holds; None where that cannot be told yet."""
    verdicts = [claim.holds for claim in claims if claim.part_of_ordering]
    if False in verdicts:
        return False
    return None if None in verdicts else True


def compare(column: str, rows: Mapping[str, Figures], row: str, other: str) -> Comparison | None:
    """The claim that `row` is better than `other` in a column; None where either has no figure."""
    one, two = rows.get(row, {}).get(column), rows.get(other, {}).get(column)
    if one is None or two is None:
        return None
    gap = two.mean - one.mean if _COLUMN[column].lower_is_better else one.mean - two.mean
    known = [sd for sd in (one.sd, two.sd) if sd is not None]
    sd = hypot(*known) if known else None
    return Comparison(column, row, other, one.mean, two.mean, gap, sd, gap / sd if sd else None, gap > 0)


def _claim(sentence: str, part_of_ordering: bool, found: Sequence[Comparison | None]) -> Claim:
    told = tuple(one for one in found if one is not None)
    holds = None if len(told) < len(found) or not told else all(one.holds for one in told)
    if any(not one.holds for one in told):
        holds = False
    return Claim(sentence, part_of_ordering, told, holds)


def _each(rows: Mapping[str, Figures], columns: Sequence[str], row: str, other: str) -> list[Comparison | None]:
    return [compare(column, rows, row, other) for column in columns]


def _best(rows: Mapping[str, Figures], columns: Sequence[str], others: Sequence[str]) -> list[Comparison | None]:
    """The full triplet against the best of the other rows in each column."""
    found = []
    for column in columns:
        against = [one for other in others if (one := compare(column, rows, FULL, other)) is not None]
        found.append(min(against, key=lambda one: one.gap, default=None))
    return found
