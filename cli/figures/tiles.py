"""The tiles that figures of lesions are made of: a patch with its axes and a scale bar, or a grey one; and their words.

Text is our own pseudonyms and figures only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from cli.figures.palette import OKABE_ITO, colour_of_type
from cli.figures.patches import Patch
from cli.figures.sheet import FAINT_INK, INK, Dash, Marker, Point, Sheet, fit_text, width_of

NO_IMAGE = "no image"
LONG_AXIS_COLOUR, SHORT_AXIS_COLOUR = OKABE_ITO["orange"], OKABE_ITO["sky_blue"]
_BOX_COLOUR = OKABE_ITO["yellow"]
_EMPTY_COLOUR = "#E4E4E4"
_BAR_LENGTHS_MM = (100, 50, 20, 10, 5, 2, 1)
_LARGEST_BAR = 0.4
# Length of a line's sample in a legend, in font sizes.
_PIECE = 2.0


@dataclass(frozen=True, slots=True)
class LegendItem:
    """One entry of a legend: a sign or a piece of line, and what it means."""

    words: str
    colour: str = INK
    marker: Marker | None = None
    dash: Dash | None = None


def size_text(long_mm: float | None, short_mm: float | None) -> str:
    """Such as "23.1 × 15.0 mm"; what is unknown is left out or said."""
    longer, shorter = _known(long_mm), _known(short_mm)
    if longer is None:
        return "size unknown" if shorter is None else f"short {shorter:.1f} mm"
    return f"{longer:.1f} mm" if shorter is None else f"{longer:.1f} × {shorter:.1f} mm"


def type_text(lesion_type: str | None) -> str:
    """A type's name in words."""
    return "type unknown" if lesion_type is None else lesion_type.replace("_", " ")


def distance_text(distance: float | None) -> str:
    """Such as "d 0.042"; empty when there is none."""
    known = _known(distance)
    if known is None:
        return ""
    return f"d {known:.3f}" if known == 0 or 0.0005 <= abs(known) < 1000 else f"d {known:.2e}"


def _known(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def draw_patch(patch: Patch, side_px: int) -> Image.Image:
    """The patch enlarged to a tile: the box's corners, the long axis solid, the short one dashed, and a scale bar."""
    grey = Image.fromarray(patch.grey)
    if grey.size != (side_px, side_px):
        grey = grey.resize((side_px, side_px), Image.Resampling.BICUBIC)
    tile = Sheet(side_px, side_px)
    tile.paste(grey.convert("RGB"), (0, 0))
    scale = side_px / patch.grey.shape[0]

    def place(x: float, y: float) -> Point:
        # A pixel's centre stays the centre of its enlarged square; far outside is outside enough.
        moved = ((value + 0.5) * scale - 0.5 for value in (x, y))
        first, second = (min(max(value, -side_px), 2.0 * side_px) for value in moved)
        return first, second

    _draw_box_corners(tile, place(*patch.box_xyxy_px[:2]), place(*patch.box_xyxy_px[2:]))
    points = patch.points_xy_px.tolist()
    for start, colour, dash in ((0, LONG_AXIS_COLOUR, "solid"), (2, SHORT_AXIS_COLOUR, "dashed")):
        if len(points) >= start + 2:
            ends = [place(*points[start]), place(*points[start + 1])]
            tile.line(ends, colour, max(1.5, side_px / 100), "dashed" if dash == "dashed" else "solid")
    draw_scale_bar(tile, patch.mm_per_px / scale)
    return tile.image


def bar_length_mm(shown_mm: float) -> int:
    """The longest round length that takes at most two fifths of a tile that shows so many millimetres."""
    return next((length for length in _BAR_LENGTHS_MM if length <= shown_mm * _LARGEST_BAR), _BAR_LENGTHS_MM[-1])


def _draw_box_corners(tile: Sheet, low: Point, high: Point) -> None:
    """Corners only: a whole rectangle would hide what lies at the lesion's rim."""
    arm = 0.2 * min(high[0] - low[0], high[1] - low[1])
    for x, inward_x in ((low[0], arm), (high[0], -arm)):
        for y, inward_y in ((low[1], arm), (high[1], -arm)):
            tile.line([(x + inward_x, y), (x, y), (x, y + inward_y)], _BOX_COLOUR, max(1.2, tile.image.width / 130))


def draw_scale_bar(tile: Sheet, mm_per_px: float) -> None:
    """A bar of a round length in the lower left corner of a sheet that is all picture."""
    side = tile.image.width
    length_mm = bar_length_mm(side * mm_per_px)
    left, bottom, thickness = side * 0.04, side * 0.955, max(2, round(side / 70))
    right = left + length_mm / mm_per_px
    tile.fill((left - 1, bottom - thickness - 1, right + 1, bottom + 1), "#000000")
    tile.fill((left, bottom - thickness, right, bottom), "#FFFFFF")
    size = max(11, round(side / 15))
    tile.write(f"{length_mm} mm", (left, bottom - thickness - 3), size, colour="#FFFFFF", anchor="ls", halo="#000000")


def put_tile(sheet: Sheet, patch: Patch | None, corner: tuple[int, int], side_px: int, words: str = NO_IMAGE) -> None:
    """The patch's tile, or a grey one with `words` where there is no patch."""
    if patch is not None:
        sheet.paste(draw_patch(patch, side_px), corner)
        return
    x, y = corner
    sheet.fill((x, y, x + side_px - 1, y + side_px - 1), _EMPTY_COLOUR)
    text, size = fit_text(words, max(10, side_px // 9), side_px * 0.9)
    sheet.write(text, (x + side_px / 2, y + side_px / 2), size, colour=FAINT_INK, anchor="mm")


def put_type(sheet: Sheet, lesion_type: str | None, at: Point, size_px: int, width_px: float) -> None:
    """A square of the type's colour and its name, on a line of text that starts at `at` (its ascender)."""
    square = round(size_px * 0.72)
    x, top = at[0], at[1] + round(size_px * 0.26)
    sheet.fill((x, top, x + square, top + square), INK)
    sheet.fill((x + 1, top + 1, x + square - 1, top + square - 1), colour_of_type(lesion_type))
    indent = square + round(size_px * 0.4)
    text, size = fit_text(type_text(lesion_type), size_px, width_px - indent)
    sheet.write(text, (x + indent, at[1]), size)


def legend_lines(items: Sequence[LegendItem], size_px: int, width_px: float) -> list[list[LegendItem]]:
    """The items in order, as many a line as fit."""
    lines: list[list[LegendItem]] = []
    room = 0.0
    for item in items:
        wide = _legend_width(item, size_px)
        if not lines or wide > room:
            lines.append([])
            room = width_px
        lines[-1].append(item)
        room -= wide
    return lines


def put_legend(sheet: Sheet, lines: Sequence[Sequence[LegendItem]], at: Point, size_px: int) -> None:
    """Lines made by `legend_lines`, from the upper left corner on."""
    for number, line in enumerate(lines):
        x, y = at[0], at[1] + number * legend_line_px(size_px)
        for item in line:
            middle, sign = y + size_px * 0.6, _sign_width(item, size_px)
            if item.marker is not None:
                sheet.mark(item.marker, (x + size_px * 0.5, middle), size_px * 0.9, item.colour)
            if item.dash is not None:
                end = x + sign - size_px * 0.5
                sheet.line([(end - _PIECE * size_px, middle), (end, middle)], item.colour, size_px / 6, item.dash)
            text, size = fit_text(item.words, size_px, sheet.image.width - x - sign)
            sheet.write(text, (x + sign, y), size)
            x += _legend_width(item, size_px)


def legend_line_px(size_px: int) -> int:
    """Height of a legend's line."""
    return round(size_px * 1.5)


def _sign_width(item: LegendItem, size_px: int) -> float:
    marker = 1.4 if item.marker is not None else 0.0
    return size_px * (marker + (_PIECE + 0.5 if item.dash is not None else 0.0))


def _legend_width(item: LegendItem, size_px: int) -> float:
    return _sign_width(item, size_px) + width_of(item.words, size_px) + size_px * 1.6
