"""PNG to HU: exact where the file is whole, a reason where it is not."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from conftest import png_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from etl.decoding import decode_png16
from etl.quality import Reason, RefusedError

HU = np.random.default_rng(3).integers(-32768, 32768, (40, 32)).astype(np.int16)
PNG = png_bytes(HU)


def reason_for(data):
    with pytest.raises(RefusedError) as caught:
        decode_png16(data)
    return caught.value.reason


def with_header(width=None, height=None, bits=None, colour=None):
    data = bytearray(PNG)
    if width is not None:
        data[16:20] = width.to_bytes(4, "big")
    if height is not None:
        data[20:24] = height.to_bytes(4, "big")
    if bits is not None:
        data[24] = bits
    if colour is not None:
        data[25] = colour
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


def test_every_16_bit_value_survives():
    every = np.arange(65_536, dtype=np.int32).reshape(256, 256)
    encoded = imagecodecs.png_encode(every.astype(np.uint16))

    np.testing.assert_array_equal(decode_png16(encoded), every - 32_768)


def test_rows_stay_rows():
    assert decode_png16(PNG).shape == (40, 32)
    np.testing.assert_array_equal(decode_png16(PNG), HU)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.FILE_EMPTY),
        (b"GIF89a" + bytes(100), Reason.NOT_A_PNG),
        (PNG[:20], Reason.NOT_A_PNG),
        (PNG[: len(PNG) // 2], Reason.PNG_DAMAGED),
        (PNG[:40] + b"\x00" + PNG[41:], Reason.PNG_DAMAGED),
        (imagecodecs.png_encode(np.zeros((40, 32), np.uint8)), Reason.PNG_NOT_16_BIT),
        (imagecodecs.png_encode(np.zeros((40, 32, 3), np.uint16)), Reason.PNG_NOT_GREY),
        (imagecodecs.png_encode(np.zeros((40, 32, 4), np.uint8)), Reason.PNG_NOT_GREY),
        (imagecodecs.png_encode(np.zeros((8, 8), np.uint16)), Reason.PNG_SIZE),
        (with_header(width=60_000), Reason.PNG_SIZE),
        (with_header(height=2**31 - 1), Reason.PNG_SIZE),
        (with_header(width=4096, height=4096), Reason.PNG_DAMAGED),
        (with_header(colour=3), Reason.PNG_NOT_GREY),
    ],
)
def test_damage_is_named(data, reason):
    assert reason_for(data) is reason


@pytest.mark.parametrize("chunk", [b"IHDR", b"IDAT"])
def test_wrong_checksums_are_refused(chunk):
    data = bytearray(PNG)
    start = data.index(chunk)
    length = int.from_bytes(data[start - 4 : start], "big")
    data[start + 4 + length] ^= 1

    assert reason_for(bytes(data)) is Reason.PNG_DAMAGED


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, len(PNG) - 1), st.integers(1, 255)), min_size=1, max_size=4))
def test_mutated_files_never_crash_and_never_pass(changes):
    data = bytearray(PNG)
    for position, change in dict(changes).items():
        data[position] ^= change

    assert reason_for(bytes(data)) in Reason


def test_damaged_chunk_name_is_not_an_image_of_nothing():
    at = PNG.index(b"IDAT")

    assert reason_for(PNG[:at] + b"lDAT" + PNG[at + 4 :]) is Reason.PNG_DAMAGED


def test_bytes_after_the_end_are_ignored():
    np.testing.assert_array_equal(decode_png16(PNG + b"trailing"), HU)


def interlaced(stored):
    """A 16-bit grey PNG in seven passes, which few programs write and every reader must read."""
    raw = b""
    for x, y, dx, dy in (
        (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
    ):  # fmt: skip
        raw += b"".join(b"\0" + row.astype(">u2").tobytes() for row in stored[y::dy, x::dx])
    rows, columns = stored.shape
    header = struct.pack(">IIBBBBB", columns, rows, 16, 0, 0, 0, 1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def test_interlaced_slice_reads_the_same():
    stored = (HU.astype(np.int32) + 32768).astype(np.uint16)

    assert np.array_equal(decode_png16(interlaced(stored)), HU)
