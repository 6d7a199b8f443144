"""Maps of lesions: the same points every time, in whatever order the store has them; degenerate sets are refused."""

import numpy as np
import pytest
from small_stores import make_store

from lesionary.errors import StoreError, UsageError
from store.database import open_reader
from store.features import find_set
from store.lesion_maps import Method, lay_out, lesions_in_body, lesions_with_vectors


def groups(count=60, dimension=8, seed=0):
    """Three groups far apart, and which of them each vector is of."""
    generator = np.random.default_rng(seed)
    kinds = np.arange(count) % 3
    centres = 10 * np.eye(3, dimension)
    return (centres[kinds] + generator.standard_normal((count, dimension))).astype(np.float32), kinds


def named(count, **changes):
    return [
        {"lesion_id": f"t-{at:03d}", "patient_id": f"p{at}", "series_id": f"s{at}", **changes} for at in range(count)
    ]


@pytest.mark.parametrize("method", Method)
def test_the_same_seed_gives_the_same_points(method):
    vectors, _ = groups()

    first, again = lay_out(vectors, method, seed=3), lay_out(vectors.copy(), method, seed=3)

    assert first.points.shape == (60, 2)
    assert np.array_equal(first.points, again.points)
    assert np.isfinite(first.points).all()


def test_tsne_keeps_groups_together_and_names_its_perplexity():
    vectors, kinds = groups()

    layout = lay_out(vectors, Method.TSNE)

    distances = np.linalg.norm(layout.points[:, None] - layout.points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (kinds[distances.argmin(axis=1)] == kinds).all()
    assert layout.perplexity == pytest.approx(59 / 3)
    assert (layout.components, layout.explained) == (None, None)


@pytest.mark.parametrize(("count", "given", "expected"), [(5, None, 4 / 3), (40, None, 13), (200, None, 30), (9, 4, 4)])
def test_small_sets_have_a_small_perplexity(count, given, expected):
    vectors, _ = groups(count)

    assert lay_out(vectors, Method.TSNE, perplexity=given).perplexity == expected


def test_principal_components_are_those_of_the_covariance():
    vectors, _ = groups()

    layout = lay_out(vectors, Method.PCA)

    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(np.cov(centred.T))
    expected = centred @ directions[:, ::-1][:, :2]
    assert np.allclose(np.abs(layout.points), np.abs(expected))
    assert layout.explained == pytest.approx(tuple(values[::-1][:2] / values.sum()))


def test_long_vectors_are_reduced_before_tsne():
    vectors, _ = groups(count=70, dimension=60)

    assert lay_out(vectors, Method.TSNE).components == 50
    assert lay_out(vectors[:20], Method.TSNE).components == 20


@pytest.mark.parametrize("method", Method)
def test_vectors_of_one_number_and_of_few_different_values_are_mapped(method):
    line = np.arange(12, dtype=np.float32)[:, None]
    repeated = np.repeat(np.eye(2, 3, dtype=np.float32), 6, axis=0)

    assert np.isfinite(lay_out(line, method).points).all()
    assert np.isfinite(lay_out(repeated, method).points).all()


@pytest.mark.parametrize(
    ("vectors", "method", "sentence"),
    [
        (np.ones((9, 3), np.float32), Method.TSNE, "all 9 vectors are equal"),
        (np.ones((9, 3), np.float32), Method.PCA, "all 9 vectors are equal"),
        (np.eye(4, dtype=np.float32), Method.TSNE, "4 lesions are too few for a map; .* --method pca takes two"),
        (np.ones((1, 3), np.float32), Method.PCA, "1 lesion is too few"),
        (np.array([[1, np.nan], [1, 2], [np.inf, 0]], np.float32), Method.PCA, "2 of 3 vectors hold values"),
    ],
)
def test_what_cannot_be_mapped_is_refused(vectors, method, sentence):
    with pytest.raises(UsageError, match=sentence):
        lay_out(vectors, method)


@pytest.mark.parametrize("perplexity", [0.5, 60, 1e9])
def test_a_perplexity_that_makes_no_sense_is_refused(perplexity):
    with pytest.raises(UsageError, match="below the number of lesions, 60"):
        lay_out(groups()[0], Method.TSNE, perplexity=perplexity)


def test_lesions_come_by_name_with_their_own_vectors_whatever_order_they_were_synced_in(tmp_path):
    rows = named(6)
    vectors = {row["lesion_id"]: [float(at), 1.0] for at, row in enumerate(rows)}
    one, two = tmp_path / "one.duckdb", tmp_path / "two.duckdb"
    make_store(one, rows, {"mine": vectors})
    make_store(two, rows[3:], {"mine": dict(list(vectors.items())[3:])})
    make_store(two, rows[:3], {"mine": dict(list(vectors.items())[:3])})

    found = []
    for path in (one, two):
        with open_reader(path) as connection:
            found.append(lesions_with_vectors(connection, path, find_set(connection, "mine"), None, None))

    for lesions, matrix in found:
        assert lesions.lesion_ids == tuple(vectors)
        assert matrix[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
        assert (lesions.asked, lesions.placeable) == (6, 6)


def test_of_too_many_lesions_the_seed_draws_some(tmp_path):
    path = make_store(tmp_path / "s.duckdb", named(30))
    with open_reader(path) as connection:
        found = find_set(connection, "location")

        def draw(seed):
            return lesions_with_vectors(connection, path, found, None, None, most=7, seed=seed)[0]

        first, again, other = draw(1), draw(1), draw(2)
        body = lesions_in_body(connection, None, None, most=7, seed=1)

    assert len(first) == 7
    assert first.lesion_ids == again.lesion_ids == body.lesion_ids != other.lesion_ids
    assert (first.asked, first.placeable) == (30, 30)


def test_a_body_holds_the_lesions_whose_place_is_known(tmp_path):
    rows = named(4)
    rows[1]["release_z"] = None
    path = make_store(tmp_path / "s.duckdb", rows)

    with open_reader(path) as connection:
        lesions = lesions_in_body(connection, None, None)
        with pytest.raises(StoreError, match="none of the 1 lesions has a place in the body"):
            lesions_in_body(connection, "lesion_id = 't-001'", None)

    assert lesions.lesion_ids == ("t-000", "t-002", "t-003")
    assert (lesions.asked, lesions.placeable) == (4, 3)
