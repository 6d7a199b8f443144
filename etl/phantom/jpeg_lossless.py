"""Lossless JPEG as the syntax 1.2.840.10008.1.2.4.70 wants it: one predictor, the pixel to the left ("SV1").

imagecodecs' encoder uses another predictor, so its streams would belong to .57. Signed pixels go in as their bit
patterns; the format knows no signs.
"""

import struct

import numpy as np
from numpy.typing import NDArray

Stored = NDArray[np.int16] | NDArray[np.uint16]

# Length in bits of the Huffman code of each difference category 0…16; short where CT noise lies.
_CODE_LENGTHS = (2, 4, 4, 3, 3, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
_LONGEST_CODE = 16


def jpeg_lossless(stored: Stored, bits: int) -> bytes:
    """Lossless JPEG, process 14, selection value 1."""
    differences = _differences(stored.view(np.uint16).astype(np.int64), bits)
    codes, lengths = _huffman_codes()
    categories = _categories(differences)
    # Category 16 stands for one difference alone and carries no further bits.
    extra_bits = np.where(categories == 16, 0, categories)
    extra = np.where(differences < 0, differences - 1, differences) & ((1 << extra_bits) - 1)
    words = (codes[categories] << extra_bits) | extra
    packed = _packed_bits(words, lengths[categories] + extra_bits)
    return _jpeg_headers(stored.shape, bits) + packed.replace(b"\xff", b"\xff\x00") + b"\xff\xd9"


def _differences(pixels: NDArray[np.int64], bits: int) -> NDArray[np.int64]:
    """Each pixel less its left neighbour, the first of a row less the one above, modulo 2 to the 16th."""
    predicted = np.empty_like(pixels)
    predicted[:, 1:] = pixels[:, :-1]
    predicted[1:, 0] = pixels[:-1, 0]
    predicted[0, 0] = 1 << (bits - 1)
    wrapped = (pixels - predicted).ravel() & 0xFFFF
    return np.where(wrapped > 1 << 15, wrapped - (1 << 16), wrapped)


def _categories(differences: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many bits each difference needs."""
    return np.frexp(np.abs(differences).astype(np.float64))[1].astype(np.int64)


def _huffman_codes() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Code and length of every category; codes grow with their length, as JPEG orders them."""
    codes = np.zeros(len(_CODE_LENGTHS), np.int64)
    code = previous = 0
    for category in _by_code_length():
        code <<= _CODE_LENGTHS[category] - previous
        previous = _CODE_LENGTHS[category]
        codes[category] = code
        code += 1
    return codes, np.array(_CODE_LENGTHS, np.int64)


def _by_code_length() -> list[int]:
    return sorted(range(len(_CODE_LENGTHS)), key=lambda category: (_CODE_LENGTHS[category], category))


def _packed_bits(words: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    """The words' bits one after another, filled up with ones."""
    ends = np.cumsum(lengths)
    total = int(ends[-1])
    below = np.repeat(ends, lengths) - np.arange(total) - 1
    bits = ((np.repeat(words, lengths) >> below) & 1).astype(np.uint8)
    return np.packbits(np.concatenate([bits, np.ones(-total % 8, np.uint8)])).tobytes()


def _jpeg_headers(shape: tuple[int, ...], bits: int) -> bytes:
    rows, columns = shape
    frame = struct.pack(">BHHB3B", bits, rows, columns, 1, 1, 0x11, 0)
    counts = bytes(_CODE_LENGTHS.count(length) for length in range(1, _LONGEST_CODE + 1))
    table = b"\x00" + counts + bytes(_by_code_length())
    # One component with table 0, selection value 1, no point transform.
    scan = bytes((1, 1, 0x00, 1, 0, 0))
    return b"\xff\xd8" + b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body
        for marker, body in ((0xC3, frame), (0xC4, table), (0xDA, scan))
    )
