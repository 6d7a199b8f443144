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
from cli.figures.sheet import FAINT_INK, Dash, Marker, Point, Sheet, fit_text, wrap_text
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
_LINK_COLOURS: Mapping[LinkKind, str] = {
    "same_lesion": STATE_SIGNS["persistent"][1],
    "merged": STATE_SIGNS["merged"][1],
    "split": STATE_SIGNS["split"][1],
}
_EDGE_PX, _TITLE_PX, _TEXT_PX, _SMALL_PX = 24, 24, 17, 14
_HEADER_LINES, _CAPTION_LINES = 3, 3


@dataclass(frozen=True, slots=True)
class _Measures:
    tile_px: int
    gap_px: int
    """Between columns: links and their numbers stand in it."""
    label_px: int
    top_px: int

    @property
    def row_px(self) -> int:
        return self.tile_px + _CAPTION_LINES * 20 + 26

    def left(self, column: int) -> int:
        return _EDGE_PX + self.label_px + column * (self.tile_px + self.gap_px)

    def top(self, row: int) -> int:
        return self.top_px + row * self.row_px


def draw_longitudinal(
    studies: Sequence[StudyColumn], sightings: Sequence[Sighting], links: Sequence[Link], title: str
) -> "Image.Image":
    """The figure of one patient.

    What `choose_cells` leaves out is named in a note below. Links to what is not drawn are left out.

    Raises:
        ValueError: as `choose_cells`.
    """
    return lay_out_longitudinal(studies, sightings, links, title).image


def lay_out_longitudinal(
    studies: Sequence[StudyColumn], sightings: Sequence[Sighting], links: Sequence[Link], title: str
) -> Sheet:
    """What `draw_longitudinal` draws, with every text and its place."""
    grid = choose_cells(studies, sightings)
    crowded = len(grid.studies) > 6 or len(grid.groups) > 8
    tile = 128 if crowded else 168
    label, gap = 140, 84
    # Narrower than four columns, the title and the legend have no room.
    width = 2 * _EDGE_PX + label + max(4, len(grid.studies)) * (tile + gap) - gap
    titles = wrap_text(title, _TITLE_PX, width - 2 * _EDGE_PX, bold=True)
    legend = legend_lines(_legend(grid, links), _TEXT_PX, width - 2 * _EDGE_PX)
    notes = [line for note in grid.notes for line in wrap_text(note, _TEXT_PX, width - 2 * _EDGE_PX)]
    header_top = _EDGE_PX + round(len(titles) * _TITLE_PX * 1.4) + 6
    measures = _Measures(tile, gap, label, header_top + _HEADER_LINES * 22 + 12)
    below = measures.top(len(grid.groups))
    line_px = legend_line_px(_TEXT_PX)
    sheet = Sheet(width, below + (len(legend) + len(notes)) * line_px + _EDGE_PX)
    for number, line in enumerate(titles):
        sheet.write(line, (_EDGE_PX, _EDGE_PX + round(number * _TITLE_PX * 1.4)), _TITLE_PX, bold=True)
    _put_headers(sheet, grid, measures, header_top)
    # Lines first: where one passes a study in which its lesion was not seen, tiles lie on top of it.
    labels = _put_links(sheet, grid, links, measures)
    _put_cells(sheet, grid, measures)
    for at, text, colour in labels:
        _put_link_label(sheet, at, text, colour)
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


def _put_headers(sheet: Sheet, grid: Grid, measures: _Measures, top: int) -> None:
    for column, study in enumerate(grid.studies):
        middle = measures.left(column) + measures.tile_px / 2
        lines = (
            f"study {study.number}",
            "day unknown" if study.day is None else f"day {study.day:g}",
            "" if study.age_years is None else f"age {study.age_years:.0f}",
        )
        for number, line in enumerate(lines):
            sheet.write(line, (middle, top + number * 22), _TEXT_PX, bold=number == 0, anchor="ma")


def _put_cells(sheet: Sheet, grid: Grid, measures: _Measures) -> None:
    columns = {study.number: column for column, study in enumerate(grid.studies)}
    for row, group in enumerate(grid.groups):
        cells = [grid.cells[group, number] for number in columns if (group, number) in grid.cells]
        top = measures.top(row)
        sheet.write(f"lesion {group}", (_EDGE_PX, top + 6), _TEXT_PX, bold=True)
        lesion_type = next((cell.shown.lesion_type for cell in cells if cell.shown.lesion_type), None)
        put_type(sheet, lesion_type, (_EDGE_PX, top + 30), _SMALL_PX, measures.label_px - 12)
        for number, column in columns.items():
            if (group, number) in grid.cells:
                _put_cell(sheet, grid.cells[group, number], (measures.left(column), top), measures.tile_px)


def _put_cell(sheet: Sheet, cell: Cell, corner: tuple[int, int], tile_px: int) -> None:
    (left, top), shown = corner, cell.shown
    marker, colour = STATE_SIGNS[shown.state]
    gone = shown.state == "vanished"
    if gone:
        sheet.fill((left, top, left + tile_px - 1, top + tile_px - 1), "#FFFFFF")
        sheet.write("not marked", (left + tile_px / 2, top + tile_px / 2), _SMALL_PX, colour=FAINT_INK, anchor="mm")
    else:
        put_tile(sheet, shown.patch, corner, tile_px)
    sheet.frame((left - 1, top - 1, left + tile_px, top + tile_px), colour, 3, "dashed" if gone else "solid")
    below = top + tile_px + 8
    sheet.mark(marker, (left + 8, below + 9), 15, colour)
    sheet.write(shown.state, (left + 22, below), _SMALL_PX)
    more = f" (+{cell.more})" if cell.more else ""
    lines = () if gone else (f"{shown.lesion_id or 'no name'}{more}", size_text(shown.long_mm, shown.short_mm))
    for number, line in enumerate(lines, 1):
        text, size = fit_text(line, _SMALL_PX, tile_px)
        sheet.write(text, (left, below + number * 20), size)


def _put_links(sheet: Sheet, grid: Grid, links: Sequence[Link], measures: _Measures) -> list[tuple[Point, str, str]]:
    """Draw the lines; their labels are returned, to be written when everything else is drawn."""
    columns = {study.number: column for column, study in enumerate(grid.studies)}
    rows = {group: row for row, group in enumerate(grid.groups)}
    labels = []
    for line in _lines(grid, links):
        first, last = columns[line.start[1]], columns[line.end[1]]
        start = measures.left(first) + measures.tile_px, measures.top(rows[line.start[0]]) + measures.tile_px / 2
        end = measures.left(last), measures.top(rows[line.end[0]]) + measures.tile_px / 2
        colour = _LINK_COLOURS[line.kind]
        sheet.line([start, end], colour, 3, _dash(line.confidence))
        if line.confidence is not None:
            # In the gap before the later end, where no tile hides it.
            share = (measures.gap_px / 2) / (end[0] - start[0])
            at = end[0] - measures.gap_px / 2, end[1] - (end[1] - start[1]) * share
            labels.append((at, f"{line.confidence:.2f}", colour))
    return labels


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


def _put_link_label(sheet: Sheet, at: Point, text: str, colour: str) -> None:
    sheet.write(text, at, _SMALL_PX, colour=colour, bold=True, anchor="mm", halo="#FFFFFF")


def _dash(confidence: float | None) -> Dash:
    if confidence is None or confidence < FAIRLY_SURE:
        return "dotted"
    return "solid" if confidence >= SURE else "dashed"


def _legend(grid: Grid, links: Sequence[Link]) -> list[LegendItem]:
    """Only what the figure shows."""
    states = {cell.shown.state for cell in grid.cells.values()}
    items = [LegendItem(state, colour, marker) for state, (marker, colour) in STATE_SIGNS.items() if state in states]
    lines = list(_lines(grid, links))
    if lines:
        items += [
            LegendItem(f"match at least {SURE:.1f} sure", dash="solid"),
            LegendItem(f"at least {FAIRLY_SURE:.1f}", dash="dashed"),
            LegendItem("less", dash="dotted"),
        ]
    if any(cell.shown.patch is not None for cell in grid.cells.values()):
        items += [
            LegendItem("long axis", LONG_AXIS_COLOUR, dash="solid"),
            LegendItem("short axis", SHORT_AXIS_COLOUR, dash="dashed"),
        ]
    if any(cell.more for cell in grid.cells.values()):
        items.append(LegendItem("(+n) more marks of the same lesion in the study"))
    return items
