"""`lesionary features`: the ways of turning lesions into vectors that the store knows."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.console import note
from cli.options import DEFAULT_LAKE, AsOfOption, ForceOption, Format, JsonOption, LakeOption, StoreOption, WhereOption
from cli.reading import reading
from cli.render import write_json, write_mapping, write_rows
from lesionary.errors import UsageError

app = typer.Typer(help="Feature sets: how lesions become vectors.", no_args_is_help=True)

SetArgument = Annotated[str, typer.Argument(metavar="SET", help="Its name (the newest version), or name@version.")]


class Part(StrEnum):
    """Parts of a training set."""

    ALL = "all"
    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class SplitBy(StrEnum):
    """What decides which part a patient is in."""

    SOURCE = "source"
    PATIENT = "patient"


@app.command("list")
def list_all(lake: LakeOption = DEFAULT_LAKE, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """List every feature set: who made it, how large it is, how it is searched."""
    from store.features import list_sets

    with reading(lake, store) as (_, connection):
        sets = list_sets(connection)
    columns = (
        "feature_set_id",
        "model_id",
        "dimension",
        "metric",
        "lesions",
        "index_kind",
        "created_at",
        "lesions_version",
    )
    rows = [[getattr(one, column) for column in columns] for one in sets]
    write_rows(columns, rows, Format.JSON if as_json else Format.TABLE)


@app.command()
def describe(
    feature_set: SetArgument, lake: LakeOption = DEFAULT_LAKE, store: StoreOption = None, as_json: JsonOption = False
) -> None:
    """Describe one feature set: its numbers, its distances, and which lesions have none and why."""
    from store.feature_reports import describe as look_at
    from store.features import find_set

    with reading(lake, store) as (path, connection):
        report = look_at(connection, path, find_set(connection, feature_set))
    values = {
        name: value
        for name, value in asdict(report.feature_set).items()
        if name not in {"mean", "sd", "minimum", "maximum", "vector_folder", "checksums"}
    }
    numbers = zip(*(getattr(report.feature_set, name) for name in ("mean", "sd", "minimum", "maximum")), strict=True)
    if as_json:
        rest = {name: value for name, value in asdict(report).items() if name != "feature_set"}
        write_json(
            values | rest | {"numbers": [dict(zip(("mean", "sd", "min", "max"), row, strict=True)) for row in numbers]}
        )
        return
    lacking = ", ".join(f"{count} lack {column}" for column, count in report.lacking.items())
    values["lesions_without_vector"] = f"{report.without_vector} of {report.lesions_in_store}" + (
        f" ({lacking})" if lacking else ""
    )
    for name in ("nearest_other_patient", "any_two_lesions"):
        values[f"distance_{name}"] = "  ".join(f"{at} {value:.4g}" for at, value in getattr(report, name).items())
    write_mapping(values)
    print()
    write_rows(("number", "mean", "sd", "min", "max"), ((at, *row) for at, row in enumerate(numbers)), Format.TABLE)


@app.command()
def compare(
    first: SetArgument,
    second: SetArgument,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare two feature sets: which lesions they cover, and how far they agree on what is similar."""
    from store.feature_reports import compare as put_beside
    from store.features import find_set

    with reading(lake, store) as (path, connection):
        found = asdict(put_beside(connection, path, find_set(connection, first), find_set(connection, second)))
    if as_json:
        write_json(found)
    else:
        write_mapping(found)


@app.command("import")
def take_in(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the set is called; it becomes the next version.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Parquet with the columns lesion_id and vector.")],
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="Who made the vectors.")],
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Take vectors that were computed elsewhere into the lake as a feature set."""
    from lesionary.lake import Lake
    from store.database import store_path
    from store.feature_files import import_set
    from store.features import find_set
    from store.sync import sync

    opened = Lake.open(lake)
    imported = import_set(opened, file, name, model)
    sync(opened, store_path(lake, store), index=None)
    with reading(lake, store) as (_, connection):
        known = find_set(connection, imported.feature_set_id).lesions
    note(
        f"{imported.feature_set_id}: {imported.vectors} vectors of {imported.dimension} numbers, "
        f"{known} of them of lesions in the store"
    )


@app.command()
def drop(
    feature_set: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="The version to take out.")],
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Take one version of a feature set out of lake and store; built-in ones stay."""
    from lesionary.lake import Lake
    from store.database import store_path
    from store.feature_files import drop_set
    from store.sync import sync

    if "@" not in feature_set:
        raise UsageError("say which version", where=feature_set, next_step=f"for example {feature_set}@1")
    opened = Lake.open(lake)
    drop_set(opened, feature_set)
    sync(opened, store_path(lake, store), index=None)
    note(f"{feature_set}: dropped")


@app.command()
def export(
    feature_set: SetArgument,
    target: Annotated[
        Path, typer.Argument(metavar="FILE.parquet", help="The training set; its recipe goes beside it.")
    ],
    split: Annotated[Part, typer.Option("--split", help="Which part to write.")] = Part.ALL,
    split_by: Annotated[
        SplitBy, typer.Option("--split-by", help="The source's own parts where it has them, or by patient throughout.")
    ] = SplitBy.SOURCE,
    salt: Annotated[str, typer.Option("--salt", help="Gives an independent split by patient.")] = "",
    where: WhereOption = None,
    as_of: AsOfOption = None,
    force: ForceOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a training set: lesions, labels, parts and vectors as Parquet, and the recipe that makes it again."""
    from store.training_sets import RECIPE_SUFFIX, TrainingSetSettings, export_training_set

    if target.exists() and not force:
        raise UsageError("the file exists", where=target.name, next_step="add --force to overwrite it")
    part = None if split is Part.ALL else split.value
    settings = TrainingSetSettings(feature_set, part, split_by.value, salt, where, as_of)
    with reading(lake, store) as (path, connection):
        written = export_training_set(connection, path, target, settings)
    if as_json:
        write_json(asdict(written))
    else:
        write_mapping(asdict(written) | {"by_split": ", ".join(f"{name} {n}" for name, n in written.by_split.items())})
    note(f"recipe: {target.name}{RECIPE_SUFFIX}")
