"""What a trained categoriser says of lesions: features and probabilities, of a patch source or of a table of patches.

A `CategoriserMaker` is a plan of some hundred bytes that travels to wherever lesions are categorised; the `Categoriser`
that it makes there holds the network.

May import: lesionary, numpy, torch, trainers.
"""

from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lesionary.errors import ArtifactError
from lesionary.lake import Lake
from lesionary.models import ModelCard, find_model, read_weights
from trainers.batches import PatchSource
from trainers.categoriser.model import CategoryNet, rebuilt_net
from trainers.categoriser.presets import CategoriserSettings
from trainers.categoriser.targets import all_crops

CATEGORISER = "categoriser"
"""The kind of such models."""

_CROPS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Answers:
    """What a network says of all lesions of a source, row by row."""

    features: NDArray[np.float32]
    probability: NDArray[np.float64]
    """(n, categories), rows add up to 1."""

    @property
    def categories(self) -> NDArray[np.int64]:
        """The likeliest of each lesion."""
        likeliest: NDArray[np.int64] = self.probability.argmax(axis=1)
        return likeliest


@torch.inference_mode()
def ask(
    net: CategoryNet, source: PatchSource, settings: CategoriserSettings, device: torch.device, layer: str
) -> Answers:
    """Look at every lesion of a source.

    Args:
        net: on the device.
        source: of patches.
        settings: how crops are cut, and in which precision.
        device: where the network is.
        layer: whose values are the features, one of `trainers.categoriser.model.LAYERS`.
    """
    was_training = net.training
    net.eval()
    features: NDArray[np.float32] | None = None
    probability = np.zeros((len(source), net.head.out_features))
    for crops in all_crops(source, settings, _CROPS_AT_ONCE):
        images = crops.images.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            layers, scores = net.layers(images, crops.boxes.to(device))
        said = layers[layer].float().cpu().numpy()
        if features is None:
            features = np.empty((len(source), said.shape[1]), np.float32)
        features[crops.rows] = said
        probability[crops.rows] = torch.softmax(scores.double(), dim=1).cpu().numpy()
    net.train(was_training)
    return Answers(np.zeros((0, 0), np.float32) if features is None else features, probability)


class Categoriser:
    """A network that is ready to be asked for categories: patches to probabilities, row by row."""

    def __init__(self, net: CategoryNet, settings: CategoriserSettings, device: str = "cpu") -> None:
        self._device = torch.device(device)
        self._net = net.eval().to(self._device).to(memory_format=torch.channels_last)
        self._settings = settings
        self.count = net.head.out_features

    def __call__(self, patches: pa.Table) -> NDArray[np.float32]:
        """Probabilities of all categories, (n, categories) float32."""
        source = PatchSource(patches)
        answers = ask(self._net, source, self._settings, self._device, self._settings.features)
        return answers.probability.astype(np.float32)


@dataclass(frozen=True, slots=True)
class CategoriserMaker:
    """Makes the categoriser of a model of the lake, in whatever process calls it."""

    lake_url: str
    model_id: str
    device: str = "cpu"

    def __call__(self) -> Categoriser:
        """Read the model, and build it.

        Raises:
            UsageError: there is no such model.
            ArtifactError: its weights are damaged, or do not fit its settings.
        """
        lake = Lake.open(self.lake_url)
        return categoriser_of(lake, find_model(lake, self.model_id, CATEGORISER), self.device)


def rounds_of(card: ModelCard) -> int:
    """Rounds that a categoriser was trained in; what its network says stands under this number in table labels.

    Raises:
        ArtifactError: the card does not say it.
    """
    rounds = card.metrics.get("rounds")
    if not isinstance(rounds, int) or isinstance(rounds, bool):
        raise ArtifactError("its card states no rounds", where=card.model_id, next_step="train the model again")
    return rounds


def categoriser_of(lake: Lake, card: ModelCard, device: str = "cpu") -> Categoriser:
    """The categoriser of a model.

    Raises:
        ArtifactError: its weights are damaged, or do not fit its settings.
    """
    names = {field.name for field in fields(CategoriserSettings)}
    try:
        settings = CategoriserSettings(**{name: value for name, value in card.settings.items() if name in names})
    except (TypeError, ValueError) as cause:
        raise ArtifactError(
            "its card holds settings of another kind", where=card.model_id, next_step="train the model again"
        ) from cause
    return Categoriser(rebuilt_net(settings.net(), read_weights(lake, card), card.model_id), settings, device)
