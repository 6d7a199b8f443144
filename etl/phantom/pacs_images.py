"""A slice as a DICOM file, in every transfer syntax that CT is kept in; and a series as one enhanced file.

Two ways of storing HU alternate by series: unsigned 12 bits with an intercept of -1024, and signed 16 bits without.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, CTImageStorage, EnhancedCTImageStorage

from etl.phantom.jpeg_lossless import Stored, jpeg_lossless

_LOWEST_HU = -1024
_RLE_HEADER_WORDS = 16

SYNTAXES: Mapping[str, str] = MappingProxyType(
    {
        "implicit": "1.2.840.10008.1.2",
        "explicit": "1.2.840.10008.1.2.1",
        "big-endian": "1.2.840.10008.1.2.2",
        "deflated": "1.2.840.10008.1.2.1.99",
        "rle": "1.2.840.10008.1.2.5",
        "jpeg-lossless": "1.2.840.10008.1.2.4.70",
        "jpeg-ls": "1.2.840.10008.1.2.4.80",
        "jpeg-2000": "1.2.840.10008.1.2.4.90",
        "htj2k": "1.2.840.10008.1.2.4.201",
        "enhanced": "1.2.840.10008.1.2.1",
    }
)
"""Names on the command line to transfer syntaxes; `enhanced` is one multi-frame file a series."""


@dataclass(frozen=True, slots=True)
class SeriesLook:
    """How a series is written."""

    syntax: str
    """A name of `SYNTAXES`."""
    signed: bool
    spacing_mm: float
    interval_mm: float
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str
    window_low_high_hu: tuple[float, float]


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """One slice to be written."""

    sop_uid: str
    instance_number: int
    position_mm: tuple[float, float, float]
    hu: NDArray[np.int16]


Identify = Callable[[Dataset], None]
"""Fills in who the patient is."""


def image_file(look: SeriesLook, image: DrawnImage, identify: Identify, preamble: bytes) -> bytes:
    """One slice as a file."""
    dataset = _head(look, CTImageStorage, image.sop_uid, preamble, ("ORIGINAL", "PRIMARY", "AXIAL"))
    identify(dataset)
    _put_geometry(dataset, look, image)
    _put_rescale(dataset, look)
    dataset.InstanceNumber = image.instance_number
    low, high = look.window_low_high_hu
    dataset.WindowCenter, dataset.WindowWidth = f"{(low + high) / 2:g}", f"{high - low:g}"
    return _with_pixels(dataset, look, [image.hu])


def enhanced_file(
    look: SeriesLook, images: Sequence[DrawnImage], sop_uid: str, identify: Identify, preamble: bytes
) -> bytes:
    """A whole series as one file, its geometry in functional groups."""
    dataset = _head(look, EnhancedCTImageStorage, sop_uid, preamble, ("ORIGINAL", "PRIMARY", "VOLUME", "NONE"))
    identify(dataset)
    dataset.InstanceNumber = 1
    dataset.NumberOfFrames = len(images)
    shared = Dataset()
    orientation, measures, values = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    measures.PixelSpacing = [f"{look.spacing_mm:.10g}"] * 2
    measures.SliceThickness = f"{look.interval_mm:g}"
    _put_rescale(values, look)
    shared.PlaneOrientationSequence = Items([orientation])
    shared.PixelMeasuresSequence = Items([measures])
    shared.PixelValueTransformationSequence = Items([values])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    frames = []
    for image in images:
        group, place = Dataset(), Dataset()
        place.ImagePositionPatient = [f"{value:.10g}" for value in image.position_mm]
        group.PlanePositionSequence = Items([place])
        frames.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Items(frames)
    return _with_pixels(dataset, look, [image.hu for image in images])


def no_image_file(
    look: SeriesLook, sop_uid: str, sop_class: str, image_type: Sequence[str], identify: Identify, preamble: bytes
) -> bytes:
    """Something that calls itself CT and is no axial image: a localizer, a dose page."""
    dataset = _head(look, UID(sop_class), sop_uid, preamble, image_type)
    identify(dataset)
    dataset.BurnedInAnnotation = "YES"
    dataset.InstanceNumber = 1
    _put_rescale(dataset, look)
    return _with_pixels(dataset, look, [np.zeros((64, 64), np.int16)])


def _head(look: SeriesLook, sop_class: UID, sop_uid: str, preamble: bytes, image_type: Sequence[str]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, UID(sop_uid)
    meta.TransferSyntaxUID = UID(SYNTAXES[look.syntax])
    meta.ImplementationClassUID = UID("2.25.86187215421073620712389121987418361351")
    dataset = FileDataset("", {}, file_meta=meta, preamble=preamble)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, sop_uid
    dataset.ImageType, dataset.Modality = list(image_type), "CT"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = look.study_uid, look.series_uid
    dataset.FrameOfReferenceUID = look.frame_of_reference_uid
    dataset.SeriesNumber = 2
    dataset.KVP = "120"
    return dataset


def _put_geometry(dataset: Dataset, look: SeriesLook, image: DrawnImage) -> None:
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [f"{value:.10g}" for value in image.position_mm]
    dataset.PixelSpacing = [f"{look.spacing_mm:.10g}"] * 2
    dataset.SliceThickness = f"{look.interval_mm:g}"


def _put_rescale(dataset: Dataset, look: SeriesLook) -> None:
    dataset.RescaleSlope, dataset.RescaleType = "1", "HU"
    dataset.RescaleIntercept = "0" if look.signed else str(_LOWEST_HU)


def _with_pixels(dataset: FileDataset, look: SeriesLook, frames: Sequence[NDArray[np.int16]]) -> bytes:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = frames[0].shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = 16 if look.signed else 12
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(look.signed)
    stored = [_stored(hu, look) for hu in frames]
    little = look.syntax != "big-endian"
    encoder = _ENCODERS.get(look.syntax)
    if encoder is None:
        dataset.PixelData = b"".join((one if little else one.byteswap()).tobytes() for one in stored)
    else:
        dataset.PixelData = encapsulate([encoder(one, dataset.BitsStored) for one in stored])
        dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OW" if encoder is None else "OB"
    buffer = io.BytesIO()
    dcmwrite(buffer, dataset, implicit_vr=look.syntax == "implicit", little_endian=little, enforce_file_format=True)
    return buffer.getvalue()


def _stored(hu: NDArray[np.int16], look: SeriesLook) -> Stored:
    return hu if look.signed else (hu.astype(np.int32) - _LOWEST_HU).astype(np.uint16)


def _rle(stored: Stored, _bits: int) -> bytes:
    planes = [(stored.view(np.uint16) >> 8).astype(np.uint8), (stored.view(np.uint16) & 0xFF).astype(np.uint8)]
    packed = []
    for plane in planes:
        data = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane)
        packed.append(data + b"\0" * (len(data) % 2))
    words = [0] * _RLE_HEADER_WORDS
    words[0], words[1], words[2] = 2, 4 * _RLE_HEADER_WORDS, 4 * _RLE_HEADER_WORDS + len(packed[0])
    return np.array(words, "<u4").tobytes() + b"".join(packed)


def _jpeg_ls(stored: Stored, _bits: int) -> bytes:
    return bytes(imagecodecs.jpegls_encode(stored.view(np.uint16)))


def _jpeg_2000(stored: Stored, bits: int) -> bytes:
    return bytes(imagecodecs.jpeg2k_encode(stored, level=0, reversible=True, codecformat="j2k", bitspersample=bits))


def _htj2k(stored: Stored, _bits: int) -> bytes:
    return bytes(imagecodecs.htj2k_encode(stored, reversible=True))


_ENCODERS: Mapping[str, Callable[[Stored, int], bytes]] = MappingProxyType(
    {"rle": _rle, "jpeg-lossless": jpeg_lossless, "jpeg-ls": _jpeg_ls, "jpeg-2000": _jpeg_2000, "htj2k": _htj2k}
)
