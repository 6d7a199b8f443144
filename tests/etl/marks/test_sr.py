"""Structured reports: what real writers do, trap by trap, and what a damaged file may cost."""

import random
import warnings
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from highdicom.sr import CodedConcept
from pydicom.dataelem import RawDataElement
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from sr_documents import (
    ENHANCED_SR,
    LENGTH,
    LONG,
    LONG_POINTS,
    SHORT,
    SHORT_POINTS,
    as_bytes,
    axis,
    bidirectional,
    coded,
    group,
    header,
    image,
    item,
    num,
    report,
    reread,
    scoord,
    scoord3d,
    tracking,
)

from etl.marks.model import Convention, Report, Shape
from etl.marks.reports import SR_CLASSES, read_report
from etl.quality import Flag, Reason, RefusedError

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "pacs" / "sr"
needs_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the real reports are not on this machine")
LONG_AXIS, SHORT_AXIS = ((10.0, 20.0), (40.0, 20.0)), ((25.0, 10.0), (25.0, 30.0))
SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]


def read(*groups):
    return read_report(reread(report(*groups)))


def only_mark(*children):
    found = read(group(*children))
    assert found.refused == ()
    (mark,) = found.marks
    return mark


def only_refused(*children):
    found = read(group(*children))
    assert found.marks == ()
    (refused,) = found.refused
    assert (refused.kind, refused.member) == ("row", "item 1 of a report")
    assert refused.reason is Reason.MARK_INVALID
    return refused.detail


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
    only_refused(scoord(points, graphic))


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

    only_refused(num(LENGTH, "30", children=[scoord(LONG_POINTS, children=[referring])]))


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
    only_refused(axis(LENGTH, "30", points))
    only_refused(axis(LONG, "30", points), axis(SHORT, "20", SHORT_POINTS))
    only_refused(axis(LONG, "30", LONG_POINTS), axis(SHORT, "20", points))


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


# Damage.


def break_sequence(dataset, keyword):
    tag = Tag(keyword)
    dataset._dict[tag] = RawDataElement(tag, "SQ", 6, b"\xfe\xff\x01\xe0\x00\x09", 0, False, True, True, None)


def test_a_measurement_whose_points_cannot_be_read():
    dataset = report(group(*bidirectional()), group(image(), axis(LENGTH, "30", LONG_POINTS)), group(*bidirectional()))
    break_sequence(dataset.ContentSequence[1].ContentSequence[1].ContentSequence[1], "ContentSequence")
    found = read_report(dataset)

    assert [mark.item for mark in found.marks] == [1, 3]
    assert found.refused[0].detail == "the points of a measurement cannot be read"


@pytest.mark.parametrize("path", [(1,), (1, 0)])
def test_a_part_that_cannot_be_read_is_a_refused_item(path):
    dataset = report(group(*bidirectional()))
    part = dataset
    for step in path:
        part = part.ContentSequence[step]
    break_sequence(part, "ContentSequence")
    found = read_report(dataset)

    assert (found.marks, len(found.refused)) == ((), 1)


def test_a_broken_image_library_costs_nothing():
    dataset = report(group(*bidirectional()))
    break_sequence(dataset.ContentSequence[0], "ContentSequence")

    assert len(read_report(dataset).marks) == 1


@pytest.mark.parametrize("depth", [70, 200])
def test_deep_nesting(depth):
    nested = item("CONTAINER")
    for _ in range(depth):
        nested = item("CONTAINER", children=[nested])

    with pytest.raises(RefusedError) as refused:
        read_report(report(nested))
    assert refused.value.reason is Reason.NESTING_TOO_DEEP


def test_a_report_without_identifier():
    dataset = report(group(*bidirectional()))
    dataset.SOPInstanceUID = ""

    with pytest.raises(RefusedError) as refused:
        read_report(dataset)
    assert refused.value.reason is Reason.DICOM_DAMAGED


def test_header_values_that_do_not_parse():
    dataset = report(group(*bidirectional()))
    dataset._dict[Tag("StudyDate")] = RawDataElement(Tag("StudyDate"), "DA", 4, b"soon", 0, False, True, True, None)
    dataset._dict[Tag("SpecificCharacterSet")] = RawDataElement(
        Tag("SpecificCharacterSet"), "CS", 4, b"WHAT", 0, False, True, True, None
    )
    del dataset.ContentDate, dataset.PatientID
    found = read_report(dataset)

    assert (found.study_date, found.saved_at, found.patient_key) == (None, "", None)
    assert len(found.marks) == 1


def flipped(content, seed):
    chance = random.Random(seed)
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def check_flips(content):
    """Any flip ends in a report or in a refusal; what pydicom cannot open never gets here. Says how many were read."""
    outcomes = []
    for seed in range(200):
        with warnings.catch_warnings(action="ignore"):
            try:
                dataset = pydicom.dcmread(BytesIO(flipped(content, seed)), force=True)
            except Exception:  # noqa: BLE001, S112 (another reader refuses these)
                continue
        try:
            outcomes.append(isinstance(read_report(dataset), Report))
        except RefusedError:
            outcomes.append(False)
    return sum(outcomes)


def test_flipped_bits_end_in_a_report_or_a_refusal():
    assert check_flips(as_bytes(report(group(*bidirectional()), group(scoord(SQUARE, "POLYGON"))))) > 50


# Which reports are read.


def test_measurement_groups_under_another_title():
    assert len(read_report(report(group(*bidirectional()), root=("18782-3", "LN"))).marks) == 1


@pytest.mark.parametrize(
    ("sop_class", "children", "reason"),
    [
        ("1.2.840.10008.5.1.4.1.1.88.11", [item("TEXT", TextValue="Jane Doe")], Reason.NOT_A_REPORT),
        ("1.2.840.10008.5.1.4.1.1.88.33", [num(LENGTH, "3")], Reason.UNSUPPORTED_ANNOTATION),
        ("1.2.840.10008.5.1.4.1.1.88.33", [group(num(LENGTH, "3"))], Reason.UNSUPPORTED_ANNOTATION),
        ("1.2.840.10008.5.1.4.1.1.88.65", [num(LENGTH, "3")], Reason.UNSUPPORTED_ANNOTATION),
        ("1.2.840.10008.5.1.4.1.1.88.67", [num(LENGTH, "3")], Reason.NOT_A_REPORT),
        ("1.2.840.10008.5.1.4.1.1.2", [], Reason.NOT_A_REPORT),
    ],
)
def test_other_reports_are_refused_by_their_class_alone(sop_class, children, reason):
    dataset = header(item("CONTAINER", ("121144", "DCM"), children), sop_class)

    with pytest.raises(RefusedError) as refused:
        read_report(dataset)
    assert (refused.value.reason, refused.value.detail) == (reason, sop_class)


def test_the_classes_are_those_pydicom_knows():
    known = {uid for uid in pydicom.uid.UID_dictionary if uid.startswith("1.2.840.10008.5.1.4.1.1.88.")}

    assert known == SR_CLASSES


# What other software writes.


def highdicom_report(measurement_group):
    observer = hd.sr.PersonObserverIdentifyingAttributes(name="Doe^Jane")
    context = hd.sr.ObservationContext(
        observer_person_context=hd.sr.ObserverContext(
            observer_type=codes.DCM.Person, observer_identifying_attributes=observer
        )
    )
    content = hd.sr.MeasurementReport(
        observation_context=context,
        procedure_reported=CodedConcept("25045-6", "LN", "CT"),
        imaging_measurements=[measurement_group],
    )
    return header(content[0], "1.2.840.10008.5.1.4.1.1.88.34")


def highdicom_source():
    return hd.sr.SourceImageForRegion(
        referenced_sop_class_uid="1.2.840.10008.5.1.4.1.1.2", referenced_sop_instance_uid="1.2.3.4"
    )


def test_highdicom_planar_region():
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.ELLIPSE,
        graphic_data=np.array([[10, 20], [40, 20], [25, 10], [25, 30]], float),
        source_image=highdicom_source(),
    )
    measured = hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(uid="1.2.55", identifier="Jane"),
        referenced_region=region,
        finding_type=CodedConcept("27925004", "SCT", "Nodule"),
        finding_sites=[hd.sr.FindingSite(anatomic_location=CodedConcept("39607008", "SCT", "Lung"))],
        measurements=[
            hd.sr.Measurement(
                name=CodedConcept("103339001", "SCT", "Long Axis"),
                value=30.0,
                unit=CodedConcept("mm", "UCUM", "mm"),
            )
        ],
    )
    (mark,) = read_report(highdicom_report(measured)).marks

    assert (mark.long_axis, mark.short_axis, mark.stated_long) == (LONG_AXIS, SHORT_AXIS, 30.0)
    assert (mark.finding, mark.finding_site, mark.tracking_uid) == ("SCT:27925004", "SCT:39607008", "1.2.55")


@needs_files
def test_the_dcmjs_example():
    found = read_report(pydicom.dcmread(SHARED / "2d1289f_examples_data_structured_report.dcm"))

    assert [(mark.item, mark.shape) for mark in found.marks] == [
        (1, Shape.LENGTH),
        (2, Shape.LENGTH),
        (3, Shape.BIDIRECTIONAL),
    ]
    assert (found.marks[2].stated_long, found.marks[2].stated_short, found.marks[2].stated_unit) == (114, 97, "mm")
    assert found.marks[2].long_axis == ((101.5, 308.0), (185.5, 389.0))
    assert [refused.member for refused in found.refused] == ["item 4 of a report", "item 5 of a report"]


@needs_files
def test_the_dcmjs_sample():
    found = read_report(pydicom.dcmread(SHARED / "4849850_test_sample-sr.dcm"))

    (mark,) = found.marks
    assert (mark.shape, mark.stated_unit, found.refused) == (Shape.BIDIRECTIONAL, "px", ())
    assert mark.long_axis[0] == pytest.approx((580.7191772460938, 1090.8358154296875))


@needs_files
def test_the_highdicom_examples():
    (circle,) = read_report(pydicom.dcmread(SHARED / "sr_document.dcm")).marks
    found = read_report(pydicom.dcmread(SHARED / "sr_document_with_multiple_groups.dcm"))

    assert (circle.shape, circle.finding) == (Shape.BIDIRECTIONAL, "SCT:2748008")
    assert [(mark.item, mark.shape) for mark in found.marks] == [(2, Shape.BIDIRECTIONAL), (3, Shape.OUTLINE)]
    assert [refused.member for refused in found.refused] == ["item 1 of a report", "item 4 of a report"]


@needs_files
def test_real_files_with_flipped_bits():
    assert check_flips((SHARED / "2d1289f_examples_data_structured_report.dcm").read_bytes()) > 50
