"""Crops, where they lie, and the loss: nothing here knows what a lesion is.

A cached patch is larger than a crop, and its middle's place in the body is known: x and y from the body's outline, z
from the release or from the located slices. A crop taken off the middle lies elsewhere by known millimetres, counted
against a trunk's usual width and depth. Where a coordinate is unknown (z of series that nobody located), it takes no
part in the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from trainers.batches import PatchSource
from trainers.position.model import COORDINATES
from trainers.position.presets import PositionSettings


@dataclass(frozen=True, slots=True)
class Draw:
    """Which crops to take: one of each row of a step's batch."""

    rows: NDArray[np.int64]
    """(n,) rows of the patch source."""
    offsets: NDArray[np.float32]
    """(n, 2) where the crop's middle should lie, −1 to 1 of the reachable shift along x and y."""
    box_mm: NDArray[np.float32]
    """(n, 2) sides of the box along x and y."""

    def share(self, rank: int, world: int) -> "Draw":
        """Each `world`-th crop, from `rank` on."""
        return Draw(self.rows[rank::world], self.offsets[rank::world], self.box_mm[rank::world])


@dataclass(frozen=True, slots=True)
class Crops:
    """What the network is shown, and what it should say."""

    images: Tensor
    """(n, 3, crop, crop) float32, 0…255."""
    boxes: Tensor
    """(n, 4) float32, x0, y0, x1, y1 in pixels of the crop."""
    places: Tensor
    """(n, 3) float32: x, y, z; 0 where unknown."""
    known: Tensor
    """(n, 3) float32: 1 where the coordinate is known, 0 elsewhere."""


def draw_crops(rows: NDArray[np.int64], settings: PositionSettings, rng: np.random.Generator) -> Draw:
    """A step's crops: each of `rows` is as likely as any other, none comes twice before all have come once."""
    count = settings.batch
    rounds = -(-count // len(rows))
    chosen = np.concatenate([rng.permutation(rows) for _ in range(rounds)])[:count]
    low, high = np.log(settings.box_low_mm), np.log(settings.box_high_mm)
    return Draw(
        chosen,
        rng.uniform(-1, 1, (count, 2)).astype(np.float32),
        np.exp(rng.uniform(low, high, (count, 2))).astype(np.float32),
    )


def middle_crops(rows: NDArray[np.int64], settings: PositionSettings) -> Draw:
    """The crops that an evaluation looks at: in the middle, with a box of middling size."""
    side = float(np.sqrt(settings.box_low_mm * settings.box_high_mm))
    return Draw(rows, np.zeros((len(rows), 2), np.float32), np.full((len(rows), 2), side, np.float32))


def cut_crops(
    images: Tensor, locations: NDArray[np.float32], draw: Draw, settings: PositionSettings
) -> tuple[Tensor, NDArray[np.float32]]:
    """Crops of patches of one size, and where they lie.

    Args:
        images: (n, 3, side, side) patches at the settings' scale.
        locations: (n, 3) x, y, z of the patches' middles.
        draw: n crops of these patches, in this order.
        settings: sizes.

    Returns:
        (n, 3, crop, crop), and (n, 3) with NaN where unknown.
    """
    crop = settings.crop_px
    room = (torch.tensor(images.shape[-2:]).flip(0) - crop).numpy()  # x, y
    reach = np.minimum(room / 2, settings.shift_mm / settings.scale_mm)
    starts = np.clip(np.rint(room / 2 + draw.offsets * reach), 0, room).astype(np.int64)
    cut = images.new_empty((len(images), images.shape[1], crop, crop))
    for number, (x, y) in enumerate(starts.tolist()):
        cut[number] = images[number, :, y : y + crop, x : x + crop]
    places = locations.astype(np.float32, copy=True)
    shift_mm = (starts - room / 2) * settings.scale_mm
    places[:, 0] += shift_mm[:, 0] / settings.body_width_mm
    places[:, 1] += shift_mm[:, 1] / settings.body_depth_mm
    return cut, places


def as_crops(
    images: Sequence[Tensor], places: Sequence[NDArray[np.float32]], draw: Draw, settings: PositionSettings
) -> Crops:
    """One batch of what was cut out of patches of several sizes; rows in the order of `draw`."""
    where = torch.from_numpy(np.concatenate(places))
    known = torch.isfinite(where)
    half = torch.from_numpy(draw.box_mm) / settings.scale_mm / 2
    middle = settings.crop_px / 2
    return Crops(
        images=torch.cat(list(images)),
        boxes=torch.cat([middle - half, middle + half], dim=1).clamp(0, settings.crop_px),
        places=torch.where(known, where, 0.0),
        known=known.float(),
    )


def read_crops(source: PatchSource, draw: Draw, settings: PositionSettings) -> Crops:
    """The crops of a draw, out of a patch source; in another order than drawn, patches of one size together."""
    images, places, order = [], [], []
    for patches in source.take(draw.rows, settings.scale_mm):
        part = Draw(draw.rows[patches.rows], draw.offsets[patches.rows], draw.box_mm[patches.rows])
        cut, lie = cut_crops(patches.images, source.location[part.rows], part, settings)
        images.append(cut)
        places.append(lie)
        order.append(patches.rows)
    joined = np.concatenate(order)
    return as_crops(images, places, Draw(draw.rows[joined], draw.offsets[joined], draw.box_mm[joined]), settings)


def position_loss(predicted: Tensor, places: Tensor, known: Tensor, tolerance: float) -> dict[str, Tensor]:
    """One part for each coordinate: the mean over all crops, unknown ones counting as no error.

    The divisor is the number of crops, not of known coordinates, so that the mean of workers' means is the mean.
    """
    errors = functional.smooth_l1_loss(predicted.float(), places, beta=tolerance, reduction="none") * known
    means = errors.mean(dim=0)
    return {name: means[at] for at, name in enumerate(COORDINATES)}
