"""The triplet network with its lesions, sequences and loss, as the one training loop wants it.

May import: lesionary, numpy, torch, trainers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainers.batches import PatchBatch, PatchSource
from trainers.fitting import Learner, Share, step_generator
from trainers.triplet.mining import KnownLesions, level_terms, mined_loss, pair_levels
from trainers.triplet.model import MultiScaleNet
from trainers.triplet.presets import GROUPS, TripletSettings
from trainers.triplet.sampling import SequenceSampler
from trainers.triplet.targets import hierarchical_loss

# Beside the sampler's, of the same step.
_AUGMENTATION_STREAM = 1


@dataclass(frozen=True, slots=True)
class Comparisons:
    """A worker's patches of a step, and what is to be compared with what."""

    patches: list[PatchBatch]
    rows: Tensor
    """(sequences, roles) as drawn, in rows of the training set."""
    levels: Tensor
    """(groups, lesions, lesions); empty where sequences are compared one by one."""
    may_attract: Tensor
    """(groups, lesions, lesions) bool, likewise."""


class TripletLearner(Learner):
    """Sequences of a patch source, and how far their vectors are from the wanted order."""

    def __init__(
        self,
        net: MultiScaleNet,
        source: PatchSource,
        rows: NDArray[np.int64],
        types: NDArray[np.int64],
        settings: TripletSettings,
        seed: int,
    ) -> None:
        """Prepare a round.

        Args:
            net: to be trained.
            source: patches.
            rows: its rows that are trained on.
            types: their types, by label or pseudo-label; -1 where there is none.
            settings: how.
            seed: of this round.

        Raises:
            TrainingError: the lesions do not hold what the cues need.
        """
        super().__init__()
        self.net = net
        self._source = source
        self._rows = rows
        self._settings = settings
        self._seed = seed
        sampling = settings.sampling()
        locations, sizes, patients = source.location[rows], source.size_mm[rows], source.patients[rows]
        self.sampler = SequenceSampler(types, locations, sizes, patients, sampling, seed)
        self._known = KnownLesions(types, locations, sizes / sampling.size_unit_mm, patients)
        self._width = len(sampling.roles)

    def batch(self, step: int, share: Share) -> Comparisons:
        """The worker's share of a step: whole groups, so that no worker compares otherwise than one alone."""
        settings = self._settings
        drawn = self.sampler.draw(step, settings.sequences)
        units = np.arange(settings.sequences).reshape(self._units(), -1)
        mine = np.concatenate([units[unit] for unit in share.of(range(len(units)))])
        positions = (mine[:, None] * self._width + np.arange(self._width)).reshape(-1)
        patches = self._source.take(
            self._rows[drawn.reshape(-1)],
            settings.scale_mm,
            settings.augmentation(),
            step_generator(self._seed, step, _AUGMENTATION_STREAM),
            only=positions,
        )
        rows = drawn[mine]
        levels = np.empty((0, 0, 0), np.int8)
        may_attract = np.empty((0, 0, 0), bool)
        if settings.compare == GROUPS:
            groups = rows.reshape(-1, settings.group * self._width)
            sampling, used = self.sampler.settings, self.sampler.thresholds
            levels = np.stack([pair_levels(self._known, group, sampling, used) for group in groups])
            patients = self._known.patients[groups]
            apart = patients[:, :, None] != patients[:, None, :]
            may_attract = apart if sampling.other_patient else np.ones_like(apart)
        return Comparisons(patches, torch.from_numpy(rows), torch.from_numpy(levels), torch.from_numpy(may_attract))

    def forward(self, batch: Comparisons) -> dict[str, Tensor]:
        """How far the order is violated, by cue."""
        count = batch.rows.numel()
        vectors = batch.patches[0].images.new_empty((count, self._settings.dimension))
        for patches in batch.patches:
            vectors[torch.as_tensor(patches.rows)] = self.net(patches.images, patches.boxes, patches.extents)
        settings = self._settings
        if settings.compare != GROUPS:
            return hierarchical_loss(vectors.view(*batch.rows.shape, -1), settings.margins, settings.cues, batch.rows)
        margins = dict(zip(("size", "location", "type"), settings.margins, strict=True))
        grouped = vectors.view(len(batch.levels), -1, settings.dimension)
        terms = level_terms(self.sampler.settings)
        return mined_loss(grouped, batch.levels, batch.may_attract, terms, margins)

    def global_batch(self) -> int:
        """Patches of a step."""
        return self._settings.sequences * self._width

    def shared_units(self) -> int:
        """Whole groups where these are compared, else sequences."""
        return self._units()

    def compiled_modules(self) -> Sequence[nn.Module]:
        """The convolutions; what follows is small."""
        return (self.net.backbone,)

    def _units(self) -> int:
        settings = self._settings
        return settings.sequences // settings.group if settings.compare == GROUPS else settings.sequences
