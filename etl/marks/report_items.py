"""From the items of a document to a `Report`: one item that cannot be read costs one item, and none is lost silently.

The items are numbered from 1 in document order whether or not they can be read, so that a mark keeps its number when
another item of the same document turns out bad.
"""

import re
from collections.abc import Callable, Sequence

from pydicom.dataset import Dataset

from etl.marks.content_tree import items_of, text_of, uid_of
from etl.marks.model import Mark, Report
from etl.quality import Quarantined, Reason, RefusedError

Reading = Callable[[int], Mark]
"""Reads one item, given its number, or raises `RefusedError`."""

_DATE = re.compile(r"\d{8}", re.ASCII)
_TIME = re.compile(r"\d{2,6}(?:\.\d{1,6})?", re.ASCII)


def report_of_items(dataset: Dataset, source_format: str, readings: Sequence[Reading]) -> Report:
    """The document with its marks and its refused items; refused as a whole when there is nothing to read in it."""
    report_uid = uid_of(dataset, "SOPInstanceUID")
    if report_uid is None:
        raise RefusedError(Reason.DICOM_DAMAGED, "no SOP Instance UID")
    if not readings:
        raise RefusedError(Reason.NOT_A_REPORT, uid_of(dataset, "SOPClassUID") or "")
    marks: list[Mark] = []
    refused: list[Quarantined] = []
    for number, read in enumerate(readings, start=1):
        try:
            marks.append(read(number))
        except RefusedError as error:
            refused.append(Quarantined("row", f"item {number} of a report", error.reason, error.detail))
    date, time = text_of(dataset, "ContentDate"), text_of(dataset, "ContentTime")
    study_date = text_of(dataset, "StudyDate")
    return Report(
        report_uid=report_uid,
        source_format=source_format,
        patient_key=text_of(dataset, "PatientID") or None,
        study_uid=uid_of(dataset, "StudyInstanceUID"),
        study_date=study_date if _DATE.fullmatch(study_date) else None,
        saved_at=date + (time if _TIME.fullmatch(time) else "") if _DATE.fullmatch(date) else "",
        evidence=_evidence(dataset),
        marks=tuple(marks),
        refused=tuple(refused),
    )


def _evidence(dataset: Dataset) -> frozenset[str]:
    found = (
        uid_of(reference, "ReferencedSOPInstanceUID")
        for study in items_of(dataset, "CurrentRequestedProcedureEvidenceSequence")
        for series in items_of(study, "ReferencedSeriesSequence")
        for reference in items_of(series, "ReferencedSOPSequence")
    )
    return frozenset(uid for uid in found if uid)


def bad_item(detail: str) -> RefusedError:
    """What to raise for an item that cannot be used; the detail is in our words, never the file's."""
    return RefusedError(Reason.MARK_INVALID, detail)
