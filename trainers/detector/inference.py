"""A trained detector at work: rebuilt from its card and weights, asked stack by stack.

May import: lesionary, torch, trainers.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionary.errors import ArtifactError, UsageError
from lesionary.lake import Lake
from lesionary.models import find_model, read_weights
from lesionary.stack_schema import Found
from trainers.checkpoint import fill_module, weights_from_bytes
from trainers.detector.model import Boxes, Detector
from trainers.detector.presets import DetectorSettings
from trainers.detector.source import padded_images

KIND = "detector"

# More at once would not be faster, and needs memory.
_BATCH_ON_CPU, _BATCH_ON_GPU = 8, 32


class Finder:
    """A detector that is ready to be asked."""

    def __init__(self, detector: Detector, *, on_gpu: bool = False, precision: str = "fp32") -> None:
        """Bring the network to its device.

        Args:
            detector: with its weights.
            on_gpu: compute on the first GPU that this process sees.
            precision: fp32 or bf16, of the trunk.

        Raises:
            UsageError: there is no GPU here.
        """
        if on_gpu and not torch.cuda.is_available():
            raise UsageError(
                "there is no GPU here that PyTorch can use", where="--gpus", next_step="leave the option out"
            )
        self._device = torch.device("cuda" if on_gpu else "cpu")
        self._mixed = precision == "bf16"
        self._batch = _BATCH_ON_GPU if on_gpu else _BATCH_ON_CPU
        self.detector = detector.eval().to(self._device).to(memory_format=torch.channels_last)

    def __call__(self, stacks: NDArray[np.int16], /) -> list[Found]:
        """Look at stacks of one size: (n, slices, rows, columns) HU; a `FindLesions`.

        Raises:
            UsageError: they have another number of slices than the detector was trained with.
            ArtifactError: the detector gives boxes that are not finite.
        """
        slices = self.detector.settings.slices
        if stacks.shape[1] != slices:
            raise UsageError(f"stacks of {slices} slices are needed, found {stacks.shape[1]}")
        found: list[Found] = []
        for start in range(0, len(stacks), self._batch):
            part = stacks[start : start + self._batch]
            sizes = torch.tensor([part.shape[2:]] * len(part), dtype=torch.int64)
            found += [_as_found(one) for one in self.ask(padded_images(part), sizes)]
        return found

    def ask(self, images: Tensor, sizes: Tensor) -> list[Boxes]:
        """What is on padded stacks, of which `sizes` rows and columns are their own."""
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
            return self.detector.find(images.to(self._device), sizes)


def detector_from(weights: bytes, settings: Mapping[str, Any], where: str = "weights") -> Detector:
    """A trained detector.

    Args:
        weights: content of its safetensors file.
        settings: its card's.
        where: what to call it in a message.

    Raises:
        ArtifactError: the card is not a detector's, or the weights are damaged, not finite, or another network's.
    """
    names = {one.name for one in dataclasses.fields(DetectorSettings)}
    try:
        categories = len(settings["category_names"])
        known = DetectorSettings(**{name: value for name, value in settings.items() if name in names})
        detector = Detector(known, categories)
    except (KeyError, TypeError, IndexError, UsageError) as cause:
        raise ArtifactError("its card is not a detector's", where=where, next_step="train it again") from cause
    fill_module(detector, weights_from_bytes(weights, where), where)
    return detector


@cache
def published_detector(lake_url: str, model_id: str, *, on_gpu: bool = False, precision: str = "fp32") -> Finder:
    """A detector of the lake, read once in each process.

    Raises:
        UsageError: the lake has no such model, or there is no GPU here.
        ArtifactError: its card or its weights are damaged.
    """
    lake = Lake.open(lake_url)
    card = find_model(lake, model_id, KIND)
    detector = detector_from(read_weights(lake, card), card.settings, where=model_id)
    return Finder(detector, on_gpu=on_gpu, precision=precision)


def _as_found(boxes: Boxes) -> Found:
    arrays: Sequence[NDArray[Any]] = [one.cpu().numpy() for one in (boxes.boxes, boxes.scores, boxes.categories)]
    if not all(np.isfinite(one).all() for one in arrays):
        raise ArtifactError("the detector gives boxes that are not finite", next_step="train it again")
    return Found(arrays[0].astype(np.float32), arrays[1].astype(np.float32), arrays[2].astype(np.int64))
