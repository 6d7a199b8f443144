"""`lesionary evaluate table`: feature sets side by side, as in the papers' Table 1."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import live_line, note
from cli.options import DEFAULT_LAKE, AsOfOption, JsonOption, LakeOption, StoreOption, WhereOption
from cli.reading import reading
from cli.render import as_json_text
from lesionary.errors import UsageError

if TYPE_CHECKING:
    import duckdb

    from store.comparison import SetScores, WantedRow
    from store.evaluate import MatchingReport, Progress, RetrievalSettings
    from store.features import FeatureSet
    from store.retrieval_scores import Labelled

# Candidates for T1: shares of a study's pairs of marks that lie nearer to each other.
_T1_QUANTILES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.3)


def table(
    rows: Annotated[
        list[str] | None,
        typer.Option(
            "--row",
            metavar="SET|LABEL=SET,SET,…",
            help="A row; may be repeated. NAME also takes NAME-s0, NAME-s1, … (seeds). [the paper's eight rows]",
        ),
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="What is one lesion, for the matching area; see `matching`."),
    ] = None,
    t1_where: Annotated[
        str | None,
        typer.Option(
            "--t1-where",
            metavar="SQL",
            help="Choose each set's T1 on these lesions, by the matching area there. [T1 as recorded for the set]",
        ),
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, max=100, help="Seeds of K-means and classifier.")] = 3,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write table.json, .md and .png here.")
    ] = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Compare feature sets: errors of type, place and size, clusters, a classifier, matching; mean ± sd over seeds.

    Rows without a set stand empty beside the command that makes one. Score lesions that no model has learnt from, for
    example: lesionary evaluate table --where "split = 'test'" --truth truth.csv --t1-where "split = 'val'" --report out
    """
    from store.comparison import PAPER_ROWS, ComparisonTable, row_of, scored_row, sets_of_row, verdicts_on
    from store.comparison_markdown import comparison_markdown
    from store.evaluate import RetrievalSettings
    from store.features import list_sets

    if t1_where is not None and truth is None:
        raise UsageError("a T1 is chosen for matching", where="--t1-where", next_step="add --truth FILE")
    wanted = [row_of(text) for text in rows] if rows else list(PAPER_ROWS)
    settings = RetrievalSettings(repeats=repeats)
    with reading(lake, store) as (path, connection), live_line() as show:
        there = list_sets(connection)
        found = [(row, sets_of_row(row, there)) for row in wanted]
        if rows:
            _refuse_unknown(found, there)
        one_by_one = _Scorer(connection, path, settings, where, as_of, truth, t1_where, show)
        scored = [(row, [one_by_one.score(one) for one in sets]) for row, sets in found]
    lines = [scored_row(row, scores) for row, scores in scored]
    every = [score for _, scores in scored for score in scores]
    if not every:
        raise UsageError(
            "the store has none of the table's feature sets", next_step="`lesionary features list` shows what it has"
        )
    most = max((score.retrieval for score in every), key=lambda report: report.lesions)
    answer = ComparisonTable(
        tuple(lines), verdicts_on(lines), most.lesions, most.patients, settings.top, settings.size_normaliser_mm
    )
    record, text = as_json_text(asdict(answer)), comparison_markdown(answer)
    if report_folder is not None:
        _write(report_folder, record, text, scored)
    print(record if as_json else text)


def _refuse_unknown(found: "list[tuple[WantedRow, list[FeatureSet]]]", there: "list[FeatureSet]") -> None:
    for row, sets in found:
        if not sets:
            known = ", ".join(dict.fromkeys(one.name for one in there))
            raise UsageError(
                "the store has no such feature set", where=f"--row {row.label}", next_step=f"it has {known}"
            )


class _Scorer:
    """Scores sets one after the other on the same lesions."""

    def __init__(
        self,
        connection: "duckdb.DuckDBPyConnection",
        path: Path,
        settings: "RetrievalSettings",
        where: str | None,
        as_of: str | None,
        truth: Path | None,
        t1_where: str | None,
        show: "Progress",
    ) -> None:
        self._connection = connection
        self._path = path
        self._settings = settings
        self._where = where
        self._as_of = as_of
        self._truth = truth
        self._t1_where = t1_where
        self._show = show

    def score(self, found: "FeatureSet") -> "SetScores":
        """Retrieval, and matching where a truth was given."""
        from store.comparison import SetScores
        from store.evaluate import evaluate_retrieval
        from store.evaluation_inputs import labelled_lesions

        name = found.feature_set_id
        labelled: Labelled = labelled_lesions(self._connection, self._path, found, self._where, self._as_of)
        retrieval = evaluate_retrieval(name, labelled, self._settings, lambda what: self._show(f"{name}: {what}"))
        if self._truth is None:
            return SetScores(name, retrieval, None)
        t1 = None if self._t1_where is None else self._chosen_t1(found, self._truth, self._t1_where)
        return SetScores(name, retrieval, self._matching(found, self._truth, self._where, t1))

    def _matching(self, found: "FeatureSet", truth: Path, where: str | None, t1: float | None) -> "MatchingReport":
        """A sweep of T2; T1 as recorded unless given."""
        from store.evaluation_inputs import evaluate_matching_in_store
        from store.match_runs import MatchSettings

        name = found.feature_set_id
        return evaluate_matching_in_store(
            self._connection,
            self._path,
            found,
            truth,
            # With a T1 of its own any T2 will do: the sweep has its own.
            MatchSettings(name, t1, t1, None, where, self._as_of),
            progress=lambda what: self._show(f"{name}: {what}"),
        )

    def _chosen_t1(self, found: "FeatureSet", truth: Path, where: str) -> float:
        """The T1 with the largest area on other lesions than those that are scored; of equal ones the smallest."""
        from store.evaluation_inputs import same_study_distances
        from store.match_runs import MatchSettings

        settings = MatchSettings(found.feature_set_id, None, None, None, where, self._as_of)
        candidates = same_study_distances(self._connection, self._path, found, settings, _T1_QUANTILES)
        areas = [self._matching(found, truth, where, t1).sweep.auc or 0.0 for t1 in candidates]
        return candidates[areas.index(max(areas))]


def _write(folder: Path, record: str, text: str, scored: "list[tuple[WantedRow, list[SetScores]]]") -> None:
    from cli.figures.comparison import comparison_chart
    from cli.figures.gallery import write_chart
    from lesionary.artifacts import atomic_write_bytes

    write_chart(comparison_chart(scored), folder / "table.png")
    atomic_write_bytes(folder / "table.json", f"{record}\n".encode())
    atomic_write_bytes(folder / "table.md", f"{text}\n![table](table.png)\n".encode())
    note(f"report: {folder}/table.json, .md and .png")
