"""Detectors side by side: sensitivity over false positives, and top-1 accuracy over the overlap asked for, as PNG."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A line is told by its colour, its dashes and its marker; yellow is faint on paper.
_COLOURS = tuple(
    OKABE_ITO[name] for name in ("blue", "vermillion", "bluish_green", "reddish_purple", "orange", "black")
)
_DASHES = ("-", "--", "-.", ":")
_MARKERS = "osD^vP"

# More points than a line has pixels change nothing.
_MOST_POINTS = 2_000


@dataclass(frozen=True, slots=True)
class DetectorCurves:
    """One detector."""

    name: str
    false_positives: NDArray[np.float64]
    """Per image, along the curve."""
    sensitivities: NDArray[np.float64]
    at_rates: Sequence[float | None]
    """Sensitivity at each of the rates that are marked."""
    low: Sequence[float | None]
    high: Sequence[float | None]
    """Interval of each; None without one."""
    top_one: Sequence[float | None]
    """Accuracy at each overlap."""


def detection_chart(
    curves: Sequence[DetectorCurves],
    rates: Sequence[float],
    overlaps: Sequence[float],
    *,
    overlap_name: str = "IoU",
    image_name: str = "image",
) -> bytes:
    """Two panels: FROC with the rates marked, and the sweep of the top-1 accuracy.

    Raises:
        ValueError: there is no detector.
    """
    if not curves:
        raise ValueError("a chart of detectors needs at least one")
    figure = new_figure(11.5, 5.0)
    left, right = figure.subplots(1, 2)
    for at, curve in enumerate(curves):
        look: dict[str, Any] = {
            "color": _COLOURS[at % len(_COLOURS)],
            "linestyle": _DASHES[at // len(_COLOURS) % len(_DASHES)]
            if len(curves) > len(_COLOURS)
            else _DASHES[at % 4],
        }
        marker, label = _MARKERS[at % len(_MARKERS)], _as_written(curve.name)
        # Intervals of several detectors at one rate stand a little apart.
        _draw_froc(left, curve, rates, look, apart=2 ** (0.06 * (at - (len(curves) - 1) / 2)))
        left.plot(rates, _with_gaps(curve.at_rates), color=look["color"], linestyle="none", marker=marker, markersize=5)
        left.plot([], [], **look, marker=marker, label=label)
        right.plot(overlaps, _with_gaps(curve.top_one), **look, marker=marker, markersize=3.5, label=label)
    left.set_xscale("log", base=2)
    left.set_xlim(rates[0] / 2, rates[-1] * 2)
    left.set_xticks(list(rates), [f"{rate:g}" for rate in rates])
    left.minorticks_off()
    left.set(xlabel=f"false positives per {image_name}", ylabel="sensitivity", ylim=(0, 1.02), title="FROC")
    right.set(
        xlabel=f"{overlap_name} asked for", ylabel="images whose surest box is right", xlim=(0, 1), ylim=(0, 1.02),
        title="top-1 accuracy",
    )  # fmt: skip
    for axes in (left, right):
        tidy(axes)
    left.legend(frameon=False, fontsize=8, loc="lower right")
    return to_png(figure)


def _draw_froc(axes: "Axes", curve: DetectorCurves, rates: Sequence[float], look: dict[str, Any], apart: float) -> None:
    keep = np.unique(np.linspace(0, len(curve.false_positives) - 1, _MOST_POINTS).round().astype(np.int64))
    x, y = curve.false_positives[keep], curve.sensitivities[keep]
    # On a scale of powers the curve begins where it is first seen, and goes on level to the last rate.
    x = np.append(np.maximum(x, rates[0] / 4), max(float(x[-1]), rates[-1] * 2))
    axes.plot(x, np.append(y, y[-1]), **look, linewidth=1.3)
    for rate, low, high in zip(rates, curve.low, curve.high, strict=True):
        if low is not None and high is not None:
            axes.plot([rate * apart] * 2, [low, high], color=look["color"], linewidth=1)


def _as_written(name: str) -> str:
    """A name that the chart neither takes for mathematics nor leaves out for its first sign."""
    return name.replace("$", r"\$").replace("_", "\u200b_", 1) if name.startswith("_") else name.replace("$", r"\$")


def _with_gaps(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values])
