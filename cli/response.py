"""`lesionary response`: RECIST 1.1 over a patient's matched lesions."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.console import counted, note
from cli.options import (
    DEFAULT_LAKE,
    AsOfOption,
    CsvOption,
    FeatureSetOption,
    Format,
    JsonOption,
    LakeOption,
    StoreOption,
    T1Option,
    T2Option,
    WhereOption,
    chosen_format,
)
from cli.reading import reading
from cli.render import write_json, write_rows

if TYPE_CHECKING:
    from store.lineage import Lineage
    from store.patient_response import PatientResponse
    from store.recist_terms import Rules

_COLUMNS = (
    "study", "study_day", "response", "sum_mm", "change_from_baseline_percent", "nadir_mm", "change_from_nadir_percent",
    "change_from_nadir_mm", "new_lesions", "reason",
)  # fmt: skip

_HEADERS = (
    "study", "day", "response", "sum, mm", "vs baseline, %", "nadir, mm", "vs nadir, %", "vs nadir, mm", "new",
    "reason",
)  # fmt: skip


class Absent(StrEnum):
    """What it means when a target is not marked in a later study."""

    UNKNOWN = "unknown"
    GONE = "gone"


class NewLesions(StrEnum):
    """What a new lesion does."""

    PROGRESS = "progress"
    REPORT = "report"


def response(
    patient: Annotated[str, typer.Argument(metavar="PATIENT", help="Its pseudonym, such as dl-000047.")],
    baseline: Annotated[
        int | None, typer.Option("--baseline", min=1, metavar="STUDY", help="The baseline study's number [the first].")
    ] = None,
    absent: Annotated[
        Absent,
        typer.Option("--absent", help="A target that is not marked later: unknown (not evaluable), or gone (0 mm)."),
    ] = Absent.UNKNOWN,
    new_lesions: Annotated[
        NewLesions, typer.Option("--new-lesions", help="New lesions are progression, or are only reported.")
    ] = NewLesions.PROGRESS,
    nodes: Annotated[
        str | None,
        typer.Option(
            "--nodes",
            metavar="SQL",
            help="Lesions for which this condition over lesion_features holds are lymph nodes, beside those whose "
            "codes say so.",
        ),
    ] = None,
    max_targets: Annotated[int, typer.Option("--max-targets", min=1, help="Targets in all.")] = 5,
    max_per_organ: Annotated[int, typer.Option("--max-per-organ", min=1, help="Targets in one organ.")] = 2,
    t1: T1Option = None,
    t2: T2Option = None,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    feature_set: FeatureSetOption = "location",
    chart: Annotated[
        Path | None,
        typer.Option("--chart", metavar="FILE.png", help="Also draw the sum of diameters and the verdicts over time."),
    ] = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
    lake: LakeOption = DEFAULT_LAKE,
    store: StoreOption = None,
) -> None:
    """Assess a patient's response after RECIST 1.1: targets, sums of diameters, CR, PR, SD, PD or NE for each study.

    Which marks are one lesion comes from `match`. What such a course cannot know is printed with it.
    """
    from store.lineage import lineage_of
    from store.match_runs import MatchSettings
    from store.patient_response import respond
    from store.recist_terms import Rules

    form = chosen_format(as_json=as_json, as_csv=as_csv)
    rules = Rules(baseline, max_targets, max_per_organ, absent=absent.value, new_lesions=new_lesions.value)
    settings = MatchSettings(feature_set, t1, t2, patient, where, as_of)
    with reading(lake, store) as (path, connection):
        found = respond(connection, path, settings, rules, nodes)
        lineage = lineage_of(connection, found.run.feature_set)
    # Before anything is printed: whoever reads may close the pipe early.
    if chart is not None:
        from cli.figures.gallery import write_chart
        from cli.figures.response import response_chart

        write_chart(response_chart(found.course, f"{patient}: response after RECIST 1.1"), chart)
        note(f"chart: {chart}")
    if form is Format.JSON:
        write_json(_record(patient, found, rules, lineage))
    elif form is Format.CSV:
        write_rows(_COLUMNS, _rows(found), form)
    else:
        _print(patient, found)


def _record(patient: str, found: "PatientResponse", rules: "Rules", lineage: "Lineage") -> dict[str, object]:
    """All of it, with lesions named as `match` names them."""
    thresholds = found.run.thresholds
    course = asdict(found.course)
    named = {"group", "missing_groups", "new_groups", "earlier_new_groups"}
    for row in (*course["targets"], *course["not_chosen"], *course["assessments"]):
        for key in named & row.keys():
            numbers = row[key]
            row[key] = f"{patient}.g{numbers}" if isinstance(numbers, int) else [f"{patient}.g{n}" for n in numbers]
    return {
        "patient_id": patient,
        "lineage": asdict(lineage),
        "t1": thresholds.t1,
        "t2": thresholds.t2,
        "rules": asdict(rules),
        "marks": len(found.run.marks),
        "marks_without_vector": found.run.without_vector,
        "studies_without_marks": found.studies_without_marks,
    } | course


def _print(patient: str, found: "PatientResponse") -> None:
    course, run = found.course, found.run
    print(
        f"{patient}: baseline study {course.baseline_time}, {counted(len(course.targets), 'target')}, best response "
        f"{course.best_response or 'not known'} (unconfirmed); lesions matched by {run.feature_set.feature_set_id} "
        f"(T1 {run.thresholds.t1:g}, T2 {run.thresholds.t2:g})\n"
    )
    if course.targets:
        print("Targets, mm:")
        headers = ("target", "organ", "node", *(f"study {one.time}" for one in course.assessments))
        rows = [
            (f"g{target.group}", target.organ, "yes" if target.is_node else "", *sizes)
            for target, sizes in zip(
                course.targets, zip(*(one.target_sizes_mm for one in course.assessments), strict=True), strict=True
            )
        ]
        write_rows(headers, rows, Format.TABLE)
        print()
    write_rows(_HEADERS, _rows(found), Format.TABLE)
    if course.not_chosen:
        print("\nOther lesions of the baseline:")
        for lesion in course.not_chosen:
            print(f"  g{lesion.group}: {lesion.explanation}")
    print("\nWhat this cannot know:")
    for limit in course.limits:
        print(f"  - {limit}")
    if run.without_vector:
        left_out = counted(run.without_vector, "mark")
        print(f"  - Left out, without a vector in {run.feature_set.feature_set_id}: {left_out}.")
    if found.studies_without_marks:
        unmarked = counted(found.studies_without_marks, "study", "studies")
        print(f"  - Without a mark, and nobody knows whether anybody looked: {unmarked}.")


def _rows(found: "PatientResponse") -> list[tuple[object, ...]]:
    return [
        (
            one.time, one.study_day, one.response.value, one.sum_mm, one.change_from_baseline_percent, one.nadir_mm,
            one.change_from_nadir_percent, one.change_from_nadir_mm, " ".join(f"g{group}" for group in one.new_groups),
            one.reason,
        )
        for one in found.course.assessments
    ]  # fmt: skip
