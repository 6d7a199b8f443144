"""Structured reports that are damaged, foreign or real: what each gives, and what it may cost."""

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
    LENGTH,
    LONG_POINTS,
    as_bytes,
    axis,
    bidirectional,
    group,
    header,
    image,
    item,
    num,
    report,
    scoord,
)

from etl.marks.model import Report, Shape
from etl.marks.reports import SR_CLASSES, read_report
from etl.quality import Reason, RefusedError

SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "pacs" / "sr"
needs_files = pytest.mark.skipif(not SHARED.is_dir(), reason="the real reports are not on this machine")
LONG_AXIS, SHORT_AXIS = ((10.0, 20.0), (40.0, 20.0)), ((25.0, 10.0), (25.0, 30.0))
SQUARE = [10.0, 10.0, 30.0, 10.0, 30.0, 20.0, 10.0, 20.0]


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
