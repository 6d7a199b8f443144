"""AIM annotations kept as DICOM SR (codes zzz… of the private scheme 99NCIAIM): a tree of its own, not TID 1500.

A calculation and the shape it was made on are tied together only by lying in the same annotation.
"""

import dataclasses
import re
import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from math import dist

from pydicom.dataset import Dataset

from etl.marks.codes import Concept, concept_of
from etl.marks.content_tree import ContentItem, code_in, content_tree, known_codes, text_of
from etl.marks.coordinates import DRAWN, Drawing, drawing_of, line_of, with_axes, with_drawing
from etl.marks.measured_value import Stated, stated_by
from etl.marks.model import Mark, Report, Shape
from etl.marks.report_items import Reading, bad_item, report_of_items
from etl.marks.sr import tracking_uid_of, with_stated
from etl.quality import Flag

AIM_ROOT = "99NCIAIM:zzz001"
_ANNOTATION = "99NCIAIM:zzz002"
_ANATOMIC_ENTITY = "99NCIAIM:zzz008"
_OBSERVATION = "99NCIAIM:zzz009"
_CALCULATION = "99NCIAIM:zzz011"
_RESULT = "99NCIAIM:zzz015"
_METHOD = "SRT:G-C036"
_STUDY_DATE = "DCM:111060"
_DATE = re.compile(r"\d{8}", re.ASCII)

# Two lines whose calculations do not say which is which: the longer one is taken for the long axis.
GUESSED_PAIR_CONFIDENCE = 0.8

_Calculations = list[tuple[Concept, Stated]]


def read_aim_sr(dataset: Dataset) -> Report:
    """The annotations of a document, each one item. Its header has no study date; its image library may."""
    with warnings.catch_warnings(action="ignore"):
        root = content_tree(dataset)
        readings: list[Reading] = [partial(_read_annotation, item) for item in root.walk() if item.name == _ANNOTATION]
        report = report_of_items(dataset, "aim_sr", readings)
        dates = {text_of(item.dataset, "Date") for item in root.walk() if item.name == _STUDY_DATE}
        if report.study_date is None and len(dates) == 1 and _DATE.fullmatch(date := dates.pop()):
            return dataclasses.replace(report, study_date=date)
        return report


def _read_annotation(annotation: ContentItem, number: int) -> Mark:
    items = list(annotation.walk())
    if any(item.is_damaged for item in items):
        raise bad_item("the annotation cannot be read")
    finding, finding_unknown = known_codes(item for item in items if item.name == _OBSERVATION)
    site, site_unknown = known_codes(item for item in items if item.name == _ANATOMIC_ENTITY)
    mark = Mark(
        source_format="aim_sr",
        shape=Shape.LENGTH,
        item=number,
        tracking_uid=tracking_uid_of(annotation),
        finding=finding,
        finding_site=site,
        flags=frozenset({Flag.CODE_UNKNOWN} if finding_unknown or site_unknown else ()),
    )
    calculations = list(_calculations(items))
    drawings = [drawing_of(item) for item in items if item.value_type in DRAWN]
    lines = sorted((drawing for drawing in drawings if drawing.is_line), key=lambda line: -line.extent)
    if lines:
        return _lines_measured(mark, lines, calculations)
    if len(drawings) != 1:
        raise bad_item("no shape in the annotation, or several that are no lines")
    return with_drawing(with_stated(mark, *_pair_of_values(calculations)), drawings[0])


def _lines_measured(mark: Mark, lines: Sequence[Drawing], calculations: _Calculations) -> Mark:
    concepts = {concept for concept, _ in calculations}
    if len(lines) > 2 or len({line.place for line in lines}) > 1:
        raise bad_item("more lines than two diameters, or on several images")
    mark = with_stated(mark, *_pair_of_values(calculations))
    if len(lines) == 1:
        if concepts == {Concept.SHORT_AXIS}:
            raise bad_item("a short axis without a long one")
        return with_axes(mark, lines[0].place, line_of(lines[0]), None)
    long_axis, short_axis = sorted((line_of(line) for line in lines), key=lambda line: -dist(*line))
    if not {Concept.LONG_AXIS, Concept.SHORT_AXIS} <= concepts:
        mark = dataclasses.replace(mark, confidence=GUESSED_PAIR_CONFIDENCE)
    return with_axes(mark, lines[0].place, long_axis, short_axis)


def _calculations(items: Sequence[ContentItem]) -> Iterator[tuple[Concept, Stated]]:
    """The lengths calculated, with what they are lengths of."""
    for item in items:
        if item.name != _CALCULATION:
            continue
        methods = [code_in(child.dataset, "ConceptCodeSequence") for child in item.children if child.name == _METHOD]
        concept = next((concept_of(*method) for method in methods if method), None)
        if concept not in (Concept.LONG_AXIS, Concept.SHORT_AXIS, Concept.LENGTH):
            continue
        results = [stated_by(result) for result in item.walk() if result.name == _RESULT]
        yield from ((concept, stated) for stated in results if stated.value is not None and stated.is_length)


def _pair_of_values(calculations: _Calculations) -> tuple[Stated, Stated | None]:
    """The values of the long and the short axis; among lengths that do not say, the larger is the long one's."""
    named = dict(reversed(calculations))
    unnamed = sorted((stated for concept, stated in calculations if concept is Concept.LENGTH), key=_by_value)
    long_axis = named.get(Concept.LONG_AXIS) or (unnamed.pop() if unnamed else Stated())
    return long_axis, named.get(Concept.SHORT_AXIS) or (unnamed.pop() if unnamed else None)


def _by_value(stated: Stated) -> float:
    return stated.value or 0.0
