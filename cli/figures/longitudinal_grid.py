"""What the longitudinal figure shows, chosen out of a patient's measurements: rows, columns and what stands in them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cli.console import counted
from cli.figures.patches import Patch

State = Literal["baseline", "new", "persistent", "vanished", "merged", "split"]
LinkKind = Literal["same_lesion", "merged", "split"]

MAX_STUDIES, MAX_GROUPS = 24, 25


@dataclass(frozen=True, slots=True)
class StudyColumn:
    """One study of the patient."""

    number: int
    """What `Sighting.study` speaks of; columns stand in the order given."""
    day: float | None = None
    """Days since the patient's first study."""
    age_years: float | None = None


@dataclass(frozen=True, slots=True)
class Sighting:
    """One measurement of a group in a study, or that the group vanished in it: then without patch, name and sizes."""

    patch: Patch | None
    lesion_id: str | None
    study: int
    """Number of its column."""
    group: int
    """Number of its row."""
    long_mm: float | None
    short_mm: float | None
    state: State
    confidence: float | None = None
    """Of the best match to another study, 0 … 1; a link that has none of its own shows that of its later end."""
    lesion_type: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A match between measurements of two studies, named by their lesion ids.

    Of `same_lesion` links those between a group's successive studies are drawn; others add nothing to see.
    """

    from_lesion_id: str
    to_lesion_id: str
    confidence: float | None = None
    kind: LinkKind = "same_lesion"


@dataclass(frozen=True, slots=True)
class Cell:
    """What stands in one row and column."""

    shown: Sighting
    """The largest of the group's measurements in the study."""
    more: int
    """How many others there are."""
    lesion_ids: frozenset[str]
    """Of all of them."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What is drawn, once chosen."""

    studies: Sequence[StudyColumn]
    groups: Sequence[int]
    cells: Mapping[tuple[int, int], Cell]
    """By group and study number."""
    notes: Sequence[str]
    """Sentences about what is left out."""


def choose_cells(studies: Sequence[StudyColumn], sightings: Sequence[Sighting]) -> Grid:
    """Rows, columns and cells; what is too much for one figure is left out, and a note says so.

    Of more than `MAX_GROUPS` groups those seen in most studies stay, of more than `MAX_STUDIES` studies the latest.

    Raises:
        ValueError: no study or no sighting, two studies with one number, or a sighting in none of the studies.
    """
    numbers = [study.number for study in studies]
    if not sightings or len(set(numbers)) != len(numbers) or not {one.study for one in sightings} <= set(numbers):
        raise ValueError(f"{len(sightings)} sightings cannot be placed in studies {numbers}")
    shown_studies = studies[-MAX_STUDIES:]
    columns = {study.number for study in shown_studies}
    found: defaultdict[tuple[int, int], list[Sighting]] = defaultdict(list)
    for one in sightings:
        if one.study in columns:
            found[one.group, one.study].append(one)
    groups = sorted({group for group, _ in found})
    seen = {group: sum((group, number) in found for number in columns) for group in groups}
    shown_groups = sorted(sorted(groups, key=lambda group: (-seen[group], group))[:MAX_GROUPS])
    kept = set(shown_groups)
    cells = {place: _cell(ones) for place, ones in found.items() if place[0] in kept}
    notes = []
    if left := len(studies) - len(shown_studies):
        notes.append(f"{counted(left, 'earlier study', 'earlier studies')} not shown.")
    if left := len({one.group for one in sightings}) - len(shown_groups):
        notes.append(f"{counted(left, 'lesion')} that fewer of these studies show not shown.")
    return Grid(shown_studies, shown_groups, cells, notes)


def _cell(sightings: Sequence[Sighting]) -> Cell:
    largest = max(sightings, key=lambda one: (one.long_mm or 0.0, one.patch is not None, one.lesion_id or ""))
    names = frozenset(one.lesion_id for one in sightings if one.lesion_id is not None)
    return Cell(largest, len(sightings) - 1, names)
