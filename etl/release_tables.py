"""A read unit as rows of the lake: series, lesions, quarantine and units, in the lake's own schemas."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from etl.annotations import AnnotationRow
from etl.quality import Flag, Quarantined, Reason
from etl.release import SOURCE_KIND, ReleaseUnit, SliceRow
from lesionary.columns import Table
from lesionary.schema import COORDINATE_COLUMNS, LESIONS, MARKS, QUARANTINE, RELEASE_COLUMNS, SERIES, UNITS

# A unit with this fingerprint is never "done": the next ingest reads it again.
RETRY_FINGERPRINT = "retry"


@dataclass(slots=True)
class ImagesOutcome:
    """What reading a unit's images came to."""

    shapes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Rows and columns of the slices that were read, by slice index."""
    flagged: int = 0
    refused: list[Quarantined] = field(default_factory=list)

    def add(self, item: SliceRow | Quarantined) -> None:
        """Count one image."""
        if isinstance(item, Quarantined):
            self.refused.append(item)
            return
        self.shapes[item.slice_index] = (item.hu.shape[0], item.hu.shape[1])
        self.flagged += bool(item.flags)


def describe_unit(unit: ReleaseUnit, outcome: ImagesOutcome, ingest_id: str) -> dict[str, pa.Table]:
    """A unit's rows for every table but `slices`."""
    lesion_flags = [
        row.flags | (frozenset() if row.slice_index in outcome.shapes else {Flag.IMAGE_MISSING}) for row in unit.rows
    ]
    lesions = [_lesion(unit, row, flags, ingest_id) for row, flags in zip(unit.rows, lesion_flags, strict=True)]
    refused = [*unit.refused, *outcome.refused]
    series = [_series(unit, outcome, ingest_id)] if unit.series_key else []
    units = [_counts(unit, outcome, sum(map(bool, lesion_flags)), refused, ingest_id)]
    return {
        SERIES.name: table_of(SERIES, series),
        LESIONS.name: table_of(LESIONS, lesions),
        MARKS.name: MARKS.schema.empty_table(),
        QUARANTINE.name: quarantine_table(unit.unit_id, refused, ingest_id),
        UNITS.name: table_of(UNITS, units),
    }


def table_of(table: Table, rows: Sequence[dict[str, object]]) -> pa.Table:
    """Rows in a table's schema; a column that it does not have is dropped."""
    return pa.Table.from_pylist(list(rows), schema=table.schema)


def quarantine_table(unit_id: str, refused: Sequence[Quarantined], ingest_id: str) -> pa.Table:
    """What a unit could not take in."""
    rows: list[dict[str, object]] = [
        {
            "unit_id": unit_id,
            "kind": one.kind,
            "member": one.member,
            "reason": str(one.reason),
            "detail": one.detail,
            "ingest_id": ingest_id,
        }
        for one in refused
    ]
    return table_of(QUARANTINE, rows)


def retried_fingerprint(fingerprint: str, refused: Sequence[Quarantined]) -> str:
    """A unit's fingerprint, or one that never matches when a file could not be read for reasons that may pass."""
    transient = any(one.reason is Reason.FILE_UNREADABLE for one in refused)
    return RETRY_FINGERPRINT if transient else fingerprint


def _patient_id(unit: ReleaseUnit) -> str:
    return f"{unit.namespace}-{(unit.series_key or '').split('_')[0]}"


def _study_id(unit: ReleaseUnit) -> str:
    return f"{unit.namespace}-{(unit.series_key or '').rsplit('_', 1)[0]}"


def _series(unit: ReleaseUnit, outcome: ImagesOutcome, ingest_id: str) -> dict[str, object]:
    rows = unit.rows
    shape = Counter(outcome.shapes.values()).most_common(1)[0][0] if outcome.shapes else (None, None)
    x_mm, y_mm = next(((r.spacing_mm[0], r.spacing_mm[1]) for r in rows if r.spacing_mm[0]), (None, None))
    intervals = {row.spacing_mm[2] for row in rows if row.spacing_mm[2] is not None}
    window = next((row.window_hu for row in rows if row.window_hu), (None, None))
    flags = set()
    if len(intervals) > 1:
        flags.add(Flag.INTERVALS_DIFFER)
    if outcome.shapes and _slices_missing(rows, outcome):
        flags.add(Flag.SLICES_MISSING)
    return {
        "series_id": unit.unit_id,
        "patient_id": _patient_id(unit),
        "study_id": _study_id(unit),
        "study_index": int((unit.series_key or "").split("_")[1]),
        "study_day": None,
        "source": SOURCE_KIND,
        "sex": next((row.sex for row in rows if row.sex), None),
        "age_years": next((row.age_years for row in rows if row.age_years is not None), None),
        "rows": shape[0],
        "columns": shape[1],
        "spacing_x_mm": x_mm,
        "spacing_y_mm": y_mm,
        "spacing_z_mm": min(intervals, default=None),
        "slice_count": len(outcome.shapes),
        "regular_spacing": _regular(intervals, outcome),
        "axial": True,  # the release publishes axial slices only
        "tilt_deg": None,
        "single_position": None,
        "has_gaps": None,
        "doubled_positions": None,
        "mixed_orientation": None,
        "orientation": None,
        "slice_thickness_mm": None,
        "window_low_hu": window[0],
        "window_high_hu": window[1],
        "flags": sorted(flags),
        "fingerprint": unit.fingerprint,
        "ingest_id": ingest_id,
    }


def _regular(intervals: set[float], outcome: ImagesOutcome) -> bool | None:
    if not outcome.shapes or not intervals:
        return None
    gapless = max(outcome.shapes) - min(outcome.shapes) + 1 == len(outcome.shapes)
    return gapless and len(intervals) == 1


def _slices_missing(rows: Sequence[AnnotationRow], outcome: ImagesOutcome) -> bool:
    return any(
        index not in outcome.shapes
        for row in rows
        if row.slice_range
        for index in range(row.slice_range[0], row.slice_range[1] + 1)
    )


def _lesion(unit: ReleaseUnit, row: AnnotationRow, flags: frozenset[Flag], ingest_id: str) -> dict[str, object]:
    measured = row.measured
    has_spacing = row.spacing_mm[0] is not None and row.spacing_mm[1] is not None
    stated_long, stated_short = row.stated_px or (None, None)
    first, last = row.slice_range or (None, None)
    low, high = row.window_hu or (None, None)
    return {
        "lesion_id": f"{unit.namespace}-{row.number}",
        "row_number": row.number,
        "series_id": unit.unit_id,
        "patient_id": _patient_id(unit),
        "study_id": _study_id(unit),
        "slice_index": row.slice_index,
        **dict(zip(COORDINATE_COLUMNS, row.points, strict=True)),
        "coord_convention": "one_based",
        "box_xyxy_px": list(measured.box_xyxy_px),
        "long_px": measured.long_px,
        "short_px": measured.short_px,
        "long_mm": measured.long_mm if has_spacing else None,
        "short_mm": measured.short_mm if has_spacing else None,
        "stated_long": stated_long,
        "stated_short": stated_short,
        "stated_unit": _stated_unit(row, flags),
        "stated_ratio": _stated_ratio(row, flags),
        "axes_angle_deg": measured.axes_angle_deg if measured.axes_angle_deg == measured.axes_angle_deg else None,
        "body_x": None,
        "body_y": None,
        "release_x": row.location[0],
        "release_y": row.location[1],
        "release_z": row.location[2],
        "lesion_type": row.lesion_type,
        "possibly_noisy": row.noisy,
        "split": row.split,
        "range_first_slice": first,
        "range_last_slice": last,
        "window_low_hu": low,
        "window_high_hu": high,
        "mark_id": None,
        "finding_site": None,
        "finding": None,
        "tracking_id": None,
        "source_format": "dl_info",
        "confidence": 1.0,
        "flags": sorted(flags),
        "raw": dict(zip(RELEASE_COLUMNS, row.raw, strict=True)),
        "ingest_id": ingest_id,
    }


def _stated_unit(row: AnnotationRow, flags: frozenset[Flag]) -> str | None:
    if row.stated_px is None:
        return None
    return "mm" if Flag.DIAMETERS_IN_MM in flags else "px"


def _stated_ratio(row: AnnotationRow, flags: frozenset[Flag]) -> float | None:
    """Stated over recomputed long diameter; None where the recomputed one is too small to divide by."""
    if row.stated_px is None:
        return None
    recomputed = row.measured.long_mm if Flag.DIAMETERS_IN_MM in flags else row.measured.long_px
    ratio = row.stated_px[0] / recomputed if recomputed else math.inf
    return ratio if math.isfinite(ratio) else None


def _counts(
    unit: ReleaseUnit, outcome: ImagesOutcome, rows_flagged: int, refused: Sequence[Quarantined], ingest_id: str
) -> dict[str, object]:
    rows_refused = sum(one.kind == "row" for one in refused)
    files_refused = len(refused) - rows_refused
    return {
        "unit_id": unit.unit_id,
        "source": SOURCE_KIND,
        "fingerprint": retried_fingerprint(unit.fingerprint, refused),
        "rows_found": unit.row_count,
        "rows_accepted": len(unit.rows) - rows_flagged,
        "rows_flagged": rows_flagged,
        "rows_quarantined": rows_refused,
        "files_found": unit.file_count,
        "files_accepted": len(outcome.shapes) - outcome.flagged,
        "files_flagged": outcome.flagged,
        "files_quarantined": files_refused,
        "slices": len(outcome.shapes),
        "lesions": len(unit.rows),
        "marks": 0,
        "ingest_id": ingest_id,
    }
