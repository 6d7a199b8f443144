"""`lesionary evaluate table`: feature sets side by side, as the Deep Lesion Graphs paper's Table 1."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import live_line, note
from cli.options import (
    DEFAULT_LAKE,
    AsOfOption,
    JsonOption,
    LakeOption,
    PictureOption,
    StoreOption,
    WhereOption,
)
from cli.reading import reading
from cli.render import as_json_text

if TYPE_CHECKING:
    from store.evaluation_table import TableReport

_NAME, _CURVES_NAME = "table", "table-matching"


def table(
    feature_sets: Annotated[
        list[str] | None,
        typer.Option(
            "--feature-set",
            "--row",
            metavar="SET|ROW|LABEL=SET,SET…",
            help="A row, or several with commas; may be repeated. Sets ROW, ROW-s0, ROW-s1 … are one row over seeds, "
            "and so are those of LABEL=SET,SET. [the rows of --expect]",
        ),
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="paper|ROW,ROW…",
            help="Rows that the table should have: one that is not there stands empty beside the command that makes "
            "it. paper = the eight rows of the paper's table. [paper, unless --feature-set is given]",
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, max=100, help="How many seeds an expected row of a model should have.")
    ] = 3,
    truth: Annotated[
        Path | None,
        typer.Option(
            "--truth", metavar="FILE", help="Also match, and compare with this; as `evaluate matching` takes it."
        ),
    ] = None,
    t1: Annotated[
        float | None,
        typer.Option(
            "--t1", min=0, help="Marks of one study below this distance are one lesion. [recorded per set, else 0]"
        ),
    ] = None,
    t1_where: Annotated[
        str | None,
        typer.Option(
            "--t1-where",
            metavar="SQL",
            help="Choose T1 for every set alike: the one with the largest area on these lesions, of patients who are "
            "not scored.",
        ),
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", metavar="NAME", help="Where the truth's lesions are, if several releases fit."),
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, max=1_000, help="Errors are means over so many hits.")] = 5,
    size_normaliser_mm: Annotated[
        float,
        typer.Option("--size-normaliser-mm", min=1e-3, help="Diameters are divided by this before they are compared."),
    ] = 100.0,
    repeats: Annotated[
        int,
        typer.Option("--repeats", min=1, max=100, help="Seeds of K-means and of the classifier's split, for each set."),
    ] = 3,
    seed: Annotated[int, typer.Option("--seed", min=0, help="The first of these.")] = 0,
    clusters: Annotated[
        int | None, typer.Option("--clusters", min=1, help="Clusters of K-means [as many as there are types].")
    ] = None,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    picture: PictureOption = None,
    curves: Annotated[
        Path | None,
        typer.Option(
            "--curves", metavar="FILE.png", help="With --truth: all rows' precision over recall in one chart."
        ),
    ] = None,
    report_folder: Annotated[
        Path | None,
        typer.Option("--report", metavar="FOLDER", help="Also write table.json, .md and .png here, and the curves."),
    ] = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Put feature sets side by side, over seeds: the Deep Lesion Graphs paper's Table 1, and whether its order holds.

    Every set is scored on the same lesions. For example: lesionary evaluate table --where "split = 'test'" --truth FILE
    """
    from lesionary.errors import UsageError
    from store.evaluate import RetrievalSettings
    from store.evaluation_table import TableSettings, evaluate_table
    from store.features import list_sets
    from store.table_markdown import table_markdown
    from store.table_rows import PAPER, expected_rows, named_rows, with_expected

    if truth is None and any(value is not None for value in (curves, t1, t1_where, namespace)):
        raise UsageError(
            "nothing is matched without a truth", where="--curves, --t1, --t1-where, --namespace",
            next_step="add --truth FILE",
        )  # fmt: skip
    settings = TableSettings(
        RetrievalSettings(top, size_normaliser_mm, seed, repeats, clusters),
        where,
        as_of,
        truth,
        namespace,
        t1,
        t1_where,
    )
    expected = expected_rows(expect or ([] if feature_sets else [PAPER]))
    with reading(lake, store) as (path, connection), live_line() as show:
        known = list_sets(connection)
        rows = with_expected(named_rows(feature_sets or [], known), expected, known, seeds)
        report = evaluate_table(connection, path, rows, settings, show)
    text = table_markdown(report)
    record = as_json_text(dataclasses.asdict(report))
    # Files before anything is printed: whoever reads may close the pipe early.
    _write_files(report, record, text, picture, curves, report_folder)
    print(record if as_json else text)


def _write_files(
    report: "TableReport", record: str, text: str, picture: Path | None, curves: Path | None, folder: Path | None
) -> None:
    if picture is None and curves is None and folder is None:
        return
    from cli.figures.gallery import write_chart
    from cli.figures.tables import curves_chart, table_chart
    from lesionary.artifacts import atomic_write_bytes

    drawn = table_chart(report) if picture is not None or folder is not None else b""
    drawn_curves = curves_chart(report) if report.truth is not None else b""
    if picture is not None:
        write_chart(drawn, picture)
        note(f"picture: {picture}")
    if curves is not None:
        write_chart(drawn_curves, curves)
        note(f"curves: {curves}")
    if folder is None:
        return
    shown = f"\n![{_NAME}]({_NAME}.png)\n"
    write_chart(drawn, folder / f"{_NAME}.png")
    if drawn_curves:
        write_chart(drawn_curves, folder / f"{_CURVES_NAME}.png")
        shown += f"\n![{_CURVES_NAME}]({_CURVES_NAME}.png)\n"
    atomic_write_bytes(folder / f"{_NAME}.json", f"{record}\n".encode())
    atomic_write_bytes(folder / f"{_NAME}.md", f"{text}{shown}".encode())
    note(f"report: {folder}/{_NAME}.json, .md and .png" + (f", {_CURVES_NAME}.png" if drawn_curves else ""))
