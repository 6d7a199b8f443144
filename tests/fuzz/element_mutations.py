"""Changes to DICOM files element by element: the file is taken apart as explicit little endian, changed, and written.

Sequences and their items are taken apart as well, so that a change deep inside a report leaves the lengths around it
right. A file that is written otherwise is changed byte by byte.
"""

import random
import struct
from dataclasses import dataclass, field

from fuzz.mutations import mutated_bytes, nasty_text

_LONG_FORMS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_KINDS = (
    b"AE", b"AS", b"CS", b"DA", b"DS", b"FD", b"FL", b"IS", b"LO", b"OB", b"OW", b"PN", b"SH", b"SL", b"SQ", b"SS",
    b"TM", b"UI", b"UL", b"UN", b"US", b"UT", b"UC", b"OF", b"AT", b"??",
)  # fmt: skip
_ITEM, _ITEM_END, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"
_UNDEFINED = b"\xff\xff\xff\xff"
_UIDS = (
    b"1.2.3.4", b"1.2.840.10008.5.1.4.1.1.2", b"1.2.840.10008.5.1.4.1.1.66.4", b"1.2.840.10008.5.1.4.1.1.88.22",
    b"1.2.840.10008.5.1.4.1.1.88.59", b"1.2.840.10008.5.1.4.1.1.11.1", b"1.2.840.10008.5.1.4.1.1.481.3",
    b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.5",
    b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.201",
)  # fmt: skip
_WORDS = (
    b"POLYLINE", b"ELLIPSE", b"CIRCLE", b"POLYGON", b"POINT", b"MULTIPOINT", b"PIXEL", b"DISPLAY", b"SCOORD",
    b"SCOORD3D", b"NUM", b"CODE", b"CONTAINER", b"IMAGE", b"UIDREF", b"DATE", b"SRT", b"SCT", b"DCM", b"99NCIAIM",
    b"G-A185", b"G-A186", b"G-D7FE", b"125007", b"111028", b"CLOSED_PLANAR", b"ORIGINAL\\PRIMARY\\AXIAL", b"FRACTIONAL",
    b"MONOCHROME2", b"ISO_IR 192", b"ISO 2022 IR 87", b"nonsense", b"mm", b"cm", b"1", b"12.5 x 30 mm", b"HU",
)  # fmt: skip


@dataclass
class Element:
    """One element; a sequence has items instead of a value."""

    tag: bytes
    kind: bytes
    value: bytes = b""
    items: list[list["Element"]] | None = None
    tail: bytes = field(default=b"", repr=False)
    """Of fragments: everything behind the undefined length."""

    def written(self) -> bytes:
        """As explicit little endian."""
        if self.tail:
            return self.tag + self.kind + b"\0\0" + _UNDEFINED + self.tail
        value = self.value
        if self.items is not None:
            value = b"".join(_ITEM + _length(body) + body for body in map(written, self.items))
        if self.kind in _LONG_FORMS:
            return self.tag + self.kind + b"\0\0" + _length(value) + value
        return self.tag + self.kind + struct.pack("<H", len(value) & 0xFFFF) + value


def _length(body: bytes) -> bytes:
    return struct.pack("<I", len(body))


def written(elements: list[Element]) -> bytes:
    """A data set's bytes."""
    return b"".join(element.written() for element in elements)


def taken_apart(data: bytes) -> tuple[bytes, list[Element]] | None:
    """Preamble and elements of a file, file meta among them; None when it is written otherwise."""
    start = 132 if data[128:132] == b"DICM" else 0
    try:
        elements, end = _elements(data, start, len(data), depth=0)
    except (ValueError, struct.error):
        return None
    return (data[:start], elements) if elements and end == len(data) else None


def _elements(data: bytes, at: int, end: int, depth: int) -> tuple[list[Element], int]:
    found = []
    while at + 8 <= end:
        tag, kind = data[at : at + 4], data[at + 4 : at + 6]
        if tag in {_ITEM_END, _SEQUENCE_END}:
            break
        if not kind.isalpha() or not kind.isupper():
            raise ValueError("not explicit")
        if kind in _LONG_FORMS:
            raw, at = data[at + 8 : at + 12], at + 12
            length = struct.unpack("<I", raw)[0]
        else:
            raw, at = b"", at + 8
            length = struct.unpack("<H", data[at - 2 : at])[0]
        if kind == b"SQ" and depth < 100:
            items, at = _items(
                data, at, end if raw == _UNDEFINED else at + length, depth + 1, open_end=raw == _UNDEFINED
            )
            found.append(Element(tag, kind, items=items))
        elif raw == _UNDEFINED:
            found.append(Element(tag, kind, tail=data[at:end]))
            at = end
        else:
            if at + length > end:
                raise ValueError("over the end")
            found.append(Element(tag, kind, data[at : at + length]))
            at += length
    return found, at


def _items(data: bytes, at: int, end: int, depth: int, *, open_end: bool) -> tuple[list[list[Element]], int]:
    items = []
    while at + 8 <= end and data[at : at + 4] == _ITEM:
        raw, at = data[at + 4 : at + 8], at + 8
        length = struct.unpack("<I", raw)[0]
        body, stopped = _elements(data, at, end if raw == _UNDEFINED else at + length, depth)
        items.append(body)
        at = stopped + 8 if raw == _UNDEFINED else at + length
    if open_end:
        if data[at : at + 4] != _SEQUENCE_END:
            raise ValueError("no end of the sequence")
        at += 8
    return items, at


def mutated_dicom(data: bytes, rng: random.Random) -> bytes:
    """Values, kinds, tags, order, repeats and nesting of elements changed anywhere in the tree."""
    parts = taken_apart(data) if rng.random() < 0.9 else None
    if parts is None:
        return mutated_bytes(data, rng)
    preamble, elements = parts
    for _ in range(rng.choice((1, 1, 2, 3))):
        _change(elements, rng)
    try:
        return preamble + written(elements)
    except RecursionError:
        # Nested into itself more than once.
        return mutated_bytes(data, rng)


def _places(elements: list[Element]) -> list[tuple[list[Element], int]]:
    found, waiting = [], [elements]
    while waiting:
        body = waiting.pop()
        for number, element in enumerate(body):
            found.append((body, number))
            waiting += element.items or ()
    return found


def _change(elements: list[Element], rng: random.Random) -> None:
    places = _places(elements)
    if not places:
        return
    body, number = places[rng.randrange(len(places))]
    element = body[number]
    match rng.randrange(10):
        case 0 | 1 | 2 | 3:
            element.value, element.items, element.tail = _value(element, rng), element.items, b""
        case 4:
            element.kind = rng.choice(_KINDS)
        case 5:
            del body[number]
        case 6:
            other, at = places[rng.randrange(len(places))]
            copy = other[at]
            body.insert(number, Element(copy.tag, copy.kind, copy.value, _copied(copy.items), copy.tail))
        case 7 if element.items:
            element.items[:] = [*element.items, *_copied(element.items)] * rng.choice((1, 2, 10))
        case 8 if element.items:
            # Nested into itself, as deep as it goes.
            for _ in range(rng.choice((1, 8, 70, 200))):
                element.items = [[Element(element.tag, b"SQ", items=element.items)]]
        case _:
            element.tag = bytes([*element.tag[:2], *mutated_bytes(element.tag[2:], rng)[:2]]).ljust(4, b"\0")[:4]


def _copied(items: list[list[Element]] | None) -> list[list[Element]] | None:
    if items is None:
        return None
    return [[Element(one.tag, one.kind, one.value, _copied(one.items), one.tail) for one in body] for body in items]


def _value(element: Element, rng: random.Random) -> bytes:
    value = element.value
    if element.tail:
        return mutated_bytes(element.tail, rng)
    match rng.randrange(7):
        case 0:
            value = mutated_bytes(value, rng)
        case 1:
            value = rng.choice(_UIDS)
        case 2:
            value = rng.choice(_WORDS)
        case 3 | 4:
            parts = value.split(b"\\") if element.kind in {b"DS", b"IS", b"CS"} else [value]
            parts[rng.randrange(len(parts))] = nasty_text(rng).encode("utf-8", "surrogateescape")
            value = b"\\".join(parts)
        case 5:
            numbers = [
                rng.choice((0.0, -1.0, 1e9, 1e39, float("nan"), float("inf"), 12.5))
                for _ in range(rng.choice((2, 4, 6)))
            ]
            value = b"".join(struct.pack("<d" if element.kind == b"FD" else "<f", min(one, 3e38)) for one in numbers)
        case 6:
            value = struct.pack("<H", rng.choice((0, 1, 8, 12, 15, 16, 32, 255, 512, 4096, 4097, 32768, 65535)))
    if element.kind not in _LONG_FORMS:
        value = value[:65_534]
    return value + b"\0" * (len(value) % 2)
