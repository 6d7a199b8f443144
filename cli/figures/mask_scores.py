"""Masks against a phantom's true ones, as PNG: Dice over size, and measured long diameters over true ones."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from etl.mask_scores import LesionScore

_BLACK, _BLUE, _ORANGE = OKABE_ITO["black"], OKABE_ITO["blue"], OKABE_ITO["orange"]


def mask_chart(scores: "Sequence[LesionScore]") -> bytes:
    """Two panels, each lesion one point in each.

    Raises:
        ValueError: there is no lesion.
    """
    if not scores:
        raise ValueError("a chart of masks needs at least one lesion")
    figure = new_figure(10.5, 4.5)
    left, right = figure.subplots(1, 2)
    _draw_dice(left, scores)
    _draw_diameters(right, scores)
    return to_png(figure)


def _draw_dice(axes: "Axes", scores: "Sequence[LesionScore]") -> None:
    sizes = [one.true_long_mm for one in scores]
    axes.plot(sizes, [one.dice_2d for one in scores], "o", color=_BLUE, ms=4, alpha=0.6, label="key slice")
    axes.plot(sizes, [one.dice_3d for one in scores], "^", color=_ORANGE, ms=4, alpha=0.6, label="all slices")
    axes.set(
        xscale="log", ylim=(0, 1.02), xlabel="true long diameter, mm", ylabel="Dice",
        title=f"{len(scores):,} lesions",
    )  # fmt: skip
    tidy(axes)


def _draw_diameters(axes: "Axes", scores: "Sequence[LesionScore]") -> None:
    limit = 1.05 * max(one.true_long_mm + max(one.long_error_mm or 0.0, 0.0) for one in scores)
    axes.plot([0, limit], [0, limit], "--", color=_BLACK, linewidth=1)
    for label, name, colour, marker in (("long", "long", _BLUE, "o"), ("short", "short", _ORANGE, "^")):
        pairs = [
            (getattr(one, f"true_{name}_mm"), getattr(one, f"{name}_error_mm"))
            for one in scores
            if getattr(one, f"{name}_error_mm") is not None
        ]
        axes.plot(
            [true for true, _ in pairs], [true + error for true, error in pairs], marker, color=colour, ms=4, alpha=0.6,
            label=label,
        )  # fmt: skip
    axes.set(xlabel="true diameter, mm", ylabel="diameter of the mask, mm", title="diameters")
    tidy(axes)
