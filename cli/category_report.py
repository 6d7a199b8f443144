"""What `lesionary evaluate categories` reads out of the lake, and how it says what it found."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionary.errors import UsageError

if TYPE_CHECKING:
    from lesionary.lake import Lake
    from lesionary.models import ModelCard

_LABELS = ("lesion_id", "round", "label")


@dataclass(frozen=True, slots=True)
class RoundScores:
    """One round's clusters against types, and against the round before; lesions outside the test split."""

    round: int
    categories: int
    lesions: int
    """Of known type."""
    purity: float | None
    """Share of lesions that are of the commonest type of their category; None without lesions of known type."""
    nmi: float | None
    purity_before: float | None
    """In the round before; None in the first."""
    nmi_before: float | None
    held_out_accuracy: float
    """Share of lesions whose category the round's network says, of patients it did not learn from."""


@dataclass(frozen=True, slots=True)
class LastWord:
    """The categories that the last network says, of one split's lesions of known type."""

    split: str
    lesions: int
    categories: int
    """Those that occur."""
    purity: float
    nmi: float
    named: float
    """Share that is of the type its category would be named after by the lesions outside the test split: unlike purity
    it does not grow by itself with the number of categories."""


@dataclass(frozen=True, slots=True)
class CategoryReport:
    """What is said of a categoriser."""

    model_id: str
    truth: str
    """Where types come from."""
    rounds: tuple[RoundScores, ...]
    last_word: tuple[LastWord, ...]
    choice: Mapping[str, Any] | None
    """Of the number of categories, with its curve; None where it was given."""
    lake_versions: Mapping[str, int]
    lesionary: str


def true_types(path: Path, namespace: str) -> dict[str, str]:
    """Lesion to type, out of a phantom's truth.csv.

    Raises:
        UsageError: it cannot be read, or is no such file.
    """
    try:
        with path.open(encoding="utf-8", newline="") as source:
            return {f"{namespace}-{int(row['row_number'])}": row["true_type"] for row in csv.DictReader(source)}
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as cause:
        raise UsageError(
            f"the truth cannot be read ({type(cause).__name__})",
            where="--truth",
            next_step="give the truth.csv of a phantom",
        ) from cause


def category_report(lake: "Lake", card: "ModelCard", types: Mapping[str, str] | None) -> CategoryReport:
    """Score a categoriser's labels.

    Args:
        lake: that holds them.
        card: the model's.
        types: by lesion; the lake's own unless given.

    Raises:
        UsageError: the lake holds no label of the model, or no lesion with a label has a known type.
    """
    import pyarrow.compute as pc

    from lesionary import __version__
    from lesionary.splits import split_of_patient

    rows = lake.read("labels", columns=_LABELS, where=pc.field("model_id") == card.model_id).to_pylist()
    if not rows:
        raise UsageError(
            f"the lake holds no label by {card.model_id}",
            where="evaluate categories",
            next_step="run `lesionary categorise apply`",
        )
    lesions = lake.read("lesions", columns=["lesion_id", "patient_id", "split", "lesion_type"]).to_pylist()
    known = {row["lesion_id"]: row["lesion_type"] for row in lesions} if types is None else dict(types)
    splits = {row["lesion_id"]: row["split"] or split_of_patient(row["patient_id"]) for row in lesions}
    by_round: dict[int, dict[str, str]] = {}
    for row in rows:
        if known.get(row["lesion_id"]) is not None and row["lesion_id"] in splits:
            by_round.setdefault(row["round"], {})[row["lesion_id"]] = row["label"]
    if not by_round:
        raise UsageError(
            "no lesion with a category has a known type",
            where="evaluate categories",
            next_step="give --truth FILE, and the --namespace that was ingested under",
        )
    records = card.data.get("rounds", [])
    return CategoryReport(
        model_id=card.model_id,
        truth="the lake's lesion_type" if types is None else "the truth's true_type",
        rounds=tuple(_round_scores(record, by_round.get(record["round"], {}), known) for record in records),
        last_word=_last_words(by_round.get(len(records), {}), known, splits),
        choice=next((record["choice"] for record in records if record["choice"]), None),
        lake_versions={name: lake.shards(name)[0] for name in ("lesions", "labels")},
        lesionary=__version__,
    )


def _round_scores(record: Mapping[str, Any], labels: Mapping[str, str], types: Mapping[str, str | None]) -> RoundScores:
    purity, nmi = _scores(labels, types) if labels else (None, None)
    return RoundScores(
        round=record["round"],
        categories=record["k"],
        lesions=len(labels),
        purity=purity,
        nmi=nmi,
        purity_before=record["purity"],
        nmi_before=record["nmi"],
        held_out_accuracy=record["held_out_accuracy"],
    )


def _last_words(
    labels: Mapping[str, str], types: Mapping[str, str | None], splits: Mapping[str, str]
) -> tuple[LastWord, ...]:
    votes: dict[str, Counter[str | None]] = {}
    for lesion, label in labels.items():
        if splits[lesion] != "test":
            votes.setdefault(label, Counter())[types[lesion]] += 1
    # Of types that are equally common the first by its name, whatever order lesions come in.
    names = {label: min(count, key=lambda kind: (-count[kind], str(kind))) for label, count in votes.items()}
    found = []
    for split in ("train", "val", "test"):
        some = {lesion: label for lesion, label in labels.items() if splits[lesion] == split}
        if some:
            purity, nmi = _scores(some, types)
            named = sum(names.get(label) == types[lesion] for lesion, label in some.items()) / len(some)
            found.append(LastWord(split, len(some), len(set(some.values())), purity, nmi, named))
    return tuple(found)


def _scores(labels: Mapping[str, str], types: Mapping[str, str | None]) -> tuple[float, float]:
    import numpy as np

    from lesionary.partitions import normalised_mutual_information, purity

    said = np.unique(list(labels.values()), return_inverse=True)[1]
    true = np.unique([str(types[lesion]) for lesion in labels], return_inverse=True)[1]
    return purity(said, true), normalised_mutual_information(said, true)


def category_markdown(report: CategoryReport) -> str:
    """The scores as a page."""
    lines = [f"# Categories by `{report.model_id}`", f"Types: {report.truth}."]
    if (choice := report.choice) is not None:
        lines.append(
            f"{choice['k']} categories, chosen by {choice['criterion']} among {choice['ks'][0]} to {choice['ks'][-1]}."
        )
    lines += ["Lesions outside the test split; round 0 clusters the first features.", _rounds_table(report)]
    lines += [
        "What the last network says. A category's name is the commonest type of its lesions outside the test split.",
        _last_table(report),
    ]
    versions = ", ".join(f"{table} {version}" for table, version in report.lake_versions.items())
    lines.append(f"Made by lesionary {report.lesionary}; versions of the lake's tables: {versions}.")
    return "\n\n".join(lines) + "\n"


def _rounds_table(report: CategoryReport) -> str:
    from store.score_tables import as_markdown_table

    header = (
        "round", "categories", "lesions", "purity, %", "NMI, %", "purity in the round before, %",
        "NMI with the round before, %", "accuracy on patients held out, %",
    )  # fmt: skip
    rows = [
        (
            str(one.round), str(one.categories), f"{one.lesions:,}",
            *map(_percent, (one.purity, one.nmi, one.purity_before, one.nmi_before, one.held_out_accuracy)),
        )
        for one in report.rounds
    ]  # fmt: skip
    return as_markdown_table(header, rows)


def _last_table(report: CategoryReport) -> str:
    from store.score_tables import as_markdown_table

    header = ("split", "lesions", "categories", "purity, %", "NMI, %", "right by the category's name, %")
    rows = [
        (one.split, f"{one.lesions:,}", str(one.categories), *map(_percent, (one.purity, one.nmi, one.named)))
        for one in report.last_word
    ]
    return as_markdown_table(header, rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def curve_of(scores: Sequence[RoundScores], name: str) -> tuple[list[int], list[float]]:
    """Rounds and one of their figures, where there is one."""
    pairs = [(one.round, getattr(one, name)) for one in scores if getattr(one, name) is not None]
    return [number for number, _ in pairs], [100 * value for _, value in pairs]
