"""Parameter-free multi-scale features as a model of the lake: a backbone's weights with a card, and nothing trained.

They are what pseudo-labels begin with, and the baselines of the paper's Table 1: with ImageNet weights, and with none.
As a model they have a number, a card that says where the weights came from, and a feature set like any other.

May import: lesionary, torch, trainers.checkpoint, trainers.triplet.inference, trainers.triplet.model, trainers.weights.
"""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lesionary.lake import Lake
from lesionary.models import ModelCard, ModelDraft, list_models, publish
from lesionary.patch_schema import PIXEL_MM
from trainers.checkpoint import weights_bytes
from trainers.triplet.inference import MULTI_SCALE
from trainers.triplet.model import build_net
from trainers.weights import start_weights

UNTRAINED = "untrained"
"""What stands as preset in such a model's card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSource:
    """Which features."""

    backbone: str = "vgg16"
    scale_mm: float = PIXEL_MM
    """Size of the pixels that the backbone sees."""
    weights: str | bytes | Path = "none"
    """imagenet, none, a file, or a file's bytes."""
    seed: int = 0
    """Of random weights."""


def features_model(lake: Lake, source: FeatureSource) -> ModelCard:
    """The model of these features: the one that the lake has, or a new one.

    Raises:
        UsageError: there is no such backbone, or there are no such weights.
        ArtifactError: the weights are damaged, unsafe, or of another network.
    """
    # Nobody else's random numbers are disturbed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.seed)
        net = build_net({"backbone": source.backbone})
    started = start_weights(net, source.weights)
    weights = weights_bytes(net.backbone.state_dict())
    settings: dict[str, Any] = {"backbone": source.backbone, "scale_mm": float(source.scale_mm)}
    draft = ModelDraft(
        kind=MULTI_SCALE,
        preset=UNTRAINED,
        settings=settings,
        lake={},
        data={"start": asdict(started)},
        metrics={},
        seed=source.seed,
        notes=["nothing was trained: the features of a backbone as it is"],
    )
    for card in reversed(list_models(lake, MULTI_SCALE)):
        if card.weights_sha256 == _sha256(weights) and card.settings == settings:
            return card
    return publish(lake, MULTI_SCALE, draft, weights)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
