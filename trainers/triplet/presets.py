"""How the triplet network is trained: every setting, and the presets smoke, small and paper.

`paper` is what the Deep Lesion Graphs paper states: VGG-16 at 1 mm a pixel, 1,024 numbers, margins 0.1, 0.2 and 0.4, 24
sequences a step, SGD at 0.002 and a tenth of it from step 2,000, 3,000 steps, one refinement of the labels. Two things
differ on purpose and are settings: positives come from other patients, and the thresholds widen with the data
(`sampling.py`). `small` is for a CPU: a narrow network at 2 mm a pixel, all comparisons within a group (`mining.py`)
and AdamW; `smoke` only shows that everything runs.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from lesionary.errors import UsageError
from lesionary.settings import require_ranges
from trainers.augment import Augmentation
from trainers.fit_settings import FitSettings, fit_settings_of
from trainers.preset_settings import preset_settings
from trainers.schedule import ScheduleName
from trainers.triplet.cues import ALL_CUES, SamplingSettings
from trainers.triplet.labels import LabelSettings
from trainers.triplet.model import NetSettings
from trainers.triplet.targets import check_margins

SEQUENCES, GROUPS = "sequences", "groups"


@dataclass(frozen=True, slots=True, kw_only=True)
class TripletSettings:
    """Everything that decides a training, apart from its data and the weights it starts from."""

    backbone: str = "narrow"
    dimension: int = 256
    """Length of the vector."""
    stage_dimension: int = 128
    grid: int = 5
    regions: str = "align"
    multi_scale: bool = True
    """Off: the deepest stage alone, one of the paper's ablations."""
    scale_mm: float = 2.0
    """Side of a pixel that the network sees."""

    cues: str = ALL_CUES
    location_low: float = 0.02
    location_high: float = 0.1
    size_low: float = 0.02
    size_high: float = 0.1
    other_patient: bool = True
    """Positives come from another patient."""
    adapt: bool = True
    """Widen the low thresholds until `anchor_share` of the lesions have a positive."""
    anchor_share: float = 0.8
    balance: str = "type"
    hard_candidates: int = 1

    margin_size: float = 0.1
    margin_location: float = 0.2
    margin_type: float = 0.4
    compare: str = GROUPS
    """`sequences`: with each sequence's anchor, as in the paper; `groups`: everything with everything in a group."""
    sequences: int = 16
    """Of a step, over all workers."""
    group: int = 8
    """Sequences that are compared with each other."""

    refinements: int = 1
    """Rounds of new labels out of the trained network's vectors, each followed by a training."""
    refine_steps: int | None = 150
    """Steps of such a training; as many as in the first unless given."""
    refine_from_start: bool = False
    """Whether such a training begins at the first weights again, or goes on."""
    label_place_weight: float = 1.0
    """What a lesion's place counts beside the network's features when types are learnt; 0 in the paper."""
    least_probability: float = 0.0
    """Labels that are less sure than this take no part."""

    shift_mm: float = 8.0
    zoom: float = 0.05
    gain: float = 0.03
    offset_hu: float = 15.0
    noise_hu: float = 15.0

    steps: int = 300
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 1e-3
    schedule: ScheduleName = "cosine"
    milestones: tuple[float, ...] = ()
    warmup_steps: int = 20
    clip_norm: float | None = 5.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0
    checkpoint_every: int = 50
    log_every: int = 20

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        # JSON has no tuples.
        object.__setattr__(self, "milestones", tuple(self.milestones))
        if self.compare not in {SEQUENCES, GROUPS}:
            raise UsageError(f"compare is {self.compare!r}", next_step=f"choose {SEQUENCES} or {GROUPS}")
        require_ranges(
            self,
            ("scale_mm", 1, 4), ("sequences", 1, 100_000), ("group", 1, 1_000), ("refinements", 0, 10),
            ("refine_steps", 1, 10**7), ("label_place_weight", 0, 100), ("least_probability", 0, 1),
        )  # fmt: skip
        if self.compare == GROUPS and self.sequences % self.group:
            raise UsageError(
                f"{self.sequences} sequences do not fall into groups of {self.group}",
                next_step="choose a multiple of the group",
            )
        check_margins(self.margins)
        self.net(), self.sampling(), self.augmentation(), self.fit(0)

    @property
    def margins(self) -> tuple[float, float, float]:
        """For size, location and type."""
        return self.margin_size, self.margin_location, self.margin_type

    def net(self) -> NetSettings:
        """The network's part."""
        return NetSettings(
            backbone=self.backbone,
            dimension=self.dimension,
            stage_dimension=self.stage_dimension,
            grid=self.grid,
            regions=self.regions,
            **({} if self.multi_scale else {"stages": (5,)}),
        )

    def sampling(self) -> SamplingSettings:
        """The sampler's part."""
        names = {field.name for field in dataclasses.fields(SamplingSettings)} - {"size_unit_mm"}
        return SamplingSettings(**{name: getattr(self, name) for name in names})

    def labels(self) -> LabelSettings:
        """The pseudo-labels' part."""
        return LabelSettings()

    def augmentation(self) -> Augmentation:
        """What patches may differ by."""
        return Augmentation(self.shift_mm, self.zoom, self.gain, self.offset_hu, self.noise_hu)

    def steps_of(self, round_number: int) -> int:
        """Steps of a round: 0 is the first training, 1 follows the first refinement."""
        return self.steps if round_number == 0 or self.refine_steps is None else self.refine_steps

    def fit(self, round_number: int) -> FitSettings:
        """The loop's part in a round."""
        # Another round, other draws.
        return fit_settings_of(self, steps=self.steps_of(round_number), seed=self.seed + 1_000_003 * round_number)

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self) | {"milestones": list(self.milestones)}


PRESETS: Mapping[str, TripletSettings] = MappingProxyType(
    {
        "smoke": TripletSettings(
            dimension=32, stage_dimension=32, sequences=4, group=4, steps=30, refine_steps=10, checkpoint_every=10,
            log_every=5,
        ),
        "small": TripletSettings(),
        "paper": TripletSettings(
            backbone="vgg16", dimension=1024, stage_dimension=256, scale_mm=1.0, compare=SEQUENCES, sequences=24,
            group=24, refine_steps=None, label_place_weight=0.0, refine_from_start=True, shift_mm=0.0, zoom=0.0,
            gain=0.0, offset_hu=0.0, noise_hu=0.0, steps=3_000, optimizer="sgd", learning_rate=2e-3, weight_decay=5e-4,
            schedule="step", milestones=(2 / 3,), warmup_steps=0, clip_norm=None, precision="bf16",
            checkpoint_every=250, log_every=25,
        ),
    }
)  # fmt: skip
DEFAULT_PRESET = "small"


def settings_for(preset: str, changes: Mapping[str, Any] | None = None) -> TripletSettings:
    """A preset, with some settings changed; None among the changes leaves the preset's value.

    Raises:
        UsageError: there is no such preset or setting, or a value is out of its range.
    """
    return preset_settings(PRESETS, preset, changes, "the triplet network")
