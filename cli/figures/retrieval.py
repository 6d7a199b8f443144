"""The retrieval figure: a query on the left, framed, and its hits to the right of it in their order.

The layout is that of the paper's figure. Several queries are several rows. Whether a hit is of the query's type is said
by a sign, by the frame's line and by its colour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cli.figures.palette import OKABE_ITO, UNKNOWN_COLOUR
from cli.figures.patches import Patch
from cli.figures.sheet import INK, Box, Dash, Marker, Sheet, common_size, fit_text, wrap_text
from cli.figures.tiles import (
    LONG_AXIS_COLOUR,
    NO_IMAGE,
    SHORT_AXIS_COLOUR,
    LegendItem,
    distance_text,
    legend_line_px,
    legend_lines,
    put_legend,
    put_tile,
    put_type,
    size_text,
)

if TYPE_CHECKING:
    from PIL import Image

MAX_ROWS, MAX_HITS = 10, 20

_TILE_PX, _GAP_PX, _EDGE_PX = 200, 22, 24
# The query stands a little apart from its hits.
_APART_PX = 30
_TITLE_PX, _TEXT_PX, _LEAST_PX, _LINE_PX, _HEADER_PX = 24, 17, 12, 22, 30
_CAPTION_LINES = 5
_ROW_PX = _TILE_PX + _CAPTION_LINES * _LINE_PX + 34


@dataclass(frozen=True, slots=True)
class Tile:
    """One lesion of the figure. A query that is a vector has neither patch nor ids."""

    patch: Patch | None
    lesion_id: str | None
    patient_id: str | None
    lesion_type: str | None
    long_mm: float | None
    short_mm: float | None
    distance: float | None
    """To the query; None for the query itself."""
    vector: Sequence[float] = ()
    """What was looked up in place of a lesion."""


@dataclass(frozen=True, slots=True)
class RetrievalRow:
    """A query and its hits, nearest first."""

    query: Tile
    hits: Sequence[Tile]


Agreement = Literal["same", "other", "unknown"]
_SIGNS: dict[Agreement, tuple[Marker, str, Dash]] = {
    "same": ("check", OKABE_ITO["bluish_green"], "solid"),
    "other": ("cross", OKABE_ITO["vermillion"], "dashed"),
    "unknown": ("question", UNKNOWN_COLOUR, "dotted"),
}
_MEANINGS: dict[Agreement, str] = {
    "same": "of the query's type",
    "other": "of another type",
    "unknown": "type not known of one of them",
}
# More numbers than these are no longer read.
_NUMBERS_SHOWN = 8


def agreement(query: Tile, hit: Tile) -> Agreement:
    """Whether a hit is of the query's type; unknown when one of them has none."""
    if query.lesion_type is None or hit.lesion_type is None:
        return "unknown"
    return "same" if query.lesion_type == hit.lesion_type else "other"


def draw_retrieval(rows: Sequence[RetrievalRow], title: str) -> "Image.Image":
    """The figure, about 220 pixels for every tile across and 340 for every row.

    Raises:
        ValueError: no row, more than `MAX_ROWS`, or more than `MAX_HITS` hits of one query.
    """
    return lay_out_retrieval(rows, title).image


def lay_out_retrieval(rows: Sequence[RetrievalRow], title: str) -> Sheet:
    """What `draw_retrieval` draws, with every text and its place."""
    most = max((len(row.hits) for row in rows), default=0)
    if not rows or len(rows) > MAX_ROWS or most > MAX_HITS:
        raise ValueError(
            f"a retrieval figure holds 1 to {MAX_ROWS} queries with up to {MAX_HITS} hits each, "
            f"found {len(rows)} with up to {most}"
        )
    # Narrower than three tiles, the title and the legend have no room.
    width = 2 * _EDGE_PX + _APART_PX + max(3, 1 + most) * (_TILE_PX + _GAP_PX) - _GAP_PX
    titles = wrap_text(title, _TITLE_PX, width - 2 * _EDGE_PX, bold=True)
    legend = legend_lines(_legend(rows), _TEXT_PX, width - 2 * _EDGE_PX)
    name_sizes = _name_sizes(rows)
    top = _EDGE_PX + round(len(titles) * _TITLE_PX * 1.4) + _HEADER_PX
    sheet = Sheet(width, top + len(rows) * _ROW_PX + len(legend) * legend_line_px(_TEXT_PX) + _EDGE_PX)
    for number, line in enumerate(titles):
        sheet.write(line, (_EDGE_PX, _EDGE_PX + round(number * _TITLE_PX * 1.4)), _TITLE_PX, bold=True)
    for place in range(most + 1):
        words = str(place) if place else "query"
        sheet.write(words, (_left(place) + _TILE_PX / 2, top - 12), _TEXT_PX, bold=True, anchor="ms")
    for number, row in enumerate(rows):
        _put_row(sheet, row, top + number * _ROW_PX, name_sizes)
    put_legend(sheet, legend, (_EDGE_PX, top + len(rows) * _ROW_PX), _TEXT_PX)
    return sheet


def _left(place: int) -> int:
    """Where the tile starts: 0 is the query's place, 1 the first hit's."""
    return _EDGE_PX + place * (_TILE_PX + _GAP_PX) + (_APART_PX if place else 0)


def _legend(rows: Sequence[RetrievalRow]) -> list[LegendItem]:
    """Only what the figure shows."""
    tiles = [tile for row in rows for tile in (row.query, *row.hits)]
    found = {agreement(row.query, hit) for row in rows for hit in row.hits}
    items = [
        LegendItem(_MEANINGS[one], colour, marker, dash)
        for one, (marker, colour, dash) in _SIGNS.items()
        if one in found
    ]
    if any(tile.patch is not None for tile in tiles):
        items += [
            LegendItem("long axis", LONG_AXIS_COLOUR, dash="solid"),
            LegendItem("short axis", SHORT_AXIS_COLOUR, dash="dashed"),
        ]
    items.append(LegendItem("names: lesion (bold), patient"))
    if any(distance_text(tile.distance) for tile in tiles):
        items.append(LegendItem("d = distance to the query"))
    return items


def _name_sizes(rows: Sequence[RetrievalRow]) -> tuple[int, int]:
    """Font sizes of lesions' and of patients' names, the same under all tiles."""
    tiles = [tile for row in rows for tile in (row.query, *row.hits)]
    return (
        common_size((tile.lesion_id or "" for tile in tiles), _TEXT_PX, _TILE_PX, bold=True),
        common_size((tile.patient_id or "" for tile in tiles), _TEXT_PX, _TILE_PX),
    )


def _put_row(sheet: Sheet, row: RetrievalRow, top: int, name_sizes: tuple[int, int]) -> None:
    left = _left(0)
    by_vector = row.query.patch is None and row.query.lesion_id is None
    put_tile(sheet, row.query.patch, (left, top), _TILE_PX, "vector" if by_vector else NO_IMAGE)
    sheet.frame(_outline(left, top), INK, 6)
    if by_vector:
        _put_vector(sheet, row.query.vector, left, top + _TILE_PX)
    else:
        _put_caption(sheet, row.query, left, top + _TILE_PX, name_sizes)
    for place, hit in enumerate(row.hits, 1):
        left = _left(place)
        marker, colour, dash = _SIGNS[agreement(row.query, hit)]
        put_tile(sheet, hit.patch, (left, top), _TILE_PX)
        sheet.frame(_outline(left, top), colour, 4, dash)
        # The sign lies on white, in the corner that a scale bar never reaches.
        badge = left + _TILE_PX - 26, top
        sheet.fill((*badge, badge[0] + 26, badge[1] + 26), "#FFFFFF")
        sheet.mark(marker, (badge[0] + 13, badge[1] + 13), 20, colour)
        _put_caption(sheet, hit, left, top + _TILE_PX, name_sizes)


def _outline(left: int, top: int) -> Box:
    return left - 2, top - 2, left + _TILE_PX + 1, top + _TILE_PX + 1


def _put_vector(sheet: Sheet, vector: Sequence[float], left: int, top: int) -> None:
    """How many numbers were looked up, and the first of them."""
    if not vector:
        return
    more = ", …" if len(vector) > _NUMBERS_SHOWN else ""
    numbers = ", ".join(f"{number:.3g}" for number in vector[:_NUMBERS_SHOWN]) + more
    lines = [f"{len(vector):,} numbers", *wrap_text(numbers, _TEXT_PX, _TILE_PX)][:_CAPTION_LINES]
    for number, line in enumerate(lines):
        sheet.write(line, (left, top + 10 + number * _LINE_PX), _TEXT_PX, bold=number == 0)


def _put_caption(sheet: Sheet, tile: Tile, left: int, top: int, name_sizes: tuple[int, int]) -> None:
    """Name, patient, type, size and distance under a tile; no line is wider than the tile."""
    texts = (
        tile.lesion_id or "no name",
        tile.patient_id or "patient unknown",
        None,
        size_text(tile.long_mm, tile.short_mm),
        distance_text(tile.distance),
    )
    for number, text in enumerate(texts):
        at = left, top + 10 + number * _LINE_PX
        if text is None:
            put_type(sheet, tile.lesion_type, at, _TEXT_PX, _TILE_PX)
        elif text:
            most = name_sizes[number] if number < len(name_sizes) else _TEXT_PX
            fitted, size = fit_text(text, most, _TILE_PX, smallest_px=_LEAST_PX, bold=number == 0)
            sheet.write(fitted, at, size, bold=number == 0)
