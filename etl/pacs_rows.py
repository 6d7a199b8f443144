"""A PACS export's series, marks and lesions as rows of the lake, before their pixels have been read.

Only what has a column in `lesionary/schema.py` goes in, and only under pseudonyms: codes of published lists, numbers,
and words of our own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from etl.annotations import MIN_AXES_ANGLE_DEG
from etl.deidentify import age_years, sex_of
from etl.dicom_series import CtSeries
from etl.marks.codes import lesion_type_of_site
from etl.marks.joining import JoinedMark
from etl.marks.model import Axis, Mark
from etl.quality import Flag
from lesionary.recist import FIRST_CENTERS, Recist, measure_points
from lesionary.schema import COORDINATE_COLUMNS

_MM_PER_UNIT = {"mm": 1.0, "cm": 10.0}
# Stated lengths are rounded to whole millimetres more often than not.
_LENGTH_TOLERANCE_MM, _LENGTH_TOLERANCE_SHARE = 0.5, 0.01

Names = Callable[[str, str], str]
"""Kind and identifier to a pseudonym."""


@dataclass(frozen=True, slots=True)
class MarkPlace:
    """Whose mark it is and where it lies, under pseudonyms."""

    patient_id: str
    study_id: str
    series_id: str | None = None
    slice_index: int | None = None


def series_row(
    series: CtSeries, place: MarkPlace, *, study_day: int | None, study_index: int | None
) -> dict[str, object]:
    """A series' row, but for slice count, flags, fingerprint and ingest."""
    first, geometry = series.images[0], series.geometry
    header = first.series
    x_mm, y_mm = first.spacing_xy_mm or (None, None)
    low, high = next((image.window_hu for image in series.images if image.window_hu), (None, None))
    return {
        "series_id": place.series_id,
        "patient_id": place.patient_id,
        "study_id": place.study_id,
        "study_index": study_index,
        "study_day": study_day,
        "source": "pacs",
        "sex": sex_of(header.sex),
        "age_years": age_years(header.age, header.birth_date, header.study_date),
        "rows": first.storage.rows,
        "columns": first.storage.columns,
        "spacing_x_mm": x_mm,
        "spacing_y_mm": y_mm,
        "spacing_z_mm": geometry.interval_mm,
        "regular_spacing": geometry.regular,
        "axial": geometry.axial,
        "tilt_deg": geometry.tilt_deg,
        "single_position": geometry.single_position,
        "has_gaps": geometry.has_gaps,
        "doubled_positions": geometry.doubled,
        "mixed_orientation": series.mixed_orientation,
        "orientation": list(first.orientation),
        "slice_thickness_mm": first.thickness_mm,
        "window_low_hu": low,
        "window_high_hu": high,
    }


def mark_row(one: JoinedMark, place: MarkPlace, names: Names) -> dict[str, object]:
    """A mark's row, but for its unit and ingest."""
    mark = one.mark
    measured = _measured(one)
    image_uid = one.plane.image_uid if one.plane else mark.image_uid
    return {
        "mark_id": _mark_id(one, names),
        "patient_id": place.patient_id,
        "study_id": place.study_id,
        "series_id": place.series_id,
        "slice_index": place.slice_index,
        "lesion_id": _lesion_id(one, names) if one.makes_lesion else None,
        "duplicate_of": _mark_id(one.duplicate_of, names) if one.duplicate_of else None,
        "image_id": names("image", image_uid) if image_uid else None,
        "frame_number": one.plane.frame_number if one.plane else mark.frame_number,
        "report_id": names("report", one.report.report_uid),
        "shape": str(mark.shape),
        **_coordinates(mark),
        "coord_convention": None if mark.long_axis is None else str(mark.convention),
        "long_mm": _finite(measured.long_mm) if measured else None,
        "short_mm": _finite(measured.short_mm) if measured and mark.short_axis else None,
        **_stated(mark, measured),
        "tracking_id": names("tracking", mark.tracking_uid) if mark.tracking_uid else None,
        "finding_site": mark.finding_site,
        "finding": mark.finding,
        "source_format": mark.source_format,
        "confidence": mark.confidence,
        "flags": sorted(_flags(one, measured)),
    }


def lesion_row(
    one: JoinedMark, place: MarkPlace, names: Names, window_hu: tuple[float, float] | None
) -> dict[str, object]:
    """The row of the lesion a mark makes, but for its place in the body and ingest."""
    mark, measured = one.mark, _measured(one)
    assert measured is not None  # noqa: S101 (a mark without axes makes no lesion)
    low, high = window_hu or (None, None)
    single = mark.short_axis is None
    return {
        "lesion_id": _lesion_id(one, names),
        "row_number": None,
        "series_id": place.series_id,
        "patient_id": place.patient_id,
        "study_id": place.study_id,
        "slice_index": place.slice_index,
        **_coordinates(mark),
        "coord_convention": str(mark.convention),
        "box_xyxy_px": list(measured.box_xyxy_px),
        "long_px": measured.long_px,
        "short_px": None if single else measured.short_px,
        "long_mm": _finite(measured.long_mm),
        "short_mm": None if single else _finite(measured.short_mm),
        **_stated(mark, measured),
        "axes_angle_deg": None if single else _finite(measured.axes_angle_deg),
        "release_x": None,
        "release_y": None,
        "release_z": None,
        "lesion_type": lesion_type_of_site(mark.finding_site),
        "possibly_noisy": False,
        "split": None,
        "range_first_slice": None,
        "range_last_slice": None,
        "window_low_hu": low,
        "window_high_hu": high,
        "mark_id": _mark_id(one, names),
        "finding_site": mark.finding_site,
        "finding": mark.finding,
        "tracking_id": names("tracking", mark.tracking_uid) if mark.tracking_uid else None,
        "source_format": mark.source_format,
        "confidence": mark.confidence,
        "flags": sorted(_flags(one, measured)),
        "raw": None,
    }


def _mark_id(one: JoinedMark, names: Names) -> str:
    return names("mark", f"{one.report.report_uid} {one.mark.source_format} {one.mark.item}")


def _lesion_id(one: JoinedMark, names: Names) -> str:
    """From what was measured where, so that a report saved again under another name gives the same lesion."""
    mark = one.mark
    assert one.plane is not None  # noqa: S101 (orphans make no lesion)
    points = [f"{value:.2f}" for point in _ends(mark) for value in point]
    return names("lesion", f"{one.plane.image_uid} {one.plane.frame_number} {mark.convention} {' '.join(points)}")


def _ends(mark: Mark) -> list[tuple[float, float]]:
    return [*(mark.long_axis or ()), *(mark.short_axis or ())]


def _coordinates(mark: Mark) -> dict[str, float | None]:
    values: list[float | None] = []
    for axis in (mark.long_axis, mark.short_axis):
        values += [None] * 4 if axis is None else [value for point in axis for value in point]
    return dict(zip(COORDINATE_COLUMNS, values, strict=True))


def _measured(one: JoinedMark) -> Recist | None:
    """Lengths, box and angle; a single length measures as one whose short axis is its own first end."""
    mark = one.mark
    if mark.long_axis is None:
        return None
    short: Axis = mark.short_axis or (mark.long_axis[0], mark.long_axis[0])
    spacing = one.plane.spacing_xy_mm if one.plane and one.plane.spacing_xy_mm else (math.nan, math.nan)
    return measure_points(np.array([*mark.long_axis, *short]), spacing)


def _stated(mark: Mark, measured: Recist | None) -> dict[str, object]:
    return {
        "stated_long": mark.stated_long,
        "stated_short": mark.stated_short,
        "stated_unit": mark.stated_unit,
        "stated_ratio": _stated_ratio(mark, measured),
    }


def _stated_ratio(mark: Mark, measured: Recist | None) -> float | None:
    """Stated over recomputed long diameter, in the stated unit."""
    recomputed = _recomputed(mark, measured)
    if mark.stated_long is None or not recomputed:
        return None
    return _finite(mark.stated_long / recomputed)


def _recomputed(mark: Mark, measured: Recist | None) -> float | None:
    if measured is None or mark.stated_unit is None:
        return None
    if mark.stated_unit == "px":
        return measured.long_px
    return _finite(measured.long_mm / _MM_PER_UNIT[mark.stated_unit])


def _flags(one: JoinedMark, measured: Recist | None) -> frozenset[Flag]:
    flags = set(one.flags)
    mark = one.mark
    recomputed = _recomputed(mark, measured)
    if mark.stated_long is not None and recomputed is not None:
        unit_mm = _MM_PER_UNIT.get(mark.stated_unit or "", 1.0)
        allowed = max(_LENGTH_TOLERANCE_MM / unit_mm, _LENGTH_TOLERANCE_SHARE * recomputed)
        if abs(mark.stated_long - recomputed) > allowed:
            flags.add(Flag.STATED_LENGTH_DIFFERS)
    if measured is not None and mark.short_axis is not None:
        if measured.short_exceeds_long:
            flags.add(Flag.SHORT_EXCEEDS_LONG)
        if not measured.axes_angle_deg >= MIN_AXES_ANGLE_DEG:
            flags.add(Flag.AXES_NOT_PERPENDICULAR)
        if not measured.axes_cross:
            flags.add(Flag.AXES_DO_NOT_CROSS)
    return frozenset(flags)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def center_zero_based(row: dict[str, object]) -> tuple[float, float]:
    """The centre of a lesion row's box, counted from the first pixel's centre."""
    box = row["box_xyxy_px"]
    assert isinstance(box, Sequence)  # noqa: S101 (our own row)
    origin = FIRST_CENTERS[str(row["coord_convention"])]
    return (float(box[0]) + float(box[2])) / 2 - origin, (float(box[1]) + float(box[3])) / 2 - origin
