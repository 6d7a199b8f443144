"""Heights over slices: every series a line, head at the top, as PNG."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

# More lines than this hide each other.
_MOST_LINES = 60


def heights_chart(
    series: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], thresholds: tuple[float, float] | None = None
) -> bytes:
    """Two panels: the heights of series over their slices, and how far each is from rising evenly.

    Args:
        series: slice numbers and heights of each.
        thresholds: between chest and abdomen, and abdomen and pelvis.
    """
    figure = new_figure(11.0, 4.8)
    lines, errors = figure.subplots(1, 2, width_ratios=(1.5, 1))
    drawn = list(series)[:: max(1, len(series) // _MOST_LINES)]
    for indices, heights in drawn:
        share = (indices - indices[0]) / max(1, indices[-1] - indices[0])
        lines.plot(share, heights, "-", color=OKABE_ITO["blue"], alpha=0.35, linewidth=0.9)
    for name, border in zip(("chest | abdomen", "abdomen | pelvis"), thresholds or (), strict=False):
        lines.axhline(border, color=OKABE_ITO["vermillion"], linestyle="--", linewidth=1)
        lines.text(0.01, border, name, color=OKABE_ITO["vermillion"], va="bottom", fontsize=8)
    lines.invert_yaxis()
    shown = f"{len(drawn)} of {len(series)} series" if len(drawn) < len(series) else f"{len(series)} series"
    lines.set(xlabel="place in the series, first to last slice", ylabel="height, 0 head to 1 foot", title=shown)
    correlations = [float(np.corrcoef(indices, heights)[0, 1]) for indices, heights in series if np.ptp(heights) > 0]
    errors.hist(correlations, bins=30, color=OKABE_ITO["bluish_green"], edgecolor="white")
    errors.set(xlabel="correlation of height and slice number", ylabel="series", title="order within series")
    tidy(lines)
    tidy(errors)
    return to_png(figure)
