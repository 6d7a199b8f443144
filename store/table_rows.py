"""The rows of an evaluation table: which feature sets stand in each, and what would make the sets that are not there.

A set named `<row>` and those named `<row>-s<seed>` are one row over seeds, and so are the sets of `LABEL=set,set`.
`PAPER_ROWS` are those of Table 1 of the Deep Lesion Graphs paper (CVPR 2018), under the names that the commands beside
them give their sets.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lesionary.errors import UsageError
from store.features import FeatureSet

OPTION = "--feature-set"
PAPER = "paper"
"""Stands for the rows of `PAPER_ROWS` among the names of expected rows."""

_SEEDED = re.compile(r"(?P<row>.+)-s(?P<seed>[0-9]{1,6})(?:@[0-9]+)?")
_LONGEST_LABEL = 63


@dataclass(frozen=True, slots=True)
class ExpectedRow:
    """A row that a table should have."""

    name: str
    title: str
    command: str
    """Makes one set; `{set}` and `{seed}` stand for its name and seed. A row without `{seed}` has one set."""

    @property
    def seeded(self) -> bool:
        """Whether its sets differ by seed."""
        return "{seed}" in self.command

    def command_for(self, seeds: Sequence[int]) -> str:
        """One line of shell that makes the sets of these seeds."""
        if not self.seeded:
            return self.command
        if len(seeds) == 1:
            return self.command.format(set=f"{self.name}-s{seeds[0]}", seed=seeds[0])
        made = self.command.format(set=f"{self.name}-s$seed", seed="$seed")
        return f"for seed in {' '.join(map(str, seeds))}; do {made}; done"


def _trained(name: str, title: str, setting: str = "") -> ExpectedRow:
    chosen = f" --set {setting}" if setting else ""
    return ExpectedRow(
        name,
        title,
        "lesionary train triplet --name {set} --seed {seed}" + chosen + " && lesionary embed --model {set}",
    )


MULTI_SCALE, LOCATION, FULL = "multi-scale", "location", "full"
PAPER_ROWS: tuple[ExpectedRow, ...] = (
    ExpectedRow(
        MULTI_SCALE, "multi-scale features, untrained", "lesionary embed --features multi-scale --weights none"
    ),
    ExpectedRow(LOCATION, "location alone", "lesionary locate"),
    _trained("type", "triplet: type", "cues=type"),
    _trained("location-triplet", "triplet: location", "cues=location"),
    _trained("type-location", "triplet: type + location", "cues=type+location"),
    _trained("one-scale", "triplet: all, one scale", "multi_scale=false"),
    _trained("unrefined", "triplet: all, no refinement", "refinements=0"),
    _trained(FULL, "triplet: type + location + size"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """A row and the sets that it is a mean over."""

    name: str
    title: str
    """For people; the name where nobody said more."""
    sets: tuple[FeatureSet, ...] = ()
    missing: tuple[str, ...] = ()
    """Names of sets that the row should have and the store lacks."""
    command: str | None = None
    """Makes what is missing."""


def named_rows(texts: Sequence[str], known: Sequence[FeatureSet]) -> list[Row]:
    """The rows that a person named, in that order; sets of one row may be named apart.

    Args:
        texts: each `set`, `set,set`, `row` (of sets `row-s0`, `row-s1` …) or `LABEL=set,set`.
        known: the store's sets, by name and version.

    Raises:
        UsageError: a set is not there, or a label is none.
    """
    found: dict[str, dict[str, FeatureSet]] = {}
    for text in texts:
        label, separator, listed = text.rpartition("=")
        if separator:
            label = _checked_label(label)
        for name in (part.strip() for part in listed.split(",")):
            for one in _sets_called(name, known):
                row = label or _row_of(name)
                found.setdefault(row, {})[one.feature_set_id] = one
    return [Row(name, name, tuple(sets.values())) for name, sets in found.items()]


def with_expected(
    rows: Sequence[Row], expected: Sequence[ExpectedRow], known: Sequence[FeatureSet], seeds: int
) -> list[Row]:
    """Expected rows in their order, each with what the store has of it, then all other rows.

    A row that was named is as it was named: nothing of it is missing.

    Args:
        rows: those that were named.
        expected: see `expected_rows`.
        known: the store's sets, by name and version.
        seeds: how many a seeded row should have, from 0.
    """
    named = {row.name: row for row in rows}
    wanted = []
    for one in expected:
        row = named.pop(one.name, None)
        if row is not None:
            wanted.append(Row(row.name, one.title, row.sets))
        else:
            wanted.append(_expected_row(one, known, seeds))
    return [*wanted, *named.values()]


def expected_rows(texts: Sequence[str]) -> list[ExpectedRow]:
    """Rows by name, each text one name or several with commas; `paper` stands for the paper's.

    Raises:
        UsageError: a name is none.
    """
    by_name = {row.name: row for row in PAPER_ROWS}
    found: dict[str, ExpectedRow] = {}
    for name in (part.strip() for text in texts for part in text.split(",")):
        if name == PAPER:
            found |= by_name
        else:
            row = _checked_label(name, "--expect")
            made = f"lesionary features import {row} FILE.parquet --model NAME"
            found[row] = by_name.get(row) or ExpectedRow(row, row, made)
    return list(found.values())


def _expected_row(one: ExpectedRow, known: Sequence[FeatureSet], seeds: int) -> Row:
    # A built-in set is always there, with or without a lesion in it.
    known = [each for each in known if each.lesions]
    if not one.seeded:
        only = tuple(_sets_or_none(one.name, known))
        missing = () if only else (one.name,)
        return Row(one.name, one.title, only, missing, one.command_for(()) if missing else None)
    sets = tuple(_sets_or_none(one.name, known))
    there = _by_seed(one.name, known)
    # One set under the row's own name alone: whoever made it left seeds aside.
    lacking = [] if sets and not there else [seed for seed in range(seeds) if seed not in there]
    return Row(
        one.name,
        one.title,
        sets,
        tuple(f"{one.name}-s{seed}" for seed in lacking),
        one.command_for(lacking) if lacking else None,
    )


def _sets_called(name: str, known: Sequence[FeatureSet]) -> list[FeatureSet]:
    sets = _sets_or_none(name, known)
    if not sets:
        names = ", ".join(dict.fromkeys(one.name for one in known)) or "none: run `lesionary sync`"
        raise UsageError(f"the store has no feature set {name[:80]!r}", where=OPTION, next_step=f"it has {names}")
    return sets


def _sets_or_none(name: str, known: Sequence[FeatureSet]) -> list[FeatureSet]:
    """The set of this name (its newest version) and those of its seeds; name@version, and a built-in set, alone."""
    exact = [one for one in known if name in {one.name, one.feature_set_id}]
    if exact and (exact[-1].built_in or name != exact[-1].name):
        return exact[-1:]
    there = _by_seed(name, known)
    return [*exact[-1:], *(there[seed] for seed in sorted(there))]


def _by_seed(row: str, known: Sequence[FeatureSet]) -> Mapping[int, FeatureSet]:
    """The newest version of each set `<row>-s<seed>`."""
    found = {}
    for one in known:
        match = _SEEDED.fullmatch(one.name)
        if match and match["row"] == row:
            found[int(match["seed"])] = one
    return found


def _row_of(name: str) -> str:
    """The row that sets named in this way belong to."""
    match = _SEEDED.fullmatch(name)
    return name if match is None else match["row"]


def _checked_label(label: str, option: str = OPTION) -> str:
    label = label.strip()
    if not label or len(label) > _LONGEST_LABEL or not label.isprintable() or "=" in label:
        raise UsageError(
            f"a row's name is 1 to {_LONGEST_LABEL} printable characters without =",
            where=option,
            next_step="for example full=triplet@1,triplet@2",
        )
    return label
