"""The blocked search gives, row for row, what a plain loop over all pairs gives."""

import numpy as np
import pytest

from lesionary.errors import UsageError
from store import exact_ranking
from store.exact_ranking import NO_HIT, nearest_rows


def nearest_by_loops(vectors, patients, top, same_patient):
    """Oracle: every pair, one component after the other; ties in row order because sorting is stable."""
    rows = [[float(value) for value in vector] for vector in vectors]
    answer = []
    for query, own in enumerate(rows):
        measured = []
        for other, vector in enumerate(rows):
            if other == query or (not same_patient and patients[other] == patients[query]):
                continue
            total = 0.0
            for a, b in zip(own, vector, strict=True):
                total += (a - b) * (a - b)
            measured.append((total, other))
        hits = [other for _, other in sorted(measured)[:top]]
        answer.append(hits + [NO_HIT] * (top - len(hits)))
    return answer


def random_vectors(generator, count, dimension):
    """Grids (many ties), copies, near copies, far offsets, and very large or small numbers."""
    kind = generator.integers(6)
    if kind == 0:
        values = generator.integers(0, 3, (count, dimension))
    elif kind == 1:
        values = generator.standard_normal((count, dimension))[generator.integers(0, count, count)]
    elif kind == 2:
        values = 1 + 1e-7 * generator.integers(0, 4, (count, dimension))
    elif kind == 3:
        values = 1e6 + generator.standard_normal((count, dimension))
    elif kind == 4:
        values = generator.standard_normal((count, dimension)) * 10.0 ** generator.integers(-30, 18)
    else:
        values = generator.standard_normal((count, dimension))
    return values.astype(np.float32)


def test_hits_are_those_of_a_plain_loop_in_a_thousand_small_sets():
    generator = np.random.default_rng(0)

    for _ in range(1000):
        count, dimension, top = (int(generator.integers(1, high)) for high in (13, 6, 7))
        vectors = random_vectors(generator, count, dimension)
        patients = generator.integers(0, 1 + int(generator.integers(0, 5)), count)
        same_patient = bool(generator.integers(2))

        found = nearest_rows(vectors, patients, top, same_patient=same_patient)

        assert found.tolist() == nearest_by_loops(vectors, patients, top, same_patient)


@pytest.mark.parametrize("block_pairs", [1, 200, 4_000_000])
def test_wide_vectors_are_searched_in_float32_with_the_same_hits(monkeypatch, block_pairs):
    monkeypatch.setattr(exact_ranking, "_BLOCK_PAIRS", block_pairs)
    generator = np.random.default_rng(1)

    for _ in range(40):
        vectors = random_vectors(generator, 30, 80)
        patients = generator.integers(0, 8, 30)

        found = nearest_rows(vectors, patients, 5, same_patient=False)

        assert found.tolist() == nearest_by_loops(vectors, patients, 5, False)


def test_pairs_that_one_product_cannot_tell_apart_are_measured_again():
    # Far from the origin float32 products are wrong by more than these distances.
    steps = np.random.default_rng(2).permutation(50).astype(np.float32)
    vectors = np.full((50, 100), 1000, np.float32)
    vectors[:, 0] += steps / 1024

    found = nearest_rows(vectors, np.arange(50), 1, same_patient=True)

    assert np.abs(steps[found[:, 0]] - steps).max() == 1


def test_a_vector_that_is_no_number_is_refused():
    vectors = np.array([[0.0], [np.nan], [1.0]], np.float32)

    with pytest.raises(UsageError, match="1 of 3 vectors"):
        nearest_rows(vectors, np.arange(3), 1, same_patient=True)


def test_nobody_to_be_found_gives_no_hits():
    assert nearest_rows(np.zeros((1, 2), np.float32), np.zeros(1, np.int64), 2, same_patient=True).tolist() == [
        [-1, -1]
    ]
    assert nearest_rows(np.zeros((0, 2), np.float32), np.zeros(0, np.int64), 2, same_patient=True).shape == (0, 2)
    one_patient = nearest_rows(np.zeros((3, 2), np.float32), np.zeros(3, np.int64), 2, same_patient=False)
    assert (one_patient == NO_HIT).all()
