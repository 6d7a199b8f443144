"""The growth chart: every lesion a line, vanished ones crossed out, limits named, one study legible."""

import io

import numpy as np
import pytest
from PIL import Image

from cli.figures.growth import MAX_LINES, GrowthLine, growth_chart


@pytest.fixture
def drawn(figures):
    """Draws a chart and gives the axes it was drawn on."""

    def draw(lines, title="A title", axis="days"):
        png = growth_chart(lines, title, axis)
        assert np.asarray(Image.open(io.BytesIO(png)).convert("L")).std() > 0
        return figures[-1].axes[0]

    return draw


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_every_lesion_is_a_line_through_its_sizes(drawn):
    axes = drawn([GrowthLine("lesion 1, liver", [0, 30, 90], [10, 12, 20]), GrowthLine("lesion 2", [30, 90], [5, 4])])

    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"lesion 1, liver": [[0, 10], [30, 12], [90, 20]], "lesion 2": [[30, 5], [90, 4]]}
    assert legend(axes) == ["lesion 1, liver", "lesion 2"]
    assert axes.get_ylim() == (0, pytest.approx(21.6))


def test_a_vanished_lesion_ends_in_a_cross_where_it_was_not_marked(drawn):
    axes = drawn([GrowthLine("lesion 1", [0, 30], [10, 12], 60)])

    assert [[60, 12]] in [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "x"]
    assert legend(axes)[-1] == "no longer marked"


def test_no_two_of_the_most_lines_look_alike(drawn):
    axes = drawn([GrowthLine(f"lesion {number}", [0, 1], [number, number]) for number in range(1, MAX_LINES + 1)])

    looks = {(line.get_color(), line.get_marker(), str(line._dash_pattern)) for line in axes.lines}
    assert len(looks) == MAX_LINES


def test_too_many_lesions_leave_out_those_seen_least_and_say_so(drawn):
    lines = [GrowthLine(f"lesion {number}", [0], [5]) for number in range(1, 4)]
    lines += [GrowthLine(f"often {number}", [0, 1], [5, 6]) for number in range(MAX_LINES - 1)]
    axes = drawn(lines)

    assert axes.get_title() == "A title; 2 more lesions not shown"
    assert [name for name in legend(axes) if name.startswith("lesion")] == ["lesion 1"]
    assert len(legend(axes)) == MAX_LINES


def test_a_single_study_has_one_tick(drawn):
    axes = drawn([GrowthLine("lesion 1", [1], [10]), GrowthLine("lesion 2", [1], [0])])

    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1"]


def test_lesions_without_size_and_odd_titles_are_drawn(drawn):
    assert drawn([GrowthLine("lesion 1", [1, 2], [0, 0])], title="$\\frac{x").get_ylim() == (0, 1)


def test_the_same_lines_draw_the_same_bytes():
    lines = [GrowthLine("lesion 1", [0, 30], [10, 12], 60)]

    assert growth_chart(lines, "A", "days") == growth_chart(lines, "A", "days")


def test_no_line_is_refused():
    with pytest.raises(ValueError, match="at least one lesion"):
        growth_chart([], "A", "days")
