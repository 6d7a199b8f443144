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
    from store.evaluate import Progress, RetrievalSettings
    from store.features import FeatureSet
    from store.retrieval_scores import Labelled


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
    example: lesionary evaluate table --where "split = 'test'" --truth truth.csv --report reports
    """
    from store.comparison import PAPER_ROWS, ComparisonTable, row_of, scored_row, sets_of_row, verdicts_on
    from store.comparison_markdown import comparison_markdown
    from store.evaluate import RetrievalSettings
    from store.features import list_sets

    wanted = [row_of(text) for text in rows] if rows else list(PAPER_ROWS)
    settings = RetrievalSettings(repeats=repeats)
    with reading(lake, store) as (path, connection), live_line() as show:
        there = list_sets(connection)
        found = [(row, sets_of_row(row, there)) for row in wanted]
        if rows:
            _refuse_unknown(found, there)
        one_by_one = _Scorer(connection, path, settings, where, as_of, truth, show)
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
        show: "Progress",
    ) -> None:
        self._connection = connection
        self._path = path
        self._settings = settings
        self._where = where
        self._as_of = as_of
        self._truth = truth
        self._show = show

    def score(self, found: "FeatureSet") -> "SetScores":
        """Retrieval, and matching where a truth was given."""
        from store.comparison import SetScores
        from store.evaluate import evaluate_retrieval
        from store.evaluation_inputs import evaluate_matching_in_store, labelled_lesions
        from store.match_runs import MatchSettings

        name = found.feature_set_id
        labelled: Labelled = labelled_lesions(self._connection, self._path, found, self._where, self._as_of)
        retrieval = evaluate_retrieval(name, labelled, self._settings, lambda what: self._show(f"{name}: {what}"))
        matching = None
        if self._truth is not None:
            chosen = MatchSettings(name, None, None, None, self._where, self._as_of)
            matching = evaluate_matching_in_store(
                self._connection,
                self._path,
                found,
                self._truth,
                chosen,
                progress=lambda what: self._show(f"{name}: {what}"),
            )
        return SetScores(name, retrieval, matching)


def _write(folder: Path, record: str, text: str, scored: "list[tuple[WantedRow, list[SetScores]]]") -> None:
    from cli.figures.comparison import comparison_chart
    from cli.figures.gallery import write_chart
    from lesionary.artifacts import atomic_write_bytes

    write_chart(comparison_chart(scored), folder / "table.png")
    atomic_write_bytes(folder / "table.json", f"{record}\n".encode())
    atomic_write_bytes(folder / "table.md", f"{text}\n![table](table.png)\n".encode())
    note(f"report: {folder}/table.json, .md and .png")
