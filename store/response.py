"""RECIST 1.1 over one patient's matched lesions: targets, sums of diameters and the verdict on every study.

After Eisenhauer et al., European Journal of Cancer 45 (2009) 228-247, and the questions and clarifications that its
authors published; docs/response.md holds the rules as a table.
"""

from collections.abc import Sequence

from lesionary.errors import UsageError
from store.recist_limits import describe_limits
from store.recist_new_lesions import NewLesions
from store.recist_targets import LesionsThroughTime, choose_targets, measure_targets
from store.recist_terms import (
    Assessment,
    Course,
    Measurement,
    NotChosen,
    Response,
    Rules,
    Target,
    TimePoint,
)
from store.recist_verdict import Verdicts

__all__ = ["Assessment", "Course", "Measurement", "NotChosen", "Response", "Rules", "Target", "TimePoint", "assess"]

_BEST_FIRST = (Response.CR, Response.PR, Response.SD, Response.PD, Response.NE)

_DEFAULTS = Rules()


def assess(measurements: Sequence[Measurement], time_points: Sequence[TimePoint], rules: Rules = _DEFAULTS) -> Course:
    """The patient's course from the baseline study on.

    Args:
        measurements: in any order, at most one of a group in a study.
        time_points: every study of the patient, those without a mark, too; in any order.
        rules: the settings.

    Raises:
        UsageError: the patient has no study, or none at the baseline's time.
        ValueError: a time or a group within a time occurs twice, or a measurement is of no study.
    """
    studies = sorted(time_points, key=lambda point: point.time)
    marks = _by_study(measurements, studies)
    baseline = _baseline_time(studies, rules)
    followed = [study for study in studies if study.time >= baseline]
    targets, not_chosen = choose_targets(marks[baseline].values(), rules)
    new_lesions = NewLesions(rules)
    for time, known in marks.items():
        # What was marked before the baseline is not new, unless "not marked" means "not there".
        if time == baseline or (time < baseline and rules.absent == "unknown"):
            new_lesions.learn(known)
    lesions = LesionsThroughTime()
    lesions.see(marks[baseline])
    verdicts = Verdicts(targets, rules)
    assessments = [verdicts.begin(followed[0])]
    for study in followed[1:]:
        here = marks[study.time]
        lesions.see(here)
        sizes = measure_targets(targets, here, lesions, rules)
        assessments.append(verdicts.follow(study, sizes, *new_lesions.see(here)))
    progression = next((one for one in assessments if one.response is Response.PD), None)
    return Course(
        baseline_time=baseline,
        targets=targets,
        not_chosen=not_chosen,
        assessments=tuple(assessments),
        best_response=_best(assessments),
        progression_time=progression.time if progression else None,
        progression_study_day=progression.study_day if progression else None,
        limits=describe_limits(
            rules,
            targets=targets,
            not_chosen=not_chosen,
            baseline=tuple(marks[baseline].values()),
            studies_before=len(studies) - len(followed),
            studies_after=len(followed) - 1,
            unmeasured_nodes=len(new_lesions.unmeasured_nodes),
        ),
    )


def _by_study(measurements: Sequence[Measurement], studies: Sequence[TimePoint]) -> dict[int, dict[int, Measurement]]:
    """Measurements by time, in order, and by group."""
    marks: dict[int, dict[int, Measurement]] = {study.time: {} for study in studies}
    if len(marks) != len(studies):
        raise ValueError("two studies have the same time")
    for mark in measurements:
        if mark.time not in marks:
            raise ValueError(f"group {mark.group} is measured at time {mark.time}, where there is no study")
        if mark.group in marks[mark.time]:
            raise ValueError(f"group {mark.group} is measured twice at time {mark.time}")
        marks[mark.time][mark.group] = mark
    return marks


def _baseline_time(studies: Sequence[TimePoint], rules: Rules) -> int:
    if not studies:
        raise UsageError("the patient has no study", next_step="name a patient with marks")
    times = [study.time for study in studies]
    if rules.baseline is None:
        return times[0]
    if rules.baseline not in times:
        raise UsageError(
            f"no study {rules.baseline} to take as the baseline",
            next_step="take one of " + ", ".join(map(str, times)),
        )
    return rules.baseline


def _best(assessments: Sequence[Assessment]) -> Response | None:
    """The best verdict after the baseline, up to the first progression."""
    verdicts = [one.response for one in assessments[1:]]
    if Response.PD in verdicts:
        verdicts = verdicts[: verdicts.index(Response.PD) + 1]
    return min(verdicts, key=_BEST_FIRST.index, default=None)
