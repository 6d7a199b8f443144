"""A PACS export as units of work: which images form which series, which marks lie on them, under which pseudonyms.

Every file is looked at once, by workers (`LookTask`); the driver then groups images, joins marks, and replaces every
identifier before anything travels on. A unit is one series with its marks. Marks whose image is not there form one
unit per study; reports and refused files form one per source, so that sums over units equal everything found.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date

from etl.archive import SourceTree, safe_label
from etl.containers import Member
from etl.deidentify import Pseudonymiser, parse_date
from etl.dicom_images import ImageHeader, SeriesHeader
from etl.dicom_series import CtSeries, group_series
from etl.marks.joining import JoinedMark, PlaneIndex, join_marks
from etl.marks.model import Report
from etl.marks.planes import ImagePlane
from etl.pacs_files import Found, LookAtFile
from etl.pacs_rows import MarkPlace, lesion_row, mark_row, series_row
from etl.quality import Quarantined, Reason, RefusedError
from etl.supervision import ChildLimits, this_process_child

SOURCE_KIND = "pacs"

# Raise it when the reading of an export changes in a way that makes rows in existing lakes wrong.
READER_VERSION = 1

_SMALLEST_LOOK, _LARGEST_LOOK = 64, 4096
_LOOKS_PER_WORKER = 8
_NOBODY = SeriesHeader(None, "", "", None, None, None, None, None, enhanced=False)


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """One slice to be read; further files that claim to be the same image are compared with it."""

    slice_index: int
    z_mm: float
    image_id: str
    files: tuple[ImageHeader, ...]
    """Without identifiers."""


@dataclass(frozen=True, slots=True)
class PacsUnit:
    """One series with its marks, or what belongs to none; travels to workers."""

    unit_id: str
    namespace: str
    fingerprint: str
    series: Mapping[str, object] | None
    """Its row, but for what only the pixels tell; None for units that are no series."""
    images: tuple[PlannedImage, ...] = ()
    marks: tuple[Mapping[str, object], ...] = ()
    lesions: tuple[Mapping[str, object], ...] = ()
    """Their rows, but for what only the pixels tell."""
    refused: tuple[Quarantined, ...] = ()
    reports: int = 0
    """Files of marks that were read."""
    reports_flagged: int = 0
    """Of these, files with items that were not."""

    @property
    def image_count(self) -> int:
        """Images to read."""
        return sum(len(image.files) for image in self.images)

    @property
    def file_count(self) -> int:
        """Files of the unit, refused ones included; a multi-frame file counts once for each frame."""
        return self.image_count + self.reports + sum(one.kind == "file" for one in self.refused)

    @property
    def row_count(self) -> int:
        """Marks of the unit, refused items included."""
        return len(self.marks) + sum(one.kind == "row" for one in self.refused)

    @property
    def byte_count(self) -> int:
        """Bytes of its images once decoded: what the work grows with."""
        return sum(file.storage.frame_bytes for image in self.images for file in image.files)

    @property
    def may_shrink(self) -> bool:
        """Whether a later state of the source with fewer files replaces it."""
        return self.series is None


@dataclass(frozen=True, slots=True)
class LookTask:
    """Files for one worker to look at."""

    tree: SourceTree
    members: tuple[Member, ...]
    limits: ChildLimits

    def run(self) -> "LookResult":
        """Look at every file."""
        result = LookResult()
        with self.tree:
            answers = this_process_child(self.limits).map(LookAtFile(self.tree), self.members)
            for member, answer in answers:
                if isinstance(answer, RefusedError):
                    name = member.name or self.tree.containers[member.container].location.path
                    label = safe_label(name, member.container)
                    result.refused.append(Quarantined("file", label, answer.reason, answer.detail))
                else:
                    result.found.append((member, answer))
        return result


@dataclass(slots=True)
class LookResult:
    """What looking at some files came to."""

    found: list[tuple[Member, Found]] = field(default_factory=list)
    refused: list[Quarantined] = field(default_factory=list)


def cut_looks(members: Sequence[Member], tree: SourceTree, workers: int, limits: ChildLimits) -> list[LookTask]:
    """Neighbouring files in tasks that keep every worker busy."""
    size = min(max(len(members) // (workers * _LOOKS_PER_WORKER), _SMALLEST_LOOK), _LARGEST_LOOK)
    return [LookTask(tree, tuple(members[at : at + size]), limits) for at in range(0, len(members), size)]


@dataclass(slots=True)
class _Looked:
    """Everything that was found, sorted by kind."""

    images: list[ImageHeader] = field(default_factory=list)
    read: dict[tuple[str, str], list[tuple[Member, Report]]] = field(default_factory=dict)
    """Files of marks by what they call themselves: name and format."""
    refused: list[Quarantined] = field(default_factory=list)
    _series: dict[SeriesHeader, SeriesHeader] = field(default_factory=dict)

    def add(self, result: LookResult) -> None:
        """Take one worker's findings in; headers that many images share are kept once."""
        self.refused += result.refused
        for member, found in result.found:
            if isinstance(found, Report):
                self.read.setdefault((found.report_uid, found.source_format), []).append((member, found))
                continue
            for image in found:
                shared = self._series.setdefault(image.series, image.series)
                self.images.append(replace(image, series=shared))

    def reports(self) -> list[Report]:
        """Every report once; copies are refused, and files that differ under one name are all refused."""
        chosen = []
        for files in self.read.values():
            files.sort(key=lambda file: (file[0].container, file[0].name))
            same = all(report == files[0][1] for _, report in files)
            if same:
                chosen.append(files[0][1])
            for member, _ in files[1:] if same else files:
                label = safe_label(member.name, member.container)
                reason = Reason.DUPLICATE_FILE if same else Reason.AMBIGUOUS_SOP
                self.refused.append(Quarantined("file", label, reason))
        return chosen


FirstDays = Callable[[Mapping[str, date]], Mapping[str, date]]
"""Patient pseudonym and earliest date of this source to each patient's day 0."""


def plan_pacs(
    results: Iterable[LookResult],
    refused: Sequence[Quarantined],
    pseudonymiser: Pseudonymiser,
    origin: str,
    first_days: FirstDays,
) -> tuple[list[PacsUnit], list[tuple[str, str, str]]]:
    """Units out of what workers found, and the (kind, pseudonym, identifier) of every name in them.

    Args:
        results: of the look tasks, in any order.
        refused: what listing the source already refused.
        pseudonymiser: replaces identifiers.
        origin: names the source; must not give its path away.
        first_days: see `FirstDays`.
    """
    looked = _Looked(refused=list(refused))
    for result in results:
        looked.add(result)
    copies, ambiguous = _copies(looked.images)
    looked.refused += ambiguous
    series = group_series(files[0] for files in copies.values())
    reports = looked.reports()
    joined = join_marks(reports, PlaneIndex(_planes(series)))
    names = _Names(pseudonymiser)
    studies = _study_days(series, names, first_days)
    by_series: dict[str, list[JoinedMark]] = {}
    orphans: list[JoinedMark] = []
    for one in joined:
        (orphans if one.plane is None else by_series.setdefault(one.plane.series_key, [])).append(one)
    units = [_series_unit(one, by_series.get(one.key, []), copies, names, studies) for one in series]
    units += _orphan_units(orphans, names)
    units.append(_files_unit(reports, looked.refused, pseudonymiser, origin))
    return sorted(units, key=lambda unit: unit.unit_id), names.listed()


def _copies(images: Iterable[ImageHeader]) -> tuple[dict[tuple[str, int | None], list[ImageHeader]], list[Quarantined]]:
    """Files by the image they claim to be; files that claim the same and differ in their headers are refused."""
    claimed: dict[tuple[str, int | None], list[ImageHeader]] = {}
    for image in sorted(images, key=lambda image: (image.container, image.member, image.frame_number or 0)):
        claimed.setdefault((image.sop_uid, image.frame_number), []).append(image)
    refused = []
    for claim, files in list(claimed.items()):
        first = files[0]
        same = all(
            (one.series, one.position_mm, one.orientation, one.spacing_xy_mm)
            == (first.series, first.position_mm, first.orientation, first.spacing_xy_mm)
            for one in files
        )
        if not same:
            del claimed[claim]
            refused += [
                Quarantined("file", safe_label(one.member, one.container), Reason.AMBIGUOUS_SOP) for one in files
            ]
    return claimed, refused


def _planes(series: Iterable[CtSeries]) -> Iterator[ImagePlane]:
    for one in series:
        for image in one.images:
            yield ImagePlane(
                image.sop_uid, image.frame_number, one.key, image.position_mm, image.orientation, image.spacing_xy_mm,
                image.storage.rows, image.storage.columns, image.series.frame_of_reference_uid,
            )  # fmt: skip


class _Names:
    """Pseudonyms, and a list of what they stand for."""

    def __init__(self, pseudonymiser: Pseudonymiser) -> None:
        self._pseudonymiser = pseudonymiser
        self._listed: dict[tuple[str, str], str] = {}

    def __call__(self, kind: str, identifier: str) -> str:
        known = self._listed.get((kind, identifier))
        if known is None:
            known = self._listed[kind, identifier] = self._pseudonymiser.name(kind, identifier)
        return known

    def patient(self, patient_key: str | None, study_uid: str | None) -> str:
        """A patient without an ID is one patient for each of his studies."""
        return self("patient", patient_key) if patient_key else self("patient", f"study {study_uid or ''}")

    def listed(self) -> list[tuple[str, str, str]]:
        """Every name given: kind, pseudonym, identifier."""
        return [(kind, name, identifier) for (kind, identifier), name in self._listed.items()]


@dataclass(frozen=True, slots=True)
class _Study:
    """When a study was, among its patient's."""

    day: int | None
    index: int | None


def _study_days(series: Sequence[CtSeries], names: _Names, first_days: FirstDays) -> dict[str, _Study]:
    dates: dict[str, dict[str, date]] = {}
    for one in series:
        header = one.images[0].series
        day = parse_date(header.study_date)
        if day is not None:
            patient = names.patient(header.patient_key, header.study_uid)
            own = dates.setdefault(patient, {})
            own[header.study_uid] = min(day, own.get(header.study_uid, day))
    starts = first_days({patient: min(days.values()) for patient, days in dates.items()})
    return {
        study: _Study((day - starts[patient]).days, index)
        for patient, days in dates.items()
        for index, (study, day) in enumerate(sorted(days.items(), key=lambda item: (item[1], item[0])), 1)
    }


def _series_unit(
    series: CtSeries,
    joined: Sequence[JoinedMark],
    copies: Mapping[tuple[str, int | None], Sequence[ImageHeader]],
    names: _Names,
    studies: Mapping[str, _Study],
) -> PacsUnit:
    header = series.images[0].series
    place = MarkPlace(
        patient_id=names.patient(header.patient_key, header.study_uid),
        study_id=names("study", header.study_uid),
        series_id=names("series", series.key),
    )
    images = tuple(
        PlannedImage(
            number,
            z_mm,
            names("image", image.sop_uid),
            tuple(replace(file, series=_NOBODY, sop_uid="") for file in copies[image.sop_uid, image.frame_number]),
        )
        for number, (image, z_mm) in enumerate(zip(series.images, series.geometry.z_mm, strict=True), 1)
    )
    numbers = {(image.sop_uid, image.frame_number): number for number, image in enumerate(series.images, 1)}
    windows = {number: image.window_hu for number, image in enumerate(series.images, 1)}
    marks, lesions = [], []
    for one in joined:
        assert one.plane is not None  # noqa: S101 (orphans have no series)
        here = replace(place, slice_index=numbers[one.plane.image_uid, one.plane.frame_number])
        marks.append(mark_row(one, here, names))
        if one.makes_lesion:
            lesions.append(lesion_row(one, here, names, windows[here.slice_index or 0]))
    study = studies.get(header.study_uid, _Study(None, None))
    row = series_row(series, place, study_day=study.day, study_index=study.index)
    return PacsUnit(
        unit_id=place.series_id or "",
        namespace=(place.series_id or "").split("-", 1)[0],
        fingerprint=_digest([row, marks, lesions, [(i.image_id, i.slice_index, i.files) for i in images]]),
        series=row,
        images=images,
        marks=tuple(marks),
        lesions=tuple(lesions),
    )


def _orphan_units(orphans: Sequence[JoinedMark], names: _Names) -> list[PacsUnit]:
    by_study: dict[str, list[JoinedMark]] = {}
    for one in orphans:
        by_study.setdefault(one.report.study_uid or f"report {one.report.report_uid}", []).append(one)
    units = []
    for study_uid, group in sorted(by_study.items()):
        study_id = names("study", study_uid)
        rows = tuple(
            mark_row(one, MarkPlace(names.patient(one.report.patient_key, study_uid), study_id), names) for one in group
        )
        # Not the study's own name: its series are units of their own.
        units.append(PacsUnit(f"{study_id}-marks", study_id.split("-", 1)[0], _digest(rows), None, marks=rows))
    return units


def _files_unit(
    reports: Sequence[Report], refused: Sequence[Quarantined], pseudonymiser: Pseudonymiser, origin: str
) -> PacsUnit:
    everything = sorted(
        [*refused, *(item for report in reports for item in report.refused)],
        key=lambda one: (one.kind, one.member, one.reason, one.detail),
    )
    names = sorted(pseudonymiser.name("report", report.report_uid) for report in reports)
    return PacsUnit(
        unit_id=f"{pseudonymiser.namespace}-files-{origin}",
        namespace=pseudonymiser.namespace,
        fingerprint=_digest([names, everything]),
        series=None,
        refused=tuple(everything),
        reports=len(reports),
        reports_flagged=sum(bool(report.refused) for report in reports),
    )


def _digest(content: object) -> str:
    """Changes whenever anything of a unit does: rows are of plain values, whose text is the same in every run."""
    return hashlib.blake2b(f"{READER_VERSION}\x00{content!r}".encode(), digest_size=16).hexdigest()
