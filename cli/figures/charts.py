"""What every chart starts from and ends as.

Drawn with matplotlib's objects, never with pyplot: nothing looks for a display and no state is left behind.
"""

import io
from typing import TYPE_CHECKING

from cli.figures.palette import GRID_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 120


def new_figure(width_inches: float, height_inches: float) -> "Figure":
    """An empty figure that arranges its own parts."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width_inches, height_inches), dpi=_DPI, layout="constrained")


def tidy(axes: "Axes") -> None:
    """A faint grid behind the data, no box around it, and a legend if anything has a name."""
    axes.grid(color=GRID_COLOUR, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=8)
    axes.title.set_fontsize(9)


def to_png(figure: "Figure") -> bytes:
    """The figure as a PNG file's content."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    sink = io.BytesIO()
    FigureCanvasAgg(figure)  # becomes the figure's canvas
    # Without the library's version the same answer draws the same bytes.
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()
