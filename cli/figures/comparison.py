"""The papers' table as a picture: errors of the rows with their seeds, and their precision over recall of matching."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from store.comparison import SetScores, WantedRow

_COLOURS = tuple(
    OKABE_ITO[name]
    for name in ("blue", "vermillion", "bluish_green", "orange", "reddish_purple", "sky_blue", "black", "yellow")
)
_DASHES = ("-", "--", "-.", ":")
_ERRORS = (("type %", "type_percent"), ("location × 100", "location_percent"), ("size × 100 / unit", "size_percent"))


def comparison_chart(scored: "Sequence[tuple[WantedRow, Sequence[SetScores]]]") -> bytes:
    """Three panels of errors, every set a dot (filled: same patient allowed), and one of matching curves."""
    rows = [(row.label, sets) for row, sets in scored if sets]
    matched = [(label, sets) for label, sets in rows if any(one.matching for one in sets)]
    panels = len(_ERRORS) + bool(matched)
    figure = new_figure(4.0 * panels + 1.5, max(3.4, 0.42 * len(rows) + 2.0))
    axes = figure.subplots(1, panels, width_ratios=[1] * len(_ERRORS) + [1.5] * bool(matched))
    for number, (title, field) in enumerate(_ERRORS):
        _draw_errors(axes[number], rows, title, field, labelled=number == 0)
    if matched:
        _draw_curves(axes[-1], matched)
    return to_png(figure)


def _draw_errors(
    axes: "Axes", rows: "Sequence[tuple[str, Sequence[SetScores]]]", title: str, field: str, *, labelled: bool
) -> None:
    for mode, marker, fill, shift in (("allowed", "o", True, -0.13), ("excluded", "D", False, 0.13)):
        for place, (_, sets) in enumerate(rows):
            found = [getattr(getattr(one.retrieval, mode), field).mean for one in sets]
            values = [value for value in found if value is not None]
            colour = _COLOURS[place % len(_COLOURS)]
            axes.plot(
                values, [place + shift] * len(values), marker, color=colour, markersize=5,
                markerfacecolor=colour if fill else "none", linestyle="none",
            )  # fmt: skip
    axes.plot([], [], "o", color=OKABE_ITO["black"], label="same patient allowed")
    axes.plot([], [], "D", color=OKABE_ITO["black"], markerfacecolor="none", label="excluded")
    axes.set(title=f"error of {title}", ylim=(len(rows) - 0.5, -0.5), xlabel="lower is better")
    axes.set_yticks(range(len(rows)), [label for label, _ in rows] if labelled else [""] * len(rows))
    axes.set_xlim(left=0)
    tidy(axes)
    if not labelled and (legend := axes.get_legend()) is not None:
        legend.remove()


def _draw_curves(axes: "Axes", rows: "Sequence[tuple[str, Sequence[SetScores]]]") -> None:
    from store.matching_scores import drawn_points

    for place, (label, sets) in enumerate(rows):
        areas = [one.matching.sweep.auc for one in sets if one.matching and one.matching.sweep.auc is not None]
        said = f"{label}, area {sum(areas) / len(areas):.3f}" if areas else label
        for one in sets:
            points = drawn_points(one.matching.sweep.points) if one.matching else []
            if not points:
                continue
            recall, precision = [point[0] for point in points], [point[1] for point in points]
            axes.plot(
                [0.0, *recall], [precision[0], *precision], _DASHES[place % len(_DASHES)],
                color=_COLOURS[place % len(_COLOURS)], linewidth=1.2, label=said,
            )  # fmt: skip
            said = "_nolegend_"
    axes.set(title="matching, every seed a line", xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    tidy(axes)
