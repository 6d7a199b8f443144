"""How body-part regression is trained: every setting, and the presets smoke, small and paper.

`paper` is what the authors state: VGG-16 on 128 × 128 px, 32 volumes of 8 slices a step, SGD at 0.002, 1,500 steps.
`small` is for a CPU: a narrow network and AdamW; `smoke` only shows that everything runs.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from lesionary.settings import require_ranges
from trainers.fit_settings import FitSettings, fit_settings_of
from trainers.preset_settings import preset_settings
from trainers.schedule import ScheduleName
from trainers.ssbr.model import NetSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class SsbrSettings:
    """Everything that decides a training, apart from its data."""

    network: str = "conv"
    """One of `trainers.ssbr.model.NETWORKS`."""
    input_px: int = 96
    """Rows and columns that the network sees."""
    window_low_hu: float = -1024.0
    window_high_hu: float = 1050.0
    score_scale: float = 10.0
    """What the last layer's output is multiplied with, so that scores can spread before its weights have grown."""

    volumes_per_step: int = 16
    """Over all workers."""
    slices_per_volume: int = 8
    """Equidistant slices of each."""
    least_interval: float = 0.5
    """Their interval is drawn from this part of the longest that fits up to the longest: neighbours far enough apart
    differ by more than noise, which is what an order can be learnt from."""
    distance_weight: float = 0.1
    """Of the distance loss, beside 1 of the order loss. While scores are still noisy, the distance loss keeps them
    close together, and close together they learn little of the order: at 1 learning is slow."""
    hard_share: float = 0.5
    """How much more often volumes are drawn whose scores are badly in order: 0 = all alike, 1 = by that alone."""
    max_volumes: int = 0
    """Train on so many volumes only; 0 = on all of the training split."""

    zoom: float = 0.12
    """Random crops: each slice is scaled by up to exp(± this) …"""
    stretch: float = 0.04
    """… more along one axis than the other by up to exp(± twice this) …"""
    turn: float = 0.035
    """… turned by a normal angle of this standard deviation, radian …"""
    shift: float = 0.08
    """… and moved by up to this part of half its width, along both axes."""
    gain: float = 0.08
    """Contrast of each slice, up to ± this."""
    offset: float = 0.04
    """Brightness of each slice, up to ± this part of half the window."""

    steps: int = 3000
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: ScheduleName = "cosine"
    milestones: tuple[float, ...] = ()
    warmup_steps: int = 100
    clip_norm: float = 20.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 250
    log_every: int = 25

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        # JSON has no tuples.
        object.__setattr__(self, "milestones", tuple(self.milestones))
        require_ranges(
            self,
            ("volumes_per_step", 1, 100_000), ("slices_per_volume", 3, 1_000), ("distance_weight", 0, 1e6),
            ("hard_share", 0, 1), ("least_interval", 0, 1),
            ("max_volumes", 0, 10**9), ("zoom", 0, 2), ("stretch", 0, 1), ("turn", 0, 2), ("shift", 0, 1),
            ("gain", 0, 1), ("offset", 0, 1),
        )  # fmt: skip
        self.net()
        self.fit()

    def net(self) -> NetSettings:
        """The network's part."""
        return NetSettings(**{field.name: getattr(self, field.name) for field in dataclasses.fields(NetSettings)})

    def fit(self) -> FitSettings:
        """The loop's part."""
        return fit_settings_of(self)

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self) | {"milestones": list(self.milestones)}


PRESETS: Mapping[str, SsbrSettings] = MappingProxyType(
    {
        "smoke": SsbrSettings(input_px=64, steps=50, learning_rate=3e-3, checkpoint_every=25, log_every=10),
        "small": SsbrSettings(),
        "paper": SsbrSettings(
            network="vgg16",
            input_px=128,
            score_scale=1.0,
            least_interval=0.0,
            distance_weight=1.0,
            volumes_per_step=32,
            steps=1500,
            optimizer="sgd",
            weight_decay=5e-4,
            schedule="constant",
            precision="bf16",
        ),
    }
)
DEFAULT_PRESET = "small"


def settings_for(preset: str, changes: Mapping[str, Any] | None = None) -> SsbrSettings:
    """A preset, with some settings changed; None among the changes leaves the preset's value.

    Raises:
        UsageError: there is no such preset or setting, or a value is out of its range.
    """
    return preset_settings(PRESETS, preset, changes, "body-part regression")
