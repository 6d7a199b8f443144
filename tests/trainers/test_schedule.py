"""The learning rate against a slow oracle that walks from step to step."""

import math

import pytest

from trainers.schedule import rate_factor


def walked(steps, schedule, milestones, decay, warmup_steps):
    """The factor of every step, kept as a state and changed step by step."""
    factors, decayed = [], 1.0
    edges = sorted(round(milestone * steps) for milestone in milestones)
    for step in range(steps):
        while schedule == "step" and edges and edges[0] <= step:
            decayed *= decay
            edges.pop(0)
        factor = decayed
        if schedule == "cosine" and step > warmup_steps:
            factor = math.cos(math.pi / 2 * (step - warmup_steps) / (steps - warmup_steps)) ** 2
        if step < warmup_steps:
            factor *= (step + 1) / (warmup_steps + 1)
        factors.append(factor)
    return factors


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
@pytest.mark.parametrize(("steps", "warmup_steps"), [(1, 0), (7, 0), (7, 5), (60, 0), (60, 1), (60, 5)])
@pytest.mark.parametrize("milestones", [(), (2 / 3,), (0.9, 0.5)])
def test_the_factor_is_that_of_the_oracle(steps, schedule, warmup_steps, milestones):
    how = {"schedule": schedule, "milestones": milestones, "decay": 0.1, "warmup_steps": warmup_steps}

    found = [rate_factor(step, steps=steps, **how) for step in range(steps)]

    assert found == pytest.approx(walked(steps, **how), abs=1e-12)


def test_the_papers_schedule_falls_to_a_tenth_after_two_thirds():
    factors = [
        rate_factor(step, steps=3_000, schedule="step", milestones=(2 / 3,)) for step in (0, 1_999, 2_000, 2_999)
    ]

    assert factors == pytest.approx([1, 1, 0.1, 0.1])


def test_a_cosine_starts_at_the_full_rate_and_ends_near_nothing():
    factors = [rate_factor(step, steps=100, schedule="cosine", warmup_steps=10) for step in range(100)]

    assert factors[10] == 1
    assert max(factors) == 1
    assert 0 < factors[-1] < 0.001
    assert factors[:11] == sorted(factors[:11])
    assert factors[10:] == sorted(factors[10:], reverse=True)
