"""From a detector's boxes on single slices to lesions: boxes that say the same are thinned out, neighbours are linked.

Three steps, each greedy, surest first: on a slice, a box that overlaps a surer one too much goes; from slice to slice,
boxes that overlap are linked into tracklets, the best fitting pair first; of tracklets, one that lies mostly within a
surer one goes. Every box that is left belongs to exactly one tracklet. What comes out depends on the boxes alone: equal
scores and overlaps are decided by position.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What counts as the same lesion."""

    slice_iou: float = 0.5
    """On one slice, a box that overlaps a surer one by more is the same lesion."""
    link_iou: float = 0.3
    """From slice to slice, boxes that overlap by at least so much are the same lesion."""
    gap_slices: int = 1
    """So many slices in between may lack a box."""
    reach_mm: float = 10.0
    """Boxes of slices that are farther apart are never linked; where places are unknown, numbers of slices decide."""
    same_share: float = 0.5
    """A tracklet of which at least so much lies within a surer one is the same lesion."""


@dataclass(frozen=True, slots=True)
class SliceBoxes:
    """What a detector sees on one slice."""

    slice_index: int
    z_mm: float
    """Not a number where unknown."""
    boxes: NDArray[np.float64]
    """(k, 4): x0, y0, x1, y1."""
    scores: NDArray[np.float64]
    categories: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class TrackBox:
    """One box of a tracklet."""

    slice_index: int
    z_mm: float
    box: Box
    score: float
    category: int


@dataclass(frozen=True, slots=True)
class Tracklet:
    """One lesion: its boxes, by ascending slice, one on each of its slices."""

    boxes: tuple[TrackBox, ...]

    @property
    def key(self) -> TrackBox:
        """The surest box; of equals, the one on the first slice."""
        return min(self.boxes, key=lambda one: (-one.score, one.slice_index))

    @property
    def rank(self) -> tuple[float, int, Box]:
        """Sorts tracklets: the surest first, then by position."""
        key = self.key
        return -key.score, key.slice_index, key.box


def find_tracklets(slices: Iterable[SliceBoxes], settings: LinkSettings) -> list[Tracklet]:
    """Lesions of one series, the surest first.

    Args:
        slices: thinned out, in any order.
        settings: what counts as the same lesion.
    """
    return drop_repeated(link(slices, settings), settings)


def single_boxes(slices: Iterable[SliceBoxes]) -> list[Tracklet]:
    """Every box by itself, the surest first: for slices that were looked at without their neighbours."""
    return sorted((Tracklet((box,)) for one in slices for box in _rows(one)), key=lambda one: one.rank)


def thin_out(found: SliceBoxes, iou: float, most: int | None = None) -> SliceBoxes:
    """The boxes of a slice without those that overlap a surer one by more than `iou`, the surest first.

    Args:
        found: the slice's boxes.
        iou: intersection over union.
        most: keep no more than this; all of them unless given.
    """
    boxes = found.boxes
    order = np.lexsort((found.categories, *boxes.T[::-1], -found.scores))
    overlaps = overlap(boxes, boxes)
    kept: list[int] = []
    for row in order.tolist():
        if most is not None and len(kept) == most:
            break
        if not kept or float(overlaps[row, kept].max()) <= iou:
            kept.append(row)
    return SliceBoxes(found.slice_index, found.z_mm, boxes[kept], found.scores[kept], found.categories[kept])


def overlap(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) intersections over unions; 0 where both boxes are empty."""
    shared = _shared_areas(left, right)
    unions = _areas(left)[:, None] + _areas(right) - shared
    return np.divide(shared, unions, out=np.zeros_like(shared), where=unions > 0)


def link(slices: Iterable[SliceBoxes], settings: LinkSettings) -> list[Tracklet]:
    """Tracklets out of the boxes of slices, which must not repeat themselves on any of these.

    A tracklet takes one box of a slice at most, and a box joins one tracklet.
    """
    tracks: list[list[TrackBox]] = []
    ending: list[list[TrackBox]] = []
    for one in sorted(slices, key=lambda found: found.slice_index):
        # Slices only go up: a track whose end has fallen behind is over.
        ending = [track for track in ending if one.slice_index - track[-1].slice_index <= 1 + settings.gap_slices]
        here = [track for track in ending if within_reach(track[-1], one.slice_index, one.z_mm, settings)]
        fresh = _rows(one)
        taken = _best_pairs([track[-1] for track in here], fresh, settings.link_iou)
        for row, box in enumerate(fresh):
            if row in taken:
                here[taken[row]].append(box)
            else:
                tracks.append([box])
                ending.append(tracks[-1])
    return sorted((Tracklet(tuple(track)) for track in tracks), key=lambda one: one.rank)


def within_reach(box: TrackBox, slice_index: int, z_mm: float, settings: LinkSettings) -> bool:
    """Whether a box of that slice may be the same lesion's."""
    if abs(slice_index - box.slice_index) > 1 + settings.gap_slices:
        return False
    distance = abs(z_mm - box.z_mm)
    return math.isnan(distance) or distance <= settings.reach_mm


def drop_repeated(tracklets: Sequence[Tracklet], settings: LinkSettings) -> list[Tracklet]:
    """Tracklets, the surest first, without those that lie mostly within one that is kept.

    A tracklet goes on a little beyond its ends, as far as it might have been linked: what is left there of the same
    lesion is no second one.
    """
    kept: list[Tracklet] = []
    # First and last slice, and what the boxes cover, of those that are kept.
    extents = np.empty((len(tracklets), 6))
    reach = 1 + settings.gap_slices
    for one in sorted(tracklets, key=lambda found: found.rank):
        first, last, left, top, right, bottom = extent = _extent(one)
        others = extents[: len(kept)]
        near = (others[:, 0] <= last + reach) & (others[:, 1] >= first - reach)
        near &= (others[:, 2] < right) & (others[:, 4] > left) & (others[:, 3] < bottom) & (others[:, 5] > top)
        if all(share_within(one, kept[at], settings) < settings.same_share for at in np.flatnonzero(near)):
            extents[len(kept)] = extent
            kept.append(one)
    return kept


def share_within(inner: Tracklet, outer: Tracklet, settings: LinkSettings) -> float:
    """How much of a tracklet's volume lies within another one, which goes on to where it might have been linked."""
    whole = shared = 0.0
    reach = 1 + settings.gap_slices
    for box in inner.boxes:
        whole += _shared(box.box, box.box)
        index = box.slice_index
        near = [
            one
            for one in outer.boxes
            if index - reach <= one.slice_index <= index + reach and within_reach(one, index, box.z_mm, settings)
        ]
        if near:
            nearest = min(near, key=lambda one: (abs(one.slice_index - index), one.slice_index))
            shared += _shared(box.box, nearest.box)
    return shared / whole if whole > 0 else 0.0


def _extent(tracklet: Tracklet) -> tuple[float, ...]:
    """First and last slice, and what all of its boxes cover."""
    x0, y0, x1, y1 = zip(*(one.box for one in tracklet.boxes), strict=True)
    ends = tracklet.boxes[0].slice_index, tracklet.boxes[-1].slice_index
    return (*ends, min(x0), min(y0), max(x1), max(y1))


def _shared(one: Box, other: Box) -> float:
    """The area that two boxes share. Single boxes are quicker without numpy."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0


def _best_pairs(last: Sequence[TrackBox], fresh: Sequence[TrackBox], link_iou: float) -> dict[int, int]:
    """Row of `fresh` to that of `last`: each at most once, best overlap first, then the nearer slice, then position."""
    if not last or not fresh:
        return {}
    overlaps = overlap(np.array([one.box for one in last]), np.array([one.box for one in fresh]))
    pairs = sorted(
        (-float(overlaps[left, right]), -last[left].slice_index, last[left].box, fresh[right].box, left, right)
        for left, right in np.argwhere(overlaps >= link_iou).tolist()
    )
    taken: dict[int, int] = {}
    used: set[int] = set()
    for *_, left, right in pairs:
        if left not in used and right not in taken:
            taken[right] = left
            used.add(left)
    return taken


def _rows(found: SliceBoxes) -> list[TrackBox]:
    columns = found.boxes.tolist(), found.scores.tolist(), found.categories.tolist()
    return [
        TrackBox(found.slice_index, found.z_mm, (box[0], box[1], box[2], box[3]), score, category)
        for box, score, category in zip(*columns, strict=True)
    ]


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    areas: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return areas


def _shared_areas(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, m) areas that two boxes share."""
    low = np.maximum(left[:, None, :2], right[None, :, :2])
    high = np.minimum(left[:, None, 2:], right[None, :, 2:])
    sides = np.maximum(high - low, 0.0)
    areas: NDArray[np.float64] = sides[..., 0] * sides[..., 1]
    return areas
