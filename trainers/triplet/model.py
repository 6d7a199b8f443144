"""The multi-scale network: a patch, its lesion's box and its extent to one unit vector.

Stages 2 to 4 of the backbone see the lesion's box, stage 5 the whole patch: detail from the shallow ones, context from
the deep one. Each is pooled to a grid, led through its own fully connected layer and brought to length one; the four,
joined, go through a last layer and are brought to length one again.

The backbone may run in bfloat16 (autocast) and in channels_last; what follows it is float32 always, because distances
of near neighbours are small differences of numbers near one.

May import: lesionary, torch, trainers.backbones, trainers.checkpoint, trainers.regions.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from lesionary.errors import UsageError
from trainers.backbones import BACKBONES, STAGES, make_backbone
from trainers.checkpoint import fill_module, weights_from_bytes
from trainers.regions import REGIONS, joined_features, stage_regions, unit


@dataclass(frozen=True, slots=True)
class NetSettings:
    """Everything that decides the network's shape; with the weights it rebuilds the network."""

    backbone: str = "vgg16"
    dimension: int = 1024
    """Length of the vector."""
    stage_dimension: int = 256
    """Length of each stage's part before the last layer."""
    grid: int = 5
    """Cells along each side of a pooled region."""
    regions: str = "align"
    """How a region is cut: align or pool."""
    stages: tuple[int, ...] = STAGES
    """Stages that are used; (5,) is the paper's network without the multi-scale part."""

    def __post_init__(self) -> None:
        """Refuse what could not be built.

        Raises:
            UsageError: a value is out of its range.
        """
        for name, high in (("dimension", 16_384), ("stage_dimension", 16_384), ("grid", 32)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= high:
                raise UsageError(f"{name} is {value!r}", next_step=f"give a whole number from 1 to {high}")
        if self.backbone not in BACKBONES:
            raise UsageError(f"there is no backbone {self.backbone!r}", next_step=f"choose from {', '.join(BACKBONES)}")
        if self.regions not in REGIONS:
            raise UsageError(f"regions are not cut by {self.regions!r}", next_step=f"choose from {', '.join(REGIONS)}")
        if not self.stages or list(self.stages) != sorted(set(self.stages) & set(STAGES)):
            raise UsageError(f"stages are {self.stages!r}", next_step="name some of 2, 3, 4, 5, in this order")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "NetSettings":
        """The settings of a model card or a preset.

        Raises:
            UsageError: a key is unknown, or a value is out of its range.
        """
        unknown = sorted(set(settings) - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"the network has no setting {unknown[0]!r}", next_step="take it out")
        values = dict(settings)
        if isinstance(values.get("stages"), list):
            values["stages"] = tuple(values["stages"])
        return cls(**values)

    def record(self) -> dict[str, Any]:
        """As JSON can hold them."""
        return {**asdict(self), "stages": list(self.stages)}


class MultiScaleNet(nn.Module):
    """Patches to unit vectors."""

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = make_backbone(settings.backbone)
        cells = settings.grid**2
        self.heads = nn.ModuleDict(
            {
                str(stage): nn.Linear(channels * cells, settings.stage_dimension)
                for stage, channels in zip(STAGES, self.backbone.channels, strict=True)
                if stage in settings.stages
            }
        )
        self.join = nn.Linear(settings.stage_dimension * len(settings.stages), settings.dimension)

    @property
    def feature_count(self) -> int:
        """Length of what `features` returns: 1,408 with VGG-16."""
        return sum(
            count for stage, count in zip(STAGES, self.backbone.channels, strict=True) if stage in self.settings.stages
        )

    def forward(self, images: Tensor, boxes: Tensor, extents: Tensor) -> Tensor:
        """The patches' vectors.

        Args:
            images: (n, 3, height, width), 0…255.
            boxes: (n, 4) as x0, y0, x1, y1 in pixels of the image, the lesion's.
            extents: (n, 4) likewise, of the lesion with its surroundings.

        Returns:
            (n, dimension) float32, each of length one.
        """
        regions = self._regions(images, boxes, extents, self.settings.grid)
        with torch.autocast(images.device.type, enabled=False):
            parts = [unit(self.heads[str(stage)](region.flatten(1))) for stage, region in regions.items()]
            return unit(self.join(torch.cat(parts, dim=1)))

    def features(self, images: Tensor, boxes: Tensor, extents: Tensor) -> Tensor:
        """What the backbone alone says: each stage pooled to one cell and brought to length one, joined.

        Returns:
            (n, feature_count) float32.
        """
        return joined_features(self._regions(images, boxes, extents, 1))

    def _regions(self, images: Tensor, boxes: Tensor, extents: Tensor, grid: int) -> dict[int, Tensor]:
        return stage_regions(
            self.backbone,
            images,
            boxes,
            extents,
            grid=grid,
            how=self.settings.regions,
            stages=self.settings.stages,
        )


def build_net(settings: Mapping[str, Any]) -> MultiScaleNet:
    """The network of these settings, with random weights from torch's own generator.

    Raises:
        UsageError: a setting is unknown or out of its range.
    """
    return MultiScaleNet(NetSettings.of(settings))


def rebuild_net(settings: Mapping[str, Any], weights: bytes, where: str = "weights.safetensors") -> MultiScaleNet:
    """The network of a model card and its weights, ready to be asked.

    Raises:
        ArtifactError: the weights are damaged, or another network's.
        UsageError: a setting is unknown or out of its range.
    """
    net = build_net(settings)
    fill_module(net, weights_from_bytes(weights, where), where)
    return net.eval()
