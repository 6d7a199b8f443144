"""What a detector looks at: a slice with its neighbours as a stack of images; its cache, and what is found on it.

A stack is a few images of one size, the key slice in the middle, equal steps apart, all pixels of one size in
millimetres, int16 HU; what lies beyond the body is cut off. Boxes on a stack count from its outer edge, so that pixel 0
reaches from 0 to 1. How a slice becomes a stack is in `etl/stack_geometry.py`.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lesionary.errors import UsageError
from lesionary.settings import require_ranges

STACK_KIND = "stacks"

ONE_CLASS = 0
"""The category of whatever a detector of one class finds."""


@dataclass(frozen=True, slots=True)
class StackSettings:
    """How slices become stacks."""

    pixel_mm: float = 0.8
    slices: int = 3
    """Odd: the key slice and as many on either side."""
    step_mm: float = 2.0
    max_side_px: int = 512
    """Slices that would be longer get larger pixels."""

    def __post_init__(self) -> None:
        """Refuse what could not be made.

        Raises:
            UsageError: a value is out of its range.
        """
        require_ranges(
            self,
            ("pixel_mm", 0.2, 8.0),
            ("slices", 1, 27),
            ("step_mm", 0.2, 20.0),
            ("max_side_px", 32, 2048),
        )
        if self.slices % 2 == 0:
            raise UsageError(f"slices must be an odd number, found {self.slices}")


@dataclass(frozen=True, slots=True)
class Found:
    """What a detector finds on one stack, surest first."""

    boxes: NDArray[np.float32]
    """(n, 4): x0, y0, x1, y1 in pixels of the stack, padded as the detector was taught."""
    scores: NDArray[np.float32]
    """(n,): 0 to 1."""
    categories: NDArray[np.int64]
    """(n,): `ONE_CLASS` for a detector of one class."""


class FindLesions(Protocol):
    """A detector."""

    def __call__(self, stacks: NDArray[np.int16], /) -> list[Found]:
        """Look at stacks of one size: (n, slices, rows, columns) HU."""


_BOXES = pa.list_(pa.list_(pa.float32(), 4))

STACKS = pa.schema(
    [
        pa.field("series_id", pa.string(), nullable=False),
        pa.field("patient_id", pa.string(), nullable=False),
        pa.field("study_id", pa.string(), nullable=False),
        pa.field("slice_index", pa.int32(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("rows", pa.int32(), nullable=False),
        pa.field("columns", pa.int32(), nullable=False),
        pa.field("scale_x", pa.float64(), nullable=False, metadata={"meaning": "stack pixels in a slice's pixel"}),
        pa.field("scale_y", pa.float64(), nullable=False, metadata={"meaning": "stack pixels in a slice's pixel"}),
        pa.field("lesion_ids", pa.list_(pa.string()), nullable=False, metadata={"meaning": "marked on this slice"}),
        pa.field("boxes", _BOXES, nullable=False, metadata={"meaning": "of the diameters' ends, without padding"}),
        pa.field(
            "axes",
            pa.list_(pa.list_(pa.float32(), 8)),
            nullable=False,
            metadata={"meaning": "ends of the long, then of the short diameter, x and y; NaN where there is none"},
        ),
        pa.field("types", pa.list_(pa.string()), nullable=False, metadata={"meaning": "the lesions' types, or null"}),
        pa.field("long_mm", pa.list_(pa.float32()), nullable=False),
        pa.field("short_mm", pa.list_(pa.float32()), nullable=False),
        pa.field("noisy", pa.list_(pa.bool_()), nullable=False, metadata={"meaning": "the source doubts the mark"}),
        pa.field(
            "pixels",
            pa.list_(pa.large_binary()),
            nullable=False,
            metadata={"meaning": "slice by slice, each encoded by lesionary/pixels.py"},
        ),
    ]
)
