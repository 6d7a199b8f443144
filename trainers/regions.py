"""Regions of interest, one for each image: a box's part of a feature map, as a small grid.

`align` is RoI align as torchvision computes it (`aligned=True`, as many samples as the box has pixels), written as two
small matrix products: bilinear samples over a grid are separable, so a row matrix and a column matrix do it. Against
`torchvision.ops.roi_align` it keeps the map's memory format and number type, and its gradient adds in a fixed order,
also on a GPU. `pool` is torchvision's RoI max pooling, which the paper's networks used.

May import: torch, torchvision, trainers.backbones.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import roi_pool

from trainers.backbones import STAGES, Backbone

# The deepest stage sees the patch, the others the box.
_CONTEXT_STAGE = 5

REGIONS: tuple[str, ...] = ("align", "pool")
"""Ways to cut a region out of a map."""


def stage_regions(
    backbone: Backbone,
    images: Tensor,
    boxes: Tensor,
    extents: Tensor,
    *,
    grid: int,
    how: str = "align",
    stages: Sequence[int] = STAGES,
) -> dict[int, Tensor]:
    """What each stage sees: of stages 2 to 4 the box, of stage 5 the extent; (n, channels, grid, grid) float32 each.

    Args:
        backbone: whose stages.
        images: (n, 3, height, width), 0…255.
        boxes: (n, 4) as x0, y0, x1, y1 in pixels of the image, the lesion's.
        extents: (n, 4) likewise, of the lesion with its surroundings.
        grid: cells along each side.
        how: one of `REGIONS`.
        stages: those that are wanted.
    """
    maps = dict(zip(STAGES, zip(backbone(images), backbone.strides, strict=True), strict=True))
    found = {}
    for stage in stages:
        values, stride = maps[stage]
        found[stage] = cut_regions(values, extents if stage == _CONTEXT_STAGE else boxes, stride, grid, how)
    return found


def joined_features(regions: dict[int, Tensor]) -> Tensor:
    """Every stage's region as a vector of length one, joined: (n, sum of their sizes)."""
    return torch.cat([unit(region.flatten(1)) for region in regions.values()], dim=1)


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length one; a vector of nothing but zeros stays one."""
    return functional.normalize(vectors, dim=1)


def cut_regions(maps: Tensor, boxes: Tensor, stride: int, grid: int, how: str) -> Tensor:
    """One region of each map, on a grid of `grid` x `grid` cells, as float32.

    Args:
        maps: (n, channels, height, width).
        boxes: (n, 4) as x0, y0, x1, y1 in image pixels, edges (not centres) of pixels; one for each map.
        stride: image pixels for one pixel of the map.
        grid: cells along each side.
        how: one of `REGIONS`.

    Returns:
        (n, channels, grid, grid).
    """
    if how == "pool":
        numbers = torch.arange(len(boxes), dtype=torch.float32, device=boxes.device)
        numbered = torch.cat([numbers[:, None], boxes.float()], dim=1)
        pooled: Tensor = roi_pool(maps.float(), numbered, grid, 1.0 / stride)
        return pooled
    return _align(maps, boxes / stride, grid)


def _align(maps: Tensor, boxes: Tensor, grid: int) -> Tensor:
    height, width = maps.shape[-2:]
    # Weights are made in the boxes' precision, and the products are done in the maps' own or better.
    precision = torch.promote_types(maps.dtype, torch.float32)
    rows = _sampling(boxes[:, 1], boxes[:, 3], height, grid).to(precision)
    columns = _sampling(boxes[:, 0], boxes[:, 2], width, grid).to(precision)
    with torch.autocast(maps.device.type, enabled=False):
        # (n, height, width, channels) is how channels_last lies in memory, so nothing is copied there.
        last = maps.permute(0, 2, 3, 1).to(precision)
        cut = torch.bmm(rows, last.reshape(len(last), height, -1))
        cut = cut.reshape(len(last), grid, width, -1)
        return torch.einsum("nqx,npxc->ncpq", columns, cut)


def _sampling(start: Tensor, end: Tensor, size: int, grid: int) -> Tensor:
    """How much each of `size` pixels counts in each of `grid` cells between start and end: (n, grid, size)."""
    cell = (end - start) / grid
    # A box within the map, or little beyond, has no more samples; a larger one would be sampled more coarsely.
    most = -(-size // grid) + 2
    samples = cell.ceil().clamp(1, most)
    numbers = torch.arange(most, device=start.device)
    cells = torch.arange(grid, device=start.device)
    step = (numbers + 0.5) / samples[:, None]
    # Minus half a pixel: coordinates are edges, pixels lie at their centres.
    places = start[:, None, None] - 0.5 + (cells[:, None] + step[:, None, :]) * cell[:, None, None]
    counted = (numbers < samples[:, None])[:, None, :] & (places >= -1) & (places <= size)
    places = places.clamp(0, size - 1)
    pixels = torch.arange(size, device=start.device, dtype=places.dtype)
    shares = (1 - (places[..., None] - pixels).abs()).clamp(min=0) * counted[..., None]
    return shares.sum(dim=2) / samples[:, None, None]
