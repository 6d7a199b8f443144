"""Options that several commands share, each declared once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_LAKE = "lake"

LakeOption = Annotated[
    str,
    typer.Option(
        "--lake", envvar="LESIONARY_LAKE", metavar="DIR_OR_URL", help="The lake: a folder, or s3://…, gs://… ."
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        envvar="LESIONARY_STORE",
        metavar="FILE",
        help="The feature store; features.duckdb in the lake's folder unless named.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")]
PictureOption = Annotated[
    Path | None, typer.Option("--picture", metavar="FILE.png", help="Also write a picture to this file.")
]


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
