"""The losses of body-part regression: against plain loops, and their gradients against finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch

from trainers.ssbr.targets import distance_loss, order_loss, slice_correlations


def scores(volumes=5, slices=8, spread=2.0):
    generator = torch.Generator().manual_seed(3)
    return spread * torch.randn((volumes, slices), generator=generator, dtype=torch.float64)


def test_order_loss_is_the_plain_sum():
    given = scores()
    total = 0.0
    for volume in given.tolist():
        for above, below in itertools.pairwise(volume):
            total += -math.log(1 / (1 + math.exp(-(below - above))))

    assert order_loss(given).item() == pytest.approx(total / 5, rel=1e-12)


def test_distance_loss_is_the_plain_sum():
    given = scores()
    total = 0.0
    for volume in given.tolist():
        steps = [below - above for above, below in itertools.pairwise(volume)]
        for first, second in itertools.pairwise(steps):
            difference = abs(second - first)
            total += difference**2 / 2 if difference < 1 else difference - 0.5

    assert distance_loss(given).item() == pytest.approx(total / 5, rel=1e-12)


def test_correlations_are_numpys():
    given = scores()

    expected = [np.corrcoef(volume, np.arange(8))[0, 1] for volume in given.numpy()]
    assert slice_correlations(given).numpy() == pytest.approx(expected, rel=1e-10)
    assert slice_correlations(torch.ones(1, 8)).tolist() == [0.0]


@pytest.mark.parametrize("loss", [order_loss, distance_loss])
def test_gradients_are_those_of_finite_differences(loss):
    given = scores(3, 6).requires_grad_()

    assert torch.autograd.gradcheck(loss, (given,), eps=1e-6, atol=1e-7)


def test_equal_steps_upwards_cost_least():
    even = torch.arange(8.0)[None]

    assert distance_loss(even).item() == 0
    assert order_loss(even) < order_loss(torch.zeros(1, 8)) < order_loss(-even)


def test_far_apart_scores_stay_finite():
    given = torch.tensor([[1e6, -1e6, 1e6]], requires_grad=True)

    (order_loss(given) + distance_loss(given)).backward()

    assert bool(torch.isfinite(given.grad).all())
