"""The lesions that several feature sets all have, and where each has them: sets are compared on the same ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import StoreError
from store.features import FeatureSet, no_vector, open_vectors
from store.selection import lesion_names
from store.vectors import Vectors

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True, slots=True)
class SharedLesions:
    """Lesions with a vector in every set, by ascending number."""

    numbers: NDArray[np.int64]
    lesion_ids: frozenset[str]
    vectors: Mapping[str, Vectors]
    """By set."""
    rows: Mapping[str, NDArray[np.int64]]
    """Of each set's vectors."""
    with_vector: Mapping[str, int]
    """How many of the lesions asked for each set has."""

    @classmethod
    def of(
        cls,
        connection: "duckdb.DuckDBPyConnection",
        path: Path,
        sets: Sequence[FeatureSet],
        asked: NDArray[np.int64],
        where: str,
    ) -> "SharedLesions":
        """Those of the lesions asked for that every set has; none without a set.

        Args:
            connection: on the store.
            path: of the store.
            sets: any number.
            asked: numbers of lesions, ascending.
            where: what asks, for refusals.

        Raises:
            StoreError: no lesion is left.
        """
        vectors, with_vector = {}, {}
        numbers = asked if sets else asked[:0]
        for one in sets:
            opened = open_vectors(connection, path, one)
            there = opened.lesions[opened.positions(asked)]
            if not len(there):
                raise no_vector(one, len(asked), where)
            vectors[one.feature_set_id], with_vector[one.feature_set_id] = opened, len(there)
            numbers = np.intersect1d(numbers, there, assume_unique=True)
        if sets and not len(numbers):
            listed = ", ".join(f"{name} {count:,}" for name, count in with_vector.items())
            raise StoreError(
                f"no lesion has a vector in every feature set ({listed})",
                where=where,
                next_step="leave a set out, or embed the lesions that it lacks",
            )
        names = lesion_names(connection, numbers)
        rows = {name: opened.positions(numbers) for name, opened in vectors.items()}
        return cls(numbers, frozenset(names), vectors, rows, with_vector)
