"""A worker's share of a PACS export: a series' pixels through the supervised child, and its rows as tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from etl.archive import SourceTree, safe_label
from etl.body import place_in_body
from etl.dicom_images import ImageHeader
from etl.pacs import SOURCE_KIND, PacsUnit, PlannedImage
from etl.pacs_files import EncodedSlice, EncodeSlice
from etl.pacs_rows import center_zero_based
from etl.quality import Flag, Quarantined, Reason, RefusedError
from etl.release_tables import quarantine_table, retried_fingerprint, table_of
from etl.supervision import Child
from lesionary.schema import LESIONS, MARKS, QUARANTINE, SERIES, SLICES, UNITS

# Slices handed to the writer at once: 8 row groups, some 6 MB.
_SLICES_AT_ONCE = 32

Answer = EncodedSlice | RefusedError


@dataclass(slots=True)
class _Outcome:
    """What reading a series' pixels came to."""

    bodies: dict[int, tuple[float, float, float, float]] = field(default_factory=dict)
    """By slice index; the whole image where no body was found."""
    taken: int = 0
    flagged: int = 0
    refused: list[Quarantined] = field(default_factory=list)


def write_unit(
    unit: PacsUnit, tree: SourceTree, child: Child, ingest_id: str, write: Callable[[pa.Table], None]
) -> dict[str, pa.Table]:
    """Write a unit's slices, and give back its rows of every other table."""
    outcome = _Outcome()
    waiting: list[dict[str, object]] = []
    for image, header, encoded in _slices(unit, tree, child, outcome):
        waiting.append(_slice_row(unit, image, header, encoded, ingest_id))
        if len(waiting) == _SLICES_AT_ONCE:
            write(pa.Table.from_pylist(waiting, schema=SLICES.schema))
            waiting = []
    if waiting:
        write(pa.Table.from_pylist(waiting, schema=SLICES.schema))
    return _tables(unit, outcome, ingest_id)


def _slices(
    unit: PacsUnit, tree: SourceTree, child: Child, outcome: _Outcome
) -> Iterator[tuple[PlannedImage, ImageHeader, EncodedSlice]]:
    """Every image that can be taken, in order."""
    # In the order of the files, so that a multi-frame file is opened once.
    requests = [header for image in unit.images for header in image.files]
    if not requests:
        return
    answers = child.map(EncodeSlice(tree), requests)
    for image in unit.images:
        files = [next(answers) for _ in image.files]
        header, encoded = _chosen(files, outcome)
        if header is None or encoded is None:
            continue
        outcome.taken += 1
        outcome.flagged += bool(encoded.flags | header.flags)
        outcome.bodies[image.slice_index] = encoded.body_xyxy_px or (
            0.0, 0.0, encoded.columns - 1.0, encoded.rows - 1.0,
        )  # fmt: skip
        yield image, header, encoded
    # Lets the conversation end in order, so that the child can be used again.
    next(answers, None)


def _chosen(
    files: Sequence[tuple[ImageHeader, Answer]], outcome: _Outcome
) -> tuple[ImageHeader | None, EncodedSlice | None]:
    """The file that an image is taken from; copies of it, files that contradict it and damaged ones are refused."""
    readable = [(header, answer) for header, answer in files if isinstance(answer, EncodedSlice)]
    for header, answer in files:
        if isinstance(answer, RefusedError):
            outcome.refused.append(_refusal(header, answer.reason, answer.detail))
    if len({encoded.digest for _, encoded in readable}) > 1:
        outcome.refused += [_refusal(header, Reason.AMBIGUOUS_SOP) for header, _ in readable]
        return None, None
    outcome.refused += [_refusal(header, Reason.DUPLICATE_FILE) for header, _ in readable[1:]]
    return readable[0] if readable else (None, None)


def _refusal(header: ImageHeader, reason: Reason, detail: str = "") -> Quarantined:
    return Quarantined("file", safe_label(header.member, header.container), reason, detail)


def _slice_row(
    unit: PacsUnit, image: PlannedImage, header: ImageHeader, encoded: EncodedSlice, ingest_id: str
) -> dict[str, object]:
    return {
        "series_id": unit.unit_id,
        "slice_index": image.slice_index,
        "z_mm": image.z_mm,
        "rows": encoded.rows,
        "columns": encoded.columns,
        "pixels": encoded.pixels,
        "pixel_digest": encoded.digest,
        "image_id": image.image_id,
        "frame_number": header.frame_number,
        "position_xyz_mm": list(header.position_mm),
        "body_xyxy_px": None if encoded.body_xyxy_px is None else list(encoded.body_xyxy_px),
        "flags": sorted(encoded.flags | header.flags),
        "ingest_id": ingest_id,
    }


def _tables(unit: PacsUnit, outcome: _Outcome, ingest_id: str) -> dict[str, pa.Table]:
    stamp = {"ingest_id": ingest_id}
    refused = [*unit.refused, *outcome.refused]
    series = [] if unit.series is None else [_series_row(unit, outcome) | stamp]
    return {
        SERIES.name: table_of(SERIES, series),
        LESIONS.name: table_of(LESIONS, [_lesion_row(row, outcome) | stamp for row in unit.lesions]),
        MARKS.name: table_of(MARKS, [{**row, "unit_id": unit.unit_id, **stamp} for row in unit.marks]),
        QUARANTINE.name: quarantine_table(unit.unit_id, refused, ingest_id),
        UNITS.name: table_of(UNITS, [_counts(unit, outcome, refused) | stamp]),
    }


def _series_row(unit: PacsUnit, outcome: _Outcome) -> dict[str, object]:
    missing = len(unit.images) > outcome.taken
    return {
        **(unit.series or {}),
        "slice_count": outcome.taken,
        "flags": [Flag.SLICES_MISSING] if missing else [],
        "fingerprint": unit.fingerprint,
    }


def _lesion_row(row: Mapping[str, object], outcome: _Outcome) -> dict[str, object]:
    """A lesion with its place in the body; a slice without a body counts from its own edges."""
    lesion = dict(row)
    body = outcome.bodies.get(int(str(row["slice_index"])))
    x, y = (None, None) if body is None else place_in_body(center_zero_based(lesion), body)
    flags = set(row["flags"]) | (set() if body else {Flag.IMAGE_MISSING})  # type: ignore[call-overload]
    return lesion | {"body_x": x, "body_y": y, "flags": sorted(flags)}


def _counts(unit: PacsUnit, outcome: _Outcome, refused: Sequence[Quarantined]) -> dict[str, object]:
    rows_refused = sum(one.kind == "row" for one in refused)
    rows_flagged = sum(bool(row["flags"]) for row in unit.marks)
    return {
        "unit_id": unit.unit_id,
        "source": SOURCE_KIND,
        "fingerprint": retried_fingerprint(unit.fingerprint, refused),
        "rows_found": unit.row_count,
        "rows_accepted": len(unit.marks) - rows_flagged,
        "rows_flagged": rows_flagged,
        "rows_quarantined": rows_refused,
        "files_found": unit.file_count,
        "files_accepted": outcome.taken - outcome.flagged + unit.reports - unit.reports_flagged,
        "files_flagged": outcome.flagged + unit.reports_flagged,
        "files_quarantined": len(refused) - rows_refused,
        "slices": outcome.taken,
        "lesions": len(unit.lesions),
        "marks": len(unit.marks),
    }
