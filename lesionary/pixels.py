"""The slice codec: one int16 HU image to bytes and back, losslessly, each slice on its own.

blosc2 with byte shuffle and zstd level 1 was measured best (docs/decisions/0003): about the size of the PNG it
came from at eight times its decoding speed. imagecodecs brings the codec together with the PNG and DICOM decoders
the ETL needs anyway.

Layout: a 16-byte header (magic, rows, columns and a CRC-32 of all that follows it and precedes it, as little-endian
uint32), then for magic "LSN2" one blosc2 frame of the little-endian int16 pixels, row after row; for "LSC2" the one
int16 value that all pixels share, because blosc2's own form for such images does not decode again at every size. Other
tools need nothing but blosc2 to read it. "LSN1" and "LSC1" are the same without the CRC, as older releases wrote them.

The CRC is there because blosc2 has none: of single flipped bits, nineteen of twenty decoded to another image without a
word. It costs a fifth of the decoding.
"""

import hashlib
import struct
import zlib

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from lesionary.errors import ArtifactError

_HEADER = struct.Struct("<4sII")
_CHECK = struct.Struct("<I")
_BLOSC2_MAGIC, _CONSTANT_MAGIC = b"LSN2", b"LSC2"
# Of releases before there was a check, by what they are called now.
_UNCHECKED = {b"LSN1": _BLOSC2_MAGIC, b"LSC1": _CONSTANT_MAGIC}
_BYTES_PER_PIXEL = 2

# zstd's level: 2 and 3 take 1.3 and 3 times as long to encode and save under 1 %.
_LEVEL = 1

# A header that claims more is damage, not an image: CT matrices end at 4096.
MAX_SIDE_PX = 16_384


def encode_slice(hu: NDArray[np.int16]) -> bytes:
    """Encode one image.

    Args:
        hu: (rows, columns) int16 Hounsfield units.

    Raises:
        ValueError: not a two-dimensional int16 array with at least one pixel.
    """
    if hu.dtype != np.int16 or hu.ndim != 2 or hu.size == 0 or max(hu.shape) > MAX_SIDE_PX:
        raise ValueError(f"a slice is a 2-D int16 array, found {hu.dtype} of shape {hu.shape}")
    little_endian = np.ascontiguousarray(hu, dtype="<i2")
    first = little_endian[0, 0]
    # Looking at the last pixel first spares nearly every image the whole comparison.
    if little_endian[-1, -1] == first and (little_endian == first).all():
        return _checked(_HEADER.pack(_CONSTANT_MAGIC, *hu.shape), bytes(first.tobytes()))
    body = imagecodecs.blosc2_encode(
        little_endian.reshape(-1).view(np.uint8),
        level=_LEVEL,
        compressor="zstd",
        shuffle=1,
        typesize=_BYTES_PER_PIXEL,
        # One block for the whole image: the default splits it and decodes a third slower, at the same size.
        blocksize=little_endian.nbytes,
        numthreads=1,
    )
    return _checked(_HEADER.pack(_BLOSC2_MAGIC, *hu.shape), bytes(body))


def _checked(header: bytes, body: bytes) -> bytes:
    return b"".join((header, _CHECK.pack(zlib.crc32(body, zlib.crc32(header))), body))


def decode_slice(data: bytes | memoryview) -> NDArray[np.int16]:
    """Decode one image encoded by `encode_slice`, as (rows, columns) int16.

    Raises:
        ArtifactError: the bytes are not one whole encoded slice.
    """
    view = memoryview(data)
    if len(view) < _HEADER.size:
        raise _damaged(f"{len(view)} bytes are too few for a header")
    magic, rows, columns = _HEADER.unpack_from(view)
    if not (0 < rows <= MAX_SIDE_PX and 0 < columns <= MAX_SIDE_PX):
        raise _damaged("the header is not a slice's")
    body = view[_HEADER.size :]
    if magic in _UNCHECKED:
        magic = _UNCHECKED[magic]
    elif magic in _UNCHECKED.values():
        body = _proved(view)
    if magic == _CONSTANT_MAGIC and len(body) == _BYTES_PER_PIXEL:
        return np.full((rows, columns), int.from_bytes(body, "little", signed=True), np.int16)
    if magic != _BLOSC2_MAGIC:
        raise _damaged("the header is not a slice's")
    return _decode_frame(body, rows, columns)


def _proved(view: memoryview) -> memoryview:
    """What follows the check, once it agrees."""
    start = _HEADER.size + _CHECK.size
    if len(view) < start:
        raise _damaged(f"{len(view)} bytes are too few for a header")
    (stated,) = _CHECK.unpack_from(view, _HEADER.size)
    if zlib.crc32(view[start:], zlib.crc32(view[: _HEADER.size])) != stated:
        raise _damaged("its check does not agree")
    return view[start:]


def _decode_frame(frame: memoryview, rows: int, columns: int) -> NDArray[np.int16]:
    if _stated_size(frame) != rows * columns * _BYTES_PER_PIXEL:
        raise _damaged("the pixel stream and the header state different sizes")
    pixels = np.empty(rows * columns, dtype="<i2")
    try:
        imagecodecs.blosc2_decode(frame, numthreads=1, out=pixels.view(np.uint8))
    except (imagecodecs.Blosc2Error, ValueError) as cause:
        raise _damaged("the pixel stream does not decode") from cause
    return pixels.astype(np.int16, copy=False).reshape(rows, columns)


def pixel_digest(hu: NDArray[np.int16]) -> str:
    """Digest of an image's shape and values, the same whatever codec stores it; 32 hexadecimal digits."""
    digest = hashlib.sha256(struct.pack("<II", *hu.shape))
    digest.update(np.ascontiguousarray(hu, dtype="<i2").data)
    return digest.hexdigest()[:32]


def _stated_size(frame: memoryview) -> int:
    """Decoded size as the blosc2 frame's own header states it: a little-endian int32 at its fifth byte.

    Checked because the decoder fills only what the frame holds and leaves the rest of the image undefined.
    """
    return int.from_bytes(frame[4:8], "little", signed=True) if len(frame) >= 8 else -1


def _damaged(what: str) -> ArtifactError:
    return ArtifactError(f"an encoded slice is damaged: {what}", next_step="run `lesionary lake verify`")
