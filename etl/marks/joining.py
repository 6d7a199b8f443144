"""Marks to the images they were drawn on, and to each other: which lesions a study has, each once.

The same measurement reaches an export many times: as a report, as a presentation state and as an AIM file, in a report
that was saved again, on a second reconstruction. Rules, in this order:

1. a mark is placed on the image it names, or, when it is in patient coordinates, on the nearest slice of their frame
   of reference, of the images that the report is about if it says; without that image it is an orphan: kept, joined
   to nothing, no lesion;
2. of marks on one image whose axes have the same ends within a pixel, or whose reports follow one tracking identifier,
   the best source (`_RANK`), then the one saved last, makes the lesion; the others are duplicates of it;
3. marks of one study on different series at the same place in the body are one lesion seen twice: each keeps its row,
   because each image is worth having, and the later ones say so by a flag.

Key images have no size and make no lesion.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from etl.marks.model import Axis, Mark, Report
from etl.marks.planes import ImagePlane, nearest_plane, placed_on, with_axes_of_outline
from etl.quality import Flag
from lesionary.recist import FIRST_CENTERS

# Better sources first: what states most, most reliably.
_RANK: Mapping[str, int] = MappingProxyType(
    {
        name: rank
        for rank, name in enumerate(("sr", "aim_sr", "aim", "table", "gsps", "segmentation", "rtstruct", "key_object"))
    }
)
_SAME_END_PX = 1.0
_SAME_PLACE_MM = 3.0
_SAME_LENGTH_SHARE = 0.1
# A mark in patient coordinates belongs to a slice nearer than this; OHIF uses the same figure.
_NEAREST_PLANE_MM = 5.0


@dataclass(slots=True)
class JoinedMark:
    """A mark with its image and what it duplicates."""

    report: Report
    mark: Mark
    """Placed: axes in pixels wherever there is an image and a drawing."""
    plane: ImagePlane | None
    """None: an orphan."""
    duplicate_of: "JoinedMark | None" = None
    flags: frozenset[Flag] = frozenset()

    @property
    def makes_lesion(self) -> bool:
        """Whether a lesion is made of it."""
        in_other_series = Flag.MARKED_IN_OTHER_SERIES in self.flags
        return (
            self.plane is not None
            and self.mark.long_axis is not None
            and (self.duplicate_of is None or in_other_series)
        )


class PlaneIndex:
    """The images of a source, by what marks call them."""

    def __init__(self, planes: Iterable[ImagePlane]) -> None:
        self._by_image: dict[tuple[str, int | None], ImagePlane] = {}
        self._first_frame: dict[str, ImagePlane] = {}
        self._by_frame_of_reference: dict[str, list[ImagePlane]] = {}
        for plane in planes:
            self._by_image.setdefault((plane.image_uid, plane.frame_number), plane)
            self._first_frame.setdefault(plane.image_uid, plane)
            if plane.frame_of_reference_uid:
                self._by_frame_of_reference.setdefault(plane.frame_of_reference_uid, []).append(plane)

    def find(self, mark: Mark, evidence: frozenset[str]) -> ImagePlane | None:
        """The image a mark lies on; for a mark that names none, one that its report is about goes first."""
        if mark.image_uid is not None:
            single = self._first_frame.get(mark.image_uid)
            if single is None:
                return None
            # Some writers number the one frame of a single-frame image, others leave it out.
            frame = None if single.frame_number is None else (mark.frame_number or 1)
            return self._by_image.get((mark.image_uid, frame))
        points = _points_mm(mark)
        if mark.frame_of_reference_uid is None or not points:
            return None
        candidates = self._by_frame_of_reference.get(mark.frame_of_reference_uid, [])
        named = [plane for plane in candidates if plane.image_uid in evidence]
        return nearest_plane(points, named, _NEAREST_PLANE_MM) or nearest_plane(points, candidates, _NEAREST_PLANE_MM)


def join_marks(reports: Iterable[Report], planes: PlaneIndex) -> list[JoinedMark]:
    """Every mark of some reports, joined; ordered by report and item."""
    joined = [
        _join(report, mark, planes)
        for report in sorted(reports, key=lambda report: (report.report_uid, report.source_format))
        for mark in report.marks
    ]
    by_image: dict[tuple[str, int | None], list[JoinedMark]] = {}
    for one in joined:
        if one.plane is not None:
            by_image.setdefault((one.plane.image_uid, one.plane.frame_number), []).append(one)
    for group in by_image.values():
        _find_duplicates(group)
    _find_in_other_series(joined)
    return joined


def _join(report: Report, mark: Mark, planes: PlaneIndex) -> JoinedMark:
    plane = planes.find(mark, report.evidence)
    if plane is None:
        return JoinedMark(report, mark, None, flags=mark.flags | {Flag.ORPHAN_MARK})
    placed = placed_on(mark, plane)
    flags = placed.flags
    if placed.long_axis is None and len(placed.outline) > 1:
        placed = with_axes_of_outline(placed, plane)
        flags |= {Flag.SHORT_AXIS_FROM_OUTLINE}
    if placed.long_axis is not None and placed.short_axis is None:
        flags |= {Flag.NO_SHORT_AXIS}
    if _leaves(placed, plane):
        flags |= {Flag.MARK_OUTSIDE_IMAGE}
    return JoinedMark(report, placed, plane, flags=flags)


def _points_mm(mark: Mark) -> tuple[tuple[float, float, float], ...]:
    axes = (mark.long_axis_mm or ()) + (mark.short_axis_mm or ())
    return axes or mark.outline_mm


def _leaves(mark: Mark, plane: ImagePlane) -> bool:
    first = FIRST_CENTERS[mark.convention] - 0.5
    ends = [*(mark.long_axis or ()), *(mark.short_axis or ())]
    return any(not (first <= x <= first + plane.columns and first <= y <= first + plane.rows) for x, y in ends)


def _find_duplicates(group: list[JoinedMark]) -> None:
    """Of marks on one image, leave one of each measurement."""
    drawn = [one for one in group if one.mark.long_axis is not None]
    # The last saved of the best source first; the rest by names that do not change.
    drawn.sort(key=lambda one: (one.report.report_uid, one.mark.item))
    drawn.sort(key=lambda one: one.report.saved_at, reverse=True)
    drawn.sort(key=lambda one: (one.mark.short_axis is None, _RANK[one.mark.source_format]))
    kept: list[JoinedMark] = []
    for one in drawn:
        original = next((other for other in kept if _same_measurement(one, other)), None)
        if original is None:
            kept.append(one)
        else:
            one.duplicate_of = original
            one.flags |= {Flag.DUPLICATE_MARK}


def _same_measurement(one: JoinedMark, other: JoinedMark) -> bool:
    tracked = one.mark.tracking_uid is not None and one.mark.tracking_uid == other.mark.tracking_uid
    if tracked and one.report is not other.report:
        return True
    mine, theirs = one.mark, other.mark
    if mine.short_axis is None or theirs.short_axis is None:
        return _same_axis(mine.long_axis, theirs.long_axis, mine, theirs)
    # Of a nearly round lesion each format may call another axis the long one.
    return any(
        _same_axis(mine.long_axis, first, mine, theirs) and _same_axis(mine.short_axis, second, mine, theirs)
        for first, second in ((theirs.long_axis, theirs.short_axis), (theirs.short_axis, theirs.long_axis))
    )


def _same_axis(one: Axis | None, other: Axis | None, mark: Mark, other_mark: Mark) -> bool:
    if one is None or other is None:
        return False
    shift = FIRST_CENTERS[other_mark.convention] - FIRST_CENTERS[mark.convention]
    moved = [(x + shift, y + shift) for x, y in one]
    return any(
        all(math.dist(a, b) <= _SAME_END_PX for a, b in zip(moved, ends, strict=True)) for ends in (other, other[::-1])
    )


def _find_in_other_series(joined: Sequence[JoinedMark]) -> None:
    """Say which lesions are also marked at the same place of another series of the study."""
    by_study: dict[str, list[JoinedMark]] = {}
    for one in joined:
        if one.makes_lesion and one.plane is not None and one.plane.frame_of_reference_uid:
            by_study.setdefault(one.plane.frame_of_reference_uid, []).append(one)
    for group in by_study.values():
        group.sort(key=lambda one: (_series_of(one), one.report.report_uid, one.mark.item))
        for number, one in enumerate(group):
            original = next((other for other in group[:number] if _same_place(one, other)), None)
            if original is not None:
                one.duplicate_of = original.duplicate_of or original
                one.flags |= {Flag.MARKED_IN_OTHER_SERIES}


def _series_of(one: JoinedMark) -> str:
    return one.plane.series_key if one.plane is not None else ""


def _same_place(one: JoinedMark, other: JoinedMark) -> bool:
    if _series_of(one) == _series_of(other):
        return False
    centers, lengths = zip(*(_center_and_length_mm(mark) for mark in (one, other)), strict=True)
    longer = max(lengths)
    return math.dist(*centers) <= _SAME_PLACE_MM and abs(lengths[0] - lengths[1]) <= _SAME_LENGTH_SHARE * longer


def _center_and_length_mm(one: JoinedMark) -> tuple[tuple[float, float, float], float]:
    assert one.plane is not None  # noqa: S101 (only lesions come here)
    assert one.mark.long_axis is not None  # noqa: S101
    start, end = (
        one.plane.in_space((x - FIRST_CENTERS[one.mark.convention], y - FIRST_CENTERS[one.mark.convention]))
        for x, y in one.mark.long_axis
    )
    middle = (np.asarray(start) + np.asarray(end)) / 2
    return (float(middle[0]), float(middle[1]), float(middle[2])), math.dist(start, end)
