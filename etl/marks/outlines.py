"""Outlines in exports: contours of RT structure sets and DICOM segmentations, one mark for each structure.

A structure is measured where it is largest: on the slice whose outline has the longest diameter. Nothing in these
files says whether a structure is a lesion or an organ, and names are free text: hence the low confidence.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.utils import unpack_bits

from etl.marks.codes import code_of_item, known_code
from etl.marks.content_tree import items_of, numbers_of, uid_of, value_of
from etl.marks.model import Convention, Mark, Report, Shape, SpacePoint, frame_from
from etl.marks.report_items import Reading, bad_item, report_of_items
from etl.quality import Flag
from lesionary.recist import measure_mask

_CONFIDENCE = 0.3
_MAX_COORDINATE = 1e5
# One slice's outline, thinned for comparing sizes; all of a structure's corners; all of a segmentation's pixels.
_COMPARED_CORNERS, _MAX_CORNERS, _MAX_PIXELS = 64, 2_000_000, 1 << 30
_MAX_SIDE_PX = 4096


def read_rtstruct(dataset: Dataset) -> Report:
    """The structures of an RT structure set, each one item."""
    with warnings.catch_warnings(action="ignore"):
        frames = {
            _integer(roi, "ROINumber"): uid_of(roi, "ReferencedFrameOfReferenceUID")
            for roi in items_of(dataset, "StructureSetROISequence")
        }
        readings: list[Reading] = [
            partial(_structure, roi, frames.get(_integer(roi, "ReferencedROINumber")))
            for roi in items_of(dataset, "ROIContourSequence")
        ]
        return report_of_items(dataset, "rtstruct", readings)


def _structure(roi: Dataset, frame_of_reference: str | None, number: int) -> Mark:
    largest: tuple[float, Dataset, tuple[SpacePoint, ...]] | None = None
    corners = 0
    for contour in items_of(roi, "ContourSequence"):
        if str(value_of(contour, "ContourGeometricType") or "").strip() != "CLOSED_PLANAR":
            continue
        points = _points_mm(contour)
        corners += len(points)
        if corners > _MAX_CORNERS:
            raise bad_item("more corners than a structure has")
        extent = _extent(points)
        if largest is None or extent > largest[0]:
            largest = extent, contour, points
    if largest is None:
        raise bad_item("no closed outline")
    _, contour, points = largest
    images = items_of(contour, "ContourImageSequence")
    image = uid_of(images[0], "ReferencedSOPInstanceUID") if len(images) == 1 else None
    if image is None and frame_of_reference is None:
        raise bad_item("neither an image nor a frame of reference")
    frame = frame_from(_integer(images[0], "ReferencedFrameNumber")) if image else None
    return Mark(
        "rtstruct", Shape.OUTLINE, number, image, frame, frame_of_reference, outline_mm=points, confidence=_CONFIDENCE
    )


def _points_mm(contour: Dataset) -> tuple[SpacePoint, ...]:
    numbers = numbers_of(contour, "ContourData")
    if numbers is None or len(numbers) < 9 or len(numbers) % 3 or max(map(abs, numbers)) > _MAX_COORDINATE:
        raise bad_item("an outline whose coordinates are not triples of numbers")
    return tuple(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))


def _extent(points: Sequence[SpacePoint]) -> float:
    thinned = np.asarray(points[:: -(-len(points) // _COMPARED_CORNERS)])
    return float(((thinned[:, None] - thinned[None]) ** 2).sum(axis=2).max())


def read_segmentation(dataset: Dataset) -> Report:
    """The segments of a DICOM segmentation, each one item."""
    with warnings.catch_warnings(action="ignore"):
        frames = _SegmentFrames(dataset)
        readings: list[Reading] = [
            partial(_segment, segment, frames) for segment in items_of(dataset, "SegmentSequence")
        ]
        return report_of_items(dataset, "segmentation", readings)


class _SegmentFrames:
    """The frames of a segmentation as masks; unpacked one at a time."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._rows, self._columns = _integer(dataset, "Rows") or 0, _integer(dataset, "Columns") or 0
        self._bits = _integer(dataset, "BitsAllocated")
        self._groups = items_of(dataset, "PerFrameFunctionalGroupsSequence")
        data = value_of(dataset, "PixelData")
        self._data = data if isinstance(data, bytes) else b""
        shared = items_of(dataset, "SharedFunctionalGroupsSequence")
        self._shared = shared[0] if shared else Dataset()

    def of(self, segment: int) -> Iterator[tuple[Dataset, NDArray[np.bool_]]]:
        """A segment's functional groups and masks, frame by frame."""
        size = self._rows * self._columns
        sides_fit = 0 < self._rows <= _MAX_SIDE_PX and 0 < self._columns <= _MAX_SIDE_PX
        if not sides_fit or size * len(self._groups) > _MAX_PIXELS or self._bits not in {1, 8}:
            raise bad_item("its frames have no usable size")
        for number, group in enumerate(self._groups):
            if self._segment_of(group) == segment:
                yield group, self._mask(number, size).reshape(self._rows, self._columns)

    def _segment_of(self, group: Dataset) -> int | None:
        for place in (group, self._shared):
            for item in items_of(place, "SegmentIdentificationSequence"):
                return _integer(item, "ReferencedSegmentNumber")
        return None

    def _mask(self, number: int, size: int) -> NDArray[np.bool_]:
        start = number * size
        if self._bits == 8:
            part = self._data[start : start + size]
            mask = np.frombuffer(part, np.uint8) > np.iinfo(np.uint8).max // 2 if self._is_fractional() else (
                np.frombuffer(part, np.uint8) > 0
            )  # fmt: skip
        else:
            # Frames of one bit a pixel follow each other without regard to bytes.
            first = start // 8
            bits = np.asarray(unpack_bits(self._data[first : (start + size + 7) // 8]))
            mask = bits[start - 8 * first :][:size] > 0
        if mask.size != size:
            raise bad_item("fewer pixels than its frames need")
        return mask

    def _is_fractional(self) -> bool:
        return str(value_of(self._dataset, "SegmentationType") or "").strip() == "FRACTIONAL"


def _segment(segment: Dataset, frames: _SegmentFrames, number: int) -> Mark:
    largest: tuple[float, Mark] | None = None
    for group, mask in frames.of(_integer(segment, "SegmentNumber") or 0):
        points = measure_mask(mask)
        if points is None:
            continue
        length = math.dist(points[0], points[1])
        if largest is None or length > largest[0]:
            ends = [(float(x), float(y)) for x, y in points]
            image, frame = _source_image(group)
            mark = Mark(
                "segmentation", Shape.OUTLINE, number, image, frame, long_axis=(ends[0], ends[1]),
                short_axis=(ends[2], ends[3]), convention=Convention.ZERO_BASED, confidence=_CONFIDENCE,
                flags=frozenset({Flag.SHORT_AXIS_FROM_OUTLINE}),
            )  # fmt: skip
            largest = length, mark
    if largest is None:
        raise bad_item("no pixel belongs to it")
    mark = largest[1]
    if mark.image_uid is None:
        raise bad_item("its largest frame names no image")
    finding, unknown = _finding(segment)
    return replace(mark, finding=finding, flags=mark.flags | ({Flag.CODE_UNKNOWN} if unknown else set()))


def _source_image(group: Dataset) -> tuple[str | None, int | None]:
    for derivation in items_of(group, "DerivationImageSequence"):
        for source in items_of(derivation, "SourceImageSequence"):
            return uid_of(source, "ReferencedSOPInstanceUID"), frame_from(_integer(source, "ReferencedFrameNumber"))
    return None, None


def _finding(segment: Dataset) -> tuple[str | None, bool]:
    types = items_of(segment, "SegmentedPropertyTypeCodeSequence")
    code = code_of_item(types[0]) if types else None
    known = known_code(*code) if code else None
    return known, code is not None and known is None


def _integer(dataset: Dataset, keyword: str) -> int | None:
    numbers = numbers_of(dataset, keyword)
    return int(numbers[0]) if numbers and numbers[0] == int(numbers[0]) else None
