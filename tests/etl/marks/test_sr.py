"""Structured reports: what real writers do, trap by trap, and what a damaged file may cost."""

from pathlib import Path

import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag
from sr_documents import (
    ENHANCED_SR,
    LENGTH,
    LONG,
    LONG_POINTS,
    SHORT,
    SHORT_POINTS,
    axis,
    bidirectional,
    coded,
    group,
    image,
    item,
    num,
    only_mark,
    only_refused,
    read,
    report,
    reread,
    scoord,
    scoord3d,
    tracking,
)

from etl.marks.model import Convention, Shape
from etl.marks.reports import read_report
from etl.quality import Flag, Reason, RefusedError

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "pacs" / "sr"
needs_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the real reports are not on this machine")
LONG_AXIS, SHORT_AXIS = ((10.0, 20.0), (40.0, 20.0)), ((25.0, 10.0), (25.0, 30.0))
SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]


def test_a_bidirectional_measurement():
    found = read(group(tracking("2.25.7"), coded(("121071", "DCM"), ("27925004", "SCT")), *bidirectional()))

    (mark,) = found.marks
    assert (mark.shape, mark.item, mark.confidence) == (Shape.BIDIRECTIONAL, 1, 1.0)
    assert (mark.long_axis, mark.short_axis) == (LONG_AXIS, SHORT_AXIS)
    assert (mark.stated_long, mark.stated_short, mark.stated_unit) == (30.0, 20.0, "mm")
    assert (mark.image_uid, mark.frame_number, mark.convention) == ("1.2.3.4", None, Convention.HALF_BASED)
    assert (mark.tracking_uid, mark.finding, mark.flags) == ("2.25.7", "SCT:27925004", frozenset())
    assert (found.report_uid, found.patient_key, found.study_uid) == ("1.2.3", "P 1", "1.2")
    assert (found.source_format, found.study_date, found.saved_at) == ("sr", "20200101", "20200202101112.5")


@pytest.mark.parametrize(
    ("long_name", "short_name"),
    [(LONG, SHORT), (("103339001", "SCT"), ("103340004", "SCT")), (("131187009", "SCT"), ("131188004", "SCT"))],
)
def test_codes_of_both_schemes_in_any_order(long_name, short_name):
    mark = only_mark(axis(short_name, "20", SHORT_POINTS), axis(long_name, "30", LONG_POINTS))

    assert (mark.long_axis, mark.short_axis, mark.stated_long) == (LONG_AXIS, SHORT_AXIS, 30.0)


@pytest.mark.parametrize("name", [LENGTH, ("410668003", "SCT"), ("G-A22A", "SRT"), ("121206", "DCM"), LONG])
def test_one_diameter_is_a_length(name):
    mark = only_mark(axis(name, "30", LONG_POINTS))

    assert (mark.shape, mark.long_axis, mark.short_axis) == (Shape.LENGTH, LONG_AXIS, None)
    assert mark.flags == {Flag.NO_SHORT_AXIS}


def test_lengths_in_one_group_are_items_of_their_own():
    found = read(
        group(axis(LENGTH, "30", LONG_POINTS), axis(LENGTH, "1", [1, 1]), axis(LENGTH, "20", SHORT_POINTS)),
        group(*bidirectional()),
    )

    assert [(mark.item, mark.long_axis) for mark in found.marks] == [(1, LONG_AXIS), (3, SHORT_AXIS), (4, LONG_AXIS)]
    assert [refused.member for refused in found.refused] == ["item 2 of a report"]


def test_a_length_beside_two_axes_is_an_item_too():
    found = read(group(axis(LENGTH, "9", [1, 1, 1, 10]), *bidirectional()))

    assert [mark.shape for mark in found.marks] == [Shape.BIDIRECTIONAL, Shape.LENGTH]


def test_a_bad_group_costs_one_item():
    found = read(group(*bidirectional()), group(num(LONG)), group(*bidirectional()))

    assert [mark.item for mark in found.marks] == [1, 3]
    assert [refused.member for refused in found.refused] == ["item 2 of a report"]


# The traps of real files.


def test_an_area_under_the_code_for_length():
    area = num(LENGTH, "3330.1", ("mm2", "UCUM"), [scoord([281, 298, 281, 376, 252, 337, 309, 337], "ELLIPSE")])

    assert only_refused(area) == "neither points nor a length"


def test_a_length_on_an_ellipse_is_none():
    length = num(LENGTH, "30", children=[scoord([281, 298, 281, 376, 252, 337, 309, 337], "ELLIPSE")])

    assert only_refused(length) == "a diameter is not a line of two points"


def test_a_measurement_without_value_keeps_its_points():
    mark = only_mark(num(LONG, children=[scoord(LONG_POINTS)]), axis(SHORT, "20", SHORT_POINTS))

    assert (mark.long_axis, mark.stated_long, mark.stated_short) == (LONG_AXIS, None, 20.0)


def test_neither_value_nor_points():
    assert only_refused(num(("111010", "DCM"), children=[scoord([3, 4], "POINT")])) == "neither points nor a length"
    assert only_refused(num(LENGTH)) == "neither points nor a length"


@pytest.mark.parametrize(
    ("unit", "kept"),
    [
        (("mm", "UCUM"), "mm"),
        (("cm", "UCUM"), "cm"),
        (("1", "UCUM", "px"), "px"),
        (("{pixels}", "UCUM"), "px"),
        (("1", "UCUM", "no units"), None),
        (("furlong", "99X"), None),
        (None, None),
    ],
)
def test_units(unit, kept):
    mark = only_mark(axis(LENGTH, "64.45", LONG_POINTS, unit))

    assert (mark.stated_long, mark.stated_unit) == (64.45, kept)
    assert (Flag.UNIT_UNKNOWN in mark.flags) == (kept is None)


def test_axes_in_two_units():
    mark = only_mark(axis(LONG, "30", LONG_POINTS), axis(SHORT, "2", SHORT_POINTS, ("cm", "UCUM")))

    assert (mark.stated_long, mark.stated_short, mark.stated_unit) == (30.0, None, "mm")
    assert Flag.UNIT_UNKNOWN in mark.flags


def test_images_of_the_library_are_no_marks():
    with pytest.raises(RefusedError) as refused:
        read()

    assert (refused.value.reason, refused.value.detail) == (Reason.NOT_A_REPORT, ENHANCED_SR)


def test_free_text_never_comes_out():
    mark = only_mark(
        item("TEXT", ("112039", "DCM"), TextValue="Jane Doe"),
        tracking("Jane Doe"),
        coded(("121071", "DCM"), ("CORNERSTONEFREETEXT", "CST4")),
        coded(("363698007", "SCT"), ("Jane Doe", "SCT")),
        *bidirectional(),
    )

    assert (mark.tracking_uid, mark.finding, mark.finding_site) == (None, None, None)
    assert mark.flags == {Flag.CODE_UNKNOWN}
    assert "Jane" not in repr(mark)


def test_a_place_in_snomed_ct_under_the_name_srt():
    mark = only_mark(coded(("G-C0E3", "SRT"), ("39607008", "SRT")), *bidirectional())

    assert (mark.finding_site, mark.flags) == ("SCT:39607008", frozenset())


def test_a_place_beneath_the_measurement():
    long_axis, short_axis = bidirectional()
    long_axis.ContentSequence.append(coded(("363698007", "SCT"), ("39607008", "SCT")))

    assert only_mark(long_axis, short_axis).finding_site == "SCT:39607008"


def test_points_in_the_patient():
    mark = only_mark(
        num(LONG, "30", children=[scoord3d([0, 0, 5, 30, 0, 5])]),
        num(SHORT, "20", children=[scoord3d([10, -10, 5, 10, 10, 5])]),
    )

    assert (mark.image_uid, mark.frame_of_reference_uid, mark.long_axis) == (None, "1.2.9", None)
    assert mark.long_axis_mm == ((0.0, 0.0, 5.0), (30.0, 0.0, 5.0))
    assert mark.short_axis_mm == ((10.0, -10.0, 5.0), (10.0, 10.0, 5.0))


def test_an_outline_in_the_patient():
    mark = only_mark(scoord3d([0, 0, 5, 30, 0, 5, 30, 9, 5, 0, 0, 5], "POLYGON"))

    assert (mark.shape, len(mark.outline_mm), mark.outline) == (Shape.OUTLINE, 4, ())


# Shapes at the level of the group.


@pytest.mark.parametrize("graphic", ["POLYGON", "POLYLINE"])
def test_an_outline_with_its_diameter(graphic):
    mark = only_mark(num(("81827009", "SCT"), "21"), scoord(SQUARE, graphic), num(("G-A16A", "SRT"), "9"))

    assert (mark.shape, mark.stated_long, mark.confidence) == (Shape.OUTLINE, 21.0, 0.8)
    assert mark.outline == ((10.0, 10.0), (30.0, 10.0), (30.0, 20.0), (10.0, 20.0))


def test_axes_stated_of_an_outline():
    mark = only_mark(num(LONG, "21"), num(SHORT, "9"), scoord(SQUARE, "POLYGON"))

    assert (mark.shape, mark.stated_long, mark.stated_short) == (Shape.OUTLINE, 21.0, 9.0)


@pytest.mark.parametrize(
    ("graphic", "points", "long_axis", "short_axis"),
    [
        ("ELLIPSE", [10, 20, 40, 20, 25, 10, 25, 30], LONG_AXIS, SHORT_AXIS),
        ("CIRCLE", [25, 20, 40, 20], LONG_AXIS, ((25.0, 5.0), (25.0, 35.0))),
    ],
)
def test_an_ellipse_and_a_circle_are_their_axes(graphic, points, long_axis, short_axis):
    mark = only_mark(scoord(points, graphic))

    assert (mark.shape, mark.long_axis, mark.short_axis) == (Shape.BIDIRECTIONAL, long_axis, short_axis)
    assert (mark.confidence, mark.flags) == (0.8, {Flag.SHORT_AXIS_FROM_OUTLINE})


def test_a_line_drawn_for_the_group():
    mark = only_mark(scoord(LONG_POINTS), num(LENGTH, "30"))

    assert (mark.shape, mark.long_axis, mark.stated_long) == (Shape.LENGTH, LONG_AXIS, 30.0)


def test_the_largest_outline_of_a_volume_is_its_key_slice():
    small = scoord([1, 1, 2, 1, 2, 2], "POLYGON", [image("1.2.5")])

    assert only_mark(small, scoord(SQUARE, "POLYGON", [image("1.2.6")]), small).image_uid == "1.2.6"


@pytest.mark.parametrize(
    ("graphic", "points"),
    [("POINT", [1, 1]), ("CIRCLE", [1, 1, 1, 1]), ("POLYGON", [1, 1, 2, 2, 1, 1]), ("ELLIPSE", [1, 1]), ("", SQUARE)],
)
def test_shapes_that_measure_nothing(graphic, points):
    assert only_refused(scoord(points, graphic))


# Where the points lie.


def test_the_frame_of_a_multi_frame_image():
    assert only_mark(num(LENGTH, "1", children=[scoord(LONG_POINTS, children=[image(frame=7)])])).frame_number == 7
    assert only_mark(num(LENGTH, "1", children=[scoord(LONG_POINTS, children=[image(frame=0)])])).frame_number is None


def test_points_that_leave_their_image_to_the_group():
    bare = num(LENGTH, "30", children=[scoord(LONG_POINTS, children=[])])

    assert only_mark(bare, image("1.2.8")).image_uid == "1.2.8"
    assert only_refused(bare) == "the points name neither image nor frame of reference"
    assert only_refused(bare, image("1.2.8"), image("1.2.9")) == "the points name neither image nor frame of reference"


def test_an_image_named_by_reference():
    referring = item("", RelationshipType="SELECTED FROM", ReferencedContentItemIdentifier=[1, 1, 1])
    dataset = report(group(num(LENGTH, "30", children=[scoord(LONG_POINTS, children=[referring])])))
    dataset.ContentSequence[0].ContentSequence[0] = image("1.2.77")

    assert read_report(reread(dataset)).marks[0].image_uid == "1.2.77"


@pytest.mark.parametrize("path", [[1], [1, 2, 1, 1, 1], [1, 9], [0], [1, 2]])
def test_references_in_circles_and_to_nowhere(path):
    referring = item("", ReferencedContentItemIdentifier=path)

    assert only_refused(num(LENGTH, "30", children=[scoord(LONG_POINTS, children=[referring])]))


def test_a_segmentation_is_not_drawn_on():
    segment = image("1.2.66", "1.2.840.10008.5.1.4.1.1.66.4", name=("121191", "DCM"))

    assert only_refused(segment, num(LENGTH, "30")) == "a length without points and without its image"
    assert only_mark(segment, image("1.2.8"), num(LENGTH, "30")).image_uid == "1.2.8"


def test_a_value_of_an_image_without_points():
    mark = only_mark(image("1.2.8"), num(LONG, "30"), num(SHORT, "20"))

    assert (mark.shape, mark.long_axis, mark.stated_short) == (Shape.BIDIRECTIONAL, None, 20.0)


def test_axes_on_two_images_are_no_pair():
    other = num(SHORT, "20", children=[scoord(SHORT_POINTS, children=[image("1.2.99")])])
    mark = only_mark(axis(LONG, "30", LONG_POINTS), other)

    assert (mark.shape, mark.short_axis, mark.flags) == (Shape.LENGTH, None, {Flag.NO_SHORT_AXIS})


# Numbers.


def test_a_short_axis_longer_than_the_long_one_stays():
    mark = only_mark(axis(LONG, "20", SHORT_POINTS), axis(SHORT, "30", LONG_POINTS))

    assert (mark.long_axis, mark.flags) == (SHORT_AXIS, {Flag.SHORT_EXCEEDS_LONG})


@pytest.mark.parametrize(
    "points",
    [
        [float("nan"), 1, 2, 2],
        [float("inf"), 1, 2, 2],
        [1e7, 1, 2, 2],
        [1, 1, 2],
        [1, 1],
        [1, 1, 1, 1],
        [1, 1, 2, 2, 3, 3],
        [],
    ],
)
def test_points_that_are_none(points):
    assert only_refused(axis(LENGTH, "30", points))
    assert only_refused(axis(LONG, "30", points), axis(SHORT, "20", SHORT_POINTS))
    assert only_refused(axis(LONG, "30", LONG_POINTS), axis(SHORT, "20", points))


@pytest.mark.parametrize("value", ["", "-1", "1e9"])
def test_values_that_are_none(value):
    mark = only_mark(axis(LENGTH, value, LONG_POINTS))

    assert (mark.stated_long, mark.stated_unit) == (None, None)
    assert (Flag.VALUE_INVALID in mark.flags) == bool(value)


def test_a_value_that_does_not_parse():
    dataset = report(group(axis(LENGTH, "30", LONG_POINTS)))
    measured = dataset.ContentSequence[1].ContentSequence[0].ContentSequence[0].MeasuredValueSequence[0]
    measured._dict[Tag("NumericValue")] = RawDataElement(
        Tag("NumericValue"), "DS", 4, b"1A2B", 0, False, True, True, None
    )
    (mark,) = read_report(dataset).marks

    assert (mark.stated_long, mark.stated_unit) == (None, None)
    assert Flag.VALUE_INVALID in mark.flags


def test_axes_inferred_from_one_ellipse():
    ellipse = scoord([10, 20, 40, 20, 25, 10, 25, 30], "ELLIPSE")
    mark = only_mark(num(LONG, "30", children=[ellipse]), num(SHORT, "20", children=[ellipse]))

    assert (mark.long_axis, mark.short_axis, mark.stated_short) == (LONG_AXIS, SHORT_AXIS, 20.0)


def test_a_short_axis_alone_and_axes_twice():
    assert only_refused(axis(SHORT, "20", SHORT_POINTS)) == "a short axis without a long one"
    assert only_refused(*bidirectional(), *bidirectional()) == "more than one long or short axis in a group"
