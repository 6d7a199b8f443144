"""`lesionary show`: one lesion, what is known of it, and its picture."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import note
from cli.options import DEFAULT_LAKE, JsonOption, LakeOption, PictureOption, StoreOption
from cli.reading import reading
from cli.render import write_json, write_mapping
from lesionary.errors import LakeError, UsageError

if TYPE_CHECKING:
    from PIL import Image

    from cli.figures.lesion_images import LesionImage


def show(
    lesion: Annotated[str, typer.Argument(metavar="LESION", help="Its name, such as dl-4711.")],
    picture: PictureOption = None,
    window: Annotated[
        str | None,
        typer.Option("--window", metavar="LOW,HIGH", help="Display window in HU; the reader's own unless given."),
    ] = None,
    padding: Annotated[float, typer.Option("--padding", min=0, help="Pixels between diameters and box.")] = 5.0,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of one lesion; with --picture also its slice, both diameters and the box."""
    from store.queries import lesion as find_lesion

    chosen_window = _parse_window(window)
    with reading(lake, store) as (_, connection):
        found = find_lesion(connection, lesion)
    if as_json:
        write_json(found)
    else:
        write_mapping(found)
    if picture is not None:
        _write_picture(lake, found, picture, chosen_window, padding)
        note(f"picture: {picture}")


def _parse_window(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not low < high:
        raise UsageError("two numbers are needed, the lower first", where="--window", next_step="for example -175,275")
    return low, high


def _write_picture(
    lake: str, found: dict[str, object], path: Path, window: tuple[float, float] | None, padding: float
) -> None:
    from cli.figures.lesion_images import read_image
    from lesionary.artifacts import atomic_file
    from lesionary.lake import Lake
    from lesionary.slices import SliceReader

    with SliceReader(Lake.open(lake)) as reader:
        image = read_image(reader, found)
    if image is None:
        raise LakeError(
            "the lake holds no image for this lesion",
            where=str(found["lesion_id"]),
            next_step="ingest it with its images",
        )
    with atomic_file(path) as sink:
        draw(image, found, window or image.window_hu, padding).save(sink, format="PNG")


def draw(image: "LesionImage", found: dict[str, object], window: tuple[float, float], padding: float) -> "Image.Image":
    """The windowed slice with both diameters, the padded box and a caption."""
    from lesionary.picture import draw_lesion
    from lesionary.recist import padded_box

    size = " x ".join(f"{found[name]:.1f}" for name in ("long_mm", "short_mm") if found[name] is not None)
    caption = "  ".join(
        str(part)
        for part in (
            found["lesion_id"],
            found["lesion_type"] or "type unknown",
            f"{size} mm" if size else "",
            f"slice {found['slice_index']}",
            f"window {window[0]:g} … {window[1]:g} HU",
        )
        if part
    )
    return draw_lesion(image.hu, image.points_xy_px, padded_box(image.tight_box_xyxy_px, padding), window, caption)
