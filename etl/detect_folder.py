"""A detector over a DICOM folder that is in no lake: its axial CT series, and the lesions seen in each.

Files are read and decoded in the supervised child, as ingest does. Series are called by their place in the folder, and
slices by theirs in the series, from head to foot: nothing that could identify anybody leaves here.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.archive import SourceTree
from etl.containers import Member
from etl.detect_slices import DetectorInput, DetectSettings, tracklets_of, without_padding
from etl.dicom_images import ImageHeader
from etl.dicom_series import CtSeries, group_series
from etl.pacs_files import EncodedSlice, EncodeSlice, LookAtFile
from etl.patch_cutting import Series
from etl.patch_geometry import SlicePlaces
from etl.planning import LIMITS
from etl.quality import RefusedError
from etl.stack_geometry import is_possible_spacing
from etl.supervision import ChildLimits, this_process_child
from etl.tracklets import TrackBox
from lesionary.errors import SourceError
from lesionary.pixels import decode_slice
from lesionary.stack_schema import FindLesions

NOT_AXIAL = "not axial"
NO_PIXEL_SPACING = "no usable pixel spacing"
NO_READABLE_SLICE = "no slice can be read"
_NOT_AN_IMAGE = "marks, not an image"
_COPY = "the same image again"

Progress = Callable[[int, int], None]
"""Called with slices looked at and slices to look at."""


@dataclass(frozen=True, slots=True)
class FolderDetection:
    """One lesion that a detector sees; boxes are tight, in zero-based pixels."""

    slice_index: int
    """Key slice, counted from the head, from 1."""
    first_slice_index: int
    last_slice_index: int
    box_xyxy_px: tuple[float, float, float, float]
    score: float
    category: int


@dataclass(frozen=True, slots=True)
class FolderSeries:
    """One series that was looked through; its pixels stay at hand for figures."""

    number: int
    """Among the series of the folder, from 1."""
    spacing_xy_mm: tuple[float, float]
    slices: Mapping[int, bytes]
    """Encoded by `lesionary/pixels.py`."""
    detections: tuple[FolderDetection, ...]
    """The surest first."""

    def read(self, _series_id: str, slice_index: int) -> NDArray[np.int16]:
        """One slice as HU."""
        return decode_slice(self.slices[slice_index])


@dataclass(frozen=True, slots=True)
class FolderFindings:
    """What came of a folder: files read and refused are the files, series looked through and left out the series."""

    files: int
    files_read: int
    files_refused: Mapping[str, int]
    """By reason."""
    series_found: int
    series: tuple[FolderSeries, ...]
    series_left_out: Mapping[str, int]
    """By reason."""
    slices_refused: int
    """Slices of these series whose pixels cannot be read; they are skipped."""


def detect_in_folder(
    source: str,
    find: FindLesions,
    shown: DetectorInput,
    settings: DetectSettings,
    progress: Progress = lambda _done, _total: None,
) -> FolderFindings:
    """Look through every axial CT series of a folder, or an archive.

    Args:
        source: the folder.
        find: the detector.
        shown: what it is to be shown.
        settings: which boxes are kept and linked.
        progress: told after every series.

    Raises:
        SourceError: there is no such folder, or no CT image in it.
    """
    tree = SourceTree.open([source], LIMITS)
    with tree:
        files, images, refused = _look(tree)
        found = group_series(images)
        if not found:
            raise SourceError(
                "there is no CT image in it that can be taken", where=source, next_step="name a folder of DICOM files"
            )
        total = sum(len(one.images) for one in found)
        done = slices_refused = 0
        looked_through: list[FolderSeries] = []
        left_out: Counter[str] = Counter()
        for number, series in enumerate(found, 1):
            reason = _why_not(series)
            slices = {} if reason else _encoded(tree, series)
            if reason or not slices:
                left_out[reason or NO_READABLE_SLICE] += 1
            else:
                looked_through.append(_look_through(number, series, slices, find, shown, settings))
                slices_refused += len(series.images) - len(slices)
            done += len(series.images)
            progress(done, total)
    return FolderFindings(
        files=files,
        files_read=files - refused.total(),
        files_refused=dict(sorted(refused.items())),
        series_found=len(found),
        series=tuple(looked_through),
        series_left_out=dict(sorted(left_out.items())),
        slices_refused=slices_refused,
    )


def _look(tree: SourceTree) -> tuple[int, list[ImageHeader], Counter[str]]:
    """How many files there are, the CT images in them, and files that give none, by reason."""
    refused: Counter[str] = Counter()
    members: list[Member] = []
    for entry in tree.entries():
        if isinstance(entry, Member):
            members.append(entry)
        else:
            refused[entry.reason.value] += 1
    files = len(members) + refused.total()
    images: dict[tuple[str, int | None], ImageHeader] = {}
    for _, answer in this_process_child(ChildLimits()).map(LookAtFile(tree), members):
        if isinstance(answer, RefusedError):
            refused[answer.reason.value] += 1
        elif not isinstance(answer, tuple):
            refused[_NOT_AN_IMAGE] += 1
        else:
            fresh = {
                (one.sop_uid, one.frame_number): one for one in answer if (one.sop_uid, one.frame_number) not in images
            }
            refused[_COPY] += not fresh
            images |= fresh
    return files, list(images.values()), +refused


def _why_not(series: CtSeries) -> str | None:
    spacing = series.images[0].spacing_xy_mm
    if not series.geometry.axial:
        return NOT_AXIAL
    return None if spacing is not None and is_possible_spacing(spacing) else NO_PIXEL_SPACING


def _encoded(tree: SourceTree, series: CtSeries) -> dict[int, bytes]:
    """The slices that can be read, by their place from the head."""
    answers = this_process_child(ChildLimits()).map(EncodeSlice(tree), series.images)
    return {index: answer.pixels for index, (_, answer) in enumerate(answers, 1) if isinstance(answer, EncodedSlice)}


def _look_through(
    number: int,
    series: CtSeries,
    slices: Mapping[int, bytes],
    find: FindLesions,
    shown: DetectorInput,
    settings: DetectSettings,
) -> FolderSeries:
    header = series.images[0]
    spacing = header.spacing_xy_mm or (1.0, 1.0)
    rows, columns = header.storage.rows, header.storage.columns
    places = SlicePlaces(
        np.array(list(slices), np.int64),
        np.array([series.geometry.z_mm[index - 1] for index in slices], np.float64),
        np.full(len(slices), rows, np.int64),
        np.full(len(slices), columns, np.int64),
    )
    known = Series(str(number), spacing, series.geometry.interval_mm, places)
    source = FolderSeries(number, spacing, slices, ())
    tracklets = tracklets_of(source, known, list(slices), find, shown, settings)

    def tight(box: TrackBox) -> tuple[float, float, float, float]:
        return without_padding(box.box, shown.box_padding_px, columns, rows)

    detections = tuple(
        FolderDetection(
            one.key.slice_index, one.boxes[0].slice_index, one.boxes[-1].slice_index, tight(one.key), one.key.score,
            one.key.category,
        )
        for one in tracklets
    )  # fmt: skip
    return FolderSeries(number, spacing, slices, detections)


def surest(series: Sequence[FolderSeries]) -> Iterator[tuple[FolderSeries, FolderDetection]]:
    """All detections, the surest first."""
    pairs = [(one, found) for one in series for found in one.detections]
    yield from sorted(
        pairs, key=lambda pair: (-pair[1].score, pair[0].number, pair[1].slice_index, pair[1].box_xyxy_px)
    )
