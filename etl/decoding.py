"""Bytes of a foreign image to HU, or a reason why not. Nothing is decoded before its header has been believed.

The release stores HU + 32768 as 16-bit grey PNG. The sum is taken apart in 32 bits: done in 16, it wraps.
"""

import struct
import zlib

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from etl.quality import Reason, RefusedError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">I4sIIBBBBB")
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4
_CHECKED_BY_THE_DECODER = frozenset({b"IHDR", b"IDAT"})
_RELEASE_OFFSET = 32_768
_GREY = 0

# Nothing that calls itself an axial CT image is smaller or larger.
MIN_SIDE_PX, MAX_SIDE_PX = 16, 4096


def decode_png16(data: bytes) -> NDArray[np.int16]:
    """A release slice as (rows, columns) int16 HU.

    Raises:
        RefusedError: it is not a 16-bit grey PNG of a plausible size, or does not decode.
    """
    _check_header(data)
    _check_chunks(data)
    try:
        stored = imagecodecs.png_decode(data)
    except (imagecodecs.PngError, ValueError, MemoryError, OverflowError) as error:
        raise RefusedError(Reason.PNG_DAMAGED, f"decoder says {type(error).__name__}") from None
    if stored.dtype != np.uint16 or stored.ndim != 2:
        raise RefusedError(Reason.PNG_DAMAGED, "the decoded image is not what its header states")
    # Subtracting in int32 and narrowing again equals flipping the top bit, which needs no second image.
    stored ^= np.uint16(_RELEASE_OFFSET)
    hu: NDArray[np.int16] = stored.view(np.int16)
    return hu


def _check_header(data: bytes) -> None:
    if not data:
        raise RefusedError(Reason.FILE_EMPTY, "0 bytes")
    if not data.startswith(_SIGNATURE) or len(data) < len(_SIGNATURE) + _HEADER.size:
        raise RefusedError(Reason.NOT_A_PNG, f"{len(data)} bytes")
    length, kind, width, height, bits, colour, *_ = _HEADER.unpack_from(data, len(_SIGNATURE))
    if kind != b"IHDR" or length != 13:
        raise RefusedError(Reason.PNG_DAMAGED, "the first chunk is not a header")
    if not (MIN_SIDE_PX <= width <= MAX_SIDE_PX and MIN_SIDE_PX <= height <= MAX_SIDE_PX):
        raise RefusedError(Reason.PNG_SIZE, f"{width} × {height} px")
    if colour != _GREY:
        raise RefusedError(Reason.PNG_NOT_GREY, f"colour type {colour}")
    if bits != 16:
        raise RefusedError(Reason.PNG_NOT_16_BIT, f"{bits} bits")


def _check_chunks(data: bytes) -> None:
    """Walk all chunks and compare the checksums of those that the decoder may skip.

    It verifies the critical ones itself, but a damaged chunk *name* can turn the pixels into something it may skip, and
    it then returns an image of nothing.
    """
    view = memoryview(data)
    place = len(_SIGNATURE)
    while place + _CHUNK.size + _CHECKSUM_BYTES <= len(view):
        length, kind = _CHUNK.unpack_from(view, place)
        body_end = place + _CHUNK.size + length
        if body_end + _CHECKSUM_BYTES > len(view):
            break
        if kind not in _CHECKED_BY_THE_DECODER:
            stated = int.from_bytes(view[body_end : body_end + _CHECKSUM_BYTES], "big")
            if zlib.crc32(view[place + 4 : body_end]) != stated:
                raise RefusedError(Reason.PNG_DAMAGED, "a checksum differs")
        if kind == b"IEND":
            return
        place = body_end + _CHECKSUM_BYTES
    raise RefusedError(Reason.PNG_DAMAGED, "the file is cut off")
