"""Writes a PACS export out of nothing: DICOM CT in every syntax, marks in every format, and the truth beside it.

    <folder>/export/…      what a hospital would hand over: odd names, archives in archives, strays, planted identifiers
    <folder>/truth.json    every planted text, lesion and series; never inside the export, never read by ingest

The drawing is the release's (`plan.py`, `reading.py`); a patient is one task, so the same settings give the same bytes
whatever the number of workers. `truth.json` is written last: where it is, the export is whole.
"""

import gzip
import io
import json
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from etl.phantom.pacs_images import SYNTAXES
from etl.phantom.pacs_patient import PatientFiles, patient_files
from etl.phantom.release import IMAGE_SIZE_RANGE, ReleaseSettings, ordered_map, plan_series
from lesionary.artifacts import atomic_write_bytes
from lesionary.errors import UsageError

EXPORT_FOLDER, TRUTH_FILE = "export", "truth.json"
MIXED = "mixed"

# Zips and tars keep times; these files were all packed at once.
_PACKED_AT = (2017, 3, 1, 12, 0, 0)
_STRAYS = {"README.txt": b"This is no DICOM file.\n", "DICOMDIR.txt": b"", "thumbs.dcm": b"not DICOM either"}

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class PacsSettings:
    """Everything that decides an export's bytes."""

    patients: int
    seed: int = 0
    image_size: int = 512
    max_slices_per_series: int = 24
    syntax: str = MIXED
    """`mixed`, or one of `pacs_images.SYNTAXES`."""
    strays: bool = True
    """Localizers, captures, duplicates, damaged and foreign files, archives in archives."""


@dataclass(frozen=True, slots=True)
class PacsSummary:
    """What was written."""

    patients: int
    series: int
    slices: int
    lesions: int
    marks: int
    files: int
    bytes: int
    seconds: float


def write_pacs(
    folder: Path, settings: PacsSettings, *, workers: int = 1, force: bool = False, progress: Progress | None = None
) -> PacsSummary:
    """Write an export into a folder.

    Raises:
        UsageError: a setting is out of range, or the folder is not empty and `force` is not given.
    """
    _check(settings, workers)
    _prepare(folder, force=force)
    started = time.monotonic()
    numbers = range(1, settings.patients + 1)
    truths: list[PatientFiles] = []
    written = 0
    for done, patient in enumerate(ordered_map(partial(_patient, settings), numbers, workers), start=1):
        for name, data in _packed(patient, settings):
            path = folder / EXPORT_FOLDER / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            written += len(data)
        truths.append(patient)
        if progress:
            progress("patients written", done, settings.patients)
    strays = dict(_STRAYS) if settings.strays else {}
    for name, data in strays.items():
        (folder / EXPORT_FOLDER / name).write_bytes(data)
    lesions = [lesion for patient in truths for lesion in patient.lesions]
    series = [one for patient in truths for one in patient.series]
    truth = {
        "settings": asdict(settings),
        "planted": sorted({text for patient in truths for text in patient.planted}),
        "lesions": lesions,
        "series": series,
        "files": _counts(truths, len(strays)),
    }
    atomic_write_bytes(folder / TRUTH_FILE, (json.dumps(truth, indent=1, sort_keys=True) + "\n").encode())
    return PacsSummary(
        patients=len(truths),
        series=len(series),
        slices=sum(int(str(one["slice_count"])) for one in series),
        lesions=len(lesions),
        marks=sum(len(patient.marks) for patient in truths),
        files=sum(len(patient.files) for patient in truths) + len(strays),
        bytes=written,
        seconds=time.monotonic() - started,
    )


def _patient(settings: PacsSettings, number: int) -> PatientFiles:
    drawing = ReleaseSettings(
        patients=settings.patients,
        seed=settings.seed,
        image_size=settings.image_size,
        max_slices_per_series=settings.max_slices_per_series,
    )
    names = tuple(SYNTAXES) if settings.syntax == MIXED else (settings.syntax,)
    return patient_files(plan_series(drawing, number), settings.seed, number, names, strays=settings.strays)


def _packed(patient: PatientFiles, settings: PacsSettings) -> Sequence[tuple[str, bytes]]:
    """A patient's files as they lie in the export: plain, or in one of three kinds of archive."""
    folder = patient.folder
    kind = patient.number % 5 if settings.strays else 0
    files = sorted(patient.files.items())
    if kind == 1:
        return [(f"{folder}.zip", _zip(files))]
    if kind == 2:
        return [(f"archive/{folder}.tar.gz", _tar_gz(files))]
    if kind == 3:
        return [(f"{folder}.zip", _zip([("inner.zip", _zip(files)), ("note.txt", b"see inside")]))]
    return [(f"{folder}/{name}", data) for name, data in files]


def _zip(files: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files:
            info = zipfile.ZipInfo(name, _PACKED_AT)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data, compresslevel=1)
    return buffer.getvalue()


def _tar_gz(files: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=1, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _counts(truths: Sequence[PatientFiles], strays: int) -> dict[str, int]:
    counts: dict[str, int] = {"stray": strays}
    for patient in truths:
        for kind, count in patient.kinds.items():
            counts[kind] = counts.get(kind, 0) + count
        counts["mark"] = counts.get("mark", 0) + len(patient.marks)
    return counts


def _prepare(folder: Path, *, force: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not force:
        raise UsageError(
            "the folder is not empty",
            where=str(folder),
            next_step="choose another folder, or replace the export in it with --force",
        )
    # The truth goes first: without it nobody takes the rest for an export.
    (folder / TRUTH_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder / EXPORT_FOLDER, ignore_errors=True)
    (folder / EXPORT_FOLDER).mkdir()


def _check(settings: PacsSettings, workers: int) -> None:
    low, high = IMAGE_SIZE_RANGE
    known = (MIXED, *SYNTAXES)
    rules = (
        (settings.patients >= 1, "--patients", "an export needs at least one patient"),
        (low <= settings.image_size <= high, "--image-size", f"images have {low} to {high} rows and columns"),
        (settings.seed >= 0, "--seed", "a seed is zero or a positive number"),
        (workers >= 1, "--workers", "at least one worker draws"),
        (settings.max_slices_per_series >= 1, "--max-slices-per-series", "a series has at least one slice"),
        (settings.syntax in known, "--syntax", f"known are {', '.join(known)}"),
    )
    for holds, where, what in rules:
        if not holds:
            raise UsageError(what, where=where, next_step="change the option")
