"""Key object selections: which images, which frames, and which selections point at nothing."""

import highdicom as hd
import pytest
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from sr_documents import CT, header, image, item, report, reread

from etl.marks.model import Shape
from etl.marks.reports import read_report
from etl.quality import Reason, RefusedError

KEY_OBJECTS = "1.2.840.10008.5.1.4.1.1.88.59"


def selection(*children, title=("113000", "DCM")):
    return reread(header(item("CONTAINER", title, children), KEY_OBJECTS))


def test_each_image_and_each_frame_is_an_item():
    found = read_report(
        selection(item("TEXT", ("113012", "DCM"), TextValue="Jane Doe"), image("1.2.7"), image("1.2.8", frame=[3, 9]))
    )

    assert [(mark.item, mark.image_uid, mark.frame_number) for mark in found.marks] == [
        (1, "1.2.7", None),
        (2, "1.2.8", 3),
        (3, "1.2.8", 9),
    ]
    assert {mark.shape for mark in found.marks} == {Shape.KEY_IMAGE}
    assert (found.source_format, found.report_uid, found.refused) == ("key_object", "1.2.3", ())
    assert "Jane" not in repr(found)


def test_an_image_that_names_none_costs_one_item():
    found = read_report(selection(image("1.2.7"), item("IMAGE"), image("Jane Doe"), image("1.2.8")))

    assert [mark.item for mark in found.marks] == [1, 4]
    assert [(refused.member, refused.reason) for refused in found.refused] == [
        ("item 2 of a report", Reason.MARK_INVALID),
        ("item 3 of a report", Reason.MARK_INVALID),
    ]
    assert "Jane" not in repr(found)


@pytest.mark.parametrize("title", ["113001", "113010", "113030", "113036", "113037", "113039"])
def test_rejections_and_manifests_point_at_nothing(title):
    with pytest.raises(RefusedError) as refused:
        read_report(selection(image(), title=(title, "DCM")))

    assert (refused.value.reason, refused.value.detail) == (Reason.NOT_A_REPORT, KEY_OBJECTS)


def test_a_title_of_the_vendors_own_is_read():
    assert len(read_report(selection(image(), title=("KEY", "99VENDOR"))).marks) == 1


def test_a_selection_of_nothing():
    with pytest.raises(RefusedError) as refused:
        read_report(selection())

    assert refused.value.reason is Reason.NOT_A_REPORT


def test_a_report_is_no_selection_though_it_has_images():
    with pytest.raises(RefusedError):
        read_report(report())


def test_what_highdicom_writes():
    evidence = Dataset()
    evidence.SOPClassUID, evidence.SOPInstanceUID = CT, "1.2.7"
    evidence.StudyInstanceUID, evidence.SeriesInstanceUID = "1.2", "1.2.1"
    evidence.PatientID, evidence.PatientName, evidence.PatientBirthDate = "P 1", "Doe^Jane", ""
    evidence.PatientSex, evidence.StudyID, evidence.AccessionNumber = "", "", ""
    evidence.StudyDate, evidence.StudyTime, evidence.ReferringPhysicianName = "20200101", "101010", ""
    evidence.Rows, evidence.Columns = 2, 2
    content = hd.ko.KeyObjectSelection(
        document_title=CodedConcept("113000", "DCM", "Of Interest"), referenced_objects=[evidence]
    )
    document = hd.ko.KeyObjectSelectionDocument(
        evidence=[evidence],
        content=content,
        series_instance_uid="1.2.30",
        series_number=1,
        sop_instance_uid="1.2.31",
        instance_number=1,
        manufacturer="m",
    )
    found = read_report(reread(document))

    assert (found.report_uid, found.patient_key, found.study_date) == ("1.2.31", "P 1", "20200101")
    assert [mark.image_uid for mark in found.marks] == ["1.2.7"]
