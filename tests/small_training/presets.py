"""Settings of the small trainer, as every trainer has them."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from trainers.fitting import FitSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SmallSettings:
    steps: int = 12
    learning_rate: float = 0.02
    milestones: tuple[float, ...] = ()
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    checkpoint_every: int = 5

    def fit(self):
        return FitSettings(
            steps=self.steps,
            learning_rate=self.learning_rate,
            schedule="cosine",
            precision=self.precision,
            seed=self.seed,
            checkpoint_every=self.checkpoint_every,
            log_every=1,
        )

    def record(self):
        return asdict(self) | {"milestones": list(self.milestones)}


PRESETS = {"smoke": SmallSettings(), "small": SmallSettings(steps=22)}


def settings_for(preset, changes=None):
    return replace(PRESETS[preset], **{name: value for name, value in (changes or {}).items() if value is not None})
