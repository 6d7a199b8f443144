"""Similar patients: a symmetric distance of sets, the nearest found without computing all, and why."""

import numpy as np
import pytest
from small_stores import make_store

from lesionary.errors import StoreError
from store.database import open_reader
from store.patients import set_distance, similar_patients


def plain_distance(first, second):
    """Sums in plain words."""

    def one_way(of, to):
        return sum(min(sum((a - b) ** 2 for a, b in zip(x, y, strict=True)) ** 0.5 for y in to) for x in of) / len(of)

    return (one_way(first, second) + one_way(second, first)) / 2


def patients(seed, dimension, count=30):
    generator = np.random.default_rng(seed)
    sets = {}
    for number in range(count):
        vectors = generator.normal(size=(int(generator.integers(1, 7)), dimension)).round(1)
        sets[f"t-p{number:02d}"] = vectors.astype(np.float32)
    return sets


def store_of(path, sets):
    lesions, vectors = [], {}
    for patient, rows in sets.items():
        for at, row in enumerate(rows):
            name = f"{patient}-{at}"
            lesions.append(
                {
                    "lesion_id": name,
                    "series_id": name,
                    "patient_id": patient,
                    "study_index": at + 1,
                    "long_mm": 10.0 + at,
                }
            )
            vectors[name] = row
    return make_store(path, lesions, {"made": vectors})


@pytest.mark.parametrize(("seed", "dimension"), [(0, 2), (1, 5), (2, 64)])
def test_nearest_patients_are_those_of_a_plain_loop(tmp_path, seed, dimension):
    sets = patients(seed, dimension)
    path = store_of(tmp_path / "f.duckdb", sets)
    with open_reader(path) as connection:
        for patient in ("t-p00", "t-p07", "t-p29"):
            answer = similar_patients(connection, path, patient, feature_set="made", k=6)

            wanted = sorted(
                (plain_distance(sets[patient].tolist(), rows.tolist()), other)
                for other, rows in sets.items()
                if other != patient
            )[:6]
            assert [hit.patient_id for hit in answer.hits] == [other for _, other in wanted]
            assert [hit.distance for hit in answer.hits] == pytest.approx(
                [distance for distance, _ in wanted], abs=1e-9
            )
            assert [hit.rank for hit in answer.hits] == [1, 2, 3, 4, 5, 6]
            assert answer.lesions == len(sets[patient])


def test_distance_is_symmetric_and_nought_for_equal_sets():
    generator = np.random.default_rng(5)
    first, second = generator.normal(size=(4, 3)).astype(np.float32), generator.normal(size=(6, 3)).astype(np.float32)

    assert set_distance(first, second) == pytest.approx(set_distance(second, first), abs=1e-12)
    assert set_distance(first, first[::-1]) == 0
    # Three close ones are near a single one: nobody needs a partner of his own.
    assert set_distance(np.repeat(first[:1], 3, axis=0), first[:1]) == 0


def test_pairs_explain_the_whole_distance(tmp_path):
    sets = patients(3, 4)
    path = store_of(tmp_path / "f.duckdb", sets)
    with open_reader(path) as connection:
        answer = similar_patients(connection, path, "t-p03", feature_set="made", k=5)

    for hit in answer.hits:
        assert sum(pair.adds for pair in hit.pairs) == pytest.approx(hit.distance)
        assert [pair.lesion_id for pair in hit.pairs if pair.of == "query"] == [
            f"t-p03-{at}" for at in range(len(sets["t-p03"]))
        ]
        assert {pair.nearest_lesion_id.rsplit("-", 1)[0] for pair in hit.pairs if pair.of == "query"} == {
            hit.patient_id
        }
        assert {pair.nearest_lesion_id.rsplit("-", 1)[0] for pair in hit.pairs if pair.of == "hit"} == {"t-p03"}
        assert hit.lesions == len(sets[hit.patient_id])


def test_condition_and_day_narrow_both_sides(tmp_path):
    sets = patients(4, 3)
    path = store_of(tmp_path / "f.duckdb", sets)
    narrowed = {name: rows[:2] for name, rows in sets.items()}
    with open_reader(path) as connection:
        by_where = similar_patients(connection, path, "t-p05", feature_set="made", k=4, where="long_mm < 12")
        by_day = similar_patients(connection, path, "t-p05", feature_set="made", k=4, as_of="study:2")

    wanted = sorted(
        (plain_distance(narrowed["t-p05"].tolist(), rows.tolist()), other)
        for other, rows in narrowed.items()
        if other != "t-p05"
    )[:4]
    assert [hit.patient_id for hit in by_where.hits] == [other for _, other in wanted]
    assert by_day == by_where


@pytest.mark.parametrize(
    ("patient", "where", "sentence"),
    [
        ("t-p99", None, "no lesion of such a patient; names look like t-p00"),
        ("t-p00", "patient_id != 't-p00'", "none of the patient's lesions that are left"),
        ("t-p00", "patient_id = 't-p00'", "no other patient to compare with"),
    ],
)
def test_what_cannot_be_compared_is_named(tmp_path, patient, where, sentence):
    path = store_of(tmp_path / "f.duckdb", patients(0, 2))
    with open_reader(path) as connection, pytest.raises(StoreError, match=sentence):
        similar_patients(connection, path, patient, feature_set="made", k=3, where=where)
