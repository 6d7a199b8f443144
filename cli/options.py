"""Options that several commands share, each declared once."""

import math
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lesionary.errors import UsageError

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
WhereOption = Annotated[
    str | None,
    typer.Option(
        "--where",
        metavar="SQL",
        help="Only lesions for which this condition over lesion_features holds, such as \"lesion_type = 'liver'\".",
    ),
]
FeatureSetOption = Annotated[
    str,
    typer.Option(
        "--feature-set",
        envvar="LESIONARY_FEATURE_SET",
        metavar="NAME",
        help="A feature set, or name@version; `lesionary features list` has them.",
    ),
]
AsOfOption = Annotated[
    str | None,
    typer.Option(
        "--as-of",
        metavar="DAY",
        help="Only what was known by this day of each patient's course, or by a study: study:N.",
    ),
]
T1Option = Annotated[
    float | None,
    typer.Option("--t1", min=0, help="Marks of one study below this distance are one lesion [recorded per set]."),
]
T2Option = Annotated[
    float | None,
    typer.Option("--t2", min=0, help="Marks of two studies above it are two lesions [recorded per set]."),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        envvar="LESIONARY_RAY_ADDRESS",
        help="A running Ray cluster, or local for one of our own; none = Ray only where it pays.",
    ),
]
ModelsOption = Annotated[int, typer.Option("--workers", min=1, help="Models at work at once; more than 1 run on Ray.")]
GpusOption = Annotated[float, typer.Option("--gpus", min=0, help="GPUs of each worker, such as 0.5.")]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]


class Precision(StrEnum):
    """How a network's convolutions and products compute."""

    FP32 = "fp32"
    BF16 = "bf16"


class Format(StrEnum):
    """How rows are printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def chosen_format(*, as_json: bool, as_csv: bool) -> Format:
    """The form that the flags ask for.

    Raises:
        UsageError: they ask for two.
    """
    if as_json and as_csv:
        raise UsageError("an answer has one form", where="--json, --csv", next_step="choose one")
    return Format.JSON if as_json else Format.CSV if as_csv else Format.TABLE


def numbers_of(text: str, option: str) -> list[float]:
    """Numbers separated by commas.

    Raises:
        UsageError: a part is no number, or not a finite one.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise UsageError("numbers separated by commas are needed", where=option, next_step="for example 0.4,0.5,0.6")
    return numbers
