"""What is fitted in a round: crops of the lesions in its training part, and the categories they were sorted into."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainers.batches import PatchSource
from trainers.categoriser.model import FC6, CategoryNet
from trainers.categoriser.presets import CategoriserSettings
from trainers.categoriser.targets import drawn_places, step_crops
from trainers.learner import Learner, Share, step_generator
from trainers.position.presets import PositionSettings
from trainers.position.targets import position_loss

_DRAW_STREAM = 2
_PLACE_TOLERANCE = PositionSettings().tolerance


@dataclass(frozen=True, slots=True)
class CategoryBatch:
    """A worker's share of a step."""

    images: Tensor
    boxes: Tensor
    categories: Tensor
    """(n,) int64."""
    places: Tensor
    """(n, 3) float32, of the crops' middles; 0 where unknown."""
    known: Tensor
    """(n, 3) float32: 1 where the coordinate is known."""


class CategoryLearner(Learner):
    """A network that learns categories as if somebody had named them."""

    def __init__(
        self,
        net: CategoryNet,
        source: PatchSource,
        places: NDArray[np.int64],
        categories: NDArray[np.int64],
        settings: CategoriserSettings,
        seed: int,
    ) -> None:
        """Take part in a round.

        Args:
            net: to train.
            source: of all lesions that may be trained on.
            places: those of the round's training part.
            categories: one for each lesion of the source.
            settings: batch, crops, balance.
            seed: the round's.
        """
        super().__init__()
        self.net = net
        self._source = source
        self._places = places
        self._categories = categories
        self._settings = settings
        self._seed = seed

    def batch(self, step: int, share: Share) -> CategoryBatch:
        """The worker's share of a step's crops."""
        rng = step_generator(self._seed, step, _DRAW_STREAM)
        rows = drawn_places(self._places, self._categories, self._settings, rng)
        crops = step_crops(self._source, rows, self._settings, (self._seed, step), share)
        mine = rows[crops.rows]
        places = torch.from_numpy(self._source.location[mine]) + crops.moved
        known = torch.isfinite(places)
        return CategoryBatch(
            crops.images,
            crops.boxes,
            torch.from_numpy(self._categories[mine]),
            torch.where(known, places, 0.0),
            known.float(),
        )

    def forward(self, batch: CategoryBatch) -> dict[str, Tensor]:
        """How surprised the network is by the categories, and how far off it is with the crops' places."""
        layers, scores = self.net.layers(batch.images, batch.boxes)
        parts = {"category": functional.cross_entropy(scores.float(), batch.categories)}
        if self._settings.place_weight > 0:
            said = self.net.places(layers[FC6])
            errors = position_loss(said, batch.places, batch.known, _PLACE_TOLERANCE)
            parts["place"] = self._settings.place_weight * torch.stack(list(errors.values())).sum()
        return parts

    def global_batch(self) -> int:
        """Crops of a step."""
        return self._settings.batch

    def compiled_modules(self) -> Sequence[torch.nn.Module]:
        """The convolutions; what follows is small."""
        return (self.net.backbone,)
