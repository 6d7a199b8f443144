"""From features to categories: planted numbers are found, numbers keep their meaning, degenerate features are said."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from lesionary.errors import TrainingError
from trainers.categoriser.clusters import (
    AGREEMENT,
    CRITERIA,
    choose_k,
    clustered,
    likelihood_by,
    numbers_to_try,
    reduced,
    renumbered,
)


def planted(k, count=400, dimensions=6, seed=0):
    """Points around so many centres, patients of four lesions each, and the centres' numbers."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, k, count)
    centres = rng.normal(0, 8, (k, dimensions))
    points = (centres[kinds] + rng.normal(0, 1, (count, dimensions))).astype(np.float32)
    return points, np.arange(count) // 4, kinds


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("k", [3, 5, 7])
def test_both_criteria_find_the_planted_number(criterion, k):
    points, patients, _ = planted(k)
    found = choose_k(points, patients, range(2, 12), criterion=criterion, halvings=3, seed=0)
    assert found.k == k
    assert found.ks == tuple(range(2, 12))
    assert len(found.likelihood) == len(found.agreement) == 10
    assert found.record()["k"] == k
    assert found.agreement[k - 2] > 0.95


def test_agreement_of_noise_is_low():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 6)).astype(np.float32)
    found = choose_k(points, np.arange(300) // 3, range(4, 9), criterion=AGREEMENT, halvings=2, seed=0)
    assert max(found.agreement) < 0.5


def test_the_likelihood_is_that_of_a_mixture_of_spheres_of_one_size():
    points, _, _ = planted(3)
    made = KMeans(3, n_init=3, random_state=0).fit(points[:200])
    mixture = GaussianMixture(3, covariance_type="spherical")
    mixture.means_ = made.cluster_centers_.astype(np.float64)
    mixture.weights_ = np.bincount(made.labels_) / 200
    variance = made.inertia_ / (points.shape[1] * 197)
    mixture.covariances_ = np.full(3, variance)
    mixture.precisions_cholesky_ = np.full(3, variance**-0.5)
    expected = mixture.score(points[200:].astype(np.float64))
    assert likelihood_by(made, points[:200], points[200:]) == pytest.approx(expected, rel=1e-6)


def test_halves_are_of_patients_so_that_a_patient_s_own_copies_prove_nothing():
    rng = np.random.default_rng(1)
    # Every patient is a clump of their own: clusters found in one half mean nothing in the other.
    centres = rng.normal(0, 10, (12, 4))
    patients = np.repeat(np.arange(12), 20)
    points = (centres[patients] + rng.normal(0, 0.1, (240, 4))).astype(np.float32)
    by_patient = choose_k(points, patients, [6], criterion=AGREEMENT, halvings=4, seed=0)
    by_lesion = choose_k(points, np.arange(240), [6], criterion=AGREEMENT, halvings=4, seed=0)
    assert by_patient.agreement[0] < by_lesion.agreement[0]
    assert by_patient.likelihood[0] < by_lesion.likelihood[0] - 100


def test_clusters_are_numbered_without_gaps_also_where_points_repeat():
    points = np.repeat(np.array([[0.0, 0], [5, 5]], np.float32), 10, axis=0)
    assert sorted(set(clustered(points, 4, 2, 0).tolist())) == [0, 1]
    points, _, kinds = planted(4)
    found = clustered(points, 4, 4, 0)
    assert sorted(set(found.tolist())) == [0, 1, 2, 3]
    assert all(len(set(found[kinds == kind].tolist())) == 1 for kind in range(4))


def test_clusters_go_on_from_those_before():
    points, _, kinds = planted(5)
    # One point a kind is on the wrong side; everybody keeps their number.
    before = kinds.copy()
    before[:5] = (kinds[:5] + 1) % 5
    assert clustered(points, 5, 1, 0, before).tolist() == kinds.tolist()
    assert sorted(set(clustered(points, 4, 1, 0, before).tolist())) == [0, 1, 2, 3]


def test_numbers_follow_the_lesions_from_round_to_round():
    before = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    after = np.array([2, 2, 2, 0, 0, 1, 1, 1])
    assert renumbered(after, before).tolist() == before.tolist()
    # A new cluster gets a new number, the others keep theirs.
    split = np.array([0, 0, 3, 1, 1, 2, 2, 2])
    assert renumbered(split, before).tolist() == [0, 0, 3, 1, 1, 2, 2, 2]
    # Fewer clusters than before: still no gaps, and nobody changes company.
    merged = renumbered(np.array([1, 1, 1, 1, 1, 0, 0, 0]), before)
    assert sorted(set(merged.tolist())) == [0, 1]
    assert len(set(merged[:5].tolist())) == len(set(merged[5:].tolist())) == 1


def test_components_keep_what_varies_and_whitening_makes_it_count_the_same():
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(50, 10)) * np.array([100, *[1] * 9])).astype(np.float32)
    kept = reduced(features, 3, whiten=False, seed=0)
    assert kept.shape == (50, 3)
    assert abs(np.corrcoef(kept[:, 0], features[:, 0])[0, 1]) > 0.999
    assert reduced(features, 3, whiten=True, seed=0).std(axis=0) == pytest.approx([1, 1, 1], rel=0.05)
    assert reduced(features, 0, whiten=False, seed=0) is features
    assert reduced(features, 64, whiten=False, seed=0).shape == (50, 10)


def test_numbers_to_try_reach_from_the_least_to_the_most():
    assert numbers_to_try(2, 2) == [2]
    tried = numbers_to_try(4, 256)
    assert (tried[0], tried[-1]) == (4, 256)
    assert all(1 < after / before <= 1.34 for before, after in pairwise(tried))


@pytest.mark.parametrize(
    ("features", "sentence"),
    [
        (np.ones((5, 3), np.float32), "all 5 lesions have the same features"),
        (np.array([[1, np.nan], [0, 1]], np.float32), "not finite"),
    ],
)
def test_features_that_tell_nothing_are_refused(features, sentence):
    with pytest.raises(TrainingError, match=sentence):
        reduced(features, 2, whiten=False, seed=0)


def test_too_few_lesions_are_refused():
    points, patients, _ = planted(2, count=8)
    with pytest.raises(TrainingError, match="8 lesions of 2 patients are too few for 5 categories"):
        choose_k(points, patients, [5, 6], criterion=AGREEMENT, halvings=2, seed=0)
