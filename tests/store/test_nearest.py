"""Fast search gives what a plain loop gives, to the last tie."""

import numpy as np
import pytest

from store.nearest import nearest, ranked, squared_lengths


def plain(matrix, query, k, left_out):
    distances = [
        (float(np.sqrt(((row.astype(np.float64) - query.astype(np.float64)) ** 2).sum())), at)
        for at, row in enumerate(matrix)
        if at not in left_out
    ]
    distances.sort()
    last = distances[min(k, len(distances)) - 1][0] if distances else 0
    return [at for distance, at in distances if distance <= last]


@pytest.mark.parametrize("seed", range(40))
def test_equals_a_plain_loop(seed):
    generator = np.random.default_rng(seed)
    rows, dimension = int(generator.integers(1, 60)), int(generator.integers(1, 40))
    matrix = generator.normal(size=(rows, dimension)).astype(np.float32)
    if seed % 2:
        # Far from the origin and close together: where a matrix product loses its digits. And with ties.
        matrix = np.round(matrix, 1) * np.float32(0.01) + np.float32(100)
    queries = matrix[generator.integers(rows, size=3)]
    left_out = [np.unique(generator.integers(rows, size=2)) for _ in queries]
    k = int(generator.integers(1, rows + 3))

    found = nearest(matrix, squared_lengths(matrix), queries, k, left_out)

    for query, one, out in zip(queries, found, left_out, strict=True):
        assert sorted(one.rows.tolist()) == sorted(plain(matrix, query, k, set(out.tolist())))
        assert one.distances.tolist() == sorted(one.distances.tolist())


def test_rows_that_tie_for_the_last_place_all_come_back():
    matrix = np.array([[0, 0], [1, 0], [0, 1], [-1, 0], [5, 5]], np.float32)

    (found,) = nearest(matrix, squared_lengths(matrix), matrix[:1], 2, [np.array([0])])

    assert found.rows.tolist() == [1, 2, 3]
    assert found.distances.tolist() == [1, 1, 1]


def test_many_queries_give_what_each_gives_alone():
    matrix = np.random.default_rng(0).normal(size=(300, 20)).astype(np.float32)
    lengths = squared_lengths(matrix)

    together = nearest(matrix, lengths, matrix[:50], 5)

    for query, one in zip(matrix[:50], together, strict=True):
        (alone,) = nearest(matrix, lengths, query[None], 5)
        assert alone.rows.tolist() == one.rows.tolist()
        assert alone.distances.tolist() == one.distances.tolist()


def test_no_row_left_is_no_neighbour():
    matrix = np.ones((2, 3), np.float32)

    (found,) = nearest(matrix, squared_lengths(matrix), matrix[:1], 4, [np.array([0, 1])])

    assert not len(found.rows)
    assert not len(ranked(matrix, matrix[0], np.empty(0, np.int64), 3).rows)
