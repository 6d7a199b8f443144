"""Charts of evaluations: precision over recall, scores over T2, retrieval errors and the confusion matrix, as PNG."""

from typing import TYPE_CHECKING

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from store.evaluate import MatchingReport, RetrievalReport
    from store.retrieval_scores import MeanError
    from store.type_scores import ClassifierScores

_BLACK, _BLUE, _GREEN = OKABE_ITO["black"], OKABE_ITO["blue"], OKABE_ITO["bluish_green"]
_ORANGE, _VERMILLION = OKABE_ITO["orange"], OKABE_ITO["vermillion"]


def matching_chart(report: "MatchingReport") -> bytes:
    """Two panels side by side: precision over recall with its area, and precision, recall and F1 over T2."""
    figure = new_figure(10.5, 4.6)
    curve, over_t2 = figure.subplots(1, 2)
    _draw_curve(curve, report)
    _draw_sweep(over_t2, report)
    figure.suptitle(
        f"Matching with {report.feature_set}: {report.truth.lesions:,} lesions, {report.truth.groups:,} groups, "
        f"{report.patients:,} patients",
        fontsize=11,
        parse_math=False,
    )
    return to_png(figure)


def _draw_curve(axes: "Axes", report: "MatchingReport") -> None:
    from store.matching_scores import drawn_points

    points = drawn_points(report.sweep.points)
    recall, precision = [point[0] for point in points], [point[1] for point in points]
    if points:
        # As the area counts it: level from recall 0 to the first point.
        axes.plot([0.0, *recall], [precision[0], *precision], "-", color=_BLUE, marker=".", label="sweep of T2")
        axes.fill_between([0.0, *recall], [precision[0], *precision], color=_BLUE, alpha=0.12, linewidth=0)
    else:
        axes.text(0.5, 0.5, "no positive pair, or none found at any T2", ha="center", color=_BLACK)
    _mark(axes, "best F1", report.sweep.best.scores.recall, report.sweep.best.scores.precision, "s", _GREEN)
    _mark(axes, f"chosen, T2 = {report.t2:.3g}", report.scores.recall, report.scores.precision, "D", _VERMILLION)
    area = "not defined" if report.sweep.auc is None else f"{report.sweep.auc:.3f}"
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02), title=f"area {area}")
    tidy(axes)


def _mark(axes: "Axes", label: str, x: float | None, y: float | None, marker: str, colour: str) -> None:
    if x is not None and y is not None:
        axes.plot(
            [x], [y], linestyle="none", marker=marker, color=colour, markeredgecolor=_BLACK, label=label, zorder=3
        )


def _draw_sweep(axes: "Axes", report: "MatchingReport") -> None:
    for name, colour, dash in (("precision", _BLUE, "-"), ("recall", _VERMILLION, "--"), ("f1", _GREEN, "-.")):
        found = [(point.t2, getattr(point.scores, name)) for point in report.sweep.points]
        drawn = [(t2, value) for t2, value in found if value is not None]
        label = "F1" if name == "f1" else name
        axes.plot([t2 for t2, _ in drawn], [value for _, value in drawn], dash, color=colour, label=label)
    axes.axvline(report.t2, color=_BLACK, linestyle=":", linewidth=1, label="chosen T2")
    axes.set(xlabel="T2 (distance)", ylim=(0, 1.02), title=f"T1 = {report.sweep.t1:.3g}")
    tidy(axes)


def retrieval_chart(report: "RetrievalReport") -> bytes:
    """Two panels side by side: errors of type, location and size in both patient modes, and the confusion matrix."""
    figure = new_figure(12.5, 5.4)
    errors, confusion = figure.subplots(1, 2, width_ratios=(1, 1.35))
    _draw_errors(errors, report)
    if report.classifier is None:
        confusion.axis("off")
        confusion.text(0.5, 0.5, "too few lesions of known type for a classifier", ha="center", color=_BLACK)
    else:
        _draw_confusion(confusion, report.classifier)
    figure.suptitle(
        f"Retrieval with {report.feature_set}: {report.lesions:,} lesions, {report.patients:,} patients",
        fontsize=11,
        parse_math=False,
    )
    return to_png(figure)


def _draw_errors(axes: "Axes", report: "RetrievalReport") -> None:
    modes = ((report.allowed, "same patient allowed", _BLUE, ""), (report.excluded, "excluded", _ORANGE, "//"))
    for place, (errors, label, colour, hatch) in enumerate(modes):
        means = (errors.type_percent, errors.location_percent, errors.size_percent)
        for column, error in enumerate(means):
            if error.mean is not None:
                x = column + (place - 0.5) * 0.38
                axes.bar(x, error.mean, 0.36, color=colour, hatch=hatch, edgecolor=_BLACK, linewidth=0.6)
                _whisker(axes, x, error)
        axes.bar(0, 0, color=colour, hatch=hatch, edgecolor=_BLACK, linewidth=0.6, label=label)
    normaliser = f"{report.settings.size_normaliser_mm:g} mm"
    axes.set_xticks(range(3), ["type, %", "location × 100", f"size × 100\nover {normaliser}"])
    axes.set(ylabel=f"average error, first {report.settings.top} hits", title="with 95 % interval over patients")
    axes.margins(y=0.15)
    tidy(axes)


def _whisker(axes: "Axes", x: float, error: "MeanError") -> None:
    top = error.mean if error.high is None else error.high
    if error.mean is None or top is None:
        return
    if error.low is not None and error.high is not None:
        axes.plot([x, x], [error.low, error.high], color=_BLACK, linewidth=1.2)
    axes.annotate(f"{error.mean:.1f}", (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=8)


def _draw_confusion(axes: "Axes", classifier: "ClassifierScores") -> None:
    """Rows are true types; a cell is shaded by its share of the row and carries that share in %."""
    from matplotlib.colors import LinearSegmentedColormap

    names = [name.replace("_", " ") for name in classifier.type_names]
    # One hue from white to dark: lightness alone carries the value.
    shades = LinearSegmentedColormap.from_list("shades", ["#FFFFFF", _BLUE])
    shares = [[count / max(1, sum(counts)) for count in counts] for counts in classifier.confusion]
    axes.imshow(shares, cmap=shades, vmin=0, vmax=1)
    for row, counts in enumerate(classifier.confusion):
        for column, count in enumerate(counts):
            if count:
                share = shares[row][column]
                axes.text(
                    column, row, f"{100 * share:.0f}", ha="center", va="center", fontsize=8,
                    color="#FFFFFF" if share > 0.6 else _BLACK,
                )  # fmt: skip
    labels = [f"{name} ({sum(counts):,})" for name, counts in zip(names, classifier.confusion, strict=True)]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    accuracy = classifier.accuracy_percent
    deviation = "" if accuracy.sd is None else f" ± {accuracy.sd:.1f}"
    axes.set(
        xlabel="type said", ylabel="true type (lesions tested)",
        title=f"logistic regression, accuracy {accuracy.mean:.1f}{deviation} %; share of the row, %",
    )  # fmt: skip
    axes.title.set_fontsize(9)
