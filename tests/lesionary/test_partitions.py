"""Purity and mutual information: by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from lesionary.partitions import normalised_mutual_information, purity


def test_purity_by_hand():
    clusters = np.array([0, 0, 0, 1, 1, 7])
    types = np.array([2, 2, 5, 5, 5, 2])
    # Two of three, two of two, one of one.
    assert purity(clusters, types) == pytest.approx(5 / 6)
    assert purity(types, clusters) == pytest.approx(4 / 6)
    assert purity(np.arange(6), types) == 1


def test_mutual_information_by_hand():
    # Independent halves share nothing; the same halves under other numbers share everything.
    assert normalised_mutual_information(np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])) == pytest.approx(0, abs=1e-12)
    assert normalised_mutual_information(np.array([0, 0, 1, 1]), np.array([9, 9, 4, 4])) == pytest.approx(1)
    # One cluster against two: no information, and the mean entropy is not zero.
    assert normalised_mutual_information(np.zeros(4, int), np.array([0, 1, 0, 1])) == 0
    assert normalised_mutual_information(np.zeros(4, int), np.ones(4, int)) == 1


def test_mutual_information_is_scikit_learn_s():
    rng = np.random.default_rng(0)
    for _ in range(200):
        count = int(rng.integers(1, 60))
        one, other = (rng.integers(0, rng.integers(1, 9), count) for _ in range(2))
        expected = normalized_mutual_info_score(one, other, average_method="arithmetic")
        assert normalised_mutual_information(one, other) == pytest.approx(expected, abs=1e-9)
