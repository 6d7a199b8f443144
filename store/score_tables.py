"""Evaluation reports as markdown: the figures, and beside them what they were made with."""

from collections.abc import Iterable, Sequence

from store.evaluate import MatchingReport, RetrievalReport
from store.lineage import Lineage
from store.matching_scores import PairScores
from store.retrieval_scores import PRECISION_DEPTHS, MeanError, RetrievalErrors
from store.type_scores import ClassifierScores, Spread

_NOTHING = "–"


def retrieval_markdown(report: RetrievalReport) -> str:
    """Errors in both patient modes, clusters, classifier and its confusion matrix."""
    normaliser = f"{report.settings.size_normaliser_mm:g} mm"
    parts = [
        f"# Retrieval with `{report.feature_set}`",
        (
            f"{report.lesions:,} lesions ({report.lesions_of_known_type:,} of known type) of {report.patients:,} "
            f"patients, {report.dimension} dimensions, Euclidean distance."
        ),
        (
            f"Average retrieval error over the first {report.settings.top} hits, with the 95 % interval over resampled "
            f"patients. Sizes are divided by {normaliser}."
        ),
        as_markdown_table(
            ("same patient", "type %", "location × 100", f"size × 100 / {normaliser}", "queries", "without a hit"),
            (_error_row(errors) for errors in (report.allowed, report.excluded)),
        ),
        "Precision at k: share of the first k hits with the query's type.",
        as_markdown_table(
            ("same patient", *(f"P@{k}" for k in PRECISION_DEPTHS)),
            (
                (_mode(errors), *(number(errors.precision_at[k], 3) for k in PRECISION_DEPTHS))
                for errors in (report.allowed, report.excluded)
            ),
        ),
        "## Types",
        *_type_parts(report),
    ]
    return "\n\n".join(parts) + "\n"


def lineage_markdown(lineage: Lineage) -> str:
    """One sentence on what a report was made with."""
    versions = ", ".join(f"{table} {version}" for table, version in lineage.lake_versions.items())
    return (
        f"Made by lesionary {lineage.lesionary} with `{lineage.feature_set}` of {lineage.model}; "
        f"versions of the lake's tables: {versions or 'unknown'}.\n"
    )


def _mode(errors: RetrievalErrors) -> str:
    return "allowed" if errors.same_patient else "excluded"


def _error_row(errors: RetrievalErrors) -> tuple[str, ...]:
    means = (errors.type_percent, errors.location_percent, errors.size_percent)
    counts = (f"{errors.queries:,}", f"{errors.queries_without_hit:,}")
    return (_mode(errors), *(_mean_error(mean) for mean in means), *counts)


def _mean_error(error: MeanError) -> str:
    if error.mean is None:
        return _NOTHING
    interval = "" if error.low is None else f" ({number(error.low)} to {number(error.high)})"
    return number(error.mean) + interval


def _type_parts(report: RetrievalReport) -> list[str]:
    rows: list[tuple[str, ...]] = []
    clusters, classifier = report.clusters, report.classifier
    if clusters is not None:
        made = f"K-means, k = {clusters.clusters}, best of {clusters.starts} starts"
        rows += [
            ("purity %", said_spread(clusters.purity_percent), made),
            ("NMI %", said_spread(clusters.nmi_percent), f"{made}, arithmetic mean of entropies"),
        ]
    if classifier is not None:
        made = "multinomial logistic regression, standardised features, patients halved"
        settled = "" if classifier.converged else ", did not converge"
        rows.append(("accuracy %", said_spread(classifier.accuracy_percent), made + settled))
    if not rows:
        return ["Too few lesions of known type for clusters or a classifier."]
    seeds = f"Mean ± standard deviation over {report.settings.repeats} seeds from {report.settings.seed}."
    parts = [seeds, as_markdown_table(("score", "value", "made with"), rows)]
    if classifier is not None:
        parts += ["Confusion, counts over all seeds; rows are the true types.", _confusion(classifier)]
    return parts


def _confusion(classifier: ClassifierScores) -> str:
    names = [name.replace("_", " ") for name in classifier.type_names]
    rows = ((name, *map(str, counts)) for name, counts in zip(names, classifier.confusion, strict=True))
    return as_markdown_table(("", *names), rows)


def matching_markdown(report: MatchingReport) -> str:
    """Scores at the thresholds, the best point of the sweep, its area and the whole sweep."""
    truth, best = report.truth, report.sweep.best
    parts = [
        f"# Matching with `{report.feature_set}`",
        (
            f"Truth: {truth.kind}, {truth.lesions:,} lesions in {truth.groups:,} groups of {report.patients:,} "
            f"patients; {report.scores.pairs:,} same-patient pairs, {report.scores.positives:,} of them positive."
        ),
        *_shortcomings(report),
        as_markdown_table(
            ("", "T1", "T2", *_SCORE_HEADER),
            (
                ("chosen", _threshold(report.t1), _threshold(report.t2), *_score_cells(report.scores)),
                ("best F1 of the sweep", _threshold(report.sweep.t1), _threshold(best.t2), *_score_cells(best.scores)),
            ),
        ),
        (
            f"Area under precision over recall: {number(report.sweep.auc, 4)}, from recall 0 to "
            f"{number(report.sweep.last_recall, 3)}, not extended beyond."
        ),
        "## Sweep",
        as_markdown_table(
            ("T2", *_SCORE_HEADER),
            ((_threshold(point.t2), *_score_cells(point.scores)) for point in report.sweep.points),
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _shortcomings(report: MatchingReport) -> list[str]:
    truth, sentences = report.truth, []
    if truth.unresolved:
        examples = ", ".join(truth.unresolved_examples)
        sentences.append(
            f"{truth.unresolved:,} of {truth.mentions:,} mentions in the truth are of lesions that are not here "
            f"({examples}{' …' if truth.unresolved > len(truth.unresolved_examples) else ''})."
        )
    if truth.across_patients:
        sentences.append(f"{truth.across_patients:,} pairs across two patients were not used.")
    return [" ".join(sentences)] if sentences else []


_SCORE_HEADER = ("precision", "recall", "F1", "TP", "FP", "FN")


def _score_cells(scores: PairScores) -> tuple[str, ...]:
    ratios = (number(value, 3) for value in (scores.precision, scores.recall, scores.f1))
    return (*ratios, f"{scores.tp:,}", f"{scores.fp:,}", f"{scores.fn:,}")


def _threshold(value: float) -> str:
    return f"{value:.4g}"


def number(value: float | None, digits: int = 2) -> str:
    """A figure with so many digits behind the point; a dash for none."""
    return _NOTHING if value is None else f"{value:.{digits}f}"


def said_spread(spread: Spread | None, digits: int = 1) -> str:
    """Mean ± standard deviation; the mean alone of a single value."""
    if spread is None:
        return _NOTHING
    mean = f"{spread.mean:.{digits}f}"
    return mean if spread.sd is None else f"{mean} ± {spread.sd:.{digits}f}"


def as_markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of text as a markdown table."""
    # A bar in a cell would end it.
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
