"""Charts of mined categories: how many were chosen and why, and how rounds came to agree, as PNG."""

from typing import TYPE_CHECKING

from cli.category_report import CategoryReport, curve_of
from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import OKABE_ITO

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLACK, _BLUE, _GREEN = OKABE_ITO["black"], OKABE_ITO["blue"], OKABE_ITO["bluish_green"]
_ORANGE, _VERMILLION = OKABE_ITO["orange"], OKABE_ITO["vermillion"]

_ROUND_LINES = (
    ("purity", "purity against types", _BLUE, "-"),
    ("nmi", "NMI with types", _BLUE, "--"),
    ("purity_before", "purity in the round before", _GREEN, "-"),
    ("nmi_before", "NMI with the round before", _GREEN, "--"),
    ("held_out_accuracy", "accuracy, patients held out", _ORANGE, "-."),
)


def categories_chart(report: CategoryReport) -> bytes:
    """Two panels side by side: the criterion over the number of categories, and the figures of each round."""
    figure = new_figure(11.5, 4.6)
    criterion, rounds = figure.subplots(1, 2)
    _draw_choice(criterion, report)
    for name, label, colour, dash in _ROUND_LINES:
        numbers, values = curve_of(report.rounds, name)
        rounds.plot(numbers, values, dash, color=colour, marker=".", label=label)
    rounds.set(xlabel="round", ylabel="%", ylim=(0, 102), title="lesions outside the test split")
    rounds.set_xticks([one.round for one in report.rounds])
    tidy(rounds)
    figure.suptitle(f"Categories by {report.model_id}", fontsize=11, parse_math=False)
    return to_png(figure)


def _draw_choice(axes: "Axes", report: CategoryReport) -> None:
    choice = report.choice
    if choice is None:
        axes.axis("off")
        axes.text(0.5, 0.5, "the number of categories was given", ha="center", color=_BLACK)
        return
    ks = choice["ks"]
    axes.plot(ks, choice["likelihood"], "-", color=_BLUE, marker=".", label="likelihood (left)")
    axes.set(
        xlabel="categories", ylabel="log likelihood of a lesion of other patients",
        title=f"{choice['k']} chosen by {choice['criterion']}", xscale="log",
    )  # fmt: skip
    other = axes.twinx()
    other.plot(ks, choice["agreement"], "--", color=_ORANGE, marker=".", label="agreement (right)")
    other.set(ylabel="agreement of halves (adjusted Rand index)", ylim=(0, 1.02))
    axes.axvline(choice["k"], color=_VERMILLION, linestyle=":", linewidth=1.5, label="chosen")
    axes.plot([], [], "--", color=_ORANGE, label="agreement (right)")
    shown = [k for at, k in enumerate(ks) if at % 3 == 0]
    axes.set_xticks(shown, [str(k) for k in shown])
    axes.minorticks_off()
    tidy(axes)
