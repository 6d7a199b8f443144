"""Charts of an evaluation table: every column as dots with their spread, and the rows' matching curves in one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO, UNKNOWN_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from store.evaluation_table import TableReport, TableRow
    from store.table_claims import Column
    from store.table_matching import MatchingCurve
    from store.type_scores import Spread

_BLACK = OKABE_ITO["black"]
# Same patient allowed, excluded, and where it makes no difference: a marker each besides the colour.
_STYLES = {
    "allowed": (OKABE_ITO["blue"], "o", -0.16),
    "excluded": (OKABE_ITO["orange"], "s", 0.16),
    None: (OKABE_ITO["bluish_green"], "D", 0.0),
}
# Yellow is faint on white, so it comes last; a second round of colours has dashes.
_LINE_STYLES = tuple(
    (OKABE_ITO[name], marker, dash)
    for dash in ("-", "--")
    for name, marker in (
        ("blue", "o"), ("vermillion", "s"), ("bluish_green", "D"), ("orange", "^"), ("reddish_purple", "v"),
        ("sky_blue", "P"), ("black", "X"), ("yellow", "*"),
    )
)  # fmt: skip
_LONGEST_NAME = 34


def table_chart(report: "TableReport") -> bytes:
    """A panel for each column, a line for each row: mean and standard deviation; empty rows say so."""
    from store.table_claims import COLUMNS

    panels = [[column for column in COLUMNS if column.key.startswith(f"{name}_error")] for name in _ERRORS]
    panels += [[column] for column in COLUMNS if column.mode is None]
    if report.truth is None:
        panels = [panel for panel in panels if panel[0].key != "matching_auc"]
    figure = new_figure(2.6 + 1.75 * len(panels), 1.9 + 0.42 * max(1, len(report.rows)))
    axes: Sequence[Axes] = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for one, columns in zip(axes, panels, strict=True):
        _draw_panel(one, report.rows, columns)
    axes[0].set_yticks(
        range(len(report.rows)), [_short(row.title) for row in report.rows], fontsize=8, parse_math=False
    )
    axes[0].set_ylim(len(report.rows) - 0.5, -0.5)
    for mode, (colour, marker, _) in _STYLES.items():
        if mode is not None:
            axes[0].plot([], [], linestyle="none", marker=marker, color=colour, label=f"same patient {mode}")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.suptitle(
        f"{report.lesions:,} lesions of {report.patients:,} patients; mean ± sd over each row's sets", fontsize=11
    )
    return to_png(figure)


_ERRORS = ("type", "location", "size")


def _draw_panel(axes: "Axes", rows: "Sequence[TableRow]", columns: "Sequence[Column]") -> None:
    for place, row in enumerate(rows):
        known = [(column, figure) for column in columns if (figure := row.figures.get(column.key)) is not None]
        for column, figure in known:
            _draw_figure(axes, place, column, figure)
        if not known:
            axes.text(
                0.5, place, "–" if row.feature_sets else "not there", ha="center", va="center", fontsize=7,
                color=UNKNOWN_COLOUR, transform=axes.get_yaxis_transform(),
            )  # fmt: skip
    lower = columns[0].lower_is_better
    axes.set_title(f"{columns[0].title}\n({'lower' if lower else 'higher'} is better)")
    axes.margins(x=0.22)
    tidy(axes)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    if not any(row.figures.get(column.key) for row in rows for column in columns):
        axes.set_xticks([])


def _draw_figure(axes: "Axes", place: int, column: "Column", figure: "Spread") -> None:
    colour, marker, shift = _STYLES[column.mode]
    y = place + shift
    if figure.sd:
        axes.plot([figure.mean - figure.sd, figure.mean + figure.sd], [y, y], color=_BLACK, linewidth=1.2, zorder=2)
    axes.plot(
        [figure.mean], [y], linestyle="none", marker=marker, color=colour, markeredgecolor=_BLACK, markeredgewidth=0.5,
        markersize=6, zorder=3,
    )  # fmt: skip
    axes.annotate(
        f"{figure.mean:.{column.digits}f}", (figure.mean + (figure.sd or 0.0), y), (7, 0),
        textcoords="offset points", va="center", fontsize=6.5, color=_BLACK,
    )  # fmt: skip


def curves_chart(report: "TableReport") -> bytes:
    """Precision over recall of every set, a colour and marker for each row; the legend by falling area."""
    figure = new_figure(9.8, 5.2)
    axes = figure.subplots()
    curves = {one.feature_set: one.matching for one in report.sets if one.matching is not None}
    rows = [(row, [curves[name] for name in row.feature_sets if name in curves]) for row in report.rows]
    drawn = [(row, found) for row, found in rows if any(one.points for one in found)]
    styles = {row.name: _LINE_STYLES[at % len(_LINE_STYLES)] for at, (row, _) in enumerate(drawn)}
    for row, found in sorted(drawn, key=lambda pair: -_area(pair[0])):
        _draw_curves(axes, f"{_short(row.title)}: {_area_text(row)}", found, styles[row.name])
    if not drawn:
        axes.text(0.5, 0.5, "no positive pair, or none found at any T2", ha="center", color=_BLACK)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    handles, labels = axes.get_legend_handles_labels()
    tidy(axes)
    if handles:
        axes.get_legend().remove()  # type: ignore[union-attr]
        legend = figure.legend(
            handles, labels, loc="outside right upper", frameon=False, fontsize=8, title="area under the curve",
            title_fontsize=8,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)
    truth = report.truth
    counted = "" if truth is None else f": {truth.lesions:,} lesions in {truth.groups:,} groups"
    figure.suptitle(f"Matching, T2 swept{counted}; a line for each set", fontsize=11)
    return to_png(figure)


def _draw_curves(axes: "Axes", label: str, curves: "Sequence[MatchingCurve]", style: tuple[str, str, str]) -> None:
    colour, marker, dash = style
    for place, one in enumerate(curves):
        recall, precision = _drawn(one)
        axes.plot(
            recall, precision, dash, color=colour, linewidth=1.4, marker=marker, markevery=0.08, markersize=4.5,
            markeredgecolor=_BLACK, markeredgewidth=0.3, alpha=1.0 if len(curves) == 1 else 0.8,
            label=label if place == 0 else None,
        )  # fmt: skip


def _drawn(curve: "MatchingCurve") -> tuple[list[float], list[float]]:
    """As the area counts it: by rising recall, level from recall 0 to the first point."""
    pairs = sorted(((recall, precision) for _, recall, precision in curve.points), key=lambda pair: (pair[0], -pair[1]))
    if not pairs:
        return [], []
    return [0.0, *(recall for recall, _ in pairs)], [pairs[0][1], *(precision for _, precision in pairs)]


def _area(row: "TableRow") -> float:
    figure = row.figures.get("matching_auc")
    return -1.0 if figure is None else figure.mean


def _area_text(row: "TableRow") -> str:
    from store.score_tables import said_spread

    return said_spread(row.figures.get("matching_auc"), 3)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
