"""How a slice and its neighbours become a stack for a detector, and boxes go from one to the other and back.

Boxes on a slice are zero-based pixel centres, as numpy counts; boxes on a stack count from its outer edge.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from etl.body import body_box
from etl.patch_geometry import SPACINGS_MM, SlicePlaces, line_sampling, slices_around
from lesionary.stack_schema import StackSettings

# The trunk's extent is found on a thinned image: so much is shown beside it.
_MARGIN_MM = 12.0
# A network halves its maps several times: smaller stacks would vanish.
_SMALLEST_SIDE_PX = 32

_INT16 = np.iinfo(np.int16)


@dataclass(frozen=True, slots=True)
class StackFrame:
    """Which part of a series' slices its stacks show, and how large."""

    left: float
    """Edge of the part on the slice, counted from the slice's own edge, in its pixels."""
    top: float
    scale_x: float
    """Stack pixels in a slice's pixel."""
    scale_y: float
    columns: int
    rows: int

    def to_stack(self, boxes_px: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes (n, 4), or points in pairs, of a slice on the stack."""
        return (boxes_px + 0.5 - self._corner(boxes_px)) * self._scale(boxes_px)

    def to_slice(self, boxes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes (n, 4), or points in pairs, of the stack on its slice."""
        return boxes / self._scale(boxes) + self._corner(boxes) - 0.5

    def _corner(self, pairs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.tile([self.left, self.top], pairs.shape[-1] // 2)

    def _scale(self, pairs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.tile([self.scale_x, self.scale_y], pairs.shape[-1] // 2)


def is_possible_spacing(spacing_xy_mm: tuple[float, float]) -> bool:
    """Whether slices of this pixel spacing can be brought to millimetres."""
    return all(SPACINGS_MM[0] <= one <= SPACINGS_MM[1] for one in spacing_xy_mm)


def frame_for(
    slices: Iterable[NDArray[np.int16]], spacing_xy_mm: tuple[float, float], settings: StackSettings
) -> StackFrame:
    """The frame that shows the body on all of these slices; the whole slice where no body is found.

    Args:
        slices: of one size, at least one.
        spacing_xy_mm: their pixel spacing.
        settings: how large pixels are to be.
    """
    extents = []
    height = width = 0
    for image in slices:
        height, width = image.shape
        extents.append(body_box(image) or (0.0, 0.0, width - 1.0, height - 1.0))
    low = np.min([extent[:2] for extent in extents], axis=0)
    high = np.max([extent[2:] for extent in extents], axis=0) + 1
    margin = _MARGIN_MM / np.array(spacing_xy_mm)
    left, top = np.floor(np.maximum(low - margin, 0))
    right, bottom = np.ceil(np.minimum(high + margin, (width, height)))
    extent_mm = np.array([right - left, bottom - top]) * spacing_xy_mm
    pixel_mm = max(settings.pixel_mm, float(extent_mm.max()) / settings.max_side_px)
    columns, rows = (max(_SMALLEST_SIDE_PX, math.ceil(side / pixel_mm - 1e-6)) for side in extent_mm)
    return StackFrame(
        left=float(left),
        top=float(top),
        scale_x=spacing_xy_mm[0] / pixel_mm,
        scale_y=spacing_xy_mm[1] / pixel_mm,
        columns=columns,
        rows=rows,
    )


class SliceSource(Protocol):
    """Where slices come from: `lesionary.slices.SliceReader`, or a folder that is in no lake."""

    def read(self, series_id: str, slice_index: int) -> NDArray[np.int16]:
        """One slice as (rows, columns) HU."""


class StackMaker:
    """Stacks of one series; each of its slices is read and resampled once while it is near."""

    def __init__(
        self,
        reader: SliceSource,
        series_id: str,
        places: SlicePlaces,
        spacing_z_mm: float | None,
        frame: StackFrame,
        settings: StackSettings,
    ) -> None:
        """Nothing is read yet.

        Args:
            reader: of the series' slices.
            series_id: the series.
            places: its slices.
            spacing_z_mm: stands in where a slice's place is unknown.
            frame: what its stacks show.
            settings: how they are made.
        """
        self._reader = reader
        self._series_id = series_id
        self._places = places
        self._spacing_z_mm = spacing_z_mm
        self._frame = frame
        self._settings = settings
        self._held: dict[int, NDArray[np.float32]] = {}

    def stacks(self, slice_indices: Sequence[int]) -> Iterator[NDArray[np.int16]]:
        """The stacks (slices, rows, columns) around some slices, which must ascend.

        Raises:
            LakeError: a slice is not there, or cannot be read.
        """
        for index in slice_indices:
            mixed = slices_around(
                self._places,
                index,
                self._spacing_z_mm,
                count=self._settings.slices,
                step_mm=self._settings.step_mm,
            )
            used, weights = mixed if mixed is not None else ([index], np.ones((self._settings.slices, 1)))
            # Later stacks begin at later slices.
            self._held = {one: image for one, image in self._held.items() if one >= used[0]}
            for one in used:
                if one not in self._held:
                    self._held[one] = resample(self._reader.read(self._series_id, one), self._frame)
            yield mix([self._held[one] for one in used], weights)


def resample(image: NDArray[np.int16], frame: StackFrame) -> NDArray[np.float32]:
    """The frame's part of a slice, at the frame's size."""
    height, width = image.shape
    first_column, across = line_sampling(
        frame.left - 0.5 + frame.columns / frame.scale_x / 2, frame.scale_x, frame.columns, width
    )
    first_row, down = line_sampling(frame.top - 0.5 + frame.rows / frame.scale_y / 2, frame.scale_y, frame.rows, height)
    part = image[
        first_row : first_row + down.shape[1], first_column : first_column + across.shape[1]
    ].astype(np.float32)  # fmt: skip
    resampled: NDArray[np.float32] = (across @ (down @ part).T).T
    return resampled


def mix(images: Sequence[NDArray[np.float32]], weights: NDArray[np.float64]) -> NDArray[np.int16]:
    """Resampled slices, weighted into the images of a stack, as whole HU."""
    stack = np.empty((len(weights), *images[0].shape), np.int16)
    for number, row in enumerate(weights):
        mixed = np.zeros_like(images[0])
        for image, weight in zip(images, row, strict=True):
            if weight:
                mixed += image * np.float32(weight)
        stack[number] = np.clip(np.rint(mixed), _INT16.min, _INT16.max)
    return stack
