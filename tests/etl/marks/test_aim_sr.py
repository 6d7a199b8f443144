"""AIM annotations kept as DICOM SR, against their XML twins and made by hand."""

from pathlib import Path

import pydicom
import pytest
from defusedxml import ElementTree
from sr_documents import (
    LENGTH,
    LONG,
    LONG_POINTS,
    SHORT,
    SHORT_POINTS,
    coded,
    header,
    image,
    item,
    num,
    reread,
    scoord,
    tracking,
)

from etl.marks.aim_sr import GUESSED_PAIR_CONFIDENCE
from etl.marks.model import Shape
from etl.marks.reports import read_report
from etl.quality import Flag, Reason, RefusedError

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "pacs" / "aim" / "annotations"
TWINS = sorted(path.stem for path in SHARED.glob("*.dcm"))
AIM = "{gme://caCORE.caCORE/3.2/edu.northwestern.radiology.AIM}"


def zzz(number):
    return f"zzz{number:03d}", "99NCIAIM"


def calculation(method, value, unit=("mm", "DCM")):
    return item("CONTAINER", zzz(11), [coded(("G-C036", "SRT"), method), num(zzz(15), value, unit)])


def shape(points, graphic="POLYLINE", uid="1.2.3.4"):
    drawn = scoord(points, graphic, [image(uid, frame=0)], zzz(22))
    return item("CONTAINER", zzz(30), [item("TEXT", zzz(22), [drawn], TextValue="Jane Doe")])


def annotation(*children):
    return item("CONTAINER", zzz(2), [tracking("1.2.5"), *children])


def read(*annotations):
    dataset = header(item("CONTAINER", zzz(1), annotations), "1.2.840.10008.5.1.4.1.1.88.33")
    return read_report(reread(dataset))


def only_mark(*children):
    found = read(annotation(*children))
    assert found.refused == ()
    (mark,) = found.marks
    return mark


def test_a_length():
    mark = only_mark(calculation(("G-A22A", "SRT"), "30.56"), shape(LONG_POINTS))

    assert (mark.source_format, mark.shape, mark.item) == ("aim_sr", Shape.LENGTH, 1)
    assert (mark.stated_long, mark.stated_unit, mark.flags) == (30.56, "mm", {Flag.NO_SHORT_AXIS})
    assert mark.long_axis == ((10.0, 20.0), (40.0, 20.0))
    assert (mark.image_uid, mark.frame_number, mark.tracking_uid) == ("1.2.3.4", None, "1.2.5")


def test_axes_named_by_their_calculations():
    mark = only_mark(calculation(SHORT, "20"), calculation(LONG, "30"), shape(SHORT_POINTS), shape(LONG_POINTS))

    assert (mark.stated_long, mark.stated_short, mark.confidence) == (30.0, 20.0, 1.0)
    assert (mark.long_axis, mark.short_axis) == (((10.0, 20.0), (40.0, 20.0)), ((25.0, 10.0), (25.0, 30.0)))


def test_two_lengths_are_taken_for_a_pair():
    mark = only_mark(calculation(LENGTH, "20"), calculation(LENGTH, "30"), shape(SHORT_POINTS), shape(LONG_POINTS))

    assert (mark.stated_long, mark.stated_short, mark.confidence) == (30.0, 20.0, GUESSED_PAIR_CONFIDENCE)


def test_an_outline_and_an_area():
    mark = only_mark(calculation(LENGTH, "200", ("mm2", "DCM")), shape([1, 1, 9, 1, 9, 9], "POLYGON"))

    assert (mark.shape, mark.stated_long) == (Shape.OUTLINE, None)


def test_places_and_findings():
    mark = only_mark(coded(zzz(8), ("39607008", "SCT")), coded(zzz(9), ("27925004", "SCT")), shape(LONG_POINTS))
    unknown = only_mark(coded(zzz(8), ("REX0001", "RADLEX")), shape(LONG_POINTS))

    assert (mark.finding_site, mark.finding) == ("SCT:39607008", "SCT:27925004")
    assert (unknown.finding_site, Flag.CODE_UNKNOWN in unknown.flags) == (None, True)
    assert "Jane" not in repr(mark)


@pytest.mark.parametrize(
    "children",
    [
        [calculation(LENGTH, "30")],
        [shape([1, 1], "POINT")],
        [shape(LONG_POINTS), shape(SHORT_POINTS), shape([1, 1, 2, 2])],
        [shape(LONG_POINTS), shape(SHORT_POINTS, uid="1.2.8")],
        [calculation(SHORT, "20"), shape(SHORT_POINTS)],
        [shape([1, 1, float("nan"), 2])],
    ],
)
def test_a_bad_annotation_costs_one_item(children):
    found = read(annotation(shape(LONG_POINTS)), annotation(*children), annotation(shape(LONG_POINTS)))

    assert [mark.item for mark in found.marks] == [1, 3]
    (refused,) = found.refused
    assert (refused.member, refused.reason) == ("item 2 of a report", Reason.MARK_INVALID)


def test_a_report_without_annotations():
    with pytest.raises(RefusedError) as refused:
        read()

    assert refused.value.reason is Reason.NOT_A_REPORT


def test_the_study_date_of_the_image_library():
    dataset = header(item("CONTAINER", zzz(1), [annotation(shape(LONG_POINTS))]), "1.2.840.10008.5.1.4.1.1.88.33")
    dataset.StudyDate = ""
    dated = item("IMAGE", zzz(34), [item("DATE", ("111060", "DCM"), Date="20000701")])
    dataset.ContentSequence.append(item("CONTAINER", ("111028", "DCM"), [dated]))

    assert read_report(reread(dataset)).study_date == "20000701"


@pytest.mark.skipif(not TWINS, reason="the real annotations are not on this machine")
@pytest.mark.parametrize("name", TWINS or ["none"])
def test_the_xml_twin_says_the_same(name):
    found = read_report(pydicom.dcmread(SHARED / f"{name}.dcm"))
    twin = ElementTree.parse(SHARED / f"{name}.xml").getroot()
    points = [
        (float(point.get("x")), float(point.get("y")))
        for point in sorted(twin.iter(f"{AIM}SpatialCoordinate"), key=lambda point: int(point.get("coordinateIndex")))
    ]

    (mark,) = found.marks
    assert list(mark.long_axis) == points
    assert mark.stated_long == pytest.approx(float(next(twin.iter(f"{AIM}CalculationData")).get("value")), abs=1e-5)
    assert mark.stated_unit == next(twin.iter(f"{AIM}CalculationResult")).get("unitOfMeasure")
    assert mark.image_uid == next(twin.iter(f"{AIM}Image")).get("sopInstanceUID")
    assert mark.tracking_uid == twin.get("uniqueIdentifier")
    assert found.patient_key == next(twin.iter(f"{AIM}Person")).get("id")
    study = next(twin.iter(f"{AIM}ImageStudy"))
    assert (found.study_uid, found.study_date) == (
        study.get("instanceUID"),
        study.get("startDate")[:10].replace("-", ""),
    )
