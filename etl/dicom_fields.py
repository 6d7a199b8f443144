"""A DICOM file down to raw values: what it is, how it is written, and its elements as bytes.

Values are taken as bytes and read by our own few rules (text of a fixed alphabet, numbers, UIDs). Converters and
character sets of foreign files can raise anything; here a value that does not parse is None.
"""

import io
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.tag import BaseTag, Tag

from etl.quality import Reason, RefusedError

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_GROUP_2 = b"\x02\x00"
_LONG_FORMS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SYNTAX = b"\x02\x00\x10\x00"
_MEDIA_CLASS = b"\x02\x00\x02\x00"

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
DEFLATED = "1.2.840.10008.1.2.1.99"

PIXEL_DATA = Tag(0x7FE0, 0x0010)
_PIXEL_GROUP = 0x7FE0

# A CT image has half a megabyte; an enhanced one of 500 frames 260.
MAX_INFLATED_BYTES = 512 << 20
_MAX_META_ELEMENTS = 64

_UID = re.compile(r"[0-9]+(?:\.[0-9]+){2,}", re.ASCII)
# One way to read any run of digits: with two, a long one takes the square of its length.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_MAX_UID_CHARACTERS = 64


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a file is written."""

    syntax: str | None
    """Transfer syntax UID; None when the file does not say."""
    media_class: str | None
    """SOP class as the file's head names it."""
    body: bytes
    """The file from its data set on; inflated where it was deflated."""
    body_start: int
    """Where the data set starts in the file; 0 for an inflated one."""
    implicit: bool
    little: bool


def looks_like_dicom(head: bytes) -> bool:
    """Whether a file starts as DICOM does, with or without the preamble."""
    if head[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == _MAGIC:
        return True
    # Without one, the first element must be of group 2 or 8, with a length or a value representation to match.
    return head[:4] in {b"\x08\x00\x00\x00", b"\x08\x00\x05\x00", b"\x08\x00\x08\x00", b"\x08\x00\x16\x00"} or (
        head[:4] == b"\x02\x00\x00\x00" and head[4:6] == b"UL"
    )


def read_encoding(data: bytes) -> Encoding:
    """Take the head of a file apart.

    Raises:
        RefusedError: a deflated file inflates to more than an image has, or not at all.
    """
    start = _PREAMBLE_BYTES + 4 if data[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == _MAGIC else 0
    meta, start = _file_meta(data, start)
    syntax = _plain(meta.get(_SYNTAX))
    media_class = _plain(meta.get(_MEDIA_CLASS))
    if syntax == DEFLATED:
        return Encoding(syntax, media_class, _inflated(data[start:]), 0, implicit=False, little=True)
    if syntax is None and not meta:
        # A bare data set: little endian, and explicit where two letters stand behind the first tag.
        explicit = data[start + 4 : start + 6].isalpha() and data[start + 4 : start + 6].isupper()
        syntax = EXPLICIT_LITTLE if explicit else IMPLICIT_LITTLE
    return Encoding(
        syntax, media_class, data[start:], start, implicit=syntax == IMPLICIT_LITTLE, little=syntax != EXPLICIT_BIG
    )


def _file_meta(data: bytes, start: int) -> tuple[dict[bytes, bytes], int]:
    """Group 2 as tag to value, and where the data set starts. Always explicit little endian."""
    meta: dict[bytes, bytes] = {}
    place = start
    while data[place : place + 2] == _GROUP_2 and len(meta) < _MAX_META_ELEMENTS:
        tag, kind = data[place : place + 4], data[place + 4 : place + 6]
        if kind in _LONG_FORMS:
            length, value = int.from_bytes(data[place + 8 : place + 12], "little"), place + 12
        else:
            length, value = int.from_bytes(data[place + 6 : place + 8], "little"), place + 8
        if value + length > len(data):
            break
        meta[tag] = data[value : value + length]
        place = value + length
    return meta, place


def _inflated(packed: bytes) -> bytes:
    try:
        machine = zlib.decompressobj(-zlib.MAX_WBITS)
        body = machine.decompress(packed, MAX_INFLATED_BYTES + 1)
    except zlib.error:
        raise RefusedError(Reason.DICOM_DAMAGED, "the deflated part does not inflate") from None
    if len(body) > MAX_INFLATED_BYTES:
        raise RefusedError(Reason.DEFLATE_BOMB, f"more than {MAX_INFLATED_BYTES} bytes")
    return body


def _plain(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.decode("ascii", "replace").strip("\x00 ")
    return text if _UID.fullmatch(text) and len(text) <= _MAX_UID_CHARACTERS else None


@dataclass(frozen=True, slots=True)
class PixelPlace:
    """Where the value of Pixel Data lies in an `Encoding.body`."""

    start: int
    size: int | None
    """None: undefined, as for compressed pixels."""


class Fields:
    """A data set, or an item of a sequence, as raw values."""

    def __init__(self, dataset: Dataset, *, little: bool) -> None:
        self.dataset = dataset
        # Before pydicom converts any: asking it for one element costs as much as reading three.
        self._raw = {int(tag): element.value for tag, element in dataset.items()}
        self._little = little

    def has(self, tag: int) -> bool:
        """Whether the element is there."""
        return tag in self._raw

    def raw(self, tag: int) -> bytes | None:
        """An element's value as bytes; None when it is absent or no plain value."""
        value = self._raw.get(tag)
        if isinstance(value, int) and 0 <= value < 1 << 16:
            # Reading a sequence makes pydicom convert the elements that its items depend on.
            return value.to_bytes(2, "little" if self._little else "big")
        return value if isinstance(value, bytes) else None

    def text(self, tag: int) -> str | None:
        """ASCII text without its padding; other characters become question marks. None when absent or empty."""
        value = self.raw(tag)
        return (value.decode("ascii", "replace").strip("\x00 ") or None) if value is not None else None

    def texts(self, tag: int) -> tuple[str, ...]:
        """The values of a multi-valued text."""
        text = self.text(tag)
        return tuple(part.strip() for part in text.split("\\")) if text else ()

    def uid(self, tag: int) -> str | None:
        """A well-formed UID."""
        return _plain(self.raw(tag))

    def numbers(self, tag: int, count: int) -> tuple[float, ...] | None:
        """Exactly `count` finite numbers written as text."""
        parts = self.texts(tag)
        if len(parts) != count or not all(_NUMBER.fullmatch(part) for part in parts):
            return None
        values = tuple(float(part) for part in parts)
        return values if all(math.isfinite(value) for value in values) else None

    def number(self, tag: int) -> float | None:
        """One finite number written as text; the first where there are several."""
        parts = self.texts(tag)
        if not parts or not _NUMBER.fullmatch(parts[0]):
            return None
        value = float(parts[0])
        return value if math.isfinite(value) else None

    def short(self, tag: int) -> int | None:
        """A 16-bit unsigned number."""
        value = self.raw(tag)
        return int.from_bytes(value[:2], "little" if self._little else "big") if value and len(value) >= 2 else None

    def items(self, tag: int) -> Sequence["Fields"]:
        """The items of a sequence; none when it is absent or broken."""
        try:
            value = self.dataset[Tag(tag)].value if tag in self._raw else ()
            return [Fields(item, little=self._little) for item in value] if isinstance(value, ItemSequence) else ()
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 (as above)
            return ()

    def first(self, tag: int) -> "Fields | None":
        """The first item of a sequence."""
        items = self.items(tag)
        return items[0] if items else None


def read_fields(encoding: Encoding, wanted: Sequence[int] | None) -> tuple[Fields, PixelPlace | None]:
    """The elements before the pixels, and where the pixels are.

    Args:
        encoding: of the file.
        wanted: tags to keep; None = all.

    Raises:
        RefusedError: the elements cannot be walked.
    """
    source = io.BytesIO(encoding.body)

    def at_pixels(tag: BaseTag, _kind: str | None, _length: int) -> bool:
        return tag.group >= _PIXEL_GROUP and tag != Tag(0xFFFC, 0xFFFC)

    tags = None if wanted is None else list(_tags(tuple(wanted)))
    try:
        dataset = read_dataset(source, encoding.implicit, encoding.little, stop_when=at_pixels, specific_tags=tags)
    except (RecursionError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 (as above)
        raise RefusedError(Reason.DICOM_DAMAGED, type(error).__name__) from None
    return Fields(dataset, little=encoding.little), _pixel_place(encoding, source.tell())


@cache
def _tags(wanted: tuple[int, ...]) -> tuple[BaseTag | int, ...]:
    return tuple(Tag(tag) for tag in wanted)


def _pixel_place(encoding: Encoding, at: int) -> PixelPlace | None:
    """The value behind the tag at `at`, if that is Pixel Data's."""
    body, order = encoding.body, "little" if encoding.little else "big"
    if body[at : at + 4] != (b"\xe0\x7f\x10\x00" if encoding.little else b"\x7f\xe0\x00\x10"):
        return None
    if encoding.implicit:
        length, start = body[at + 4 : at + 8], at + 8
    elif body[at + 4 : at + 6] in _LONG_FORMS:
        length, start = body[at + 8 : at + 12], at + 12
    else:
        length, start = body[at + 6 : at + 8], at + 8
    size = int.from_bytes(length, order)  # type: ignore[arg-type]
    return PixelPlace(start, None if length == b"\xff\xff\xff\xff" else size)
