"""Masks as lengths of runs: a box around what is inside, and by turns how many of its pixels lie outside and inside.

Row after row, outside first, so that a mask whose first pixel is inside starts with a run of none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class MaskRuns:
    """One mask on one slice; the box is tight."""

    left_px: int
    """Column of the box's first pixel, zero-based."""
    top_px: int
    columns: int
    rows: int
    runs: tuple[int, ...]
    """Their sum is rows × columns."""

    @property
    def area_px(self) -> int:
        """Pixels inside."""
        return sum(self.runs[1::2])


def encode_mask(mask: NDArray[np.bool_], left_px: int = 0, top_px: int = 0) -> MaskRuns | None:
    """The runs of a mask; None when nothing is inside.

    Args:
        mask: (rows, columns), True inside.
        left_px: column of the mask's first pixel in its slice.
        top_px: row of the mask's first pixel in its slice.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if rows.size == 0:
        return None
    tight = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    changes = np.flatnonzero(np.diff(tight.ravel(), prepend=False, append=not tight[-1, -1]))
    runs = np.diff(changes, prepend=0)
    height, width = tight.shape
    return MaskRuns(left_px + int(columns[0]), top_px + int(rows[0]), width, height, tuple(runs.tolist()))


def decode_runs(runs: Sequence[int], rows: int, columns: int) -> NDArray[np.bool_]:
    """The box's pixels, True inside.

    Raises:
        ValueError: the runs do not fill the box.
    """
    inside = np.arange(len(runs)) % 2 == 1
    if sum(runs) != rows * columns:
        raise ValueError(f"runs over {sum(runs)} pixels in a box of {rows} × {columns}")
    return np.repeat(inside, runs).reshape(rows, columns)


def decode_mask(mask: MaskRuns, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask on a slice of (rows, columns); what lies beyond the slice is cut off."""
    whole = np.zeros(shape, bool)
    box = decode_runs(mask.runs, mask.rows, mask.columns)
    top, left = max(mask.top_px, 0), max(mask.left_px, 0)
    seen = box[top - mask.top_px :, left - mask.left_px :]
    target = whole[top : top + seen.shape[0], left : left + seen.shape[1]]
    target[:] = seen[: target.shape[0], : target.shape[1]]
    return whole


def overlap_px(one: MaskRuns, other: MaskRuns) -> int:
    """Pixels that two masks of one slice share."""
    left, top = max(one.left_px, other.left_px), max(one.top_px, other.top_px)
    right = min(one.left_px + one.columns, other.left_px + other.columns)
    bottom = min(one.top_px + one.rows, other.top_px + other.rows)
    if right <= left or bottom <= top:
        return 0
    parts = [
        decode_runs(mask.runs, mask.rows, mask.columns)[
            top - mask.top_px : bottom - mask.top_px, left - mask.left_px : right - mask.left_px
        ]
        for mask in (one, other)
    ]
    return int(np.count_nonzero(parts[0] & parts[1]))
