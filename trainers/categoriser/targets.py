"""Crops of lesions, who is trained on in a round, and which crops a step sees.

A crop is the lesion's box with a padding, made square, at least so wide as the settings say, and brought to the
network's size. Nothing here, nor anywhere in this package, looks at what type a lesion is (tested).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionary.errors import TrainingError
from trainers.batches import PatchBatch, PatchSource, inference_batches
from trainers.categoriser.presets import CategoriserSettings
from trainers.learner import Share, step_generator
from trainers.position.presets import PositionSettings
from trainers.regions import cut_regions

# Streams of random numbers beside those of the steps.
_SPLIT_STREAM = 7
_SHIFT_STREAM = 1
_FEWEST_PATIENTS = 3
# What shifts along x and y are counted against.
_TRUNK_MM = torch.tensor([PositionSettings().body_width_mm, PositionSettings().body_depth_mm])


@dataclass(frozen=True, slots=True)
class Crops:
    """What the network is shown."""

    rows: NDArray[np.int64]
    """Positions in the request."""
    images: Tensor
    """(n, 3, input, input) float32, 0…255."""
    boxes: Tensor
    """(n, 4) float32, x0, y0, x1, y1 in pixels of the crop."""
    moved: Tensor
    """(n, 3) float32: how far the crop's middle lies off the lesion's, as places in the body count."""


@dataclass(frozen=True, slots=True)
class Split:
    """Who takes which part in a round: places among the rows that are trained on."""

    train: NDArray[np.int64]
    val: NDArray[np.int64]
    held_out: NDArray[np.int64]


def cut_crops(batch: PatchBatch, settings: CategoriserSettings, offsets: Tensor | None = None) -> Crops:
    """The crops of patches of one side.

    Args:
        batch: patches at the settings' scale, centred on their lesions.
        settings: sizes.
        offsets: (n, 2) how far to shift each crop along x and y, −1 to 1 of the settings' shift; None = not at all.
    """
    boxes, scale = batch.boxes, settings.scale_mm
    longest = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
    side = (longest + 2 * settings.padding_mm / scale).clamp(min=settings.least_crop_mm / scale)
    corner = batch.images.shape[-1] / 2 - side[:, None] / 2
    shift_mm = settings.shift_mm * (torch.zeros(len(boxes), 2) if offsets is None else offsets)
    corner = corner + shift_mm / scale
    squares = torch.cat([corner, corner + side[:, None]], dim=1)
    images = cut_regions(batch.images, squares, 1, settings.input_px, "align")
    seen = (boxes - torch.cat([corner, corner], dim=1)) * (settings.input_px / side)[:, None]
    moved = torch.cat([shift_mm / _TRUNK_MM, torch.zeros(len(boxes), 1)], dim=1)
    return Crops(batch.rows, images, seen.clamp(0, settings.input_px), moved)


def all_crops(source: PatchSource, settings: CategoriserSettings, batch_size: int) -> Iterator[Crops]:
    """Every patch's crop as it is; `rows` are positions in the source."""
    for batch in inference_batches(source, batch_size, settings.scale_mm):
        yield cut_crops(batch, settings)


def step_crops(
    source: PatchSource,
    rows: NDArray[np.int64],
    settings: CategoriserSettings,
    moment: tuple[int, int],
    share: Share,
) -> Crops:
    """A worker's share of a step's crops; `rows` of the result are positions among all of the step's.

    Args:
        source: of patches.
        rows: of the whole step, one for each crop.
        settings: sizes and augmentation.
        moment: the round's seed and the step.
        share: which of them.
    """
    only = np.arange(len(rows))[share.rank :: share.world]
    offsets = step_generator(*moment, _SHIFT_STREAM).uniform(-1, 1, (len(rows), 2)).astype(np.float32)
    made = []
    for batch in source.take(rows, settings.scale_mm, settings.augmentation(), step_generator(*moment), only):
        positions = only[batch.rows]
        crops = cut_crops(batch, settings, torch.from_numpy(offsets[positions]))
        made.append(replace(crops, rows=positions))
    return Crops(
        np.concatenate([one.rows for one in made]),
        torch.cat([one.images for one in made]),
        torch.cat([one.boxes for one in made]),
        torch.cat([one.moved for one in made]),
    )


def split_patients(patients: NDArray[np.int64], settings: CategoriserSettings, round_number: int) -> Split:
    """A fresh split of a round by patient: train, val, held out; each part has somebody.

    Raises:
        TrainingError: there are too few patients.
    """
    names = np.unique(patients)
    if len(names) < _FEWEST_PATIENTS:
        raise TrainingError(
            f"lesions outside the test split: {len(patients)}, of patients: {len(names)}; at least {_FEWEST_PATIENTS} "
            "patients are needed to train, to watch and to test on",
            where="categories",
            next_step="ingest more patients",
        )
    shuffled = np.random.default_rng([settings.seed, round_number, _SPLIT_STREAM]).permutation(names)
    held = max(1, round(len(names) * (1 - settings.train_share - settings.val_share)))
    watched = max(1, round(len(names) * settings.val_share))
    held, watched = min(held, len(names) - 2), min(watched, len(names) - 1 - min(held, len(names) - 2))
    parts = shuffled[:held], shuffled[held : held + watched], shuffled[held + watched :]
    held_out, val, train = (np.flatnonzero(np.isin(patients, part)) for part in parts)
    return Split(train, val, held_out)


def drawn_places(
    places: NDArray[np.int64], categories: NDArray[np.int64], settings: CategoriserSettings, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A step's lesions: each of `places` as likely as any other, or each category if they are to be balanced."""
    if not settings.balanced:
        return rng.choice(places, settings.batch)
    _, group, counts = np.unique(categories[places], return_inverse=True, return_counts=True)
    chances = 1.0 / counts[group]
    return rng.choice(places, settings.batch, p=chances / chances.sum())
