"""How categories are mined: every setting, and the presets smoke, small and paper.

`paper` is what arXiv 1710.01766 states: the lesion's padded box, VGG-16's fully connected layers, a fresh split of 75,
10 and 15 % each round. What it does not state (steps of a round, thresholds) is ours. `small` is for a CPU: a narrow
network that looks at the box and at a wide surrounding, and clusters the pooled stages, which is where a start by
position puts what it knows. `smoke` only shows that everything runs.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from lesionary.errors import UsageError
from lesionary.settings import require_ranges
from trainers.augment import Augmentation
from trainers.categoriser.clusters import AGREEMENT, CRITERIA, LIKELIHOOD
from trainers.categoriser.model import LAYERS, NECKS, REGIONS, WHOLE, NetSettings
from trainers.fit_settings import FitSettings, fit_settings_of
from trainers.preset_settings import preset_settings
from trainers.schedule import ScheduleName


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoriserSettings:
    """Everything that decides a training, apart from its data and the weights it starts from."""

    backbone: str = "narrow"
    neck: str = REGIONS
    """What FC6 sees: `whole` = the deepest stage's map of the crop, `regions` = box and crop in all stages."""
    grid: int = 3
    """Cells along each side of what FC6 sees of a stage."""
    width: int = 256
    """Of FC6 and FC7."""
    padding_mm: float = 16.0
    """Shown around the lesion's box on every side, at least; 20 px in the paper."""
    least_crop_mm: float = 116.0
    """A crop is a square of at least this side."""
    scale_mm: float = 2.0
    """Pixels that patches are read at, before crops are brought to `input_px`."""
    input_px: int = 58
    """Rows and columns of the crop that the network sees."""

    first_features: str = "pooled"
    """What the first round clusters: `pooled` (what FC6 sees), `fc6` or `fc7`."""
    features: str = "pooled"
    """What later rounds cluster."""
    components: int = 64
    """Principal components that are clustered; 0 = the features as they are."""
    whiten: bool = False
    """Whether every component counts the same."""
    cluster_place_weight: float = 1.0
    """What a lesion's place in the body counts beside its features when clustering; 0 in the paper."""
    k: int | None = None
    """Number of categories; chosen by the criterion unless given."""
    least_k: int = 4
    most_k: int = 256
    choose_rounds: int = 1
    """In so many first rounds k is chosen anew; later ones keep it."""
    warm_start: bool = True
    """Whether K-means begins at the categories of the round before, where there are as many; else anywhere."""
    criterion: str = LIKELIHOOD
    """Of the number of categories: `likelihood` finds fine ones, `agreement` coarse ones; see `clusters.py`."""
    halvings: int = 4
    """How often the patients are halved for the criterion."""
    restarts: int = 10
    """K-means keeps the best of so many starts."""

    max_rounds: int = 8
    stop_purity: float = 0.985
    """Rounds end once neighbouring ones agree by this purity …"""
    stop_nmi: float = 0.985
    """… and this mutual information; more than 1 = never."""
    train_share: float = 0.75
    val_share: float = 0.10
    place_weight: float = 20.0
    """What errors of the crops' places count beside those of their categories; 0 in the paper."""
    balanced: bool = True
    """Whether small categories are drawn as often as large ones."""

    shift_mm: float = 6.0
    zoom: float = 0.05
    gain: float = 0.03
    offset_hu: float = 15.0
    noise_hu: float = 15.0

    batch: int = 64
    """Crops of a step, over all workers."""
    steps: int = 200
    """Of a round."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-3
    schedule: ScheduleName = "cosine"
    milestones: tuple[float, ...] = ()
    warmup_steps: int = 20
    clip_norm: float = 5.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 50
    log_every: int = 25

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        # JSON has no tuples.
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for name, known in (("neck", NECKS), ("criterion", CRITERIA), ("first_features", LAYERS), ("features", LAYERS)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is {getattr(self, name)!r}", next_step=f"choose from {', '.join(known)}")
        require_ranges(
            self,
            ("grid", 1, 16), ("width", 1, 8_192), ("padding_mm", 0, 50), ("least_crop_mm", 8, 128), ("scale_mm", 1, 4),
            ("input_px", 32, 512), ("components", 0, 4_096), ("k", 2, 1_000), ("least_k", 2, 1_000),
            ("most_k", 2, 1_000), ("choose_rounds", 1, 100), ("halvings", 1, 100),
            ("restarts", 1, 1_000), ("max_rounds", 1, 100), ("stop_purity", 0, 2), ("stop_nmi", 0, 2),
            ("train_share", 0.01, 0.99), ("val_share", 0, 0.99), ("batch", 1, 100_000), ("shift_mm", 0, 50),
            ("place_weight", 0, 1_000), ("cluster_place_weight", 0, 100),
        )  # fmt: skip
        if self.least_k > self.most_k:
            raise UsageError("least_k is larger than most_k")
        if self.train_share + self.val_share >= 1:
            raise UsageError("train_share and val_share leave nobody to test on", next_step="lower one of them")
        self.net(), self.augmentation(), self.fit(0)

    def net(self) -> NetSettings:
        """The network's part."""
        return NetSettings(
            backbone=self.backbone, neck=self.neck, grid=self.grid, width=self.width, place=self.place_weight > 0
        )

    def augmentation(self) -> Augmentation:
        """What patches may differ by; crops are shifted on their own."""
        return Augmentation(0.0, self.zoom, self.gain, self.offset_hu, self.noise_hu)

    def fit(self, round_number: int) -> FitSettings:
        """The loop's part in a round."""
        # Another round, other draws.
        return fit_settings_of(self, seed=self.seed + 1_000_003 * round_number)

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self) | {"milestones": list(self.milestones)}


PRESETS: Mapping[str, CategoriserSettings] = MappingProxyType(
    {
        "smoke": CategoriserSettings(
            width=32, batch=16, steps=10, max_rounds=2, least_k=2, most_k=6, restarts=3, halvings=2,
            checkpoint_every=5, log_every=5,
        ),
        "small": CategoriserSettings(),
        "paper": CategoriserSettings(
            backbone="vgg16", neck=WHOLE, grid=7, width=4_096, least_crop_mm=32.0, scale_mm=1.0, input_px=224,
            first_features="fc7", features="fc7", cluster_place_weight=0.0, warm_start=False, choose_rounds=100,
            criterion=AGREEMENT, least_k=2, most_k=24, stop_purity=0.9, stop_nmi=0.9, place_weight=0.0, balanced=False,
            shift_mm=0.0, zoom=0.0, gain=0.0, offset_hu=0.0, noise_hu=0.0, steps=2_000, optimizer="sgd",
            learning_rate=1e-3, weight_decay=5e-4, schedule="step", milestones=(0.5, 0.8), warmup_steps=0,
            precision="bf16", checkpoint_every=500, log_every=50,
        ),
    }
)  # fmt: skip
DEFAULT_PRESET = "small"


def settings_for(preset: str, changes: Mapping[str, Any] | None = None) -> CategoriserSettings:
    """A preset, with some settings changed; None among the changes leaves the preset's value.

    Raises:
        UsageError: there is no such preset or setting, or a value is out of its range.
    """
    return preset_settings(PRESETS, preset, changes, "the categoriser")
