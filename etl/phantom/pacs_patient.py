"""One patient of the phantom's PACS export: all his files, and what is true of them.

Lesions go round the formats: SR alone, presentation state alone, AIM alone, or all three, which must then agree. Every
fifth patient's reports give patient coordinates instead of the image's, where only one series is marked.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, SecondaryCaptureImageStorage

from etl.export.sr_document import MarkedImage
from etl.phantom.pacs_identity import Identity, made_up_uid, preamble, put_identity, series_uids
from etl.phantom.pacs_images import DrawnImage, SeriesLook, enhanced_file, image_file, no_image_file
from etl.phantom.pacs_marks import (
    PlantedLesion,
    ReportNames,
    aim_annotation,
    key_objects,
    presentation_state,
    structured_report,
)
from etl.phantom.plan import SeriesPlan
from etl.phantom.reading import draw_slice, read_key
from etl.phantom.true_masks import lesion_name

_FORMATS = (("sr",), ("gsps",), ("aim",), ("sr", "gsps", "aim"))
_HEAD_Z_MM = 1_500.0
_WINDOW_HU = (-175.0, 275.0)
_TRUNCATED_PART = 0.6
_OLD_AGE_YEARS = 93
_OLD_EVERY = 7
_SPACE_EVERY = 5
_NAMES_OF_FILES = ("{family}_{number:04d}.dcm", "IM{number:04d}", "{number:04d}", "I.{number}.CT")


@dataclass(slots=True)
class PatientFiles:
    """A patient's files by name within his folder, and the truth of them."""

    number: int
    folder: str
    files: dict[str, bytes] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    planted: list[str] = field(default_factory=list)
    lesions: list[dict[str, object]] = field(default_factory=list)
    series: list[dict[str, object]] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)
    """Format of every mark written."""

    def add(self, kind: str, name: str, data: bytes) -> None:
        """Put a file into the folder."""
        self.files[name] = data
        self.kinds[kind] += 1


@dataclass(slots=True)
class _Study:
    """What the reports of one study need."""

    index: int
    study_uid: str
    lesions: list[tuple[PlantedLesion, tuple[str, ...]]] = field(default_factory=list)


def patient_files(
    plans: Sequence[SeriesPlan], seed: int, number: int, syntaxes: Sequence[str], *, strays: bool
) -> PatientFiles:
    """Draw a patient and write his studies.

    Args:
        plans: his series; none for a patient in whom nothing is to be seen.
        seed: of the export.
        number: of the patient, from 1.
        syntaxes: names of transfer syntaxes, taken in turn.
        strays: also write what an ingest must leave out.
    """
    sex, age = (plans[0].patient.sex, plans[0].age_years) if plans else ("F", 60)
    identity = Identity(seed, number, sex, _OLD_AGE_YEARS if number % _OLD_EVERY == 0 else age)
    out = PatientFiles(number, identity.plant("folder", f"PLANTEDFOLDER{number:04d}"))
    studies: dict[int, _Study] = {}
    uids: set[str] = set()
    for position, plan in enumerate(plans):
        turn = number + position
        # Each syntax comes with and without signs.
        look = _look(plan, seed, syntaxes[turn % len(syntaxes)], signed=(number + turn // len(syntaxes)) % 2 == 0)
        uids |= {look.study_uid, look.series_uid, look.frame_of_reference_uid}
        study = studies.setdefault(plan.study_index, _Study(plan.study_index, look.study_uid))
        uids |= _write_series(plan, look, identity, study, out)
    for study in studies.values():
        _write_reports(study, seed, identity, out)
    if strays and plans:
        _write_strays(plans[0], seed, identity, out)
    out.planted = sorted({*identity.planted(), *uids})
    return out


def _look(plan: SeriesPlan, seed: int, syntax: str, *, signed: bool) -> SeriesLook:
    study_uid, series_uid, frame_of_reference = series_uids(plan, seed)
    spacing = round(plan.series.spacing_xy_mm, 6)
    interval = plan.series.slice_interval_mm
    return SeriesLook(syntax, signed, spacing, interval, study_uid, series_uid, frame_of_reference, _WINDOW_HU)


def _write_series(plan: SeriesPlan, look: SeriesLook, identity: Identity, study: _Study, out: PatientFiles) -> set[str]:
    """Draw a series into files; the UIDs of its images."""
    enhanced = look.syntax == "enhanced"
    slices = [(part, index) for part in plan.sub_volumes for index in part.slice_indices]
    # Instance numbers run against space in every second series.
    numbers = range(1, len(slices) + 1) if plan.series.index % 2 else range(len(slices), 0, -1)
    file_uid = made_up_uid(look.series_uid, "enhanced")
    images: list[DrawnImage] = []
    for number, (part, index) in zip(numbers, slices, strict=True):
        drawn = draw_slice(plan, index)
        offset = -(drawn.hu.shape[0] - 1) / 2 * look.spacing_mm
        position = (round(offset, 4), round(offset - 20.0, 4), round(_HEAD_Z_MM - part.z_mm(index), 4))
        sop_uid = file_uid if enhanced else made_up_uid(look.series_uid, index)
        images.append(DrawnImage(sop_uid, number, position, drawn.hu))
        frame = len(images) if enhanced else None
        marked = MarkedImage(sop_uid, EnhancedCTImageStorage if enhanced else CTImageStorage, frame, look.series_uid)
        for key in plan.keys:
            reading = read_key(plan, key, drawn) if key.slice_index == index else None
            if reading is not None:
                name = lesion_name(plan, key.lesion_id)
                lesion = _planted(name, key.stated_type, marked, look, position, reading.points)
                formats = _FORMATS[len(out.lesions) % len(_FORMATS)]
                study.lesions.append((lesion, formats))
                out.lesions.append(_lesion_truth(lesion, formats, identity, study))
    _write_images(plan, look, images, identity, out, file_uid if enhanced else None)
    out.series.append(_series_truth(look, images, identity))
    return {image.sop_uid for image in images}


def _write_images(
    plan: SeriesPlan, look: SeriesLook, images: Sequence[DrawnImage], identity: Identity, out: PatientFiles,
    file_uid: str | None,
) -> None:  # fmt: skip
    def identify(dataset: object) -> None:
        put_identity(dataset, identity, plan.study_index)  # type: ignore[arg-type]

    folder = f"ST{plan.study_index}/S{plan.series.index:03d}"
    if file_uid is not None:
        out.add("enhanced", f"{folder}/E1", enhanced_file(look, images, file_uid, identify, preamble(identity)))
        return
    for image in images:
        pattern = _NAMES_OF_FILES[plan.series.index % len(_NAMES_OF_FILES)]
        family = identity.name.split("^", maxsplit=1)[0]
        name = pattern.format(family=family, number=image.instance_number)
        out.add("ct", f"{folder}/{name}", image_file(look, image, identify, preamble(identity)))


def _planted(
    name: str, lesion_type: str, image: MarkedImage, look: SeriesLook, position: tuple[float, float, float],
    points_one_based: Sequence[float],
) -> PlantedLesion:  # fmt: skip
    # What is written with 32 bits is rounded to them here, so that every format can say the same.
    points = tuple(float(np.float32(value - 0.5)) for value in points_one_based)
    ends = np.reshape(points, (4, 2)) * look.spacing_mm
    long_mm, short_mm = (float(np.linalg.norm(ends[at + 1] - ends[at])) for at in (0, 2))
    return PlantedLesion(
        name, lesion_type, image, look.study_uid, points, long_mm, short_mm, position, look.spacing_mm,
        look.frame_of_reference_uid,
    )  # fmt: skip


def _write_reports(study: _Study, seed: int, identity: Identity, out: PatientFiles) -> None:
    folder = f"ST{study.index}/REPORTS"

    def names(kind: str) -> ReportNames:
        series_uid, report_uid = (made_up_uid(seed, study.study_uid, kind, level) for level in ("series", "report"))
        identity.plant(f"report {study.index} {kind}", report_uid)
        return ReportNames(study.study_uid, series_uid, report_uid, study.index)

    chosen = {kind: [lesion for lesion, formats in study.lesions if kind in formats] for kind in ("sr", "gsps", "aim")}
    out.marks += [kind for kind, lesions in chosen.items() for _ in lesions]
    if chosen["sr"]:
        codes = "srt" if identity.number % 2 else "sct"
        # With two series at one place, a mark in patient coordinates could lie on either.
        in_space = identity.number % _SPACE_EVERY == 0 and len({one.image.series_uid for one in chosen["sr"]}) == 1
        data = structured_report(chosen["sr"], names("sr"), identity, codes, in_space=in_space)
        out.add("sr", f"{folder}/SR1", data)
    if chosen["gsps"]:
        out.add("gsps", f"{folder}/PR1.dcm", presentation_state(chosen["gsps"], names("gsps"), identity))
    for number, lesion in enumerate(chosen["aim"], start=1):
        out.add("aim", f"{folder}/{number}.xml", aim_annotation(lesion, names(f"aim {number}"), identity))
    if study.index == 1 and study.lesions:
        images = list(dict.fromkeys(lesion.image for lesion, _ in study.lesions))
        out.add("kos", f"{folder}/KO1", key_objects(images, names("kos"), identity))
        out.marks += ["key_object"] * len(images)


def _write_strays(plan: SeriesPlan, seed: int, identity: Identity, out: PatientFiles) -> None:
    look = _look(plan, seed, "explicit", signed=True)

    def identify(dataset: object) -> None:
        put_identity(dataset, identity, plan.study_index)  # type: ignore[arg-type]

    localizer = no_image_file(
        look, made_up_uid(look.series_uid, "localizer"), CTImageStorage, ("ORIGINAL", "PRIMARY", "LOCALIZER"),
        identify, preamble(identity),
    )  # fmt: skip
    capture = no_image_file(
        look, made_up_uid(look.series_uid, "capture"), SecondaryCaptureImageStorage, ("DERIVED", "SECONDARY"),
        identify, preamble(identity),
    )  # fmt: skip
    out.add("localizer", "ST1/LOC", localizer)
    out.add("secondary_capture", "ST1/DOSE.dcm", capture)
    whole = next((name for name in sorted(out.files) if "/S0" in name and "E1" not in name), None)
    if whole is not None:
        out.add("duplicate", "ST1/COPY", out.files[whole])
    out.add("truncated", "ST1/CUT", localizer[: int(len(localizer) * _TRUNCATED_PART)])
    out.add("empty", "ST1/EMPTY.dcm", b"")


def _lesion_truth(
    lesion: PlantedLesion, formats: Sequence[str], identity: Identity, study: _Study
) -> dict[str, object]:
    return {
        "lesion_name": lesion.name,
        "patient_id": identity.patient_id,
        "study_uid": study.study_uid,
        "study_date": f"{identity.study_date(study.index):%Y%m%d}",
        "series_uid": lesion.image.series_uid,
        "sop_uid": lesion.image.sop_uid,
        "frame_number": lesion.image.frame_number,
        "points_half_based": list(lesion.points),
        "long_mm": lesion.long_mm,
        "short_mm": lesion.short_mm,
        "lesion_type": lesion.lesion_type,
        "formats": list(formats),
    }


def _series_truth(look: SeriesLook, images: Sequence[DrawnImage], identity: Identity) -> dict[str, object]:
    ordered = sorted(images, key=lambda image: -image.position_mm[2])
    return {
        "patient_id": identity.patient_id,
        "study_uid": look.study_uid,
        "series_uid": look.series_uid,
        "syntax": look.syntax,
        "rows": int(images[0].hu.shape[0]),
        "columns": int(images[0].hu.shape[1]),
        "spacing_xy_mm": look.spacing_mm,
        "spacing_z_mm": look.interval_mm,
        "slice_count": len(images),
        "positions_z_mm": [image.position_mm[2] for image in ordered],
        "pixel_sha256": [hashlib.sha256(image.hu.astype("<i2").tobytes()).hexdigest() for image in ordered],
    }
