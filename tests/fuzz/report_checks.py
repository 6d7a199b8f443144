"""What every report of marks must look like, whoever wrote the file it was read from."""

import dataclasses
import math
import re

from fuzz.contract import CANARY, require

from etl.marks.model import Mark, Report
from etl.quality import Flag, Quarantined, Reason

_CODE = re.compile(r"(?:SCT|DCM|RADLEX|FMA|NCIt|UMLS):[A-Za-z0-9._-]{1,32}", re.ASCII)
_UID = re.compile(r"[0-9][0-9.]{0,63}", re.ASCII)
_ITEM = re.compile(r"item ([1-9][0-9]{0,8}) of a report", re.ASCII)
_MOST_DETAIL = 120


def check_report(report: Report) -> None:
    """Its items are all accounted for, its numbers are numbers, and nobody's words are in it."""
    items = [mark.item for mark in report.marks]
    for one in report.refused:
        check_refused(one)
        items.append(int(_ITEM.fullmatch(one.member)[1]))
    require(sorted(items) == list(range(1, len(items) + 1)), "items are missing, or numbered twice")
    require(report.report_uid and len(report.report_uid) <= 64, "the report's identifier")
    require(report.study_date is None or re.fullmatch(r"\d{8}", report.study_date, re.ASCII), "the study's date")
    require(re.fullmatch(r"(\d{8}(\d{2,6}(\.\d{1,6})?)?)?", report.saved_at, re.ASCII), "when it was saved")
    require(all(_UID.fullmatch(uid) for uid in report.evidence), "an image in evidence")
    for mark in report.marks:
        check_mark(mark)
    # The patient's key is replaced on the driver, and so are identifiers that a plain table may spell as it likes.
    table = report.source_format == "table"
    shown = dataclasses.replace(
        report, patient_key=None, study_uid=None if table else report.study_uid,
        marks=tuple(dataclasses.replace(mark, tracking_uid=None) for mark in report.marks) if table else report.marks,
    )  # fmt: skip
    require(CANARY not in repr(shown), "free text of the file came along")


def check_mark(mark: Mark) -> None:
    """Fits the columns of `marks`."""
    axes = [*(mark.long_axis or ()), *(mark.short_axis or ()), *(mark.long_axis_mm or ()), *(mark.short_axis_mm or ())]
    points = [*axes, *mark.outline, *mark.outline_mm]
    require(points or mark.shape in {"length", "bidirectional", "key_image"}, "an outline without points")
    require(all(math.isfinite(value) and abs(value) <= 1e6 for point in points for value in point), "a coordinate")
    for stated in (mark.stated_long, mark.stated_short):
        require(stated is None or (math.isfinite(stated) and 0 <= stated <= 1e6), "a stated length")
    require(mark.stated_unit in {None, "mm", "cm", "px"}, "a stated unit")
    require(mark.image_uid is None or _UID.fullmatch(mark.image_uid), "the image's identifier")
    require(mark.frame_of_reference_uid is None or _UID.fullmatch(mark.frame_of_reference_uid), "frame of reference")
    require(mark.frame_number is None or 1 <= mark.frame_number < 1 << 31, "a frame's number")
    for code in (mark.finding, mark.finding_site):
        require(code is None or _CODE.fullmatch(code), "a code")
    require(0 < mark.confidence <= 1, "the confidence")
    require(all(isinstance(flag, Flag) for flag in mark.flags), "a flag")


def check_refused(one: Quarantined) -> None:
    """A reason of ours, with a detail in our own words."""
    require(isinstance(one.reason, Reason), "a reason")
    require(len(one.detail) <= _MOST_DETAIL and CANARY not in one.detail and one.detail.isprintable(), "a detail")
    require(len(one.member) <= _MOST_DETAIL and CANARY not in one.member, "a member's label")
