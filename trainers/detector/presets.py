"""How a detector is trained: every setting, and the presets smoke, small, small-paper, paper and modern.

Two architectures. `paper` is the DeepLesion paper's Faster R-CNN: one map of VGG-16 without its last pooling, three
anchors of three ratios, region pooling, boxes by smooth L1. `modern` has a feature pyramid, anchors taken from the
data, several slices whose features are fused, boxes by generalised IoU, and learns beside the boxes a map of the
lesions' pixels out of the diameters.

`small` is `modern` for a CPU, `small-paper` the paper's architecture at that size and with as many images: they are
there to be compared.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from lesionary.errors import UsageError
from lesionary.patch_schema import WINDOW_HU
from lesionary.settings import require_ranges
from lesionary.stack_schema import StackSettings
from trainers.backbones import BACKBONES
from trainers.fit_settings import FitSettings, fit_settings_of
from trainers.preset_settings import preset_settings
from trainers.schedule import ScheduleName

# Slices go through the network three at a time, and the key slice is in the middle.
CONTEXTS: tuple[int, ...] = (1, 3, 9, 15, 21, 27)

_LISTS = ("windows_hu", "anchors_px", "anchor_ratios", "milestones")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """Everything that decides a training, apart from its data."""

    architecture: Literal["paper", "modern"] = "modern"
    backbone: str = "narrow"
    categories: str = "none"
    """What boxes are sorted into: none (one class), types (where a source says them), or what a model of the lake says:
    a categoriser's categories, a triplet model's types."""

    pixel_mm: float = 0.8
    slices: int = 3
    step_mm: float = 2.0
    max_side_px: int = 512
    empty_share: float = 0.25
    """Stacks without a lesion, for each one with."""
    windows_hu: tuple[float, ...] = WINDOW_HU
    """HU that become black and white; each further pair is another look at the same slices."""
    box_padding_px: float = 5.0
    """Pixels of a slice around the box of the diameters' ends: 5 in the release, 20 in the paper of 2017."""

    anchors_px: tuple[float, ...] = ()
    """Sides of anchors in pixels of the stack; by the training boxes unless given."""
    anchor_ratios: tuple[float, ...] = ()
    """Height over width; by the training boxes unless given."""
    pyramid_channels: int = 64
    region_grid: int = 7
    samples_per_cell: int = 1
    """Along each side, of a region's cells; of `modern`."""
    head_width: int = 128
    proposal_sample: int = 128
    """Anchors of an image that the proposals learn from."""
    region_sample: int = 48
    """Proposals of an image that the head learns from."""
    proposals: int = 128
    """Proposals of an image that go to the head, in use."""
    map_weight: float = 1.0
    """Of the loss of the lesions' map; 0 = no map. Of `modern`."""
    box_weight: float = 1.0

    crop_px: int = 0
    """Training looks at squares of this side instead of whole stacks; 0 = whole."""
    lesion_crops: float = 0.8
    """How many of the crops hold a lesion, where the stack does."""
    flip: bool = True
    scale_change: float = 0.15
    """Stacks are drawn larger or smaller by up to this share."""
    grey_change: float = 0.1
    """HU are stretched by up to this share."""

    batch: int = 8
    steps: int = 6_000
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-2
    schedule: ScheduleName = "cosine"
    milestones: tuple[float, ...] = ()
    warmup_steps: int = 100
    clip_norm: float = 10.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 250
    log_every: int = 25

    min_score: float = 0.02
    """Boxes below are not reported."""
    max_boxes: int = 50
    """Of a stack."""
    overlap: float = 0.3
    """Of two boxes that overlap further (IoU), the surer one is reported."""

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        # JSON has no tuples.
        for name in _LISTS:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.architecture not in {"paper", "modern"}:
            raise UsageError(f"there is no architecture {self.architecture!r}", next_step="choose paper or modern")
        if self.backbone not in BACKBONES:
            raise UsageError(f"there is no backbone {self.backbone!r}", next_step=f"choose from {', '.join(BACKBONES)}")
        if self.architecture == "paper" and self.backbone == "convnext_tiny":
            raise UsageError("convnext_tiny has no pooling to leave out", next_step="take it with architecture=modern")
        if self.slices not in CONTEXTS:
            raise UsageError(f"slices must be one of {', '.join(map(str, CONTEXTS))}, found {self.slices}")
        if not self.windows_hu or len(self.windows_hu) % 2 or any(low >= high for low, high in self.windows):
            raise UsageError(
                "each window needs a lower and a higher HU", where="windows_hu", next_step="for example -1024,3071"
            )
        if any(not one > 0 for one in (*self.anchors_px, *self.anchor_ratios)):
            raise UsageError("sides and ratios of anchors must be positive", where="anchors_px, anchor_ratios")
        require_ranges(
            self,
            ("box_padding_px", 0, 100), ("pyramid_channels", 8, 2_048), ("region_grid", 1, 16),
            ("samples_per_cell", 1, 4), ("head_width", 8, 8_192),
            ("proposal_sample", 2, 10_000), ("region_sample", 2, 10_000),
            ("proposals", 1, 10_000), ("map_weight", 0, 100), ("box_weight", 0, 100), ("lesion_crops", 0, 1),
            ("scale_change", 0, 0.5), ("grey_change", 0, 0.5), ("batch", 1, 10_000), ("min_score", 0, 1),
            ("max_boxes", 1, 1_000), ("overlap", 0, 1),
        )  # fmt: skip
        if self.crop_px and not 64 <= self.crop_px <= self.max_side_px:
            raise UsageError(f"crop_px must be 0 or lie between 64 and {self.max_side_px}, found {self.crop_px}")
        self.stack()
        self.fit()

    @property
    def windows(self) -> tuple[tuple[float, float], ...]:
        """Pairs of a lower and a higher HU."""
        return tuple(zip(self.windows_hu[::2], self.windows_hu[1::2], strict=True))

    def stack(self) -> StackSettings:
        """How slices become stacks."""
        return StackSettings(self.pixel_mm, self.slices, self.step_mm, self.max_side_px)

    def fit(self) -> FitSettings:
        """The loop's part."""
        return fit_settings_of(self)

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self) | {name: list(getattr(self, name)) for name in _LISTS}


_PAPER_RATIOS = (0.5, 1.0, 2.0)

PRESETS: Mapping[str, DetectorSettings] = MappingProxyType(
    {
        "smoke": DetectorSettings(
            pixel_mm=2.4,
            max_side_px=192,
            batch=4,
            steps=60,
            checkpoint_every=20,
            log_every=5,
            proposals=32,
            min_score=0.001,
        ),
        "small": DetectorSettings(pixel_mm=1.6, max_side_px=320, crop_px=160),
        "small-paper": DetectorSettings(
            architecture="paper",
            pixel_mm=1.6,
            max_side_px=320,
            crop_px=160,
            # To boxes of this padding as the paper's 48, 72 and 96 px are to its own.
            anchors_px=(16.0, 24.0, 32.0),
            anchor_ratios=_PAPER_RATIOS,
            map_weight=0.0,
        ),
        "paper": DetectorSettings(
            architecture="paper",
            backbone="vgg16",
            box_padding_px=20.0,
            anchors_px=(48.0, 72.0, 96.0),
            anchor_ratios=_PAPER_RATIOS,
            head_width=4_096,
            proposal_sample=256,
            region_sample=32,
            proposals=300,
            map_weight=0.0,
            empty_share=0.0,
            scale_change=0.0,
            grey_change=0.0,
            batch=4,
            steps=60_000,
            optimizer="sgd",
            learning_rate=1e-3,
            weight_decay=5e-4,
            schedule="step",
            milestones=(1 / 3, 2 / 3),
            warmup_steps=500,
            precision="bf16",
            checkpoint_every=1_000,
            log_every=100,
        ),
        "modern": DetectorSettings(
            backbone="convnext_tiny",
            slices=9,
            pyramid_channels=256,
            samples_per_cell=2,
            head_width=1_024,
            proposal_sample=256,
            region_sample=128,
            proposals=300,
            batch=8,
            steps=40_000,
            learning_rate=2e-4,
            weight_decay=5e-2,
            warmup_steps=1_000,
            precision="bf16",
            checkpoint_every=1_000,
            log_every=100,
        ),
    }
)
DEFAULT_PRESET = "small"


def settings_for(preset: str, changes: Mapping[str, Any] | None = None) -> DetectorSettings:
    """A preset, with some settings changed; None among the changes leaves the preset's value.

    Raises:
        UsageError: there is no such preset or setting, or a value is out of its range.
    """
    return preset_settings(PRESETS, preset, changes, "the detector")
