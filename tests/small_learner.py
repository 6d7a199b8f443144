"""A learner small enough to train in a test, with a sampling state, dropout and every hook in use."""

import numpy as np
import torch
from torch import nn

from trainers.fitting import FitSettings, Learner, step_generator

# What one worker and two are compared with.
PAIR_SETTINGS = FitSettings(steps=12, learning_rate=0.05, log_every=1, checkpoint_every=5, weight_decay=1e-3)


class SmallLearner(Learner):
    """Regresses two numbers from images; hard items are drawn again, as the SSBR's volumes are."""

    def __init__(self, seed=0, items=24, batch=8, dropout=0.0, sampled=True):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 2))
        for parameter in self.net.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1
        self.images = torch.randn((items, 1, 8, 8), generator=generator)
        self.truths = torch.randn((items, 2), generator=generator)
        self.size = batch
        self.seed = seed
        self.sampled = sampled
        self.weights = np.ones(items)
        self.rows = {}

    def global_batch(self):
        return self.size

    def batch(self, step, share):
        chances = self.weights / self.weights.sum()
        rows = step_generator(self.seed, step).choice(len(chances), self.size, replace=False, p=chances)
        mine = torch.from_numpy(np.ascontiguousarray(share.of(rows)))
        return {"rows": mine, "images": self.images[mine], "truths": (self.truths[mine],)}

    def forward(self, batch):
        errors = self.net(batch["images"]).float() - batch["truths"][0]
        self.last = batch["rows"], errors.detach().abs().sum(1)
        return {"square": errors.square().mean(), "plain": errors.abs().mean() * 0.1}

    def after_step(self, step, share):
        if self.sampled:
            rows, errors = (share.gather(one).numpy() for one in self.last)
            self.weights[rows] = np.round(0.5 + errors.astype(np.float64), 3)

    def extra_state(self):
        return {"weights": self.weights.tolist()}

    def load_extra_state(self, state):
        self.weights = np.array(state["weights"])
