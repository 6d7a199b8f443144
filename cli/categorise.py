"""`lesionary categorise`: every lesion's category, what the categories look like, and what people call them."""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import counted, human_seconds, live_line, note
from cli.options import (
    DEFAULT_LAKE,
    Format,
    GpusOption,
    JsonOption,
    LakeOption,
    ModelsOption,
    PictureOption,
    RayAddressOption,
)
from cli.render import write_json, write_rows
from cli.runners import Runners

if TYPE_CHECKING:
    from lesionary.categories import Category
    from lesionary.lake import Lake
    from lesionary.models import ModelCard

app = typer.Typer(help="Categories that lesions were sorted into without labels.", no_args_is_help=True)

_KIND = "categoriser"

ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="A categoriser: its id, or name. [the newest]")
]


@app.command()
def apply(
    model: ModelOption = None,
    workers: ModelsOption = 1,
    gpus: GpusOption = 0,
    ray_address: RayAddressOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Give every lesion of the lake that has none yet its category; a second run does only what is new."""
    from etl.categorise import CategoryModel, categorise
    from lesionary.lake import Lake
    from trainers.categoriser.inference import CategoriserMaker, categoriser_of, rounds_of

    opened = Lake.open(lake)
    card = _card(opened, model)
    # A damaged model is found out here, before any worker starts.
    count = categoriser_of(opened, card).count
    maker = CategoriserMaker(opened.url, card.model_id, "cuda" if gpus else "cpu")
    with ExitStack() as session, live_line() as show:
        runners = Runners(session, int(workers == 1), ray_address, at_least=workers)
        summary = categorise(
            opened,
            CategoryModel(card.model_id, rounds_of(card), count, maker),
            choose_inference=lambda _count: runners.choose_inference(workers, gpus),
            choose_runner=runners.choose,
            progress=lambda what, done, total: show(f"{what}: {done} of {total} lesions"),
        )
    if as_json:
        write_json(asdict(summary))
        return
    reasons = ", ".join(f"{reason} {number}" for reason, number in summary.left_out.items())
    print(
        f"{card.model_id}: {counted(summary.lesions, 'lesion')} = {summary.given} given a category + {summary.kept} "
        f"that had one + {sum(summary.left_out.values())} left out" + (f" ({reasons})" if reasons else "")
    )
    note(f"{human_seconds(summary.seconds)}; `lesionary sync` brings them into the store")


@app.command("list")
def list_all(model: ModelOption = None, lake: LakeOption = DEFAULT_LAKE, as_json: JsonOption = False) -> None:
    """List a categoriser's categories: number, name, and how many lesions each has."""
    from lesionary.lake import Lake

    opened = Lake.open(lake)
    found = _categories(opened, _card(opened, model))
    rows = [(one.number, one.name, one.lesions) for one in found]
    write_rows(("category", "name", "lesions"), rows, Format.JSON if as_json else Format.TABLE)


@app.command()
def show(
    numbers: Annotated[
        list[int] | None, typer.Argument(metavar="[CATEGORY]…", help="Only these. [all that have lesions]")
    ] = None,
    most: Annotated[int, typer.Option("--most", min=1, max=100, help="Lesions shown of each category.")] = 8,
    model: ModelOption = None,
    picture: PictureOption = None,
    lake: LakeOption = DEFAULT_LAKE,
    as_json: JsonOption = False,
) -> None:
    """Show each category by its most typical lesions, those that the categoriser is surest of, one a patient.

    With --picture as a contact sheet, from which a person can tell what a category is.
    """
    from cli.typical_lesions import typical_lesions
    from lesionary.lake import Lake

    opened = Lake.open(lake)
    card = _card(opened, model)
    known = _categories(opened, card)
    wanted = _wanted(known, numbers, card.model_id)
    typical = typical_lesions(opened, card.model_id, [one.number for one in wanted], most)
    if picture is not None:
        _write_picture(opened, card.model_id, wanted, typical, picture)
        note(f"picture: {picture}")
    columns = ("category", "name", "lesions", "typical")
    rows = [(one.number, one.name, one.lesions, [name for name, _ in typical[one.number]]) for one in wanted]
    if as_json:
        write_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    write_rows(columns, [(*row[:3], " ".join(row[3])) for row in rows], Format.TABLE)


@app.command()
def name(
    number: Annotated[int, typer.Argument(metavar="CATEGORY", help="Its number.")],
    words: Annotated[str, typer.Argument(metavar="NAME", help='Such as "liver"; 1 to 40 letters, digits, spaces.')],
    model: ModelOption = None,
    lake: LakeOption = DEFAULT_LAKE,
) -> None:
    """Name a category; the name goes with every detection of it. Two categories may share a name: then they are one."""
    from lesionary.categories import name_category
    from lesionary.lake import Lake

    opened = Lake.open(lake)
    card = _card(opened, model)
    categories = name_category(opened, card.model_id, number, words)
    print(f"{card.model_id}: category {number} is {words}")
    same = [str(one.number) for one in categories if one.name == words and one.number != number]
    if same:
        note(f"{words} is also the name of category {', '.join(same)}")
    note("`lesionary sync` brings the name into the store")


def _card(lake: "Lake", model: str | None) -> "ModelCard":
    from lesionary.models import find_model

    return find_model(lake, model, _KIND)


def _categories(lake: "Lake", card: "ModelCard") -> "list[Category]":
    from lesionary.categories import read_categories
    from lesionary.errors import UsageError

    found = read_categories(lake, card.model_id)
    if not found:
        raise UsageError(
            f"{card.model_id} has sorted no lesion of this lake",
            where="categorise",
            next_step="run `lesionary categorise apply`",
        )
    return found


def _wanted(known: "list[Category]", numbers: list[int] | None, model_id: str) -> "list[Category]":
    from lesionary.errors import UsageError

    there = {one.number for one in known}
    for number in numbers or []:
        if number not in there:
            raise UsageError(
                f"{model_id} has no category {number}", where="categorise show", next_step=f"it has 0 to {max(there)}"
            )
    return [one for one in known if (one.number in numbers if numbers else one.lesions)]


def _write_picture(
    lake: "Lake",
    model_id: str,
    wanted: "list[Category]",
    typical: dict[int, list[tuple[str, float]]],
    picture: Path,
) -> None:
    from cli.figures.contact_sheets import CategoryLine, TypicalLesion, draw_contact_sheet
    from cli.typical_lesions import lesion_patches
    from lesionary.artifacts import atomic_file

    patches = lesion_patches(lake, [lesion for one in wanted for lesion, _ in typical[one.number]])
    lines = [
        CategoryLine(
            one.number,
            one.name,
            one.lesions,
            [TypicalLesion(lesion, score, patches.get(lesion)) for lesion, score in typical[one.number]],
        )
        for one in wanted
    ]
    title = f"Categories by {model_id}: the lesions it is surest of, one a patient"
    with atomic_file(picture) as sink:
        draw_contact_sheet(lines, title).save(sink, format="PNG")
