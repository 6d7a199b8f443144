"""The detector: a trunk, proposals on its maps, and a head that looks at each proposal; Faster R-CNN in two shapes.

    stacks ─► trunk ─► maps ─► proposals ─► regions of the maps ─► head ─► categories and boxes
                        └────► the lesions' map (modern, in training only)

May import: lesionary, torch, torchvision, trainers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import MultiScaleRoIAlign, batched_nms, clip_boxes_to_image, nms, remove_small_boxes, roi_pool

from trainers.detector.anchors import anchor_shapes, decode, place_anchors, pyramid_sides
from trainers.detector.presets import DetectorSettings
from trainers.detector.source import StackBatch
from trainers.detector.targets import (
    PROPOSAL_OVERLAPS,
    REGION_OVERLAPS,
    box_loss,
    choose,
    lesion_map,
    map_loss,
    match_boxes,
)
from trainers.detector.trunks import PyramidTrunk, SingleMapTrunk, Views

_BEST_OF_MAP = 400
_PROPOSAL_OVERLAP = 0.7
_SMALLEST_BOX_PX = 1.0
# Regions of boxes up to half this side are cut from the finest map.
_CANONICAL_SIDE_PX = 112
_LESION_SHARE_OF_PROPOSALS = 0.5
_LESION_SHARE_OF_REGIONS = 0.25


@dataclass(frozen=True, slots=True)
class Boxes:
    """What is found on one stack, surest first."""

    boxes: Tensor
    scores: Tensor
    categories: Tensor


class Detector(nn.Module):
    """Finds lesions on stacks."""

    def __init__(self, settings: DetectorSettings, categories: int) -> None:
        """Random weights.

        Args:
            settings: with sides and ratios of anchors.
            categories: that boxes are sorted into; 1 = one class.
        """
        super().__init__()
        self.settings = settings
        self.categories = categories
        self._modern = settings.architecture == "modern"
        views = Views(settings.windows, settings.slices)
        self.trunk = (
            PyramidTrunk(settings.backbone, settings.pyramid_channels, views)
            if self._modern
            else SingleMapTrunk(settings.backbone, views)
        )
        self.shapes = _anchor_shapes(settings, len(self.trunk.strides))
        channels = self.trunk.channels
        self.proposer = _Proposer(channels, len(self.shapes[0]))
        self.cut = MultiScaleRoIAlign(
            [str(number) for number in range(len(self.trunk.strides))],
            settings.region_grid,
            sampling_ratio=settings.samples_per_cell,
            canonical_scale=_CANONICAL_SIDE_PX,
            canonical_level=4,
        )
        # The paper's head has boxes of its own for each category.
        self._boxes_each = 1 if self._modern else categories
        self.head = _Head(channels * settings.region_grid**2, settings.head_width, categories, self._boxes_each)
        self.mapper = nn.Conv2d(channels, 1, 1) if self._modern and settings.map_weight else None

    def forward(self, batch: StackBatch) -> dict[str, Tensor]:
        """Parts of the loss."""
        maps = self.trunk(batch.images)
        with torch.autocast(batch.images.device.type, enabled=False):
            maps = [one.float() for one in maps]
            parts: dict[str, Tensor] = {}
            if self.mapper is not None:
                parts["map"] = self.settings.map_weight * self._map_loss(maps[0], batch)
            scores, deltas, anchors = self._propose(maps)
            generators = [torch.Generator().manual_seed(seed) for seed in batch.seeds.tolist()]
            parts |= self._proposal_losses(scores, deltas, anchors, batch, generators)
            proposals = self._best(scores.detach(), deltas.detach(), anchors, batch.sizes, self.settings.proposals * 2)
            parts |= self._head_losses(maps, proposals, batch, generators)
            return parts

    @torch.inference_mode()
    def find(self, stacks: Tensor, sizes: Tensor) -> list[Boxes]:
        """What is on stacks (n, slices, height, width), of which `sizes` (n, 2) rows and columns are their own."""
        maps = self.trunk(stacks)
        with torch.autocast(stacks.device.type, enabled=False):
            maps = [one.float() for one in maps]
            scores, deltas, anchors = self._propose(maps)
            proposals = self._best(scores, deltas, anchors, sizes, self.settings.proposals)
            logits, head_deltas = self.head(self._regions(maps, proposals))
            counts = [len(one) for one in proposals]
            found = zip(proposals, logits.split(counts), head_deltas.split(counts), sizes.tolist(), strict=True)
            return [self._reported(*one) for one in found]

    def _propose(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Scores (n, anchors) and deltas (n, anchors, 4) of all maps' anchors, and these, map by map."""
        anchors, scores, deltas = [], [], []
        for one, shapes, stride in zip(maps, self.shapes, self.trunk.strides, strict=True):
            score, delta = self.proposer(one)
            scores.append(score)
            deltas.append(delta)
            anchors.append(place_anchors(shapes.to(one.device), stride, *one.shape[-2:]))
        return torch.cat(scores, dim=1), torch.cat(deltas, dim=1), anchors

    def _best(
        self, scores: Tensor, deltas: Tensor, anchors: Sequence[Tensor], sizes: Tensor, count: int
    ) -> list[Tensor]:
        """Each stack's best proposals."""
        lengths = [len(one) for one in anchors]
        every_anchor = torch.cat(list(anchors))
        found = []
        for score, delta, size in zip(scores, deltas, sizes.tolist(), strict=True):
            chosen, levels = [], []
            start = 0
            for level, length in enumerate(lengths):
                best = score[start : start + length].topk(min(_BEST_OF_MAP, length)).indices + start
                chosen.append(best)
                levels.append(torch.full_like(best, level))
                start += length
            picked, level_of = torch.cat(chosen), torch.cat(levels)
            boxes = clip_boxes_to_image(decode(delta[picked], every_anchor[picked]), size)
            kept = remove_small_boxes(boxes, _SMALLEST_BOX_PX)
            boxes, level_of, values = boxes[kept], level_of[kept], score[picked][kept]
            kept = batched_nms(boxes, values, level_of, _PROPOSAL_OVERLAP)[:count]
            found.append(boxes[kept])
        return found

    def _proposal_losses(
        self,
        scores: Tensor,
        deltas: Tensor,
        anchors: Sequence[Tensor],
        batch: StackBatch,
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        every_anchor = torch.cat(list(anchors))
        kind = "giou" if self._modern else "smooth_l1"
        found, placed = [], []
        for at, generator in enumerate(generators):
            lesions, categories = batch.boxes[at], batch.categories[at]
            match = match_boxes(every_anchor, lesions, categories, PROPOSAL_OVERLAPS, every_lesion=True)
            real, nothing = choose(match, self.settings.proposal_sample, _LESION_SHARE_OF_PROPOSALS, generator)
            both = torch.cat([real, nothing])
            wanted = torch.cat([torch.ones_like(real), torch.zeros_like(nothing)]).float()
            found.append(functional.binary_cross_entropy_with_logits(scores[at][both], wanted))
            boxes = lesions[match.lesion[real]] if len(lesions) else lesions
            placed.append(box_loss(deltas[at][real], every_anchor[real], boxes, kind))
        return {
            "proposal": torch.stack(found).mean(),
            "proposal_box": self.settings.box_weight * torch.stack(placed).mean(),
        }

    def _head_losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        batch: StackBatch,
        generators: Sequence[torch.Generator],
    ) -> dict[str, Tensor]:
        chosen: list[Tensor] = []
        numbers: list[Tensor] = []
        lesions_of: list[Tensor] = []
        for at, (proposed, generator) in enumerate(zip(proposals, generators, strict=True)):
            lesions, categories = batch.boxes[at], batch.categories[at]
            # The lesions themselves are among the proposals, so that the head learns from the first step on.
            boxes = torch.cat([proposed, lesions[categories >= 0]])
            match = match_boxes(boxes, lesions, categories, REGION_OVERLAPS, every_lesion=False)
            real, nothing = choose(match, self.settings.region_sample, _LESION_SHARE_OF_REGIONS, generator)
            chosen.append(boxes[torch.cat([real, nothing])])
            # Number 0 is nothing.
            numbers.append(torch.cat([categories[match.lesion[real]] + 1, torch.zeros_like(nothing)]))
            lesions_of.append(lesions[match.lesion[real]])
        logits, deltas = self.head(self._regions(maps, chosen))
        counts = [len(one) for one in chosen]
        sorted_losses, placed = [], []
        kind = "giou" if self._modern else "smooth_l1"
        for one, delta, boxes, wanted, lesions in zip(
            logits.split(counts), deltas.split(counts), chosen, numbers, lesions_of, strict=True
        ):
            sorted_losses.append(functional.cross_entropy(one, wanted) if len(wanted) else one.sum())
            own = self._own_deltas(delta[: len(lesions)], wanted[: len(lesions)] - 1)
            placed.append(box_loss(own, boxes[: len(lesions)], lesions, kind))
        return {
            "category": torch.stack(sorted_losses).mean(),
            "box": self.settings.box_weight * torch.stack(placed).mean(),
        }

    def _map_loss(self, finest: Tensor, batch: StackBatch) -> Tensor:
        assert self.mapper is not None  # noqa: S101 (the caller has looked)
        height, width = finest.shape[-2:]
        marks = zip(batch.axes, batch.boxes, batch.categories, strict=True)
        wanted = torch.stack([lesion_map(*one, self.trunk.strides[0], height, width) for one in marks])
        return map_loss(self.mapper(finest)[:, 0], wanted)

    def _regions(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """What the maps show of boxes: (all boxes, channels × cells)."""
        if self._modern:
            named = {str(number): one for number, one in enumerate(maps)}
            # Sizes only tell strides, and these are whole numbers: any stack's will do.
            height, width = (side * self.trunk.strides[0] for side in maps[0].shape[-2:])
            cut: Tensor = self.cut(named, list(boxes), [(height, width)] * len(boxes))
        else:
            cut = roi_pool(maps[0], list(boxes), self.settings.region_grid, 1.0 / self.trunk.strides[0])
        return cut.flatten(1)

    def _own_deltas(self, deltas: Tensor, categories: Tensor) -> Tensor:
        """Of each box the deltas of its category, where categories have their own."""
        if self._boxes_each == 1:
            return deltas
        rows = torch.arange(len(deltas), device=deltas.device)
        own: Tensor = deltas.reshape(len(deltas), self._boxes_each, 4)[rows, categories]
        return own

    def _reported(self, proposals: Tensor, logits: Tensor, deltas: Tensor, size: list[int]) -> Boxes:
        """The surest boxes of one stack, each lesion once whatever its category."""
        settings = self.settings
        chances = logits.softmax(dim=1)
        scores, categories = 1.0 - chances[:, 0], chances[:, 1:].argmax(dim=1)
        boxes = clip_boxes_to_image(decode(self._own_deltas(deltas, categories), proposals), size)
        sure = (scores >= settings.min_score).nonzero().squeeze(1)
        sure = sure[remove_small_boxes(boxes[sure], _SMALLEST_BOX_PX)]
        kept = sure[nms(boxes[sure], scores[sure], settings.overlap)][: settings.max_boxes]
        return Boxes(boxes[kept], scores[kept], categories[kept])


class _Proposer(nn.Module):
    """How likely each anchor of a map is a lesion, and how it should be moved."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.look = nn.Conv2d(channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, anchors, 1)
        self.move = nn.Conv2d(channels, anchors * 4, 1)
        for layer in (self.look, self.score, self.move):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """(n, anchors) and (n, anchors, 4), in the order of `place_anchors`."""
        seen = functional.relu(self.look(maps))
        score = self.score(seen).permute(0, 2, 3, 1).flatten(1)
        move = self.move(seen).permute(0, 2, 3, 1).reshape(len(maps), -1, 4)
        return score, move


class _Head(nn.Module):
    """What a region is, and how its box should be moved."""

    def __init__(self, inputs: int, width: int, categories: int, boxes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.sort = nn.Linear(width, categories + 1)
        self.move = nn.Linear(width, boxes * 4)
        nn.init.normal_(self.sort.weight, std=0.01)
        nn.init.normal_(self.move.weight, std=0.001)

    def forward(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, categories + 1), nothing first, and deltas (n, boxes × 4)."""
        seen = self.layers(regions)
        return self.sort(seen), self.move(seen)


def _anchor_shapes(settings: DetectorSettings, maps: int) -> list[Tensor]:
    """Widths and heights of each map's anchors."""
    if settings.architecture == "paper":
        return [anchor_shapes(settings.anchors_px, settings.anchor_ratios)]
    sides = pyramid_sides(settings.anchors_px[0], maps)
    return [anchor_shapes(one, settings.anchor_ratios) for one in sides]
