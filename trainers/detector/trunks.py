"""What a detector sees with: from stacks to feature maps, the paper's way and the modern one.

Slices go through the backbone three at a time, as the three colours it was made for. What groups of slices (and
further windows) show is fused map by map: the key slice's own features, and a layer that sees all of them.

May import: lesionary, torch, torchvision, trainers.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from lesionary.errors import UsageError
from trainers.backbones import Backbone, make_backbone

_GREY_LEVELS = 255.0
_COLOURS = 3
# Finer maps cost more than they show.
_FINEST_STRIDE = 4


class Views(nn.Module):
    """Stacks of HU as images that a backbone takes."""

    def __init__(self, windows: Sequence[tuple[float, float]], slices: int) -> None:
        super().__init__()
        self._windows = tuple(windows)
        self._groups = max(1, slices // _COLOURS)
        self.count = len(self._windows) * self._groups
        """Images of one stack."""
        self.key = self._groups // 2
        """Number of the one that shows the key slice, through the first window."""

    def forward(self, stacks: Tensor) -> Tensor:
        """Images (n × count, 3, height, width) in 0…255 of stacks (n, slices, height, width) of HU."""
        values = stacks.float()
        if values.shape[1] == 1:
            values = values.expand(-1, _COLOURS, -1, -1)
        seen = [((values - low) / (high - low)).clamp(0, 1) * _GREY_LEVELS for low, high in self._windows]
        images = torch.cat([self._grouped(part) for part in seen], dim=1).flatten(0, 1)
        return images.contiguous(memory_format=torch.channels_last)

    def _grouped(self, values: Tensor) -> Tensor:
        return values.reshape(len(values), self._groups, _COLOURS, *values.shape[-2:])


class Fusion(nn.Module):
    """One map out of the maps of all views of a stack; the key view's own, for a single one."""

    def __init__(self, channels: int, views: int, key: int) -> None:
        super().__init__()
        self._views = views
        self._key = key
        self.mix = nn.Conv2d(channels * views, channels, 1, bias=False) if views > 1 else None
        if self.mix is not None:
            # From the start the key slice is seen as if it were alone; what the others add is learnt.
            nn.init.zeros_(self.mix.weight)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n × views, channels, …) to (n, channels, …)."""
        if self.mix is None:
            return maps
        apart = maps.reshape(-1, self._views, *maps.shape[1:])
        fused: Tensor = apart[:, self._key] + self.mix(apart.flatten(1, 2))
        return fused


class PyramidTrunk(nn.Module):
    """A feature pyramid over a backbone's maps from stride 4 on, and one coarser map."""

    def __init__(self, backbone: str, channels: int, views: Views) -> None:
        super().__init__()
        self.views = views
        self.backbone: Backbone = make_backbone(backbone)
        self._used = [at for at, stride in enumerate(self.backbone.strides) if stride >= _FINEST_STRIDE]
        widths = [self.backbone.channels[at] for at in self._used]
        self.fusions = nn.ModuleList(Fusion(width, views.count, views.key) for width in widths)
        self.pyramid = FeaturePyramidNetwork(widths, channels, extra_blocks=LastLevelMaxPool())
        strides = [self.backbone.strides[at] for at in self._used]
        self.strides: tuple[int, ...] = (*strides, strides[-1] * 2)
        self.channels = channels

    def forward(self, stacks: Tensor) -> list[Tensor]:
        """Maps of stacks, finest first."""
        maps = self.backbone(self.views(stacks))
        fused = [fusion(maps[at]) for fusion, at in zip(self.fusions, self._used, strict=True)]
        named = OrderedDict((str(number), one) for number, one in enumerate(fused))
        return list(self.pyramid(named).values())


class SingleMapTrunk(nn.Module):
    """The deepest map of a backbone without its last pooling, as the DeepLesion paper has it for small lesions."""

    def __init__(self, backbone: str, views: Views) -> None:
        super().__init__()
        self.views = views
        self.backbone: Backbone = make_backbone(backbone)
        pools = [at for at, layer in enumerate(self.backbone.features) if isinstance(layer, nn.MaxPool2d)]
        if not pools:
            raise UsageError(f"{backbone} has no pooling to leave out", next_step="take it with architecture=modern")
        # Left in place as a layer that does nothing, so that weights keep their names.
        self.backbone.features[pools[-1]] = nn.Identity()
        self.channels = self.backbone.channels[-1]
        self.fusion = Fusion(self.channels, views.count, views.key)
        self.strides: tuple[int, ...] = (self.backbone.strides[-1] // 2,)

    def forward(self, stacks: Tensor) -> list[Tensor]:
        """The one map."""
        return [self.fusion(self.backbone(self.views(stacks))[-1])]
