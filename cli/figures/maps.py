"""Charts of many lesions at once: a feature set on a plane, and lesions at their places in the body.

A kind has a colour, a marker and a line in the legend with its count; rare kinds are drawn over common ones. Numbers go
from dark to light in one scale that grows steadily lighter, so that it reads in grey too.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.colouring import Colour
from cli.figures.palette import LESION_TYPE_COLOURS, OKABE_ITO, UNKNOWN_COLOUR, UNKNOWN_TYPE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from store.lesion_maps import MapLesions

_SCALE = "viridis"
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*")
_OTHERS_MARKER = "."
# Yellow needs one on white paper.
_EDGE = "#333333"
_SPLIT_COLOURS = {
    "train": OKABE_ITO["sky_blue"],
    "val": OKABE_ITO["orange"],
    "test": OKABE_ITO["vermillion"],
}
# Yellow and black stand for types that patients should not be taken for, but eight patients need eight colours.
_PATIENT_COLOURS = tuple(
    OKABE_ITO[name]
    for name in ("blue", "vermillion", "bluish_green", "orange", "reddish_purple", "sky_blue", "black", "yellow")
)
_LARGEST_POINT, _SMALLEST_POINT, _INK = 42.0, 9.0, 30_000.0


def map_chart(
    lesions: "MapLesions",
    points: NDArray[np.float64],
    colours: Sequence[Colour],
    title: str,
    axis_names: tuple[str, str],
) -> bytes:
    """The same points once for each meaning of colour, side by side.

    Args:
        lesions: what is known of them.
        points: (n, 2) of the same lesions.
        colours: at least one.
        title: one line.
        axis_names: empty where the axes mean nothing.
    """
    figure = new_figure(0.6 + 6.4 * len(colours), 6.0)
    for axes, colour in zip(figure.subplots(1, len(colours), squeeze=False)[0], colours, strict=True):
        _draw(figure, axes, lesions, points, colour, legend=True)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel=axis_names[0], ylabel=axis_names[1])
        if not any(axis_names):
            axes.set_xticks([])
            axes.set_yticks([])
    figure.suptitle(title, fontsize=11, parse_math=False)
    return to_png(figure)


def body_chart(lesions: "MapLesions", colour: Colour, title: str) -> bytes:
    """Seen from the front and from the side, the head on top."""
    figure = new_figure(10.6, 7.2)
    front, side = figure.subplots(1, 2, sharey=True)
    x, y, z = lesions.locations.T
    _draw(figure, front, lesions, np.column_stack([x, z]), colour, legend=False)
    _draw(figure, side, lesions, np.column_stack([y, z]), colour, legend=True)
    front.set(xlabel="x, from the image's left (the patient's right)", ylabel="z, the head end above")
    side.set(xlabel="y, from the front")
    front.set_title("from the front")
    side.set_title("from the side")
    for axes in (front, side):
        axes.title.set_fontsize(9)
        axes.set_xlim(0, 1)
    low, high = float(z.min()), float(z.max())
    front.set_ylim(max(1.0, high) + 0.01, min(0.0, low) - 0.01)
    figure.suptitle(title, fontsize=11, parse_math=False)
    return to_png(figure)


def _draw(
    figure: "Figure", axes: "Axes", lesions: "MapLesions", points: NDArray[np.float64], colour: Colour, *, legend: bool
) -> None:
    tidy(axes)
    if colour is Colour.LOCATION:
        label = "z in the body, the head end above"
        _draw_numbers(figure, axes, points, lesions.locations[:, 2], label, legend=legend, from_top=True)
        axes.set_title("by place along the body")
    elif colour is Colour.SIZE:
        _draw_numbers(
            figure, axes, points, lesions.sizes_mm[:, 0], "long diameter, mm", legend=legend, logarithmic=True
        )
        axes.set_title("by size")
    else:
        names, styles = _kinds(lesions, colour)
        _draw_kinds(axes, points, names, styles, legend=legend)
        axes.set_title(f"by {colour.value}")
    axes.title.set_fontsize(9)


def _kinds(lesions: "MapLesions", colour: Colour) -> tuple[list[str], Mapping[str, tuple[str, str]]]:
    """Each lesion's kind, and every kind's colour and marker in the order of the legend."""
    others = (UNKNOWN_COLOUR, _OTHERS_MARKER)
    if colour is Colour.TYPE:
        known = [name for name in LESION_TYPE_COLOURS if name != UNKNOWN_TYPE]
        styles = {name: (LESION_TYPE_COLOURS[name], marker) for name, marker in zip(known, _MARKERS, strict=True)}
        return [name if name in styles else UNKNOWN_TYPE for name in lesions.types], styles | {UNKNOWN_TYPE: others}
    if colour is Colour.SPLIT:
        styles = {
            name: (shade, marker) for (name, shade), marker in zip(_SPLIT_COLOURS.items(), _MARKERS, strict=False)
        }
        return [name if name in styles else UNKNOWN_TYPE for name in lesions.splits], styles | {UNKNOWN_TYPE: others}
    patients, counts = np.unique(np.array(lesions.patient_ids), return_counts=True)
    shown = [str(patients[at]) for at in np.argsort(-counts, kind="stable")[: len(_MARKERS)]]
    rest = f"{len(patients) - len(shown):,} other patients"
    styles = dict(zip(shown, zip(_PATIENT_COLOURS, _MARKERS, strict=True), strict=False))
    return [name if name in styles else rest for name in lesions.patient_ids], styles | {rest: others}


def _draw_kinds(
    axes: "Axes",
    points: NDArray[np.float64],
    names: Sequence[str],
    styles: Mapping[str, tuple[str, str]],
    *,
    legend: bool,
) -> None:
    kinds = np.array(names)
    counts = {name: int((kinds == name).sum()) for name in styles}
    size = _point_size(len(points))
    handles = {}
    # The grey rest lies under all, then common kinds, rare ones on top.
    for depth, name in enumerate(sorted(styles, key=lambda name: (styles[name][1] != _OTHERS_MARKER, -counts[name]))):
        if not counts[name]:
            continue
        shade, marker = styles[name]
        rest = marker == _OTHERS_MARKER
        at = kinds == name
        handles[name] = axes.scatter(
            points[at, 0], points[at, 1], s=size * (2.0 if rest else 1.0), c=shade, marker=marker,
            zorder=2 + depth / 100, alpha=0.35 if rest else 0.85, linewidths=0 if rest else 0.3,
            edgecolors=None if rest else _EDGE,
        )  # fmt: skip
    if legend:
        shown = [name for name in styles if counts[name]]
        drawn = axes.legend(
            [handles[name] for name in shown], [f"{name.replace('_', ' ')} ({counts[name]:,})" for name in shown],
            frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=1.0,
        )  # fmt: skip
        for handle in drawn.legend_handles:
            handle.set(alpha=1.0, sizes=[36.0])  # type: ignore[union-attr]


def _draw_numbers(
    figure: "Figure",
    axes: "Axes",
    points: NDArray[np.float64],
    values: NDArray[np.float64],
    label: str,
    *,
    legend: bool,
    logarithmic: bool = False,
    from_top: bool = False,
) -> None:
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.ticker import ScalarFormatter

    known = ~np.isnan(values) & ((values > 0) | (not logarithmic))
    size = _point_size(len(points))
    if not known.all():
        axes.scatter(
            points[~known, 0],
            points[~known, 1],
            s=size * 0.8,
            c=UNKNOWN_COLOUR,
            marker="x",
            alpha=0.5,
            linewidths=0.7,
            zorder=2,
        )
        axes.set_xlabel(f"× unknown ({int((~known).sum()):,})")
    if not known.any():
        return
    low, high = float(values[known].min()), float(values[known].max())
    # A single value has no scale.
    high = high if high > low else low * 1.01 + 1e-6
    norm = LogNorm(low, high) if logarithmic else Normalize(low, high)
    drawn = axes.scatter(
        points[known, 0],
        points[known, 1],
        s=size,
        c=values[known],
        cmap=_SCALE,
        norm=norm,
        alpha=0.9,
        linewidths=0,
        zorder=3,
    )
    if legend:
        bar = figure.colorbar(drawn, ax=axes, fraction=0.045, pad=0.02)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=8)
        if logarithmic:
            ticks = [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if low <= tick <= high]
            bar.set_ticks(ticks)
            bar.ax.minorticks_off()
            bar.ax.yaxis.set_major_formatter(ScalarFormatter())
        if from_top:
            bar.ax.invert_yaxis()


def _point_size(count: int) -> float:
    """Smaller, the more there are."""
    return min(_LARGEST_POINT, max(_SMALLEST_POINT, _INK / max(1, count)))
