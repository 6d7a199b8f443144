"""Comparisons within groups: levels and losses against plain loops over every pair and every triplet."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from triplet_oracle import apart, small_set

from trainers.triplet.cues import ROLES, SamplingSettings
from trainers.triplet.mining import UNDECIDED, KnownLesions, level_terms, mined_loss, pair_levels
from trainers.triplet.thresholds import Thresholds

USED = Thresholds(0.1, 0.2, 0.05, 0.12)


def slow_level(one, other, known, cues, used):
    """What a reader of the rules would say of two lesions."""
    if one == other:
        return UNDECIDED
    place, size = apart(known.locations[one], known.locations[other]), apart(known.sizes[one], known.sizes[other])
    near, far = place < used.location_low**2, place > used.location_high**2
    if "type" not in cues:
        return 1 if near else 0 if far else UNDECIDED
    kinds = known.types[one], known.types[other]
    if min(kinds) < 0:
        return UNDECIDED
    if kinds[0] != kinds[1]:
        return 0
    if "location" not in cues:
        return 1
    if far or not near:
        return 1 if far else UNDECIDED
    if "size" not in cues:
        return 2
    return 3 if size < used.size_low**2 else 2 if size > used.size_high**2 else UNDECIDED


def known_lesions(seed=0):
    types, locations, sizes_mm, patients = small_set(seed, count=24)
    types[3], locations[5, 2], sizes_mm[7, 0] = -1, np.nan, np.nan
    return KnownLesions(types, locations, sizes_mm / 100, patients)


@pytest.mark.parametrize("cues", ROLES)
def test_levels_are_those_of_a_plain_reading(cues):
    known, rows = known_lesions(), np.array([0, 3, 5, 7, 1, 2, 4, 6, 8, 9, 10, 11, 0])
    levels = pair_levels(known, rows, SamplingSettings(cues=cues), USED)
    expected = [[slow_level(one, other, known, cues.split("+"), USED) for other in rows] for one in rows]
    assert levels.tolist() == expected
    assert {0, 1} <= set(levels.ravel().tolist())


def slow_loss(vectors, levels, attract, terms, margins):
    """Every triplet of every group by hand."""
    sums = dict.fromkeys(terms, 0.0)
    for group in range(len(vectors)):
        for level, term in enumerate(terms, start=1):
            violations = []
            for a in range(len(vectors[group])):
                for p in range(len(vectors[group])):
                    for n in range(len(vectors[group])):
                        if levels[group][a][p] < level or not attract[group][a][p]:
                            continue
                        if not 0 <= levels[group][a][n] < level:
                            continue
                        near, far = (apart(vectors[group][a], vectors[group][x]) for x in (p, n))
                        violations.append(near - far + margins[term])
            violations = [value for value in violations if value > 0]
            sums[term] += sum(violations) / max(len(violations), 1) / len(vectors)
    return sums


def case(seed, groups=2, count=8, dimension=4):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(groups, count, dimension))
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    levels = rng.integers(-1, 4, (groups, count, count))
    levels[:, range(count), range(count)] = UNDECIDED
    attract = rng.random((groups, count, count)) < 0.8
    return vectors, levels, attract


MARGINS = {"size": 0.1, "location": 0.2, "type": 0.4}
TERMS = level_terms(SamplingSettings())


@pytest.mark.parametrize("seed", range(20))
def test_every_triplet_by_hand(seed):
    vectors, levels, attract = case(seed)
    parts = mined_loss(torch.from_numpy(vectors), torch.from_numpy(levels), torch.from_numpy(attract), TERMS, MARGINS)
    expected = slow_loss(vectors, levels, attract, TERMS, MARGINS)
    assert {name: float(part) for name, part in parts.items()} == pytest.approx(expected, rel=1e-9)
    assert all(expected.values())


def test_gradients_are_those_of_finite_differences():
    vectors, levels, attract = case(1, count=5)
    levels, attract = torch.from_numpy(levels), torch.from_numpy(attract)
    given = torch.from_numpy(vectors).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda values: sum(mined_loss(values, levels, attract, TERMS, MARGINS).values()), given, eps=1e-7, atol=1e-5
    )


def test_a_group_without_any_pair_costs_nothing_and_does_not_break_the_gradient():
    vectors, levels, attract = case(2)
    given = torch.from_numpy(vectors).requires_grad_()
    parts = mined_loss(
        given, torch.full_like(torch.from_numpy(levels), UNDECIDED), torch.from_numpy(attract), TERMS, MARGINS
    )
    sum(parts.values()).backward()
    assert {name: float(part.detach()) for name, part in parts.items()} == {"type": 0.0, "location": 0.0, "size": 0.0}
    assert torch.equal(given.grad, torch.zeros_like(given))


def test_identical_vectors_give_a_finite_gradient():
    _, levels, attract = case(3)
    given = torch.ones(2, 8, 4, requires_grad=True)
    parts = mined_loss(given, torch.from_numpy(levels), torch.from_numpy(attract), TERMS, MARGINS)
    sum(parts.values()).backward()
    assert torch.isfinite(given.grad).all()


def test_cues_name_their_terms():
    found = {cues: level_terms(replace(SamplingSettings(), cues=cues)) for cues in ROLES}
    assert found == {
        "type": ("type",),
        "location": ("location",),
        "type+location": ("type", "location"),
        "type+location+size": ("type", "location", "size"),
    }
