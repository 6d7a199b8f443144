"""The chart of heights shows the series that is least in order, and the truth where there is one."""

import io

import numpy as np
import pytest
from PIL import Image

from cli.figures.heights import HeightCurve, TrueHeights, heights_chart


def curves(count):
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        heights = np.linspace(0.1, 0.9, 50) + rng.normal(0, 0.01 * (1 + number), 50)
        indices = np.arange(1, 51)
        found.append(HeightCurve(f"t-{number}", indices, heights, float(np.corrcoef(indices, heights)[0, 1])))
    return found


def test_without_a_truth_correlations_stand_beside_the_lines(figures):
    drawn = curves(5)
    png = heights_chart(drawn)

    assert Image.open(io.BytesIO(png)).size == (1380, 600)
    lines, right = figures[-1].axes
    worst = min(drawn, key=lambda curve: curve.correlation)
    assert lines.get_legend().get_texts()[0].get_text() == (
        f"least in order: {worst.name}, r = {worst.correlation:.3f}"
    )
    assert sorted(right.lines[0].get_ydata()) == pytest.approx(sorted(curve.correlation for curve in drawn))


def test_of_many_series_some_are_drawn_and_the_title_says_so(figures):
    heights_chart(curves(200))

    lines = figures[-1].axes[0]
    assert len(lines.lines) == 60
    assert lines.get_title() == "60 of 200 series"


def test_true_heights_and_both_kinds_of_borders_are_shown(figures):
    true = np.linspace(0, 1, 300)
    truth = TrueHeights(true + 0.05, true, (0.5, 0.75), (0.4, 0.7))
    heights_chart(curves(3), truth)

    right = figures[-1].axes[1]
    texts = [text.get_text() for text in right.get_legend().get_texts()]
    assert texts == ["chest (120 slices)", "abdomen (90 slices)", "pelvis (90 slices)"]
    # 0.05 above the truth: 0.40 to 0.45 are called chest; the other border is met.
    assert right.get_title() == "part of the body right for 95.0 % of the slices"


def test_no_series_make_no_chart():
    with pytest.raises(ValueError, match="at least one series"):
        heights_chart([])
