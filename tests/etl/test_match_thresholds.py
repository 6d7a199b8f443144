"""Thresholds out of a set's own distances: against a plain reading of the rule, and on marks whose truth is known."""

import numpy as np
import pytest

from etl.match_thresholds import FALSE_EDGES, FALSE_MERGES, MarksOf, match_thresholds


def drawn(rng, patients=60, studies=3, lesions=4, noise=0.02, dimension=8):
    """Lesions that keep their place from study to study, up to noise; each study is one series."""
    rows, vectors = [], []
    for patient in range(patients):
        centers = rng.normal(size=(lesions, dimension))
        for study in range(studies):
            for center in centers:
                rows.append((patient, patient * 10 + study, patient * 10 + study))
                vectors.append(center + noise * rng.normal(size=dimension))
    codes = np.array(rows, np.int64)
    order = rng.permutation(len(codes))
    return MarksOf(*codes[order].T, np.array(vectors, np.float32)[order])


def plain(marks):
    """The rule, mark by mark."""
    apart, across = [], []
    for row in range(len(marks.patients)):
        near = np.linalg.norm(marks.vectors.astype(float) - marks.vectors[row], axis=1)
        own = (marks.series == marks.series[row]) & (np.arange(len(near)) != row)
        if own.any():
            apart.append(near[own].min())
        mine = marks.patients == marks.patients[row]
        for study in np.unique(marks.studies[mine]):
            if study != marks.studies[row]:
                across.append(near[mine & (marks.studies == study)].min())
    widest = np.quantile(apart, FALSE_EDGES)
    best, t2 = -np.inf, 0.0
    for candidate in sorted({*(one for one in across if one <= widest), widest}):
        gain = np.mean(np.array(across) <= candidate + 1e-9) - np.mean(np.array(apart) <= candidate + 1e-9)
        if gain > best + 1e-12:
            best, t2 = gain, candidate
    return min(np.quantile(apart, FALSE_MERGES), t2), t2


@pytest.mark.parametrize("noise", [0.02, 0.3, 1.0])
def test_thresholds_are_those_of_the_rule(noise):
    marks = drawn(np.random.default_rng(3), patients=15, noise=noise)

    assert match_thresholds(marks) == pytest.approx(plain(marks), rel=1e-5, abs=1e-6)


def test_what_keeps_its_place_lies_within_t2_and_what_is_another_lesion_beyond():
    marks = drawn(np.random.default_rng(0))
    t1, t2 = match_thresholds(marks)

    assert 0.05 < t2 < 1.0
    assert t1 <= t2


def test_vectors_that_say_nothing_get_thresholds_that_let_little_through():
    rng = np.random.default_rng(1)
    marks = drawn(rng)
    noise = MarksOf(
        marks.patients, marks.studies, marks.series, rng.normal(size=marks.vectors.shape).astype(np.float32)
    )
    _, t2 = match_thresholds(noise)
    near = [
        np.linalg.norm(noise.vectors[noise.series == one][0] - noise.vectors[noise.series == one][1:], axis=1).min()
        for one in np.unique(noise.series)
    ]

    assert np.mean(np.array(near) <= t2) <= FALSE_EDGES + 0.05


def test_other_patients_stand_in_where_series_hold_one_mark():
    marks = drawn(np.random.default_rng(2), patients=80, studies=2, lesions=1)
    t1, t2 = match_thresholds(marks)

    assert 0 < t1 <= t2 < 2


def test_too_few_marks_have_no_thresholds():
    assert match_thresholds(drawn(np.random.default_rng(0), patients=3, studies=1)) is None
    empty = np.empty(0, np.int64)
    assert match_thresholds(MarksOf(empty, empty, empty, np.empty((0, 4), np.float32))) is None
    one = drawn(np.random.default_rng(0), patients=1, studies=1, lesions=1)
    assert match_thresholds(one) is None


def test_marks_of_one_study_alone_are_enough():
    marks = drawn(np.random.default_rng(0), patients=30, studies=1)
    t1, t2 = match_thresholds(marks)

    assert 0 < t1 <= t2
