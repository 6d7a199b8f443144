"""How a learner is fitted: every setting of the loop, checked when it is made."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from lesionary.errors import UsageError
from trainers.schedule import SCHEDULES, ScheduleName

# These may change between a stop and the going on: they do not change what is computed, rounding aside.
FREE_SETTINGS = frozenset({"channels_last", "checkpoint_every", "compile", "log_every"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How a learner is fitted."""

    steps: int
    learning_rate: float
    """Of the global batch, at full height."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = 0.9
    """Of "sgd"."""
    weight_decay: float = 0.0
    schedule: ScheduleName = "constant"
    milestones: tuple[float, ...] = ()
    """Fractions of the steps at which the "step" schedule decays."""
    decay: float = 0.1
    warmup_steps: int = 0
    clip_norm: float | None = None
    """Largest norm of the whole gradient; None = as it comes."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: mixed precision; weights, gradients and the sum of the loss parts stay fp32."""
    channels_last: bool = False
    compile: bool = False
    """Compile the learner's networks: minutes at the start, for long runs only."""
    deterministic: bool = True
    """Deterministic operations where they exist."""
    seed: int = 0
    checkpoint_every: int = 0
    """Steps between checkpoints, one more after the last step; 0 = none at all."""
    log_every: int = 10

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for name, low in (("steps", 1), ("log_every", 1), ("checkpoint_every", 0), ("warmup_steps", 0), ("seed", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"{name} must be at least {low}, found {getattr(self, name)}")
        for name, options in (
            ("optimizer", ("sgd", "adamw")),
            ("schedule", SCHEDULES),
            ("precision", ("fp32", "bf16")),
        ):
            if getattr(self, name) not in options:
                raise UsageError(f"{name} must be one of {', '.join(options)}, found {getattr(self, name)!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"learning_rate must be positive, found {self.learning_rate}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise UsageError(f"clip_norm must be positive, found {self.clip_norm}")


def fit_settings_of(settings: object, **changes: Any) -> FitSettings:
    """The loop's part of a trainer's settings: those of the same names, images channel by channel last.

    The rate warms up over a tenth of the steps at most, so that a short training is one as well.

    Args:
        settings: of a trainer.
        changes: values that differ from the trainer's own.

    Raises:
        UsageError: a value is out of its range.
    """
    own = {one.name: getattr(settings, one.name) for one in fields(FitSettings) if hasattr(settings, one.name)}
    values = own | {"channels_last": True} | changes
    return FitSettings(**values | {"warmup_steps": min(values["warmup_steps"], values["steps"] // 10)})
