"""Slice files: what they hold, and how each kind of damage shows."""

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from etl.phantom.slice_files import edited_file
from etl.release_format import png_of_slice


@pytest.fixture
def picture() -> NDArray[np.int16]:
    return np.random.default_rng(0).integers(-1024, 3071, size=(40, 40)).astype(np.int16)


def chunks(data: bytes) -> list[tuple[bytes, bytes, int]]:
    """A PNG's chunks: kind, content, checksum as written."""
    found, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        found.append(
            (
                data[at + 4 : at + 8],
                data[at + 8 : at + 8 + length],
                struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0],
            )
        )
        at += 12 + length
    return found


def test_a_slice_file_gives_back_every_hu(picture: NDArray[np.int16]) -> None:
    stored = imagecodecs.png_decode(png_of_slice(picture))

    assert stored.dtype == np.uint16
    assert np.array_equal(stored.astype(np.int32) - 32768, picture)


def test_the_level_changes_the_size_and_never_the_picture(picture: NDArray[np.int16]) -> None:
    smooth = np.sort(picture, axis=1)
    files = [png_of_slice(smooth, level) for level in (0, 1, 6)]

    assert len(files[2]) < len(files[0])
    assert all(np.array_equal(imagecodecs.png_decode(file), smooth.astype(np.int32) + 32768) for file in files)


def test_a_file_without_edits_or_only_turned_is_the_slice_file(picture: NDArray[np.int16]) -> None:
    assert edited_file(picture, 6, ()) == png_of_slice(picture, 6)
    assert edited_file(picture, 6, ("flip_left_right",)) == png_of_slice(picture, 6)


def test_a_missing_file_is_not_written(picture: NDArray[np.int16]) -> None:
    assert edited_file(picture, 6, ("missing",)) is None


def test_a_truncated_file_is_the_beginning_of_the_whole_one(picture: NDArray[np.int16]) -> None:
    data = edited_file(picture, 6, ("truncated",))

    assert data is not None
    assert len(data) < len(png_of_slice(picture, 6))
    assert png_of_slice(picture, 6).startswith(data)


def test_a_bad_checksum_is_wrong_in_the_image_data_alone(picture: NDArray[np.int16]) -> None:
    data = edited_file(picture, 6, ("bad_checksum",))

    assert data is not None
    wrong = [kind for kind, content, checksum in chunks(data) if zlib.crc32(kind + content) != checksum]
    assert wrong == [b"IDAT"]


def test_an_8_bit_file_keeps_the_upper_byte(picture: NDArray[np.int16]) -> None:
    data = edited_file(picture, 6, ("eight_bit",))

    assert data is not None
    assert np.array_equal(imagecodecs.png_decode(data), (picture.astype(np.int32) + 32768) // 256)
