"""The response chart shows what the course says: sums, limits, verdicts, gaps and new lesions."""

import io
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from cli.figures.response import response_chart
from store.response import Measurement, TimePoint, assess


def course_of(*lesions, days=None):
    """A course from rows such as (group, organ, size at study 1, 2, …); None is not marked."""
    marks = [
        Measurement(
            (f"t-{group}-{time}",), group, time, size, size, organ, is_node=organ == "node", slice_interval_mm=1
        )
        for group, organ, *sizes in lesions
        for time, size in enumerate(sizes, 1)
        if size is not None
    ]
    count = len(lesions[0]) - 2
    days = days or [56 * time for time in range(count)]
    return assess(marks, [TimePoint(time, f"s{time}", day) for time, day in enumerate(days, 1)])


@pytest.fixture
def drawn(figures):
    def draw(course, title="A title"):
        png = response_chart(course, title)
        assert np.asarray(Image.open(io.BytesIO(png)).convert("L")).std() > 0
        return figures[-1].axes[0]

    return draw


def line(axes, label):
    (found,) = [one for one in axes.lines if one.get_label().startswith(label)]
    return np.asarray(found.get_xydata(), float).tolist()


def words(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_sums_and_limits_are_those_of_the_course(drawn):
    axes = drawn(course_of((1, "liver", 60, 40, 20, 30), (2, "lung", 40, 30, 4, 5)))

    assert line(axes, "sum of") == [[0, 100], [56, 70], [112, 24], [168, 35]]
    assert line(axes, "PR from 70.0 mm down")[0][1] == 70
    # 20 % over 100 and over 70; over 24 the 5 mm are more. Each limit holds up to the study it is held against.
    assert np.allclose(line(axes, "PD from"), [[0, 120], [56, 120], [112, 84], [168, 29]])
    assert line(axes, "lesion 1, liver") == [[0, 60], [56, 40], [112, 20], [168, 30]]
    assert words(axes) == [
        "100.0 mm", "baseline", "70.0 mm, −30 %", "PR", "24.0 mm, −76 %", "PR", "35.0 mm, −65 %", "PD",
    ]  # fmt: skip


def test_an_incomplete_study_is_hollow_and_leaves_a_gap(drawn):
    axes = drawn(course_of((1, "liver", 60, None, 50), (2, "lung", 40, 30, 40)))

    assert np.isnan(line(axes, "sum of")[1][1])
    hollow = [one for one in axes.lines if one.get_markerfacecolor() == "#FFFFFF" and len(one.get_xdata())]
    assert [one.get_xydata().tolist() for one in hollow] == [[[56, 30]]]
    assert words(axes)[2:4] == ["at least 30.0 mm", "not evaluable"]
    assert "NE, not evaluable" in legend(axes)
    assert words(drawn(course_of((1, "liver", 60, None))))[2:] == ["no target measured", "not evaluable"]


def test_new_lesions_are_named_at_their_study(drawn):
    axes = drawn(course_of((1, "liver", 60, 60, 60), *((group, "bone", None, 20, 20) for group in range(2, 7))))

    assert "+ new 2, 3, 4, …" in words(axes)
    assert [one.get_xdata()[0] for one in axes.lines if list(one.get_xdata()) == [56, 56]] == [56]
    assert "study with new lesions" in legend(axes)


def test_studies_without_days_are_counted(drawn):
    course = course_of((1, "liver", 60, 40, 30), days=[0, None, 90])
    axes = drawn(course)

    assert axes.get_xlabel() == "study (not every day is known)"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["1", "2", "3"]
    assert line(axes, "sum of") == [[1, 60], [2, 40], [3, 30]]


@pytest.mark.parametrize(
    ("course", "said"),
    [
        (course_of((1, "liver", 60)), "baseline only: there is no later study"),
        (course_of((1, "liver", 5, 5)), "best response NE (unconfirmed), no progression so far"),
        (course_of((1, "liver", 60, None)), "best response NE (unconfirmed), no progression so far"),
        (course_of((1, "liver", 60, 30, 60)), "best response PR (unconfirmed), progression at day 112"),
        (course_of((1, "liver", 60, 0)), "best response CR (unconfirmed), no progression so far"),
    ],
    ids=["one study", "no target", "nothing later", "progression", "gone"],
)
def test_every_course_is_drawn_and_summed_up(drawn, course, said):
    axes = drawn(course, "$\\frac{x")

    assert axes.get_figure().get_suptitle() == f"$\\frac{{x\n{said}"
    assert ("no measurable lesion at the baseline: there is no sum to follow" in words(axes)) == (not course.targets)


@pytest.mark.parametrize("days", [None, [0, 1, 2, 3, 4, 300, 301, 302, 303, 304, 305, 900, 901, 902]])
def test_words_over_many_and_close_studies_do_not_meet(drawn, days):
    sizes = [60, 55, 50, 45, None, 40, 35, 30, 25, 20, 30, 40, 50, 60]
    axes = drawn(
        course_of((1, "liver", *sizes), (2, "lung", *([30] * 13), 45), (3, "bone", *([None] * 6), *[9] * 8), days=days)
    )

    figure = axes.get_figure()
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
    assert len(boxes) >= 28
    for one, other in combinations([box.shrunk(0.98, 0.8) for box in boxes], 2):
        assert not one.overlaps(other)
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height for box in boxes)


def test_names_of_organs_are_not_read_as_formulas(drawn):
    assert "lesion 1, $\\frac{" in legend(drawn(course_of((1, "$\\frac{", 60, 60))))


def test_targets_look_different_and_nodes_say_which_axis_counts(drawn):
    axes = drawn(
        course_of(
            *(
                (group, organ, 60 - group, 50)
                for group, organ in enumerate(["liver", "liver", "lung", "bone", "node"], 1)
            )
        )
    )

    targets = [one for one in axes.lines if one.get_label().startswith("lesion")]
    assert len({(one.get_color(), one.get_marker(), one.get_linestyle()) for one in targets}) == 5
    assert len({one.get_color() for one in targets}) == 5
    assert "lesion 5, node (short axis)" in legend(axes)


def test_the_same_course_draws_the_same_bytes():
    course = course_of((1, "liver", 60, 40))

    assert response_chart(course, "A") == response_chart(replace(course), "A")
