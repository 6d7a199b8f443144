"""What a detector should say: anchors, matches, choices, losses and maps, each against plain arithmetic."""

import math

import numpy as np
import pytest
import torch

from trainers.detector.anchors import (
    anchor_shapes,
    anchors_of_data,
    decode,
    encode,
    place_anchors,
    pyramid_sides,
)
from trainers.detector.targets import (
    PROPOSAL_OVERLAPS,
    REGION_OVERLAPS,
    box_loss,
    choose,
    lesion_map,
    map_loss,
    match_boxes,
)


def test_anchors_keep_their_area_whatever_their_ratio():
    shapes = anchor_shapes([16.0, 32.0], [0.5, 1.0, 2.0])

    assert torch.allclose(shapes.prod(dim=1), torch.tensor([256.0] * 3 + [1024.0] * 3))
    assert torch.allclose(shapes[:, 1] / shapes[:, 0], torch.tensor([0.5, 1.0, 2.0] * 2))


def test_anchors_lie_around_the_middles_of_cells_row_by_row():
    placed = place_anchors(torch.tensor([[8.0, 4.0]]), 10, height=2, width=3)

    assert placed.shape == (6, 4)
    assert placed[0].tolist() == [1.0, 3.0, 9.0, 7.0]
    assert placed[1].tolist() == [11.0, 3.0, 19.0, 7.0]
    assert placed[3].tolist() == [1.0, 13.0, 9.0, 17.0]


def test_anchors_of_data_follow_the_boxes():
    sides = np.linspace(10, 50, 101, dtype=np.float32)
    boxes = np.stack([np.zeros(101), np.zeros(101), sides, sides], axis=1).astype(np.float32)

    side, ratios = anchors_of_data(boxes)

    assert side == pytest.approx(18.0)
    assert ratios == (1.0, 1.0, 1.0)
    assert anchors_of_data(boxes * [1, 1, 1, 9])[1] == (3.0, 3.0, 3.0)  # no flatter and no taller than that
    assert pyramid_sides(16.0, 2) == [(16.0, pytest.approx(16 * 2**0.5)), (32.0, pytest.approx(32 * 2**0.5))]


def test_deltas_say_boxes_and_boxes_come_back():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 80, (2, 200, 2)), rng.uniform(2, 40, (2, 200, 2))
    anchors, boxes = (torch.tensor(np.concatenate([corner[i], corner[i] + size[i]], axis=1)).float() for i in (0, 1))

    assert torch.allclose(decode(encode(boxes, anchors), anchors), boxes, atol=1e-3)
    assert encode(anchors, anchors).abs().max() == 0
    assert decode(torch.tensor([[0.0, 0.0, 99.0, 0.0]]), anchors[:1]).isfinite().all()


def iou(one, other):
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("every_lesion", [True, False])
@pytest.mark.parametrize("overlaps", [PROPOSAL_OVERLAPS, REGION_OVERLAPS])
def test_matches_are_those_of_plain_loops(every_lesion, overlaps):
    rng = np.random.default_rng(3)
    for _ in range(60):
        boxes = rng.uniform(0, 40, (25, 4)).astype(np.float32)
        boxes[:, 2:] = boxes[:, :2] + rng.uniform(4, 30, (25, 2))
        lesions = boxes[rng.choice(25, 3, replace=False)] + rng.normal(0, 3, (3, 4)).astype(np.float32)
        lesions[:, 2:] = np.maximum(lesions[:, 2:], lesions[:, :2] + 2)

        found = match_boxes(
            torch.tensor(boxes), torch.tensor(lesions), torch.zeros(3).long(), overlaps, every_lesion=every_lesion
        )

        table = np.array([[iou(box, lesion) for lesion in lesions] for box in boxes])
        for at in range(25):
            chosen = [
                k
                for k in range(3)
                if table[at, k] > 1e-3 and math.isclose(table[at, k], table[:, k].max(), abs_tol=1e-6)
            ]
            is_lesion = table[at].max() >= overlaps.lesion or (every_lesion and bool(chosen))
            assert bool(found.is_lesion[at]) == is_lesion
            assert bool(found.is_nothing[at]) == (not is_lesion and table[at].max() < overlaps.nothing)
            if is_lesion:
                wanted = chosen[0] if every_lesion and chosen else int(table[at].argmax())
                assert int(found.lesion[at]) == wanted


def test_nothing_is_learnt_from_an_ignored_lesion_nor_from_around_it():
    boxes = torch.tensor([[0.0, 0, 10, 10], [2, 2, 12, 12], [50, 50, 60, 60], [80, 80, 90, 90]])
    lesions = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])

    found = match_boxes(boxes, lesions, torch.tensor([-1, 0]), PROPOSAL_OVERLAPS, every_lesion=True)

    assert found.is_lesion.tolist() == [False, False, True, False]
    assert found.is_nothing.tolist() == [False, False, False, True]


def test_a_stack_without_lesions_is_all_nothing():
    found = match_boxes(torch.rand(5, 4), torch.empty(0, 4), torch.empty(0).long(), REGION_OVERLAPS, every_lesion=True)

    assert not found.is_lesion.any()
    assert found.is_nothing.all()


def test_choices_keep_the_shares_and_follow_from_the_seed():
    boxes = torch.rand(400, 4).cumsum(dim=1)
    found = match_boxes(boxes, boxes[:60] + 1e-4, torch.zeros(60).long(), PROPOSAL_OVERLAPS, every_lesion=True)

    lesions, nothing = choose(found, 40, 0.25, torch.Generator().manual_seed(1))

    assert len(lesions) == 10
    assert len(nothing) == min(30, int(found.is_nothing.sum()))
    assert found.is_lesion[lesions].all()
    assert found.is_nothing[nothing].all()
    again = choose(found, 40, 0.25, torch.Generator().manual_seed(1))
    assert torch.equal(lesions, again[0])
    assert not torch.equal(lesions, choose(found, 40, 0.25, torch.Generator().manual_seed(2))[0])


def test_box_losses_by_hand():
    anchors, boxes = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[5.0, 0, 15, 10]])
    still = torch.zeros(1, 4)

    # A third is shared, and the hull is as large as the union.
    assert box_loss(still, anchors, boxes, "giou").item() == pytest.approx(1 - 1 / 3, abs=1e-4)
    # One delta is off by a half, beyond the bend.
    assert box_loss(still, anchors, boxes, "smooth_l1").item() == pytest.approx(0.5 - 1 / 18)
    nothing = box_loss(torch.zeros(0, 4, requires_grad=True), anchors[:0], boxes[:0], "giou")
    assert nothing.item() == 0
    assert nothing.requires_grad


def test_the_map_shows_the_ellipse_and_leaves_the_rest_of_the_box_open():
    axes = torch.tensor([[10.0, 20, 30, 20, 20, 14, 20, 26]])
    made = lesion_map(axes, torch.tensor([[8.0, 12, 32, 28]]), torch.tensor([0]), 1, 40, 40)

    y, x = np.mgrid[:40, :40] + 0.5
    ellipse = ((x - 20) / 10) ** 2 + ((y - 20) / 6) ** 2 <= 1
    box = (x >= 8) & (x <= 32) & (y >= 12) & (y <= 28)
    assert np.array_equal(made.numpy() == 1, ellipse)
    assert np.array_equal(made.numpy() == -1, box & ~ellipse)


def test_the_map_of_tilted_diameters_is_tilted():
    axes = torch.tensor([[10.0, 10, 30, 30, 22, 18, 18, 22]])
    made = lesion_map(axes, torch.empty(0, 4), torch.tensor([0]), 1, 40, 40)

    assert made[28, 28] == 1
    assert made[12, 28] == 0


def test_a_lesion_smaller_than_a_cell_is_seen_and_one_without_a_short_diameter_is_round():
    tiny = torch.tensor([[10.0, 10, 11, 10, 10.5, 9.5, 10.5, 10.5]])
    single = torch.tensor([[10.0, 20, 30, 20] + [math.nan] * 4])

    assert (lesion_map(tiny, torch.empty(0, 4), torch.tensor([0]), 4, 10, 10) == 1).sum() >= 1
    round_area = (lesion_map(single, torch.empty(0, 4), torch.tensor([0]), 1, 40, 40) == 1).sum()
    assert round_area == pytest.approx(math.pi * 100, rel=0.05)
    assert (lesion_map(single, torch.tensor([[9.0, 9, 31, 31]]), torch.tensor([-1]), 1, 40, 40) != 1).all()


def test_the_map_loss_by_hand():
    wanted = torch.tensor([[[1.0, 0.0, 0.0, -1.0]]])
    logits = torch.tensor([[[0.0, 0.0, 0.0, 9.0]]])

    # Halves of the chance of a coin, and Dice of half a cell among three halves.
    expected = math.log(2) / 2 + math.log(2) / 2 + 1 - (2 * 0.5 + 1) / (1.5 + 1 + 1)
    assert map_loss(logits, wanted).item() == pytest.approx(expected, abs=1e-5)
    assert map_loss(torch.full((1, 1, 4), -20.0), torch.zeros(1, 1, 4)).item() == pytest.approx(0, abs=1e-6)
