"""What a detector should say: which boxes stand for which lesion, which of them are learnt from, and the lesions' map.

Choices are drawn for each stack by itself, from the stack's own seed: the workers' number changes none of them.

May import: lesionary, torch, torchvision.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou, generalized_box_iou_loss

from trainers.detector.anchors import decode, encode

# Of a map's cell that has the lesion's edge in it, so much counts as lesion.
_EDGE_PX = 1.0


@dataclass(frozen=True, slots=True)
class Overlaps:
    """From which overlap (IoU) on a box is a lesion's, and below which it is nothing's; between them it is neither."""

    lesion: float
    nothing: float


PROPOSAL_OVERLAPS = Overlaps(0.6, 0.3)
REGION_OVERLAPS = Overlaps(0.5, 0.5)


@dataclass(frozen=True, slots=True)
class Match:
    """What some boxes of one stack stand for."""

    lesion: Tensor
    """(n,) number of the lesion that overlaps most; meaningless without lesions."""
    is_lesion: Tensor
    """(n,) bool."""
    is_nothing: Tensor
    """(n,) bool."""


def match_boxes(boxes: Tensor, lesions: Tensor, categories: Tensor, overlaps: Overlaps, *, every_lesion: bool) -> Match:
    """Which boxes are which lesion's.

    Args:
        boxes: (n, 4).
        lesions: (k, 4).
        categories: (k,); boxes of those below 0 are neither a lesion's nor nothing's.
        overlaps: what counts.
        every_lesion: whether the boxes that overlap a lesion most are its, however little that is.
    """
    count = len(boxes)
    if not len(lesions):
        never = torch.zeros(count, dtype=torch.bool, device=boxes.device)
        return Match(torch.zeros(count, dtype=torch.int64, device=boxes.device), never, ~never)
    overlap = box_iou(boxes, lesions)
    best, lesion = overlap.max(dim=1)
    is_lesion = best >= overlaps.lesion
    if every_lesion:
        most = overlap.max(dim=0).values
        is_best = (overlap == most) & (overlap > 1e-3)
        lesion = torch.where(is_best.any(dim=1), is_best.to(torch.int8).argmax(dim=1), lesion)
        is_lesion = is_lesion | is_best.any(dim=1)
    is_nothing = ~is_lesion & (best < overlaps.nothing)
    known = categories >= 0
    if not bool(known.all()):
        is_lesion = is_lesion & known[lesion]
        is_nothing = is_nothing & (overlap[:, ~known].max(dim=1).values < 0.1)
    return Match(lesion, is_lesion, is_nothing)


def choose(match: Match, count: int, lesion_share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Positions of boxes to learn from: of lesions, and of nothing; together `count` where there are enough.

    Args:
        match: of one stack.
        count: wanted.
        lesion_share: at most this share is of lesions.
        generator: of the stack, on the CPU.
    """
    lesions = _some(match.is_lesion, int(count * lesion_share), generator)
    nothing = _some(match.is_nothing, count - len(lesions), generator)
    return lesions, nothing


def _some(wanted: Tensor, count: int, generator: torch.Generator) -> Tensor:
    found = wanted.nonzero().squeeze(1)
    order = torch.randperm(len(found), generator=generator)[:count]
    return found[order.to(found.device)]


def box_loss(deltas: Tensor, anchors: Tensor, boxes: Tensor, kind: str) -> Tensor:
    """How far predicted boxes are off, the mean over them; 0 without any.

    Args:
        deltas: (n, 4) predicted.
        anchors: (n, 4) that they refer to.
        boxes: (n, 4) true.
        kind: "smooth_l1" of the deltas, or "giou" of the boxes.
    """
    if not len(deltas):
        return deltas.sum()
    if kind == "giou":
        loss: Tensor = generalized_box_iou_loss(decode(deltas, anchors), boxes, reduction="mean")
        return loss
    return functional.smooth_l1_loss(deltas, encode(boxes, anchors), beta=1 / 9, reduction="sum") / len(deltas)


def lesion_map(axes: Tensor, boxes: Tensor, categories: Tensor, stride: int, height: int, width: int) -> Tensor:
    """A map (height, width) of one stack: 1 in the ellipse of a lesion's diameters, 0 elsewhere, -1 = not known.

    A lesion without a short diameter is taken as round. Between an ellipse and its box nothing is known: the ellipse is
    where the lesion is for certain, not where it ends.
    """
    down = (torch.arange(height, device=axes.device, dtype=torch.float32) + 0.5) * stride
    across = (torch.arange(width, device=axes.device, dtype=torch.float32) + 0.5) * stride
    y, x = torch.meshgrid(down, across, indexing="ij")
    made = torch.zeros(height, width, device=axes.device)
    for box in boxes:
        made[(x >= box[0]) & (x <= box[2]) & (y >= box[1]) & (y <= box[3])] = -1.0
    for axis, category in zip(axes, categories, strict=True):
        if category >= 0:
            made[_ellipse(axis, x, y, stride)] = 1.0
    return made


def _ellipse(axis: Tensor, x: Tensor, y: Tensor, stride: int) -> Tensor:
    """Whether places lie in the ellipse of two diameters."""
    long = axis[2:4] - axis[:2]
    length = long.norm().clamp(min=1e-3)
    short = (axis[6:8] - axis[4:6]).norm() if bool(axis[4:].isfinite().all()) else length
    middle = (axis[:2] + axis[2:4]) / 2
    if bool(axis[4:].isfinite().all()):
        middle = (middle + (axis[4:6] + axis[6:8]) / 2) / 2
    unit = long / length
    along = (x - middle[0]) * unit[0] + (y - middle[1]) * unit[1]
    aside = (y - middle[1]) * unit[0] - (x - middle[0]) * unit[1]
    # However small, a lesion has the cell that its middle is in.
    half = torch.stack([length, short]) / 2
    half = half.clamp(min=_EDGE_PX * stride / 2**0.5)
    inside: Tensor = (along / half[0]) ** 2 + (aside / half[1]) ** 2 <= 1.0
    return inside


def map_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """How wrong lesions' maps (n, height, width) are, the mean over stacks.

    Of each stack, lesion and other cells count half each, however few there are of the first; and the overlap counts
    (Dice), so that the map's edge is worth learning.
    """
    lesion, other = (wanted == 1).float(), (wanted == 0).float()
    errors = functional.binary_cross_entropy_with_logits(logits, lesion, reduction="none")
    weighted = [(errors * part).sum(dim=(1, 2)) / part.sum(dim=(1, 2)).clamp(min=1.0) for part in (lesion, other)]
    said = logits.sigmoid() * (wanted >= 0)
    shared = (said * lesion).sum(dim=(1, 2))
    dice = 1 - (2 * shared + 1) / (said.sum(dim=(1, 2)) + lesion.sum(dim=(1, 2)) + 1)
    has_lesion = lesion.sum(dim=(1, 2)) > 0
    loss: Tensor = (weighted[0] / 2 + weighted[1] / 2 + dice * has_lesion).mean()
    return loss
