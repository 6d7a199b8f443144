"""Targets: archives listed and read as a source, and the files of a release and of the lake that hold pixels."""

import io
import struct
import tarfile
import zipfile

import imagecodecs
import numpy as np
from fuzz.archive_mutations import mutated_packed_tar, mutated_png, mutated_tar, mutated_zip
from fuzz.contract import Target, require, scratch_file
from fuzz.mutations import mutated_bytes
from fuzz.report_checks import check_refused

from etl.archive import SourceTree
from etl.containers import ArchiveLimits, Member
from etl.decoding import decode_png16
from etl.quality import Quarantined, Reason, RefusedError
from lesionary.errors import ArtifactError
from lesionary.pixels import decode_slice, encode_slice
from lesionary.run_lengths import MaskRuns, decode_mask, decode_runs, encode_mask, overlap_px

LIMITS = ArchiveLimits(member_bytes=1 << 16, ratio=100.0, members=2_000, archive_bytes=1 << 20)
_MOST_PIXELS = 1 << 20


def run_archive(data: bytes, suffix: str) -> None:
    """Every entry is a file that can be read, or refused; what is read is no longer than the limits allow."""
    path = scratch_file(f"archive{suffix}", data)
    with SourceTree.open([str(path)], LIMITS) as tree:
        entries = list(tree.entries())
        crowded = any(getattr(entry, "reason", None) is Reason.TOO_MANY_MEMBERS for entry in entries)
        require(suffix != ".tar" or not crowded or len(data) > 512 * LIMITS.members, "more entries than headers")
        for entry in entries[:50]:
            if isinstance(entry, Quarantined):
                check_refused(entry)
                continue
            require(isinstance(entry, Member) and 0 <= entry.size <= LIMITS.archive_bytes, "a member")
            require(-(1 << 63) <= entry.stamp < 1 << 63, "a stamp")
            name = entry.name
            require(".." not in name.split("/") and not name.startswith(("/", "\\")) and "\0" not in name, "a path")
            try:
                require(len(tree.read(entry.container, entry.name)) <= LIMITS.member_bytes, "longer than allowed")
            except RefusedError as refusal:
                check_refused(Quarantined("file", "a file", refusal.reason, refusal.detail))


def run_zip(data: bytes) -> None:
    run_archive(data, ".zip")


def run_tar(data: bytes) -> None:
    run_archive(data, ".tar")


def run_packed_tar(data: bytes) -> None:
    suffix = {b"BZ": ".tar.bz2", b"\xfd7": ".tar.xz"}.get(data[:2], ".tar.gz")
    run_archive(data, suffix)


_FILES = {"Images_png/000001_01_01/001.png": b"x" * 40, "b/é.dcm": b"y" * 700, "PLANTEDQZ.csv": b"", "inner.zip": None}


def _zip(kind: int, files: dict[str, bytes]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", kind) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return sink.getvalue()


def _files() -> dict[str, bytes]:
    inner = _zip(zipfile.ZIP_STORED, {"deep.tar.gz": packed_tar_seeds_of(_FILES | {"inner.zip": b""})[0]})
    return {name: inner if content is None else content for name, content in _FILES.items()}


def zip_seeds() -> list[bytes]:
    return [_zip(kind, _files()) for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)] + [_zip(0, {"a": b"1"})]


def _tar(files: dict[str, bytes], form: int, mode: str = "w") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode=mode, format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return sink.getvalue()


def tar_seeds() -> list[bytes]:
    files = {"a/001.dcm": b"x" * 600, "é" * 60 + "/x": b"y", "b" * 120: b"", "inner.zip": _zip(0, {"z": b"1"})}
    seeds = [_tar(files, form)[:-8192] + bytes(1024) for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)]
    return [*seeds, _tar({"a": b"1"}, tarfile.USTAR_FORMAT)[:2048]]


def packed_tar_seeds_of(files: dict[str, bytes | None]) -> list[bytes]:
    held = {name: content or b"" for name, content in files.items()}
    return [_tar(held, tarfile.PAX_FORMAT, mode) for mode in ("w:gz", "w:bz2", "w:xz")]


def packed_tar_seeds() -> list[bytes]:
    return packed_tar_seeds_of(_FILES)


def run_png(data: bytes) -> None:
    """A slice of the release."""
    try:
        hu = decode_png16(data)
    except RefusedError as refusal:
        check_refused(Quarantined("file", "a file", refusal.reason, refusal.detail))
        return
    require(hu.dtype == np.int16 and hu.ndim == 2 and all(16 <= side <= 4096 for side in hu.shape), "pixels")


def png_seeds() -> list[bytes]:
    picture = (np.arange(24 * 20, dtype=np.uint16) * 97).reshape(24, 20)
    return [imagecodecs.png_encode(picture, level=1), imagecodecs.png_encode(picture.astype(np.uint8), level=1)]


def run_slice(data: bytes) -> None:
    """An encoded slice of the lake; sizes are cut down first, since a small one may rightly stand for much."""
    if len(data) >= 12:
        _, rows, columns = struct.unpack_from("<4sII", data)
        if max(rows, columns) <= 16_384 and rows * columns > _MOST_PIXELS:
            data = data[:4] + struct.pack("<II", rows % 1024, columns % 1024) + data[12:]
    try:
        hu = decode_slice(data)
    except ArtifactError:
        return
    require(hu.dtype == np.int16 and hu.ndim == 2 and hu.size > 0, "pixels")


def slice_seeds() -> list[bytes]:
    ramp = (np.arange(16 * 24, dtype=np.int16) * 37).reshape(16, 24)
    return [encode_slice(ramp), encode_slice(np.full((3, 5), -1000, np.int16)), encode_slice(ramp % 7)]


def run_runs(data: bytes) -> None:
    """A mask's runs: a mask that fills its box, and comes back from its own runs, or ValueError."""
    numbers = struct.unpack_from(f"<{len(data) // 2}h", data)
    left, top, rows, columns, *runs = [*numbers[:4], 0, 0, 0, 0][:4] + list(numbers[4:])
    try:
        inside = decode_runs(runs, rows, columns)
        require(inside.shape == (rows, columns) and inside.dtype == bool, "a mask")
        mask = MaskRuns(left, top, columns, rows, tuple(runs))
        on_slice = decode_mask(mask, (64, 64))
        require(on_slice.shape == (64, 64) and on_slice.sum() <= inside.sum(), "a mask on its slice")
        require(overlap_px(mask, mask) == inside.sum(), "what a mask shares with itself")
    except ValueError:
        return
    again = encode_mask(inside, left, top)
    require((again is None) == (not inside.any()), "nothing inside has no runs")
    if again is not None:
        require(again.area_px == inside.sum() and sum(again.runs) == again.rows * again.columns, "its own runs")


def runs_seeds() -> list[bytes]:
    return [
        struct.pack(f"<{len(one)}h", *one) for one in ((1, 2, 2, 3, 1, 2, 3), (0, 0, 1, 1, 0, 1), (60, 60, 9, 9, 0, 81))
    ]


def mutated_runs(data, rng):
    """Mostly numbers that still fill the box: the last run takes what is left."""
    if rng.random() < 0.3:
        return mutated_bytes(data, rng)
    numbers = list(struct.unpack_from(f"<{len(data) // 2}h", data)) or [0]
    at = rng.randrange(len(numbers))
    numbers[at] = rng.choice((numbers[at] + 1, numbers[at] - 1, 0, -1, 63, 64, 181, rng.randrange(200)))
    if rng.random() < 0.3:
        numbers.insert(rng.randrange(4, len(numbers) + 1) if len(numbers) > 3 else 0, rng.randrange(40))
    if len(numbers) > 4:
        left = numbers[2] * numbers[3] - sum(numbers[4:-1])
        numbers[-1] = max(-(1 << 15), min(left, (1 << 15) - 1))
    return struct.pack(f"<{len(numbers)}h", *(max(-(1 << 15), min(one, (1 << 15) - 1)) for one in numbers))


_TREE = "etl.archive.SourceTree.{entries, read}"
TARGETS = (
    Target("zip", f"{_TREE}, etl.containers (zip)", run_zip, zip_seeds, mutated_zip, 8192),
    Target("tar", f"{_TREE}, etl.containers (tar)", run_tar, tar_seeds, mutated_tar, 16_384),
    Target("packed_tar", f"{_TREE}, etl.containers (tar.gz, .bz2, .xz)", run_packed_tar, packed_tar_seeds,
           mutated_packed_tar, 8192),
    Target("png", "etl.decoding.decode_png16", run_png, png_seeds, mutated_png, 4096),
    Target("slice", "lesionary.pixels.decode_slice", run_slice, slice_seeds, mutated_bytes, 2048),
    Target(
        "runs", "lesionary.run_lengths.{decode_runs, decode_mask, overlap_px}", run_runs, runs_seeds, mutated_runs, 256
    ),
)  # fmt: skip
