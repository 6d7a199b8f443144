"""Sheets and tiles: words that fit, lines that stay on the sheet, patches with their axes and a true scale bar."""

import numpy as np
import pytest

from cli.figures.patches import cut_patch, field_of_view_mm
from cli.figures.sheet import Sheet, common_size, fit_text, width_of, wrap_text
from cli.figures.tiles import (
    LONG_AXIS_COLOUR,
    SHORT_AXIS_COLOUR,
    LegendItem,
    bar_length_mm,
    distance_text,
    draw_patch,
    legend_lines,
    put_legend,
    put_tile,
    size_text,
    type_text,
)


def places_of(image, colour):
    """(rows, columns) of the pixels that have about this colour."""
    wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
    return np.nonzero(np.abs(np.asarray(image).astype(int) - wanted).max(axis=2) < 60)


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((23.14, 15.0), "23.1 × 15.0 mm"),
        ((23.14, None), "23.1 mm"),
        ((None, 15.0), "short 15.0 mm"),
        ((None, float("nan")), "size unknown"),
    ],
)
def test_size_is_said_as_far_as_it_is_known(sizes, words):
    assert size_text(*sizes) == words


def test_distance_and_type_are_said():
    assert [distance_text(value) for value in (0.0, 0.0421, 1e-7, 5e6, None)] == [
        "d 0.000", "d 0.042", "d 1.00e-07", "d 5.00e+06", "",
    ]  # fmt: skip
    assert (type_text("soft_tissue"), type_text(None)) == ("soft tissue", "type unknown")


@pytest.mark.parametrize("shown_mm", [3, 29, 70, 200, 600])
def test_scale_bar_is_long_and_fits(shown_mm):
    assert shown_mm * 0.1 <= bar_length_mm(shown_mm) <= shown_mm * 0.4


def test_axes_are_drawn_where_they_were_measured():
    points = np.array([[30.0, 50.0], [70.0, 50.0], [50.0, 40.0], [50.0, 60.0]])
    patch = cut_patch(np.zeros((100, 100), np.int16), (30, 40, 70, 60), points, (1, 1), (-100, 100), side_px=200)
    image = draw_patch(patch, 200)

    scale = 200 / (40 + 50)
    rows, columns = places_of(image, LONG_AXIS_COLOUR)
    assert np.ptp(columns) == pytest.approx(40 * scale, abs=4)
    assert rows.mean() == pytest.approx(100, abs=2)
    rows, columns = places_of(image, SHORT_AXIS_COLOUR)
    assert np.ptp(rows) == pytest.approx(20 * scale, abs=4)
    assert columns.mean() == pytest.approx(100, abs=2)


def test_small_lesions_are_shown_larger_than_their_axes():
    assert field_of_view_mm((0, 0, 5, 4), (1, 1)) == 29
    assert field_of_view_mm((0, 0, 16, 4), (1, 1)) == 56
    assert field_of_view_mm((0, 0, 20, 4), (1, 1)) == 70
    assert field_of_view_mm((0, 0, 100, 4), (1, 1)) == 150


def test_a_tile_without_patch_says_so():
    sheet = Sheet(120, 120)
    put_tile(sheet, None, (10, 10), 100)

    assert [text.text for text in sheet.texts] == ["no image"]


@pytest.mark.parametrize("width", [40, 90, 200])
def test_text_shrinks_then_gives_up_its_middle(width):
    text, size = fit_text("pacs-abcdefghijklmnop", 17, width)

    assert width_of(text, size) <= width
    assert 12 <= size <= 17
    assert text[0] == "p" or text == "…"
    assert common_size(["a", "pacs-abcdefghijklmnop"], 17, width) == size


def test_wrapped_text_keeps_its_words_in_order():
    lines = wrap_text("one two three four five six", 17, 90)

    assert " ".join(lines) == "one two three four five six"
    assert len(lines) > 1
    assert all(width_of(line, 17) <= 90 for line in lines)


def test_legend_breaks_into_lines_that_fit():
    items = [LegendItem(f"meaning {number}", "#0072B2", "plus", "dashed") for number in range(7)]
    lines = legend_lines(items, 17, 400)
    sheet = Sheet(400, 300)
    put_legend(sheet, lines, (0, 0), 17)

    assert [item for line in lines for item in line] == items
    assert len(lines) > 2
    assert [text.text for text in sheet.texts] == [item.words for item in items]
    assert all(text.box_xyxy_px[2] <= 400 for text in sheet.texts)


@pytest.mark.parametrize("dash", ["solid", "dashed", "dotted"])
def test_lines_end_where_they_should_and_may_leave_the_sheet(dash):
    sheet = Sheet(200, 100)
    sheet.line([(20, 50), (180, 50)], "#D55E00", 4, dash)
    columns = places_of(sheet.image, "#D55E00")[1]
    assert (columns.min(), columns.max()) == (pytest.approx(20, abs=2), pytest.approx(180, abs=2))

    before = sheet.image.tobytes()
    sheet.line([(-50, -50), (-10, -10)], "#D55E00", 4, dash)
    assert sheet.image.tobytes() == before
    sheet.line([(-50, 10), (500, 10)], "#D55E00", 4, dash)
    assert sheet.image.tobytes() != before


def test_dashes_tell_lines_apart_by_their_ink():
    ink = {}
    for dash in ("solid", "dashed", "dotted"):
        sheet = Sheet(300, 20)
        sheet.line([(10, 10), (290, 10)], "#000000", 4, dash)
        ink[dash] = int((np.asarray(sheet.image) < 128).sum())
    assert ink["solid"] > 1.3 * ink["dashed"] > 1.3 * 1.3 * ink["dotted"] > 0
