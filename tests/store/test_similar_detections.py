"""Detections looked up and found: across the two sets of one model, never the same patient's unless asked for."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from blob_series import row_of, take_in, write_series

from lesionary.detection_tables import CATEGORIES, DETECTIONS
from lesionary.errors import StoreError, UnknownLesionError, UsageError
from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.schema import EMBEDDINGS, FEATURE_SETS
from store.database import open_reader
from store.features import list_sets
from store.members import DETECTIONS as AMONG_DETECTIONS
from store.members import LESIONS as AMONG_LESIONS
from store.queries import lesion
from store.similar import Searcher, complain_of, newest_with_detections
from store.sync import sync

PATIENTS = (1, 2, 3)
DIMENSION = 4


def name_of(patient):
    return f"dl-00000{patient}_01_01"


def lesion_vectors():
    rng = np.random.default_rng(5)
    return {f"dl-{number}": rng.normal(size=DIMENSION).astype(np.float32) for number in range(1, 6)}


def detections():
    """Name to patient, score and vector; patient 4 has detections and no mark."""
    rng = np.random.default_rng(6)
    found = {}
    for patient in (*PATIENTS, 4):
        for number in (1, 2, 3):
            name = f"detector-1/{name_of(patient)}/{number}"
            found[name] = (patient, 0.9 - 0.2 * number, rng.normal(size=DIMENSION).astype(np.float32))
    return found


def write_set(lake, set_id, vectors, model="triplet-1"):
    rows = [
        {"feature_set_id": set_id, "lesion_id": name, "vector": vector.tolist(), "lesion_ingest_id": None}
        for name, vector in vectors.items()
    ]
    name, version = set_id.split("@")
    described = {
        "feature_set_id": set_id, "name": name, "version": int(version), "model_id": model, "dimension": DIMENSION,
        "metric": "euclidean", "lesions_version": 1, "created_at": 1_700_000_000_000_000 + int(version),
        "t1": None, "t2": None,
    }  # fmt: skip
    write_results(
        lake, set_id,
        {
            "embeddings": [pa.Table.from_pylist(rows, schema=EMBEDDINGS.schema)],
            "feature_sets": [pa.Table.from_pylist([described], schema=FEATURE_SETS.schema)],
        },
    )  # fmt: skip


def write_detections(lake, found):
    rows = [
        {
            "detection_id": name, "unit_id": name.rpartition("/")[0], "model_id": "detector-1",
            "series_id": name_of(patient), "patient_id": f"dl-00000{patient}", "study_id": f"dl-00000{patient}_01",
            "slice_index": 3, "first_slice_index": 2, "last_slice_index": 4, "slices": 3, "box_xyxy_px": [1, 2, 3, 4],
            "score": score, "category": 1, "category_model_id": "categories-1",
        }
        for name, (patient, score, _) in found.items()
    ]  # fmt: skip
    units = sorted({row["unit_id"] for row in rows})
    write_results(lake, units, {"detections": [pa.Table.from_pylist(rows, schema=DETECTIONS.schema)]})


@pytest.fixture
def lake(tmp_path):
    """Marks 1, 2, 3 of one patient each, 4 and 5 of the first two again."""
    folder = tmp_path / "release"
    for patient in (*PATIENTS, 4):
        write_series(folder, name_of(patient).removeprefix("dl-"), {}, slices=4)
    keys = [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]
    rows = [row_of(name_of(patient).removeprefix("dl-"), key, slices=4) for patient, key in keys]
    lake = take_in(Lake.create(str(tmp_path / "lake")), folder, *rows)
    write_detections(lake, detections())
    named = {"model_id": "categories-1", "category": 1, "name": "liver", "lesions": 1, "created_at": 0}
    write_results(lake, "categories-1", {"categories": [pa.Table.from_pylist([named], schema=CATEGORIES.schema)]})
    write_set(lake, "triplet@1", lesion_vectors())
    write_set(lake, "triplet-detections@1", {name: vector for name, (*_, vector) in detections().items()})
    return lake


@pytest.fixture
def path(lake, tmp_path):
    sync(lake, tmp_path / "features.duckdb")
    return tmp_path / "features.duckdb"


@pytest.fixture
def connection(path):
    with open_reader(path) as opened:
        yield opened


def everybody():
    """Name to patient and vector, of lesions and of detections."""
    patients = dict(zip(lesion_vectors(), (1, 2, 3, 1, 2), strict=True))
    lesions = {name: (patients[name], vector) for name, vector in lesion_vectors().items()}
    return lesions, {name: (patient, vector) for name, (patient, _, vector) in detections().items()}


@pytest.mark.parametrize("same_patient", [False, True])
@pytest.mark.parametrize("among", [AMONG_LESIONS, AMONG_DETECTIONS])
def test_hits_are_those_of_a_plain_loop_from_either_side(connection, path, among, same_patient):
    lesions, seen = everybody()
    there = lesions if among is AMONG_LESIONS else seen
    asked = lesions | seen
    searcher = Searcher(connection, path, "triplet", among=among)
    queries, unknown, without = searcher.queries_for(list(asked))
    assert not unknown
    assert not without

    found = searcher.hits(searcher.search(queries, 4, same_patient=same_patient), 4)
    for query, hits in zip(queries, found, strict=True):
        patient, vector = asked[query.lesion_id]
        wanted = sorted(
            (float(np.linalg.norm(other.astype(float) - vector.astype(float))), name)
            for name, (owner, other) in there.items()
            if name != query.lesion_id and (same_patient or owner != patient)
        )[:4]
        assert [hit.lesion_id for hit in hits] == [name for _, name in wanted]
        assert [hit.distance for hit in hits] == pytest.approx([distance for distance, _ in wanted], abs=1e-6)


def test_hits_say_what_the_store_knows_of_a_detection(connection, path):
    searcher = Searcher(connection, path, "triplet@1", among=AMONG_DETECTIONS)
    (query,), _, _ = searcher.queries_for(["dl-1"])

    (hit, *_), *_ = searcher.hits(searcher.search([query], 1), 1)
    assert hit.lesion_id in detections()
    assert hit.patient_id == f"dl-00000{detections()[hit.lesion_id][0]}"
    assert (hit.lesion_type, hit.long_mm) == ("liver", None)
    # What figures need of it.
    facts = lesion(connection, hit.lesion_id)
    assert (facts["box_xyxy_px"], facts["coord_convention"], facts["image_available"]) == (
        (1, 2, 3, 4),
        "zero_based",
        True,
    )


def test_conditions_are_over_the_view_of_what_is_searched(connection, path):
    searcher = Searcher(connection, path, "triplet", among=AMONG_DETECTIONS)
    queries, _, _ = searcher.queries_for(["dl-1"])
    allowed = searcher.allowed_rows("score > 0.6 AND category_name = 'liver'")

    (hits,) = searcher.hits(searcher.search(queries, 9, allowed=allowed), 9)
    assert sorted(hit.lesion_id for hit in hits) == [f"detector-1/{name_of(patient)}/1" for patient in (2, 3, 4)]
    with pytest.raises(StoreError, match="no detection is left"):
        searcher.allowed_rows("score > 2")
    with pytest.raises(StoreError, match="lesion_type"):
        searcher.allowed_rows("lesion_type = 'liver'")
    lesions = Searcher(connection, path, "triplet")
    query, _, _ = lesions.queries_for([f"detector-1/{name_of(4)}/1"])
    (hits,) = lesions.hits(lesions.search(query, 9, allowed=lesions.allowed_rows("patient_id = 'dl-000001'")), 9)
    assert {hit.lesion_id for hit in hits} == {"dl-1", "dl-4"}


def test_numbers_of_lesions_and_detections_are_never_the_same(connection):
    ((most,),) = connection.execute(
        "SELECT max(uses) FROM (SELECT count(*) AS uses FROM (SELECT lesion_number AS number FROM "
        "lake_rows.lesion_features UNION ALL SELECT detection_number FROM lake_rows.detections) GROUP BY number)"
    ).fetchall()
    assert most == 1


def test_what_cannot_be_looked_up_is_told_apart(connection, path):
    searcher = Searcher(connection, path, "location+size")
    name = f"detector-1/{name_of(1)}/1"
    queries, unknown, without = searcher.queries_for(["dl-1", name, "detector-1/x/1", "dl-99"])

    assert [query.lesion_id for query in queries] == ["dl-1"]
    assert (unknown, without) == (["detector-1/x/1", "dl-99"], [name])
    with pytest.raises(UnknownLesionError, match="no such lesion"):
        complain_of(unknown, without, searcher.feature_set)
    with pytest.raises(UsageError, match=r"no vector beside feature set location\+size@1; .*embed --detections"):
        complain_of([], without, searcher.feature_set)


def test_sets_without_detections_and_sets_of_detections_are_refused(connection, path):
    with pytest.raises(UsageError, match=r"no vectors of detections beside location\+size@1"):
        Searcher(connection, path, "location+size", among=AMONG_DETECTIONS)
    with pytest.raises(UsageError, match="triplet-detections@1 holds vectors of detections"):
        Searcher(connection, path, "triplet-detections")


def test_another_model_s_detections_are_not_compared(lake, tmp_path):
    write_set(lake, "triplet@2", lesion_vectors(), model="triplet-2")
    write_set(lake, "triplet-detections@2", {}, model="mine-1")
    sync(lake, tmp_path / "features.duckdb")
    with open_reader(tmp_path / "features.duckdb") as connection:
        with pytest.raises(UsageError, match="no vectors of detections beside triplet@2"):
            Searcher(connection, tmp_path / "features.duckdb", "triplet", among=AMONG_DETECTIONS)
        assert newest_with_detections(connection) == "triplet@1"


def test_detections_that_come_and_go_are_followed_by_the_next_sync(lake, path):
    def sizes():
        with open_reader(path) as connection:
            return {one.feature_set_id: one.lesions for one in list_sets(connection)}

    assert sizes()["triplet-detections@1"] == 12
    kept = {name: row for name, row in detections().items() if not name.endswith("/3")}
    write_detections(lake, kept)
    sync(lake, path)
    assert sizes()["triplet-detections@1"] == 8
    assert sizes()["triplet@1"] == 5
    with open_reader(path) as connection:
        searcher = Searcher(connection, path, "triplet", among=AMONG_DETECTIONS)
        queries, unknown, _ = searcher.queries_for([f"detector-1/{name_of(1)}/3", f"detector-1/{name_of(1)}/2"])
        assert unknown == [f"detector-1/{name_of(1)}/3"]
        np.testing.assert_array_equal(queries[0].vector, detections()[f"detector-1/{name_of(1)}/2"][2])


def test_a_store_without_detections_says_what_to_do(tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    sync(lake, tmp_path / "features.duckdb")
    with open_reader(tmp_path / "features.duckdb") as connection, pytest.raises(StoreError, match="no detection has a"):
        newest_with_detections(connection)


def test_questions_of_the_guide_are_answered(connection):
    page = (Path(__file__).parents[2] / "docs" / "detect.md").read_text()
    questions = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    assert len(questions) == 5

    first, second, *_ = [connection.execute(question).fetchall() for question in questions]
    assert [row[0] for row in first] == [f"detector-1/{name_of(patient)}/1" for patient in (1, 2, 3)]
    assert [row[1] for row in second] == [12, 12, 12, 12]
