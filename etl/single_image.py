"""One lesion on an image that no lake knows: a DICOM file or a 16-bit PNG, a box, and the patch a model is shown.

The file is read and decoded in the supervised child, as ingest does. Neighbouring slices come from the other frames of
a multi-frame file, or from files of the same series in the same folder; where there are none, the slice itself stands
in for them. PNGs are the release's: HU + 32768, one file a slice, and they do not say how large a pixel is.
"""

import math
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.archive import SourceTree
from etl.containers import Container, Member
from etl.decoding import decode_png16
from etl.dicom_images import ImageHeader
from etl.dicom_series import group_series
from etl.embed_tasks import one_patch
from etl.pacs_files import EncodedSlice, EncodeSlice, LookAtFile
from etl.patch_cutting import PatchSettings
from etl.patch_geometry import SPACINGS_MM, SlicePlaces, cut_frame, frame_around, slices_around
from etl.planning import LIMITS
from etl.quality import REASON_MEANINGS, RefusedError
from etl.supervision import Child, ChildLimits, this_process_child
from lesionary.errors import SourceError, UsageError
from lesionary.locations import open_location
from lesionary.patch_schema import SLICE_STEP_MM, SLICES_PER_PATCH
from lesionary.pixels import decode_slice

_PNG = b"\x89PNG\r\n\x1a\n"
# A folder with more files is searched for no neighbours: that would take longer than they are worth.
_MOST_SIBLINGS = 2_000
# Files of slices on either side that are looked for; thinner slices than this allows are none of CT's.
_MOST_STEPS = 32

Slice = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class ImageWish:
    """A lesion on an image, as a person names it."""

    file: Path
    box_px: tuple[float, ...]
    """x1, y1, x2, y2: tight around the lesion, in pixels; the first pixel's centre is (0, 0)."""
    frame: int | None = None
    """Of a multi-frame file, 1-based."""
    spacing_mm: tuple[float, ...] | None = None
    """Along x and y, or along x, y and z; instead of what the file says."""


@dataclass(frozen=True, slots=True)
class ImageLesion:
    """The lesion as a model and as a figure see it."""

    patch: pa.Table
    """One row of `lesionary.patch_schema.PATCHES`."""
    hu: Slice
    """The slice with the box."""
    box_px: tuple[float, float, float, float]
    spacing_xy_mm: tuple[float, float]
    slices: int
    """Different slices that the patch is mixed from."""


@dataclass(frozen=True, slots=True)
class _Stack:
    """A slice and its neighbours, not yet decoded."""

    places: SlicePlaces
    key: int
    interval_mm: float | None
    spacing_xy_mm: tuple[float, float] | None
    decode: Callable[[Sequence[int]], list[Slice | RefusedError]]
    """Slices by their numbers."""


def read_lesion(wish: ImageWish, settings: PatchSettings | None = None) -> ImageLesion:
    """Read the image and cut the patch.

    Raises:
        SourceError: the file cannot be read, or is no CT image.
        UsageError: the box, the frame or the spacing is missing or makes no sense.
    """
    settings = settings or PatchSettings()
    box = _checked_box(wish.box_px)
    given = _checked_spacing(wish.spacing_mm)
    stack = _png_stack(wish, given) if _head(wish.file) == _PNG else _dicom_stack(wish)
    spacing = (given[0], given[1]) if given else stack.spacing_xy_mm
    if spacing is None or not all(SPACINGS_MM[0] <= one <= SPACINGS_MM[1] for one in spacing):
        raise UsageError(
            "the image does not say how large its pixels are", where=wish.file.name, next_step="give --spacing-mm"
        )
    mixed = slices_around(stack.places, stack.key, given[2] if given and len(given) == 3 else stack.interval_mm)
    indices, weights = mixed or ([stack.key], np.ones((SLICES_PER_PATCH, 1)))
    decoded = stack.decode(indices)
    key = decoded[indices.index(stack.key)]
    if isinstance(key, RefusedError):
        raise _refused(wish.file, key)
    images = [one for one in decoded if not isinstance(one, RefusedError)]
    if len(images) < len(indices) or any(one.shape != key.shape for one in images):
        # A neighbour that cannot be read is none.
        images, weights = [key], np.ones((SLICES_PER_PATCH, 1))
    rows, columns = key.shape
    if not (box[0] < columns and box[1] < rows and box[2] > -1 and box[3] > -1):
        raise UsageError(
            f"the box lies outside the image of {columns} × {rows} px", where="--box", next_step="check its order"
        )
    frame = frame_around(box, spacing, padding_px=settings.box_padding_px, context_mm=settings.context_mm)
    pixels = cut_frame(images, weights, frame, spacing)
    return ImageLesion(one_patch(pixels, frame.box, frame.extent, wish.file.name), key, box, spacing, len(images))


def _checked_box(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    usual = len(numbers) == 4 and all(math.isfinite(one) and abs(one) < 1e6 for one in numbers)
    if not usual or numbers[0] > numbers[2] or numbers[1] > numbers[3]:
        raise UsageError(
            "a box is x1,y1,x2,y2 in pixels, with x1 ≤ x2 and y1 ≤ y2",
            where="--box",
            next_step="for example 180,201,212,240",
        )
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _checked_spacing(numbers: Sequence[float] | None) -> tuple[float, ...] | None:
    if numbers is None:
        return None
    spacing = (numbers[0], numbers[0]) if len(numbers) == 1 else tuple(numbers)
    if len(spacing) not in {2, 3} or not all(SPACINGS_MM[0] <= one <= SPACINGS_MM[1] for one in spacing):
        raise UsageError(
            f"a spacing is X, X,Y or X,Y,Z in mm, each from {SPACINGS_MM[0]:g} to {SPACINGS_MM[1]:g}",
            where="--spacing-mm",
            next_step="for example 0.8 or 0.8,0.8,5",
        )
    return spacing


def _head(file: Path) -> bytes:
    """The first bytes of a plain file.

    Raises:
        SourceError: there is none, or it cannot be read.
    """
    try:
        # Not opened otherwise: a pipe would never answer.
        plain = stat.S_ISREG(file.stat().st_mode)
        head = b""
        if plain:
            with file.open("rb") as stream:
                head = stream.read(len(_PNG))
    except (OSError, ValueError) as cause:
        raise SourceError(
            f"the image cannot be read ({type(cause).__name__})", where=str(file), next_step="check the path"
        ) from cause
    if not plain:
        raise SourceError("this is no file", where=str(file), next_step="name one DICOM or PNG file")
    return head


def _refused(file: Path, refusal: RefusedError) -> SourceError:
    detail = f" ({refusal.detail})" if refusal.detail else ""
    return SourceError(
        f"the image cannot be taken: {REASON_MEANINGS[refusal.reason]}{detail}",
        where=file.name,
        next_step="give an axial CT image as DICOM, or a 16-bit PNG of a DeepLesion release",
    )


def _folder_tree(file: Path) -> SourceTree:
    return SourceTree([Container(open_location(str(file.absolute().parent)))], LIMITS)


def _child() -> Child:
    return this_process_child(ChildLimits())


@dataclass(frozen=True, slots=True)
class _DecodePng:
    """A release's slice, in the child."""

    tree: SourceTree

    def __call__(self, name: str) -> Slice:
        return decode_png16(self.tree.read(0, name))


def _png_stack(wish: ImageWish, spacing: tuple[float, ...] | None) -> _Stack:
    """A PNG and those beside it whose names are numbers, as a release has them."""
    if wish.frame not in {None, 1}:
        raise UsageError("a PNG holds one slice", where="--slice", next_step="leave it out")
    file = wish.file
    names = {0: file.name}
    if file.stem.isascii() and file.stem.isdigit() and spacing and len(spacing) == 3:
        reach = min(_MOST_STEPS, math.ceil(SLICE_STEP_MM / spacing[2]) + 1)
        for step in range(-reach, reach + 1):
            name = f"{int(file.stem) + step:0{len(file.stem)}d}{file.suffix}"
            if (file.parent / name).is_file():
                names[step] = name
    steps = sorted(names)
    with _folder_tree(file) as tree:
        answers = dict(
            zip(
                steps,
                (answer for _, answer in _child().map(_DecodePng(tree), [names[one] for one in steps])),
                strict=True,
            )
        )
    key = answers[0]
    if isinstance(key, RefusedError):
        raise _refused(file, key)
    there = {step: image for step, image in answers.items() if not isinstance(image, RefusedError)}
    order = sorted(there)
    places = SlicePlaces(
        np.array(order, np.int64),
        np.full(len(order), math.nan),
        np.array([there[step].shape[0] for step in order], np.int64),
        np.array([there[step].shape[1] for step in order], np.int64),
    )
    return _Stack(places, 0, None, None, lambda wanted: [there[step] for step in wanted])


def _dicom_stack(wish: ImageWish) -> _Stack:
    """A DICOM image among the others of its series."""
    with _folder_tree(wish.file) as tree:
        (own,) = _look(tree, [wish.file])
        if isinstance(own, RefusedError):
            raise _refused(wish.file, own)
        if not isinstance(own, tuple):
            raise SourceError(
                "the file holds marks, not an image", where=wish.file.name, next_step="name the image they lie on"
            )
        header = _frame_of(own, wish)
        images = own if len(own) > 1 else (header, *_siblings(tree, wish.file, header))
        series = next(one for one in group_series(images) if any(image is header for image in one.images))
    ordered = series.images
    places = SlicePlaces(
        np.arange(len(ordered), dtype=np.int64),
        np.array(series.geometry.z_mm, np.float64),
        np.full(len(ordered), header.storage.rows, np.int64),
        np.full(len(ordered), header.storage.columns, np.int64),
    )

    def decode(wanted: Sequence[int]) -> list[Slice | RefusedError]:
        with _folder_tree(wish.file) as opened:
            answers = _child().map(EncodeSlice(opened), [ordered[number] for number in wanted])
            return [decode_slice(one.pixels) if isinstance(one, EncodedSlice) else one for _, one in answers]

    key = next(number for number, image in enumerate(ordered) if image is header)
    return _Stack(places, key, series.geometry.interval_mm, header.spacing_xy_mm, decode)


def _look(tree: SourceTree, files: Sequence[Path]) -> list[object]:
    """What each file is: headers of images, marks, or a refusal."""
    members = []
    for file in files:
        status = file.stat()
        members.append(Member(0, file.name, status.st_size, status.st_mtime_ns))
    return [answer for _, answer in _child().map(LookAtFile(tree), members)]


def _frame_of(images: tuple[ImageHeader, ...], wish: ImageWish) -> ImageHeader:
    count = len(images)
    if wish.frame is None and count > 1:
        raise UsageError(
            f"the file holds {count} slices", where=wish.file.name, next_step=f"say which with --slice, 1 to {count}"
        )
    frame = wish.frame or 1
    if not 1 <= frame <= count:
        raise UsageError(
            f"the file holds {count} slices, there is no slice {frame}", where="--slice", next_step=f"give 1 to {count}"
        )
    return images[frame - 1]


def _siblings(tree: SourceTree, file: Path, header: ImageHeader) -> list[ImageHeader]:
    """Images of the same series beside a file; none where the folder holds too much to look through."""
    try:
        others = sorted(one for one in file.absolute().parent.iterdir() if one.name != file.name and one.is_file())
    except OSError:
        return []
    if not others or len(others) > _MOST_SIBLINGS:
        return []
    found = [image for answer in _look(tree, others) if isinstance(answer, tuple) for image in answer]
    wanted = (header.series.study_uid, header.series.series_uid)
    return [
        image
        for image in found
        if (image.series.study_uid, image.series.series_uid) == wanted and image.sop_uid != header.sop_uid
    ]
