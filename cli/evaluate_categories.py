"""`lesionary evaluate categories`: mined categories against types, round by round."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, PictureOption
from cli.render import as_json_text
from cli.report_files import write_report


def categories(
    model: Annotated[
        str | None, typer.Option("--model", metavar="MODEL", help="A categoriser: its id, or name. [the newest]")
    ] = None,
    truth: Annotated[
        Path | None,
        typer.Option("--truth", metavar="FILE", help="A phantom's truth.csv, for every lesion's type. [the lake's]"),
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", help="That the phantom was ingested under.")] = "dl",
    picture: PictureOption = None,
    report_folder: Annotated[
        Path | None, typer.Option("--report", metavar="FOLDER", help="Also write categories.json, .md and .png here.")
    ] = None,
    as_json: JsonOption = False,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Score categories against types: purity and mutual information of every round, and how rounds came to agree.

    Types are looked at here only: mining never sees them.
    """
    from cli.category_report import category_markdown, category_report, true_types
    from lesionary.lake import Lake
    from lesionary.models import find_model

    types = None if truth is None else true_types(truth, namespace)
    opened = Lake.open(lake)
    report = category_report(opened, find_model(opened, model, "categoriser"), types)
    record, text = as_json_text(asdict(report)), category_markdown(report)
    # Files before anything is printed: whoever reads may close the pipe early.
    if picture is not None or report_folder is not None:
        from cli.figures.categories import categories_chart

        write_report("categories", record, text, categories_chart(report), picture, report_folder)
    print(record if as_json else text)
