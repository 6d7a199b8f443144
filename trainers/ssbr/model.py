"""The regressor: a network that gives one CT slice one score, and scoring many slices with it.

Networks go by name, so that the settings in a model's card and its weights rebuild it. Whatever the precision of the
convolutions, the last linear layer computes in fp32: bf16 keeps eight bits, and neighbouring slices differ by less.
No layer's statistics depend on the batch (GroupNorm or none).
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from lesionary.errors import ArtifactError, UsageError
from lesionary.settings import require_ranges
from trainers.backbones import make_backbone
from trainers.checkpoint import fill_module, weights_from_bytes

_GROUPS = 8

# The share of training slices that scores 0 to 1 leave out at either end.
LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.0

_SLICES_AT_ONCE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class NetSettings:
    """What rebuilds a regressor; part of its card's settings."""

    network: str
    input_px: int
    window_low_hu: float
    window_high_hu: float
    score_scale: float

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        if self.network not in NETWORKS:
            raise UsageError(f"there is no network {self.network}", next_step=f"known are {', '.join(NETWORKS)}")
        require_ranges(self, ("input_px", 32, 1024))
        if not self.window_low_hu < self.window_high_hu:
            raise UsageError(f"the window {self.window_low_hu:g} to {self.window_high_hu:g} HU is empty")
        if not self.score_scale > 0:
            raise UsageError(f"score_scale must be positive, found {self.score_scale:g}")


class ConvTrunk(nn.Sequential):
    """Four convolutions for a CPU. The image is down to a quarter before the first wide one, where most of the time
    would go otherwise; the pooled 3 × 3 grid keeps where things are, which a global mean would lose."""

    def __init__(self, widths: Sequence[int] = (24, 48, 96, 128), hidden: int = 64) -> None:
        layers: list[nn.Module] = [nn.Conv2d(1, widths[0], 5, stride=2, padding=2), nn.ReLU(inplace=True)]
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.MaxPool2d(2),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.GroupNorm(_GROUPS, after),
                nn.ReLU(inplace=True),
            ]
        layers += [
            nn.AdaptiveAvgPool2d(3),
            nn.Flatten(),
            nn.Linear(9 * widths[-1], hidden),
            nn.ReLU(inplace=True),
        ]
        super().__init__(*layers)
        self.output_width = hidden


class VggTrunk(nn.Module):
    """VGG-16 up to conv5_3, one more convolution of 1 × 1, and the mean over the image: the papers' network.

    A slice goes into all three inputs, so that weights trained on photographs fit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backbone = make_backbone("vgg16")
        self.narrow = nn.Conv2d(self.backbone.channels[-1], 512, 1)
        self.output_width = 512

    def forward(self, prepared: Tensor) -> Tensor:
        """(n, 1, side, side) within ±1 to (n, 512)."""
        deepest = self.backbone((prepared + 1.0).expand(-1, 3, -1, -1) * 127.5)[-1]
        return functional.relu(self.narrow(deepest)).mean(dim=(2, 3))


NETWORKS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType({"conv": ConvTrunk, "vgg16": VggTrunk})


class SliceScorer(nn.Module):
    """Scores CT slices. `score_range` holds the raw scores that become 0 and 1; it travels with the weights."""

    score_range: Tensor

    def __init__(self, settings: NetSettings) -> None:
        super().__init__()
        self.settings = settings
        self.trunk = NETWORKS[settings.network]()
        self.output = nn.Linear(int(getattr(self.trunk, "output_width")), 1)  # noqa: B009 (an int, not a module)
        self.register_buffer("score_range", torch.tensor([0.0, 1.0], dtype=torch.float64))
        self.to(memory_format=torch.channels_last)

    def prepare(self, images: Tensor, crops: Tensor | None = None) -> Tensor:
        """HU to what the network sees: windowed to ±1, cropped, and brought to its size.

        Args:
            images: (n, side, side) HU of any type.
            crops: (n, 2, 3) maps from the places of the new image to those of the old, both ±1 at its edges; the
                whole image unless given.
        """
        low, high = self.settings.window_low_hu, self.settings.window_high_hu
        values = ((images.to(torch.float32) - low) * (2.0 / (high - low)) - 1.0).clamp(-1.0, 1.0)[:, None]
        side = self.settings.input_px
        if crops is None:
            # Through the same sampling as in training, not a smoother one that the network has never seen.
            crops = torch.eye(2, 3, device=values.device).expand(len(values), 2, 3)
        grid = functional.affine_grid(crops, [len(values), 1, side, side], align_corners=False)
        return functional.grid_sample(values, grid, padding_mode="border", align_corners=False)

    def forward(self, prepared: Tensor) -> Tensor:
        """Raw scores (n,) in fp32 of prepared images (n, 1, input_px, input_px)."""
        found = self.trunk(prepared.contiguous(memory_format=torch.channels_last))
        with torch.autocast(found.device.type, enabled=False):
            scores: Tensor = self.output(found.float())[:, 0] * self.settings.score_scale
        return scores

    def normalised(self, scores: Tensor) -> Tensor:
        """Raw scores on the scale where `score_range` is 0 to 1; beyond it they go on, they are not cut."""
        low, high = self.score_range.unbind()
        return (scores.double() - low) / (high - low)

    def set_score_range(self, scores: NDArray[np.floating[Any]]) -> tuple[float, float]:
        """Take the percentiles of the training slices' raw scores for 0 and 1; gives them back.

        Raises:
            ArtifactError: nearly all slices score the same, so that the scores say nothing.
        """
        low, high = (float(value) for value in np.percentile(scores, [LOW_PERCENTILE, HIGH_PERCENTILE]))
        if not high - low > 1e-9:
            raise ArtifactError(
                "the scores of nearly all training slices are the same",
                where="body-part regression",
                next_step="train longer, on more volumes, or with another learning rate",
            )
        self.score_range.copy_(torch.tensor([low, high]))
        return low, high


def build_net(settings: Mapping[str, Any]) -> SliceScorer:
    """A regressor with random weights from its card's settings; those that say nothing of the network are ignored.

    Raises:
        ArtifactError: a setting is missing or of another type.
    """
    try:
        chosen = NetSettings(**{field.name: settings[field.name] for field in fields(NetSettings)})
    except (KeyError, TypeError) as cause:
        raise ArtifactError(
            f"the settings are not those of a body-part regressor ({cause})",
            where="model card",
            next_step="train it again",
        ) from cause
    return SliceScorer(chosen)


def net_from(weights: bytes, settings: Mapping[str, Any], where: str = "weights") -> SliceScorer:
    """A trained regressor, ready to score.

    Args:
        weights: content of its safetensors file.
        settings: its card's.
        where: what to call it in a message.

    Raises:
        ArtifactError: the weights are damaged, not finite, or another network's.
    """
    net = build_net(settings)
    fill_module(net, weights_from_bytes(weights, where), where)
    low, high = net.score_range.tolist()
    if not high > low:
        raise ArtifactError("its range of scores is empty", where=where, next_step="train it again")
    return net.eval()


def score_slices(net: SliceScorer, images: NDArray[np.int16], *, precision: str = "fp32") -> NDArray[np.float32]:
    """Scores (n,) of slices: 0 at the head's end and 1 at the foot's end of what the net was trained on.

    Slices beyond that score below 0 or above 1.

    Args:
        net: where it computes is where it lies.
        images: (n, side, side) int16 HU, shrunk as the training's were (`etl.volumes.shrink`).
        precision: fp32 or bf16, of the convolutions.
    """
    scores = net.normalised(torch.from_numpy(raw_scores(net, images, precision=precision)))
    return scores.numpy().astype(np.float32)


def raw_scores(net: SliceScorer, images: NDArray[np.int16], *, precision: str = "fp32") -> NDArray[np.float64]:
    """Scores (n,) of slices as the network gives them; see `score_slices`."""
    device = net.score_range.device
    was_training = net.training
    net.eval()
    found = []
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        for start in range(0, len(images), _SLICES_AT_ONCE):
            batch = torch.from_numpy(np.array(images[start : start + _SLICES_AT_ONCE], dtype=np.int16)).to(device)
            found.append(net(net.prepare(batch)).double().cpu().numpy())
    net.train(was_training)
    scores: NDArray[np.float64] = np.concatenate(found) if found else np.zeros(0)
    return scores
