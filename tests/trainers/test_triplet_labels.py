"""Pseudo-labels: right where types are separable, repeatable, by patient, and refused where seeds cannot teach."""

from json import dumps

import numpy as np
import pytest
from sklearn.svm import SVC

from lesionary.anatomy import LESION_TYPES
from lesionary.errors import TrainingError, UsageError
from trainers.triplet.labels import (
    LabelSettings,
    _choose,
    _folds,
    _KernelMachine,
    _squared_distances,
    pseudo_labels,
    refine,
)


def clouds(seed=0, count=240, types=(0, 3, 4, 7), patients=30, noise=1.0, width=12):
    """A cloud of features per type; the first third of the patients are seeds."""
    rng = np.random.default_rng(seed)
    kinds = rng.choice(types, count)
    who = rng.integers(patients, size=count)
    centres = rng.normal(0, 2, (len(LESION_TYPES), width))
    features = (centres[kinds] + rng.normal(0, noise, (count, width))).astype(np.float32)
    return features, kinds, who, np.flatnonzero(who < patients // 3), np.flatnonzero(who >= patients // 3)


def test_targets_get_the_type_of_their_cloud_and_seeds_keep_theirs():
    features, kinds, who, seeds, targets = clouds()
    hidden = kinds.copy()
    hidden[targets] = -1
    labels = pseudo_labels(features, hidden, who, seeds, targets, 0)
    assert np.mean(labels.types[targets] == kinds[targets]) > 0.95
    assert np.array_equal(labels.types[seeds], kinds[seeds])
    assert (labels.probability[seeds] == 1).all()
    assert labels.classes.sum(axis=1) == pytest.approx(1)
    absent = [kind for kind in range(8) if kind not in kinds]
    assert (labels.classes[:, absent] == 0).all()
    best = labels.classes[targets].max(axis=1)
    assert labels.probability[targets] == pytest.approx(best)
    assert labels.round == 0
    assert labels.record["score"] > 0.95
    assert "seeds_by_type" in dumps(labels.record)


def test_lesions_that_are_neither_seed_nor_target_stay_unlabelled():
    features, kinds, who, seeds, targets = clouds()
    features[targets[10:]] = np.nan  # They are not even looked at.
    labels = pseudo_labels(features, kinds, who, seeds, targets[:10], 0)
    assert (labels.types[targets[10:]] == -1).all()
    assert np.isnan(labels.probability[targets[10:]]).all()
    assert np.isnan(labels.classes[targets[10:]]).all()
    rows, names, probability = labels.rows()
    assert np.array_equal(rows, np.union1d(seeds, targets[:10]))
    assert [LESION_TYPES.index(name) for name in names] == labels.types[rows].tolist()
    assert np.array_equal(probability, labels.probability[rows])


def test_the_same_input_gives_the_same_labels_and_order_does_not_matter():
    features, kinds, who, seeds, targets = clouds(noise=3.0)
    first = pseudo_labels(features, kinds, who, seeds, targets, 5)
    again = pseudo_labels(features, kinds, who, seeds[::-1], targets[::-1], 5)
    assert np.array_equal(first.classes, again.classes)
    assert first.record == again.record


def test_a_lesion_that_is_seed_and_target_keeps_its_own_type():
    features, kinds, who, seeds, targets = clouds(noise=4.0)
    labels = pseudo_labels(features, kinds, who, seeds, np.union1d(seeds, targets), 0)
    assert np.array_equal(labels.types[seeds], kinds[seeds])


def test_probability_tells_how_often_a_label_is_right():
    features, kinds, who, seeds, targets = clouds(seed=2, count=1500, patients=100, noise=4.0)
    labels = pseudo_labels(features, kinds, who, seeds, targets, 0)
    right = labels.types[targets] == kinds[targets]
    sure = labels.probability[targets] > np.median(labels.probability[targets])
    assert 0.5 < right.mean() < 0.95
    assert right[sure].mean() > right[~sure].mean() + 0.1
    assert abs(labels.probability[targets].mean() - right.mean()) < 0.1
    confident = labels.confident(0.8)
    assert np.array_equal(confident == -1, labels.probability < 0.8)


def test_folds_never_share_a_patient():
    _, kinds, who, *_ = clouds()
    for learn, test in _folds(kinds, who, 0):
        assert not set(who[learn]) & set(who[test])
    tested = np.concatenate([test for _, test in _folds(kinds, who, 0)])
    assert sorted(tested) == list(range(len(kinds)))


def test_a_rare_type_in_one_patient_and_two_patients_in_all_still_work():
    features, kinds, who, seeds, targets = clouds(types=(0, 3, 4), patients=6)
    who[seeds] = seeds % 2
    kinds[seeds[0]], who[seeds[0]] = 6, 0
    labels = pseudo_labels(features, kinds, who, seeds, targets, 0)
    assert labels.record["folds"] == 2
    assert np.mean(labels.types[targets] == kinds[targets]) > 0.8


def test_one_seed_of_each_type_is_enough_to_run():
    features, kinds, who, seeds, targets = clouds(types=(1, 5), patients=9)
    chosen = [seeds[kinds[seeds] == kind][0] for kind in (1, 5)]
    who[chosen] = (100, 101)
    labels = pseudo_labels(features, kinds, who, np.array(chosen), targets, 0)
    assert labels.classes[targets].sum(axis=1) == pytest.approx(1)


def test_two_patients_of_one_type_each_still_work():
    features, kinds, who, seeds, targets = clouds(types=(1, 5), patients=9)
    who[seeds] = kinds[seeds]
    labels = pseudo_labels(features, kinds, who, seeds, targets, 0)
    assert labels.classes[targets].sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("types", [(2, 6), (0, 3, 4)])
def test_the_machine_is_the_solvers_own_radial_machine(types):
    features, kinds, *_ = clouds(types=types, noise=3.0)
    kinds = np.unique(kinds, return_inverse=True)[1]
    ours = _KernelMachine(len(types), 10.0, 0.05, balanced=True).fit(features[:120], kinds[:120])
    theirs = SVC(C=10.0, gamma=0.05, class_weight="balanced").fit(features[:120], kinds[:120])
    assert np.array_equal(ours.predict(features), theirs.predict(features))
    assert ours.decision_function(features) == pytest.approx(theirs.decision_function(features), abs=1e-2)


def test_squared_distances_are_those_of_a_loop():
    left, right = np.random.default_rng(0).normal(size=(4, 3)), np.random.default_rng(1).normal(size=(5, 3))
    expected = [[((a - b) ** 2).sum() for b in right] for a in left]
    assert _squared_distances(left, right) == pytest.approx(np.array(expected))
    assert (_squared_distances(left, left) >= 0).all()


def test_balance_is_a_setting_that_rare_types_notice():
    rng = np.random.default_rng(3)
    kinds = np.where(rng.uniform(size=600) < 0.08, 1, 0)
    features = rng.normal(0, 1, (600, 4)) + kinds[:, None] * 1.0
    who = np.arange(600) % 60
    seeds, targets = np.flatnonzero(who < 30), np.flatnonzero(who >= 30)
    found = {
        balanced: _choose(features[seeds], kinds[seeds], who[seeds], 0, LabelSettings(balanced=balanced))
        for balanced in (True, False)
    }
    machines = {
        balanced: _KernelMachine(2, found[balanced][0], found[balanced][1] / 4, balanced).fit(
            features[seeds], kinds[seeds]
        )
        for balanced in (True, False)
    }
    said = {balanced: np.mean(machine.predict(features[targets]) == 1) for balanced, machine in machines.items()}
    assert said[True] > said[False]


def test_settings_are_chosen_on_part_of_many_seeds():
    features, kinds, who, seeds, targets = clouds()
    labels = pseudo_labels(features, kinds, who, seeds, targets, 0, LabelSettings(choice_rows=40))
    assert np.mean(labels.types[targets] == kinds[targets]) > 0.9
    # Too few to choose on: all seeds are used.
    labels = pseudo_labels(features, kinds, who, seeds, targets, 0, LabelSettings(choice_rows=1))
    assert np.mean(labels.types[targets] == kinds[targets]) > 0.9


def test_a_feature_that_never_changes_among_the_seeds_does_not_count():
    features, kinds, who, seeds, targets = clouds()
    still = np.column_stack((features, np.full(len(kinds), 0.1, dtype=np.float32)))
    plain = pseudo_labels(still, kinds, who, seeds, targets, 0)
    still[targets, -1] = 1e6
    assert np.array_equal(pseudo_labels(still, kinds, who, seeds, targets, 0).classes, plain.classes)


def test_a_refinement_learns_from_the_same_seeds_and_says_what_changed():
    features, kinds, who, seeds, targets = clouds(noise=5.0)
    before = pseudo_labels(features, kinds, who, seeds, targets, 0)
    better, *_ = clouds(noise=1.0)
    after = refine(better, kinds, who, seeds, before, 0)
    assert after.round == 1
    assert np.mean(after.types[targets] == kinds[targets]) > np.mean(before.types[targets] == kinds[targets])
    assert after.record["changed_share"] == np.mean(after.types[targets] != before.types[targets])
    direct = pseudo_labels(better, kinds, who, seeds, targets, 0)
    assert np.array_equal(after.classes, direct.classes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda f, k, w, s: k.__setitem__(s, 2),
            "seed lesions are of one type (mediastinum); label lesions of at least",
        ),
        (lambda f, k, w, s: k.__setitem__(s, -1), "no seed lesion has a type; label some lesions"),
        (lambda f, k, w, s: w.__setitem__(s, 2), "seed lesions are of one patient; label lesions of at least two"),
        (lambda f, k, w, s: f.__setitem__((s[0], 1), np.nan), "1 of 240 lesions have features that are not finite"),
        (lambda f, k, w, s: f.__setitem__(s, 0.5), "seed lesions have the same features; check the network"),
    ],
)
def test_seeds_that_cannot_teach_are_refused_in_one_line(change, said):
    features, kinds, who, seeds, targets = clouds()
    change(features, kinds, who, seeds)
    with pytest.raises(TrainingError) as refused:
        pseudo_labels(features, kinds, who, seeds, targets, 0)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_seeds_are_refused_and_no_targets_are_fine():
    features, kinds, who, seeds, _ = clouds()
    nothing = np.array([], dtype=int)
    with pytest.raises(TrainingError, match="no seed lesion has a type"):
        pseudo_labels(features, kinds, who, nothing, seeds, 0)
    labels = pseudo_labels(features, kinds, who, seeds, nothing, 0)
    assert np.array_equal(np.flatnonzero(labels.types >= 0), seeds)
    with pytest.raises(UsageError, match="have the shapes"):
        pseudo_labels(features[:5], kinds, who, seeds, nothing, 0)
