"""The growth chart: each lesion's long diameter over the days of a patient's course, one line a lesion."""

from collections.abc import Sequence
from dataclasses import dataclass

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

# Yellow is faint on white, so that no line has it; a lesion is told by colour, dash and marker together.
_COLOURS = tuple(
    OKABE_ITO[name] for name in ("blue", "vermillion", "bluish_green", "reddish_purple", "orange", "sky_blue", "black")
)
_MARKERS = "osD^vP*X"
_DASHES = ("-", "--", "-.", ":")

MAX_LINES = 40
_LINES_IN_COLUMN = 20


@dataclass(frozen=True, slots=True)
class GrowthLine:
    """One lesion's sightings in time."""

    name: str
    days: Sequence[float]
    long_mm: Sequence[float]
    vanished_on: float | None = None
    """The day of the first study in which it is no longer marked."""


def growth_chart(lines: Sequence[GrowthLine], title: str, time_axis: str) -> bytes:
    """A PNG with the lines of up to `MAX_LINES` lesions, those seen most often; the title says if some are left out.

    Raises:
        ValueError: there is no line.
    """
    from matplotlib.ticker import MaxNLocator

    if not lines:
        raise ValueError("a growth chart needs at least one lesion")
    by_sightings = sorted(range(len(lines)), key=lambda number: (-len(lines[number].days), number))
    shown = [lines[number] for number in sorted(by_sightings[:MAX_LINES])]
    left = len(lines) - len(shown)
    figure = new_figure(9.5 if len(shown) <= _LINES_IN_COLUMN else 11.5, 5.2)
    axes = figure.subplots()
    for number, line in enumerate(shown):
        colour = _COLOURS[number % len(_COLOURS)]
        axes.plot(
            line.days, line.long_mm, color=colour, marker=_MARKERS[number % len(_MARKERS)],
            linestyle=_DASHES[number // len(_COLOURS) % len(_DASHES)], markersize=5, linewidth=1.5, label=line.name,
        )  # fmt: skip
        if line.vanished_on is not None:
            last = line.days[-1], line.long_mm[-1]
            axes.plot([last[0], line.vanished_on], [last[1]] * 2, color=colour, linestyle=(0, (1, 4)), linewidth=1)
            axes.plot([line.vanished_on], [last[1]], color=colour, marker="x", linestyle="none", markersize=7)
    if any(line.vanished_on is not None for line in shown):
        axes.plot([], [], color=OKABE_ITO["black"], marker="x", linestyle=(0, (1, 4)), label="no longer marked")
    axes.set(xlabel=time_axis, ylabel="long diameter, mm")
    # Neither days nor studies have halves.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    days = [day for line in shown for day in (*line.days, line.vanished_on) if day is not None]
    if min(days) == max(days):
        # A single study would be shown in thousandths of a day.
        axes.set_xlim(days[0] - 1, days[0] + 1)
        axes.set_xticks([days[0]], [f"{days[0]:g}"])
    axes.set_ylim(0, 1.08 * max(max(line.long_mm) for line in shown) or 1.0)
    tidy(axes)
    columns = 1 + len(shown) // _LINES_IN_COLUMN
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), ncols=columns)
    words = f"{title}; {left} more lesions not shown" if left else title
    axes.set_title(words, fontsize=11, parse_math=False)
    return to_png(figure)
