"""The response chart: a patient's sum of target diameters over its studies, between the limits of RECIST 1.1.

Over every study stand its verdict in words, its sum and the lesions that are new in it; the verdict's marker lies on
the sum. A study whose sum is not known has a hollow marker at what could be measured, and the sum's line has a gap.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from cli.figures.charts import new_figure, tidy, to_png
from cli.figures.palette import GRID_COLOUR, OKABE_ITO
from cli.figures.sheet import FAINT_INK, fit_text
from cli.figures.tiles import type_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from store.recist_terms import Assessment, Course, Response, Target

# By the value of `Response`: a marker's shape, its colour and what the legend calls it.
_VERDICTS: Final[Mapping[str, tuple[str, str, str]]] = {
    "baseline": ("o", OKABE_ITO["black"], "baseline"),
    "CR": ("*", OKABE_ITO["bluish_green"], "CR, complete response"),
    "PR": ("v", OKABE_ITO["blue"], "PR, partial response"),
    "SD": ("s", OKABE_ITO["sky_blue"], "SD, stable disease"),
    "PD": ("^", OKABE_ITO["vermillion"], "PD, progressive disease"),
    "NE": ("o", FAINT_INK, "NE, not evaluable"),
}
_PR_COLOUR, _PD_COLOUR = OKABE_ITO["blue"], OKABE_ITO["vermillion"]
_NEW_COLOUR, _NEW_DASH = FAINT_INK, "-."
# A target is told by its colour, dash and marker together.
_TARGET_COLOURS = tuple(OKABE_ITO[name] for name in ("orange", "bluish_green", "sky_blue", "black", "reddish_purple"))
_TARGET_MARKERS, _TARGET_DASHES = "xd+.1", ("-", "--", "-.", ":")
# RECIST 1.1: 30 % below the baseline; 20 % and 5 mm above the smallest sum so far.
_PR_SHARE, _PD_SHARE, _PD_MM = 0.7, 1.2, 5.0
_MOST_TARGETS_NAMED, _MOST_NEW_NAMED = 12, 3
_WORDS_SIZE = 8
# How much room words over a study need, in inches, and how many lines they have with a gap.
_WORDS_INCHES, _WORDS_LINES = 1.0, 4
# At least so much of the figure's width is beside the axes: the legend and the scale.
_BESIDE_INCHES = 3.2
_LEGEND_PX, _LEGEND_ROOM_PX = 11, 170


def response_chart(course: "Course", title: str) -> bytes:
    """A PNG of one patient's course; one without targets, or with a single study, is drawn as far as it goes."""
    studies = course.assessments
    by_day = all(study.study_day is not None for study in studies)
    places = [_place(study, by_day=by_day) for study in studies]
    low, high = _ends(places)
    width = min(22.0, 9.5 + 0.3 * max(0, len(studies) - 8))
    inches = width - _BESIDE_INCHES
    figure = new_figure(width, 4.7 + 0.5 * _level_count(studies, inches))
    axes = figure.subplots()
    axes.set_xlim(low, high)
    axes.set_ylim(0, _top_mm(studies))
    _draw_limits(axes, studies, places)
    _draw_targets(axes, course, places)
    _draw_sums(axes, studies, places)
    _write_words(axes, studies, places, inches)
    if not course.targets:
        axes.text(
            0.5, 0.5, "no measurable lesion at the baseline: there is no sum to follow", ha="center",
            color=OKABE_ITO["black"], transform=axes.transAxes,
        )  # fmt: skip
        axes.set_yticks([])
    axes.set(
        xlabel="days since the patient's first study" if by_day else "study (not every day is known)",
        ylabel="sum of target diameters, mm",
    )
    if not by_day or len(studies) == 1:
        axes.set_xticks(places, [f"{place:g}" for place in places])
    _finish(figure, axes, course, title, by_day=by_day)
    return to_png(figure)


def _place(study: "Assessment", *, by_day: bool) -> float:
    return float(study.study_day if by_day and study.study_day is not None else study.time)


def _ends(places: Sequence[float]) -> tuple[float, float]:
    """Left and right end of the axis, with room for the words over the first and the last study."""
    room = 0.07 * (places[-1] - places[0]) or 1.0
    return places[0] - room, places[-1] + room


def _words_places(places: Sequence[float], high: float, room: float, levels: int) -> list[float]:
    """Where the words over each study are centred: above it, or moved aside so far that none of a level touch."""
    centres = list(places)
    for number in range(levels, len(centres)):
        centres[number] = max(centres[number], centres[number - levels] + room)
    for number in range(len(centres) - 1, -1, -1):
        later = centres[number + levels] - room if number + levels < len(centres) else high
        centres[number] = min(centres[number], later)
    return centres


def _top_mm(studies: Sequence["Assessment"]) -> float:
    sizes = [size for study in studies for size in (study.sum_mm, study.partial_sum_mm, _pd_limit_mm(study)) if size]
    return 1.1 * max(sizes, default=0.0) or 1.0


def _pd_limit_mm(study: "Assessment") -> float | None:
    """The sum from which on this study shows progression."""
    nadir = study.nadir_mm
    return None if nadir is None else max(_PD_SHARE * nadir, nadir + _PD_MM)


def _draw_limits(axes: "Axes", studies: Sequence["Assessment"], places: Sequence[float]) -> None:
    baseline = studies[0].sum_mm
    if baseline is not None:
        axes.axhline(
            _PR_SHARE * baseline, color=_PR_COLOUR, linestyle=(0, (6, 3)), linewidth=1,
            label=f"PR from {_PR_SHARE * baseline:.1f} mm down",
        )  # fmt: skip
    limits = [_pd_limit_mm(study) for study in studies[1:]]
    if any(limit is not None for limit in limits):
        heights = [float("nan") if limit is None else limit for limit in limits]
        # A limit holds for the study that is held against it, so each step ends there.
        axes.plot(
            places, [heights[0], *heights], drawstyle="steps-pre", color=_PD_COLOUR, linestyle=(0, (1, 1)),
            linewidth=1.4, label="PD from here up (over the nadir)",
        )  # fmt: skip


def _draw_targets(axes: "Axes", course: "Course", places: Sequence[float]) -> None:
    for number, target in enumerate(course.targets):
        sizes = [study.target_sizes_mm[number] for study in course.assessments]
        named = number < _MOST_TARGETS_NAMED
        colour = _TARGET_COLOURS[number % len(_TARGET_COLOURS)]
        axes.plot(
            places, [float("nan") if size is None else size for size in sizes], color=colour, linewidth=0.9,
            marker=_TARGET_MARKERS[number % len(_TARGET_MARKERS)], markersize=4, clip_on=False,
            linestyle=_TARGET_DASHES[number % len(_TARGET_DASHES)],
            label=_target_words(target) if named else "_more",
        )  # fmt: skip


def _target_words(target: "Target") -> str:
    organ = "" if target.organ is None else f", {type_text(target.organ)}"
    words = f"lesion {target.group}{organ}" + (" (short axis)" if target.is_node else "")
    return fit_text(words, _LEGEND_PX, _LEGEND_ROOM_PX, smallest_px=_LEGEND_PX)[0]


def _draw_sums(axes: "Axes", studies: Sequence["Assessment"], places: Sequence[float]) -> None:
    sums = [float("nan") if study.sum_mm is None else study.sum_mm for study in studies]
    if any(study.sum_mm is not None for study in studies):
        axes.plot(places, sums, color=OKABE_ITO["black"], linewidth=2, label="sum of the targets", clip_on=False)
    for study, place in zip(studies, places, strict=True):
        if study.new_groups:
            axes.axvline(place, color=_NEW_COLOUR, linestyle=_NEW_DASH, linewidth=1)
        height = study.partial_sum_mm if study.sum_mm is None else study.sum_mm
        if height is not None:
            marker, colour, _ = _VERDICTS[study.response]
            axes.plot(
                [place], [height], linestyle="none", marker=marker, markersize=13 if marker == "*" else 9,
                color="#FFFFFF" if study.sum_mm is None else colour, zorder=4, clip_on=False,
                markeredgecolor=colour if study.sum_mm is None else OKABE_ITO["black"],
                markeredgewidth=1.8 if study.sum_mm is None else 0.8,
            )  # fmt: skip


def _write_words(axes: "Axes", studies: Sequence["Assessment"], places: Sequence[float], inches: float) -> None:
    """Over every study, above the axes: verdict, sum and new lesions; a line leads to those moved aside."""
    low, high = axes.get_xlim()
    levels = _level_count(studies, inches)
    inches_per_day = inches / (high - low)
    centres = _words_places(places, high, _WORDS_INCHES / inches_per_day, levels)
    # Either all words have a line to their study, or none needs one.
    led = levels > 1 or any(abs(one - other) * inches_per_day > 0.1 for one, other in zip(centres, places, strict=True))
    line_pt = _WORDS_SIZE * 1.25
    for number, (study, place, centre) in enumerate(zip(studies, places, centres, strict=True)):
        aside_pt = (centre - place) * inches_per_day * 72
        above_pt = (18 if led else 6) + number % levels * _WORDS_LINES * line_pt
        if led:
            axes.annotate(
                "", (place, 1.0), (aside_pt, above_pt), xycoords=("data", "axes fraction"), zorder=5,
                textcoords="offset points", arrowprops={"arrowstyle": "-", "color": GRID_COLOUR, "linewidth": 0.8},
            )  # fmt: skip
        for up, (words, bold) in enumerate(reversed(list(study_words(study)))):
            axes.annotate(
                words, (place, 1.0), (aside_pt, above_pt + up * line_pt), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", fontsize=_WORDS_SIZE, zorder=6,
                fontweight="bold" if bold else "normal", color=OKABE_ITO["black"],
                # White behind the words, where another study's line passes.
                bbox={"facecolor": "#FFFFFF", "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip


def _level_count(studies: Sequence["Assessment"], inches: float) -> int:
    return math.ceil(len(studies) * _WORDS_INCHES / inches)


def study_words(study: "Assessment") -> Iterator[tuple[str, bool]]:
    """The lines that stand over a study, and whether they are bold."""
    yield ("not evaluable" if study.response == "NE" else str(study.response)), True
    if study.sum_mm is not None:
        change = study.change_from_baseline_percent
        yield f"{study.sum_mm:.1f} mm" + ("" if change is None else f", {change:+.0f} %".replace("-", "−")), False
    elif study.partial_sum_mm is not None:
        yield f"at least {study.partial_sum_mm:.1f} mm", False
    elif study.target_sizes_mm:
        yield "no target measured", False
    if study.new_groups:
        shown = ", ".join(map(str, study.new_groups[:_MOST_NEW_NAMED]))
        more = ", …" if len(study.new_groups) > _MOST_NEW_NAMED else ""
        yield f"+ new {shown}{more}", False


def _finish(figure: "Figure", axes: "Axes", course: "Course", title: str, *, by_day: bool) -> None:
    tidy(axes)
    studies = course.assessments
    found: dict[Response, None] = dict.fromkeys(study.response for study in studies)
    for response in found:
        marker, colour, words = _VERDICTS[response]
        hollow = response == "NE"
        axes.plot(
            [], [], linestyle="none", marker=marker, markersize=8, label=words,
            color="#FFFFFF" if hollow else colour, markeredgecolor=colour if hollow else OKABE_ITO["black"],
        )  # fmt: skip
    if any(study.new_groups for study in studies):
        axes.plot([], [], color=_NEW_COLOUR, linestyle=_NEW_DASH, linewidth=1, label="study with new lesions")
    legend = axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.suptitle(f"{title}\n{_summary(course, by_day=by_day)}", fontsize=10, parse_math=False)


def _summary(course: "Course", *, by_day: bool) -> str:
    if course.best_response is None:
        return "baseline only: there is no later study"
    words = f"best response {course.best_response} (unconfirmed)"
    if course.progression_time is None:
        return f"{words}, no progression so far"
    when = f"day {course.progression_study_day}" if by_day else f"study {course.progression_time}"
    return f"{words}, progression at {when}"
