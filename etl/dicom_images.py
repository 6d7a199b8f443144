"""From a file's elements to the CT images in it: which ones are taken, where they lie, how their pixels are stored.

Images are chosen by SOP class and Image Type, never by Modality: localizers, dose pages and screen captures also call
themselves CT. An image that the scanner made (ORIGINAL) after the examination proper (SECONDARY) is taken with a flag
when it is axial; whatever is DERIVED is not.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from etl.decoding import MAX_SIDE_PX, MIN_SIDE_PX
from etl.dicom_fields import Encoding, Fields, PixelPlace
from etl.quality import Flag, Reason, RefusedError

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
LEGACY_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.2"
CT_CLASSES = frozenset({CT_IMAGE, ENHANCED_CT, LEGACY_ENHANCED_CT})

_SOP_CLASS, _SOP_UID, _IMAGE_TYPE = 0x00080016, 0x00080018, 0x00080008
_STUDY_DATE, _SERIES_DATE, _ACQUISITION_DATE, _CONTENT_DATE = 0x00080020, 0x00080021, 0x00080022, 0x00080023
_PATIENT_ID, _BIRTH_DATE, _SEX, _AGE = 0x00100020, 0x00100030, 0x00100040, 0x00101010
_STUDY_UID, _SERIES_UID, _FRAME_OF_REFERENCE = 0x0020000D, 0x0020000E, 0x00200052
_POSITION, _ORIENTATION, _SPACING, _THICKNESS = 0x00200032, 0x00200037, 0x00280030, 0x00180050
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH_BIT, _SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_PADDING, _PADDING_LIMIT, _BURNED_IN = 0x00280120, 0x00280121, 0x00280301
_WINDOW_CENTER, _WINDOW_WIDTH = 0x00281050, 0x00281051
_INTERCEPT, _SLOPE, _RESCALE_TYPE = 0x00281052, 0x00281053, 0x00281054
_SHARED_GROUPS, _FRAME_GROUPS = 0x52009229, 0x52009230
_PLANE_POSITION, _PLANE_ORIENTATION, _PIXEL_MEASURES = 0x00209113, 0x00209116, 0x00289110
_VALUE_TRANSFORMATION, _FRAME_TYPES, _FRAME_TYPE, _WINDOWS = 0x00289145, 0x00189329, 0x00089007, 0x00289132

WANTED_TAGS = (
    _SOP_CLASS, _SOP_UID, _IMAGE_TYPE, _STUDY_DATE, _SERIES_DATE, _ACQUISITION_DATE, _CONTENT_DATE, _PATIENT_ID,
    _BIRTH_DATE, _SEX, _AGE, _STUDY_UID, _SERIES_UID, _FRAME_OF_REFERENCE, _POSITION, _ORIENTATION, _SPACING,
    _THICKNESS, _SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH_BIT, _SIGNED, _PADDING,
    _PADDING_LIMIT, _BURNED_IN, _WINDOW_CENTER, _WINDOW_WIDTH, _INTERCEPT, _SLOPE, _RESCALE_TYPE, _SHARED_GROUPS,
    _FRAME_GROUPS,
)  # fmt: skip

# The longest CT examinations have some 5,000 images; an enhanced file holds one series of them.
MAX_FRAMES = 20_000
MAX_SPACING_MM = 50.0
_UNIT_TOLERANCE = 1e-2
_SHORTEST_CODESTREAM = 32


# Without slots: these travel between processes by the thousand, and pickle four times faster this way.
@dataclass(frozen=True)
class SeriesHeader:
    """What all images of a series share; as written, before de-identification."""

    patient_key: str | None
    """Patient ID as written; None when there is none."""
    study_uid: str
    series_uid: str
    frame_of_reference_uid: str | None
    study_date: str | None
    birth_date: str | None
    sex: str | None
    age: str | None
    enhanced: bool


@dataclass(frozen=True)
class PixelStorage:
    """How pixels are stored and what makes them HU."""

    syntax: str
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    slope: float
    intercept: float
    padding: tuple[int, int] | None
    """Lowest and highest stored value that stands for "outside the scan"."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class ImageHeader:
    """One axial image: a file, or a frame of one."""

    container: int
    member: str
    size: int
    stamp: int
    sop_uid: str
    frame_number: int | None
    """1-based; None for single frames."""
    frame_count: int
    series: SeriesHeader
    storage: PixelStorage
    position_mm: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing_xy_mm: tuple[float, float] | None
    thickness_mm: float | None
    window_hu: tuple[float, float] | None
    pixel_start: int
    """Where the pixels' value starts in the file, or in what a deflated file inflates to."""
    pixel_size: int | None
    """None for compressed pixels."""
    flags: frozenset[Flag]


@dataclass(frozen=True, slots=True)
class FilePlace:
    """The file that is being read."""

    container: int
    member: str
    size: int
    stamp: int


def read_images(
    fields: Fields, encoding: Encoding, pixels: PixelPlace | None, place: FilePlace
) -> tuple[ImageHeader, ...]:
    """The images of a file of a CT class.

    Raises:
        RefusedError: it holds none that can be taken, with the reason.
    """
    _check_kind(fields)
    if encoding.syntax is None:
        raise RefusedError(Reason.TRANSFER_SYNTAX_MISSING)
    if pixels is None:
        raise RefusedError(Reason.PIXELS_MISSING)
    in_file = PixelPlace(encoding.body_start + pixels.start, pixels.size)
    enhanced = fields.uid(_SOP_CLASS) != CT_IMAGE
    series = _series(fields, enhanced=enhanced)
    sop_uid = fields.uid(_SOP_UID)
    if series is None or sop_uid is None:
        raise RefusedError(Reason.DICOM_DAMAGED, "an identifier of study, series or image is missing")
    frames = _frame_count(fields) if enhanced else 1
    images = []
    for number, groups in enumerate(_frame_groups(fields, frames) if enhanced else [(fields,)], 1):
        storage = _storage(fields, groups, encoding.syntax)
        _check_size(storage, frames, pixels)
        frame = (number if enhanced else None, frames)
        images.append(_image(fields, groups, place, sop_uid, frame, series, storage, in_file))
    return tuple(images)


def _check_kind(fields: Fields) -> None:
    kinds = tuple(kind.upper() for kind in fields.texts(_IMAGE_TYPE))
    if len(kinds) < 2 or kinds[0] != "ORIGINAL" or "LOCALIZER" in kinds:
        raise RefusedError(Reason.NOT_AXIAL_IMAGE, "the image type is not that of an original axial image")
    if kinds[1] != "PRIMARY" and kinds[2:3] != ("AXIAL",):
        raise RefusedError(Reason.NOT_AXIAL_IMAGE, "neither a primary image nor an axial one")
    if (fields.text(_BURNED_IN) or "").upper() == "YES":
        raise RefusedError(Reason.BURNED_IN)
    if fields.short(_SAMPLES) not in {1, None} or (fields.text(_PHOTOMETRIC) or "") not in {
        "MONOCHROME1",
        "MONOCHROME2",
    }:
        raise RefusedError(Reason.PHOTOMETRIC_UNSUPPORTED)


def _series(fields: Fields, *, enhanced: bool) -> SeriesHeader | None:
    study_uid, series_uid = fields.uid(_STUDY_UID), fields.uid(_SERIES_UID)
    if study_uid is None or series_uid is None:
        return None
    return SeriesHeader(
        patient_key=patient_key(fields.raw(_PATIENT_ID)),
        study_uid=study_uid,
        series_uid=series_uid,
        frame_of_reference_uid=fields.uid(_FRAME_OF_REFERENCE),
        study_date=next(filter(None, map(fields.text, (_STUDY_DATE, _SERIES_DATE, _ACQUISITION_DATE))), None),
        birth_date=fields.text(_BIRTH_DATE),
        sex=fields.text(_SEX),
        age=fields.text(_AGE),
        enhanced=enhanced,
    )


def patient_key(patient_id: bytes | None) -> str | None:
    """One name for a patient, whatever the character set: the bytes of his ID.

    Who issued it is left out: reports and images of one patient often disagree on that. Sources of several hospitals
    are kept apart by their namespaces.
    """
    return (patient_id or b"").decode("latin-1").strip("\x00 ") or None


def _frame_count(fields: Fields) -> int:
    count = fields.number(_FRAMES)
    if count is None or count != int(count) or not 1 <= count <= MAX_FRAMES:
        raise RefusedError(Reason.IMAGE_TOO_LARGE, f"not between 1 and {MAX_FRAMES} frames")
    return int(count)


def _frame_groups(fields: Fields, frames: int) -> Iterator[tuple[Fields, ...]]:
    """For each frame the places to look a value up in: its own groups, the shared ones."""
    shared = fields.first(_SHARED_GROUPS)
    own = fields.items(_FRAME_GROUPS)
    if len(own) != frames:
        raise RefusedError(Reason.GEOMETRY_MISSING, "not one functional group for each frame")
    return ((group,) if shared is None else (group, shared) for group in own)


def _group(groups: Sequence[Fields], macro: int) -> Fields | None:
    """The item of a functional group, or the data set itself for a plain image."""
    if len(groups) == 1 and groups[0].has(_SOP_CLASS):
        return groups[0]
    return next((item for group in groups if (item := group.first(macro)) is not None), None)


def _storage(fields: Fields, groups: Sequence[Fields], syntax: str) -> PixelStorage:
    rows, columns = fields.short(_ROWS) or 0, fields.short(_COLUMNS) or 0
    if not (MIN_SIDE_PX <= rows <= MAX_SIDE_PX and MIN_SIDE_PX <= columns <= MAX_SIDE_PX):
        raise RefusedError(Reason.IMAGE_TOO_LARGE, f"{columns} × {rows} px")
    allocated, stored = fields.short(_ALLOCATED) or 0, fields.short(_STORED) or 0
    high_bit, sign = fields.short(_HIGH_BIT), fields.short(_SIGNED)
    if allocated not in {8, 16} or not 1 <= stored <= allocated or sign not in {0, 1}:
        raise RefusedError(Reason.PIXEL_FORMAT, f"{allocated} bits, {stored} of them used")
    signed = sign == 1
    rescale = _group(groups, _VALUE_TRANSFORMATION)
    slope = rescale.number(_SLOPE) if rescale else None
    intercept = rescale.number(_INTERCEPT) if rescale else None
    kind = (rescale.text(_RESCALE_TYPE) or "HU").upper() if rescale else "HU"
    if not slope or intercept is None or not kind.startswith("HU"):
        raise RefusedError(Reason.RESCALE_MISSING)
    return PixelStorage(
        syntax, rows, columns, allocated, stored, stored - 1 if high_bit is None else high_bit, signed, slope,
        intercept, _padding(fields, allocated, signed=signed),
    )  # fmt: skip


def _padding(fields: Fields, bits: int, *, signed: bool) -> tuple[int, int] | None:
    """The padding values, read with the pixels' sign: writers store -2000 as 63536."""

    def as_stored(value: int) -> int:
        return value - (1 << bits) if signed and value >= 1 << (bits - 1) else value

    value, limit = fields.short(_PADDING), fields.short(_PADDING_LIMIT)
    if value is None:
        return None
    ends = sorted((as_stored(value), as_stored(value if limit is None else limit)))
    return ends[0], ends[1]


def _check_size(storage: PixelStorage, frames: int, pixels: PixelPlace) -> None:
    if pixels.size is not None:
        if pixels.size < frames * storage.frame_bytes:
            raise RefusedError(Reason.PIXELS_TRUNCATED, f"{pixels.size} bytes for {frames * storage.frame_bytes}")
        if pixels.size > (frames + 1) * storage.frame_bytes + _SHORTEST_CODESTREAM:
            raise RefusedError(Reason.PIXEL_FORMAT, "more pixels than the header states")


def _image(
    fields: Fields,
    groups: Sequence[Fields],
    place: FilePlace,
    sop_uid: str,
    frame: tuple[int | None, int],
    series: SeriesHeader,
    storage: PixelStorage,
    pixels: PixelPlace,
) -> ImageHeader:
    frame_number, frame_count = frame
    at, across, measures = (_group(groups, macro) for macro in (_PLANE_POSITION, _PLANE_ORIENTATION, _PIXEL_MEASURES))
    position = at.numbers(_POSITION, 3) if at else None
    orientation = _orientation(across)
    if position is None or orientation is None or max(map(abs, position)) > 1e5:
        raise RefusedError(Reason.GEOMETRY_MISSING)
    flags = set()
    spacing = measures.numbers(_SPACING, 2) if measures else None
    if spacing is None or not all(0 < value <= MAX_SPACING_MM for value in spacing):
        spacing = None
        flags.add(Flag.SPACING_INVALID)
    if fields.texts(_IMAGE_TYPE)[1].upper() != "PRIMARY":
        flags.add(Flag.SECONDARY_IMAGE)
    thickness = measures.number(_THICKNESS) if measures else None
    offset = 0 if frame_number is None or pixels.size is None else (frame_number - 1) * storage.frame_bytes
    return ImageHeader(
        container=place.container,
        member=place.member,
        size=place.size,
        stamp=place.stamp,
        sop_uid=sop_uid,
        frame_number=frame_number,
        frame_count=frame_count,
        series=series,
        storage=storage,
        position_mm=(position[0], position[1], position[2]),
        orientation=orientation,
        # DICOM writes the distance between rows first.
        spacing_xy_mm=None if spacing is None else (spacing[1], spacing[0]),
        thickness_mm=thickness if thickness is not None and 0 < thickness <= MAX_SPACING_MM else None,
        window_hu=_window(_group(groups, _WINDOWS)),
        pixel_start=pixels.start + offset,
        pixel_size=None if pixels.size is None else storage.frame_bytes,
        flags=frozenset(flags),
    )


def _orientation(fields: Fields | None) -> tuple[float, ...] | None:
    """Directions of a row and of a column, if they are unit vectors at right angles."""
    numbers = fields.numbers(_ORIENTATION, 6) if fields else None
    if numbers is None:
        return None
    row, column = numbers[:3], numbers[3:]
    lengths = [math.hypot(*direction) for direction in (row, column)]
    product = sum(a * b for a, b in zip(row, column, strict=True))
    usual = all(abs(length - 1) < _UNIT_TOLERANCE for length in lengths) and abs(product) < _UNIT_TOLERANCE
    return numbers if usual else None


def _window(fields: Fields | None) -> tuple[float, float] | None:
    center = fields.number(_WINDOW_CENTER) if fields else None
    width = fields.number(_WINDOW_WIDTH) if fields else None
    if center is None or width is None or width <= 0 or abs(center) > 1e5 or width > 1e5:
        return None
    return center - width / 2, center + width / 2
