"""A TID 1500 measurement report as a DICOM data set, for whoever has lesions to hand to a viewer.

Built with pydicom alone and laid out as dcmjs lays it out, which is what OHIF's adapters look for: one measurement
group a lesion with tracking identifier, finding, site, long and short axis, each length with the line it was measured
on and the image under it. highdicom reads it as well (the tests check that).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian

Line = tuple[tuple[float, float], tuple[float, float]]

_IMPLEMENTATION_UID = "2.25.86187215421073620712389121987418361351"
_MEANINGS: Mapping[str, Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "srt": {
            "long": ("G-A185", "SRT", "Long Axis"),
            "short": ("G-A186", "SRT", "Short Axis"),
            "length": ("G-D7FE", "SRT", "Length"),
            "site": ("G-C0E3", "SRT", "Finding Site"),
        },
        "sct": {
            "long": ("103339001", "SCT", "Long Axis"),
            "short": ("103340004", "SCT", "Short Axis"),
            "length": ("410668003", "SCT", "Length"),
            "site": ("363698007", "SCT", "Finding Site"),
        },
    }
)
CODE_SETS = tuple(_MEANINGS)


@dataclass(frozen=True, slots=True)
class ReportHeader:
    """Whose report it is, and under which names."""

    patient_id: str
    patient_name: str
    study_uid: str
    series_uid: str
    report_uid: str
    study_date: str = ""
    """YYYYMMDD, or empty."""
    content_date: str = ""
    content_time: str = ""
    observer: str = "unknown^unknown"
    extra: Mapping[str, object] = field(default_factory=dict)
    """Further elements by keyword."""


@dataclass(frozen=True, slots=True)
class MarkedImage:
    """The image under a line."""

    sop_uid: str
    sop_class: str = CTImageStorage
    frame_number: int | None = None
    series_uid: str = ""


@dataclass(frozen=True, slots=True)
class MeasuredLesion:
    """One measurement group; axes in pixels whose first centre is (0.5, 0.5), lengths in mm."""

    tracking_id: str
    tracking_uid: str
    image: MarkedImage
    long_axis: Line
    long_mm: float | None
    short_axis: Line | None = None
    short_mm: float | None = None
    finding: tuple[str, str, str] | None = None
    """Code, scheme, meaning."""
    site: tuple[str, str, str] | None = None
    comment: str | None = None
    space: tuple[str, tuple[tuple[float, float, float], ...], tuple[tuple[float, float, float], ...]] | None = None
    """Frame of reference and both axes in patient coordinates: then these are written instead of the image's."""


def measurement_report(header: ReportHeader, lesions: Sequence[MeasuredLesion], codes: str = "srt") -> FileDataset:
    """The whole report, ready to be saved."""
    names = _MEANINGS[codes]
    root = report_head(header, ComprehensiveSRStorage)
    root.update(container_item(("126000", "DCM", "Imaging Measurement Report")))
    root.ContentTemplateSequence = Items([template_item("1500")])
    groups = [_group(lesion, names) for lesion in lesions]
    measurements = container_item(("126010", "DCM", "Imaging Measurements"), groups)
    measurements.RelationshipType = "CONTAINS"
    library_images = [image_item(image, "CONTAINS") for image in dict.fromkeys(one.image for one in lesions)]
    library_group = container_item(("126200", "DCM", "Image Library Group"), library_images)
    library_group.RelationshipType = "CONTAINS"
    library = container_item(("111028", "DCM", "Image Library"), [library_group])
    library.RelationshipType = "CONTAINS"
    root.ContentSequence = Items(
        [
            _with_relation(_code_item(("121049", "DCM", "Language of Content Item and Descendants"),
                                      ("eng", "RFC5646", "English")), "HAS CONCEPT MOD"),
            _with_relation(_code_item(("121005", "DCM", "Observer Type"), ("121006", "DCM", "Person")),
                           "HAS OBS CONTEXT"),
            _with_relation(value_item("PNAME", ("121008", "DCM", "Person Observer Name"), "PersonName",
                                       header.observer), "HAS OBS CONTEXT"),
            _with_relation(_code_item(("121058", "DCM", "Procedure reported"),
                                      ("77477000", "SCT", "Computed tomography")), "HAS CONCEPT MOD"),
            library,
            measurements,
        ]
    )  # fmt: skip
    root.CurrentRequestedProcedureEvidenceSequence = Items([_evidence(header, lesions)])
    return root


def report_head(header: ReportHeader, sop_class: str) -> FileDataset:
    """What every report and presentation state starts with."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(header.report_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    root = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    root.SpecificCharacterSet = "ISO_IR 192"
    root.SOPClassUID, root.SOPInstanceUID = sop_class, header.report_uid
    root.StudyInstanceUID, root.SeriesInstanceUID = header.study_uid, header.series_uid
    root.PatientID, root.PatientName = header.patient_id, header.patient_name
    root.PatientBirthDate = root.PatientSex = ""
    root.StudyDate, root.StudyTime, root.StudyID, root.AccessionNumber = header.study_date, "", "", ""
    root.ReferringPhysicianName = ""
    root.ContentDate, root.ContentTime = header.content_date or "19700101", header.content_time or "000000"
    root.Modality, root.SeriesNumber, root.InstanceNumber = "SR", 9001, 1
    root.Manufacturer = "Lesionary"
    root.CompletionFlag, root.VerificationFlag = "COMPLETE", "UNVERIFIED"
    root.ReferencedPerformedProcedureStepSequence = Items([])
    root.PerformedProcedureCodeSequence = Items([])
    for keyword, value in header.extra.items():
        setattr(root, keyword, value)
    return root


def code_item(code: tuple[str, str, str]) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
    return item


def container_item(name: tuple[str, str, str], content: Sequence[Dataset] = ()) -> Dataset:
    """A CONTAINER item."""
    item = Dataset()
    item.ValueType = "CONTAINER"
    item.ConceptNameCodeSequence = Items([code_item(name)])
    item.ContinuityOfContent = "SEPARATE"
    item.ContentSequence = Items(content)
    return item


def template_item(identifier: str) -> Dataset:
    """Names the template a container follows."""
    item = Dataset()
    item.MappingResource, item.TemplateIdentifier = "DCMR", identifier
    return item


def value_item(kind: str, name: tuple[str, str, str], keyword: str, value: str) -> Dataset:
    """An item whose value is one element."""
    item = Dataset()
    item.RelationshipType = "HAS OBS CONTEXT" if kind in {"TEXT", "UIDREF"} else "CONTAINS"
    item.ValueType = kind
    item.ConceptNameCodeSequence = Items([code_item(name)])
    setattr(item, keyword, value)
    return item


def _code_item(name: tuple[str, str, str], value: tuple[str, str, str]) -> Dataset:
    item = Dataset()
    item.RelationshipType = "CONTAINS"
    item.ValueType = "CODE"
    item.ConceptNameCodeSequence = Items([code_item(name)])
    item.ConceptCodeSequence = Items([code_item(value)])
    return item


def _with_relation(item: Dataset, relation: str) -> Dataset:
    item.RelationshipType = relation
    return item


def _group(lesion: MeasuredLesion, names: Mapping[str, tuple[str, str, str]]) -> Dataset:
    content = [
        value_item("TEXT", ("112039", "DCM", "Tracking Identifier"), "TextValue", lesion.tracking_id),
        value_item("UIDREF", ("112040", "DCM", "Tracking Unique Identifier"), "UID", lesion.tracking_uid),
    ]
    if lesion.finding:
        content.append(_code_item(("121071", "DCM", "Finding"), lesion.finding))
    if lesion.site:
        content.append(_with_relation(_code_item(names["site"], lesion.site), "HAS CONCEPT MOD"))
    long_name = names["long"] if lesion.short_axis else names["length"]
    content.append(_length(lesion, long_name, lesion.long_mm, lesion.long_axis, 1))
    if lesion.short_axis:
        content.append(_length(lesion, names["short"], lesion.short_mm, lesion.short_axis, 2))
    if lesion.comment:
        content.append(value_item("TEXT", ("121106", "DCM", "Comment"), "TextValue", lesion.comment))
    group = container_item(("125007", "DCM", "Measurement Group"), content)
    group.RelationshipType = "CONTAINS"
    group.ContentTemplateSequence = Items([template_item("1501")])
    return group


def _length(
    lesion: MeasuredLesion, name: tuple[str, str, str], value_mm: float | None, line: Line, place: int
) -> Dataset:
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "NUM"
    item.ConceptNameCodeSequence = Items([code_item(name)])
    measured = Dataset()
    if value_mm is not None:
        measured.NumericValue = f"{value_mm:.9g}"
        measured.FloatingPointValue = value_mm
        measured.MeasurementUnitsCodeSequence = Items([code_item(("mm", "UCUM", "millimeter"))])
    item.MeasuredValueSequence = Items([measured] if value_mm is not None else [])
    item.ContentSequence = Items([_line_item(lesion, line, place)])
    return item


def _line_item(lesion: MeasuredLesion, line: Line, place: int) -> Dataset:
    item = Dataset()
    item.RelationshipType = "INFERRED FROM"
    item.GraphicType = "POLYLINE"
    if lesion.space is not None:
        item.ValueType = "SCOORD3D"
        item.ReferencedFrameOfReferenceUID = lesion.space[0]
        item.GraphicData = [value for point in lesion.space[place] for value in point]
        return item
    item.ValueType = "SCOORD"
    item.GraphicData = [value for point in line for value in point]
    item.ContentSequence = Items([image_item(lesion.image, "SELECTED FROM")])
    return item


def image_item(image: MarkedImage, relation: str) -> Dataset:
    """An IMAGE item."""
    item = Dataset()
    item.RelationshipType, item.ValueType = relation, "IMAGE"
    item.ReferencedSOPSequence = Items([reference(image)])
    return item


def reference(image: MarkedImage) -> Dataset:
    """An item that names an image."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class, image.sop_uid
    if image.frame_number is not None:
        item.ReferencedFrameNumber = image.frame_number
    return item


def _evidence(header: ReportHeader, lesions: Sequence[MeasuredLesion]) -> Dataset:
    """Every image named, under its series, as the standard wants it."""
    by_series: dict[str, dict[MarkedImage, None]] = {}
    for lesion in lesions:
        image = lesion.image
        by_series.setdefault(image.series_uid, {})[MarkedImage(image.sop_uid, image.sop_class)] = None
    series_items = []
    for series_uid, images in by_series.items():
        item = Dataset()
        item.SeriesInstanceUID = series_uid
        item.ReferencedSOPSequence = Items([reference(image) for image in images])
        series_items.append(item)
    study = Dataset()
    study.StudyInstanceUID = header.study_uid
    study.ReferencedSeriesSequence = Items(series_items)
    return study
