"""Structured reports written by hand, item by item, so that any part can be left out or broken."""

import warnings
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from etl.marks.reports import read_report
from etl.quality import Reason

ENHANCED_SR = "1.2.840.10008.5.1.4.1.1.88.22"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMAGE_UID = "1.2.3.4"
LONG, SHORT = ("G-A185", "SRT"), ("G-A186", "SRT")
LENGTH = ("G-D7FE", "SRT")
LONG_POINTS, SHORT_POINTS = [10.0, 20.0, 40.0, 20.0], [25.0, 10.0, 25.0, 30.0]


def code(value, scheme, meaning="Jane Doe"):
    """A code sequence item; the meaning is text that must never come out."""
    made = Dataset()
    with warnings.catch_warnings(action="ignore"):
        made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = value, scheme, meaning
    return made


def item(value_type, name=None, children=(), **elements):
    """A content item with some children."""
    made = Dataset()
    made.ValueType = value_type
    if name:
        made.ConceptNameCodeSequence = [code(*name)]
    with warnings.catch_warnings(action="ignore"):
        for keyword, value in elements.items():
            setattr(made, keyword, value)
    if children:
        made.ContentSequence = list(children)
    return made


def image(uid=IMAGE_UID, sop_class=CT, frame=None, name=None):
    reference = Dataset()
    with warnings.catch_warnings(action="ignore"):
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = sop_class, uid
    if frame is not None:
        reference.ReferencedFrameNumber = frame
    return item("IMAGE", name, ReferencedSOPSequence=[reference])


def scoord(points, graphic="POLYLINE", children=None, name=None):
    return item(
        "SCOORD", name, [image()] if children is None else children, GraphicType=graphic, GraphicData=list(points)
    )


def scoord3d(points, graphic="POLYLINE", frame="1.2.9"):
    return item("SCOORD3D", GraphicType=graphic, GraphicData=list(points), ReferencedFrameOfReferenceUID=frame)


def num(name, value=None, unit=("mm", "UCUM"), children=()):
    """A measurement; without a value it has no measured value sequence."""
    made = item("NUM", name, children)
    if value is not None:
        measured = Dataset()
        measured.NumericValue = value
        if unit:
            measured.MeasurementUnitsCodeSequence = [code(*unit)]
        made.MeasuredValueSequence = [measured]
    return made


def axis(name, value, points, unit=("mm", "UCUM")):
    return num(name, value, unit, [scoord(points)])


def bidirectional():
    return [axis(LONG, "30", LONG_POINTS), axis(SHORT, "20", SHORT_POINTS)]


def coded(name, value):
    return item("CODE", name, ConceptCodeSequence=[code(*value)])


def tracking(uid):
    return item("UIDREF", ("112040", "DCM"), UID=uid)


def group(*children):
    return item("CONTAINER", ("125007", "DCM"), children)


def header(root, sop_class=ENHANCED_SR):
    root.SOPClassUID, root.SOPInstanceUID = sop_class, "1.2.3"
    root.StudyInstanceUID, root.StudyDate, root.PatientID = "1.2", "20200101", "P 1"
    root.ContentDate, root.ContentTime = "20200202", "101112.5"
    return root


def report(*groups, root=("126000", "DCM"), sop_class=ENHANCED_SR):
    """TID 1500, with an image library that says nothing."""
    library = item("CONTAINER", ("111028", "DCM"), [item("IMAGE")])
    measurements = item("CONTAINER", ("126010", "DCM"), groups)
    return header(item("CONTAINER", root, [library, measurements]), sop_class)


def as_bytes(dataset):
    """The document as a file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    stream = BytesIO()
    with warnings.catch_warnings(action="ignore"):
        dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def reread(dataset):
    """The document as a reader meets it: from bytes, its elements not yet converted."""
    return dcmread(BytesIO(as_bytes(dataset)))


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
