"""`lesionary evaluate`: how good a feature set is at finding similar lesions, and the same lesion again."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import evaluate_categories, evaluate_detection, evaluate_masks, evaluate_ssbr, evaluate_table
from cli.console import live_line
from cli.options import (
    DEFAULT_LAKE,
    AsOfOption,
    FeatureSetOption,
    JsonOption,
    LakeOption,
    PictureOption,
    StoreOption,
    T1Option,
    T2Option,
    WhereOption,
    numbers_of,
)
from cli.reading import reading
from cli.render import as_json_text
from cli.report_files import write_report
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from store.evaluate import MatchingReport, RetrievalReport
    from store.lineage import Lineage

app = typer.Typer(help="Measure what a feature set is good for.", no_args_is_help=True)

app.command("table")(evaluate_table.table)
app.command("ssbr")(evaluate_ssbr.ssbr)
app.command("detection")(evaluate_detection.detection)
app.command("masks")(evaluate_masks.masks)
app.command("categories")(evaluate_categories.categories)

ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report", metavar="FOLDER", help="Also write the report into this folder, as JSON, markdown and PNG."
    ),
]


@app.command()
def retrieval(
    top: Annotated[int, typer.Option("--top", min=1, max=1_000, help="Errors are means over so many hits.")] = 5,
    size_normaliser_mm: Annotated[
        float,
        typer.Option("--size-normaliser-mm", min=1e-3, help="Diameters are divided by this before they are compared."),
    ] = 100.0,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=100, help="Seeds of K-means and of the classifier's split.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first seed.")] = 0,
    clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, help="Clusters of K-means [as many as there are types].")
    ] = None,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    feature_set: FeatureSetOption = "location",
    picture: PictureOption = None,
    report_folder: ReportOption = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Score similar-lesion search: errors of type, location and size, precision at k, clusters, a classifier.

    Every lesion is looked up among all others, once with its patient's other lesions as hits and once without.
    """
    from store.evaluate import RetrievalSettings, evaluate_retrieval
    from store.evaluation_inputs import labelled_lesions
    from store.features import find_set
    from store.lineage import lineage_of
    from store.score_tables import retrieval_markdown

    settings = RetrievalSettings(top, size_normaliser_mm, seed, repeats, clusters)
    with reading(lake, store) as (path, connection), live_line() as show:
        found = find_set(connection, feature_set)
        labelled = labelled_lesions(connection, path, found, where, as_of)
        lineage = lineage_of(connection, found)
        report = evaluate_retrieval(found.feature_set_id, labelled, settings, show)

    def chart() -> bytes:
        from cli.figures.curves import retrieval_chart

        return retrieval_chart(report)

    _say("retrieval", report, lineage, retrieval_markdown(report), chart, picture, report_folder, as_json=as_json)


@app.command()
def matching(
    truth: Annotated[
        Path,
        typer.Option(
            "--truth",
            metavar="FILE",
            help="What is one lesion: tracking pairs (JSON), lesion_id,lesion_id or lesion_id,group (CSV), or a "
            "phantom's truth.csv.",
        ),
    ],
    t1: T1Option = None,
    t2: T2Option = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", metavar="T2,T2,…", help="Thresholds of the sweep [taken from the distances]."),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", metavar="NAME", help="Where the truth's lesions are, if several releases fit."),
    ] = None,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    feature_set: FeatureSetOption = "location",
    picture: PictureOption = None,
    report_folder: ReportOption = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Score `match` against known groups: pairwise precision, recall and F1, a sweep of T2, the area under the curve.

    Only lesions that the truth names are counted. It may be incomplete: pairs it does not have count as wrong.
    """
    from store.evaluation_inputs import evaluate_matching_in_store
    from store.features import find_set
    from store.lineage import lineage_of
    from store.match_runs import MatchSettings
    from store.score_tables import matching_markdown

    t2_values = None if sweep is None else numbers_of(sweep, "--sweep")
    if t2_values and min(t2_values) < 0:
        raise UsageError("a distance cannot be negative", where="--sweep", next_step="give numbers of 0 or more")
    settings = MatchSettings(feature_set, t1, t2, None, where, as_of)
    with reading(lake, store) as (path, connection), live_line() as show:
        found = find_set(connection, feature_set)
        report = evaluate_matching_in_store(
            connection, path, found, truth, settings, namespace=namespace, t2_values=t2_values, progress=show
        )
        lineage = lineage_of(connection, found)

    def chart() -> bytes:
        from cli.figures.curves import matching_chart

        return matching_chart(report)

    _say("matching", report, lineage, matching_markdown(report), chart, picture, report_folder, as_json=as_json)


def _say(
    name: str,
    report: "RetrievalReport | MatchingReport",
    lineage: "Lineage",
    markdown: str,
    chart: Callable[[], bytes],
    picture: Path | None,
    folder: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print a report, and write the files that were asked for."""
    from store.evaluate import as_record
    from store.score_tables import lineage_markdown

    record = as_json_text({"lineage": asdict(lineage)} | as_record(report))
    text = markdown + "\n" + lineage_markdown(lineage)
    # Files before anything is printed: whoever reads may close the pipe early.
    if picture is not None or folder is not None:
        write_report(name, record, text, chart(), picture, folder)
    print(record if as_json else text)
