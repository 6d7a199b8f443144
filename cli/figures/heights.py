"""Heights over slices, head at the top, and beside them how well they are in order or how true they are, as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More lines, or more points of one colour, hide each other.
_MOST_LINES = 60
_MOST_POINTS = 4_000

_BLACK, _BLUE, _VERMILLION = OKABE_ITO["black"], OKABE_ITO["blue"], OKABE_ITO["vermillion"]
_PARTS = (
    ("chest", OKABE_ITO["sky_blue"], "o"),
    ("abdomen", OKABE_ITO["orange"], "^"),
    ("pelvis", OKABE_ITO["bluish_green"], "s"),
)


@dataclass(frozen=True, slots=True)
class HeightCurve:
    """One series."""

    name: str
    indices: NDArray[np.int64]
    """Of its slices, ascending."""
    heights: NDArray[np.float64]
    correlation: float
    """Of both."""


@dataclass(frozen=True, slots=True)
class TrueHeights:
    """Slices whose true height is known, and where the parts of the body end."""

    heights: NDArray[np.float64]
    true_heights: NDArray[np.float64]
    thresholds: tuple[float, float]
    """Heights that stand for the borders between chest, abdomen and pelvis."""
    borders: tuple[float, float]
    """True heights of these borders."""


def heights_chart(curves: Sequence[HeightCurve], truth: TrueHeights | None = None) -> bytes:
    """Two panels: the heights of series over their slices; against the truth, or without one, how well each rises.

    Raises:
        ValueError: there is no series.
    """
    if not curves:
        raise ValueError("a chart of heights needs at least one series")
    figure = new_figure(11.5, 5.0)
    lines, right = figure.subplots(1, 2, width_ratios=(1.35, 1))
    _draw_lines(lines, sorted(curves, key=lambda curve: curve.correlation), truth)
    if truth is None:
        _draw_correlations(right, [curve.correlation for curve in curves])
    else:
        _draw_truth(right, truth)
    return to_png(figure)


def _draw_lines(axes: "Axes", curves: Sequence[HeightCurve], truth: TrueHeights | None) -> None:
    """The series that is least in order stands out; the others are chosen evenly from there to the best."""
    worst, *others = curves
    if len(others) >= _MOST_LINES:
        others = [others[round(at)] for at in np.linspace(0, len(others) - 1, _MOST_LINES - 1)]
    for curve in others:
        axes.plot(_share(curve), curve.heights, "-", color=_BLUE, alpha=0.4, linewidth=0.8)
    label = f"least in order: {worst.name}, r = {worst.correlation:.3f}"
    axes.plot(_share(worst), worst.heights, "-", color=_VERMILLION, linewidth=1.5, label=label)
    for name, border in zip(("chest ends", "pelvis begins"), truth.thresholds if truth else (), strict=False):
        axes.axhline(border, color=_BLACK, linestyle="--", linewidth=1)
        axes.annotate(
            name, (1, border), (-2, 3), xycoords=("axes fraction", "data"), textcoords="offset points", ha="right",
            fontsize=8, bbox={"boxstyle": "square,pad=0.1", "facecolor": "#FFFFFF", "edgecolor": "none", "alpha": 0.8},
        )  # fmt: skip
    axes.invert_yaxis()
    shown = f"{len(others) + 1} of {len(curves):,} series" if len(others) + 1 < len(curves) else f"{len(curves)} series"
    axes.set(
        xlabel="place in the series, first to last slice", ylabel="height: 0 at the head's end, 1 at the foot's",
        title=shown,
    )  # fmt: skip
    tidy(axes)
    axes.legend(frameon=False, fontsize=8, loc="lower left")


def _share(curve: HeightCurve) -> NDArray[np.float64]:
    steps: NDArray[np.float64] = (curve.indices - curve.indices[0]) / max(1, curve.indices[-1] - curve.indices[0])
    return steps


def _draw_correlations(axes: "Axes", correlations: Sequence[float]) -> None:
    ranked = np.sort(np.asarray(correlations, np.float64))
    axes.plot(100 * np.arange(1, len(ranked) + 1) / len(ranked), ranked, ".-", color=_BLUE, drawstyle="steps-pre")
    axes.axhline(float(ranked.mean()), color=_BLACK, linestyle="--", linewidth=1, label=f"mean {ranked.mean():.4f}")
    axes.set(
        xlabel="series up to this correlation, %", ylabel="correlation of height and slice number",
        title="order within series",
    )  # fmt: skip
    tidy(axes)


def _draw_truth(axes: "Axes", truth: TrueHeights) -> None:
    parts = np.searchsorted(np.asarray(truth.borders), truth.true_heights, side="right")
    for number, (name, colour, marker) in enumerate(_PARTS):
        of_part = np.flatnonzero(parts == number)
        chosen = of_part[:: max(1, -(-len(of_part) // _MOST_POINTS))]
        axes.plot(
            truth.true_heights[chosen], truth.heights[chosen], marker, color=colour, markersize=2.5, alpha=0.6,
            markeredgewidth=0, label=f"{name} ({len(of_part):,} slices)",
        )  # fmt: skip
    for border, threshold in zip(truth.borders, truth.thresholds, strict=True):
        axes.axvline(border, color=_BLACK, linestyle=":", linewidth=1)
        axes.axhline(threshold, color=_BLACK, linestyle="--", linewidth=1)
    said = np.searchsorted(np.asarray(truth.thresholds), truth.heights, side="right")
    right = 100 * float((said == parts).mean())
    axes.invert_yaxis()
    axes.set(
        xlabel="true height (dotted: true borders)", ylabel="height (dashed: thresholds)",
        title=f"part of the body right for {right:.1f} % of the slices",
    )  # fmt: skip
    tidy(axes)
    axes.legend(frameon=False, fontsize=8, markerscale=3)
