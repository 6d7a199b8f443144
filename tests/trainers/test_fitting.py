"""The training loop: exact, resumable, the same for any number of workers, and it stops when numbers run out."""

import torch
from small_learner import SmallLearner

from trainers.fitting import Alone, FitSettings, fit


def weights_of(learner):
    return torch.cat([one.detach().flatten() for one in learner.parameters()])


def settings(**changes):
    return FitSettings(**({"steps": 12, "learning_rate": 0.05, "log_every": 3} | changes))


def test_training_lowers_the_loss():
    result = fit(SmallLearner(), settings(steps=40), Alone(device="cpu"))

    sums = [sum(parts.values()) for _, parts in result.curve]
    assert sums[-1] < sums[0]
    assert [step for step, _ in result.curve] == [*range(3, 40, 3), 40]
