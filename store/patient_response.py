"""RECIST 1.1 for a patient of the store: its matched marks as measurements, its studies as time points.

Of several marks of one lesion in one study, of two series or two readers, the one with the longest diameter counts.
A lesion is a lymph node when the code of one of its marks says so, or a condition of the person's does.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lesionary.anatomy import is_lymph_node
from store.match_runs import STUDIES_IN_ORDER, Mark, MatchRun, MatchSettings, match_store
from store.matching import EdgeKind
from store.response import Course, Measurement, Rules, TimePoint, assess
from store.selection import as_of_condition, lesions_where

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class PatientResponse:
    """A patient's course, and the matching it was made from."""

    run: MatchRun
    course: Course
    """Groups are numbered as in the names of `MatchRun.rows`: group 3 of patient p is p.g3."""
    studies_without_marks: int


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the store says of a mark beside its size."""

    organ: str | None
    is_node: bool
    slice_interval_mm: float | None


def respond(
    connection: "duckdb.DuckDBPyConnection",
    path: Path,
    settings: MatchSettings,
    rules: Rules,
    nodes_where: str | None = None,
) -> PatientResponse:
    """Match one patient's marks and assess its studies.

    Args:
        connection: on the store.
        path: of the store.
        settings: how marks are matched; they name the patient.
        rules: of the assessment.
        nodes_where: a SQL condition over `lesion_features` that says which lesions are lymph nodes, beside the codes.

    Raises:
        UsageError: no such feature set or baseline, or no thresholds for the set.
        StoreError: no such patient, nothing to match, or a condition that is none.
    """
    run = match_store(connection, path, settings)
    times = _time_points(connection, settings)
    facts = _facts(connection, str(settings.patient_id), nodes_where)
    course = assess(_measurements(run, facts), times, rules)
    marked = {mark.study_id for mark in run.marks}
    return PatientResponse(run, course, sum(point.study_id not in marked for point in times))


def _time_points(connection: "duckdb.DuckDBPyConnection", settings: MatchSettings) -> list[TimePoint]:
    """Every study of the patient, whether or not something is marked in it."""
    known = "true"
    if settings.as_of is not None:
        marked = "SELECT study_id FROM lake_rows.series WHERE patient_id = studies.patient_id AND"
        known = f"study_id IN ({marked} {as_of_condition(settings.as_of)})"
    rows = connection.execute(
        f"SELECT study, study_id, study_day FROM ({STUDIES_IN_ORDER}) AS studies "  # noqa: S608 (our own)
        f"WHERE patient_id = ? AND {known} ORDER BY study",
        [settings.patient_id],
    ).fetchall()
    return [TimePoint(*row) for row in rows]


def _facts(connection: "duckdb.DuckDBPyConnection", patient_id: str, nodes_where: str | None) -> dict[str, _Facts]:
    rows = connection.execute(
        "SELECT lesion_id, lesion_number, finding_site, finding, lesion_type, spacing_z_mm "
        "FROM lake_rows.lesion_features WHERE patient_id = ?",
        [patient_id],
    ).fetchall()
    named: set[int] = set()
    if nodes_where is not None:
        named.update(lesions_where(connection, nodes_where, option="--nodes").tolist())
    return {
        lesion_id: _Facts(site or kind, is_lymph_node(site, finding) or number in named, interval_mm)
        for lesion_id, number, site, finding, kind, interval_mm in rows
    }


def _measurements(run: MatchRun, facts: Mapping[str, _Facts]) -> list[Measurement]:
    groups = [group + 1 for group in run.matching.group.tolist()]
    places: defaultdict[tuple[int, int], list[Mark]] = defaultdict(list)
    nodes: set[int] = set()
    for mark, group in zip(run.marks, groups, strict=True):
        places[group, mark.study].append(mark)
        if facts[mark.lesion_id].is_node:
            nodes.add(group)
    split_from: dict[int, int] = {}
    taken_in: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    edges = run.matching.edges
    for kind, start, end in zip(edges.kind.tolist(), edges.from_row.tolist(), edges.to_row.tolist(), strict=True):
        if kind == EdgeKind.SPLIT:
            split_from[groups[end]] = groups[start]
        elif kind == EdgeKind.MERGED:
            taken_in[groups[end], run.marks[end].study].add(groups[start])
    return [
        _measurement(group, time, marks, facts, group in nodes, split_from.get(group), taken_in[group, time])
        for (group, time), marks in places.items()
    ]


def _measurement(
    group: int, time: int, marks: Sequence[Mark], facts: Mapping[str, _Facts], is_node: bool,
    split_from: int | None, merged_groups: set[int],
) -> Measurement:  # fmt: skip
    largest = max(marks, key=lambda mark: (mark.long_mm or 0.0, mark.short_mm or 0.0))
    organs = (facts[mark.lesion_id].organ for mark in (largest, *marks))
    return Measurement(
        lesion_ids=tuple(mark.lesion_id for mark in marks),
        group=group,
        time=time,
        long_mm=largest.long_mm,
        short_mm=largest.short_mm,
        organ=next((organ for organ in organs if organ), None),
        is_node=is_node,
        slice_interval_mm=facts[largest.lesion_id].slice_interval_mm,
        split_from=split_from,
        merged_groups=tuple(sorted(merged_groups)),
    )
