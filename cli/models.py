"""`lesionary models`: the networks that were trained on the lake, and their cards."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.console import counted, note
from cli.options import DEFAULT_LAKE, ForceOption, Format, JsonOption, LakeOption
from cli.render import write_json, write_mapping, write_rows
from lesionary.errors import UsageError

app = typer.Typer(help="Trained networks and what they were made of.", no_args_is_help=True)

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Its id, or a name: its newest.")]

# Groups of a card that are shown a line for each of their values.
_GROUPS = ("metrics", "data", "settings", "lake", "hardware")


@app.command("list")
def list_all(
    kind: Annotated[str | None, typer.Option("--kind", help="Only ssbr, triplet, position, … .")] = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """List the lake's models, oldest first."""
    from lesionary.lake import Lake
    from lesionary.models import list_models

    cards = list_models(Lake.open(lake), kind)
    columns = ("model_id", "kind", "preset", "seed", "created_at", "version", "code")
    rows = [[getattr(card, column) for column in columns] for card in cards]
    write_rows(columns, rows, Format.JSON if as_json else Format.TABLE)


@app.command()
def describe(model: ModelArgument, lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """Describe one model: its card, and its files."""
    from lesionary.lake import Lake
    from lesionary.models import find_model, model_files

    opened = Lake.open(lake)
    card = find_model(opened, model)
    values = {**asdict(card), "files": model_files(opened, card)}
    if as_json:
        write_json(values)
        return
    groups = {name: values.pop(name) for name in _GROUPS}
    write_mapping(values)
    for name, group in groups.items():
        if group:
            print(f"\n{name}")
            write_mapping({f"  {key}": value for key, value in group.items()})


@app.command()
def export(
    model: ModelArgument,
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where its card, weights and other files go.")],
    force: ForceOption = False,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Copy a model out of the lake: weights as safetensors, the card as JSON; its digest is checked."""
    from lesionary.artifacts import atomic_write_bytes
    from lesionary.lake import Lake
    from lesionary.models import WEIGHTS_FILE, find_model, model_files, read_model_file, read_weights

    opened = Lake.open(lake)
    card = find_model(opened, model)
    names = model_files(opened, card)
    if not force and any((target / name).exists() for name in names):
        raise UsageError("the folder holds such files", where=target.name, next_step="add --force to overwrite them")
    contents = {name: read_model_file(opened, card, name) for name in names if name != WEIGHTS_FILE}
    contents[WEIGHTS_FILE] = read_weights(opened, card)
    for name, content in contents.items():
        atomic_write_bytes(target / name, content)
    note(f"{card.model_id}: {counted(len(contents), 'file')} in {target}")


@app.command()
def drop(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Its id, with the number.")],
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Take one model out of the lake; what was made with it (feature sets, locations) stays."""
    from lesionary.lake import Lake
    from lesionary.models import drop_model, find_model

    opened = Lake.open(lake)
    card = find_model(opened, model)
    if card.model_id != model:
        raise UsageError("say which one", where=model, next_step=f"the newest is {card.model_id}")
    drop_model(opened, card)
    note(f"{card.model_id}: dropped")
