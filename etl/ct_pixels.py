"""A CT image's stored bytes to HU, for every transfer syntax that CT is kept in.

Runs in the supervised child (`etl/supervision.py`). Decoders are chosen by name, each the fastest that was measured
(docs/decisions/0008); GDCM, which aborts the process on damaged input, is not among them.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from etl.codestreams import Stated, check_jpeg, check_jpeg2000, rle_planes
from etl.dicom_fields import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE
from etl.dicom_images import PixelStorage
from etl.quality import Flag, Reason, RefusedError

UNCOMPRESSED = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED})
_RLE = "1.2.840.10008.1.2.5"

# Air: what a pixel outside the scan shows.
PADDING_HU = -1024
_LOWEST, _HIGHEST = np.iinfo(np.int16).min, np.iinfo(np.int16).max

Image = NDArray[np.integer[Any]]


def to_hu(data: bytes, storage: PixelStorage) -> tuple[NDArray[np.int16], frozenset[Flag]]:
    """One frame as (rows, columns) int16 HU, and what is odd about it.

    Args:
        data: the frame as stored: its bytes, or its codestream.
        storage: how it is stored.

    Raises:
        RefusedError: it does not decode to what the header states.
    """
    flags: set[Flag] = set()
    stored = _uncompressed(data, storage) if storage.syntax in UNCOMPRESSED else _decompressed(data, storage, flags)
    return _rescaled(stored, storage, flags), frozenset(flags)


def is_supported(syntax: str) -> bool:
    """Whether images in this transfer syntax can be read."""
    return syntax in UNCOMPRESSED or syntax in _DECODERS


def _uncompressed(data: bytes, storage: PixelStorage) -> Image:
    if len(data) < storage.frame_bytes:
        raise RefusedError(Reason.PIXELS_TRUNCATED, f"{len(data)} bytes for {storage.frame_bytes}")
    order = ">" if storage.syntax == EXPLICIT_BIG else "<"
    kind = np.dtype(f"{order}{'i' if storage.signed else 'u'}{storage.bits_allocated // 8}")
    stored = np.frombuffer(data, kind, storage.rows * storage.columns).reshape(storage.rows, storage.columns)
    return _used_bits(stored.astype(kind.newbyteorder("="), copy=False), storage)


def _used_bits(stored: Image, storage: PixelStorage) -> Image:
    """Only the bits that belong to the pixel: old scanners keep overlays in the others."""
    spare = storage.bits_allocated - storage.bits_stored
    if spare == 0:
        return stored
    shift = storage.bits_allocated - 1 - storage.high_bit
    if not 0 <= shift <= spare:
        raise RefusedError(Reason.PIXEL_FORMAT, "the bits used do not lie inside the pixel")
    # Up to the top, which drops what lies above, then down again, which repeats the sign.
    moved: Image = (stored << shift) >> spare
    return moved


def _decompressed(data: bytes, storage: PixelStorage, flags: set[Flag]) -> Image:
    decoder = _DECODERS.get(storage.syntax)
    if decoder is None:
        raise RefusedError(Reason.COMPRESSION_UNSUPPORTED, _published(storage.syntax))
    stored = decoder(data, storage)
    if stored.shape != (storage.rows, storage.columns) or stored.dtype.kind not in "iu":
        raise RefusedError(Reason.CODESTREAM_DAMAGED, "the decoded image is not what its header states")
    signs_stated = stored.dtype.kind == "i"
    if storage.signed and not signs_stated:
        if storage.syntax in _WITH_SIGNS:
            flags.add(Flag.SIGNS_CORRECTED)
        stored = _with_signs(stored, storage.bits_stored)
    elif signs_stated and not storage.signed:
        flags.add(Flag.SIGNS_CORRECTED)
        stored = stored.astype(np.int32) & ((1 << storage.bits_stored) - 1)
    _check_range(stored, storage)
    return stored


def _published(syntax: str) -> str:
    """A transfer syntax that may be named: any other could be an identifier that stands in the wrong place."""
    return syntax if UID(syntax).name != syntax else "of no published list"


def _with_signs(stored: Image, bits: int) -> Image:
    """Numbers read without a sign, as the signed numbers they are."""
    spare = 16 - bits
    wide = (stored.astype(np.uint16) << spare).view(np.int16)
    signed: Image = wide >> spare
    return signed


def _check_range(stored: Image, storage: PixelStorage) -> None:
    low, high = _possible_values(storage)
    if int(stored.min()) < low or int(stored.max()) > high:
        bits = storage.bits_stored
        raise RefusedError(Reason.CODESTREAM_DAMAGED, f"values leave the {bits} bits that the header grants them")


def _possible_values(storage: PixelStorage) -> tuple[int, int]:
    """The lowest and highest value that the header's bits can hold."""
    bits = storage.bits_stored
    return (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if storage.signed else (0, (1 << bits) - 1)


def _rescaled(stored: Image, storage: PixelStorage, flags: set[Flag]) -> NDArray[np.int16]:
    outside = None
    if storage.padding is not None:
        low, high = storage.padding
        outside = stored == low if low == high else (stored >= low) & (stored <= high)
    if _fits(_possible_values(storage), storage) or _fits((int(stored.min()), int(stored.max())), storage):
        # Every result is a whole number of 16 bits, so nothing wraps.
        hu = stored.astype(np.int16)
        if storage.intercept:
            hu += np.int16(storage.intercept)
    else:
        real = stored.astype(np.float64) * storage.slope + storage.intercept
        inside = real if outside is None else real[~outside]
        if inside.size and (inside.min() < _LOWEST or inside.max() > _HIGHEST):
            flags.add(Flag.PIXELS_CLIPPED)
        hu = np.rint(np.clip(real, _LOWEST, _HIGHEST)).astype(np.int16)
    if outside is not None:
        hu[outside] = PADDING_HU
    return np.ascontiguousarray(hu)


def _fits(ends: tuple[int, int], storage: PixelStorage) -> bool:
    """Whether stored values between two ends, the intercept and their sums are all whole numbers of 16 bits."""
    if storage.slope != 1.0 or storage.intercept != int(storage.intercept):
        return False
    low, high = ends
    numbers = (low, high, storage.intercept, low + storage.intercept, high + storage.intercept)
    return min(numbers) >= _LOWEST and max(numbers) <= _HIGHEST


def _agree(stated: Stated, storage: PixelStorage) -> None:
    if (stated.rows, stated.columns) != (storage.rows, storage.columns):
        raise RefusedError(
            Reason.CODESTREAM_DAMAGED, f"{stated.columns} × {stated.rows} px for {storage.columns} × {storage.rows}"
        )
    if not stated.bits <= storage.bits_allocated:
        raise RefusedError(Reason.CODESTREAM_DAMAGED, f"{stated.bits} bits for {storage.bits_allocated}")


def _decode(codec: Callable[[bytes], Image], data: bytes) -> Image:
    try:
        return codec(data)
    except (RuntimeError, ValueError, OverflowError) as error:
        raise RefusedError(Reason.CODESTREAM_DAMAGED, f"decoder says {type(error).__name__}") from None


def _decode_lossless_jpeg(data: bytes, storage: PixelStorage) -> Image:
    """Two independent decoders: both fill up what a damaged stream lacks, but not with the same."""
    _agree(check_jpeg(data, lossless_ls=False), storage)
    first = _decode(imagecodecs.ljpeg_decode, data)
    second = _decode(imagecodecs.jpegsof3_decode, data)
    if first.shape != second.shape or not np.array_equal(first, second):
        raise RefusedError(Reason.CODESTREAM_DAMAGED, "two decoders disagree")
    return first


def _decode_jpeg_ls(data: bytes, storage: PixelStorage) -> Image:
    _agree(check_jpeg(data, lossless_ls=True), storage)
    return _decode(imagecodecs.jpegls_decode, data)


def _decode_jpeg_2000(data: bytes, storage: PixelStorage) -> Image:
    _agree(check_jpeg2000(data), storage)
    return _decode(imagecodecs.jpeg2k_decode, data)


def _decode_htj2k(data: bytes, storage: PixelStorage) -> Image:
    _agree(check_jpeg2000(data), storage)
    with _heeded() as unheeded:
        decoded = _decode(imagecodecs.htj2k_decode, data)
    if unheeded:
        raise RefusedError(Reason.CODESTREAM_DAMAGED, f"decoder says {unheeded[0]}")
    return decoded


@contextmanager
def _heeded() -> Iterator[list[str]]:
    """Names of the errors that a binding could not raise: it drops them and returns what it has until then."""
    before, names = sys.unraisablehook, list[str]()
    sys.unraisablehook = lambda unraisable: names.append(unraisable.exc_type.__name__)
    try:
        yield names
    finally:
        sys.unraisablehook = before


def _decode_rle(data: bytes, storage: PixelStorage) -> Image:
    planes = storage.bits_allocated // 8
    count = storage.rows * storage.columns
    decoded = np.empty((count, planes), np.uint8)
    for number, packed in enumerate(rle_planes(data, planes)):
        unpacked = _decode(imagecodecs.packbits_decode, packed)
        # A plane may carry one byte of padding.
        if not count <= len(unpacked) <= count + 2:
            raise RefusedError(Reason.CODESTREAM_DAMAGED, f"{len(unpacked)} bytes for a plane of {count}")
        # The most significant byte comes first.
        decoded[:, planes - 1 - number] = np.frombuffer(unpacked, np.uint8, count)
    kind = f"<{'i' if storage.signed else 'u'}{planes}"
    return _used_bits(decoded.reshape(-1).view(kind).reshape(storage.rows, storage.columns), storage)


_Decoder = Callable[[bytes, PixelStorage], Image]
_DECODERS: Mapping[str, _Decoder] = MappingProxyType(
    {
        _RLE: _decode_rle,
        "1.2.840.10008.1.2.4.57": _decode_lossless_jpeg,
        "1.2.840.10008.1.2.4.70": _decode_lossless_jpeg,
        "1.2.840.10008.1.2.4.80": _decode_jpeg_ls,
        "1.2.840.10008.1.2.4.81": _decode_jpeg_ls,
        "1.2.840.10008.1.2.4.90": _decode_jpeg_2000,
        "1.2.840.10008.1.2.4.91": _decode_jpeg_2000,
        "1.2.840.10008.1.2.4.201": _decode_htj2k,
        "1.2.840.10008.1.2.4.202": _decode_htj2k,
        "1.2.840.10008.1.2.4.203": _decode_htj2k,
    }
)
# JPEG and JPEG-LS have no signs: there the header alone says.
_WITH_SIGNS = frozenset(
    syntax for syntax, decoder in _DECODERS.items() if decoder in {_decode_jpeg_2000, _decode_htj2k}
)
