"""Anchors: the boxes a detector starts from, at every place of every map, and how true boxes are said by them.

May import: torch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# No box is larger than so many times its anchor: e to this power.
_MOST_GROWTH = 4.0

# Two sides on each map, half an octave apart; the next map's are twice as large.
_SIDES_PER_MAP = 2
_SMALLEST_SIDE_PX = 4.0
_RATIOS_LIMIT = 3.0


def anchor_shapes(sides: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Widths and heights (n, 2) of anchors; all sides with all ratios (height over width), areas kept."""
    side, ratio = torch.meshgrid(torch.tensor(list(sides)), torch.tensor(list(ratios)), indexing="ij")
    root = ratio.sqrt()
    return torch.stack([side / root, side * root], dim=-1).reshape(-1, 2).float()


def anchors_of_data(boxes: NDArray[np.float32]) -> tuple[float, tuple[float, ...]]:
    """The smallest anchor's side and the ratios that suit some boxes (n, 4).

    The side is that of the box that one in five is smaller than; ratios are the middle one of the flat, the square and
    the tall third.
    """
    width, height = (boxes[:, 2] - boxes[:, 0]).clip(1.0), (boxes[:, 3] - boxes[:, 1]).clip(1.0)
    side = max(_SMALLEST_SIDE_PX, float(np.quantile(np.sqrt(width * height), 0.2)))
    ratios = np.quantile(height / width, [1 / 6, 1 / 2, 5 / 6]).clip(1 / _RATIOS_LIMIT, _RATIOS_LIMIT)
    return round(side, 2), tuple(round(float(one), 3) for one in ratios)


def pyramid_sides(smallest: float, maps: int) -> list[tuple[float, ...]]:
    """Sides of anchors on each map of a pyramid."""
    return [
        tuple(smallest * 2**level * 2 ** (step / _SIDES_PER_MAP) for step in range(_SIDES_PER_MAP))
        for level in range(maps)
    ]


def place_anchors(shapes: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Boxes (height × width × n, 4) around the middles of a map's cells, row by row."""
    across = (torch.arange(width, device=shapes.device) + 0.5) * stride
    down = (torch.arange(height, device=shapes.device) + 0.5) * stride
    middles = torch.stack(torch.meshgrid(down, across, indexing="ij")[::-1], dim=-1).reshape(-1, 1, 2)
    return torch.cat([middles - shapes / 2, middles + shapes / 2], dim=-1).reshape(-1, 4)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes as shifts and growths of anchors, as the R-CNN papers have them."""
    size, middle = _size_and_middle(anchors)
    box_size, box_middle = _size_and_middle(boxes)
    return torch.cat([(box_middle - middle) / size, (box_size / size).log()], dim=1)


def decode(deltas: Tensor, anchors: Tensor) -> Tensor:
    """The other way round."""
    size, middle = _size_and_middle(anchors)
    new_middle = middle + deltas[:, :2] * size
    half = size * deltas[:, 2:].clamp(max=_MOST_GROWTH).exp() / 2
    return torch.cat([new_middle - half, new_middle + half], dim=1)


def _size_and_middle(boxes: Tensor) -> tuple[Tensor, Tensor]:
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    return size, (boxes[:, :2] + boxes[:, 2:]) / 2
