"""The longitudinal figure: studies as columns, matched lesions as rows, linked from study to study.

The layout is that of the paper's figure. A row is one lesion through time (a group); its state in each study is written
and has a sign of its own; a link's line and number say how sure the match is. Lesions that merge into another one or
split off it have links between rows. A vanished lesion, no longer marked, is a dashed empty tile.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from cli.figures.longitudinal_grid import Cell, Grid, Link, LinkKind, Sighting, State, StudyColumn, choose_cells
from cli.figures.palette import OKABE_ITO
from cli.figures.sheet import FAINT_INK, Box, Dash, Marker, Point, Sheet, common_size, fit_text, width_of, wrap_text
from cli.figures.tiles import (
    LONG_AXIS_COLOUR,
    SHORT_AXIS_COLOUR,
    LegendItem,
    legend_line_px,
    legend_lines,
    put_legend,
    put_tile,
    put_type,
    size_text,
)

if TYPE_CHECKING:
    from PIL import Image

# A match at least this sure is a solid line; one at least that sure a dashed line; the others are dotted.
SURE, FAIRLY_SURE = 0.8, 0.6

STATE_SIGNS: Final[Mapping[State, tuple[Marker, str]]] = {
    "baseline": ("ring", OKABE_ITO["black"]),
    "new": ("plus", OKABE_ITO["vermillion"]),
    "persistent": ("arrow", OKABE_ITO["blue"]),
    "vanished": ("cross", FAINT_INK),
    "merged": ("merge", OKABE_ITO["reddish_purple"]),
    "split": ("split", OKABE_ITO["bluish_green"]),
}
_DASH_WORDS: Mapping[Dash, str] = {
    "solid": f"match, at least {SURE:.1f} sure",
    "dashed": f"match, at least {FAIRLY_SURE:.1f} sure",
    "dotted": "match, less sure",
}
_LINK_COLOURS: Mapping[LinkKind, str] = {
    "same_lesion": STATE_SIGNS["persistent"][1],
    "merged": STATE_SIGNS["merged"][1],
    "split": STATE_SIGNS["split"][1],
}
_EDGE_PX, _TITLE_PX, _TEXT_PX, _SMALL_PX, _LEAST_PX = 24, 24, 17, 14, 10
_CAPTION_LINES = 3
_LABEL_PX, _GAP_PX = 140, 84
# Narrower than two columns, the title and the legend have no room.
_LEAST_COLUMNS = 2
# Where a link's number may stand on its way through the gap, the best place first.
_LABEL_SHARES = (0.5, 0.3, 0.7, 0.15, 0.85)


@dataclass(frozen=True, slots=True)
class _Measures:
    tile_px: int
    name_px: int
    """Font size of lesions' names, the same in all cells."""
    header_px: int
    top_px: int

    @property
    def row_px(self) -> int:
        return self.tile_px + _CAPTION_LINES * 20 + 26

    def left(self, column: int) -> int:
        return _EDGE_PX + _LABEL_PX + column * (self.tile_px + _GAP_PX)

    def top(self, row: int) -> int:
        return self.top_px + row * self.row_px


def draw_longitudinal(
    studies: Sequence[StudyColumn],
    sightings: Sequence[Sighting],
    links: Sequence[Link],
    title: str,
    subtitle: str = "",
) -> "Image.Image":
    """The figure of one patient.

    What `choose_cells` leaves out is named in a note below. Links to what is not drawn are left out.

    Raises:
        ValueError: as `choose_cells`.
    """
    return lay_out_longitudinal(studies, sightings, links, title, subtitle).image


def lay_out_longitudinal(
    studies: Sequence[StudyColumn],
    sightings: Sequence[Sighting],
    links: Sequence[Link],
    title: str,
    subtitle: str = "",
) -> Sheet:
    """What `draw_longitudinal` draws, with every text and its place."""
    grid = choose_cells(studies, sightings)
    crowded = len(grid.studies) > 6 or len(grid.groups) > 8
    tile = 144 if crowded else 168
    width = 2 * _EDGE_PX + _LABEL_PX + max(_LEAST_COLUMNS, len(grid.studies)) * (tile + _GAP_PX) - _GAP_PX
    room = width - 2 * _EDGE_PX
    titles = wrap_text(title, _TITLE_PX, room, bold=True)
    subtitles = wrap_text(subtitle, _TEXT_PX, room)
    legend = legend_lines(_legend(grid, links), _TEXT_PX, room)
    notes = [line for note in grid.notes for line in wrap_text(note, _TEXT_PX, room)]
    headers = _headers(grid.studies)
    line_px = legend_line_px(_TEXT_PX)
    subtitle_top = _EDGE_PX + round(len(titles) * _TITLE_PX * 1.4)
    header_top = subtitle_top + len(subtitles) * line_px + 8
    names = (cell.shown.lesion_id or "" for cell in grid.cells.values())
    name_px = common_size(names, _SMALL_PX, tile)
    measures = _Measures(tile, name_px, header_top, header_top + len(headers[0]) * 22 + 12)
    below = measures.top(len(grid.groups))
    sheet = Sheet(width, below + (len(legend) + len(notes)) * line_px + _EDGE_PX)
    for number, line in enumerate(titles):
        sheet.write(line, (_EDGE_PX, _EDGE_PX + round(number * _TITLE_PX * 1.4)), _TITLE_PX, bold=True)
    for number, line in enumerate(subtitles):
        sheet.write(line, (_EDGE_PX, subtitle_top + number * line_px), _TEXT_PX)
    _put_headers(sheet, headers, measures)
    # Lines first: where one passes a study in which its lesion was not seen, tiles lie on top of it.
    labels = _put_links(sheet, grid, links, measures)
    _put_cells(sheet, grid, measures)
    _put_link_labels(sheet, labels)
    put_legend(sheet, legend, (_EDGE_PX, below), _TEXT_PX)
    for number, note in enumerate(notes, len(legend)):
        sheet.write(note, (_EDGE_PX, below + number * line_px), _TEXT_PX, bold=True)
    return sheet


@dataclass(frozen=True, slots=True)
class _Line:
    """A link between two cells that are drawn."""

    start: tuple[int, int]
    """Group and study number."""
    end: tuple[int, int]
    kind: LinkKind
    confidence: float | None


@dataclass(frozen=True, slots=True)
class _LinkLabel:
    """What is written on a link, and the piece of it in the gap where there is room for that."""

    words: str
    start: Point
    end: Point


def _headers(studies: Sequence[StudyColumn]) -> list[list[str]]:
    """Equally many lines for every study; what is known of none of them is not spoken of."""
    days, ages = any(s.day is not None for s in studies), any(s.age_years is not None for s in studies)
    headers = []
    for study in studies:
        lines = [f"study {study.number}"]
        if days:
            lines.append("day unknown" if study.day is None else f"day {study.day:g}")
        if ages:
            lines.append("age unknown" if study.age_years is None else f"age {study.age_years:.0f}")
        headers.append(lines)
    return headers


def _put_headers(sheet: Sheet, headers: Sequence[Sequence[str]], measures: _Measures) -> None:
    for column, lines in enumerate(headers):
        middle = measures.left(column) + measures.tile_px / 2
        for number, line in enumerate(lines):
            at = middle, measures.header_px + number * 22
            sheet.write(line, at, _TEXT_PX, bold=number == 0, anchor="ma")


def _put_cells(sheet: Sheet, grid: Grid, measures: _Measures) -> None:
    columns = {study.number: column for column, study in enumerate(grid.studies)}
    for row, group in enumerate(grid.groups):
        cells = [grid.cells[group, number] for number in columns if (group, number) in grid.cells]
        top = measures.top(row)
        sheet.write(f"lesion {group}", (_EDGE_PX, top + 6), _TEXT_PX, bold=True)
        lesion_type = next((cell.shown.lesion_type for cell in cells if cell.shown.lesion_type), None)
        put_type(sheet, lesion_type, (_EDGE_PX, top + 30), _SMALL_PX, _LABEL_PX - 12)
        for number, column in columns.items():
            if (group, number) in grid.cells:
                _put_cell(sheet, grid.cells[group, number], (measures.left(column), top), measures)


def _put_cell(sheet: Sheet, cell: Cell, corner: tuple[int, int], measures: _Measures) -> None:
    (left, top), shown, tile = corner, cell.shown, measures.tile_px
    marker, colour = STATE_SIGNS[shown.state]
    gone = shown.state == "vanished"
    if gone:
        sheet.fill((left, top, left + tile - 1, top + tile - 1), "#FFFFFF")
        sheet.write("not marked", (left + tile / 2, top + tile / 2), _SMALL_PX, colour=FAINT_INK, anchor="mm")
    else:
        put_tile(sheet, shown.patch, corner, tile)
    sheet.frame((left - 1, top - 1, left + tile, top + tile), colour, 3, "dashed" if gone else "solid")
    below = top + tile + 8
    sheet.mark(marker, (left + 8, below + 9), 15, colour)
    state, state_px = fit_text(f"{shown.state} (+{cell.more})" if cell.more else shown.state, _SMALL_PX, tile - 22)
    sheet.write(state, (left + 22, below), state_px)
    if gone:
        return
    lines = (shown.lesion_id or "no name", measures.name_px), (size_text(shown.long_mm, shown.short_mm), _SMALL_PX)
    for number, (line, most_px) in enumerate(lines, 1):
        text, size = fit_text(line, most_px, tile, smallest_px=_LEAST_PX)
        sheet.write(text, (left, below + number * 20), size)


def _put_links(sheet: Sheet, grid: Grid, links: Sequence[Link], measures: _Measures) -> list[_LinkLabel]:
    """Draw the lines; their labels are returned, to be written when everything else is drawn."""
    columns = {study.number: column for column, study in enumerate(grid.studies)}
    rows = {group: row for row, group in enumerate(grid.groups)}
    labels = []
    for line in _lines(grid, links):
        first, last = columns[line.start[1]], columns[line.end[1]]
        start = measures.left(first) + measures.tile_px, measures.top(rows[line.start[0]]) + measures.tile_px / 2
        end = measures.left(last), measures.top(rows[line.end[0]]) + measures.tile_px / 2
        path = _path(start, end, line.kind)
        sheet.line(path, _LINK_COLOURS[line.kind], 3, _dash(line.confidence))
        if line.confidence is not None:
            # Of a part that has split off the first piece slants, of all others the last one lies in a gap.
            piece = path[:2] if line.kind == "split" else path[-2:]
            labels.append(_LinkLabel(f"{line.confidence:.2f}", *piece))
    return labels


def _path(start: Point, end: Point, kind: LinkKind) -> list[Point]:
    """A link's corners: from row to row it slants in one gap only, so that it crosses no other lesion's tile."""
    bend = (start[0] + _GAP_PX, end[1]) if kind == "split" else (end[0] - _GAP_PX, start[1])
    return [start, end] if bend[0] in {start[0], end[0]} else [start, bend, end]


def _lines(grid: Grid, links: Sequence[Link]) -> Iterator[_Line]:
    """Between a group's successive sightings, then from group to group; the confidences are those of the links."""
    places = {lesion: place for place, cell in grid.cells.items() for lesion in cell.lesion_ids}
    known = {
        (places[link.from_lesion_id], places[link.to_lesion_id]): link
        for link in links
        if link.from_lesion_id in places and link.to_lesion_id in places
    }
    for group in grid.groups:
        seen = [
            (group, study.number)
            for study in grid.studies
            if (group, study.number) in grid.cells and grid.cells[group, study.number].shown.state != "vanished"
        ]
        for start, end in pairwise(seen):
            link = known.get((start, end))
            sure = grid.cells[end].shown.confidence if link is None else link.confidence
            yield _Line(start, end, "same_lesion", sure)
    for (start, end), link in known.items():
        if link.kind != "same_lesion":
            yield _Line(start, end, link.kind, link.confidence)


def _put_link_labels(sheet: Sheet, labels: Sequence[_LinkLabel]) -> None:
    """Numbers over level lines, and on white within slanting ones; where two would meet, one gives way."""
    taken: list[Box] = []
    for label in labels:
        reach_x, reach_y = width_of(label.words, _SMALL_PX, bold=True) / 2 + 3, _SMALL_PX / 2 + 3
        boxes = []
        for share in _LABEL_SHARES:
            (x, y), (to_x, to_y) = label.start, label.end
            middle_x = min(max(x + (to_x - x) * share, x + reach_x), to_x - reach_x)
            middle_y = y - reach_y - 3 if y == to_y else y + (to_y - y) * share
            boxes.append((middle_x - reach_x, middle_y - reach_y, middle_x + reach_x, middle_y + reach_y))
        box = next((one for one in boxes if not any(_overlap(one, other) for other in taken)), boxes[0])
        taken.append(box)
        sheet.fill(box, "#FFFFFF")
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        sheet.write(label.words, middle, _SMALL_PX, bold=True, anchor="mm")


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _dash(confidence: float | None) -> Dash:
    if confidence is None or confidence < FAIRLY_SURE:
        return "dotted"
    return "solid" if confidence >= SURE else "dashed"


def _legend(grid: Grid, links: Sequence[Link]) -> list[LegendItem]:
    """Only what the figure shows."""
    states = {cell.shown.state for cell in grid.cells.values()}
    items = [LegendItem(state, colour, marker) for state, (marker, colour) in STATE_SIGNS.items() if state in states]
    lines = list(_lines(grid, links))
    dashes = {_dash(line.confidence) for line in lines}
    items += [LegendItem(words, dash=dash) for dash, words in _DASH_WORDS.items() if dash in dashes]
    if any(line.confidence is not None for line in lines):
        items.append(LegendItem("number on a line: how sure the match is, 0 … 1"))
    if any(cell.shown.patch is not None for cell in grid.cells.values()):
        items += [
            LegendItem("long axis", LONG_AXIS_COLOUR, dash="solid"),
            LegendItem("short axis", SHORT_AXIS_COLOUR, dash="dashed"),
        ]
    if any(cell.more for cell in grid.cells.values()):
        items.append(LegendItem("(+n): n more marks of the lesion in the study, the largest is shown"))
    return items
