"""AIM annotations as XML: both versions, real files, and what hostile XML may not do."""

import random

import pytest

from etl.export.sr_document import MarkedImage
from etl.marks.aim import read_aim
from etl.marks.model import Report, Shape
from etl.phantom.pacs_identity import Identity
from etl.phantom.pacs_marks import PlantedLesion, ReportNames, aim_annotation
from etl.quality import Flag, Reason, RefusedError

POINTS = (10.5, 20.25, 50.5, 20.75, 30.0, 8.5, 30.25, 30.0)


def annotation(frame=None):
    lesion = PlantedLesion(
        "1-1", "liver", MarkedImage("1.2.3.4", "1.2.840.10008.5.1.4.1.1.2", frame, "1.2.3.5"), "1.2.3.6", POINTS, 32.1,
        17.25, (0.0, 0.0, 0.0), 0.8, "1.2.3.7",
    )  # fmt: skip
    return aim_annotation(lesion, ReportNames("1.2.3.6", "1.2.3.8", "1.2.3.9", 1), Identity(1, 1, "F", 50))


def test_version_4_gives_both_axes_with_what_is_stated():
    report = read_aim(annotation(frame=7))

    (mark,) = report.marks
    assert (mark.shape, mark.confidence, mark.frame_number) == (Shape.BIDIRECTIONAL, 1.0, 7)
    assert tuple(value for axis in (mark.long_axis, mark.short_axis) for point in axis for value in point) == POINTS
    assert (mark.stated_long, mark.stated_short, mark.stated_unit) == (32.1, 17.25, "mm")
    assert mark.finding_site == "SCT:10200004"
    assert (mark.image_uid, report.study_uid, report.report_uid) == ("1.2.3.4", "1.2.3.6", "1.2.3.9")
    assert report.patient_key == "PLANTEDMRN00100001"


def test_free_text_of_an_annotation_does_not_come_along():
    report = read_aim(annotation())

    assert "AIM" not in repr(report.marks)
    assert "PLANTED" not in repr(report.marks)


def test_real_files_of_version_3(shared_pacs):
    files = sorted((shared_pacs / "aim" / "annotations").glob("*.xml"))
    reports = {path.stem: read_aim(path.read_bytes()) for path in files}

    assert len(reports) == 10
    (mark,) = reports["0028BaselineA"].marks
    assert (mark.stated_long, mark.stated_unit) == (pytest.approx(30.563, abs=1e-3), "mm")
    assert (mark.shape, mark.short_axis, mark.frame_number) == (Shape.LENGTH, None, None)
    assert Flag.NO_SHORT_AXIS in mark.flags


def replaced(old, new):
    data = annotation()
    assert old in data
    return data.replace(old, new)


def test_axes_are_told_by_length_when_nothing_names_them():
    (mark,) = read_aim(replaced(b"G-A186", b"G-0000")).marks

    assert (mark.long_axis[0], mark.confidence) == ((10.5, 20.25), 0.8)


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'x value="10.5"', b'x value="ten"'), (b'x value="10.5"', b'x value="1e99"'), (b"1.2.3.4", b"x.y.z.w")],
)
def test_annotation_without_usable_points_costs_itself(old, new):
    report = read_aim(replaced(old, new))

    assert report.marks == ()
    assert [one.reason for one in report.refused] == [Reason.MARK_INVALID]


BOMB = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<ImageAnnotation>&b;</ImageAnnotation>"""
OUTSIDE = b"""<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><ImageAnnotation>&a;</ImageAnnotation>"""


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BOMB, Reason.XML_DAMAGED),
        (OUTSIDE, Reason.XML_DAMAGED),
        (b"<ImageAnnotation>", Reason.XML_DAMAGED),
        (b"<x>" * 400 + b"</x>" * 400, Reason.NESTING_TOO_DEEP),
        (b"<a/>", Reason.NOT_A_REPORT),
        (b'<?xml version="1.0" encoding="nonsense"?><ImageAnnotation/>', Reason.XML_DAMAGED),
    ],
)
def test_hostile_or_broken_xml_is_refused(data, reason):
    with pytest.raises(RefusedError) as refusal:
        read_aim(data)
    assert refusal.value.reason is reason


def test_mutated_annotations_end_as_report_or_refusal():
    rng = random.Random(5)
    good = annotation()
    outcomes = []
    for _ in range(300):
        data = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            outcomes.append(isinstance(read_aim(bytes(data)), Report))
        except RefusedError:
            outcomes.append(False)

    assert len(outcomes) == 300
    assert 0 < sum(outcomes) < 300
