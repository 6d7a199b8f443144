"""What is known of lesions through time, read from a file and turned into groups of lesions.

Four kinds of file, told apart by what is in them:

* tracking pairs (JSON): the public DeepLesion pairs, see `truth_tracking.py`;
* pairs (CSV): two lesion names a line, with or without a header such as `lesion_id,other_lesion_id`;
* groups (CSV): header `lesion_id,group`; a group's name counts within its patient;
* phantom truth (CSV): `truth.csv` of `lesionary phantom release`; its row N is lesion `<namespace>-N`.

Pairs are joined to groups by union-find, through lesions that are not there as well. What cannot be found is counted
and named, never dropped in silence; a pair across two patients is counted and not used.
"""

import csv
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError
from store.matching_scores import NOT_IN_TRUTH
from store.truth_mentions import KnownLesions, Mention, in_one_namespace
from store.truth_tracking import tracking_pairs

MAX_FILE_BYTES = 64 * 1024 * 1024

_EXAMPLES = 5
_FORMS = (
    "give the public tracking pairs (JSON), a CSV with the header lesion_id,lesion_id or lesion_id,group, "
    "or the truth.csv of a phantom"
)
_LESION_NAME = re.compile(r"[a-z][a-z0-9]{0,15}-\S+")
_PHANTOM_COLUMNS = {"row_number", "series", "slice_index", "lesion_id"}


@dataclass(frozen=True, slots=True)
class TruthSummary:
    """What a truth file held and how much of it was found."""

    kind: str
    lesions: int
    """Given lesions that the truth names."""
    groups: int
    mentions: int
    """Times the file names a lesion: two for each pair, one for each line of groups."""
    unresolved: int
    """Mentions of lesions that are not among those given."""
    unresolved_examples: tuple[str, ...]
    across_patients: int
    """Pairs that were not used because their ends belong to two patients."""


@dataclass(frozen=True, slots=True)
class TruthGroups:
    """The group of every given lesion, `NOT_IN_TRUTH` where the truth does not name it; and where this comes from."""

    groups: NDArray[np.int64]
    summary: TruthSummary


def read_truth(path: Path, known: KnownLesions, *, namespace: str | None = None) -> TruthGroups:
    """Read a truth file and find its lesions among those given.

    Args:
        path: at most `MAX_FILE_BYTES`.
        known: the lesions to look among.
        namespace: where tracking pairs and phantom rows are looked for; needed only where two namespaces fit.

    Raises:
        UsageError: the file cannot be read, is of no known kind, is malformed, or names none of the given lesions.
    """
    text = _text(path)
    if text.lstrip()[:1] in ("[", "{"):
        return _from_pairs("tracking pairs", tracking_pairs(path, text, known, namespace), known, path)
    lines = _csv_lines(path, text)
    header = [cell.strip().lower() for cell in lines[0][1]] if lines else []
    if set(header) >= _PHANTOM_COLUMNS:
        return _from_labels("phantom truth", _phantom_rows(path, header, lines[1:], known, namespace), known, path)
    if header == ["lesion_id", "group"]:
        return _from_labels("groups", [(_named(cells[0], known), cells[1]) for _, cells in lines[1:]], known, path)
    has_header = len(header) == 2 and header[0] == "lesion_id" and "lesion" in header[1]
    if has_header or (len(header) == 2 and all(_LESION_NAME.fullmatch(cell.strip()) for cell in lines[0][1])):
        pairs = [(_named(cells[0], known), _named(cells[1], known)) for _, cells in lines[has_header:]]
        return _from_pairs("pairs", pairs, known, path)
    raise UsageError("it is no truth that can be read", where=path.name, next_step=_FORMS)


def _text(path: Path) -> str:
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), next_step=_FORMS)
    try:
        with path.open("rb") as source:
            content = source.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"it cannot be read ({error.strerror})", where=path.name) from error
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(f"it is larger than {MAX_FILE_BYTES >> 20} MB", where=path.name, next_step=_FORMS)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError("it is not UTF-8 text", where=path.name, next_step=_FORMS) from error


def _csv_lines(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """The lines that are not empty, with their numbers; all as wide as the first."""
    reader = csv.reader(text.splitlines(), strict=True)
    try:
        lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except csv.Error as error:
        raise UsageError(f"line {reader.line_num}: {error}", where=path.name, next_step=_FORMS) from error
    for number, cells in lines:
        if len(cells) != len(lines[0][1]):
            raise UsageError(
                f"line {number} has {len(cells)} cells, the first line {len(lines[0][1])}",
                where=path.name,
                next_step=_FORMS,
            )
    return lines


def _named(cell: str, known: KnownLesions) -> Mention:
    name = cell.strip()
    return Mention(name, known.row_of.get(name), name)


def _phantom_rows(
    path: Path, header: list[str], lines: list[tuple[int, list[str]]], known: KnownLesions, namespace: str | None
) -> list[tuple[Mention, str]]:
    """Row N of the truth is lesion `<namespace>-N`, if that one lies on the slice the truth says."""
    number, series, index, label = (header.index(name) for name in ("row_number", "series", "slice_index", "lesion_id"))

    def find(space: str) -> list[int | None]:
        found: list[int | None] = []
        for _, cells in lines:
            row = known.row_of.get(f"{space}-{cells[number].strip()}")
            place = (f"{space}-{cells[series].strip()}", cells[index].strip())
            fits = row is not None and (known.series_ids[row], str(known.slice_indices[row])) == place
            found.append(row if fits else None)
        return found

    rows = in_one_namespace(path, find, known, namespace)
    return [
        (Mention(cells[number], row, f"row {cells[number]}"), cells[label])
        for (_, cells), row in zip(lines, rows, strict=True)
    ]


def _from_pairs(kind: str, pairs: Sequence[tuple[Mention, Mention]], known: KnownLesions, path: Path) -> TruthGroups:
    parents: dict[Hashable, Hashable] = {}

    def root(label: Hashable) -> Hashable:
        parents.setdefault(label, label)
        while parents[label] != label:
            # Halving the way keeps later walks short.
            parents[label] = label = parents[parents[label]]
        return label

    across = 0
    for one, other in pairs:
        first, second = root(one.label), root(other.label)
        if one.row is not None and other.row is not None and known.patient_ids[one.row] != known.patient_ids[other.row]:
            across += 1
        else:
            parents[second] = first
    mentions = [mention for pair in pairs for mention in pair]
    labels = {mention.row: root(mention.label) for mention in mentions if mention.row is not None}
    return _grouped(kind, labels, mentions, known, across, path)


def _from_labels(kind: str, rows: Sequence[tuple[Mention, str]], known: KnownLesions, path: Path) -> TruthGroups:
    labels: dict[int, Hashable] = {}
    for mention, group in rows:
        label = group.strip()
        if not label:
            raise UsageError(f"{mention.text} has no group", where=path.name, next_step=_FORMS)
        if mention.row is not None and labels.setdefault(mention.row, label) != label:
            raise UsageError(f"{mention.text} is in two groups", where=path.name, next_step="leave one of the lines")
    return _grouped(kind, labels, [mention for mention, _ in rows], known, 0, path)


def _grouped(
    kind: str,
    labels: dict[int, Hashable],
    mentions: Sequence[Mention],
    known: KnownLesions,
    across_patients: int,
    path: Path,
) -> TruthGroups:
    """Number the groups in the order of their first lesion; a label counts within its patient."""
    if not labels:
        raise UsageError(
            f"none of the {len(mentions)} lesions it names is among the {len(known.lesion_ids)} given",
            where=path.name,
            next_step="check that it belongs to this store",
        )
    groups = np.full(len(known.lesion_ids), NOT_IN_TRUTH, dtype=np.int64)
    numbers: dict[Hashable, int] = {}
    for row in sorted(labels):
        groups[row] = numbers.setdefault((known.patient_ids[row], labels[row]), len(numbers))
    missing = [mention.text for mention in mentions if mention.row is None]
    summary = TruthSummary(
        kind=kind,
        lesions=len(labels),
        groups=len(numbers),
        mentions=len(mentions),
        unresolved=len(missing),
        unresolved_examples=tuple(dict.fromkeys(missing))[:_EXAMPLES],
        across_patients=across_patients,
    )
    return TruthGroups(groups, summary)
