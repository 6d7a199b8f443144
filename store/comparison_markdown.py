"""The papers' table as markdown."""

from collections.abc import Sequence

from store.comparison import ComparisonTable, ScoredRow, Verdict
from store.score_tables import as_markdown_table, said_spread

_NOTHING = "–"
_HEADER = (
    "features", "sets", "type %", "location", "size", "purity %", "NMI %", "accuracy %", "matching area",
)  # fmt: skip


def comparison_markdown(table: ComparisonTable) -> str:
    """Two blocks of errors (same patient allowed, excluded), the commands of empty rows, and the verdicts."""
    parts = [
        "# Feature sets compared",
        (
            f"{table.lesions:,} lesions of {table.patients:,} patients. Errors are means over the first {table.top} "
            f"hits, locations times 100, sizes times 100 over {table.size_normaliser_mm:g} mm; ± is the standard "
            "deviation over the sets of a row, one for each seed."
        ),
    ]
    for mode in ("allowed", "excluded"):
        parts += [
            f"## Hits of the query's own patient {mode}",
            as_markdown_table(_HEADER, (_cells(row, mode) for row in table.rows)),
        ]
    missing = [row for row in table.rows if not row.sets]
    if missing:
        made = [f"* {row.label}: `{row.command}`" if row.command else f"* {row.label}" for row in missing]
        parts += ["Rows without a set, and what makes one:", "\n".join(made)]
    parts += [
        "## The paper's ordering",
        as_markdown_table(("claim", "holds", "gap", "gap in sd"), map(_said, table.verdicts)),
    ]
    return "\n\n".join(parts) + "\n"


def _cells(row: ScoredRow, mode: str) -> Sequence[str]:
    errors = (f"type_{mode}", f"location_{mode}", f"size_{mode}")
    return (
        row.label,
        str(len(row.sets)) if row.sets else _NOTHING,
        *(said_spread(row.scores.get(name)) for name in (*errors, "purity", "nmi", "accuracy")),
        said_spread(row.scores.get("matching_auc"), 3),
    )


def _said(verdict: Verdict) -> Sequence[str]:
    holds = _NOTHING if verdict.holds is None else "yes" if verdict.holds else "no"
    gap = _NOTHING if verdict.gap is None else f"{verdict.gap:.3g}"
    return verdict.claim, holds, gap, _NOTHING if verdict.sds is None else f"{verdict.sds:.1f}"
