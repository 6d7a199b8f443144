"""`lesionary map`: many lesions in one picture, by their vectors or by their places in the body."""

import math
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import live_line, note
from cli.figures.colouring import Colour
from cli.options import (
    DEFAULT_LAKE,
    AsOfOption,
    CsvOption,
    FeatureSetOption,
    Format,
    JsonOption,
    LakeOption,
    PictureOption,
    StoreOption,
    WhereOption,
    chosen_format,
)
from cli.reading import reading
from cli.render import write_json, write_mapping, write_rows
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from store.lesion_maps import Layout, MapLesions

_COLUMNS = (
    "lesion_id", "patient_id", "map_x", "map_y", "lesion_type", "split", "location_x", "location_y", "location_z",
    "long_mm", "short_mm",
)  # fmt: skip
_MOST = 5_000
_SIDE_BY_SIDE = (Colour.TYPE, Colour.LOCATION)


class Method(StrEnum):
    """How vectors become points."""

    TSNE = "tsne"
    PCA = "pca"


def lesion_map(
    feature_set: FeatureSetOption = "location",
    body: Annotated[
        bool,
        typer.Option("--body", help="Instead of a feature set: places in the body, from the front and from the side."),
    ] = False,
    colours: Annotated[
        list[Colour] | None,
        typer.Option(
            "--color", help="What colours say; may be repeated, a panel each. [type and location; with --body type]"
        ),
    ] = None,
    method: Annotated[
        Method,
        typer.Option("--method", help="tsne keeps neighbours together; pca keeps the directions that vary most."),
    ] = Method.TSNE,
    perplexity: Annotated[
        float | None,
        typer.Option(
            "--perplexity", min=1, help="How many neighbours t-SNE minds, about. [30, a third of a small set]"
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="The same seed draws the same map.")] = 0,
    most: Annotated[
        int, typer.Option("--most", min=2, max=100_000, help="Of more lesions than this, so many are drawn by lot.")
    ] = _MOST,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    picture: PictureOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Lay lesions out on a plane: near each other where a feature set finds them alike, or where they are in the body.

    For example: lesionary map --feature-set triplet --where "split = 'test'" --picture map.png
    """
    form = chosen_format(as_json=as_json, as_csv=as_csv)
    if picture is None and form is Format.TABLE:
        raise UsageError(
            "a map is a picture, or coordinates", where="map", next_step="add --picture FILE.png, --csv or --json"
        )
    chosen = list(dict.fromkeys(colours or ()))
    if body:
        if len(chosen) > 1:
            raise UsageError("a body has one meaning of colour", where="--color", next_step="choose one")
        _body(chosen, most, seed, where, as_of, picture, form, lake, store)
        return

    from store.features import find_set
    from store.lesion_maps import Method as Laying
    from store.lesion_maps import lay_out, lesions_with_vectors

    if perplexity is not None and method is not Method.TSNE:
        raise UsageError("only t-SNE has a perplexity", where="--perplexity", next_step="leave it out")
    with reading(lake, store) as (path, connection):
        found = find_set(connection, feature_set)
        lesions, vectors = lesions_with_vectors(connection, path, found, where, as_of, most=most, seed=seed)
    with live_line() as show:
        show(f"laying out {len(lesions):,} lesions")
        layout = lay_out(vectors, Laying(method.value), seed=seed, perplexity=perplexity)
    if picture is not None:
        from cli.figures.gallery import write_chart
        from cli.figures.maps import map_chart

        title = f"{found.feature_set_id}: {_counted(lesions, seed)}; {_how(layout)}"
        drawn = map_chart(lesions, layout.points, chosen or _SIDE_BY_SIDE, title, _axis_names(layout))
        # Before anything is printed: whoever reads may close the pipe early.
        write_chart(drawn, picture)
        note(f"picture: {picture}")
    described: dict[str, object] = {
        "feature_set": found.feature_set_id,
        "model": found.model_id,
        "method": layout.method.value,
        "seed": layout.seed,
        "dimension": layout.dimension,
        "components": layout.components,
        "perplexity": layout.perplexity,
        "explained": layout.explained,
    }
    _print(described, lesions, layout.points.tolist(), form)


def _body(
    chosen: Sequence[Colour],
    most: int,
    seed: int,
    where: str | None,
    as_of: str | None,
    picture: Path | None,
    form: Format,
    lake: str,
    store: str | None,
) -> None:
    from store.lesion_maps import lesions_in_body

    with reading(lake, store) as (_, connection):
        lesions = lesions_in_body(connection, where, as_of, most=most, seed=seed)
    if picture is not None:
        from cli.figures.gallery import write_chart
        from cli.figures.maps import body_chart

        drawn = body_chart(lesions, chosen[0] if chosen else Colour.TYPE, _counted(lesions, seed))
        write_chart(drawn, picture)
        note(f"picture: {picture}")
    _print({"method": "body"}, lesions, lesions.locations[:, [0, 2]].tolist(), form)


def _counted(lesions: "MapLesions", seed: int) -> str:
    """How many lesions, of how many."""
    drawn, placeable = len(lesions), lesions.placeable
    patients = len(set(lesions.patient_ids))
    some = f" of {placeable:,}, drawn with seed {seed}" if drawn < placeable else ""
    return f"{drawn:,} lesions{some}, {patients:,} patients"


def _how(layout: "Layout") -> str:
    if layout.explained is not None:
        return f"principal components, {100 * sum(layout.explained):.0f} % of the variance"
    reduced = "" if layout.components is None else f" on {layout.components} of {layout.dimension} components"
    return f"t-SNE{reduced}, perplexity {layout.perplexity:.3g}, seed {layout.seed}"


def _axis_names(layout: "Layout") -> tuple[str, str]:
    if layout.explained is None:
        return "", ""
    first, second = layout.explained
    return f"first component, {100 * first:.0f} %", f"second component, {100 * second:.0f} %"


def _print(
    described: dict[str, object], lesions: "MapLesions", points: Sequence[Sequence[float]], form: Format
) -> None:
    described |= {
        "lesions": len(lesions),
        "left_out_by_lot": lesions.placeable - len(lesions),
        "left_out_without_vector" if "feature_set" in described else "left_out_without_place": lesions.asked
        - lesions.placeable,
    }
    if form is Format.JSON:
        write_json(described | {"rows": [dict(zip(_COLUMNS, row, strict=True)) for row in _rows(lesions, points)]})
    elif form is Format.CSV:
        write_rows(_COLUMNS, _rows(lesions, points), form)
    else:
        write_mapping({name: value for name, value in described.items() if value is not None})


def _rows(lesions: "MapLesions", points: Sequence[Sequence[float]]) -> Iterator[tuple[object, ...]]:
    measures = [[None if math.isnan(value) else value for value in row] for row in _measures(lesions)]
    for at, (x, y) in enumerate(points):
        yield (
            lesions.lesion_ids[at], lesions.patient_ids[at], x, y, lesions.types[at], lesions.splits[at],
            *measures[at],
        )  # fmt: skip


def _measures(lesions: "MapLesions") -> list[list[float]]:
    places, sizes = lesions.locations.tolist(), lesions.sizes_mm.tolist()
    return [[*place, *size] for place, size in zip(places, sizes, strict=True)]
