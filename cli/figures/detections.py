"""Slices with what a detector sees on them: boxes with numbers, and under each slice what the numbers stand for.

Marked lesions' boxes are dashed and of another colour. Text is our own pseudonyms, figures, and names of categories.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cli.figures.palette import OKABE_ITO
from cli.figures.sheet import INK, Box, Point, Sheet, common_size, fit_text, wrap_text
from cli.figures.tiles import LegendItem, draw_scale_bar, legend_line_px, legend_lines, put_legend
from lesionary.picture import window_to_grey

MAX_TILES, MAX_BOXES = 12, 5

DETECTION_COLOUR, MARK_COLOUR = OKABE_ITO["orange"], OKABE_ITO["sky_blue"]
_TILE_PX, _GAP_PX, _EDGE_PX, _COLUMNS = 420, 24, 24, 3
_TITLE_PX, _TEXT_PX, _LEAST_PX, _LINE_PX = 24, 17, 12, 23


@dataclass(frozen=True, slots=True)
class ShownBox:
    """One detection on a slice; its box is tight, in zero-based pixels."""

    box_xyxy_px: Box
    score: float
    category: str | None
    """What people call it; None for a detector of one class."""


@dataclass(frozen=True, slots=True)
class SliceTile:
    """One slice of the figure."""

    name: str
    hu: NDArray[np.int16]
    shown_xyxy_px: Box
    """Part of the slice that is shown, counted from its edge: pixel 0 reaches from 0 to 1."""
    spacing_xy_mm: tuple[float, float]
    window_hu: tuple[float, float]
    detections: Sequence[ShownBox]
    """The surest first; `MAX_BOXES` of them are drawn."""
    marks: Sequence[Box] = ()
    """Boxes of marked lesions, as those of detections."""


def draw_detections(tiles: Sequence[SliceTile], title: str) -> Image.Image:
    """The figure: up to three slices side by side.

    Raises:
        ValueError: no slice, or more than `MAX_TILES`.
    """
    return lay_out_detections(tiles, title).image


def lay_out_detections(tiles: Sequence[SliceTile], title: str) -> Sheet:
    """What `draw_detections` draws, with every text and its place."""
    if not 1 <= len(tiles) <= MAX_TILES:
        raise ValueError(f"a figure of detections holds 1 to {MAX_TILES} slices, found {len(tiles)}")
    across = min(_COLUMNS, len(tiles))
    width = 2 * _EDGE_PX + max(2, across) * (_TILE_PX + _GAP_PX) - _GAP_PX
    titles = wrap_text(title, _TITLE_PX, width - 2 * _EDGE_PX, bold=True)
    legend = legend_lines(_legend(tiles), _TEXT_PX, width - 2 * _EDGE_PX)
    top = _EDGE_PX + round(len(titles) * _TITLE_PX * 1.4) + 12
    rows = [tiles[at : at + across] for at in range(0, len(tiles), across)]
    heights = [_TILE_PX + (max(len(_lines(tile)) for tile in row) + 1) * _LINE_PX + 30 for row in rows]
    sheet = Sheet(width, top + sum(heights) + len(legend) * legend_line_px(_TEXT_PX) + _EDGE_PX)
    for number, line in enumerate(titles):
        sheet.write(line, (_EDGE_PX, _EDGE_PX + round(number * _TITLE_PX * 1.4)), _TITLE_PX, bold=True)
    name_size = common_size((tile.name for tile in tiles), _TEXT_PX, _TILE_PX, bold=True)
    for row, height in zip(rows, heights, strict=True):
        for place, tile in enumerate(row):
            _put_tile(sheet, tile, (_EDGE_PX + place * (_TILE_PX + _GAP_PX), top), name_size)
        top += height
    put_legend(sheet, legend, (_EDGE_PX, top), _TEXT_PX)
    return sheet


def _legend(tiles: Sequence[SliceTile]) -> list[LegendItem]:
    items = [LegendItem("detection, with its score", DETECTION_COLOUR, dash="solid")]
    if any(tile.marks for tile in tiles):
        items.append(LegendItem("marked lesion", MARK_COLOUR, dash="dashed"))
    return items


def _lines(tile: SliceTile) -> list[str]:
    """What stands under a slice, but for its name."""
    lines = [
        f"{number}: {one.score:.2f}" + ("" if one.category is None else f" {one.category}")
        for number, one in enumerate(tile.detections[:MAX_BOXES], 1)
    ]
    more = len(tile.detections) - MAX_BOXES
    return [*lines, f"and {more} less sure"] if more > 0 else lines or ["nothing found"]


def _put_tile(sheet: Sheet, tile: SliceTile, corner: tuple[int, int], name_size: int) -> None:
    sheet.paste(_picture(tile), corner)
    left, top = corner[0], corner[1] + _TILE_PX + 10
    fitted, size = fit_text(tile.name, name_size, _TILE_PX, smallest_px=_LEAST_PX, bold=True)
    sheet.write(fitted, (left, top), size, bold=True)
    for number, line in enumerate(_lines(tile), 1):
        fitted, size = fit_text(line, _TEXT_PX, _TILE_PX, smallest_px=_LEAST_PX)
        sheet.write(fitted, (left, top + number * _LINE_PX), size, colour=INK)


def _picture(tile: SliceTile) -> Image.Image:
    """The shown part of the slice as a square, with boxes."""
    left, top, right, bottom = tile.shown_xyxy_px
    size_mm = np.array([(right - left) * tile.spacing_xy_mm[0], (bottom - top) * tile.spacing_xy_mm[1]])
    mm_per_px = float(size_mm.max()) / _TILE_PX
    columns, rows = (max(1, round(side / mm_per_px)) for side in size_mm.tolist())
    grey = Image.fromarray(window_to_grey(tile.hu, tile.window_hu))
    part = grey.resize((columns, rows), Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    offset = (_TILE_PX - columns) // 2, (_TILE_PX - rows) // 2
    picture = Sheet(_TILE_PX, _TILE_PX)
    picture.fill((0, 0, _TILE_PX, _TILE_PX), INK)
    picture.paste(part.convert("RGB"), offset)

    def place(x: float, y: float) -> Point:
        # From a pixel's centre to where it lies on the square.
        return (
            offset[0] + (x + 0.5 - left) * columns / (right - left) - 0.5,
            offset[1] + (y + 0.5 - top) * rows / (bottom - top) - 0.5,
        )

    for box in tile.marks:
        picture.frame((*place(*box[:2]), *place(*box[2:])), MARK_COLOUR, 2.5, "dashed")
    for number, one in reversed(list(enumerate(tile.detections[:MAX_BOXES], 1))):
        low, high = place(*one.box_xyxy_px[:2]), place(*one.box_xyxy_px[2:])
        picture.frame((*low, *high), DETECTION_COLOUR, 2.0)
        _put_number(picture, str(number), low, high)
    draw_scale_bar(picture, mm_per_px)
    return picture.image


def _put_number(picture: Sheet, number: str, low: Point, high: Point) -> None:
    """Above the box's left corner, or below where there is no room."""
    size = 18
    x = min(max(low[0], 4.0), _TILE_PX - 16.0)
    above = low[1] - 4 > size
    y = low[1] - 4 if above else min(high[1] + size + 2, _TILE_PX - 4.0)
    picture.write(number, (x, y), size, colour=DETECTION_COLOUR, bold=True, anchor="ls", halo="#000000")
