"""Figures of body-part regression against slow, obvious ones."""

import itertools

import numpy as np
import pytest

from lesionary.errors import UsageError
from trainers.ssbr.evaluate import (
    PHANTOM_BOUNDARIES,
    best_thresholds,
    body_part_scores,
    classes_of_heights,
    correlation,
    neighbour_errors,
    order_scores,
    pair_errors,
    phantom_heights,
    said_classes,
)


def accuracy(scores, classes, thresholds):
    right = 0
    for score, true in zip(scores.tolist(), classes.tolist(), strict=True):
        said = 0 if score < thresholds[0] else 1 if score < thresholds[1] else 2
        right += said == true
    return right / len(scores)


@pytest.mark.parametrize("seed", range(30))
def test_thresholds_are_the_best_of_all(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 25))
    scores = rng.integers(0, 12, count) / 4.0  # with equal scores
    classes = rng.integers(0, int(rng.integers(1, 4)), count)
    candidates = [scores.min() - 1, *(scores + 0.01), *scores]
    best = max(
        accuracy(scores, classes, pair) for pair in itertools.product(candidates, candidates) if pair[0] <= pair[1]
    )

    found = best_thresholds(scores, classes)

    assert found[0] <= found[1]
    assert accuracy(scores, classes, found) == pytest.approx(best)
    assert (said_classes(scores, found) == classes).mean() == pytest.approx(best)


def test_thresholds_hold_between_neighbouring_floats():
    scores = np.array([0.5, np.nextafter(0.5, 1.0)])

    thresholds = best_thresholds(scores, np.array([0, 2]))

    assert said_classes(scores, thresholds).tolist() == [0, 2]


@pytest.mark.parametrize("seed", range(5))
def test_errors_of_order_are_counted_one_by_one(seed):
    scores = np.random.default_rng(seed).integers(0, 9, 12).astype(float)
    pairs = [(a, b) for a in range(12) for b in range(a + 1, 12)]

    assert pair_errors(scores) == pytest.approx(sum(scores[b] <= scores[a] for a, b in pairs) / len(pairs))
    assert neighbour_errors(scores) == pytest.approx(sum(scores[a + 1] <= scores[a] for a in range(11)) / 11)
    assert correlation(scores, np.arange(12)) == pytest.approx(np.corrcoef(scores, np.arange(12))[0, 1])


def test_scores_of_volumes_are_means_over_volumes():
    rising, falling = np.arange(5.0), -np.arange(4.0)

    found = order_scores([(rising, np.arange(5)), (falling, np.arange(4)), (np.zeros(1), np.zeros(1))])

    assert found.volumes == 2
    assert found.mean_correlation == pytest.approx(0.0)
    assert found.least_correlation == pytest.approx(-1.0)
    assert found.neighbour_errors == found.pair_errors == 0.5
    assert order_scores([]) is None


def test_parts_of_the_body_are_tested_on_other_slices():
    chosen = np.array([0.1, 0.2, 0.5, 0.6, 0.8, 0.9]), np.array([0, 0, 1, 1, 2, 2])
    tested = np.array([0.0, 0.4, 0.95, 0.1]), np.array([0, 1, 2, 1])

    found = body_part_scores(chosen, tested)

    assert (found.accuracy_there, found.accuracy) == (1.0, 0.75)
    assert found.thresholds == pytest.approx((0.35, 0.7))
    assert found.confusion == ((1, 0, 0), (1, 1, 0), (0, 0, 1))
    with pytest.raises(UsageError, match="no slices to test on"):
        body_part_scores(chosen, (np.zeros(0), np.zeros(0, int)))
    with pytest.raises(UsageError, match="no slices to choose"):
        best_thresholds(np.zeros(0), np.zeros(0, int))


def test_true_heights_become_parts():
    chest_end, pelvis_start = PHANTOM_BOUNDARIES

    assert classes_of_heights(np.array([0.0, chest_end, 0.6, pelvis_start, 1.0])).tolist() == [0, 1, 1, 2, 2]
    truth = {"series": {"000001_01_01": {"slice_index_z_mm_height": [[3, 15.0, 0.25], [4, 20.0, 0.26]]}}}
    assert phantom_heights(truth, "vol") == {"vol-000001_01_01": {3: 0.25, 4: 0.26}}
    with pytest.raises(UsageError, match="truth"):
        phantom_heights({"series": [1]}, "vol")
