"""What an SR draws and where: spatial coordinates on an image (SCOORD) or in the patient (SCOORD3D).

Points stay as written. An ellipse and a circle become the two axes they are defined by; an outline keeps its points,
because its diameters need the pixel spacing, which is the image's to say (`marks/pairing.py`).
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from etl.marks.content_tree import ContentItem, items_of, numbers_of, text_of, uid_of
from etl.marks.model import Axis, Mark, Point, Shape, SpacePoint, frame_from
from etl.marks.report_items import bad_item
from etl.quality import Flag

DRAWN = ("SCOORD", "SCOORD3D")
MAX_COORDINATE = 1e6
OUTLINE_CONFIDENCE = 0.8

_LINES = ("POLYLINE", "MULTIPOINT")
_OUTLINES = ("POLYGON", "POLYLINE")
# Axes of a circle are equal up to rounding.
_EQUAL = 1e-6

Points = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """What points are drawn on: an image, or a patient's frame of reference."""

    image_uid: str | None = None
    frame_number: int | None = None
    frame_of_reference_uid: str | None = None

    def put(self, mark: Mark) -> Mark:
        """The mark, at this place."""
        return dataclasses.replace(
            mark,
            image_uid=self.image_uid,
            frame_number=self.frame_number,
            frame_of_reference_uid=self.frame_of_reference_uid,
        )


@dataclass(frozen=True, slots=True)
class Drawing:
    """Points of two coordinates (pixels) or three (millimetres in the patient), and how they belong together."""

    graphic_type: str
    points: Points
    place: Place

    @property
    def is_line(self) -> bool:
        """Whether it can be an axis: two points and nothing between them."""
        return self.graphic_type in _LINES and len(self.points) == 2

    @property
    def extent(self) -> float:
        """The diagonal of the box around it, to tell the larger of two drawings."""
        return math.hypot(*(max(axis) - min(axis) for axis in zip(*self.points, strict=True)))


def drawing_of(item: ContentItem, images: Sequence[Place] = ()) -> Drawing:
    """The drawing of an SCOORD or SCOORD3D item; `images` are what it is drawn on when it does not say itself."""
    in_space = item.value_type == "SCOORD3D"
    width = 3 if in_space else 2
    numbers = numbers_of(item.dataset, "GraphicData")
    if not numbers or len(numbers) % width:
        raise bad_item("the coordinates are missing or do not parse")
    if any(abs(number) > MAX_COORDINATE for number in numbers):
        raise bad_item("a coordinate is beyond any image")
    points = tuple(numbers[start : start + width] for start in range(0, len(numbers), width))
    own = images_of(item)
    place = own[0] if own else Place()
    if in_space:
        frame = uid_of(item.dataset, "ReferencedFrameOfReferenceUID")
        place = dataclasses.replace(place, frame_of_reference_uid=frame)
    elif not own and len(images) == 1:
        place = images[0]
    if place == Place():
        raise bad_item("the points name neither image nor frame of reference")
    return Drawing(text_of(item.dataset, "GraphicType").upper(), points, place)


def images_of(item: ContentItem) -> list[Place]:
    """The images that an item's own children name; segmentations, which are images too, are not drawn on."""
    return [place for child in item.linked if child.value_type == "IMAGE" for place in frames_of(child)[:1]]


def frames_of(item: ContentItem) -> list[Place]:
    """The frames that an IMAGE item names, one place each; one place without a frame when it names none."""
    for reference in items_of(item.dataset, "ReferencedSOPSequence"):
        uid = uid_of(reference, "ReferencedSOPInstanceUID")
        if uid is not None and uid_of(reference, "ReferencedSOPClassUID") != SegmentationStorage:
            return [Place(uid, frame) for frame in _frame_numbers(reference)]
    return []


def line_of(drawing: Drawing) -> Points:
    """The two points of an axis."""
    if not drawing.is_line:
        raise bad_item("a diameter is not a line of two points")
    if drawing.points[0] == drawing.points[1]:
        raise bad_item("the two points of a diameter are one")
    return drawing.points


def with_drawing(mark: Mark, drawing: Drawing) -> Mark:
    """A mark for a single drawing: a line, an ellipse, a circle, or an outline."""
    if drawing.is_line:
        return with_axes(mark, drawing.place, line_of(drawing), None)
    axes = _axes_of(drawing)
    if axes is not None:
        flags = mark.flags | {Flag.SHORT_AXIS_FROM_OUTLINE}
        derived = dataclasses.replace(mark, confidence=OUTLINE_CONFIDENCE, flags=flags)
        return with_axes(derived, drawing.place, *axes)
    if drawing.graphic_type not in _OUTLINES or len(set(drawing.points)) < 3:
        raise bad_item("neither a line nor an outline")
    mark = dataclasses.replace(drawing.place.put(mark), shape=Shape.OUTLINE, confidence=OUTLINE_CONFIDENCE)
    if len(drawing.points[0]) == 3:
        return dataclasses.replace(mark, outline_mm=tuple(_in_space(point) for point in drawing.points))
    return dataclasses.replace(mark, outline=tuple(_in_plane(point) for point in drawing.points))


def with_axes(mark: Mark, place: Place, long_axis: Points, short_axis: Points | None) -> Mark:
    """The mark with one axis or two; a single one makes it a length."""
    flags = set(mark.flags)
    if short_axis is None:
        flags.add(Flag.NO_SHORT_AXIS)
    elif math.dist(*short_axis) > math.dist(*long_axis) * (1 + _EQUAL):
        flags.add(Flag.SHORT_EXCEEDS_LONG)
    shape = Shape.LENGTH if short_axis is None else Shape.BIDIRECTIONAL
    mark = dataclasses.replace(place.put(mark), shape=shape, flags=frozenset(flags))
    if len(long_axis[0]) == 3:
        return dataclasses.replace(
            mark,
            long_axis_mm=_space_axis(long_axis),
            short_axis_mm=_space_axis(short_axis) if short_axis else None,
        )
    return dataclasses.replace(
        mark,
        long_axis=_plane_axis(long_axis),
        short_axis=_plane_axis(short_axis) if short_axis else None,
    )


def _frame_numbers(reference: Dataset) -> tuple[int | None, ...]:
    """Frames count from 1; AIM writes 0 for images that have no frames."""
    numbers = numbers_of(reference, "ReferencedFrameNumber") or ()
    return tuple(frame for number in numbers if (frame := frame_from(number)) is not None) or (None,)


def _axes_of(drawing: Drawing) -> tuple[Points, Points] | None:
    """The axes of an ellipse (its four points) or of a circle (its centre and a point on it)."""
    points = drawing.points
    if drawing.graphic_type == "ELLIPSE" and len(points) == 4:
        axes = points[:2], points[2:]
    elif drawing.graphic_type == "CIRCLE" and len(points) == 2 and len(points[0]) == 2:
        (x, y), (on_x, on_y) = points
        across, down = on_x - x, on_y - y
        axes = (
            ((x - across, y - down), (x + across, y + down)),
            ((x + down, y - across), (x - down, y + across)),
        )
    else:
        return None
    if any(axis[0] == axis[1] for axis in axes):
        raise bad_item("the ellipse or circle has no size")
    return axes


def _in_plane(point: tuple[float, ...]) -> Point:
    return point[0], point[1]


def _in_space(point: tuple[float, ...]) -> SpacePoint:
    return point[0], point[1], point[2]


def _plane_axis(points: Points) -> Axis:
    return _in_plane(points[0]), _in_plane(points[1])


def _space_axis(points: Points) -> tuple[SpacePoint, SpacePoint]:
    return _in_space(points[0]), _in_space(points[1])
