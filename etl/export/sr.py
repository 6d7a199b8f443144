"""Lesions as DICOM SR: one TID 1500 report a study, for OHIF and whoever else reads measurement reports.

Patients, studies and images go out under the lake's pseudonyms: UIDs are derived from them, always the same. A hospital
that kept its map (`ingest --keep-map`) can have the images' and studies' real UIDs instead, and so put the reports
beside its images.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as Items
from pydicom.uid import EnhancedCTImageStorage

from etl.deidentify import PROFILE
from etl.export.selection import (
    Choice,
    Lesion,
    Progress,
    Series,
    chosen_series,
    prepare_folder,
    seal_folder,
    with_progress,
)
from etl.export.sr_document import (
    Line,
    MarkedImage,
    MeasuredLesion,
    ReportHeader,
    code_item,
    measurement_report,
)
from etl.marks.codes import site_of_lesion_type
from lesionary.artifacts import atomic_write_bytes
from lesionary.lake import Lake

KIND = "sr"
_LESION = ("52988006", "SCT", "Lesion")

RealUids = Mapping[str, str]
"""Pseudonym to the UID it stands for."""


@dataclass(frozen=True, slots=True)
class SrExport:
    """What was written, and what was left out, by reason."""

    reports: int
    lesions: int
    left_out: Mapping[str, int]


def export_sr(
    lake: Lake, folder: Path, choice: Choice, *, codes: str = "srt", real_uids: RealUids | None = None,
    force: bool = False, progress: Progress | None = None,
) -> SrExport:  # fmt: skip
    """Write one report a study.

    Args:
        lake: where from.
        folder: where to; new or empty.
        choice: of patients and splits.
        codes: `srt` as viewers of today look for, or `sct`, the standard's present codes.
        real_uids: UIDs to use instead of pseudonymous ones.
        force: replace an export that is in the folder.
        progress: told after every series.

    Raises:
        UsageError: the folder is not empty.
        LakeError: nothing matches.
    """
    chosen = chosen_series(lake, choice)
    prepare_folder(folder, KIND, force=force)
    names = real_uids or {}
    by_study: dict[str, list[MeasuredLesion]] = {}
    patients: dict[str, str] = {}
    without_image = 0
    for one in with_progress(chosen, progress):
        study = str(one.row["study_id"])
        patients[study] = str(one.row["patient_id"])
        for lesion in one.lesions:
            if lesion.slice_index in one.slices:
                by_study.setdefault(study, []).append(_measured(one, lesion, names))
            else:
                without_image += 1
    for study, lesions in by_study.items():
        header = _header(patients[study], study, lesions, names)
        atomic_write_bytes(folder / f"{study}.dcm", _file_bytes(header, lesions, codes))
    seal_folder(folder, KIND)
    left_out = {"no image": without_image} if without_image else {}
    return SrExport(len(by_study), sum(map(len, by_study.values())), left_out)


def pseudonymous_uid(*parts: str) -> str:
    """A UID that the same names always give."""
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _header(patient: str, study: str, lesions: Sequence[MeasuredLesion], names: RealUids) -> ReportHeader:
    content = hashlib.sha256("".join(repr(lesion) for lesion in lesions).encode()).hexdigest()
    return ReportHeader(
        patient_id=patient,
        patient_name=patient,
        study_uid=names.get(study) or pseudonymous_uid("study", study),
        series_uid=pseudonymous_uid("reports", study),
        # Another content is another report.
        report_uid=pseudonymous_uid("report", study, content),
    )


def _file_bytes(header: ReportHeader, lesions: Sequence[MeasuredLesion], codes: str) -> bytes:
    report = measurement_report(header, lesions, codes)
    report.PatientIdentityRemoved = "YES"
    report.DeidentificationMethod = "Lesionary: allow-list of columns, keyed pseudonyms"
    report.DeidentificationMethodCodeSequence = Items([_profile_item(code, meaning) for code, meaning in PROFILE])
    buffer = io.BytesIO()
    dcmwrite(buffer, report, enforce_file_format=True)
    return buffer.getvalue()


def _profile_item(code: str, meaning: str) -> Dataset:
    return code_item((code, "DCM", meaning))


def _measured(one: Series, lesion: Lesion, names: RealUids) -> MeasuredLesion:
    points = lesion.points("half_based")
    axes: list[Line] = [
        ((float(points[at, 0]), float(points[at, 1])), (float(points[at + 1, 0]), float(points[at + 1, 1])))
        for at in range(0, len(points), 2)
    ]
    return MeasuredLesion(
        tracking_id=lesion.lesion_id,
        tracking_uid=pseudonymous_uid("lesion", lesion.lesion_id),
        image=_image(one, lesion, names),
        long_axis=axes[0],
        long_mm=lesion.number("long_mm"),
        short_axis=axes[1] if len(axes) > 1 else None,
        short_mm=lesion.number("short_mm"),
        finding=_LESION,
        site=_site(lesion),
    )


def _image(one: Series, lesion: Lesion, names: RealUids) -> MarkedImage:
    row = one.slices[lesion.slice_index]
    image, frame = row["image_id"], row["frame_number"]
    series_uid = pseudonymous_uid("series", one.series_id)
    # A release's slices have no name of their own.
    name = str(image) if image else f"{one.series_id} {lesion.slice_index}"
    sop_uid = names.get(name) or pseudonymous_uid("image", name)
    if frame is None:
        return MarkedImage(sop_uid, series_uid=series_uid)
    return MarkedImage(sop_uid, EnhancedCTImageStorage, int(str(frame)), series_uid)


def _site(lesion: Lesion) -> tuple[str, str, str] | None:
    site = lesion.row["finding_site"]
    kind = lesion.row["lesion_type"]
    if site is None and kind:
        site = site_of_lesion_type(str(kind))
    if site is None:
        return None
    scheme, _, code = str(site).partition(":")
    return code, scheme, str(kind or "Finding site").replace("_", " ")
