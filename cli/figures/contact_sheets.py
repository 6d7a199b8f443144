"""Contact sheets of categories: a line of their most typical lesions for each, so that a person can name them."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from cli.figures.patches import Patch
from cli.figures.sheet import FAINT_INK, Sheet, fit_text
from cli.figures.tiles import put_tile

_MARGIN_PX, _GAP_PX = 16, 6
_TILE_PX = 132
_TITLE_PX, _HEADING_PX, _WORDS_PX = 20, 16, 11
_HEADING_ROOM_PX = 26
_WORDS_ROOM_PX = 18


@dataclass(frozen=True, slots=True)
class TypicalLesion:
    """One tile."""

    lesion_id: str
    score: float
    """How sure the categoriser is, 0 to 1."""
    patch: Patch | None
    """None where the lake holds no image."""


@dataclass(frozen=True, slots=True)
class CategoryLine:
    """One category and its most typical lesions, most typical first."""

    number: int
    name: str | None
    lesions: int
    typical: Sequence[TypicalLesion]


def draw_contact_sheet(lines: Sequence[CategoryLine], title: str) -> Image.Image:
    """A line for each category: its number, its name, how many lesions it has, and tiles."""
    columns = max([6, *(len(line.typical) for line in lines)])
    width = 2 * _MARGIN_PX + columns * (_TILE_PX + _GAP_PX) - _GAP_PX
    line_px = _HEADING_ROOM_PX + _TILE_PX + _WORDS_ROOM_PX + 2 * _GAP_PX
    top = _MARGIN_PX + round(1.8 * _TITLE_PX)
    sheet = Sheet(width, top + len(lines) * line_px + _MARGIN_PX)
    text, size = fit_text(title, _TITLE_PX, width - 2 * _MARGIN_PX)
    sheet.write(text, (_MARGIN_PX, _MARGIN_PX), size, bold=True)
    for at, line in enumerate(lines):
        _put_line(sheet, line, top + at * line_px)
    return sheet.image


def heading(line: CategoryLine) -> str:
    """Such as "3 · liver, 812 lesions"."""
    count = f"{line.lesions:,} lesion" + ("" if line.lesions == 1 else "s")
    return f"{line.number} · {line.name or 'no name yet'}, {count}"


def _put_line(sheet: Sheet, line: CategoryLine, top: int) -> None:
    room = sheet.image.width - 2 * _MARGIN_PX
    text, size = fit_text(heading(line), _HEADING_PX, room)
    sheet.write(text, (_MARGIN_PX, top), size, bold=True)
    y = top + _HEADING_ROOM_PX
    for column, lesion in enumerate(line.typical):
        x = _MARGIN_PX + column * (_TILE_PX + _GAP_PX)
        put_tile(sheet, lesion.patch, (x, y), _TILE_PX)
        words, size = fit_text(f"{lesion.lesion_id}  {100 * lesion.score:.0f} %", _WORDS_PX, _TILE_PX)
        sheet.write(words, (x, y + _TILE_PX + 3), size, colour=FAINT_INK)
