"""Lesions as a truth file names them, found among those that are given."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError


@dataclass(frozen=True)
class KnownLesions:
    """The lesions a truth is about, one row each."""

    lesion_ids: Sequence[str]
    patient_ids: Sequence[str]
    series_ids: Sequence[str]
    """With the namespace in front: dl-000016_01_01."""
    slice_indices: NDArray[np.int64]
    points_px: NDArray[np.float64]
    """(n, 8): x and y of the four ends, long axis first; nan where an end is not known."""
    first_centers: NDArray[np.float64]
    """(n,): both coordinates of the first pixel's centre (`lesionary.recist.FIRST_CENTERS`)."""

    @cached_property
    def row_of(self) -> dict[str, int]:
        """The row of each lesion name."""
        return {name: row for row, name in enumerate(self.lesion_ids)}

    @cached_property
    def rows_on(self) -> dict[tuple[str, int], list[int]]:
        """The rows on each slice, by series with its namespace and slice index."""
        found: dict[tuple[str, int], list[int]] = {}
        for row, (series, index) in enumerate(zip(self.series_ids, self.slice_indices.tolist(), strict=True)):
            found.setdefault((series, index), []).append(row)
        return found

    @cached_property
    def namespaces(self) -> list[str]:
        """The namespaces of all series, sorted."""
        return sorted({series.partition("-")[0] for series in self.series_ids})


@dataclass(frozen=True, slots=True)
class Mention:
    """A lesion as a file names it: `row` among the given ones, None if it is not there."""

    label: Hashable
    """Two mentions of one lesion have one label, whether it was found or not."""
    row: int | None
    text: str


def in_one_namespace(
    path: Path, find: Callable[[str], list[int | None]], known: KnownLesions, namespace: str | None
) -> list[int | None]:
    """What `find` finds in the namespace asked for, or in the only one where it finds something.

    Raises:
        UsageError: it finds something in two.
    """
    if namespace is not None:
        return find(namespace)
    tried = {space: find(space) for space in known.namespaces}
    fitting = [space for space, rows in tried.items() if any(row is not None for row in rows)]
    if len(fitting) > 1:
        raise UsageError(
            f"it fits lesions of several namespaces: {', '.join(fitting)}",
            where=path.name,
            next_step="name one of them",
        )
    return tried[fitting[0]] if fitting else find("")
