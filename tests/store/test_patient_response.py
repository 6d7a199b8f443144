"""Response out of a store: matched marks become measurements, the patient's studies time points."""

import pytest
from small_stores import make_store

from lesionary.errors import StoreError
from store.database import open_reader
from store.match_runs import MatchSettings
from store.patient_response import respond
from store.response import Response, Rules


def mark(name, study, x, long_mm, short_mm=5.0, **more):
    """A mark of patient t-p1; marks at one place are one lesion."""
    series = more.pop("series", 1)
    return {
        "lesion_id": f"t-{name}",
        "study_id": f"t-p1_{study:02d}",
        "series_id": f"t-p1_{study:02d}_{series:02d}",
        "study_index": study,
        "study_day": (study - 1) * 60,
        "long_mm": long_mm,
        "short_mm": short_mm,
        "release_x": x,
    } | more


def course_of(tmp_path, lesions, rules=Rules(), nodes=None, **settings):  # noqa: B008 (frozen)
    path = make_store(tmp_path / "f.duckdb", lesions)
    with open_reader(path) as connection:
        return respond(connection, path, MatchSettings("location", patient_id="t-p1", **settings), rules, nodes)


def verdicts(found):
    return [one.response for one in found.course.assessments]


SHRINKING = [
    mark("a1", 1, 0.2, 40), mark("b1", 1, 0.8, 20), mark("a2", 2, 0.2, 25), mark("b2", 2, 0.8, 15),
    mark("a3", 3, 0.2, 40), mark("b3", 3, 0.8, 15),
]  # fmt: skip


def test_sums_and_verdicts_follow_the_matched_marks(tmp_path):
    found = course_of(tmp_path, SHRINKING)

    assert verdicts(found) == [Response.BASELINE, Response.PR, Response.PD]
    assert [one.sum_mm for one in found.course.assessments] == [60.0, 40.0, 55.0]
    assert [one.study_day for one in found.course.assessments] == [0, 60, 120]
    assert [target.organ for target in found.course.targets] == ["lung", "lung"]


def test_a_lesion_measured_in_two_series_counts_once_with_its_longest_diameter(tmp_path):
    again = mark("a1-again", 1, 0.2, 44, series=2)

    found = course_of(tmp_path, [*SHRINKING, again])

    assert [target.baseline_mm for target in found.course.targets] == [44.0, 20.0]


def test_groups_have_the_numbers_that_match_gives_them(tmp_path):
    found = course_of(tmp_path, SHRINKING)

    names = {row.mark.lesion_id: row.group_id for row in found.run.rows()}
    assert names["t-a1"] == f"t-p1.g{found.course.targets[0].group}"
    assert names["t-b3"] == f"t-p1.g{found.course.targets[1].group}"


def test_a_study_without_a_mark_is_not_evaluable_and_counted(tmp_path):
    elsewhere = mark("other", 2, 0.5, 10, patient_id="t-p2")
    elsewhere |= {"study_id": "t-p2_01", "series_id": "t-p2_01_01"}
    path = make_store(tmp_path / "f.duckdb", [SHRINKING[0], SHRINKING[4], elsewhere])
    from store.database import open_writer

    with open_writer(path) as connection:
        connection.execute(
            "INSERT INTO lake_rows.series (series_id, patient_id, study_id, study_index, study_day) "
            "VALUES ('t-p1_02_01', 't-p1', 't-p1_02', 2, 60)"
        )
    with open_reader(path) as connection:
        found = respond(connection, path, MatchSettings("location", patient_id="t-p1"), Rules())

    assert [(one.time, one.response) for one in found.course.assessments] == [
        (1, Response.BASELINE), (2, Response.NE), (3, Response.SD),
    ]  # fmt: skip
    assert found.studies_without_marks == 1


def test_as_of_leaves_out_later_studies(tmp_path):
    assert verdicts(course_of(tmp_path, SHRINKING, as_of="60")) == [Response.BASELINE, Response.PR]
    assert verdicts(course_of(tmp_path, SHRINKING, as_of="study:1")) == [Response.BASELINE]


def test_a_condition_makes_lesions_nodes_and_nodes_count_by_their_short_axis(tmp_path):
    lesions = [mark("a1", 1, 0.2, 40, 20), mark("a2", 2, 0.2, 40, 9)]

    as_mass = course_of(tmp_path / "mass", lesions)
    as_node = course_of(tmp_path / "node", lesions, nodes="lesion_type = 'lung'")

    assert verdicts(as_mass)[1] is Response.SD
    assert verdicts(as_node)[1] is Response.CR
    assert as_node.course.targets[0].is_node
    assert as_node.course.targets[0].baseline_mm == 20.0


def test_a_code_makes_a_lesion_a_node(tmp_path):
    path = make_store(tmp_path / "f.duckdb", [mark("a1", 1, 0.2, 40, 20), mark("a2", 2, 0.2, 40, 18)])
    from store.database import open_writer

    with open_writer(path) as connection:
        # One of the two marks is enough: it is one lesion.
        connection.execute(
            "UPDATE lake_rows.lesion_features SET finding_site = 'SCT:59441001' WHERE lesion_id = 't-a2'"
        )
    with open_reader(path) as connection:
        found = respond(connection, path, MatchSettings("location", patient_id="t-p1"), Rules())

    assert [one.sum_mm for one in found.course.assessments] == [20.0, 18.0]


def test_parts_of_a_lesion_that_fell_apart_are_added_up(tmp_path):
    lesions = [
        mark("a1", 1, 0.50, 30), mark("a2", 2, 0.50, 20), mark("part", 2, 0.54, 15),
        mark("a3", 3, 0.50, 20), mark("part3", 3, 0.54, 10),
    ]  # fmt: skip

    found = course_of(tmp_path, lesions, t1=0.01, t2=0.06)

    assert "split" in {row.state for row in found.run.rows()}
    assert [one.sum_mm for one in found.course.assessments] == [30.0, 35.0, 30.0]
    assert verdicts(found) == [Response.BASELINE, Response.SD, Response.SD]


def test_a_new_lesion_is_progression_unless_only_reported(tmp_path):
    lesions = [*SHRINKING[:4], mark("new", 2, 0.5, 12)]

    counted = course_of(tmp_path / "a", lesions)
    reported = course_of(tmp_path / "b", lesions, Rules(new_lesions="report"))

    assert verdicts(counted)[1] is Response.PD
    assert verdicts(reported)[1] is Response.PR
    assert counted.course.assessments[1].new_groups == reported.course.assessments[1].new_groups != ()


def test_unknown_patients_and_bad_conditions_are_refused_by_name(tmp_path):
    with pytest.raises(StoreError, match="no lesion of such a patient"):
        path = make_store(tmp_path / "f.duckdb", SHRINKING)
        with open_reader(path) as connection:
            respond(connection, path, MatchSettings("location", patient_id="t-p9"), Rules())
    with pytest.raises(StoreError, match="--nodes"):
        course_of(tmp_path / "n", SHRINKING, nodes="no_such_column = 1")
