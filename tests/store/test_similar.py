"""Similar lesions: what is near, among which lesions, and what is said when there is nothing."""

import numpy as np
import pytest
from small_stores import make_store

from lesionary.errors import StoreError, UnknownLesionError, UsageError
from store.database import open_reader
from store.similar import Searcher, complain_of

TYPES = ("lung", "liver", "bone", None)


def lesions(count=60):
    generator = np.random.default_rng(3)
    rows = []
    for number in range(1, count + 1):
        x, y, z = generator.random(3).round(2).tolist()
        rows.append(
            {
                "lesion_id": f"t-{number}",
                "patient_id": f"t-p{number % 9}",
                "lesion_type": TYPES[number % 4],
                "release_x": x,
                "release_y": y,
                "release_z": z,
                "long_mm": float(generator.integers(5, 60)),
                "short_mm": None if number == 7 else float(generator.integers(2, 30)),
            }
        )
    return rows


@pytest.fixture
def path(tmp_path):
    return make_store(tmp_path / "features.duckdb", lesions())


@pytest.fixture
def searcher(path):
    with open_reader(path) as connection:
        yield Searcher(connection, path, "location+size")


def vector(row):
    # As the store keeps it: in single precision.
    numbers = [row["release_x"], row["release_y"], row["release_z"], row["long_mm"] / 100, row["short_mm"] / 100]
    return np.array(numbers, np.float32).astype(np.float64)


def plain(query, k, keep):
    """The same by a loop over dictionaries."""
    found = [
        (float(np.sqrt(((vector(row) - vector(query)) ** 2).sum())), row["lesion_id"])
        for row in lesions()
        if row["short_mm"] is not None and row is not query and row["lesion_id"] != query["lesion_id"] and keep(row)
    ]
    return sorted(found)[:k]


@pytest.mark.parametrize("same_patient", [False, True])
@pytest.mark.parametrize(
    ("condition", "keeps"),
    [
        (None, lambda row: True),
        ("lesion_type = 'liver'", lambda row: row["lesion_type"] == "liver"),
        ("lesion_type IS NULL", lambda row: row["lesion_type"] is None),
        ("long_mm > 5.5", lambda row: row["long_mm"] > 5.5),
        ("lesion_id IN (SELECT lesion_id FROM lesions WHERE long_mm < 9)", lambda row: row["long_mm"] < 9),
    ],
)
def test_hits_are_those_of_a_plain_loop(searcher, same_patient, condition, keeps):
    asked = [row for row in lesions() if row["lesion_id"] != "t-7"]
    queries, unknown, without = searcher.queries_for([row["lesion_id"] for row in asked])
    assert not unknown
    assert not without
    allowed = None if condition is None else searcher.allowed_rows(condition)

    found = searcher.hits(searcher.search(queries, 4, allowed=allowed, same_patient=same_patient), 4)

    for query, hits in zip(asked, found, strict=True):
        wanted = plain(
            query,
            4,
            lambda row: keeps(row) and (same_patient or row["patient_id"] != query["patient_id"]),  # noqa: B023
        )
        assert [hit.lesion_id for hit in hits] == [name for _, name in wanted]
        assert [hit.distance for hit in hits] == pytest.approx([distance for distance, _ in wanted], abs=1e-9)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


def test_hits_carry_what_the_store_knows(searcher):
    (query,), _, _ = searcher.queries_for(["t-1"])

    (hit, *_), *_ = searcher.hits(searcher.search([query], 1), 1)

    row = next(one for one in lesions() if one["lesion_id"] == hit.lesion_id)
    assert (hit.patient_id, hit.lesion_type, hit.long_mm, hit.short_mm) == tuple(
        row[name] for name in ("patient_id", "lesion_type", "long_mm", "short_mm")
    )


def test_vector_of_a_lesion_finds_the_lesion_itself(searcher):
    row = lesions()[11]
    query = searcher.query_for_vector(vector(row).tolist())

    (hits,) = searcher.hits(searcher.search([query], 2), 2)

    assert (hits[0].lesion_id, hits[0].distance) == (row["lesion_id"], 0)


@pytest.mark.parametrize(
    "numbers", [[0.1], [0.1] * 6, [float("nan")] * 5, [float("inf")] * 5, [], [1e20] * 5, [1e39] * 5]
)
def test_vector_of_another_kind_is_refused(searcher, numbers):
    with pytest.raises(UsageError, match=r"location\+size@1 takes 5 finite numbers"):
        searcher.query_for_vector(numbers)


def test_unknown_lesion_and_lesion_without_a_vector_are_told_apart(searcher):
    queries, unknown, without = searcher.queries_for(["t-1", "t-7", "t-999"])

    assert [query.lesion_id for query in queries] == ["t-1"]
    assert (unknown, without) == (["t-999"], ["t-7"])
    with pytest.raises(UnknownLesionError, match="t-999: the store has no such lesion"):
        complain_of(unknown, without, searcher.feature_set)
    with pytest.raises(UsageError, match="t-7: the lesion has no vector in feature set location"):
        complain_of([], without, searcher.feature_set)


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        ("long_mm > 1000", "--where: no lesion is left"),
        ("lesion_id = 't-7'", "none of the lesions that are left has a"),
    ],
)
def test_condition_that_leaves_nothing_is_named(searcher, condition, sentence):
    with pytest.raises(StoreError, match=sentence):
        searcher.allowed_rows(condition)


def test_conditions_in_turn_have_each_their_own_rows(searcher):
    short, long = "long_mm < 20", "long_mm >= 20"

    rows = [searcher.allowed_rows(condition).tolist() for condition in (short, short, long, short)]

    assert rows[0] == rows[1] == rows[3]
    assert sorted(rows[0] + rows[2]) == list(range(len(searcher.vectors.lesions)))


def test_unknown_feature_set_is_named_with_those_there_are(path):
    with open_reader(path) as connection, pytest.raises(UsageError, match=r"it has location, location\+size, size"):
        Searcher(connection, path, "colour")


@pytest.mark.parametrize("k", [0, -1, 10_001])
def test_number_of_hits_has_bounds(searcher, k):
    queries, _, _ = searcher.queries_for(["t-1"])

    with pytest.raises(UsageError, match="between 1 and 10000"):
        searcher.search(queries, k)


def test_empty_store_is_named(tmp_path):
    path = make_store(tmp_path / "f.duckdb", [])
    with open_reader(path) as connection:
        searcher = Searcher(connection, path, "location")
        (hits,) = searcher.hits(searcher.search([searcher.query_for_vector([0, 0, 0])], 3), 3)

    assert hits == []
