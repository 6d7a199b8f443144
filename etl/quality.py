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
    BOX_MISMATCH = "box_mismatch"
    BOX_OVER_EDGE = "box_over_edge"
    BOX_PADDING_20 = "box_padding_20"
    DIAMETER_MISMATCH = "diameter_mismatch"
    DIAMETERS_IN_MM = "diameters_in_mm"
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
    POSSIBLY_NOISY = "possibly_noisy"
    RANGE_INVALID = "range_invalid"
    SEX_MISSING = "sex_missing"
    SHORT_EXCEEDS_LONG = "short_exceeds_long"
    SLICES_MISSING = "slices_missing"
    SPACING_INVALID = "spacing_invalid"
    SPLIT_INVALID = "split_invalid"
    TYPE_INVALID = "type_invalid"
    WINDOW_INVALID = "window_invalid"
    WINDOW_NOT_INTEGER = "window_not_integer"


class Reason(StrEnum):
    """Why an input was not taken in."""

    ARCHIVE_DAMAGED = "archive_damaged"
    COORDINATES_FAR_OUTSIDE = "coordinates_far_outside"
    COORDINATES_INVALID = "coordinates_invalid"
    DUPLICATE_SLICE = "duplicate_slice"
    ENCRYPTED = "encrypted"
    FILE_EMPTY = "file_empty"
    FILE_NAME_INVALID = "file_name_invalid"
    FILE_UNREADABLE = "file_unreadable"
    MEMBER_DAMAGED = "member_damaged"
    MEMBER_RATIO = "member_ratio"
    MEMBER_TOO_LARGE = "member_too_large"
    MEMBERS_OVERLAP = "members_overlap"
    NOT_A_PNG = "not_a_png"
    PATH_ESCAPES = "path_escapes"
    PNG_DAMAGED = "png_damaged"
    PNG_NOT_16_BIT = "png_not_16_bit"
    PNG_NOT_GREY = "png_not_grey"
    PNG_SIZE = "png_size"
    ROW_MALFORMED = "row_malformed"
    ROW_TOO_LONG = "row_too_long"
    STRAY_FILE = "stray_file"
    SYMBOLIC_LINK = "symbolic_link"
    TOO_MANY_MEMBERS = "too_many_members"


FLAG_MEANINGS: Mapping[Flag, str] = MappingProxyType(
    {
        Flag.AGE_GOES_DOWN: "the patient is younger here than in an earlier study",
        Flag.AGE_MISSING: "no age, or not a number between 0 and 130; stored as null",
        Flag.AXES_DO_NOT_CROSS: "the two diameters do not cross each other",
        Flag.AXES_NOT_PERPENDICULAR: "the two diameters stand at less than 80 degrees",
        Flag.BOX_MISMATCH: "the stated box is not the diameters' extent plus a known padding",
        Flag.BOX_OVER_EDGE: "the padded box leaves the image",
        Flag.BOX_PADDING_20: "the stated box has the 20 px padding of the 2017 paper",
        Flag.DIAMETER_MISMATCH: "a stated diameter is off the recomputed one by more than .01 px",
        Flag.DIAMETERS_IN_MM: "the stated diameters are millimetres where pixels are published",
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
        Flag.POSSIBLY_NOISY: "the source itself doubts the row",
        Flag.RANGE_INVALID: "the slice range is missing or runs backwards; stored as null",
        Flag.SEX_MISSING: "sex is neither F nor M; stored as null",
        Flag.SHORT_EXCEEDS_LONG: "the axis recorded as short is the longer one; kept as written",
        Flag.SLICES_MISSING: "slices are missing inside a stated sub-volume",
        Flag.SPACING_INVALID: "a spacing is missing, negative, zero or above 50 mm; stored as null",
        Flag.SPLIT_INVALID: "the split is not 1, 2 or 3; stored as null",
        Flag.TYPE_INVALID: "the lesion type is neither -1 nor 1…8; stored as null",
        Flag.WINDOW_INVALID: "the display window is missing or runs backwards; stored as null",
        Flag.WINDOW_NOT_INTEGER: "the display window has a fraction",
    }
)

REASON_MEANINGS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.ARCHIVE_DAMAGED: "the archive's directory is missing, cut off or not a zip's",
        Reason.COORDINATES_FAR_OUTSIDE: "a measured point lies more than one image size outside the image",
        Reason.COORDINATES_INVALID: "the measurement is not eight finite numbers",
        Reason.DUPLICATE_SLICE: "another file for the same slice was taken first",
        Reason.ENCRYPTED: "the archive member is encrypted",
        Reason.FILE_EMPTY: "the file has no bytes",
        Reason.FILE_NAME_INVALID: "the row's file name is not <patient>_<study>_<series>_<slice>.png",
        Reason.FILE_UNREADABLE: "the file could not be read; the next ingest tries again",
        Reason.MEMBER_DAMAGED: "the archive member does not inflate to its stated size and checksum",
        Reason.MEMBER_RATIO: "the archive member would inflate more than any image does",
        Reason.MEMBER_TOO_LARGE: "the file is larger than any slice",
        Reason.MEMBERS_OVERLAP: "the archive member shares bytes with another",
        Reason.NOT_A_PNG: "the file does not start as a PNG does",
        Reason.PATH_ESCAPES: "the archive member's path leads out of the archive",
        Reason.PNG_DAMAGED: "the PNG is cut off, fails its checksum or does not decode",
        Reason.PNG_NOT_16_BIT: "the PNG has 8 or fewer bits, so its values cannot be Hounsfield units",
        Reason.PNG_NOT_GREY: "the PNG has colours or transparency",
        Reason.PNG_SIZE: "the PNG's sides are not between 16 and 4096 px",
        Reason.ROW_MALFORMED: "the row has another number of fields than the header",
        Reason.ROW_TOO_LONG: "the row has more characters than any published row",
        Reason.STRAY_FILE: "the file is not part of a DeepLesion release",
        Reason.SYMBOLIC_LINK: "the entry is a symbolic link or no regular file",
        Reason.TOO_MANY_MEMBERS: "the archive lists more members than we look at",
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
