"""Targets: DICOM. Headers, images and their pixels, structured reports, presentation states, outlines.

Readers are called as the supervised child calls them, but without its net: there whatever a reader raises costs one
file, here everything but a refusal is a finding. Two kinds of exception have reasons of their own in the child and may
come out: too deep nesting (RecursionError) and too little memory (MemoryError).
"""

from collections.abc import Callable
from pathlib import PurePosixPath
from types import SimpleNamespace

import numpy as np
import pydicom
from fuzz.contract import Target, require
from fuzz.element_mutations import mutated_dicom
from fuzz.mutations import joined, mutated_bytes, parts_of
from fuzz.report_checks import check_refused, check_report

from etl.codestreams import check_jpeg, check_jpeg2000, rle_planes
from etl.containers import Member
from etl.ct_pixels import UNCOMPRESSED, to_hu
from etl.dicom_fields import looks_like_dicom, read_encoding, read_fields
from etl.dicom_images import PixelStorage
from etl.marks.model import Report
from etl.pacs_files import EncodedSlice, EncodeSlice, LookAtFile
from etl.quality import Flag, Quarantined, RefusedError
from lesionary.pixels import decode_slice

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.logger.disabled = True


class MemoryTree:
    """One file in memory, read as a source is."""

    def __init__(self, data: bytes, name: str = "file") -> None:
        self._data = data
        self.containers = [SimpleNamespace(location=SimpleNamespace(path=str(PurePosixPath("/source"))))]
        self.member = Member(0, name, len(data), 0)

    def read(self, container: int, name: str, most: int | None = None) -> bytes:
        return self._data

    def read_head(self, container: int, name: str, size: int) -> bytes:
        return self._data[:size]

    def read_range(self, container: int, name: str, start: int, size: int) -> bytes:
        return self._data[start : start + size]


def refused_or(read: Callable[[], object]) -> object | None:
    """What a reader says; None when it refuses, in our own words."""
    try:
        return read()
    except RefusedError as refusal:
        check_refused(Quarantined("file", "a file", refusal.reason, refusal.detail))
    except (RecursionError, MemoryError):
        pass
    return None


def look(data: bytes, name: str = "file") -> object | None:
    tree = MemoryTree(data, name)
    return refused_or(lambda: LookAtFile(tree)(tree.member))


def run_header(data: bytes) -> None:
    """The head of a file and its elements as raw values, whatever the bytes are."""
    looks_like_dicom(data)

    def read() -> None:
        encoding = read_encoding(data)
        fields, pixels = read_fields(encoding, None)
        require(pixels is None or 0 <= pixels.start <= len(encoding.body) + 12, "where pixels are")
        for tag in (0x00080016, 0x00080018, 0x00100020, 0x00280010, 0x00280030, 0x00280100, 0x52009229, 0x7FE00010):
            fields.has(tag), fields.text(tag), fields.uid(tag), fields.number(tag), fields.numbers(tag, 2)
            short = fields.short(tag)
            require(short is None or 0 <= short < 1 << 16, "a 16-bit number")
            for inner in fields.items(tag):
                inner.text(0x00080018)

    refused_or(read)


def run_image(data: bytes) -> None:
    """A file's CT images: their headers, then the pixels of the first ones."""
    found = look(data)
    if not isinstance(found, tuple):
        return
    encode = EncodeSlice(MemoryTree(data))
    for one in found[:3]:
        require(len(one.orientation) == 6 and all(abs(value) <= 1e5 for value in one.position_mm), "geometry")
        require(one.storage.rows <= 4096 and one.storage.columns <= 4096, "size")
        require(all(isinstance(flag, Flag) for flag in one.flags), "flags")
        if one.storage.syntax not in UNCOMPRESSED:
            # Decoders are C and may die: they are fuzzed in the child, by the target `supervised`.
            refused_or(lambda one=one: encode._stored(one))
            continue
        made = refused_or(lambda one=one: encode(one))
        if isinstance(made, EncodedSlice):
            hu = decode_slice(made.pixels)
            require(hu.shape == (one.storage.rows, one.storage.columns) and hu.dtype == np.int16, "pixels")


def run_marks(data: bytes) -> None:
    """A file of marks: reports, presentation states, structure sets, segmentations, key objects."""
    found = look(data)
    if isinstance(found, Report):
        check_report(found)


def run_codestream(data: bytes) -> None:
    """A codestream alone: our checks before the decoders, and the decoding that is our own."""
    head, stream = parts_of(data, 2)
    which, bits, sign = (head + b"\0\0\0")[:3]
    refused_or(lambda: check_jpeg(stream, lossless_ls=bool(sign & 2)))
    refused_or(lambda: check_jpeg2000(stream))
    refused_or(lambda: rle_planes(stream, 1 + (sign & 1)))
    allocated = 8 if bits & 16 else 16
    stored = min(bits & 15, allocated - 1) + 1
    storage = PixelStorage(
        _DECODED_HERE[which % len(_DECODED_HERE)],
        32,
        32,
        allocated,
        stored,
        stored - 1,
        bool(sign & 1),
        1.0,
        -1024.0,
        None,
    )
    decoded = refused_or(lambda: to_hu(stream, storage))
    if decoded is not None:
        require(decoded[0].shape == (32, 32) and decoded[0].dtype == np.int16, "pixels")


_DECODED_HERE = ("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")


def mutated_codestream(data, rng):
    head, stream = parts_of(data, 2)
    if rng.random() < 0.1:
        head = bytes(rng.randrange(256) for _ in range(3)).replace(b"\n", b"\t")
    return joined(head, mutated_bytes(stream, rng))


_LOOK = "etl.pacs_files.LookAtFile"


def _seeds(kind: str) -> Callable[[], list[bytes]]:
    """Written when they are asked for: what writes them takes seconds to import."""

    def write() -> list[bytes]:
        from fuzz import dicom_seeds

        return getattr(dicom_seeds, kind)()

    return write


TARGETS = (
    Target(
        "dicom_header", "etl.dicom_fields.{read_encoding, read_fields, Fields}", run_header, _seeds("header_seeds"),
        mutated_dicom, 4096,
    ),
    Target("dicom_image", f"{_LOOK}, EncodeSlice", run_image, _seeds("image_seeds"), mutated_dicom, 8192),
    Target(
        "codestream", "etl.codestreams, etl.ct_pixels.to_hu", run_codestream, _seeds("codestream_seeds"),
        mutated_codestream,
    ),
    Target(
        "report", f"{_LOOK}: etl.marks.reports.read_report", run_marks, _seeds("report_seeds"), mutated_dicom, 12_288
    ),
    Target("gsps", f"{_LOOK}: etl.marks.gsps.read_gsps", run_marks, _seeds("gsps_seeds"), mutated_dicom, 12_288),
    Target("outlines", f"{_LOOK}: etl.marks.outlines", run_marks, _seeds("outline_seeds"), mutated_dicom, 12_288),
)  # fmt: skip
