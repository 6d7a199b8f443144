"""What can be odd about an input, and why one may be refused: every code, with its meaning.

A *flag* stays with a row that was taken in: the lesion can be found, something about it deserves a second look. A
*reason* stands in the quarantine instead of the input. Neither ever carries text from the input: `detail` holds
numbers and our own words only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Literal


class Flag(StrEnum):
    """What is odd about a row that was taken in."""

    AGE_GOES_DOWN = "age_goes_down"
    AGE_MISSING = "age_missing"
    AXES_DO_NOT_CROSS = "axes_do_not_cross"
    AXES_NOT_PERPENDICULAR = "axes_not_perpendicular"
    BODY_NOT_FOUND = "body_not_found"
    BOX_MISMATCH = "box_mismatch"
    BOX_OVER_EDGE = "box_over_edge"
    BOX_PADDING_20 = "box_padding_20"
    CHARSET_INVALID = "charset_invalid"
    CODES_DISAGREE = "codes_disagree"
    CODE_UNKNOWN = "code_unknown"
    DIAMETERS_IN_MM = "diameters_in_mm"
    DIAMETER_MISMATCH = "diameter_mismatch"
    DUPLICATE_MARK = "duplicate_mark"
    DUPLICATE_ROW = "duplicate_row"
    FEW_CONTEXT_SLICES = "few_context_slices"
    IDS_DISAGREE = "ids_disagree"
    IMAGE_MISSING = "image_missing"
    IMAGE_NOT_512 = "image_not_512"
    IMAGE_SIZE_DIFFERS = "image_size_differs"
    INTERVALS_DIFFER = "intervals_differ"
    KEY_SLICE_AT_RANGE_EDGE = "key_slice_at_range_edge"
    KEY_SLICE_OUTSIDE_RANGE = "key_slice_outside_range"
    LOCATION_INVALID = "location_invalid"
    MARKED_IN_OTHER_SERIES = "marked_in_other_series"
    MARK_OUTSIDE_IMAGE = "mark_outside_image"
    NO_SHORT_AXIS = "no_short_axis"
    ORPHAN_MARK = "orphan_mark"
    PADDING_MASKED = "padding_masked"
    PIXELS_CLIPPED = "pixels_clipped"
    POSSIBLY_NOISY = "possibly_noisy"
    RANGE_INVALID = "range_invalid"
    SECONDARY_IMAGE = "secondary_image"
    SEX_MISSING = "sex_missing"
    SHORT_AXIS_FROM_OUTLINE = "short_axis_from_outline"
    SHORT_EXCEEDS_LONG = "short_exceeds_long"
    SIGNS_CORRECTED = "signs_corrected"
    SLICES_MISSING = "slices_missing"
    SPACING_INVALID = "spacing_invalid"
    SPLIT_INVALID = "split_invalid"
    STATED_LENGTH_DIFFERS = "stated_length_differs"
    TYPE_INVALID = "type_invalid"
    UNIT_UNKNOWN = "unit_unknown"
    VALUE_INVALID = "value_invalid"
    WINDOW_INVALID = "window_invalid"
    WINDOW_NOT_INTEGER = "window_not_integer"


class Reason(StrEnum):
    """Why an input was not taken in."""

    AMBIGUOUS_SOP = "ambiguous_sop"
    ARCHIVE_DAMAGED = "archive_damaged"
    BURNED_IN = "burned_in"
    CHILD_DIED = "child_died"
    CHILD_MEMORY = "child_memory"
    CHILD_TIME = "child_time"
    CODESTREAM_DAMAGED = "codestream_damaged"
    COMPRESSION_UNSUPPORTED = "compression_unsupported"
    COORDINATES_FAR_OUTSIDE = "coordinates_far_outside"
    COORDINATES_INVALID = "coordinates_invalid"
    DEFLATE_BOMB = "deflate_bomb"
    DICOM_DAMAGED = "dicom_damaged"
    DUPLICATE_FILE = "duplicate_file"
    DUPLICATE_SLICE = "duplicate_slice"
    ENCRYPTED = "encrypted"
    FILE_EMPTY = "file_empty"
    FILE_NAME_INVALID = "file_name_invalid"
    FILE_UNREADABLE = "file_unreadable"
    GEOMETRY_MISSING = "geometry_missing"
    IMAGE_TOO_LARGE = "image_too_large"
    MARK_INVALID = "mark_invalid"
    MEDIA_DIRECTORY = "media_directory"
    MEMBERS_OVERLAP = "members_overlap"
    MEMBER_DAMAGED = "member_damaged"
    MEMBER_RATIO = "member_ratio"
    MEMBER_TOO_LARGE = "member_too_large"
    NESTED_TOO_DEEP = "nested_too_deep"
    NESTING_TOO_DEEP = "nesting_too_deep"
    NOT_AXIAL_IMAGE = "not_axial_image"
    NOT_A_PNG = "not_a_png"
    NOT_A_REPORT = "not_a_report"
    NOT_CT = "not_ct"
    NOT_DICOM = "not_dicom"
    PATH_ESCAPES = "path_escapes"
    PHOTOMETRIC_UNSUPPORTED = "photometric_unsupported"
    PIXEL_FORMAT = "pixel_format"
    PIXELS_MISSING = "pixels_missing"
    PIXELS_TRUNCATED = "pixels_truncated"
    PNG_DAMAGED = "png_damaged"
    PNG_NOT_16_BIT = "png_not_16_bit"
    PNG_NOT_GREY = "png_not_grey"
    PNG_SIZE = "png_size"
    RESCALE_MISSING = "rescale_missing"
    ROW_MALFORMED = "row_malformed"
    ROW_TOO_LONG = "row_too_long"
    STRAY_FILE = "stray_file"
    SYMBOLIC_LINK = "symbolic_link"
    TOO_MANY_MEMBERS = "too_many_members"
    TRANSFER_SYNTAX_MISSING = "transfer_syntax_missing"
    UNSUPPORTED_ANNOTATION = "unsupported_annotation"
    XML_DAMAGED = "xml_damaged"


FLAG_MEANINGS: Mapping[Flag, str] = MappingProxyType(
    {
        Flag.AGE_GOES_DOWN: "the patient is younger here than in an earlier study",
        Flag.AGE_MISSING: "no age, or not a number between 0 and 130; stored as null",
        Flag.AXES_DO_NOT_CROSS: "the two diameters do not cross each other",
        Flag.AXES_NOT_PERPENDICULAR: "the two diameters stand at less than 80 degrees",
        Flag.BODY_NOT_FOUND: "no body was found on the slice; its extent is the whole image",
        Flag.BOX_MISMATCH: "the stated box is not the diameters' extent plus a known padding",
        Flag.BOX_OVER_EDGE: "the padded box leaves the image",
        Flag.BOX_PADDING_20: "the stated box has the 20 px padding of the 2017 paper",
        Flag.CHARSET_INVALID: "the file names a character set that does not exist or does not fit",
        Flag.CODES_DISAGREE: "the marks of one lesion name different places or findings; the first one is kept",
        Flag.CODE_UNKNOWN: "a code of the mark is in no published list we know; left out",
        Flag.DIAMETERS_IN_MM: "the stated diameters are millimetres where pixels are published",
        Flag.DIAMETER_MISMATCH: "a stated diameter is off the recomputed one by more than .01 px",
        Flag.DUPLICATE_MARK: "another mark says the same of the same image; the lesion is counted there",
        Flag.DUPLICATE_ROW: "an earlier row has the same slice and the same points",
        Flag.FEW_CONTEXT_SLICES: "fewer than three slices on one side of the key slice in its sub-volume",
        Flag.IDS_DISAGREE: "the index columns name another series or slice than the file name, which is believed",
        Flag.IMAGE_MISSING: "the key slice is not in the lake: absent, unreadable, or not asked for",
        Flag.IMAGE_NOT_512: "the stated image size is not 512 × 512",
        Flag.IMAGE_SIZE_DIFFERS: "the image has another size than the annotation states",
        Flag.INTERVALS_DIFFER: "the series has sub-volumes with different slice intervals",
        Flag.KEY_SLICE_AT_RANGE_EDGE: "the key slice is the first or last of its sub-volume",
        Flag.KEY_SLICE_OUTSIDE_RANGE: "the key slice is not in the sub-volume stated for it",
        Flag.LOCATION_INVALID: "the normalised location is missing or leaves 0…1; the part that does is null",
        Flag.MARKED_IN_OTHER_SERIES: "the same place is also marked in another series of the study",
        Flag.MARK_OUTSIDE_IMAGE: "a measured point lies outside the image",
        Flag.NO_SHORT_AXIS: "a single length: there is no short diameter",
        Flag.ORPHAN_MARK: "the marked image is not in the source",
        Flag.PADDING_MASKED: "pixels outside the scan carried a padding value and became air",
        Flag.PIXELS_CLIPPED: "some values leave the 16 bits of a pixel and were cut",
        Flag.POSSIBLY_NOISY: "the source itself doubts the row",
        Flag.RANGE_INVALID: "the slice range is missing or runs backwards; stored as null",
        Flag.SECONDARY_IMAGE: "an original axial image made after the examination proper",
        Flag.SEX_MISSING: "sex is neither F nor M; stored as null",
        Flag.SHORT_AXIS_FROM_OUTLINE: "the diameters were measured on an outline",
        Flag.SHORT_EXCEEDS_LONG: "the axis recorded as short is the longer one; kept as written",
        Flag.SIGNS_CORRECTED: "the compressed pixels and the header disagree about signs; the header is followed",
        Flag.SLICES_MISSING: "slices are missing inside a stated sub-volume",
        Flag.SPACING_INVALID: "a spacing is missing, negative, zero or above 50 mm; stored as null",
        Flag.SPLIT_INVALID: "the split is not 1, 2 or 3; stored as null",
        Flag.STATED_LENGTH_DIFFERS: "the stated length is not that of the points",
        Flag.TYPE_INVALID: "the lesion type is neither -1 nor 1…8; stored as null",
        Flag.UNIT_UNKNOWN: "the stated unit is none we know",
        Flag.VALUE_INVALID: "a header value does not parse; stored as null",
        Flag.WINDOW_INVALID: "the display window is missing or runs backwards; stored as null",
        Flag.WINDOW_NOT_INTEGER: "the display window has a fraction",
    }
)

REASON_MEANINGS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.AMBIGUOUS_SOP: "several different files carry this image's identifier: none of them can be believed",
        Reason.ARCHIVE_DAMAGED: "the archive's directory is missing, cut off or not a zip's",
        Reason.BURNED_IN: "the image says that text is burned into it",
        Reason.CHILD_DIED: "reading the file killed the process that tried",
        Reason.CHILD_MEMORY: "reading the file needs more memory than one file may have",
        Reason.CHILD_TIME: "reading the file takes longer than one file may take",
        Reason.CODESTREAM_DAMAGED: "the compressed image is cut off, damaged, or not what its header states",
        Reason.COMPRESSION_UNSUPPORTED: "the transfer syntax is none that CT images are stored in",
        Reason.COORDINATES_FAR_OUTSIDE: "a measured point lies more than one image size outside the image",
        Reason.COORDINATES_INVALID: "the measurement is not eight finite numbers",
        Reason.DEFLATE_BOMB: "the deflated file inflates to more than any image has",
        Reason.DICOM_DAMAGED: "the file starts as DICOM does and cannot be read",
        Reason.DUPLICATE_FILE: "another file with the same identifier and content was taken first",
        Reason.DUPLICATE_SLICE: "another file for the same slice was taken first",
        Reason.ENCRYPTED: "the archive member is encrypted",
        Reason.FILE_EMPTY: "the file has no bytes",
        Reason.FILE_NAME_INVALID: "the row's file name is not <patient>_<study>_<series>_<slice>.png",
        Reason.FILE_UNREADABLE: "the file could not be read; the next ingest tries again",
        Reason.GEOMETRY_MISSING: "the image has no usable position, orientation or size",
        Reason.IMAGE_TOO_LARGE: "the image states more pixels than a CT image has",
        Reason.MARK_INVALID: "the item has no usable points, value or image",
        Reason.MEDIA_DIRECTORY: "a DICOMDIR: it lists files and holds none",
        Reason.MEMBERS_OVERLAP: "the archive member shares bytes with another",
        Reason.MEMBER_DAMAGED: "the archive member does not inflate to its stated size and checksum",
        Reason.MEMBER_RATIO: "the archive member would inflate more than any image does",
        Reason.MEMBER_TOO_LARGE: "the file is larger than any slice",
        Reason.NESTED_TOO_DEEP: "archives in archives beyond the third level are not opened",
        Reason.NESTING_TOO_DEEP: "sequences are nested deeper than any report's",
        Reason.NOT_AXIAL_IMAGE: "a localizer, dose page, screen capture or derived image",
        Reason.NOT_A_PNG: "the file does not start as a PNG does",
        Reason.NOT_A_REPORT: "the document has no part that could hold a measurement",
        Reason.NOT_CT: "an image of another kind than CT",
        Reason.NOT_DICOM: "the file is not DICOM, nor a report or table of marks we know",
        Reason.PATH_ESCAPES: "the archive member's path leads out of the archive",
        Reason.PHOTOMETRIC_UNSUPPORTED: "the image has colours",
        Reason.PIXEL_FORMAT: "the pixels have a size or number of bits that no CT image has",
        Reason.PIXELS_MISSING: "the image has no pixels",
        Reason.PIXELS_TRUNCATED: "the image has fewer pixels than its header states",
        Reason.PNG_DAMAGED: "the PNG is cut off, fails its checksum or does not decode",
        Reason.PNG_NOT_16_BIT: "the PNG has 8 or fewer bits, so its values cannot be Hounsfield units",
        Reason.PNG_NOT_GREY: "the PNG has colours or transparency",
        Reason.PNG_SIZE: "the PNG's sides are not between 16 and 4096 px",
        Reason.RESCALE_MISSING: "without slope and intercept its values cannot be Hounsfield units",
        Reason.ROW_MALFORMED: "the row has another number of fields than the header",
        Reason.ROW_TOO_LONG: "the row has more characters than any published row",
        Reason.STRAY_FILE: "the file is not part of a DeepLesion release",
        Reason.SYMBOLIC_LINK: "the entry is a symbolic link or no regular file",
        Reason.TOO_MANY_MEMBERS: "the archive lists more members than we look at",
        Reason.TRANSFER_SYNTAX_MISSING: "the file does not say how its pixels are stored",
        Reason.UNSUPPORTED_ANNOTATION: "a kind of annotation we do not read; its class is in the detail",
        Reason.XML_DAMAGED: "the XML does not parse, or defines entities",
    }
)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """An input that was not taken in."""

    kind: Literal["row", "file"]
    member: str
    reason: Reason
    detail: str = ""


class RefusedError(Exception):
    """Raised while reading one input that cannot be taken in; becomes a `Quarantined`, never leaves the ETL."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
