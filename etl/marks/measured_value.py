"""What a NUM item states: a number and its unit, as written, and whether that can be a length at all.

Real files write the code for a length on an area in mm2, and "px" for any unit they do not know: neither code nor unit
alone can be believed, and the points have the last word (`marks/pairing.py`).
"""

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from etl.marks.codes import code_of_item
from etl.marks.content_tree import ContentItem, is_written, items_of, numbers_of, text_of
from etl.quality import Flag

MAX_VALUE = 1e6
# The pattern below takes the square of a text's length; no unit is longer.
_LONGEST_UNIT = 64

_UNITS = {"mm": "mm", "millimeter": "mm", "cm": "cm", "centimeter": "cm"}
_PIXELS = ("px", "pixel", "pixels", "{pixel}", "{pixels}", "[pixels]")
# Units of areas, volumes, densities, angles, times and counts.
_NOT_A_LENGTH = re.compile(
    r".*(?:[23²³]|[/^].*)|ml|l|\[hnsf'u\]|hu|\{?hu\}?|deg|rad|%|s|ms|g|kg|\{counts\}|\{suv.*\}|bq.*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Stated:
    """A value with its unit; both None where nothing is stated."""

    value: float | None = None
    unit: str | None = None
    is_length: bool = True
    """False when the unit is that of something else."""
    flags: frozenset[Flag] = frozenset()


def stated_by(item: ContentItem) -> Stated:
    """What a NUM item states. An item without a measured value states nothing, which is not an error."""
    measured = items_of(item.dataset, "MeasuredValueSequence")
    if not measured:
        return Stated()
    unit, is_length = _unit(measured[0])
    value, is_broken = _value(measured[0])
    flags = {Flag.VALUE_INVALID} if is_broken else set()
    if value is not None and unit is None:
        flags.add(Flag.UNIT_UNKNOWN)
    return Stated(value, unit if value is not None else None, is_length, frozenset(flags))


def _value(measured: Dataset) -> tuple[float | None, bool]:
    """The number, and whether there is one that does not parse."""
    written = [keyword for keyword in ("FloatingPointValue", "NumericValue") if is_written(measured, keyword)]
    for keyword in written:
        numbers = numbers_of(measured, keyword)
        if numbers is not None and len(numbers) == 1 and 0 <= numbers[0] <= MAX_VALUE:
            return numbers[0], False
    return None, bool(written)


def _unit(measured: Dataset) -> tuple[str | None, bool]:
    """The unit if it is one we know, and whether it can be a length's."""
    items = items_of(measured, "MeasurementUnitsCodeSequence")
    code = code_of_item(items[0]) if items else None
    if code is None:
        return None, True
    # dcmjs writes pixels as the UCUM code for "no unit" with the meaning "px".
    if code[0].strip() == "1" and text_of(items[0], "CodeMeaning").lower() in _PIXELS:
        return "px", True
    return unit_of_text(code[0])


def unit_of_text(text: str) -> tuple[str | None, bool]:
    """The unit that a word names, if we know it, and whether it can be a length's."""
    written = text.strip()
    if not written:
        return None, True
    if len(written) > _LONGEST_UNIT:
        return None, True
    if _NOT_A_LENGTH.fullmatch(written):
        return None, False
    if written.lower() in _PIXELS:
        return "px", True
    return _UNITS.get(written.lower()), True
