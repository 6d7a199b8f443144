"""The papers' table: feature sets as rows, errors and scores as columns, each row over the seeds it was trained with.

A row holds the sets of its name, and those that are called NAME-s0, NAME-s1, …: the same training under several seeds.
What depends on no seed (the built-in sets) has one set and no standard deviation. A row whose sets are not there stands
empty beside the command that makes them; nothing is filled in.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from lesionary.errors import UsageError
from store.evaluate import MatchingReport, RetrievalReport
from store.features import FeatureSet
from store.type_scores import Spread, spread

_SEED = re.compile(r"-s\d{1,6}$")


@dataclass(frozen=True, slots=True)
class WantedRow:
    """A row of the table."""

    label: str
    names: tuple[str, ...]
    """Names of feature sets, or their beginnings before -s0, -s1, …"""
    command: str | None = None
    """What makes them."""


def _trained(label: str, name: str, settings: str = "") -> WantedRow:
    given = f" {settings}" if settings else ""
    command = f"lesionary train triplet --name {name}-s0 --seed 0{given} && lesionary embed --model {name}-s0"
    return WantedRow(label, (name,), command)


FULL, LOCATION = "triplet: type + location + size", "location alone"

PAPER_ROWS: tuple[WantedRow, ...] = (
    WantedRow("multi-scale features, untrained", ("multi-scale",), "lesionary embed --features multi-scale"),
    WantedRow(LOCATION, ("location",)),
    _trained("triplet: type", "type", "--set cues=type"),
    _trained("triplet: location", "location-triplet", "--set cues=location"),
    _trained("triplet: type + location", "type-location", "--set cues=type+location"),
    _trained("triplet: all, one scale", "one-scale", "--set multi_scale=false"),
    _trained("triplet: all, no refinement", "unrefined", "--set refinements=0"),
    _trained(FULL, "full"),
)
"""Table 1 of the Deep Lesion Graphs paper, by the names that its rows are looked for under."""


@dataclass(frozen=True, slots=True)
class SetScores:
    """One feature set's reports."""

    feature_set: str
    retrieval: RetrievalReport
    matching: MatchingReport | None


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row with what was measured; no sets and no scores where there are none."""

    label: str
    sets: tuple[str, ...]
    scores: Mapping[str, Spread | None]
    """By column; None where nothing is known."""
    command: str | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One claim of the paper, checked."""

    claim: str
    holds: bool | None
    """None where a row that it needs is empty."""
    gap: float | None
    """By how much, positive where it holds."""
    sds: float | None
    """The gap in standard deviations: of both rows together, over seeds; None with one seed."""


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """Rows, and what they say of the paper's ordering."""

    rows: tuple[ScoredRow, ...]
    verdicts: tuple[Verdict, ...]
    lesions: int
    patients: int
    top: int
    size_normaliser_mm: float


Columns = Mapping[str, Callable[[SetScores], float | None]]

COLUMNS: Columns = {
    "type_allowed": lambda one: one.retrieval.allowed.type_percent.mean,
    "type_excluded": lambda one: one.retrieval.excluded.type_percent.mean,
    "location_allowed": lambda one: one.retrieval.allowed.location_percent.mean,
    "location_excluded": lambda one: one.retrieval.excluded.location_percent.mean,
    "size_allowed": lambda one: one.retrieval.allowed.size_percent.mean,
    "size_excluded": lambda one: one.retrieval.excluded.size_percent.mean,
    "purity": lambda one: one.retrieval.clusters.purity_percent.mean if one.retrieval.clusters else None,
    "nmi": lambda one: one.retrieval.clusters.nmi_percent.mean if one.retrieval.clusters else None,
    "accuracy": lambda one: one.retrieval.classifier.accuracy_percent.mean if one.retrieval.classifier else None,
    "matching_auc": lambda one: one.matching.sweep.auc if one.matching else None,
}
"""allowed and excluded: whether other lesions of the query's patient may be hits."""


def sets_of_row(row: WantedRow, there: Sequence[FeatureSet]) -> list[FeatureSet]:
    """The newest version of each set that belongs to a row; a name@version is that version."""
    found: dict[str, FeatureSet] = {}
    for one in there:
        if one.feature_set_id in row.names:
            found[one.feature_set_id] = one
        elif one.name in row.names or _SEED.sub("", one.name) in row.names:
            found[one.name] = one
    return list(found.values())


def row_of(text: str) -> WantedRow:
    """A row as the person writes it: SET, or LABEL=SET,SET,…

    Raises:
        UsageError: it names no set.
    """
    label, equals, listed = text.rpartition("=")
    names = tuple(name.strip() for name in listed.split(",") if name.strip())
    if not names or (equals and not label.strip()):
        raise UsageError("a row is SET or LABEL=SET,SET,…", where="--row", next_step="for example all=full-s0,full-s1")
    return WantedRow(label.strip() or listed.strip(), names)


def scored_row(row: WantedRow, scores: Sequence[SetScores]) -> ScoredRow:
    """Mean and standard deviation of every column over a row's sets."""
    columns: dict[str, Spread | None] = {}
    for name, value_of in COLUMNS.items():
        values = [value for one in scores if (value := value_of(one)) is not None]
        columns[name] = spread(values) if values else None
    return ScoredRow(row.label, tuple(one.feature_set for one in scores), columns, row.command)


def verdicts_on(rows: Sequence[ScoredRow]) -> tuple[Verdict, ...]:
    """Whether the paper's ordering holds among some rows; lower errors and a larger area are better."""
    by_label = {row.label: row for row in rows}
    full, location = by_label.get(FULL), by_label.get(LOCATION)
    found = []
    for mode in ("allowed", "excluded"):
        column = f"type_{mode}"
        # Against the best of the others: better than all.
        known = [row for row in rows if row.label != FULL and row.scores.get(column) is not None]
        rival = min(known, key=lambda row: _mean(row, column), default=None)
        found.append(_verdict(f"all cues find the type best, same patient {mode}", full, rival, column, better=-1))
    for mode in ("allowed", "excluded"):
        claim = f"all cues find the size better than location alone, same patient {mode}"
        found.append(_verdict(claim, full, location, f"size_{mode}", better=-1))
    found.append(_verdict("all cues match better than location alone", full, location, "matching_auc", better=1))
    return tuple(found)


def _mean(row: ScoredRow, column: str) -> float:
    held = row.scores[column]
    return float("inf") if held is None else held.mean


def _verdict(claim: str, ours: ScoredRow | None, theirs: ScoredRow | None, column: str, *, better: int) -> Verdict:
    one = ours.scores.get(column) if ours else None
    other = theirs.scores.get(column) if theirs else None
    if one is None or other is None:
        return Verdict(claim, None, None, None)
    gap = better * (one.mean - other.mean)
    deviation = sqrt((one.sd or 0.0) ** 2 + (other.sd or 0.0) ** 2)
    return Verdict(claim, gap > 0, gap, gap / deviation if deviation > 0 else None)
