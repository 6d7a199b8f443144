"""The phantom's marks in the formats of an export: SR, presentation state, AIM 4 XML, key object selection.

Coordinates are DICOM's: the first pixel's centre is (0.5, 0.5). Free text is planted wherever a format has room.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from xml.etree import ElementTree as ET

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage, KeyObjectSelectionDocumentStorage

from etl.export.sr_document import (
    Line,
    MarkedImage,
    MeasuredLesion,
    ReportHeader,
    container_item,
    image_item,
    measurement_report,
    reference,
    report_head,
    template_item,
    value_item,
)
from etl.phantom.pacs_identity import Identity, made_up_uid, preamble, put_identity

_AIM_NAMESPACE = "gme://caCORE.caCORE/4.4/edu.northwestern.radiology.AIM"
_XML_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"

SITE_CODES: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "bone": ("3138006", "SCT", "Bone"),
        "abdomen": ("113345001", "SCT", "Abdominal structure"),
        "mediastinum": ("72410000", "SCT", "Mediastinum"),
        "liver": ("10200004", "SCT", "Liver"),
        "lung": ("39607008", "SCT", "Lung"),
        "kidney": ("64033007", "SCT", "Kidney"),
        "soft_tissue": ("87784001", "SCT", "Soft tissues"),
        "pelvis": ("12921003", "SCT", "Pelvis"),
    }
)


@dataclass(frozen=True, slots=True)
class PlantedLesion:
    """One lesion as a reader marked it."""

    name: str
    lesion_type: str
    image: MarkedImage
    study_uid: str
    points: tuple[float, ...]
    """x1, y1, … x4, y4, half-based px: long axis, then short."""
    long_mm: float
    short_mm: float
    position_mm: tuple[float, float, float]
    spacing_mm: float
    frame_of_reference_uid: str

    @property
    def axes(self) -> tuple[Line, Line]:
        """Long and short axis."""
        x = self.points
        return ((x[0], x[1]), (x[2], x[3])), ((x[4], x[5]), (x[6], x[7]))

    def in_space(self, line: Line) -> tuple[tuple[float, float, float], ...]:
        """A line in patient coordinates; the phantom's images lie straight."""
        left, top, z = self.position_mm
        return tuple((left + (x - 0.5) * self.spacing_mm, top + (y - 0.5) * self.spacing_mm, z) for x, y in line)


@dataclass(frozen=True, slots=True)
class ReportNames:
    """UIDs of one file of marks."""

    study_uid: str
    series_uid: str
    report_uid: str
    study_index: int


def structured_report(
    lesions: Sequence[PlantedLesion], names: ReportNames, identity: Identity, codes: str, *, in_space: bool
) -> bytes:
    """A TID 1500 report; `in_space` writes patient coordinates instead of the image's."""
    header = _header(names, identity, observer=identity.text("SR observer"))
    measured = [
        MeasuredLesion(
            tracking_id=identity.text("SR tracking identifier"),
            tracking_uid=made_up_uid(names.report_uid, lesion.name),
            image=lesion.image,
            long_axis=lesion.axes[0],
            long_mm=lesion.long_mm,
            short_axis=lesion.axes[1],
            short_mm=lesion.short_mm,
            finding=("52988006", "SCT", identity.text("SR code meaning")),
            site=SITE_CODES[lesion.lesion_type],
            comment=identity.text("SR comment"),
            space=(lesion.frame_of_reference_uid, lesion.in_space(lesion.axes[0]), lesion.in_space(lesion.axes[1]))
            if in_space
            else None,
        )
        for lesion in lesions
    ]
    report = measurement_report(header, measured, codes)
    put_identity(report, identity, names.study_index)
    return _file_bytes(report, identity)


def key_objects(images: Sequence[MarkedImage], names: ReportNames, identity: Identity) -> bytes:
    """A selection of key images."""
    root = report_head(_header(names, identity), KeyObjectSelectionDocumentStorage)
    put_identity(root, identity, names.study_index)
    root.Modality = "KO"
    root.update(container_item(("113000", "DCM", "Of Interest")))
    root.ContentTemplateSequence = Items([template_item("2010")])
    text = value_item(
        "TEXT", ("113012", "DCM", "Key Object Description"), "TextValue", identity.text("key object text")
    )
    text.RelationshipType = "CONTAINS"
    root.ContentSequence = Items([text, *(image_item(image, "CONTAINS") for image in images)])
    return _file_bytes(root, identity)


def presentation_state(lesions: Sequence[PlantedLesion], names: ReportNames, identity: Identity) -> bytes:
    """Two crossing lines and a line of text for each lesion."""
    root = report_head(_header(names, identity), GrayscaleSoftcopyPresentationStateStorage)
    put_identity(root, identity, names.study_index)
    root.Modality = "PR"
    root.ContentLabel, root.ContentDescription = "MEASURED", identity.text("GSPS description")
    root.ContentCreatorName = identity.text("GSPS creator")
    root.PresentationCreationDate, root.PresentationCreationTime = root.ContentDate, root.ContentTime
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = "LAYER1", 1
    root.GraphicLayerSequence = Items([layer])
    root.GraphicAnnotationSequence = Items([_graphic_annotation(lesion, identity) for lesion in lesions])
    return _file_bytes(root, identity)


def _graphic_annotation(lesion: PlantedLesion, identity: Identity) -> Dataset:
    annotation = Dataset()
    annotation.GraphicLayer = "LAYER1"
    annotation.ReferencedImageSequence = Items([reference(lesion.image)])
    graphics = []
    for line in lesion.axes:
        graphic = Dataset()
        graphic.GraphicAnnotationUnits, graphic.GraphicDimensions = "PIXEL", 2
        graphic.NumberOfGraphicPoints, graphic.GraphicType, graphic.GraphicFilled = 2, "POLYLINE", "N"
        graphic.GraphicData = [value for point in line for value in point]
        graphics.append(graphic)
    annotation.GraphicObjectSequence = Items(graphics)
    text = Dataset()
    text.AnchorPoint, text.AnchorPointVisibility, text.AnchorPointAnnotationUnits = (
        list(lesion.points[:2]),
        "N",
        "PIXEL",
    )
    remark = identity.text("GSPS text")
    text.UnformattedTextValue = f"{lesion.long_mm:.1f} x {lesion.short_mm:.1f} mm {remark}"
    annotation.TextObjectSequence = Items([text])
    return annotation


def _header(names: ReportNames, identity: Identity, observer: str = "unknown^unknown") -> ReportHeader:
    day = f"{identity.study_date(names.study_index):%Y%m%d}"
    return ReportHeader(
        identity.patient_id, identity.name, names.study_uid, names.series_uid, names.report_uid, day, day, "120000",
        observer,
    )  # fmt: skip


def _file_bytes(dataset: Dataset, identity: Identity) -> bytes:
    dataset.preamble = preamble(identity)
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def aim_annotation(lesion: PlantedLesion, names: ReportNames, identity: Identity) -> bytes:
    """One lesion as AIM 4 XML."""
    root = ET.Element("ImageAnnotationCollection", {"xmlns": _AIM_NAMESPACE, "aimVersion": "AIMv4_0"})
    day = f"{identity.study_date(names.study_index):%Y-%m-%d}"
    _value(root, "uniqueIdentifier", root=names.report_uid)
    _value(root, "description", value=identity.text("AIM description"))
    _value(root, "dateTime", value=f"{day}T12:00:00")
    user = ET.SubElement(root, "user")
    _value(user, "name", value=identity.text("AIM user"))
    person = ET.SubElement(root, "person")
    _value(person, "name", value=identity.name)
    _value(person, "id", value=identity.patient_id)
    annotation = ET.SubElement(ET.SubElement(root, "imageAnnotations"), "ImageAnnotation")
    _value(annotation, "uniqueIdentifier", root=made_up_uid(names.report_uid, "annotation"))
    _value(annotation, "typeCode", code="RECIST", codeSystemName="99PHANTOM")
    _value(annotation, "dateTime", value=f"{day}T12:00:00")
    _value(annotation, "name", value=identity.text("AIM name"))
    _value(annotation, "comment", value=identity.text("AIM comment"))
    _put_calculations(annotation, lesion)
    site = ET.SubElement(ET.SubElement(annotation, "imagingPhysicalEntityCollection"), "ImagingPhysicalEntity")
    code, scheme, _ = SITE_CODES[lesion.lesion_type]
    _value(site, "typeCode", code=code, codeSystemName=scheme)
    _put_shapes(annotation, lesion)
    _put_image(annotation, lesion)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def _put_calculations(annotation: ET.Element, lesion: PlantedLesion) -> None:
    calculations = ET.SubElement(annotation, "calculationEntityCollection")
    for code, name, value in (("G-A185", "LongAxis", lesion.long_mm), ("G-A186", "ShortAxis", lesion.short_mm)):
        entity = ET.SubElement(calculations, "CalculationEntity")
        _value(entity, "typeCode", code=code, codeSystemName="SRT")
        _value(entity, "description", value=name)
        results = ET.SubElement(entity, "calculationResultCollection")
        result = ET.SubElement(results, "CalculationResult", {"type": "Scalar", _XML_TYPE: "CompactCalculationResult"})
        _value(result, "unitOfMeasure", value="mm")
        _value(result, "value", value=repr(value))


def _put_shapes(annotation: ET.Element, lesion: PlantedLesion) -> None:
    shapes = ET.SubElement(annotation, "markupEntityCollection")
    for line in lesion.axes:
        shape = ET.SubElement(shapes, "MarkupEntity", {_XML_TYPE: "TwoDimensionMultiPoint"})
        _value(shape, "imageReferenceUid", root=lesion.image.sop_uid)
        _value(shape, "referencedFrameNumber", value=str(lesion.image.frame_number or 1))
        places = ET.SubElement(shape, "twoDimensionSpatialCoordinateCollection")
        for index, (x, y) in enumerate(line):
            place = ET.SubElement(places, "TwoDimensionSpatialCoordinate")
            _value(place, "coordinateIndex", value=str(index))
            _value(place, "x", value=repr(x))
            _value(place, "y", value=repr(y))


def _put_image(annotation: ET.Element, lesion: PlantedLesion) -> None:
    references = ET.SubElement(annotation, "imageReferenceEntityCollection")
    entity = ET.SubElement(references, "ImageReferenceEntity", {_XML_TYPE: "DicomImageReferenceEntity"})
    study = ET.SubElement(entity, "imageStudy")
    _value(study, "instanceUid", root=lesion.study_uid)
    series = ET.SubElement(study, "imageSeries")
    _value(series, "instanceUid", root=lesion.image.series_uid)
    image = ET.SubElement(ET.SubElement(series, "imageCollection"), "Image")
    _value(image, "sopClassUid", root=lesion.image.sop_class)
    _value(image, "sopInstanceUid", root=lesion.image.sop_uid)


def _value(parent: ET.Element, name: str, **attributes: str) -> None:
    ET.SubElement(parent, name, attributes)
