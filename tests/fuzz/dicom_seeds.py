"""DICOM files to begin with: images in every transfer syntax, and documents of every kind that is read."""

import io

import pydicom
from fuzz.contract import CANARY
from fuzz.mutations import joined
from fuzz.planted import LESION, NAMES, WHO
from pacs_files import ct, enhanced
from pydicom.dataset import Dataset
from sr_documents import (
    LONG,
    LONG_POINTS,
    as_bytes,
    axis,
    bidirectional,
    code,
    coded,
    group,
    header,
    image,
    item,
    num,
    report,
    scoord,
    scoord3d,
    tracking,
)  # fmt: skip

from etl.phantom.pacs_images import SYNTAXES
from etl.phantom.pacs_marks import presentation_state, structured_report

_CT = "1.2.840.10008.5.1.4.1.1.2"


def image_seeds() -> list[bytes]:
    return [ct(syntax=syntax) for syntax in SYNTAXES if syntax != "enhanced"] + [enhanced(2)]


def header_seeds() -> list[bytes]:
    return [data[:600] + data[-200:] for data in image_seeds()]


def codestream_seeds() -> list[bytes]:
    found = []
    for data in image_seeds():
        dataset = pydicom.dcmread(io.BytesIO(data))
        if "NumberOfFrames" not in dataset and dataset["PixelData"].is_undefined_length:
            value = next(iter(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)))
            found.append(joined(bytes([0, 15, int(dataset.PixelRepresentation)]), value))
    return found


def report_seeds() -> list[bytes]:
    aim = header(
        item(
            "CONTAINER", ("zzz001", "99NCIAIM"),
            [
                item(
                    "CONTAINER", ("zzz002", "99NCIAIM"),
                    [
                        coded(("zzz009", "99NCIAIM"), ("4147007", "SCT")), scoord(LONG_POINTS),
                        item("CONTAINER", ("zzz011", "99NCIAIM"), [
                            coded(("G-C036", "SRT"), LONG), num(("zzz015", "99NCIAIM"), "30"),
                        ]),
                    ],
                )
            ],
        )
    )  # fmt: skip
    written_out = report(
        group(*bidirectional(), tracking("1.2.5"), coded(("121071", "DCM"), ("4147007", "SCT"))),
        group(num(("G-D7FE", "SRT"), "30", children=[scoord3d([0, 0, 0, 3, 4, 0])])),
        group(item("SCOORD", None, [image(frame=2)], GraphicType="POLYGON", GraphicData=[0, 0, 9, 0, 9, 9, 0, 9])),
        group(axis(LONG, "3", [1, 2, 3, 4], ("cm", "UCUM")), item("TEXT", ("121106", "DCM"), TextValue=CANARY)),
    )
    key_object = header(item("CONTAINER", ("113000", "DCM"), [image(frame=[1, 2])]), "1.2.840.10008.5.1.4.1.1.88.59")
    return [
        as_bytes(written_out), as_bytes(aim), as_bytes(key_object),
        structured_report([LESION], NAMES, WHO, "srt", in_space=False),
        structured_report([LESION], NAMES, WHO, "sct", in_space=True),
    ]  # fmt: skip


def gsps_seeds() -> list[bytes]:
    state = header(Dataset(), "1.2.840.10008.5.1.4.1.1.11.1")
    annotation, graphic, circle, text = Dataset(), Dataset(), Dataset(), Dataset()
    for one, kind, points in ((graphic, "POLYLINE", [1, 1, 9, 9]), (circle, "CIRCLE", [5, 5, 9, 5])):
        one.GraphicAnnotationUnits, one.GraphicType, one.GraphicData = "PIXEL", kind, points
    text.UnformattedTextValue = f"{CANARY} 23.4 x 12.1 mm"
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = _CT, "1.2.3.4"
    reference.ReferencedFrameNumber = 1
    annotation.ReferencedImageSequence, annotation.GraphicLayer = [reference], "L1"
    annotation.GraphicObjectSequence, annotation.TextObjectSequence = [graphic, circle], [text]
    state.GraphicAnnotationSequence = [annotation]
    return [as_bytes(state), presentation_state([LESION], NAMES, WHO)]


def outline_seeds() -> list[bytes]:
    structures = header(Dataset(), "1.2.840.10008.5.1.4.1.1.481.3")
    roi, contours, contour, reference = Dataset(), Dataset(), Dataset(), Dataset()
    roi.ROINumber, roi.ReferencedFrameOfReferenceUID, roi.ROIName = 1, "1.2.9", CANARY
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = _CT, "1.2.3.4"
    contour.ContourGeometricType, contour.ContourImageSequence = "CLOSED_PLANAR", [reference]
    contour.ContourData = [0, 0, 0, 9, 0, 0, 9, 9, 0]
    contours.ReferencedROINumber, contours.ContourSequence = 1, [contour, contour]
    structures.StructureSetROISequence, structures.ROIContourSequence = [roi], [contours]
    return [as_bytes(structures), as_bytes(_segmentation(1)), as_bytes(_segmentation(8))]


def _segmentation(bits: int) -> Dataset:
    made = header(Dataset(), "1.2.840.10008.5.1.4.1.1.66.4")
    segment, frame, identification, derivation, source = (Dataset() for _ in range(5))
    segment.SegmentNumber, segment.SegmentLabel = 1, CANARY
    segment.SegmentedPropertyTypeCodeSequence = [code("4147007", "SCT")]
    identification.ReferencedSegmentNumber = 1
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = _CT, "1.2.3.4"
    derivation.SourceImageSequence = [source]
    frame.SegmentIdentificationSequence, frame.DerivationImageSequence = [identification], [derivation]
    made.SegmentSequence, made.PerFrameFunctionalGroupsSequence = [segment], [frame]
    made.Rows, made.Columns, made.BitsAllocated, made.SegmentationType = 8, 8, bits, "BINARY"
    made.NumberOfFrames, made.SamplesPerPixel = 1, 1
    made.PixelData = bytes([0, 0x18, 0x3C, 0x7E, 0x7E, 0x3C, 0x18, 0]) if bits == 1 else bytes([0, 9] * 32)
    made["PixelData"].VR = "OB"
    return made
