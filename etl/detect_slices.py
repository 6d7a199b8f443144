"""A detector over the slices of one series: stacks in batches, and its boxes back on the slices.

Batches are made within a series, in the order of its slices, and all stacks of a series have one frame: what the
network is shown does not depend on who works on what.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from etl.patch_cutting import Series
from etl.stack_geometry import SliceSource, StackFrame, StackMaker, frame_for
from etl.tracklets import LinkSettings, SliceBoxes, Tracklet, find_tracklets, single_boxes, thin_out
from lesionary.errors import InternalError, UsageError
from lesionary.stack_schema import FindLesions, Found, StackSettings

Item = TypeVar("Item")

# A series' frame is found on slices so far apart.
_BODY_STEP_MM = 5.0


@dataclass(frozen=True, slots=True)
class DetectorInput:
    """What a detector was taught on, and so has to be shown."""

    model_id: str
    stack: StackSettings
    box_padding_px: float
    """Pixels of the slice that its boxes have on every side of a lesion; taken off again."""
    batch_slices: int = 4
    """Stacks at once."""


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """Which boxes are kept, and which of them are one lesion."""

    min_score: float = 0.05
    max_per_slice: int = 50
    links: LinkSettings = field(default_factory=LinkSettings)

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            UsageError: a value is out of its range.
        """
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"a score lies between 0 and 1, found {self.min_score:g}", where="--min-score")
        if not 1 <= self.max_per_slice <= 1000:
            raise UsageError(f"between 1 and 1000 boxes, found {self.max_per_slice}", where="--max-per-slice")


def tracklets_of(
    reader: SliceSource,
    series: Series,
    slice_indices: Sequence[int],
    find: FindLesions,
    shown: DetectorInput,
    settings: DetectSettings,
    *,
    linked: bool = True,
) -> list[Tracklet]:
    """The lesions that a detector sees on some slices of a series, the surest first; boxes as the detector pads them.

    Args:
        reader: of the slices.
        series: that they belong to.
        slice_indices: ascending, at least one.
        find: the detector.
        shown: what it is to be shown.
        settings: what is kept.
        linked: whether neighbours are looked at too, so that boxes can be linked; otherwise each stays by itself.

    Raises:
        LakeError: a slice cannot be read.
        InternalError: the detector gives no numbers.
    """
    found = _boxes_on(reader, series, slice_indices, find, shown, settings)
    thinned = [thin_out(one, settings.links.slice_iou, settings.max_per_slice) for one in found]
    return find_tracklets(thinned, settings.links) if linked else single_boxes(thinned)


def without_padding(
    box: tuple[float, float, float, float], padding_px: float, columns: int, rows: int
) -> tuple[float, float, float, float]:
    """A box as tight as marked lesions' boxes are, within its image; one that was all padding becomes its centre."""
    x0, x1 = _tight(box[0] + padding_px, box[2] - padding_px, columns - 1.0)
    y0, y1 = _tight(box[1] + padding_px, box[3] - padding_px, rows - 1.0)
    return x0, y0, x1, y1


def _tight(low: float, high: float, last: float) -> tuple[float, float]:
    if low > high:
        low = high = (low + high) / 2
    return min(max(low, 0.0), last), min(max(high, 0.0), last)


def _boxes_on(
    reader: SliceSource,
    series: Series,
    slice_indices: Sequence[int],
    find: FindLesions,
    shown: DetectorInput,
    settings: DetectSettings,
) -> Iterator[SliceBoxes]:
    """What is seen on each slice."""
    source = _ReadOnce(reader)
    images = (source.read_ahead(series.series_id, index) for index in slices_for_frame(slice_indices, series))
    frame = frame_for(images, series.spacing_xy_mm, shown.stack)
    maker = StackMaker(source, series.series_id, series.places, series.spacing_z_mm, frame, shown.stack)
    places = dict(zip(series.places.indices.tolist(), series.places.z_mm.tolist(), strict=True))
    for some, stacks in _ahead(_batches(maker, slice_indices, shown.batch_slices)):
        answers = find(stacks)
        if len(answers) != len(some):
            raise InternalError(f"{len(answers)} answers for {len(some)} stacks", where=shown.model_id)
        for index, answer in zip(some, answers, strict=True):
            kept = _on_slice(answer, frame, settings.min_score, shown.model_id)
            yield SliceBoxes(index, places[index], *kept)


class _ReadOnce:
    """Slices that were read ahead are kept until somebody asks for them, which happens once."""

    def __init__(self, reader: SliceSource) -> None:
        self._reader = reader
        self._ahead: dict[int, NDArray[np.int16]] = {}

    def read_ahead(self, series_id: str, slice_index: int) -> NDArray[np.int16]:
        self._ahead[slice_index] = self._reader.read(series_id, slice_index)
        return self._ahead[slice_index]

    def read(self, series_id: str, slice_index: int) -> NDArray[np.int16]:
        """One slice as (rows, columns) HU."""
        known = self._ahead.pop(slice_index, None)
        return self._reader.read(series_id, slice_index) if known is None else known


def slices_for_frame(slice_indices: Sequence[int], series: Series) -> list[int]:
    """Slices that tell how far the body reaches on all of them: what it changes by in between, the margin covers."""
    places = dict(zip(series.places.indices.tolist(), series.places.z_mm.tolist(), strict=True))
    chosen = [slice_indices[0]]
    for here, following in pairwise(slice_indices):
        # Not a number is never near.
        if not abs(places[following] - places[chosen[-1]]) <= _BODY_STEP_MM:
            chosen.append(here if here != chosen[-1] else following)
    return list(dict.fromkeys([*chosen, slice_indices[-1]]))


def _batches(
    maker: StackMaker, slice_indices: Sequence[int], size: int
) -> Iterator[tuple[Sequence[int], NDArray[np.int16]]]:
    stacks = maker.stacks(slice_indices)
    for start in range(0, len(slice_indices), size):
        some = slice_indices[start : start + size]
        yield some, np.stack([next(stacks) for _ in some])


def _ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made while the one before is being used."""
    with ThreadPoolExecutor(1, "next-stacks") as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


def _on_slice(
    answer: Found, frame: StackFrame, min_score: float, model_id: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Boxes in the slice's pixels, scores and categories of what is sure enough."""
    boxes, scores = answer.boxes.astype(np.float64).reshape(-1, 4), answer.scores.astype(np.float64)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise InternalError("the model gives boxes that are no numbers", where=model_id, next_step="train it again")
    kept = scores >= min_score
    return frame.to_slice(boxes[kept]), scores[kept], answer.categories.astype(np.int64)[kept]
