"""How the start by position is trained: every setting, and the presets smoke, small and paper.

The Deep Lesion Graphs paper has no such start, it has ImageNet weights; `paper` is what stands in for them with its
network, at its resolution. `small` is for a CPU, `smoke` only shows that everything runs.

Wide crops matter most: at 96 mm the network had learnt half as much after the same time as at 124 mm, and its features
sorted types no better than random ones.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from lesionary.errors import UsageError
from lesionary.settings import require_ranges
from trainers.backbones import BACKBONES
from trainers.fit_settings import FitSettings, fit_settings_of
from trainers.preset_settings import preset_settings
from trainers.schedule import ScheduleName

# The smallest patch of the cache shows so much.
_SMALLEST_PATCH_MM = 128.0
# Four halvings leave a map of at least two pixels.
_SMALLEST_CROP_PX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionSettings:
    """Everything that decides a training, apart from its data."""

    backbone: str = "narrow"
    scale_mm: float = 2.0
    """Side of a pixel that the network sees."""
    crop_mm: float = 124.0
    """Side of a crop."""
    shift_mm: float = 40.0
    """How far a crop's middle may lie from its patch's, along each axis, as far as the patch reaches."""
    box_low_mm: float = 10.0
    """A box around the crop's middle, where the shallow stages look, has sides from here …"""
    box_high_mm: float = 60.0
    """… to here, with equal chances for equal ratios."""
    body_width_mm: float = 350.0
    """What a shift along x is counted against: a trunk's usual width."""
    body_depth_mm: float = 240.0
    """What a shift along y is counted against: a trunk's usual depth."""
    grid: int = 3
    """Cells along each side of what each stage sees."""
    hidden: int = 128
    """Width of the layer between the features and the three numbers."""
    tolerance: float = 0.05
    """Errors below this count by their square, larger ones by their size."""

    batch: int = 64
    """Crops of a step, over all workers."""
    steps: int = 1_200
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-2
    schedule: ScheduleName = "cosine"
    milestones: tuple[float, ...] = ()
    warmup_steps: int = 50
    clip_norm: float = 5.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 100
    log_every: int = 20

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        # JSON has no tuples.
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.backbone not in BACKBONES:
            raise UsageError(f"there is no backbone {self.backbone!r}", next_step=f"choose from {', '.join(BACKBONES)}")
        require_ranges(
            self,
            ("scale_mm", 1, 4), ("crop_mm", 32, _SMALLEST_PATCH_MM), ("shift_mm", 0, 200), ("box_low_mm", 2, 128),
            ("box_high_mm", 2, 128), ("body_width_mm", 50, 1_000), ("body_depth_mm", 50, 1_000), ("grid", 1, 16),
            ("hidden", 1, 8_192), ("tolerance", 1e-6, 1), ("batch", 1, 100_000),
        )  # fmt: skip
        if self.crop_px < _SMALLEST_CROP_PX:
            raise UsageError(
                f"a crop of {self.crop_mm:g} mm at {self.scale_mm:g} mm a pixel is too small for the network",
                next_step=f"make it at least {_SMALLEST_CROP_PX} px",
            )
        if not self.box_low_mm <= self.box_high_mm <= self.crop_mm:
            raise UsageError("box_low_mm, box_high_mm and crop_mm must not decrease in this order")
        self.fit()

    @property
    def crop_px(self) -> int:
        """Rows and columns of a crop; even, as the sides of scaled patches are."""
        return int(self.crop_mm / self.scale_mm) // 2 * 2

    def fit(self) -> FitSettings:
        """The loop's part."""
        return fit_settings_of(self)

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self) | {"milestones": list(self.milestones)}


PRESETS: Mapping[str, PositionSettings] = MappingProxyType(
    {
        "smoke": PositionSettings(batch=16, steps=20, checkpoint_every=10, log_every=5),
        "small": PositionSettings(),
        "paper": PositionSettings(
            backbone="vgg16",
            scale_mm=1.0,
            batch=128,
            steps=5_000,
            learning_rate=2e-4,
            warmup_steps=250,
            precision="bf16",
            checkpoint_every=500,
            log_every=50,
        ),
    }
)
DEFAULT_PRESET = "small"


def settings_for(preset: str, changes: Mapping[str, Any] | None = None) -> PositionSettings:
    """A preset, with some settings changed; None among the changes leaves the preset's value.

    Raises:
        UsageError: there is no such preset or setting, or a value is out of its range.
    """
    return preset_settings(PRESETS, preset, changes, "the start by position")
