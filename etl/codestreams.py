"""What a compressed image says of itself before and after the decoder: sizes, precision, signs, and its own end.

Decoders turn many damaged codestreams into wrong pixels without a word. So a codestream must agree with the DICOM
header before it is decoded, must reach its own end marker, and its values must fit the bits that the header grants
them. What still passes (a flipped bit inside a literal) no reader of the file could notice.
"""

import struct
from dataclasses import dataclass

from etl.quality import Reason, RefusedError

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_LOSSLESS_FRAME, _JPEGLS_FRAME = 0xC3, 0xF7
_START_OF_SCAN = 0xDA
_J2K_START = b"\xff\x4f\xff\x51"
_J2K_TILE = 0xFF90
_RLE_HEADER_BYTES = 64

# A codestream may be followed by the zero that pads it to even length, rarely by a few more.
_MOST_PADDING = 8


@dataclass(frozen=True, slots=True)
class Stated:
    """What a codestream's own header states."""

    rows: int
    columns: int
    bits: int
    signed: bool | None
    """None where the format has no signs."""


def check_jpeg(data: bytes, *, lossless_ls: bool) -> Stated:
    """Walk a JPEG or JPEG-LS codestream's markers.

    Raises:
        RefusedError: it is no such codestream, has more than one component, or does not end.
    """
    if not data.startswith(_SOI) or not _ends_with(data, _EOI):
        raise _damaged("start or end is missing")
    wanted = _JPEGLS_FRAME if lossless_ls else _LOSSLESS_FRAME
    stated: Stated | None = None
    place = 2
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == wanted:
            bits, rows, columns, components = struct.unpack_from(">BHHB", data.ljust(place + 10, b"\0"), place + 4)
            if components != 1:
                raise _damaged("more than one component")
            stated = Stated(rows, columns, bits, None)
        if marker == _START_OF_SCAN:
            break
        place += 2 + max(length, 2)
    if stated is None:
        raise _damaged("no frame of this kind")
    return stated


def check_jpeg2000(data: bytes) -> Stated:
    """Read a JPEG 2000 codestream's size segment and follow its tile parts to the end.

    Raises:
        RefusedError: it is no such codestream, has more than one component, or its parts do not add up.
    """
    if not data.startswith(_J2K_START) or len(data) < 64:
        raise _damaged("no start of a codestream")
    right, bottom, left, top = struct.unpack_from(">4I", data, 8)
    (components,) = struct.unpack_from(">H", data, 40)
    if components != 1:
        raise _damaged("more than one component")
    precision = data[42]
    _follow_tile_parts(data)
    return Stated(bottom - top, right - left, (precision & 0x7F) + 1, bool(precision & 0x80))


def _follow_tile_parts(data: bytes) -> None:
    place = 2
    while True:
        if place + 4 > len(data):
            raise _damaged("cut off")
        marker, length = struct.unpack_from(">HH", data, place)
        if marker == _J2K_TILE:
            break
        if marker < 0xFF00 or length < 2:
            raise _damaged("a marker is missing")
        place += 2 + length
    while data[place : place + 2] == b"\xff\x90":
        if place + 12 > len(data):
            raise _damaged("cut off")
        (size,) = struct.unpack_from(">I", data, place + 6)
        if size == 0:
            # The last part may leave its size open: it then ends with the codestream.
            if not _ends_with(data, _EOI):
                raise _damaged("no end")
            return
        if size < 14 or place + size > len(data):
            raise _damaged("a tile part runs over the end")
        place += size
    if data[place : place + 2] != _EOI:
        raise _damaged("no end")


def rle_planes(data: bytes, planes: int) -> list[bytes]:
    """The byte planes of a DICOM RLE frame, still packed.

    Raises:
        RefusedError: the frame has another number of planes, or their places run over each other.
    """
    if len(data) < _RLE_HEADER_BYTES:
        raise _damaged("cut off")
    count, *offsets = struct.unpack_from("<16I", data)
    starts = offsets[:planes]
    ends = [*starts[1:], len(data)]
    if count != planes or starts[0] < _RLE_HEADER_BYTES:
        raise _damaged(f"{planes} planes expected")
    if any(start >= end or end > len(data) for start, end in zip(starts, ends, strict=True)):
        raise _damaged("planes overlap")
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def _ends_with(data: bytes, marker: bytes) -> bool:
    tail = data[-(_MOST_PADDING + len(marker)) :].rstrip(b"\0")
    return tail.endswith(marker)


def _damaged(detail: str) -> RefusedError:
    return RefusedError(Reason.CODESTREAM_DAMAGED, detail)
