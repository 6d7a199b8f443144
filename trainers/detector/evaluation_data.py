"""What the evaluator compares: lesions that are there and boxes that a detector found, as flat arrays.

An image is whatever false positives are counted per: a slice, or a sub-volume. Images are numbered from 0 and belong to
patients; lesions and detections name their image's number. Boxes are x0, y0, x1, y1 in any convention that both sides
share.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError

Numbers = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]

UNKNOWN = -1
"""The number of a type or category that nobody knows."""


def places_by_image(images: Whole) -> Whole:
    """Places of the rows, image after image, in their order within each."""
    few = len(images) > 0 and images.max() < 2**16
    # Short numbers are sorted by counting.
    return np.argsort(images.astype(np.uint16) if few else images, kind="stable")


def grown(boxes: Numbers, padding: float) -> Numbers:
    """Boxes larger by so much on each side."""
    larger: Numbers = boxes + np.array([-padding, -padding, padding, padding])
    return larger


def _nothing() -> Any:
    return np.empty(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Images, and the lesions on them. Whatever is left out is unknown, or no for flags.

    Raises:
        UsageError: arrays that do not fit together, or a box that is none.
    """

    patients: Whole
    """(images,) number of the patient that an image is of, from 0."""
    images: Whole
    """(lesions,) number of the lesion's image."""
    boxes: Numbers
    """(lesions, 4)"""
    types: Whole = field(default_factory=_nothing)
    """(lesions,) number of its type, for strata; -1 unknown."""
    categories: Whole = field(default_factory=_nothing)
    """(lesions,) number of the category that detections may name; -1 unknown."""
    long_mm: Numbers = field(default_factory=_nothing)
    short_mm: Numbers = field(default_factory=_nothing)
    """(lesions,) diameters; not a number where unknown."""
    noisy: Flags = field(default_factory=_nothing)
    """(lesions,) the source itself doubts it."""
    ignore: Flags = field(default_factory=_nothing)
    """(lesions,) no lesion to find but a region: detections in it count neither way."""
    intervals_mm: Numbers = field(default_factory=_nothing)
    """(images,) distance between slices; not a number where unknown."""
    key_slices: Whole = field(default_factory=_nothing)
    """(lesions,) slice that the box is on, where an image is a sub-volume."""
    slices: Whole = field(default_factory=_nothing)
    """(lesions, 2) first and last slice; without rows where unknown."""

    def __post_init__(self) -> None:
        """Bring every array into its type and fill what was left out."""
        images, lesions = len(self.patients), len(self.images)
        _put(self, "patients", images, np.int64, None)
        _put(self, "images", lesions, np.int64, None)
        for name, kind, filling in (
            ("types", np.int64, UNKNOWN), ("categories", np.int64, UNKNOWN), ("long_mm", np.float64, np.nan),
            ("short_mm", np.float64, np.nan), ("noisy", np.bool_, False), ("ignore", np.bool_, False),
        ):  # fmt: skip
            _put(self, name, lesions, kind, filling)
        _put(self, "intervals_mm", images, np.float64, np.nan)
        _put_optional(self, "key_slices", lesions, ())
        _put_optional(self, "slices", lesions, (2,))
        _put_boxes(self, "boxes", lesions, "lesions")
        _check_slices(self.slices, "lesions")
        _check_range(self.images, images, "an image of the lesions")
        if images and self.patients.min() < 0:
            raise UsageError("patients are numbered from 0")

    @property
    def image_count(self) -> int:
        """Images, with a lesion or without."""
        return len(self.patients)

    def lesions(self, chosen: NDArray[Any]) -> Self:
        """The same images with some of the lesions: places, or a flag for each."""
        return replace(self, **_taken(self, chosen, (one.name for one in fields(self) if one.name not in _OF_IMAGES)))

    def grown(self, padding: float) -> Self:
        """The same with every box larger by so much on each side."""
        return replace(self, boxes=grown(self.boxes, padding))

    def only_images(self, chosen: Flags) -> Self:
        """Some of the images, numbered anew, and the lesions on them."""
        kept = self.lesions(chosen[self.images])
        numbers = np.cumsum(chosen) - 1
        changes = {name: getattr(self, name)[chosen] for name in _OF_IMAGES}
        return replace(kept, images=numbers[kept.images], **changes)


_OF_IMAGES = ("patients", "intervals_mm")


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceBoxes:
    """Boxes of detections on the slices that they go through."""

    owners: Whole
    """(boxes,) place of the detection."""
    slices: Whole
    """(boxes,) number of the slice."""
    boxes: Numbers
    """(boxes, 4)"""

    def __post_init__(self) -> None:
        """Bring every array into its type."""
        for name in ("owners", "slices"):
            _put(self, name, len(self.owners), np.int64, None)
        _put_boxes(self, "boxes", len(self.owners), "boxes on slices")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """Boxes that a detector found.

    Raises:
        UsageError: arrays that do not fit together, a score that is no number, or a box that is none.
    """

    images: Whole
    """(detections,) number of its image."""
    boxes: Numbers
    """(detections, 4); of one that goes through slices, its box on the slice where it is surest."""
    scores: Numbers
    """(detections,) higher is surer."""
    categories: Whole = field(default_factory=_nothing)
    """(detections,) -1 unknown."""
    slices: Whole = field(default_factory=_nothing)
    """(detections, 2) first and last slice; without rows where unknown."""
    slice_boxes: SliceBoxes | None = None

    def __post_init__(self) -> None:
        """Bring every array into its type and fill what was left out."""
        count = len(self.images)
        _put(self, "images", count, np.int64, None)
        _put(self, "scores", count, np.float64, None)
        _put(self, "categories", count, np.int64, UNKNOWN)
        _put_optional(self, "slices", count, (2,))
        _put_boxes(self, "boxes", count, "detections")
        _check_slices(self.slices, "detections")
        if not np.isfinite(self.scores).all():
            at = int(np.argmin(np.isfinite(self.scores)))
            raise UsageError(
                f"the score of detection {at} is no finite number", next_step="leave out what has no score"
            )
        if self.slice_boxes is not None:
            _check_range(self.slice_boxes.owners, count, "a detection of the boxes on slices")

    @property
    def count(self) -> int:
        """Detections."""
        return len(self.images)

    def taken(self, chosen: NDArray[Any]) -> Self:
        """Some detections, in the order of `chosen`: places, or a flag for each."""
        places = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        names = ("images", "boxes", "scores", "categories", "slices")
        some = replace(self, **_taken(self, places, names), slice_boxes=None)
        if self.slice_boxes is None:
            return some
        new_places = np.full(self.count, -1)
        new_places[places] = np.arange(len(places))
        owners = new_places[self.slice_boxes.owners]
        kept = owners >= 0
        return replace(
            some,
            slice_boxes=SliceBoxes(
                owners=owners[kept], slices=self.slice_boxes.slices[kept], boxes=self.slice_boxes.boxes[kept]
            ),
        )

    def grown(self, padding: float) -> Self:
        """The same with every box larger by so much on each side."""
        held = self.slice_boxes
        on_slices = None if held is None else replace(held, boxes=grown(held.boxes, padding))
        return replace(self, boxes=grown(self.boxes, padding), slice_boxes=on_slices)

    def on_images(self, chosen: Flags) -> Self:
        """Those on some of the images, which are numbered anew."""
        return self.taken(chosen[self.images]).with_images_numbered(chosen)

    def with_images_numbered(self, chosen: Flags) -> Self:
        """The same, all on images that are chosen, which are numbered anew."""
        return self if chosen.all() else replace(self, images=(np.cumsum(chosen) - 1)[self.images])

    def check_against(self, truth: Truth) -> None:
        """Refuse detections on images that the truth does not have.

        Raises:
            UsageError: there is one.
        """
        _check_range(self.images, truth.image_count, "an image of the detections")


def _taken(held: object, chosen: NDArray[Any], names: Iterable[str]) -> dict[str, Any]:
    arrays = {name: getattr(held, name) for name in names}
    return {name: array[chosen] if len(array) else array for name, array in arrays.items()}


def _put(held: object, name: str, count: int, kind: type[np.generic], filling: object) -> None:
    values = np.asarray(getattr(held, name))
    if values.size == 0 and filling is not None:
        values = np.full(count, filling)
    if values.shape != (count,):
        raise UsageError(f"{name} has the shape {values.shape}, {(count,)} is needed")
    object.__setattr__(held, name, values.astype(kind, copy=False))


def _put_optional(held: object, name: str, count: int, tail: tuple[int, ...]) -> None:
    values = np.asarray(getattr(held, name))
    if values.size and values.shape != (count, *tail):
        raise UsageError(f"{name} has the shape {values.shape}, {(count, *tail)} is needed")
    object.__setattr__(held, name, values.reshape(-1, *tail).astype(np.int64, copy=False))


def _put_boxes(held: object, name: str, count: int, of: str) -> None:
    boxes = np.asarray(getattr(held, name), np.float64).reshape(-1, 4)
    if len(boxes) != count:
        raise UsageError(f"{of}: {len(boxes)} boxes for {count} rows")
    x0, y0, x1, y1 = boxes.T
    # Nothing that is not finite is at least something and has a finite sum.
    if not ((x1 >= x0).all() and (y1 >= y0).all() and np.isfinite(boxes.sum())):
        wrong = ~np.isfinite(boxes).all(axis=1) | (x1 < x0) | (y1 < y0)
        if wrong.any():
            raise UsageError(
                f"{of}: box {int(np.argmax(wrong))} is none",
                next_step="a box is x0, y0, x1, y1 in finite numbers with x1 >= x0 and y1 >= y0",
            )
    object.__setattr__(held, name, boxes)


def _check_slices(slices: Whole, of: str) -> None:
    if len(slices) and (slices[:, 1] < slices[:, 0]).any():
        raise UsageError(f"{of}: a last slice comes before the first one")


def _check_range(numbers: Whole, count: int, what: str) -> None:
    if len(numbers) and not (numbers.min() >= 0 and numbers.max() < count):
        raise UsageError(f"{what} is not one of the {count} that there are")
