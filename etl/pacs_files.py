"""What one file of a PACS export is, and its pixels: the two things the supervised child is asked for.

Files are told by their bytes, never by their names; only tables of marks (CSV, JSON) also need the right suffix,
because any text could be one.
"""

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from types import MappingProxyType

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from etl.archive import SourceTree
from etl.body import body_box
from etl.containers import Member
from etl.ct_pixels import UNCOMPRESSED, to_hu
from etl.dicom_fields import DEFLATED, Encoding, Fields, looks_like_dicom, read_encoding, read_fields
from etl.dicom_images import CT_CLASSES, WANTED_TAGS, FilePlace, ImageHeader, read_images
from etl.marks.aim import read_aim
from etl.marks.gsps import PRESENTATION_CLASSES, read_gsps
from etl.marks.model import Report
from etl.marks.outlines import read_rtstruct, read_segmentation
from etl.marks.reports import SR_CLASSES, read_report
from etl.marks.table import read_table
from etl.quality import Flag, Reason, RefusedError
from lesionary.pixels import encode_slice, pixel_digest

# A header without its pixels; few are longer, and those are read again as a whole.
_HEAD_BYTES = 24 << 10
_SOP_CLASS = 0x00080016
_MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_STANDARD_ROOT = "1.2.840.10008."
_TABLE_SUFFIXES = frozenset({".csv", ".json"})
_MAX_TEXT_BYTES = 16 << 20

# Annotations of the standard that nobody reads yet, and roots of makers whose private objects hold bookmarks.
_UNREAD_ANNOTATIONS = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.91.1",  # microscopy bulk annotations
        "1.2.840.10008.5.1.4.1.1.66.3",  # deformable registration
        "1.2.840.10008.5.1.4.1.1.66.5",  # surface segmentation
        "1.2.840.10008.5.1.4.1.1.66.6",  # tractography
        "1.2.840.10008.5.1.4.1.1.66.7",  # label map segmentation
        "1.2.840.10008.5.1.4.1.1.11.7",  # XA/XRF presentation state
        "1.2.840.10008.5.1.4.1.1.11.8",  # planar MPR volumetric presentation state
        "1.2.840.10008.5.1.4.1.1.11.10",  # volume rendering presentation state
        "1.2.840.10008.5.1.4.1.1.9.1.1",  # waveforms
    }
)
_MAKERS = ("1.2.840.113619", "1.3.12.2.1107", "1.3.46.670589", "1.2.392.200036", "1.2.752.24", "1.2.840.113704")

Found = tuple[ImageHeader, ...] | Report

_OTHER_REPORTS: Mapping[str, Callable[[Dataset], Report]] = MappingProxyType(
    dict.fromkeys(SR_CLASSES, read_report)
    | dict.fromkeys(PRESENTATION_CLASSES, read_gsps)
    | {_RTSTRUCT: read_rtstruct, _SEGMENTATION: read_segmentation}
)


@dataclass(frozen=True, slots=True)
class LookAtFile:
    """What a file is: its CT images' headers, or the marks in it."""

    tree: SourceTree

    def __call__(self, member: Member) -> Found:
        """Read one file as far as needed.

        Raises:
            RefusedError: it is nothing we take, with the reason.
        """
        head = self.tree.read_head(member.container, member.name, _HEAD_BYTES)
        whole = partial(self.tree.read, member.container, member.name)
        if not head:
            raise RefusedError(Reason.FILE_EMPTY, "0 bytes")
        if not looks_like_dicom(head):
            return _marks_in_text(self._suffix(member), head, member.size, whole)
        place = FilePlace(member.container, member.name, member.size, member.stamp)
        return _look_at_dicom(head, whole, place)

    def _suffix(self, member: Member) -> str:
        path = member.name or self.tree.containers[member.container].location.path
        return PurePosixPath(path).suffix.lower()


def _look_at_dicom(head: bytes, whole: Callable[[], bytes], place: FilePlace) -> Found:
    encoding = read_encoding(head)
    data = head
    if encoding.syntax == DEFLATED or encoding.media_class not in CT_CLASSES:
        # Only a plain CT image can be told by its head alone.
        data = whole()
        encoding = read_encoding(data)
    sop_class = encoding.media_class
    if sop_class == _MEDIA_DIRECTORY:
        raise RefusedError(Reason.MEDIA_DIRECTORY)
    if sop_class not in CT_CLASSES:
        fields, _ = read_fields(encoding, None)
        sop_class = fields.uid(_SOP_CLASS) or sop_class
        if sop_class not in CT_CLASSES:
            return _marks_in_dicom(sop_class, fields, encoding, data)
    return _images(encoding, data, whole, place)


def _images(encoding: Encoding, data: bytes, whole: Callable[[], bytes], place: FilePlace) -> tuple[ImageHeader, ...]:
    try:
        fields, pixels = read_fields(encoding, WANTED_TAGS)
    except RefusedError:
        # A head may end in the middle of an element.
        if len(data) >= place.size:
            raise
        pixels = None
    if pixels is None and len(data) < place.size:
        encoding = read_encoding(whole())
        fields, pixels = read_fields(encoding, WANTED_TAGS)
    _require_identity(fields)
    images = read_images(fields, encoding, pixels, place)
    last = images[-1]
    if last.pixel_size is not None and encoding.body_start and last.pixel_start + last.pixel_size > place.size:
        raise RefusedError(Reason.PIXELS_TRUNCATED, f"the file has {place.size} bytes")
    return images


def _require_identity(fields: Fields) -> None:
    if fields.uid(_SOP_CLASS) is None:
        raise RefusedError(Reason.NOT_DICOM, "no SOP class")


def _marks_in_dicom(sop_class: str | None, fields: Fields, encoding: Encoding, data: bytes) -> Report:
    if sop_class is None:
        raise RefusedError(Reason.NOT_DICOM, "no SOP class")
    reader = _OTHER_REPORTS.get(sop_class)
    if reader is not None:
        if encoding.syntax is None:
            raise RefusedError(Reason.TRANSFER_SYNTAX_MISSING)
        return reader(_with_pixels(data) if sop_class == _SEGMENTATION else fields.dataset)
    if sop_class in _UNREAD_ANNOTATIONS:
        raise RefusedError(Reason.UNSUPPORTED_ANNOTATION, sop_class)
    if not sop_class.startswith(_STANDARD_ROOT):
        # Only the maker's own root: what follows it is anybody's to fill.
        maker = next((root for root in _MAKERS if sop_class.startswith(f"{root}.")), "another maker's")
        raise RefusedError(Reason.UNSUPPORTED_ANNOTATION, f"private class of {maker}")
    raise RefusedError(Reason.NOT_CT)


def _with_pixels(data: bytes) -> Dataset:
    try:
        return pydicom.dcmread(io.BytesIO(data), force=True)
    except (RecursionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (pydicom raises whatever a broken element makes its converters raise)
        raise RefusedError(Reason.DICOM_DAMAGED, type(error).__name__) from None


def _marks_in_text(suffix: str, head: bytes, size: int, whole: Callable[[], bytes]) -> Report:
    if size > _MAX_TEXT_BYTES:
        raise RefusedError(Reason.NOT_DICOM, f"{size} bytes")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<") and b"ImageAnnotation" in head:
        return read_aim(whole())
    report = read_table(whole()) if suffix in _TABLE_SUFFIXES else None
    if report is None:
        raise RefusedError(Reason.NOT_DICOM)
    return report


@dataclass(frozen=True)
class EncodedSlice:
    """An image's pixels as the lake keeps them."""

    pixels: bytes
    digest: str
    rows: int
    columns: int
    body_xyxy_px: tuple[float, float, float, float] | None
    """None: not looked for, or not found, which is then a flag."""
    flags: frozenset[Flag]


class EncodeSlice:
    """An image's pixels, decoded, checked, and encoded for the lake."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._frames: tuple[tuple[int, str], list[bytes]] | None = None
        self._inflated: tuple[tuple[int, str], bytes] | None = None

    def __call__(self, image: ImageHeader) -> EncodedSlice:
        """Read one image.

        Raises:
            RefusedError: its pixels cannot be taken.
        """
        hu, flags = to_hu(self._stored(image), image.storage)
        body = body_box(hu)
        if body is None:
            flags |= {Flag.BODY_NOT_FOUND}
        return EncodedSlice(encode_slice(hu), pixel_digest(hu), hu.shape[0], hu.shape[1], body, flags)

    def _stored(self, image: ImageHeader) -> bytes:
        file = (image.container, image.member)
        if image.storage.syntax not in UNCOMPRESSED:
            return self._codestream(file, image)
        if image.pixel_size is None:
            raise RefusedError(Reason.CODESTREAM_DAMAGED, "pixels in fragments that are not compressed")
        if image.storage.syntax == DEFLATED:
            if self._inflated is None or self._inflated[0] != file:
                self._inflated = (file, read_encoding(self._tree.read(*file)).body)
            return self._inflated[1][image.pixel_start : image.pixel_start + image.pixel_size]
        return self._tree.read_range(*file, image.pixel_start, image.pixel_size)

    def _codestream(self, file: tuple[int, str], image: ImageHeader) -> bytes:
        number = (image.frame_number or 1) - 1
        if self._frames is None or self._frames[0] != file:
            if image.pixel_size is not None:
                raise RefusedError(Reason.CODESTREAM_DAMAGED, "compressed pixels without fragments")
            value = self._tree.read(*file)[image.pixel_start :]
            frames = image.frame_count
            try:
                self._frames = (file, list(generate_frames(value, number_of_frames=frames)))
            except (ValueError, EOFError, struct.error) as error:
                raise RefusedError(Reason.CODESTREAM_DAMAGED, f"fragments: {type(error).__name__}") from None
        if number >= len(self._frames[1]):
            raise RefusedError(Reason.PIXELS_TRUNCATED, f"{len(self._frames[1])} frames")
        return self._frames[1][number]
