"""Series as NIfTI volumes, for tools that read nothing else, with the lesions in voxel coordinates beside them.

A volume has one interval: series with gaps are cut into stretches that have one; series with several slices at one
place are left out with the reason. A tilted gantry shears the volume's affine. Nothing is resampled.
"""

import gzip
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray

from etl.export.selection import Choice, Progress, Series, chosen_series, prepare_folder, seal_folder, with_progress
from etl.release_format import csv_text
from lesionary.artifacts import atomic_write_bytes
from lesionary.lake import Lake
from lesionary.slices import SliceReader

KIND = "nifti"
# NIfTI's axes point to the right, front and head, DICOM's to the left, back and head.
_TO_NIFTI = np.diag([-1.0, -1.0, 1.0, 1.0])
_SAME_STEP_MM = 0.02
_SCANNER, _UNKNOWN = 1, 0
_GZIP_LEVEL = 1
_LESION_COLUMNS = (
    "file", "lesion_id", "k", *(f"{axis}{end}" for end in (1, 2, 3, 4) for axis in "ij"), "long_mm", "short_mm",
    "lesion_type",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class NiftiExport:
    """What was written, and which series were left out, by reason."""

    files: int
    slices: int
    lesions: int
    left_out: Mapping[str, int]


def export_nifti(
    lake: Lake, folder: Path, choice: Choice, *, compressed: bool = True, force: bool = False,
    progress: Progress | None = None,
) -> NiftiExport:  # fmt: skip
    """Write one volume a stretch of regular slices.

    Raises:
        UsageError: the folder is not empty.
        LakeError: nothing matches, or a slice cannot be read.
    """
    chosen = chosen_series(lake, choice)
    prepare_folder(folder, KIND, force=force)
    left_out: Counter[str] = Counter()
    lines: list[list[str]] = []
    files = slices = 0
    with SliceReader(lake) as reader:
        for one in with_progress(chosen, progress):
            reason = _unwritable(one)
            if reason:
                left_out[reason] += 1
                continue
            for indices in _regular_stretches(one):
                name = f"{one.series_id}_{indices[0]:03d}-{indices[-1]:03d}.nii{'.gz' if compressed else ''}"
                volume = np.stack([reader.read(one.series_id, index).T for index in indices], axis=2)
                atomic_write_bytes(folder / name, _file_bytes(one, indices, volume, compressed=compressed))
                lines += _lesion_lines(one, indices, name)
                files, slices = files + 1, slices + len(indices)
    atomic_write_bytes(folder / "lesions.csv", csv_text(_LESION_COLUMNS, lines).encode())
    seal_folder(folder, KIND)
    return NiftiExport(files, slices, len(lines), dict(sorted(left_out.items())))


def _unwritable(one: Series) -> str:
    if not one.slices:
        return "no images"
    if one.row["single_position"]:
        return "all slices at one place"
    if one.row["doubled_positions"]:
        return "several slices at one place"
    return "" if one.number("spacing_x_mm") else "no pixel spacing"


def _regular_stretches(one: Series) -> list[list[int]]:
    """Slices at one interval, without a slice missing between them."""
    stretches: list[list[int]] = []
    for stretch in one.stretches():
        current: list[int] = []
        for index in stretch:
            if len(current) >= 2 and not _same_step(one, current[-2], current[-1], index):
                stretches.append(current)
                # A slice where the interval changes begins the next stretch.
                current = [index]
            else:
                current.append(index)
        stretches.append(current)
    return stretches


def _same_step(one: Series, first: int, second: int, third: int) -> bool:
    heights = [one.slices[index]["z_mm"] for index in (first, second, third)]
    if any(height is None for height in heights):
        return True
    a, b, c = (float(str(height)) for height in heights)
    return math.isclose(b - a, c - b, abs_tol=max(_SAME_STEP_MM, 0.01 * abs(b - a)))


def _affine(one: Series, indices: Sequence[int]) -> tuple[NDArray[np.float64], int]:
    """Voxel to patient, and how NIfTI should take it: a scanner's coordinates, or lengths alone."""
    x_mm, y_mm = one.number("spacing_x_mm") or 1.0, one.number("spacing_y_mm") or 1.0
    first, last = one.slices[indices[0]]["position_xyz_mm"], one.slices[indices[-1]]["position_xyz_mm"]
    orientation = one.row["orientation"]
    if not isinstance(orientation, list) or not isinstance(first, list) or not isinstance(last, list):
        affine = np.diag([x_mm, y_mm, one.number("spacing_z_mm") or 1.0, 1.0])
        return affine, _UNKNOWN
    affine = np.eye(4)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    affine[:3, 0], affine[:3, 1] = row * x_mm, column * y_mm
    if len(indices) > 1:
        # From slice to slice as they really lie: a tilted gantry shears the volume.
        affine[:3, 2] = (np.array(last) - np.array(first)) / (len(indices) - 1)
    else:
        thickness = one.number("slice_thickness_mm") or 1.0
        affine[:3, 2] = -np.cross(row, column) * thickness
    affine[:3, 3] = first
    return _TO_NIFTI @ affine, _SCANNER


def _file_bytes(one: Series, indices: Sequence[int], volume: NDArray[np.int16], *, compressed: bool) -> bytes:
    affine, code = _affine(one, indices)
    image = nibabel.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=code)
    image.set_qform(affine, code=code, strip_shears=True)
    data: bytes = image.to_bytes()
    if not compressed:
        return data
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as sink:
        sink.write(data)
    return buffer.getvalue()


def _lesion_lines(one: Series, indices: Sequence[int], name: str) -> list[list[str]]:
    lines = []
    for lesion in one.lesions:
        if lesion.slice_index in indices:
            points = [f"{value:.6g}" for value in lesion.points("zero_based").ravel()]
            sizes = [lesion.number(column) for column in ("long_mm", "short_mm")]
            lines.append(
                [name, lesion.lesion_id, str(indices.index(lesion.slice_index)), *points, *[""] * (8 - len(points)),
                 *("" if size is None else f"{size:.6g}" for size in sizes), str(lesion.row["lesion_type"] or "")]
            )  # fmt: skip
    return lines
