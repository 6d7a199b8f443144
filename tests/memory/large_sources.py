"""Sources of any size that are quick to make: a few dozen images, written again and again under other names.

Every slice of a source is read, checked, decoded and encoded as if it were another; to ingest, they are.
"""

import io
import itertools
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from conftest import annotation_csv, annotation_row, png_bytes
from pacs_files import ct, picture

SIDE_PX, SLICES_PER_SERIES = 512, 50
_IMAGES = 48
_NAMED_AT = (2017, 3, 1, 12, 0, 0)


def write_zip(path: Path, size: int, side: int = SIDE_PX) -> int:
    """A release in one zip of at least `size` bytes; how many slices it has."""
    images = [png_bytes(picture(seed, side)) for seed in range(_IMAGES)]
    keys: dict[str, int] = {}
    slices = 0
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for slices, (series, index) in enumerate(_names(), 1):
            archive.writestr(
                zipfile.ZipInfo(f"Images_png/{series}/{index:03d}.png", _NAMED_AT), images[slices % _IMAGES]
            )
            keys[series] = index
            if archive.fp.tell() >= size:
                break
        archive.writestr(zipfile.ZipInfo("DL_info.csv", _NAMED_AT), _table(keys, side))
    return slices


def write_folder(folder: Path, size: int, side: int = SIDE_PX) -> int:
    """A release in folders whose files together have at least `size` bytes; hard links, so that the disk holds few."""
    sources = []
    folder.mkdir(parents=True)
    for seed in range(_IMAGES):
        source = folder.parent / f"{folder.name}.images" / f"{seed}.png"
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(png_bytes(picture(seed, side)))
        sources.append((source, source.stat().st_size))
    keys: dict[str, int] = {}
    slices = written = 0
    for slices, (series, index) in enumerate(_names(), 1):
        source, bytes_of = sources[slices % _IMAGES]
        target = folder / "Images_png" / series / f"{index:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)
        keys[series] = index
        written += bytes_of
        if written >= size:
            break
    (folder / "DL_info.csv").write_bytes(_table(keys, side))
    return slices


def write_tar(path: Path, size: int, side: int = SIDE_PX) -> int:
    """A PACS export in one tar of at least `size` bytes, a patient each series; how many slices it has."""
    images = [picture(seed, side) for seed in range(_IMAGES)]
    slices = written = 0
    with tarfile.open(path, "w") as archive:
        for slices, (series, index) in enumerate(_names(), 1):
            patient = int(series.split("_")[0])
            data = ct(index, hu=images[slices % _IMAGES], patient=f"P{patient}", study=patient, series=patient)
            info = tarfile.TarInfo(f"{series}/{index}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            written += len(data)
            if written >= size:
                break
    return slices


def _names() -> Iterator[tuple[str, int]]:
    for patient in itertools.count(1):
        for index in range(1, SLICES_PER_SERIES + 1):
            yield f"{patient:06d}_01_01", index


def _table(last_slices: dict[str, int], side: int) -> bytes:
    """One mark a series."""
    rows = []
    for series, last in last_slices.items():
        key = max(1, last // 2)
        rows.append(
            annotation_row(
                File_name=f"{series}_{key:03d}.png",
                Slice_range=f"{max(1, key - 3)}, {key + 3}",
                Image_size=f"{side}, {side}",
            )
        )
    return annotation_csv(*rows)
