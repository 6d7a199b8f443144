"""Runs of match: which marks go in, in which order of time, and what lands in the lake."""

from collections import Counter
from dataclasses import astuple

import pytest
from small_stores import make_store

from lesionary.errors import StoreError, UsageError
from lesionary.lake import Lake
from store.database import open_reader, open_writer
from store.features import find_set
from store.match_runs import MatchSettings, land, match_store
from store.sync import sync


def mark(name, study, x, patient="t-p1", **more):
    return {
        "lesion_id": name,
        "patient_id": patient,
        "study_id": f"{patient}_{study}",
        "series_id": f"{patient}_{study}_{more.pop('series', 1)}",
        "study_index": study,
        "release_x": x,
        **more,
    }


# One lesion in three studies (twice in the second, in two series), one that vanishes, one that is new.
MARKS = [
    mark("a1", 1, 0.20),
    mark("b1", 1, 0.80),
    mark("a2", 2, 0.21),
    mark("a2x", 2, 0.212, series=2),
    mark("c3", 3, 0.50),
    mark("a3", 3, 0.22),
    mark("other", 1, 0.21, patient="t-p2"),
]


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "f.duckdb", MARKS)


def run(path, **settings):
    with open_reader(path) as connection:
        return match_store(connection, path, MatchSettings("location", **settings))


def seen(found):
    return [
        (row.patient_id, row.study, row.group_id, row.state, row.mark.lesion_id if row.mark else None)
        for row in found.rows()
    ]


def test_states_groups_and_vanished_lesions_of_a_patient(path):
    assert seen(run(path, patient_id="t-p1")) == [
        ("t-p1", 1, "t-p1.g1", "baseline", "a1"),
        ("t-p1", 1, "t-p1.g2", "baseline", "b1"),
        ("t-p1", 2, "t-p1.g1", "persistent", "a2"),
        ("t-p1", 2, "t-p1.g1", "persistent", "a2x"),
        ("t-p1", 2, "t-p1.g2", "vanished", None),
        ("t-p1", 3, "t-p1.g1", "persistent", "a3"),
        ("t-p1", 3, "t-p1.g3", "new", "c3"),
    ]


def test_all_patients_at_once_give_what_each_gives_alone(path):
    together = run(path)

    assert seen(together) == seen(run(path, patient_id="t-p1")) + seen(run(path, patient_id="t-p2"))
    assert (together.patients, together.groups, len(together.marks)) == (2, 4, 7)
    assert together.thresholds.t1 < together.thresholds.t2


def test_edges_say_what_was_tied_and_how_surely(path):
    edges = {(edge.from_lesion_id, edge.to_lesion_id): edge for edge in run(path).edges()}

    assert edges["a2", "a2x"].kind == "same_study"
    assert {pair for pair, edge in edges.items() if edge.kind == "same_lesion"} == {
        ("a1", "a2"),
        ("a2", "a3"),
        ("a1", "a3"),
    }
    assert edges["a1", "a2"].distance == pytest.approx(0.011, abs=1e-6)
    assert all(0 < edge.confidence <= 1 for edge in edges.values())


def test_thresholds_of_a_person_replace_those_recorded(path):
    strict = run(path, patient_id="t-p1", t1=0.0, t2=0.0)

    assert strict.groups == len(strict.marks) == 6
    assert run(path, patient_id="t-p1", t2=1.0).thresholds.t1 == run(path).thresholds.t1


def test_studies_follow_each_other_by_day_when_it_is_known(tmp_path):
    marks = [mark("late", 1, 0.2, study_day=90), mark("early", 2, 0.2, study_day=0)]
    found = run(make_store(tmp_path / "f.duckdb", marks))

    assert [(row.study, row.study_day, row.mark.lesion_id) for row in found.rows()] == [
        (1, 0, "early"),
        (2, 90, "late"),
    ]


def test_condition_and_day_choose_the_marks(path):
    assert [row[4] for row in seen(run(path, patient_id="t-p1", as_of="study:2"))] == ["a1", "b1", "a2", "a2x", None]
    assert [row[4] for row in seen(run(path, where="lesion_id LIKE 'a%'"))] == ["a1", "a2", "a2x", "a3"]


def test_marks_without_a_vector_are_counted(tmp_path):
    found = run(make_store(tmp_path / "f.duckdb", [*MARKS, mark("bare", 1, 0.3, release_z=None)]))

    assert found.without_vector == 1
    assert "bare" not in {row[4] for row in seen(found)}


def test_what_cannot_be_matched_is_named(tmp_path, path):
    with pytest.raises(StoreError, match="no lesion of such a patient; names look like t-p1"):
        run(path, patient_id="t-p9")
    bare = make_store(tmp_path / "bare.duckdb", [mark("bare", 1, 0.3, release_z=None)])
    with pytest.raises(StoreError, match="none of the 1 lesions has a vector in feature set location@1"):
        run(bare)
    for settings in ({"where": "patient_id = 't-p2'"}, {"where": "study_index = 3", "as_of": "study:3"}):
        with pytest.raises(StoreError, match="none of the patient's lesions is left; widen the condition or the day"):
            run(path, patient_id="t-p1" if "as_of" not in settings else "t-p2", **settings)
    with pytest.raises(StoreError, match="the store holds no lesion; run `lesionary ingest`"):
        run(make_store(tmp_path / "empty.duckdb", []))
    made = make_store(tmp_path / "made.duckdb", MARKS[:2], {"made": {"a1": [1.0], "b1": [2.0]}})
    with open_reader(made) as connection:
        with pytest.raises(UsageError, match="no thresholds are recorded for feature set made@1"):
            match_store(connection, made, MatchSettings("made"))
        assert match_store(connection, made, MatchSettings("made", 0.1, 0.2)).groups == 2


def test_run_records_the_lesions_it_matched_not_those_its_features_were_made_of(tmp_path):
    vectors = {one["lesion_id"]: [one["release_x"]] for one in MARKS}
    path = make_store(tmp_path / "f.duckdb", MARKS, {"made": vectors})
    with open_writer(path) as connection:
        connection.execute("INSERT INTO store.synced VALUES ('lesions', 7, now())")
    with open_reader(path) as connection:
        assert find_set(connection, "made").lesions_version == 1
        found = match_store(connection, path, MatchSettings("made", 0.01, 0.1))
    lake = Lake.create(str(tmp_path / "lake"))
    land(lake, "try", found)

    assert lake.read("match_runs")["lesions_version"].to_pylist() == [7]


def test_run_lands_in_lake_and_store_and_replaces_the_one_of_its_name(path, tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    target = tmp_path / "lake" / "features.duckdb"
    first, second = run(path), run(path, t2=0.0)
    land(lake, "try", first)
    land(lake, "other", first)
    sync(lake, target)
    land(lake, "try", second)
    sync(lake, target)

    with open_reader(target) as connection:
        runs = connection.execute(
            "SELECT run, feature_set_id, t2, patients, lesions, groups FROM match_runs ORDER BY run"
        ).fetchall()
        states = dict(connection.execute("SELECT run, count(*) FROM matches GROUP BY run").fetchall())
        rows = connection.execute(
            "SELECT patient_id, group_id, state, lesion_id, confidence FROM matches WHERE run = 'other'"
        ).fetchall()
        edges = connection.execute(
            "SELECT patient_id, kind, from_lesion_id, to_lesion_id, distance, confidence "
            "FROM match_edges WHERE run = 'other'"
        ).fetchall()
    assert runs == [
        ("other", "location@1", first.thresholds.t2, 2, 7, first.groups),
        ("try", "location@1", 0.0, 2, 7, second.groups),
    ]
    assert states == {"other": len(list(first.rows())), "try": len(list(second.rows()))}
    assert sorted(map(repr, rows)) == sorted(
        repr((row.patient_id, row.group_id, row.state, row.mark.lesion_id if row.mark else None, row.confidence))
        for row in first.rows()
    )
    assert sorted(edges) == sorted(astuple(edge) for edge in first.edges())
    assert first.states() == Counter(row.state for row in first.rows())
