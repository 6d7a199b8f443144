"""AIM annotations as XML, versions 3 and 4.

The two versions hold the same things in different places: version 3 in attributes, version 4 in child elements with
an attribute of their own. Both are read by one look-up that takes whichever is there. Entities and document type
definitions are refused, not expanded.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import dist
from typing import TYPE_CHECKING

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from etl.marks.aim_sr import GUESSED_PAIR_CONFIDENCE
from etl.marks.codes import Concept, concept_of, known_code
from etl.marks.measured_value import MAX_VALUE, Stated, unit_of_text
from etl.marks.model import Axis, Mark, Point, Report, Shape, frame_from
from etl.marks.report_items import bad_item
from etl.marks.sr import with_stated
from etl.quality import Flag, Quarantined, Reason, RefusedError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_BYTES = 16 << 20
_MAX_DEPTH = 200
_MAX_COORDINATE = 1e6
_VALUES = ("value", "root", "extension", "code")
_LENGTHS = (Concept.LONG_AXIS, Concept.SHORT_AXIS, Concept.LENGTH)
_UID = re.compile(r"[0-9]+(?:\.[0-9]+){2,}", re.ASCII)
_DATE = re.compile(r"(\d{4})-?(\d{2})-?(\d{2})(?:T?(\d{2}):?(\d{2}):?(\d{2}))?.*", re.ASCII | re.DOTALL)


def read_aim(data: bytes) -> Report:
    """The annotations of a file, each one item.

    Raises:
        RefusedError: it is no AIM, does not parse, or defines entities.
    """
    root = _parsed(data)
    annotations = [root] if _name(root) == "ImageAnnotation" else _below(root, "ImageAnnotation")
    if not annotations:
        raise RefusedError(Reason.NOT_A_REPORT, "no image annotation")
    marks: list[Mark] = []
    refused: list[Quarantined] = []
    for number, annotation in enumerate(annotations, start=1):
        try:
            marks.append(_mark(annotation, number))
        except RefusedError as error:
            refused.append(Quarantined("row", f"item {number} of a report", error.reason, error.detail))
    study = next(iter(_below(root, "ImageStudy", "imageStudy")), None)
    person = next(iter(_below(root, "Person", "person")), None)
    return Report(
        report_uid=_uid(root, "uniqueIdentifier") or hashlib.sha256(data).hexdigest(),
        source_format="aim",
        patient_key=None if person is None else _text(person, "id"),
        study_uid=None if study is None else _uid(study, "instanceUID"),
        study_date=None if study is None else _date(_text(study, "startDate"))[:8] or None,
        saved_at=_date(_text(root, "dateTime")),
        marks=tuple(marks),
        refused=tuple(refused),
    )


def _parsed(data: bytes) -> "Element":
    if len(data) > MAX_BYTES:
        raise RefusedError(Reason.MEMBER_TOO_LARGE, f"more than {MAX_BYTES} bytes")
    try:
        root: Element = fromstring(data, forbid_dtd=True)
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise RefusedError(Reason.XML_DAMAGED, type(error).__name__) from None
    level, depth = [root], 0
    while level:
        depth += 1
        if depth > _MAX_DEPTH:
            raise RefusedError(Reason.NESTING_TOO_DEEP)
        level = [child for element in level for child in element]
    return root


def _mark(annotation: "Element", number: int) -> Mark:
    site, site_unknown = _code(annotation, "AnatomicEntity", "ImagingPhysicalEntity")
    finding, finding_unknown = _code(annotation, "ImagingObservation", "ImagingObservationEntity")
    mark = Mark(
        source_format="aim",
        shape=Shape.LENGTH,
        item=number,
        tracking_uid=_uid(annotation, "uniqueIdentifier"),
        finding_site=site,
        finding=finding,
        flags=frozenset({Flag.CODE_UNKNOWN} if site_unknown or finding_unknown else ()),
    )
    drawn = [_points(shape) for shape in _below(annotation, "GeometricShape", "MarkupEntity")]
    drawn = [points for points in drawn if len(points[1]) > 1]
    if not drawn:
        raise bad_item("no shape in the annotation")
    images = {image for image, _ in drawn}
    if len(images) > 1 or (image := images.pop())[0] is None:
        raise bad_item("shapes on several images, or on none")
    calculations = list(_calculations(annotation))
    mark = with_stated(mark, *_values(calculations))
    lines: list[Axis] = [(points[0], points[1]) for _, points in drawn if len(points) == 2]
    lines.sort(key=lambda line: -dist(*line))
    if len(lines) > 2 or (not lines and len(drawn) > 1):
        raise bad_item("more lines than two diameters, or several shapes that are no lines")
    return _drawn(mark, image, lines, drawn[0][1], {concept for concept, _ in calculations})


def _drawn(
    mark: Mark, image: tuple[str | None, int | None], lines: Sequence[Axis], outline: Sequence[Point],
    concepts: set[Concept],
) -> Mark:  # fmt: skip
    placed = replace(mark, image_uid=image[0], frame_number=image[1])
    if not lines:
        return replace(placed, shape=Shape.OUTLINE, outline=tuple(outline), confidence=GUESSED_PAIR_CONFIDENCE)
    if len(lines) == 1:
        return replace(placed, long_axis=lines[0], flags=mark.flags | {Flag.NO_SHORT_AXIS})
    named = {Concept.LONG_AXIS, Concept.SHORT_AXIS} <= concepts
    return replace(
        placed, shape=Shape.BIDIRECTIONAL, long_axis=lines[0], short_axis=lines[1],
        confidence=1.0 if named else GUESSED_PAIR_CONFIDENCE,
    )  # fmt: skip


def _points(shape: "Element") -> tuple[tuple[str | None, int | None], list[Point]]:
    """The image a shape lies on, and its corners in order."""
    places = _below(shape, "SpatialCoordinate", "TwoDimensionSpatialCoordinate")
    corners: list[tuple[float, Point]] = []
    image, frame = _uid(shape, "imageReferenceUid"), _whole(shape, "referencedFrameNumber")
    for place in places:
        index, x, y = (_number(place, name) for name in ("coordinateIndex", "x", "y"))
        if x is None or y is None or max(abs(x), abs(y)) > _MAX_COORDINATE:
            raise bad_item("a coordinate is no number")
        corners.append((len(corners) if index is None else index, (x, y)))
        image = image or _uid(place, "imageReferenceUID")
        frame = frame or _whole(place, "referencedFrameNumber")
    return (image, frame_from(frame)), [point for _, point in sorted(corners, key=lambda corner: corner[0])]


def _calculations(annotation: "Element") -> Iterator[tuple[Concept, Stated]]:
    """The lengths calculated, with what they are lengths of."""
    for calculation in _below(annotation, "Calculation", "CalculationEntity"):
        concept = next((found for code in _codes(calculation) if (found := concept_of(*code)) in _LENGTHS), None)
        if concept is None:
            continue
        for result in _below(calculation, "CalculationResult"):
            unit, is_length = unit_of_text(_text(result, "unitOfMeasure") or "")
            data = _below(result, "CalculationData")
            value = _number(data[0], "value") if len(data) == 1 else _number(result, "value")
            if value is not None and is_length and 0 <= value <= MAX_VALUE:
                flags = frozenset({Flag.UNIT_UNKNOWN} if unit is None else ())
                yield concept, Stated(value, unit, is_length, flags)


def _values(calculations: Sequence[tuple[Concept, Stated]]) -> tuple[Stated, Stated | None]:
    """The stated long and short axis; of lengths that do not say, the larger is the long one's."""
    named = dict(reversed(calculations))
    unnamed = sorted(
        (one for concept, one in calculations if concept is Concept.LENGTH), key=lambda one: one.value or 0
    )
    long_axis = named.get(Concept.LONG_AXIS) or (unnamed.pop() if unnamed else Stated())
    return long_axis, named.get(Concept.SHORT_AXIS) or (unnamed.pop() if unnamed else None)


def _code(annotation: "Element", *names: str) -> tuple[str | None, bool]:
    """The first published code of some elements, and whether there are only others."""
    codes = [code for element in _below(annotation, *names) for code in _codes(element)]
    known = next((found for code in codes if (found := known_code(*code))), None)
    return known, bool(codes) and known is None


def _codes(element: "Element") -> list[tuple[str, str]]:
    """An element's own codes: of its attributes (version 3), or of its type codes (version 4)."""
    found = []
    for place in (element, *(child for child in element if _name(child) == "typeCode")):
        value = place.get("codeValue") or place.get("code")
        scheme = place.get("codingSchemeDesignator") or place.get("codeSystemName") or place.get("codeSystem")
        if value and scheme:
            found.append((value, scheme))
    return found


def _name(element: "Element") -> str:
    """Without its namespace."""
    return str(element.tag).rsplit("}", 1)[-1]


def _below(element: "Element", *names: str) -> list["Element"]:
    return [child for child in element.iter() if child is not element and _name(child) in names]


def _text(element: "Element", name: str) -> str | None:
    """A property, from an attribute or from a child's attribute, whatever the case of its name."""
    wanted = name.lower()
    for key, value in element.attrib.items():
        if key.lower() == wanted:
            return value.strip() or None
    for child in element:
        if _name(child).lower() == wanted:
            return next((found.strip() for key in _VALUES if (found := child.get(key))), None)
    return None


def _uid(element: "Element", name: str) -> str | None:
    text = _text(element, name)
    return text if text and len(text) <= 64 and _UID.fullmatch(text) else None


def _number(element: "Element", name: str) -> float | None:
    try:
        value = float(_text(element, name) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _whole(element: "Element", name: str) -> int | None:
    value = _number(element, name)
    return int(value) if value is not None and value == int(value) and 0 <= value <= 1_000_000 else None


def _date(text: str | None) -> str:
    match = _DATE.fullmatch(text or "")
    return "".join(part or "" for part in match.groups()) if match else ""
