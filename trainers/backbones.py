"""The networks that see: by name, each ending in four stages of feature maps.

    vgg16          torchvision's VGG-16 up to conv5_3, with its key names: 128, 256, 512, 512 channels
    narrow         the same plan, narrow and with GroupNorm, for a CPU: 32, 64, 96, 128 channels
    convnext_tiny  torchvision's ConvNeXt-T, for those who want better: 96, 192, 384, 768 channels

The stages are numbered 2 to 5, as in the Deep Lesion Graphs paper (conv2_2, conv3_3, conv4_3, conv5_3). No network has
BatchNorm, so that a patch's features depend on nothing but the patch, and the workers' number changes no result.

A backbone takes images in 0…255 (window −1024…3071 HU) and scales them by itself, so that no caller can forget it:
vgg16 and convnext_tiny as their ImageNet weights expect it, narrow by the grey values of CT. narrow sees each image
twice, the second time through a soft-tissue window: organs differ by a hundredth of the whole one, which a few narrow
layers would first have to learn to see.

May import: lesionary, torch, torchvision.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from lesionary.errors import UsageError
from lesionary.patch_schema import WINDOW_HU

STAGES: tuple[int, ...] = (2, 3, 4, 5)
"""Names of the four stages, shallow to deep."""

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
# Soft tissue, half of a body's slice, is 0.26 of the window; lung and air are near 0, bone is about 0.5.
_CT_MEAN = (0.2, 0.2, 0.2)
_CT_DEVIATION = (0.1, 0.1, 0.1)

# The soft-tissue window: its middle, and from where on it bends.
_SOFT_MIDDLE_HU, _SOFT_BEND_HU = 40.0, 150.0
_GREY_LEVELS = 255.0

_GROUPS = 8


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fixed about a backbone of some name."""

    channels: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    """Image pixels for one pixel of the map."""
    ends: tuple[int, int, int, int]
    """Number of the layer of `features` whose output is the stage."""
    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]
    build: Callable[[], nn.Sequential]
    soft_window: bool = False
    """Whether the image goes in a second time, through a soft-tissue window."""


class Backbone(nn.Module):
    """Four stages of feature maps of images in 0…255."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, plan: Plan) -> None:
        super().__init__()
        self.name = name
        self.channels = plan.channels
        self.strides = plan.strides
        self.features = plan.build()
        self._ends = plan.ends
        self._soft_window = plan.soft_window
        self.register_buffer("mean", _per_channel(plan.mean), persistent=False)
        self.register_buffer("deviation", _per_channel(plan.deviation), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The maps of stages 2, 3, 4 and 5.

        Args:
            images: (n, 3, height, width), 0…255, sides of at least 16 px (32 px for convnext_tiny).

        Returns:
            Each (n, channels, height // stride, width // stride).
        """
        maps = []
        values = (images - self.mean) / self.deviation
        if self._soft_window:
            values = torch.cat([values, soft_tissue(images)], dim=1)
        for number, layer in enumerate(self.features):
            values = layer(values)
            if number in self._ends:
                maps.append(values)
        return tuple(maps)


def soft_tissue(images: Tensor) -> Tensor:
    """Images in 0…255 through a smooth soft-tissue window: near −1 below fat, near 1 for bone."""
    low, high = WINDOW_HU
    return torch.tanh((images * ((high - low) / _GREY_LEVELS) + (low - _SOFT_MIDDLE_HU)) / _SOFT_BEND_HU)


def make_backbone(name: str) -> Backbone:
    """A backbone with random weights, drawn from torch's own generator.

    Raises:
        UsageError: there is none of this name.
    """
    plan = _PLANS.get(name)
    if plan is None:
        raise UsageError(f"there is no backbone {name!r}", next_step=f"choose one of {', '.join(BACKBONES)}")
    return Backbone(name, plan)


def imagenet_weights(name: str) -> WeightsEnum | None:
    """torchvision's ImageNet weights of a backbone, not yet fetched; None where there are none."""
    if name == "narrow":
        return None
    # The plain recipe of 2014, not the "features" variant, whose input is scaled otherwise.
    return get_model_weights(name)["IMAGENET1K_V1"]


def _per_channel(values: Iterable[float]) -> Tensor:
    return _GREY_LEVELS * torch.tensor(tuple(values)).reshape(1, 3, 1, 1)


def _vgg16() -> nn.Sequential:
    # On the meta device, because the classifier that is left out would take half a gigabyte.
    with torch.device("meta"):
        whole = get_model("vgg16", weights=None, init_weights=False)
    layers = nn.Sequential(*list(whole.features)[:30])
    layers.to_empty(device=torch.get_default_device())
    _fill(layers)
    return layers


def _convnext_tiny() -> nn.Sequential:
    # No layer is dropped at random: one and two workers must train alike.
    features: nn.Sequential = get_model("convnext_tiny", weights=None, stochastic_depth_prob=0.0).features
    return features


def _narrow() -> nn.Sequential:
    layers = nn.Sequential(
        *_block(6, 16, kernel=5, stride=2), *_block(16, 32),
        nn.MaxPool2d(2), *_block(32, 64), *_block(64, 64),
        nn.MaxPool2d(2), *_block(64, 96), *_block(96, 96),
        nn.MaxPool2d(2), *_block(96, 128), *_block(128, 128),
    )  # fmt: skip
    _fill(layers)
    return layers


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.GroupNorm(_GROUPS, outputs),
        nn.ReLU(inplace=True),
    )


def _fill(layers: nn.Module) -> None:
    """He's initialisation, as torchvision's VGG has it."""
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


_PLANS = {
    "vgg16": Plan((128, 256, 512, 512), (2, 4, 8, 16), (8, 15, 22, 29), _IMAGENET_MEAN, _IMAGENET_DEVIATION, _vgg16),
    "narrow": Plan(
        (32, 64, 96, 128), (2, 4, 8, 16), (5, 12, 19, 26), _CT_MEAN, _CT_DEVIATION, _narrow, soft_window=True
    ),
    "convnext_tiny": Plan(
        (96, 192, 384, 768), (4, 8, 16, 32), (1, 3, 5, 7), _IMAGENET_MEAN, _IMAGENET_DEVIATION, _convnext_tiny
    ),
}

BACKBONES: tuple[str, ...] = tuple(_PLANS)
"""Names of the backbones."""
