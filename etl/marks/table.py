"""A plain table of marks, for archives whose marks somebody has pulled out already: CSV with a header line, or JSON.

One row is one mark. Columns (any order; others are ignored, so free text beside them does no harm):

    sop_instance_uid                           the marked image (required)
    long_x1 long_y1 long_x2 long_y2            ends of the long axis, px (required)
    short_x1 short_y1 short_x2 short_y2        ends of the short axis, px
    coord_convention                           zero_based (the default), one_based or half_based
    frame_number                               of a multi-frame image, from 1
    stated_long stated_short stated_unit       lengths as the reader wrote them; mm, cm or px
    finding_site finding                       as scheme:code, for example SCT:10200004
    patient_id study_instance_uid tracking_uid

JSON is a list of objects with these keys, or an object with such a list under "marks".
"""

import csv
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

from etl.marks.codes import known_code
from etl.marks.measured_value import MAX_VALUE, unit_of_text
from etl.marks.model import Axis, Convention, Mark, Report, Shape, frame_from
from etl.quality import Flag, Quarantined, Reason, RefusedError
from lesionary.json_text import parse_json

MAX_ROWS = 1_000_000
_IMAGE = "sop_instance_uid"
_LONG = ("long_x1", "long_y1", "long_x2", "long_y2")
_SHORT = ("short_x1", "short_y1", "short_x2", "short_y2")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+){2,}", re.ASCII)
_MAX_COORDINATE = 1e6

_Row = Mapping[str, object]


def read_table(data: bytes) -> Report | None:
    """The marks of a table; None when the bytes are no table of marks."""
    rows = _rows(data)
    if rows is None:
        return None
    marks: list[Mark] = []
    refused: list[Quarantined] = []
    for number, row in enumerate(rows, start=1):
        try:
            marks.append(_mark(row, number))
        except RefusedError as refusal:
            refused.append(Quarantined("row", f"item {number} of a report", refusal.reason, refusal.detail))
    return Report(
        report_uid=hashlib.sha256(data).hexdigest(),
        source_format="table",
        patient_key=_single(rows, "patient_id"),
        study_uid=_single(rows, "study_instance_uid"),
        marks=tuple(marks),
        refused=tuple(refused),
    )


def _rows(data: bytes) -> Sequence[_Row] | None:
    try:
        text = data.decode("utf-8-sig")
        if text.lstrip()[:1] in {"[", "{"}:
            return _json_rows(parse_json(text))
        return _csv_rows(text)
    except (UnicodeDecodeError, ValueError, csv.Error):
        return None


def _json_rows(content: object) -> Sequence[_Row] | None:
    if isinstance(content, dict):
        content = content.get("marks")
    if not isinstance(content, list) or not content or len(content) > MAX_ROWS:
        return None
    rows = [cast("_Row", row) if isinstance(row, dict) else {} for row in content]
    return rows if any(_IMAGE in row for row in rows) else None


def _csv_rows(text: str) -> Sequence[_Row] | None:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    names = [name.strip().lower() for name in reader.fieldnames or ()]
    if _IMAGE not in names or not set(_LONG) <= set(names):
        return None
    reader.fieldnames = names
    rows: list[_Row] = []
    for row in reader:
        if len(rows) >= MAX_ROWS:
            return None
        # A row of another length has fields without a name, or names without a field.
        rows.append({} if None in row or None in row.values() else row)
    return rows


def _mark(row: _Row, number: int) -> Mark:
    if not row:
        raise RefusedError(Reason.ROW_MALFORMED, "another number of fields than the header")
    image = _text(row, _IMAGE)
    if image is None or len(image) > 64 or not _UID.fullmatch(image):
        raise RefusedError(Reason.MARK_INVALID, "no image")
    long_axis = _axis(row, _LONG)
    if long_axis is None:
        raise RefusedError(Reason.COORDINATES_INVALID, "four finite numbers are needed")
    short_axis = _axis(row, _SHORT)
    flags = set() if short_axis else {Flag.NO_SHORT_AXIS}
    try:
        convention = Convention(_text(row, "coord_convention") or Convention.ZERO_BASED)
    except ValueError:
        raise RefusedError(Reason.MARK_INVALID, "an unknown coordinate convention") from None
    unit, is_length = unit_of_text(_text(row, "stated_unit") or "")
    stated = [_length(row, name) if is_length else None for name in ("stated_long", "stated_short")]
    if stated[0] is not None and unit is None:
        flags.add(Flag.UNIT_UNKNOWN)
    site, finding = (_code(row, name, flags) for name in ("finding_site", "finding"))
    return Mark(
        source_format="table",
        shape=Shape.BIDIRECTIONAL if short_axis else Shape.LENGTH,
        item=number,
        image_uid=image,
        frame_number=frame_from(_number(row, "frame_number")),
        long_axis=long_axis,
        short_axis=short_axis,
        convention=convention,
        stated_long=stated[0],
        stated_short=stated[1],
        stated_unit=unit if stated[0] is not None else None,
        tracking_uid=_text(row, "tracking_uid"),
        finding_site=site,
        finding=finding,
        flags=frozenset(flags),
    )


def _text(row: _Row, name: str) -> str | None:
    value = row.get(name)
    return str(value).strip() or None if isinstance(value, str | int | float) else None


def _number(row: _Row, name: str) -> float | None:
    try:
        value = float(_text(row, name) or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _length(row: _Row, name: str) -> float | None:
    value = _number(row, name)
    return value if value is not None and 0 <= value <= MAX_VALUE else None


def _axis(row: _Row, names: Sequence[str]) -> Axis | None:
    numbers = [_number(row, name) for name in names]
    if any(number is None or abs(number) > _MAX_COORDINATE for number in numbers):
        return None
    x1, y1, x2, y2 = cast("list[float]", numbers)
    return (x1, y1), (x2, y2)


def _code(row: _Row, name: str, flags: set[Flag]) -> str | None:
    text = _text(row, name)
    if text is None:
        return None
    scheme, _, value = text.partition(":")
    code = known_code(value, scheme)
    if code is None:
        flags.add(Flag.CODE_UNKNOWN)
    return code


def _single(rows: Sequence[_Row], name: str) -> str | None:
    """A value that all rows share."""
    values = {_text(row, name) for row in rows if row}
    return values.pop() if len(values) == 1 else None
