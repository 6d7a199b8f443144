"""DL_info.csv, row by row: what each row says, what is odd about it, and which rows say nothing usable.

Rows are numbered from 1 in file order, header not counted, whether or not they parse: other datasets refer to lesions
by this number. Each physical line is one row (the published table has no line breaks inside fields), so an unclosed
quote costs one row, not the rest of the file. Coordinates stay as published, 1-based, in pixels.

Raw text is kept beside parsed values, but only where it is made of the published alphabet of its column: free text
cannot pass.
"""

import csv
import dataclasses
import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from etl.quality import Flag, Quarantined, Reason, RefusedError
from lesionary.anatomy import lesion_type_from_code
from lesionary.errors import SourceError
from lesionary.recist import PAPER_2017_PADDING_PX, RELEASE_PADDING_PX, Recist, measure_points, padded_box
from lesionary.schema import RELEASE_COLUMNS
from lesionary.splits import split_from_code

# The longest published row has 330 characters.
MAX_LINE_CHARACTERS = 4096

# The published figures carry six digits: anything farther off is another number, not rounding.
BOX_TOLERANCE_PX = 0.01
DIAMETER_TOLERANCE_PX = 0.01
MIN_AXES_ANGLE_DEG = 80.0
MIN_CONTEXT_SLICES = 3
USUAL_SIDE_PX = 512
MAX_SPACING_MM = 50.0
MAX_AGE_YEARS = 130.0
# File names have four digits for it at most.
MAX_SLICES = 9999
# Where a row states no image size, no CT matrix is larger than this.
_LARGEST_SIDE_PX = 4096

# One way to read any run of digits: with two, a long one takes the square of its length.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_FILE_NAME = re.compile(r"(?:.*[/\\])?(\d{1,6})_(\d{1,2})_(\d{1,2})[_/\\](\d{1,4})\.png", re.ASCII)
_RAW_FILE_NAME = re.compile(r"(?:Images_png[/\\])?\d{1,6}_\d{1,2}_\d{1,2}[_/\\]\d{1,4}\.png", re.ASCII)
_RAW_NUMBERS = re.compile(r"[0-9eE+\-., ]{0,200}|nan|NaN|[FM]", re.ASCII)


@dataclass(frozen=True, slots=True)
class AnnotationRow:
    """One row that names a slice and a measurement on it."""

    number: int
    patient: int
    study: int
    series: int
    slice_index: int
    points: tuple[float, ...]
    measured: Recist
    stated_px: tuple[float, float] | None
    location: tuple[float | None, float | None, float | None]
    lesion_type: str | None
    noisy: bool
    slice_range: tuple[int, int] | None
    spacing_mm: tuple[float | None, float | None, float | None]
    image_size: tuple[int, int] | None
    window_hu: tuple[float, float] | None
    sex: str | None
    age_years: float | None
    split: str | None
    flags: frozenset[Flag]
    raw: tuple[str | None, ...]
    """In the order of `RELEASE_COLUMNS`."""
    digest: str
    """Changes whenever any character of the row does."""

    @property
    def series_key(self) -> str:
        """The series as the release spells it: 000001_02_01."""
        return f"{self.patient:06d}_{self.study:02d}_{self.series:02d}"


@dataclass(frozen=True, slots=True)
class AnnotationTable:
    """A whole table: rows + quarantined = found."""

    found: int
    rows: tuple[AnnotationRow, ...]
    quarantined: tuple[Quarantined, ...]


@dataclass(slots=True)
class _Fields:
    """One row's text by column, and the flags collected while reading it."""

    text: Mapping[str, str]
    flags: set[Flag] = field(default_factory=set)

    def numbers(self, column: str, count: int) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers, or None."""
        parts = [part.strip() for part in self.text[column].split(",")]
        if len(parts) != count or not all(_NUMBER.fullmatch(part) for part in parts):
            return None
        values = tuple(float(part) for part in parts)
        return values if all(math.isfinite(value) for value in values) else None

    def each_number(self, column: str, count: int) -> tuple[float | None, ...]:
        """`count` numbers of which any may be missing."""
        parts = [part.strip() for part in self.text[column].split(",")]
        if len(parts) != count:
            return (None,) * count
        values = [float(part) if _NUMBER.fullmatch(part) else math.nan for part in parts]
        return tuple(value if math.isfinite(value) else None for value in values)

    def integer(self, column: str) -> int | None:
        """A whole number, or None."""
        text = self.text[column].strip().removesuffix(".0")
        return int(text) if _INTEGER.fullmatch(text) else None


def parse_annotations(data: bytes) -> AnnotationTable:
    """Parse a whole table.

    Raises:
        SourceError: a published column is missing from the header.
    """
    lines = _decoded(data).split("\n")
    columns = _column_places(lines[0])
    rows: list[AnnotationRow] = []
    quarantined: list[Quarantined] = []
    number = 0
    for line in lines[1:]:
        if not line.strip():
            continue
        number += 1
        try:
            rows.append(_parse_line(number, line.rstrip("\r"), columns))
        except RefusedError as refusal:
            quarantined.append(Quarantined("row", f"row {number}", refusal.reason, refusal.detail))
    return AnnotationTable(number, tuple(_with_flags_across_rows(rows)), tuple(quarantined))


def _decoded(data: bytes) -> str:
    """Text whatever its encoding: what is not UTF-8 is read byte by byte, and fails field by field."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1").removeprefix("ï»¿")


def _split_fields(line: str) -> list[str]:
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        raise RefusedError(Reason.ROW_MALFORMED, "not comma-separated text") from None


def _column_places(header: str) -> Mapping[str, int]:
    try:
        names = [name.strip() for name in _split_fields(header.rstrip("\r"))]
    except RefusedError:
        names = []
    if missing := [name for name in RELEASE_COLUMNS if name not in names]:
        raise SourceError(
            f"the annotation table lacks the columns {', '.join(missing)}",
            where="DL_info.csv",
            next_step="give the table as published, with its header line",
        )
    return {name: names.index(name) for name in RELEASE_COLUMNS} | {"": len(names)}


def _parse_line(number: int, line: str, columns: Mapping[str, int]) -> AnnotationRow:
    if len(line) > MAX_LINE_CHARACTERS:
        raise RefusedError(Reason.ROW_TOO_LONG, f"{len(line)} characters")
    parts = _split_fields(line)
    if len(parts) != columns[""]:
        raise RefusedError(Reason.ROW_MALFORMED, f"{len(parts)} fields, the header has {columns['']}")
    fields = _Fields({name: parts[columns[name]] for name in RELEASE_COLUMNS})
    named = _FILE_NAME.fullmatch(fields.text["File_name"].strip())
    if named is None:
        raise RefusedError(Reason.FILE_NAME_INVALID)
    patient, study, series, slice_index = (int(part) for part in named.groups())
    stated_ids = tuple(fields.integer(c) for c in ("Patient_index", "Study_index", "Series_ID", "Key_slice_index"))
    if stated_ids != (patient, study, series, slice_index):
        fields.flags.add(Flag.IDS_DISAGREE)
    image_size = _image_size(fields)
    points, measured = _measurement(fields, image_size)
    spacing = _spacing(fields)
    return AnnotationRow(
        number=number,
        patient=patient,
        study=study,
        series=series,
        slice_index=slice_index,
        points=points,
        measured=measured if spacing[0] is None else measure_points(np.reshape(points, (4, 2)), _in_plane(spacing)),
        stated_px=_stated_diameters(fields, measured, spacing),
        location=_location(fields),
        lesion_type=_lesion_type(fields),
        noisy=_noisy(fields),
        slice_range=_slice_range(fields, slice_index),
        spacing_mm=spacing,
        image_size=image_size,
        window_hu=_window(fields),
        sex=_sex(fields),
        age_years=_age(fields),
        split=_split(fields),
        flags=frozenset(fields.flags),
        raw=tuple(_raw_text(name, fields.text[name]) for name in RELEASE_COLUMNS),
        digest=hashlib.blake2b(line.encode(), digest_size=8).hexdigest(),
    )


def _in_plane(spacing: Sequence[float | None]) -> tuple[float, float]:
    x_mm, y_mm = spacing[0], spacing[1]
    return (math.nan if x_mm is None else x_mm, math.nan if y_mm is None else y_mm)


def _image_size(fields: _Fields) -> tuple[int, int] | None:
    numbers = fields.numbers("Image_size", 2)
    if numbers is None or not all(value == int(value) and 0 < value <= _LARGEST_SIDE_PX for value in numbers):
        fields.flags.add(Flag.IMAGE_NOT_512)
        return None
    size = int(numbers[0]), int(numbers[1])
    if size != (USUAL_SIDE_PX, USUAL_SIDE_PX):
        fields.flags.add(Flag.IMAGE_NOT_512)
    return size


def _measurement(fields: _Fields, image_size: tuple[int, int] | None) -> tuple[tuple[float, ...], Recist]:
    """The eight coordinates and what follows from them, in pixels; box and axes are checked against each other."""
    points = fields.numbers("Measurement_coordinates", 8)
    if points is None:
        raise RefusedError(Reason.COORDINATES_INVALID, "eight finite numbers are needed")
    width, height = image_size or (_LARGEST_SIDE_PX, _LARGEST_SIDE_PX)
    if not all(-width <= x <= 2 * width for x in points[::2]) or not all(
        -height <= y <= 2 * height for y in points[1::2]
    ):
        raise RefusedError(Reason.COORDINATES_FAR_OUTSIDE, f"image of {width} × {height} px")
    measured = measure_points(np.reshape(points, (4, 2)), (math.nan, math.nan))
    if measured.short_exceeds_long:
        fields.flags.add(Flag.SHORT_EXCEEDS_LONG)
    if not measured.axes_angle_deg >= MIN_AXES_ANGLE_DEG:
        fields.flags.add(Flag.AXES_NOT_PERPENDICULAR)
    if not measured.axes_cross:
        fields.flags.add(Flag.AXES_DO_NOT_CROSS)
    _check_box(fields, measured, image_size)
    return points, measured


def _check_box(fields: _Fields, measured: Recist, image_size: tuple[int, int] | None) -> None:
    box = fields.numbers("Bounding_boxes", 4)
    if box is None:
        fields.flags.add(Flag.BOX_MISMATCH)
        return
    for padding_px, flag in ((RELEASE_PADDING_PX, None), (PAPER_2017_PADDING_PX, Flag.BOX_PADDING_20)):
        expected = padded_box(measured.box_xyxy_px, padding_px)
        if all(abs(found - wanted) <= BOX_TOLERANCE_PX for found, wanted in zip(box, expected, strict=True)):
            fields.flags |= {flag} if flag else set()
            break
    else:
        fields.flags.add(Flag.BOX_MISMATCH)
    if image_size and (min(box[:2]) < 0 or box[2] > image_size[0] or box[3] > image_size[1]):
        fields.flags.add(Flag.BOX_OVER_EDGE)


def _stated_diameters(fields: _Fields, measured: Recist, spacing: Sequence[float | None]) -> tuple[float, float] | None:
    stated = fields.numbers("Lesion_diameters_Pixel_", 2)
    if stated is None:
        fields.flags.add(Flag.DIAMETER_MISMATCH)
        return None
    found_px = (measured.long_px, measured.short_px)
    if all(abs(a - b) <= DIAMETER_TOLERANCE_PX for a, b in zip(stated, found_px, strict=True)):
        return stated[0], stated[1]
    scale = spacing[0]
    if scale and all(math.isclose(a, b * scale, rel_tol=0.01) for a, b in zip(stated, found_px, strict=True)):
        fields.flags.add(Flag.DIAMETERS_IN_MM)
    else:
        fields.flags.add(Flag.DIAMETER_MISMATCH)
    return stated[0], stated[1]


def _spacing(fields: _Fields) -> tuple[float | None, float | None, float | None]:
    values = [
        value if value is not None and 0 < value <= MAX_SPACING_MM else None
        for value in fields.each_number("Spacing_mm_px_", 3)
    ]
    if None in values:
        fields.flags.add(Flag.SPACING_INVALID)
    return values[0], values[1], values[2]


def _location(fields: _Fields) -> tuple[float | None, float | None, float | None]:
    values = [
        value if value is not None and 0.0 <= value <= 1.0 else None
        for value in fields.each_number("Normalized_lesion_location", 3)
    ]
    if None in values:
        fields.flags.add(Flag.LOCATION_INVALID)
    return values[0], values[1], values[2]


def _lesion_type(fields: _Fields) -> str | None:
    code = fields.integer("Coarse_lesion_type")
    try:
        return lesion_type_from_code(code if code is not None else 0)
    except KeyError:
        fields.flags.add(Flag.TYPE_INVALID)
        return None


def _noisy(fields: _Fields) -> bool:
    noisy = fields.integer("Possibly_noisy") != 0
    if noisy:
        fields.flags.add(Flag.POSSIBLY_NOISY)
    return noisy


def _slice_range(fields: _Fields, slice_index: int) -> tuple[int, int] | None:
    numbers = fields.numbers("Slice_range", 2)
    if (
        numbers is None
        or any(value != int(value) or abs(value) > 100_000 for value in numbers)
        or numbers[0] > numbers[1]
    ):
        fields.flags.add(Flag.RANGE_INVALID)
        return None
    first, last = int(numbers[0]), int(numbers[1])
    context = min(slice_index - first, last - slice_index)
    if context < 0:
        fields.flags.add(Flag.KEY_SLICE_OUTSIDE_RANGE)
        return first, last
    if context == 0:
        fields.flags.add(Flag.KEY_SLICE_AT_RANGE_EDGE)
    if context < MIN_CONTEXT_SLICES:
        fields.flags.add(Flag.FEW_CONTEXT_SLICES)
    return first, last


def _window(fields: _Fields) -> tuple[float, float] | None:
    window = fields.numbers("DICOM_windows", 2)
    if window is None or window[0] >= window[1]:
        fields.flags.add(Flag.WINDOW_INVALID)
        return None
    if any(value != int(value) for value in window):
        fields.flags.add(Flag.WINDOW_NOT_INTEGER)
    return window[0], window[1]


def _sex(fields: _Fields) -> str | None:
    text = fields.text["Patient_gender"].strip()
    if text in {"F", "M"}:
        return text
    fields.flags.add(Flag.SEX_MISSING)
    return None


def _age(fields: _Fields) -> float | None:
    (age,) = fields.each_number("Patient_age", 1)
    if age is not None and 0 <= age <= MAX_AGE_YEARS:
        return age
    fields.flags.add(Flag.AGE_MISSING)
    return None


def _split(fields: _Fields) -> str | None:
    code = fields.integer("Train_Val_Test")
    split = split_from_code(code if code is not None else 0)
    if split is None:
        fields.flags.add(Flag.SPLIT_INVALID)
    return split


def _raw_text(column: str, text: str) -> str | None:
    pattern = _RAW_FILE_NAME if column == "File_name" else _RAW_NUMBERS
    return text if pattern.fullmatch(text) else None


def _with_flags_across_rows(rows: Sequence[AnnotationRow]) -> Iterator[AnnotationRow]:
    """Add what only several rows together show: repeats, intervals that differ, ages that go down."""
    intervals: dict[str, set[float]] = {}
    ages: dict[int, dict[int, float]] = {}
    for row in rows:
        if row.spacing_mm[2] is not None:
            intervals.setdefault(row.series_key, set()).add(row.spacing_mm[2])
        if row.age_years is not None:
            ages.setdefault(row.patient, {})[row.study] = row.age_years
    seen: set[tuple[object, ...]] = set()
    for row in rows:
        extra: set[Flag] = set()
        place = (row.series_key, row.slice_index, row.points)
        if place in seen:
            extra.add(Flag.DUPLICATE_ROW)
        seen.add(place)
        if len(intervals.get(row.series_key, ())) > 1:
            extra.add(Flag.INTERVALS_DIFFER)
        earlier = [age for study, age in ages.get(row.patient, {}).items() if study < row.study]
        if row.age_years is not None and earlier and max(earlier) > row.age_years:
            extra.add(Flag.AGE_GOES_DOWN)
        yield dataclasses.replace(row, flags=row.flags | extra) if extra else row
