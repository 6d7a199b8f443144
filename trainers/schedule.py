"""How the learning rate moves: a pure function of the step, so that a resumed run goes on exactly where it stood.

    constant   1
    step       times `decay` at every milestone (the papers': a tenth at 2/3 of the steps)
    cosine     half a cosine from 1 at the end of the warm-up down to 0 after the last step

A warm-up rises linearly over the first steps and multiplies the others. The rate belongs to the global batch: it is not
scaled with the number of workers, because workers share one global batch.
"""

import math
from collections.abc import Sequence
from typing import Literal

ScheduleName = Literal["constant", "step", "cosine"]
SCHEDULES: tuple[ScheduleName, ...] = ("constant", "step", "cosine")


def rate_factor(
    step: int,
    *,
    steps: int,
    schedule: ScheduleName,
    milestones: Sequence[float] = (),
    decay: float = 0.1,
    warmup_steps: int = 0,
) -> float:
    """What the learning rate is multiplied with at a step.

    Args:
        step: 0 is the first.
        steps: of the whole run.
        schedule: one of `SCHEDULES`.
        milestones: fractions of `steps` at which "step" decays.
        decay: by what.
        warmup_steps: steps until the full rate is reached.
    """
    warmup = min(1.0, (step + 1) / (warmup_steps + 1))
    if schedule == "step":
        passed = sum(step >= round(milestone * steps) for milestone in milestones)
        return float(warmup * decay**passed)
    if schedule == "cosine":
        done = max(0, step - warmup_steps) / max(1, steps - warmup_steps)
        return warmup * 0.5 * (1.0 + math.cos(math.pi * min(1.0, done)))
    return warmup
