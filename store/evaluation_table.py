"""Table 1 of the Deep Lesion Graphs paper over any feature sets: retrieval, types and matching, mean ± sd over seeds.

All sets are scored on the same lesions: those that have a vector in every one of them. A row's standard deviation is
over its sets, so it needs two; what one set's figure owes to the chance of K-means or of the classifier's split is
averaged over repeats before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lesionary.errors import UsageError
from store.evaluate import Progress, RetrievalReport, RetrievalSettings, evaluate_retrieval
from store.evaluation_inputs import labelled_rows
from store.features import FeatureSet
from store.lineage import lake_versions
from store.retrieval_scores import RetrievalErrors
from store.selection import lesions_where
from store.shared_lesions import SharedLesions
from store.table_claims import Claim, claims_of, ordering_holds
from store.table_matching import MarksWithTruth, MatchingCurve, curve_of, marks_with_truth
from store.table_rows import Row
from store.truth_pairs import TruthSummary
from store.type_scores import Spread, spread

if TYPE_CHECKING:
    import duckdb

WHERE = "evaluate table"
T1_WHERE_OPTION = "--t1-where"


@dataclass(frozen=True, slots=True)
class TableSettings:
    """What is scored, and how."""

    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    where: str | None = None
    as_of: str | None = None
    truth: Path | None = None
    """Without it nothing is matched."""
    namespace: str | None = None
    """Of the truth's lesions, where several releases fit."""
    t1: float | None = None
    """Of all sets; as recorded for each unless given, and 0 where nothing is."""
    t1_where: str | None = None
    """Instead: lesions of other patients, on which the T1 of every set is chosen."""


@dataclass(frozen=True, slots=True)
class SetScores:
    """One feature set of the table."""

    feature_set: str
    model: str
    dimension: int
    lesions_with_vector: int
    """Of those that the condition leaves; the table keeps the ones that every set has."""
    retrieval: RetrievalReport
    matching: MatchingCurve | None


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row: its sets' figures as mean and standard deviation."""

    name: str
    title: str
    feature_sets: tuple[str, ...]
    figures: Mapping[str, Spread | None]
    """By the keys of `store.table_claims.COLUMNS`; None where no set of the row has it."""
    missing: tuple[str, ...]
    """Sets that it should have."""
    command: str | None
    """Makes them."""


@dataclass(frozen=True, slots=True)
class TableReport:
    """All that the command says."""

    lesions: int
    lesions_asked: int
    """Before those went that lack a vector in one of the sets."""
    patients: int
    lesions_of_known_type: int
    where: str | None
    as_of: str | None
    retrieval: RetrievalSettings
    truth: TruthSummary | None
    true_pairs: int | None
    """Pairs of scored lesions that the truth says are one; None without a truth."""
    true_pairs_of_a_study: int | None
    """Of these, those that only T1 can join."""
    t1_where: str | None
    rows: tuple[TableRow, ...]
    sets: tuple[SetScores, ...]
    claims: tuple[Claim, ...]
    ordering_holds: bool | None
    """None while a row that it takes is not there."""
    lake_versions: Mapping[str, int]


def evaluate_table(
    connection: "duckdb.DuckDBPyConnection",
    path: Path,
    rows: Sequence[Row],
    settings: TableSettings,
    progress: Progress = lambda _: None,
) -> TableReport:
    """Score every set of every row on the lesions that all of them have.

    Args:
        connection: on the store.
        path: of the store.
        rows: see `store.table_rows`; those without a set stay empty.
        settings: what is scored, and how.
        progress: told what is being done.

    Raises:
        UsageError: a setting makes no sense, the truth is none, or there are too few lesions.
        StoreError: the condition is none, or no lesion has a vector in every set.
    """
    sets = {one.feature_set_id: one for row in rows for one in row.sets}
    asked = lesions_where(connection, settings.where, settings.as_of)
    shared = SharedLesions.of(connection, path, list(sets.values()), asked, WHERE)
    matcher = _Matcher.of(connection, path, list(sets.values()), shared, settings)
    scores: dict[str, SetScores] = {}
    matched: _Matched | None = None
    for place, one in enumerate(sets.values(), start=1):

        def tell(what: str, place: int = place, name: str = one.feature_set_id) -> None:
            progress(f"{name} ({place} of {len(sets)}): {what}")

        labelled = labelled_rows(connection, shared.vectors[one.feature_set_id], shared.rows[one.feature_set_id])
        retrieval = evaluate_retrieval(one.feature_set_id, labelled, settings.retrieval, tell)
        matched = matcher.match(one, tell) if matcher is not None else None
        scores[one.feature_set_id] = SetScores(
            one.feature_set_id,
            one.model_id,
            one.dimension,
            shared.with_vector[one.feature_set_id],
            retrieval,
            matched.curve if matched else None,
        )
    first = next(iter(scores.values()), None)
    table = tuple(_table_row(row, scores) for row in rows)
    claims = claims_of({row.name: row.figures for row in table})
    return TableReport(
        lesions=len(shared.numbers),
        lesions_asked=len(asked),
        patients=first.retrieval.patients if first else 0,
        lesions_of_known_type=first.retrieval.lesions_of_known_type if first else 0,
        where=settings.where,
        as_of=settings.as_of,
        retrieval=settings.retrieval,
        # Of every set the same: all have the same lesions.
        truth=matched.summary if matched else None,
        true_pairs=matched.true_pairs if matched else None,
        true_pairs_of_a_study=matched.true_pairs_of_a_study if matched else None,
        t1_where=settings.t1_where,
        rows=table,
        sets=tuple(scores.values()),
        claims=claims,
        ordering_holds=ordering_holds(claims),
        lake_versions=lake_versions(connection),
    )


@dataclass(frozen=True, slots=True)
class _Matched:
    curve: MatchingCurve
    summary: TruthSummary
    true_pairs: int
    true_pairs_of_a_study: int


@dataclass(frozen=True, slots=True)
class _Matcher:
    """Matches the table's lesions in one set after the other."""

    connection: "duckdb.DuckDBPyConnection"
    path: Path
    settings: TableSettings
    truth: Path
    shared: SharedLesions
    others: SharedLesions | None
    """Those that T1 is chosen on."""

    @classmethod
    def of(
        cls,
        connection: "duckdb.DuckDBPyConnection",
        path: Path,
        sets: Sequence[FeatureSet],
        shared: SharedLesions,
        settings: TableSettings,
    ) -> "_Matcher | None":
        """None where no truth was given."""
        if settings.truth is None:
            return None
        others = None
        if settings.t1_where is not None:
            if settings.t1 is not None:
                raise UsageError("T1 is given or chosen", where=T1_WHERE_OPTION, next_step="leave --t1 out")
            asked = lesions_where(connection, settings.t1_where, settings.as_of, option=T1_WHERE_OPTION)
            others = SharedLesions.of(connection, path, sets, asked, T1_WHERE_OPTION)
        return cls(connection, path, settings, settings.truth, shared, others)

    def match(self, one: FeatureSet, progress: Progress) -> _Matched:
        """The curve of one set, and what the truth says of the lesions."""
        settings = self.settings

        def marks(lesions: SharedLesions, where: str | None) -> MarksWithTruth:
            return marks_with_truth(
                self.connection, self.path, one, lesions.lesion_ids, where, settings.as_of, self.truth,
                settings.namespace,
            )  # fmt: skip

        scored = marks(self.shared, settings.where)
        others = None if self.others is None else marks(self.others, settings.t1_where)
        common = scored.patient_ids & others.patient_ids if others else frozenset()
        if common:
            raise UsageError(
                f"T1 is chosen on other patients than are scored; {len(common)} are both",
                where=T1_WHERE_OPTION,
                next_step="for example --t1-where \"split = 'val'\" --where \"split = 'test'\"",
            )
        pairs, of_a_study = scored.pairs()
        return _Matched(curve_of(one, scored, settings.t1, others, progress), scored.truth.summary, pairs, of_a_study)


def _table_row(row: Row, scores: Mapping[str, SetScores]) -> TableRow:
    per_set = [figures_of(scores[one.feature_set_id]) for one in row.sets]
    keys = per_set[0] if per_set else {}
    return TableRow(
        name=row.name,
        title=row.title,
        feature_sets=tuple(one.feature_set_id for one in row.sets),
        figures={key: over_sets([figures[key] for figures in per_set]) for key in keys},
        missing=row.missing,
        command=row.command,
    )


def over_sets(values: Sequence[float | None]) -> Spread | None:
    """Mean and standard deviation of the figures that are known; None where none is."""
    known = [value for value in values if value is not None]
    return spread(known) if known else None


def figures_of(scores: SetScores) -> dict[str, float | None]:
    """One set's figures, by the keys of `COLUMNS`."""
    report, matching = scores.retrieval, scores.matching
    clusters, classifier = report.clusters, report.classifier
    return {
        **_errors("allowed", report.allowed),
        **_errors("excluded", report.excluded),
        "purity_percent": clusters.purity_percent.mean if clusters else None,
        "nmi_percent": clusters.nmi_percent.mean if clusters else None,
        "accuracy_percent": classifier.accuracy_percent.mean if classifier else None,
        "matching_auc": matching.auc if matching else None,
    }


def _errors(mode: str, errors: RetrievalErrors) -> dict[str, float | None]:
    return {
        f"type_error_{mode}": errors.type_percent.mean,
        f"location_error_{mode}": errors.location_percent.mean,
        f"size_error_{mode}": errors.size_percent.mean,
    }
