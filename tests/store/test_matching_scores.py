"""Pair counts equal a loop over all pairs; the sweep and its area are what they say."""

import itertools
import math

import numpy as np
import pytest

from store.matching_scores import SweepPoint, area_under, drawn_points, pair_scores, sweep, t2_grid


def pairs_by_loops(patients, found, true):
    """Oracle: (tp, fp, fn, tn) over every pair of lesions of one patient that the truth names."""
    counts = {"tp": 0, "fp": 0, "fn": 0, "tn": 0}
    for i, j in itertools.combinations(range(len(patients)), 2):
        if patients[i] != patients[j] or true[i] == -1 or true[j] == -1:
            continue
        together = found[i] == found[j] and found[i] >= 0
        counts[("t" if together == (true[i] == true[j]) else "f") + ("p" if together else "n")] += 1
    return counts


def ratio(part, whole):
    return part / whole if whole else None


def test_pair_scores_are_those_of_plain_loops_in_a_thousand_small_sets():
    generator = np.random.default_rng(0)

    for _ in range(1000):
        n = int(generator.integers(0, 16))
        patients = generator.integers(0, generator.integers(1, 5), n)
        found = generator.integers(-1, generator.integers(1, 5), n)
        true = generator.integers(-1, generator.integers(1, 5), n)

        scores = pair_scores(patients, found, true)

        counts = pairs_by_loops(patients.tolist(), found.tolist(), true.tolist())
        tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
        assert (scores.tp, scores.fp, scores.fn, scores.pairs) == (tp, fp, fn, sum(counts.values()))
        assert (scores.lesions, scores.positives) == (int((true >= 0).sum()), tp + fn)
        assert scores.precision == ratio(tp, tp + fp)
        assert scores.recall == ratio(tp, tp + fn)
        assert scores.f1 == ratio(2 * tp, 2 * tp + fp + fn)


def chains(patients, values):
    """A grouping to score: within a patient, neighbours along a line that are at most T2 apart."""

    def match(t1, t2):
        groups = np.zeros(len(patients), dtype=np.int64)
        number = 0
        for patient in np.unique(patients):
            rows = np.flatnonzero(patients == patient)
            rows = rows[np.argsort(values[rows, 0])]
            for before, row in itertools.pairwise([None, *rows]):
                number += before is None or values[row, 0] - values[before, 0] > t2
                groups[row] = number
        return groups

    return match


def two_patients():
    """Two lesions seen twice .1 apart in each patient, and two seen .2 apart; a third lesion the truth leaves out."""
    values = np.array([[0.0], [0.1], [1.0], [1.2], [5.0], [0.0], [0.1], [3.0], [3.2]], np.float32)
    patients = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    true = np.array([0, 0, 1, 1, -1, 0, 0, 1, 1])
    return patients, values, true


def test_a_sweep_rises_from_nothing_found_to_everything_found():
    patients, values, true = two_patients()

    done = sweep(patients, values, true, t1=0.0, t2_values=[9.0, 0.05, 0.15, 0.25], match=chains(patients, values))

    assert [point.t2 for point in done.points] == [0.05, 0.15, 0.25, 9.0]
    assert [point.scores.recall for point in done.points] == [0.0, 0.5, 1.0, 1.0]
    assert [point.scores.precision for point in done.points] == [None, 1.0, 1.0, 4 / 12]
    assert (done.best.t2, done.best.scores.f1) == (0.25, 1.0)
    assert (done.auc, done.last_recall) == (1.0, 1.0)


def test_the_default_thresholds_span_the_distances_within_patients():
    patients, values, true = two_patients()

    grid = t2_grid(patients, values)

    assert grid == sorted(set(grid))
    assert (grid[0], grid[-1]) == (pytest.approx(0.1), pytest.approx(5.0))
    done = sweep(patients, values, true, t1=0.0, match=chains(patients, values))
    assert [point.t2 for point in done.points] == grid


def test_without_two_lesions_of_a_patient_there_is_one_threshold_and_no_area():
    patients, values = np.array([0, 1]), np.zeros((2, 1), np.float32)

    done = sweep(patients, values, np.array([0, 0]), t1=0.0, match=chains(patients, values))

    assert [point.t2 for point in done.points] == [0.0]
    assert (done.auc, done.last_recall) == (None, None)


def test_patients_with_very_many_lesions_do_not_fill_the_memory():
    patients = np.zeros(20_000, np.int64)
    values = np.linspace(0, 1, 20_000, dtype=np.float32)[:, None]

    assert t2_grid(patients, values)[-1] == pytest.approx(1.0)


def test_the_area_starts_level_at_recall_zero_and_ends_at_the_last_recall():
    assert area_under([(0.2, 0.8), (0.6, 0.4)]) == pytest.approx(0.2 * 0.8 + 0.4 * 0.6)
    assert area_under([(0.5, 1.0)]) == 0.5
    assert area_under([]) is None


def test_the_area_of_a_random_curve_is_that_of_its_trapezoids():
    generator = np.random.default_rng(1)

    for _ in range(100):
        curve = sorted((float(r), float(p)) for r, p in generator.random((7, 2)))
        expected = curve[0][0] * curve[0][1] + sum(
            (b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve)
        )

        assert math.isclose(area_under(curve), expected, rel_tol=1e-12)


def test_the_curve_is_sorted_by_recall_and_leaves_out_what_found_nothing():
    patients, true = np.zeros(4, np.int64), np.array([0, 0, 1, 1])
    found = [[0, 1, 2, 3], [0, 0, 0, 0], [0, 0, 1, 2], [0, 1, 0, 2], [0, 0, 0, 1]]
    points = [SweepPoint(float(t2), pair_scores(patients, np.array(groups), true)) for t2, groups in enumerate(found)]

    assert drawn_points(points) == [(0.0, 0.0), (0.5, 1.0), (0.5, 1 / 3), (1.0, 1 / 3)]
