"""Slice files: 16-bit PNG of HU + 32768, as the release has them, and the ways a file can be wrong.

Encoding is deterministic: the same picture at the same level gives the same bytes.
"""

import struct
from collections.abc import Callable, Mapping

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from etl.phantom.reading import TURNS
from etl.release_format import HU_OFFSET, png_of_slice

# A download that broke off after three fifths.
_TRUNCATED_PART = 0.6

_SIGNATURE_BYTES = 8


def edited_file(hu: NDArray[np.int16], level: int, actions: tuple[str, ...]) -> bytes | None:
    """A slice file after its edits; None when it goes missing."""
    data: bytes | None = png_of_slice(hu, level)
    for action in actions:
        if action not in TURNS:  # turned before it was drawn to a file, see reading.py
            data = _FILE_EDITS[action](hu, level)
    return data


def _missing(hu: NDArray[np.int16], level: int) -> bytes | None:  # noqa: ARG001
    return None


def _truncated(hu: NDArray[np.int16], level: int) -> bytes | None:
    data = png_of_slice(hu, level)
    return data[: int(len(data) * _TRUNCATED_PART)]


def _bad_checksum(hu: NDArray[np.int16], level: int) -> bytes | None:
    """One bit of the image data's checksum is wrong: strict decoders refuse the file."""
    data = bytearray(png_of_slice(hu, level))
    position = _SIGNATURE_BYTES
    while data[position + 4 : position + 8] != b"IDAT":
        position += 12 + struct.unpack(">I", data[position : position + 4])[0]
    checksum_at = position + 8 + struct.unpack(">I", data[position : position + 4])[0]
    data[checksum_at] ^= 1
    return bytes(data)


def _eight_bit(hu: NDArray[np.int16], level: int) -> bytes | None:
    """Saved again by a program that keeps the upper byte of each pixel."""
    stored = ((hu.astype(np.int32) + HU_OFFSET) >> 8).astype(np.uint8)
    return bytes(imagecodecs.png_encode(stored, level=level))


_FILE_EDITS: Mapping[str, Callable[[NDArray[np.int16], int], bytes | None]] = {
    "missing": _missing,
    "truncated": _truncated,
    "bad_checksum": _bad_checksum,
    "eight_bit": _eight_bit,
}
