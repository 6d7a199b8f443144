"""The lesions that sequences are drawn from: those that have what the cues need, grouped by type and in order of z.

The order makes a lesion's neighbourhood one slice of its group, so that drawing needs neither an n × n table nor a
search tree. May import: lesionary, numpy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionary.anatomy import LESION_TYPES
from lesionary.errors import UsageError
from trainers.triplet.cues import SamplingSettings, refusal
from trainers.triplet.thresholds import ROUNDING


@dataclass(frozen=True, slots=True)
class Group:
    """The lesions of one type (or all, where types do not count), in order of z."""

    rows: NDArray[np.int64]
    """Places among all lesions."""
    location: NDArray[np.float64]
    """(n, 3), nan where location does not count."""
    depth: NDArray[np.float64]
    """z once more, contiguous for the search."""
    size: NDArray[np.float64]
    """(n, 2), normalised."""
    patients: NDArray[np.int64]

    def window(self, at: int, radius: float) -> slice:
        """The places whose z is within `radius` of that of `at`; a few just beyond may be among them."""
        reach = radius * (1 + ROUNDING) + ROUNDING
        first, last = np.searchsorted(self.depth, (self.depth[at] - reach, self.depth[at] + reach))
        return slice(int(first), int(last))

    def location_distances(self, at: int, among: slice | NDArray[np.int64]) -> NDArray[np.float64]:
        """Squared distances of locations to that of `at`."""
        return squared_distances(self.location[among], self.location[at])

    def size_differences(self, at: int, among: slice) -> NDArray[np.float64]:
        """Squared distances of sizes to that of `at`."""
        return squared_distances(self.size[among], self.size[at])


def squared_distances(points: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of (n, k) points to one point of k coordinates."""
    apart = points - centre
    return np.asarray(np.einsum("ij,ij->i", apart, apart))


@dataclass(frozen=True, slots=True)
class Lesions:
    """All lesions as given, and which of them take part."""

    types: NDArray[np.int64]
    locations: NDArray[np.float64]
    sizes: NDArray[np.float64]
    patients: NDArray[np.int64]
    settings: SamplingSettings

    @classmethod
    def checked(
        cls,
        types: NDArray[np.int64],
        locations: NDArray[np.floating],
        sizes_mm: NDArray[np.floating],
        patients: NDArray[np.int64],
        settings: SamplingSettings,
    ) -> "Lesions":
        """Refuse what does not fit together, and lesions of which none can take part."""
        count = len(types)
        shapes = (np.shape(types), np.shape(locations), np.shape(sizes_mm), np.shape(patients))
        if shapes != ((count,), (count, 3), (count, 2), (count,)):
            raise UsageError(f"types, locations, sizes and patients have the shapes {shapes}", where="triplet sampling")
        if count and not -1 <= np.min(types) <= np.max(types) < len(LESION_TYPES):
            raise UsageError(f"a type is not -1 … {len(LESION_TYPES) - 1}", where="triplet sampling")
        sizes = np.asarray(sizes_mm, dtype=np.float64) / settings.size_unit_mm
        lesions = cls(
            np.asarray(types, dtype=np.int64),
            np.asarray(locations, dtype=np.float64),
            sizes,
            np.asarray(patients, dtype=np.int64),
            settings,
        )
        lesions._refuse_unknown()
        return lesions

    def _known(self) -> dict[str, NDArray[np.bool_]]:
        return {
            "type": self.types >= 0,
            "location": np.asarray(np.isfinite(self.locations).all(axis=1)),
            "size": np.asarray(np.isfinite(self.sizes).all(axis=1)),
        }

    def _takes_part(self) -> NDArray[np.bool_]:
        known = [flags for cue, flags in self._known().items() if self.settings.uses(cue)]
        return np.asarray(np.logical_and.reduce(known))

    def _refuse_unknown(self) -> None:
        remedies = {
            "type": 'label them first (pseudo-labels of the seed lesions do), or train with the "location" cue',
            "location": 'locate them first (`lesionary locate`), or train with the "type" cue',
            "size": 'train with the "type+location" cues',
        }
        for cue, flags in self._known().items():
            if self.settings.uses(cue) and not flags.any():
                raise refusal(f"not one of {len(self.types)} lesions has a {cue}", remedies[cue])
        if not self._takes_part().any():
            raise refusal(
                f"not one of {len(self.types)} lesions has all of {', '.join(self.settings.cues.split('+'))}",
                "complete them, or train with fewer cues",
            )

    def groups(self) -> list[Group]:
        """The lesions that take part, by type where types count."""
        rows = np.flatnonzero(self._takes_part())
        uses = self.settings.uses
        key = self.types[rows] if uses("type") else np.zeros_like(rows)
        depth = self.locations[rows, 2] if uses("location") else rows
        order = rows[np.lexsort((rows, depth, key))]
        parts = np.split(order, np.flatnonzero(np.diff(np.sort(key))) + 1)
        return [
            Group(part, self.locations[part], self.locations[part, 2], self.sizes[part], self.patients[part])
            for part in parts
        ]

    def counts(self) -> dict[str, int]:
        """How many there are, and what they lack."""
        missing = {f"without_{cue}": int(np.count_nonzero(~flags)) for cue, flags in self._known().items()}
        return {"lesions": len(self.types), "taking_part": int(np.count_nonzero(self._takes_part())), **missing}
