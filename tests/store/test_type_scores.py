"""Purity and NMI equal formulas written out; the classifier never sees a patient twice."""

import math

import numpy as np
import pytest

from lesionary.anatomy import LESION_TYPES
from store.retrieval_scores import Labelled
from store.type_scores import (
    classifier_scores,
    cluster_scores,
    normalised_mutual_information,
    patient_halves,
    purity,
    spread,
)


def purity_by_loops(clusters, types):
    right = 0
    for cluster in set(clusters):
        inside = [kind for kind, own in zip(types, clusters, strict=True) if own == cluster]
        right += max(inside.count(kind) for kind in set(inside))
    return right / len(types)


def nmi_by_loops(clusters, types):
    """Oracle: I / ((H(clusters) + H(types)) / 2) from counted shares; two partitions of one part agree."""
    n = len(types)

    def share(predicate):
        return sum(map(predicate, clusters, types)) / n

    if len(set(clusters)) == len(set(types)) == 1:
        return 1.0
    by_cluster = {c: share(lambda a, _, c=c: a == c) for c in set(clusters)}
    by_type = {t: share(lambda _, b, t=t: b == t) for t in set(types)}
    information = 0.0
    for c, p in by_cluster.items():
        for t, q in by_type.items():
            both = share(lambda a, b, c=c, t=t: a == c and b == t)
            information += both * math.log(both / (p * q)) if both else 0.0
    entropies = [-sum(p * math.log(p) for p in shares.values()) for shares in (by_cluster, by_type)]
    return information / (sum(entropies) / 2)


def test_purity_and_nmi_are_those_of_plain_loops_in_a_thousand_small_sets():
    generator = np.random.default_rng(0)

    for _ in range(1000):
        n = int(generator.integers(1, 25))
        clusters = generator.integers(0, generator.integers(1, 6), n)
        types = generator.integers(0, generator.integers(1, 8), n)

        assert purity(clusters, types) == purity_by_loops(clusters.tolist(), types.tolist())
        nmi = normalised_mutual_information(clusters, types)
        assert math.isclose(nmi, nmi_by_loops(clusters.tolist(), types.tolist()), rel_tol=1e-12, abs_tol=1e-12)


def heaps(generator, patients=12, per_patient=6, kinds=3, width=0.05, unknown=0):
    """Lesions in well separated heaps, one for each type; the last `unknown` of unknown type lie elsewhere."""
    n = patients * per_patient
    types = generator.integers(0, kinds, n)
    vectors = np.eye(3)[types] + width * generator.standard_normal((n, 3))
    if unknown:
        vectors[-unknown:] = 50
        types[-unknown:] = -1
    return Labelled(
        vectors.astype(np.float32),
        np.repeat(np.arange(patients), per_patient),
        types,
        np.full((n, 3), np.nan),
        np.full((n, 2), np.nan),
    )


def test_separated_heaps_are_clustered_and_classified_without_a_mistake():
    labelled = heaps(np.random.default_rng(1), unknown=5)

    clusters = cluster_scores(labelled, seeds=[0, 1])
    classifier = classifier_scores(labelled, seeds=[0, 1])

    assert (clusters.lesions, clusters.clusters) == (67, 3)
    assert clusters.purity_percent.values == (100.0, 100.0)
    assert clusters.nmi_percent.mean == pytest.approx(100)
    assert classifier.accuracy_percent.mean == 100
    assert classifier.converged


def test_features_that_say_nothing_classify_no_better_than_chance():
    labelled = heaps(np.random.default_rng(2), patients=40, width=30.0)

    assert classifier_scores(labelled, seeds=range(5)).accuracy_percent.mean < 50


def test_confusion_counts_every_tested_lesion_at_its_true_type():
    labelled = heaps(np.random.default_rng(3), width=0.6)

    scores = classifier_scores(labelled, seeds=[4])

    tested = labelled.types[patient_halves(labelled.patients, 4)[1]]
    assert [sum(row) for row in scores.confusion] == np.bincount(tested, minlength=len(LESION_TYPES)).tolist()
    right = sum(scores.confusion[i][i] for i in range(len(LESION_TYPES)))
    assert scores.accuracy_percent.mean == pytest.approx(100 * right / tested.size)


def test_no_patient_is_in_both_halves_and_seeds_differ():
    patients = np.repeat(np.arange(7), 3)

    halves = [patient_halves(patients, seed) for seed in range(10)]

    for train, test in halves:
        assert not set(patients[train]) & set(patients[test])
        assert (len(set(patients[train])), len(set(patients[test]))) == (4, 3)
    assert len({train.tobytes() for train, _ in halves}) > 1


def test_the_same_seeds_give_the_same_scores():
    labelled = heaps(np.random.default_rng(5), width=0.8)

    assert cluster_scores(labelled, seeds=[3, 4]) == cluster_scores(labelled, seeds=[3, 4])
    assert classifier_scores(labelled, seeds=[3, 4]) == classifier_scores(labelled, seeds=[3, 4])


def test_too_little_to_score_is_said_with_none():
    unknown = heaps(np.random.default_rng(6), patients=2, per_patient=2, unknown=4)
    lone = heaps(np.random.default_rng(7), patients=1, per_patient=6)
    alike = heaps(np.random.default_rng(8), kinds=1)

    assert cluster_scores(unknown, seeds=[0]) is None
    assert classifier_scores(unknown, seeds=[0]) is None
    assert classifier_scores(lone, seeds=[0]) is None
    assert classifier_scores(alike, seeds=[0]) is None
    assert cluster_scores(lone, seeds=[0], clusters=7) is None


def test_equal_vectors_leave_fewer_clusters_without_a_warning():
    labelled = heaps(np.random.default_rng(9), width=0.0)

    assert cluster_scores(labelled, seeds=[0], clusters=5).purity_percent.mean == 100


def test_a_spread_has_a_deviation_from_two_values_on():
    assert spread([3.0]).sd is None
    assert spread([1.0, 3.0]).sd == pytest.approx(math.sqrt(2))
