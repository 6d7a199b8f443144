"""What every reader of marks brings back, before de-identification: these objects never leave the ETL.

Points are kept as written, in the convention the source states; nothing is shifted. Text never enters: stated values
are numbers, findings are codes of published lists (`etl/marks/codes.py`), identifiers are pseudonymised later
(`etl/deidentify.py`).
"""

from dataclasses import dataclass
from enum import StrEnum

from etl.quality import Flag, Quarantined

Point = tuple[float, float]
Axis = tuple[Point, Point]
SpacePoint = tuple[float, float, float]


# More frames than any file can have; what is beyond fits no column.
_MOST_FRAMES = (1 << 31) - 1


def frame_from(number: float | None) -> int | None:
    """A frame as a mark names it; None for 0, which some write for images without frames, and for what is none."""
    return int(number) if number is not None and 1 <= number <= _MOST_FRAMES else None


class Shape(StrEnum):
    """What the reader drew."""

    BIDIRECTIONAL = "bidirectional"
    LENGTH = "length"
    OUTLINE = "outline"
    KEY_IMAGE = "key_image"


class Convention(StrEnum):
    """Where the centre of the first pixel lies."""

    HALF_BASED = "half_based"
    ZERO_BASED = "zero_based"
    ONE_BASED = "one_based"


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark: what it is drawn on, its axes, and what is stated of it."""

    source_format: str
    """sr, aim_sr, aim, gsps, key_object, table, rtstruct or segmentation."""
    shape: Shape
    item: int
    """Its place in the report, from 1; with the report's identifier it names the mark."""
    image_uid: str | None = None
    """SOP Instance UID of the marked image; None when only a frame of reference is named."""
    frame_number: int | None = None
    frame_of_reference_uid: str | None = None
    long_axis: Axis | None = None
    short_axis: Axis | None = None
    long_axis_mm: tuple[SpacePoint, SpacePoint] | None = None
    """In patient coordinates, for marks that name no image; becomes pixels in `marks/pairing.py`."""
    short_axis_mm: tuple[SpacePoint, SpacePoint] | None = None
    outline: tuple[Point, ...] = ()
    """A closed outline in pixels; its axes are measured in `marks/pairing.py`, where the pixel spacing is known."""
    outline_mm: tuple[SpacePoint, ...] = ()
    convention: Convention = Convention.HALF_BASED
    stated_long: float | None = None
    stated_short: float | None = None
    stated_unit: str | None = None
    """mm, cm or px; None when none is named."""
    tracking_uid: str | None = None
    finding_site: str | None = None
    """As scheme:code, of `etl/marks/codes.py`."""
    finding: str | None = None
    confidence: float = 1.0
    flags: frozenset[Flag] = frozenset()


@dataclass(frozen=True, slots=True)
class Report:
    """Everything read from one file of marks."""

    report_uid: str
    """SOP Instance UID, or a digest of the bytes for files that have none."""
    source_format: str
    patient_key: str | None = None
    """Patient ID as written; None when the file names none."""
    study_uid: str | None = None
    study_date: str | None = None
    """YYYYMMDD as written."""
    saved_at: str = ""
    """Content date and time as written, to find the later of two versions."""
    evidence: frozenset[str] = frozenset()
    """SOP Instance UIDs of the images it says it is about."""
    marks: tuple[Mark, ...] = ()
    refused: tuple[Quarantined, ...] = ()
    """Items that could not be read: kind "row", member "item <n> of a report"."""
