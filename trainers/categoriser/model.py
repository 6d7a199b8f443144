"""The network that sorts crops: a backbone, two fully connected layers as VGG-16 has them, and one number a category.

    whole     the deepest stage's map of the crop, pooled to a few cells: VGG-16's own way, so that ImageNet's FC6 and
              FC7 fit
    regions   every stage's view of box or crop, each of length one: what a start by position has been taught with

There is no dropout: what is drawn would depend on the number of workers.

May import: lesionary, torch, trainers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lesionary.errors import UsageError
from trainers.backbones import BACKBONES, make_backbone
from trainers.checkpoint import fill_module, weights_from_bytes
from trainers.position.model import COORDINATES
from trainers.regions import joined_features, stage_regions

WHOLE, REGIONS = "whole", "regions"
NECKS: tuple[str, ...] = (WHOLE, REGIONS)
POOLED, FC6, FC7 = "pooled", "fc6", "fc7"
LAYERS: tuple[str, ...] = (POOLED, FC6, FC7)
"""What can be clustered."""

# Entries of vectors of length one are small; FC6 expects numbers about one.
_FEATURE_SCALE = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSettings:
    """What shapes the network, apart from the number of categories."""

    backbone: str = "narrow"
    neck: str = REGIONS
    grid: int = 3
    width: int = 256
    place: bool = True
    """Whether FC6 also has to know where in the body a crop lies."""

    def __post_init__(self) -> None:
        """Refuse what could not be built.

        Raises:
            UsageError: there is no such backbone.
        """
        if self.backbone not in BACKBONES:
            raise UsageError(f"there is no backbone {self.backbone!r}", next_step=f"choose from {', '.join(BACKBONES)}")

    def record(self) -> dict[str, Any]:
        """As JSON can say it."""
        return asdict(self)


class CategoryNet(nn.Module):
    """Crops to categories."""

    def __init__(self, settings: NetSettings, categories: int = 1) -> None:
        super().__init__()
        self.settings = settings
        self.backbone = make_backbone(settings.backbone)
        channels = self.backbone.channels[-1:] if settings.neck == WHOLE else self.backbone.channels
        self.fc6 = nn.Linear(sum(channels) * settings.grid**2, settings.width)
        self.fc7 = nn.Linear(settings.width, settings.width)
        self.head = nn.Linear(settings.width, categories)
        self.place = nn.Linear(settings.width, len(COORDINATES)) if settings.place else None

    @property
    def outside_layers(self) -> Mapping[str, nn.Linear]:
        """Layers that torchvision's VGG-16 has too, by its names; weights of other shapes are left alone."""
        return {"classifier.0": self.fc6, "classifier.3": self.fc7}

    def set_categories(self, count: int, seed: int) -> None:
        """A new last layer for so many categories; everything before it stays."""
        device = self.head.weight.device
        # Nobody else's random numbers are disturbed.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = nn.Linear(self.settings.width, count)
        self.head.to(device)

    def forward(self, images: Tensor, boxes: Tensor) -> Tensor:
        """How likely each category is.

        Args:
            images: (n, 3, side, side) crops, 0…255.
            boxes: (n, 4) as x0, y0, x1, y1 in pixels of the crops, edges; the lesions'.

        Returns:
            (n, categories) float32, before softmax.
        """
        return self.layers(images, boxes)[1]

    def layers(self, images: Tensor, boxes: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Everything of `LAYERS`, and the scores that `forward` gives."""
        pooled = self._pooled(images, boxes)
        with torch.autocast(images.device.type, enabled=False):
            fc6 = functional.relu(self.fc6(pooled))
            fc7 = functional.relu(self.fc7(fc6))
            scores: Tensor = self.head(fc7)
        return {POOLED: pooled, FC6: fc6, FC7: fc7}, scores

    def places(self, fc6: Tensor) -> Tensor:
        """Where the crops' middles lie, by what FC6 gives: (n, 3) x, y, z."""
        if self.place is None:
            raise ValueError("this network was not built to know places")
        with torch.autocast(fc6.device.type, enabled=False):
            # Half: the middle of the body, so that training begins from there.
            found: Tensor = 0.5 + self.place(fc6)
        return found

    def _pooled(self, images: Tensor, boxes: Tensor) -> Tensor:
        if self.settings.neck == WHOLE:
            deepest = self.backbone(images)[-1].float()
            return functional.adaptive_max_pool2d(deepest, self.settings.grid).flatten(1)
        height, width = images.shape[-2:]
        crops = boxes.new_tensor([0, 0, width, height]).expand(len(boxes), 4)
        return _FEATURE_SCALE * joined_features(
            stage_regions(self.backbone, images, boxes, crops, grid=self.settings.grid)
        )


def rebuilt_net(settings: NetSettings, weights: bytes, where: str) -> CategoryNet:
    """A network out of its weights, which say how many categories there are.

    Raises:
        ArtifactError: they are damaged, or another network's.
    """
    tensors = weights_from_bytes(weights, where)
    bias = tensors.get("head.bias")
    net = CategoryNet(settings, 1 if bias is None or bias.ndim != 1 else max(1, len(bias)))
    fill_module(net, tensors, where)
    return net
