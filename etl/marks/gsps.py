"""Presentation states: lines a reader drew, with nothing that says what they mean.

A bidirectional measurement leaves two crossing polylines of two points. The rule by which lines become diameters:

* only straight lines in PIXEL units on one named image count; two lines belong together when they cross between
  their ends (a tenth of a length is allowed beyond) at 80 degrees or more;
* pairs are chosen one to one, first those of one annotation, then the most perpendicular ones; the longer line is the
  long axis;
* confidence: 0.95 for a pair that has no rival, drawn in one annotation or layer; 0.85 across annotations; minus 0.2
  when either line also crosses another candidate; minus 0.1 below 85 degrees;
* a line that is left over is a single length with confidence 0.5: it may be an arrow.

Circles and ellipses become diameters with confidence 0.6. Of text objects only a length with its unit is looked at
("23.4 x 12.1 mm"), as the stated value of the annotation it stands in; the text itself is never kept.
"""

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

from pydicom.dataset import Dataset

from etl.marks.content_tree import items_of, numbers_of, text_of, uid_of
from etl.marks.model import Axis, Mark, Point, Report, Shape, frame_from
from etl.marks.report_items import Reading, bad_item, report_of_items
from etl.quality import Flag

PRESENTATION_CLASSES = frozenset(f"1.2.840.10008.5.1.4.1.1.11.{number}" for number in (1, 2, 3, 4))

_MIN_ANGLE_DEG, _CLEAR_ANGLE_DEG = 80.0, 85.0
_BEYOND_AN_END = 0.1
_ONE_ANNOTATION, _ACROSS, _RIVAL, _SLANTED = 0.95, 0.85, 0.2, 0.1
_SINGLE_LINE, _ROUND_SHAPE = 0.5, 0.6
_STRAIGHT_SHARE = 0.01
_MAX_COORDINATE = 1e6
# More lines on one image than this are a drawing, not measurements.
_MOST_LINES = 400
_LENGTHS = re.compile(
    r"(?<![\d.,])(\d{1,4}(?:[.,]\d{1,4})?)\s*(?:[xX×*]\s*(\d{1,4}(?:[.,]\d{1,4})?)\s*)?(mm|cm)\b",
    re.ASCII | re.IGNORECASE,
)

_Place = tuple[str, int | None]


@dataclass(frozen=True, slots=True)
class _Line:
    axis: Axis
    place: _Place
    annotation: int
    layer: str

    @property
    def length(self) -> float:
        return math.dist(*self.axis)


@dataclass(frozen=True, slots=True)
class _Pair:
    long: _Line
    short: _Line
    angle_deg: float


@dataclass(frozen=True, slots=True)
class _Values:
    long: float | None = None
    short: float | None = None
    unit: str | None = None


def read_gsps(dataset: Dataset) -> Report:
    """The measurements of a presentation state, each one item; graphics that are none cost nothing but themselves."""
    with warnings.catch_warnings(action="ignore"):
        return report_of_items(dataset, "gsps", list(_readings(dataset)))


def _readings(dataset: Dataset) -> Iterator[Reading]:
    only_image = _only_image(dataset)
    lines: dict[_Place, list[_Line]] = {}
    values: dict[int, _Values] = {}
    for number, annotation in enumerate(items_of(dataset, "GraphicAnnotationSequence")):
        places = _images(annotation) or only_image
        layer = text_of(annotation, "GraphicLayer")
        values[number] = _values_in_text(annotation)
        for graphic in items_of(annotation, "GraphicObjectSequence"):
            if len(places) != 1:
                yield partial(_refuse, "an annotation that names no image, or several")
                continue
            drawn = _drawn(graphic)
            if isinstance(drawn, str):
                yield partial(_refuse, drawn)
            elif len(drawn) == 1:
                lines.setdefault(places[0], []).append(_Line(drawn[0], places[0], number, layer))
            else:
                yield partial(_round_mark, places[0], drawn, values[number])
    for place, found in lines.items():
        if len(found) > _MOST_LINES:
            yield partial(_refuse, f"{len(found)} lines on one image")
            continue
        yield from _measurements(place, found, values)


def _measurements(place: _Place, lines: Sequence[_Line], values: dict[int, _Values]) -> Iterator[Reading]:
    candidates = sorted(
        (pair for one, other in combinations(lines, 2) if (pair := _pair(one, other))),
        key=lambda pair: (pair.long.annotation != pair.short.annotation, -pair.angle_deg, pair.long.axis),
    )
    taken: set[int] = set()
    for pair in candidates:
        if id(pair.long) in taken or id(pair.short) in taken:
            continue
        taken |= {id(pair.long), id(pair.short)}
        rivals = sum(bool({id(pair.long), id(pair.short)} & {id(one.long), id(one.short)}) for one in candidates) > 1
        yield partial(_pair_mark, place, pair, _confidence(pair, rivals=rivals), values)
    for line in lines:
        if id(line) not in taken:
            yield partial(_line_mark, place, line, values[line.annotation])


def _confidence(pair: _Pair, *, rivals: bool) -> float:
    together = pair.long.annotation == pair.short.annotation or (
        pair.long.layer and pair.long.layer == pair.short.layer
    )
    confidence = _ONE_ANNOTATION if together else _ACROSS
    confidence -= _RIVAL if rivals else 0.0
    confidence -= _SLANTED if pair.angle_deg < _CLEAR_ANGLE_DEG else 0.0
    return round(confidence, 2)


def _pair(one: _Line, other: _Line) -> _Pair | None:
    """Two lines as diameters, if they cross at about a right angle."""
    long, short = sorted((one, other), key=lambda line: -line.length)
    (ax, ay), (bx, by) = long.axis
    (cx, cy), (dx, dy) = short.axis
    along, across = (bx - ax, by - ay), (dx - cx, dy - cy)
    product = long.length * short.length
    if product == 0:
        return None
    cross = along[0] * across[1] - along[1] * across[0]
    angle = math.degrees(math.asin(min(1.0, abs(cross) / product)))
    if angle < _MIN_ANGLE_DEG:
        return None
    on_long = ((cx - ax) * across[1] - (cy - ay) * across[0]) / cross
    on_short = ((cx - ax) * along[1] - (cy - ay) * along[0]) / cross
    inside = all(-_BEYOND_AN_END <= part <= 1 + _BEYOND_AN_END for part in (on_long, on_short))
    return _Pair(long, short, angle) if inside else None


def _refuse(detail: str, _number: int) -> Mark:
    raise bad_item(detail)


def _pair_mark(place: _Place, pair: _Pair, confidence: float, values: dict[int, _Values], number: int) -> Mark:
    mark = Mark(
        "gsps", Shape.BIDIRECTIONAL, number, place[0], place[1], long_axis=pair.long.axis, short_axis=pair.short.axis,
        confidence=confidence,
    )  # fmt: skip
    first, second = values[pair.long.annotation], values[pair.short.annotation]
    if first.long is None:
        first = second
    if pair.long.annotation != pair.short.annotation and first.short is None and second.unit == first.unit:
        first = replace(first, short=second.long if second is not first else None)
    return _with_values(mark, first)


def _line_mark(place: _Place, line: _Line, values: _Values, number: int) -> Mark:
    mark = Mark(
        "gsps", Shape.LENGTH, number, place[0], place[1], long_axis=line.axis, confidence=_SINGLE_LINE,
        flags=frozenset({Flag.NO_SHORT_AXIS}),
    )  # fmt: skip
    return _with_values(mark, values)


def _round_mark(place: _Place, axes: Sequence[Axis], values: _Values, number: int) -> Mark:
    long_axis, short_axis = sorted(axes, key=lambda axis: -math.dist(*axis))
    mark = Mark(
        "gsps", Shape.BIDIRECTIONAL, number, place[0], place[1], long_axis=long_axis, short_axis=short_axis,
        confidence=_ROUND_SHAPE, flags=frozenset({Flag.SHORT_AXIS_FROM_OUTLINE}),
    )  # fmt: skip
    return _with_values(mark, values)


def _with_values(mark: Mark, values: _Values) -> Mark:
    return replace(mark, stated_long=values.long, stated_short=values.short, stated_unit=values.unit)


def _drawn(graphic: Dataset) -> tuple[Axis, ...] | str:
    """A graphic as one axis (a line) or two (a circle or ellipse), or why it is no measurement."""
    if text_of(graphic, "GraphicAnnotationUnits").upper() != "PIXEL":
        return "drawn on the display, not on the image"
    numbers = numbers_of(graphic, "GraphicData")
    if numbers is None or len(numbers) % 2 or any(abs(number) > _MAX_COORDINATE for number in numbers):
        return "its coordinates are not pairs of numbers"
    points: list[Point] = list(zip(numbers[::2], numbers[1::2], strict=True))
    kind = text_of(graphic, "GraphicType").upper()
    if kind in {"POLYLINE", "INTERPOLATED"} and len(points) >= 2 and _is_straight(points):
        return ((points[0], points[-1]),)
    if kind == "CIRCLE" and len(points) == 2:
        (x, y), edge = points[0], math.dist(*points)
        return ((x - edge, y), (x + edge, y)), ((x, y - edge), (x, y + edge))
    if kind == "ELLIPSE" and len(points) == 4:
        return (points[0], points[1]), (points[2], points[3])
    return "a graphic that measures nothing"


def _is_straight(points: Sequence[Point]) -> bool:
    (ax, ay), (bx, by) = points[0], points[-1]
    length = math.dist(points[0], points[-1])
    if length == 0:
        return False
    return all(
        abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length <= _STRAIGHT_SHARE * length for x, y in points[1:-1]
    )


def _images(annotation: Dataset) -> list[_Place]:
    """The images, or the frames of one, that an annotation names."""
    places: list[_Place] = []
    for reference in items_of(annotation, "ReferencedImageSequence"):
        image = uid_of(reference, "ReferencedSOPInstanceUID")
        if image is not None:
            numbers = numbers_of(reference, "ReferencedFrameNumber") or ()
            frames = [frame for number in numbers if (frame := frame_from(number)) is not None]
            places += [(image, frame) for frame in frames] or [(image, None)]
    return places


def _only_image(dataset: Dataset) -> list[_Place]:
    """The image of a presentation state that presents a single one: its annotations need not name it again."""
    series = items_of(dataset, "ReferencedSeriesSequence")
    places = [place for one in series for place in _images(one)]
    return places if len(places) == 1 else []


def _values_in_text(annotation: Dataset) -> _Values:
    for text in items_of(annotation, "TextObjectSequence"):
        match = _LENGTHS.search(text_of(text, "UnformattedTextValue"))
        if match:
            numbers = [float(part.replace(",", ".")) for part in match.groups()[:2] if part]
            return _Values(max(numbers), min(numbers) if len(numbers) > 1 else None, match[3].lower())
    return _Values()
