"""Measurements in structured reports of TID 1500, which OHIF, dcmjs, 3D Slicer and highdicom write.

A measurement group holds one lesion: a long and a short axis with points of their own (TID 1501), or a region drawn
once with the measurements beside it (TID 1410, 1411). Software disagrees on codes, units, order and on which parts it
leaves out, so the group is read by what is in it, not by its template. Lengths with points of their own that share a
group without axes are measurements of their own, and each is an item.
"""

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from functools import partial

from pydicom.dataset import Dataset

from etl.marks.codes import Concept
from etl.marks.content_tree import ContentItem, content_tree, known_codes, uid_of
from etl.marks.coordinates import DRAWN, Drawing, Place, drawing_of, images_of, line_of, with_axes, with_drawing
from etl.marks.measured_value import Stated, stated_by
from etl.marks.model import Mark, Report, Shape
from etl.marks.report_items import Reading, bad_item, report_of_items
from etl.quality import Flag

MEASUREMENT_GROUP = "DCM:125007"
_IMAGE_LIBRARY = "DCM:111028"
_TRACKING_UID = "DCM:112040"


def read_sr(dataset: Dataset) -> Report:
    """The measurements of a report; each group, or each length of a group of lengths, is one item."""
    with warnings.catch_warnings(action="ignore"):
        return report_of_items(dataset, "sr", list(_readings_below(content_tree(dataset))))


def _readings_below(item: ContentItem) -> Iterator[Reading]:
    """Every group of the document in order, and what is too damaged to tell whether it holds any."""
    if item.name == _IMAGE_LIBRARY:
        return
    if item.is_damaged and item.value_type in ("CONTAINER", ""):
        yield _refuse_damaged
    elif item.name == MEASUREMENT_GROUP:
        yield from _readings_of_group(item)
    for child in item.children:
        yield from _readings_below(child)


def _refuse_damaged(_number: int) -> Mark:
    raise bad_item("a part of the report cannot be read")


def _readings_of_group(group: ContentItem) -> Iterator[Reading]:
    numbers = [child for child in group.children if child.value_type == "NUM"]
    measured = {
        concept: [item for item in numbers if item.concept is concept and stated_by(item).is_length]
        for concept in (Concept.LONG_AXIS, Concept.SHORT_AXIS, Concept.LENGTH)
    }
    long_axes, short_axes = measured[Concept.LONG_AXIS], measured[Concept.SHORT_AXIS]
    lengths = measured[Concept.LENGTH]
    drawn_lengths = [item for item in lengths if _drawn(item)]
    if long_axes or short_axes:
        yield partial(_read_axes, group, long_axes, short_axes)
        lengths = drawn_lengths
    elif not drawn_lengths:
        yield partial(_read_region, group, lengths)
        return
    for item in lengths:
        yield partial(_read_length, group, item)


def _read_axes(
    group: ContentItem, long_axes: Sequence[ContentItem], short_axes: Sequence[ContentItem], number: int
) -> Mark:
    """A long axis, mostly with a short one."""
    if not long_axes:
        raise bad_item("a short axis without a long one")
    if len(long_axes) > 1 or len(short_axes) > 1:
        raise bad_item("more than one long or short axis in a group")
    long_item, short_item = long_axes[0], short_axes[0] if short_axes else None
    stated_short = stated_by(short_item) if short_item else None
    mark = with_stated(_group_mark(group, number), stated_by(long_item), stated_short)
    drawing = _drawing(group, long_item)
    if drawing is None:
        region = _largest_region(group)
        return with_drawing(mark, region) if region else _only_stated(mark, group, [*long_axes, *short_axes])
    if drawing.graphic_type == "ELLIPSE":
        return with_drawing(mark, drawing)
    short_drawing = _drawing(group, short_item) if short_item else None
    short_line = line_of(short_drawing) if short_drawing else None
    # Axes drawn on two images do not measure one thing.
    is_pair = short_drawing is not None and short_drawing.place == drawing.place
    return with_axes(mark, drawing.place, line_of(drawing), short_line if is_pair else None)


def _read_length(group: ContentItem, item: ContentItem, number: int) -> Mark:
    """One length with a line of its own."""
    mark = with_stated(_group_mark(group, number), stated_by(item))
    drawing = _drawing(group, item)
    if drawing is None:
        return _only_stated(mark, group, [item])
    return with_axes(mark, drawing.place, line_of(drawing), None)


def _read_region(group: ContentItem, lengths: Sequence[ContentItem], number: int) -> Mark:
    """A region drawn at the level of the group, with or without a diameter stated beside it."""
    mark = with_stated(_group_mark(group, number), stated_by(lengths[0]) if lengths else Stated())
    drawing = _largest_region(group)
    return with_drawing(mark, drawing) if drawing else _only_stated(mark, group, lengths)


def _only_stated(mark: Mark, group: ContentItem, items: Sequence[ContentItem]) -> Mark:
    """A value with no points still says something of an image, when it is clear which."""
    if any(item.is_damaged for item in items):
        raise bad_item("the points of a measurement cannot be read")
    if mark.stated_long is None:
        raise bad_item("neither points nor a length")
    images = {place for item in (*items, group) for place in images_of(item)}
    if len(images) != 1:
        raise bad_item("a length without points and without its image")
    is_single = mark.stated_short is None
    mark = dataclasses.replace(
        mark,
        shape=Shape.LENGTH if is_single else Shape.BIDIRECTIONAL,
        flags=mark.flags | ({Flag.NO_SHORT_AXIS} if is_single else set()),
    )
    return images.pop().put(mark)


def _drawn(item: ContentItem) -> list[ContentItem]:
    return [child for child in item.linked if child.value_type in DRAWN]


def _drawing(group: ContentItem, item: ContentItem) -> Drawing | None:
    """What a measurement is inferred from; None when it has no points of its own."""
    drawn = _drawn(item)
    if len(drawn) > 1:
        raise bad_item("a measurement with several drawings")
    return drawing_of(drawn[0], _images(group, item)) if drawn else None


def _images(group: ContentItem, item: ContentItem) -> list[Place]:
    return images_of(item) or images_of(group)


def _largest_region(group: ContentItem) -> Drawing | None:
    """The region at the level of the group; a volume has one outline per slice, and the largest is its key slice."""
    drawings = [drawing_of(child, images_of(group)) for child in _drawn(group)]
    return max(drawings, key=lambda drawing: drawing.extent, default=None)


def with_stated(mark: Mark, long_axis: Stated, short_axis: Stated | None = None) -> Mark:
    """The mark with what is stated; there is one unit for both axes, so a short one in another unit is left out."""
    short_axis = short_axis or Stated()
    flags = mark.flags | long_axis.flags | short_axis.flags
    unit, short_value = long_axis.unit, short_axis.value
    if long_axis.value is None:
        unit = short_axis.unit
    elif short_value is not None and short_axis.unit != unit:
        short_value, flags = None, flags | {Flag.UNIT_UNKNOWN}
    return dataclasses.replace(
        mark, stated_long=long_axis.value, stated_short=short_value, stated_unit=unit, flags=frozenset(flags)
    )


def _group_mark(group: ContentItem, number: int) -> Mark:
    """What a group says of its lesion, whatever the measurement."""
    # Some write the place as a property of the measurement (TID 1419).
    beside = [
        *group.children,
        *(child for item in group.children if item.value_type == "NUM" for child in item.children),
    ]
    finding, finding_unknown = known_codes(item for item in beside if item.concept is Concept.FINDING)
    site, site_unknown = known_codes(item for item in beside if item.concept is Concept.FINDING_SITE)
    return Mark(
        source_format="sr",
        shape=Shape.LENGTH,
        item=number,
        tracking_uid=tracking_uid_of(group),
        finding=finding,
        finding_site=site,
        flags=frozenset({Flag.CODE_UNKNOWN} if finding_unknown or site_unknown else ()),
    )


def tracking_uid_of(item: ContentItem) -> str | None:
    """The identifier a measurement carries from report to report; many writers make a new one at each save."""
    return next((uid_of(child.dataset, "UID") for child in item.children if child.name == _TRACKING_UID), None)
