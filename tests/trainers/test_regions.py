"""Regions of interest against a loop that follows the definition, against torchvision, and by finite differences."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from trainers.regions import cut_regions, unit


def bilinear(plane: Tensor, y: float, x: float) -> float:
    """A plane's value between its pixels' centres; beyond the outermost ones they go on for a pixel."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    return float(
        plane[top, left] * (1 - down) * (1 - across)
        + plane[top, right] * (1 - down) * across
        + plane[bottom, left] * down * (1 - across)
        + plane[bottom, right] * down * across
    )


def align_by_loops(maps: Tensor, boxes: Tensor, stride: int, grid: int) -> Tensor:
    found = torch.zeros(*maps.shape[:2], grid, grid, dtype=maps.dtype)
    for number, box in enumerate(boxes.tolist()):
        x0, y0, x1, y1 = (side / stride - 0.5 for side in box)
        cell_x, cell_y = (x1 - x0) / grid, (y1 - y0) / grid
        many_x, many_y = math.ceil(cell_x), math.ceil(cell_y)
        for channel, plane in enumerate(maps[number]):
            for row in range(grid):
                for column in range(grid):
                    values = [
                        bilinear(
                            plane,
                            y0 + (row + (j + 0.5) / many_y) * cell_y,
                            x0 + (column + (i + 0.5) / many_x) * cell_x,
                        )
                        for j in range(many_y)
                        for i in range(many_x)
                    ]
                    found[number, channel, row, column] = sum(values) / len(values)
    return found


MAPS = torch.randn(4, 3, 11, 13, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
# Inside, over the edge, of less than a pixel, and the whole map.
BOXES = torch.tensor(
    [[4.3, 2.2, 19.7, 17.9], [-1.5, -1.0, 27.0, 23.5], [10.0, 10.0, 10.4, 10.7], [0, 0, 26, 22]], dtype=torch.float64
)


@pytest.mark.parametrize("grid", [1, 3, 5])
def test_align_follows_the_definition(grid: int) -> None:
    found = cut_regions(MAPS, BOXES, 2, grid, "align")
    assert torch.allclose(found, align_by_loops(MAPS, BOXES, 2, grid), rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [1, 5])
def test_align_equals_torchvisions(grid: int) -> None:
    numbered = torch.cat([torch.arange(4, dtype=torch.float64)[:, None], BOXES], dim=1)
    theirs = roi_align(MAPS, numbered, grid, 0.5, sampling_ratio=0, aligned=True)
    assert torch.allclose(cut_regions(MAPS, BOXES, 2, grid, "align"), theirs, rtol=0, atol=1e-12)


def test_pool_takes_the_largest_value_of_each_cell() -> None:
    maps = torch.arange(64.0).reshape(1, 1, 8, 8)
    # Torchvision's pooling counts a box's last pixel in: 0…7 of 8 pixels.
    found = cut_regions(maps, torch.tensor([[0.0, 0.0, 7.0, 7.0]]), 1, 2, "pool")
    assert found[0, 0].tolist() == [[27.0, 31.0], [59.0, 63.0]]


def test_a_constant_map_stays_constant_wherever_the_box_lies() -> None:
    maps = torch.full((2, 1, 9, 9), 3.0)
    found = cut_regions(maps, torch.tensor([[0.0, 0.0, 36.0, 36.0], [7.3, 1.1, 20.0, 33.0]]), 4, 5, "align")
    assert torch.allclose(found, torch.full((2, 1, 5, 5), 3.0))


def test_gradients_agree_with_finite_differences() -> None:
    maps = MAPS[:2, :2, :6, :5].clone().requires_grad_()
    boxes = BOXES[:2] / 2.5
    assert torch.autograd.gradcheck(lambda values: cut_regions(values, boxes, 2, 3, "align"), (maps,))


def test_memory_format_changes_nothing_and_half_precision_little() -> None:
    maps, boxes = MAPS.float(), BOXES.float()
    plain = cut_regions(maps, boxes, 2, 5, "align")
    last = cut_regions(maps.to(memory_format=torch.channels_last), boxes, 2, 5, "align")
    assert torch.allclose(plain, last, rtol=0, atol=1e-6)
    coarse = cut_regions(maps.bfloat16(), boxes, 2, 5, "align")
    assert coarse.dtype == torch.float32
    # Only the map itself is rounded to eight bits, the sums are not.
    assert torch.allclose(plain, coarse, rtol=0, atol=float(maps.abs().max()) * 2**-8)


def test_unit_vectors_have_length_one_and_nothing_stays_nothing() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-6, 0.0]])
    assert torch.allclose(unit(vectors), torch.tensor([[0.6, 0.8], [0.0, 0.0], [1.0, 0.0]]))
