"""An evaluation table as markdown: rows and columns, what is missing beside its command, and the paper's claims."""

from collections.abc import Iterator, Mapping, Sequence

from lesionary import __version__
from store.evaluation_table import TableReport, TableRow
from store.score_tables import as_markdown_table, number, said_spread
from store.table_claims import COLUMNS, Claim, Column, Comparison
from store.table_matching import MatchingCurve
from store.table_rows import FULL

_NOTHING = "–"
_VERDICTS: Mapping[bool | None, str] = {True: "yes", False: "no", None: "not known yet"}


def table_markdown(report: TableReport) -> str:
    """The whole report."""
    parts = [
        "# Feature sets side by side",
        _about(report),
        *_mode_tables(report),
        *_missing(report.rows),
        "## The paper's ordering",
        verdict(report),
        _claims(report.claims),
        *_sets(report),
        _made_with(report),
    ]
    return "\n\n".join(parts) + "\n"


def verdict(report: TableReport) -> str:
    """One sentence: whether the ordering of the paper's Table 1 holds here."""
    asked = [claim for claim in report.claims if claim.part_of_ordering]
    if report.ordering_holds is None:
        open_ones = "; ".join(claim.sentence for claim in asked if claim.holds is None)
        return f"Whether the ordering of the paper's Table 1 holds cannot be told yet: {open_ones}?"
    if not report.ordering_holds:
        failed = "; ".join(claim.sentence for claim in asked if claim.holds is False)
        return f"The ordering of the paper's Table 1 does not hold here. Not so: {failed}."
    lacking = [row.name for row in report.rows if not row.feature_sets]
    among = " among the rows that are there" if lacking else ""
    held = f"The ordering of the paper's Table 1 holds here{among}: {'; '.join(claim.sentence for claim in asked)}."
    ties = [one for claim in asked for one in claim.comparisons if one.gap_in_sd is not None and one.gap_in_sd < 1]
    if ties:
        listed = "; ".join(f"{_column_text(one)}, {one.row} against {one.other}" for one in ties)
        held += f" By less than one standard deviation, no more than a tie: {listed}."
    return held + (f" Rows that are not there yet: {', '.join(lacking)}." if lacking else "")


def _about(report: TableReport) -> str:
    settings = report.retrieval
    condition = "".join(
        f" with {option} `{value}`"
        for option, value in (("--where", report.where), ("--as-of", report.as_of))
        if value is not None
    )
    left_out = report.lesions_asked - report.lesions
    lacking = f"; {left_out:,} more lack a vector in one of the sets" if left_out else ""
    return (
        f"{report.lesions:,} lesions ({report.lesions_of_known_type:,} of known type) of {report.patients:,} patients"
        f"{condition}{lacking}. Errors are means over the first {settings.top} hits; location and size times 100, "
        f"sizes over {settings.size_normaliser_mm:g} mm. Mean ± standard deviation over a row's sets; the best mean "
        f"of each column is bold. Clusters and classifier: mean over {settings.repeats} repeats for each set."
    )


def _mode_tables(report: TableReport) -> Iterator[str]:
    rest = [column for column in COLUMNS if column.mode is None]
    if report.truth is None:
        rest = [column for column in rest if column.key != "matching_auc"]
    for mode, more in (("allowed", rest), ("excluded", [])):
        columns = [*(column for column in COLUMNS if column.mode == mode), *more]
        yield f"## Same patient {mode}"
        yield _table(report.rows, columns)


def _table(rows: Sequence[TableRow], columns: Sequence[Column]) -> str:
    best = {column.key: best_row(rows, column) for column in columns}
    header = ("row", "sets", *(column.title for column in columns))
    lines = []
    for row in rows:
        cells = []
        for column in columns:
            cell = said_spread(row.figures.get(column.key), column.digits)
            cells.append(f"**{cell}**" if best[column.key] == row.name else cell)
        name = row.name if row.title == row.name else f"{row.name}: {row.title}"
        lines.append((name, sets_text(row), *cells))
    return as_markdown_table(header, lines)


def best_row(rows: Sequence[TableRow], column: Column) -> str | None:
    """Name of the row with the best mean, the first of equal ones; None where there is nothing to choose from."""
    found = [(figure.mean, row.name) for row in rows if (figure := row.figures.get(column.key)) is not None]
    if len(found) < 2:
        return None
    return (min if column.lower_is_better else max)(found, key=lambda pair: pair[0])[1]


def sets_text(row: TableRow) -> str:
    """How many sets a row has, of how many it should have."""
    there, lacking = len(row.feature_sets), len(row.missing)
    return f"{there} of {there + lacking}" if lacking else str(there)


def _missing(rows: Sequence[TableRow]) -> list[str]:
    lines = [
        (row.name, ", ".join(row.missing), f"`{row.command}`")
        for row in rows
        if row.missing and row.command is not None
    ]
    if not lines:
        return []
    return [
        "## What is not there, and what makes it",
        "Figures are never filled in: these rows, or seeds, stand empty until their sets are made and synced.",
        as_markdown_table(("row", "sets", "command, then `lesionary sync`"), lines),
    ]


def _claims(claims: Sequence[Claim]) -> str:
    lines: list[tuple[str, ...]] = []
    for claim in claims:
        sentence = claim.sentence + ("" if claim.part_of_ordering else " (beside the ordering)")
        if not claim.comparisons:
            lines.append((sentence, *[_NOTHING] * 5, _VERDICTS[claim.holds]))
        for place, one in enumerate(claim.comparisons):
            lines.append((sentence if place == 0 else "", *_comparison(one), _VERDICTS[one.holds]))
    note = (
        "A gap is positive where the claim holds, and told in units of the standard deviation of the difference "
        f"over seeds, which is rough where there are two or three; {FULL} is the full triplet."
    )
    header = ("claim", "column", "row", "against", "gap", "in sd", "holds")
    return as_markdown_table(header, lines) + "\n\n" + note


def _comparison(one: Comparison) -> tuple[str, ...]:
    digits = _column(one).digits + 1
    return (
        _column_text(one),
        f"{one.row} {one.mean:.{digits}f}",
        f"{one.other} {one.other_mean:.{digits}f}",
        f"{one.gap:+.{digits}f}",
        _NOTHING if one.gap_in_sd is None else f"{one.gap_in_sd:+.1f}",
    )


def _column(one: Comparison) -> Column:
    return next(column for column in COLUMNS if column.key == one.column)


def _column_text(one: Comparison) -> str:
    column = _column(one)
    return column.title + ("" if column.mode is None else f", same patient {column.mode}")


def _sets(report: TableReport) -> list[str]:
    """What each set is and, where there is a truth, how it matches."""
    header: tuple[str, ...] = ("feature set", "made by", "dimensions", "lesions")
    parts = ["## Feature sets"]
    if report.truth is not None:
        truth = report.truth
        header = (*header, "T1", "AUC", "last recall", "best F1", "at T2")
        parts.append(
            f"Truth: {truth.kind}, {truth.lesions:,} lesions in {truth.groups:,} groups. Area under precision over "
            "recall as T2 rises, from recall 0 to the last recall, not extended beyond. " + _about_t1(report)
        )
    lines = [
        (
            f"`{one.feature_set}`",
            one.model,
            str(one.dimension),
            f"{one.lesions_with_vector:,}",
            *([] if one.matching is None else _matching_cells(one.matching)),
        )
        for one in report.sets
    ]
    return [*parts, as_markdown_table(header, lines)] if lines else []


def _about_t1(report: TableReport) -> str:
    joined = (
        f"{report.true_pairs_of_a_study or 0:,} of {report.true_pairs or 0:,} true pairs are of one study, where only "
        "T1 joins them. "
    )
    if report.t1_where is not None:
        return joined + f"T1 of every set: the one with the largest area on other patients, `{report.t1_where}`."
    if len(report.sets) < 2:
        return joined
    return joined + (
        "T1 is not chosen alike for these sets (recorded: in its own way for each; without any it is 0), and the area "
        "hangs on it: compare areas with `--t1-where`, such as \"split = 'val'\"."
    )


def _matching_cells(found: MatchingCurve) -> tuple[str, ...]:
    return (
        f"{found.t1:.4g}" + ("" if found.t1_from == "none" else f" ({found.t1_from})"),
        number(found.auc, 3),
        number(found.last_recall, 3),
        number(found.best_f1, 3),
        f"{found.best_t2:.4g}",
    )


def _made_with(report: TableReport) -> str:
    versions = ", ".join(f"{table} {version}" for table, version in report.lake_versions.items())
    return f"Made by lesionary {__version__}; versions of the lake's tables: {versions or 'unknown'}."
