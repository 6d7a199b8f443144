"""Similar lesions: the nearest vectors of one feature set, among the lesions that a condition leaves.

The condition is applied before ranking. Without one, sets with an approximate index are asked through it; with one,
the lesions it leaves are compared one by one, so the answer is exact whatever the index.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import StoreError, UnknownLesionError, UsageError
from store.features import FeatureSet, find_set, open_vectors
from store.nearest import LARGEST_NUMBER, Neighbours, nearest, ranked
from store.selection import lesions_where
from store.vectors import Vectors

if TYPE_CHECKING:
    import duckdb

    from store.indexes import ApproximateIndex

# Gathering a part of the matrix beats scanning it whole when the part is small.
_GATHER_BELOW = 0.125
_MOST_NEIGHBOURS = 10_000

HIT_COLUMNS = ("lesion_id", "patient_id", "study_id", "lesion_type", "long_mm", "short_mm")


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked up: a lesion of the store, or a vector."""

    lesion_id: str | None
    vector: NDArray[np.float32]
    lesion_number: int | None
    patient: int | None
    """Code of the patient in `Vectors.patients`."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One similar lesion."""

    rank: int
    distance: float
    lesion_id: str
    patient_id: str
    study_id: str
    lesion_type: str | None
    long_mm: float | None
    short_mm: float | None


class Searcher:
    """One feature set of an open store, ready for any number of questions."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection", path: Path, feature_set: str) -> None:
        """Open a set by name or name@version.

        Raises:
            UsageError: the store has no such set.
        """
        self._connection = connection
        self.feature_set: FeatureSet = find_set(connection, feature_set)
        self.vectors: Vectors = open_vectors(connection, path, self.feature_set)
        self._index: ApproximateIndex | None = None
        self._allowed: tuple[str, NDArray[np.int64]] | None = None

    def queries_for(self, lesion_ids: Sequence[str]) -> tuple[list[Query], list[str], list[str]]:
        """Queries for lesions of the store, the lesions it does not have, and those without a vector in the set."""
        rows = self._connection.execute(
            "SELECT lesion_id, lesion_number FROM lake_rows.lesion_features "
            "WHERE lesion_id IN (SELECT unnest(?::VARCHAR[]))",
            [list(lesion_ids)],
        ).fetchall()
        numbers = dict(rows)
        queries, unknown, without = [], [], []
        for lesion_id in lesion_ids:
            if lesion_id not in numbers:
                unknown.append(lesion_id)
                continue
            at = self.vectors.positions(np.array([numbers[lesion_id]]))
            if not len(at):
                without.append(lesion_id)
                continue
            patient = int(self.vectors.patients[at[0]])
            queries.append(Query(lesion_id, self.vectors.matrix[at[0]], numbers[lesion_id], patient))
        return queries, unknown, without

    def query_for_vector(self, numbers: Sequence[float]) -> Query:
        """A query for a vector of the set's own scale.

        Raises:
            UsageError: it has another dimension, or a number that is none.
        """
        vector = np.asarray(numbers, np.float64)
        # Not a number is not below it either.
        if vector.shape != (self.feature_set.dimension,) or not (np.abs(vector) <= LARGEST_NUMBER).all():
            raise UsageError(
                f"{self.feature_set.feature_set_id} takes {self.feature_set.dimension} finite numbers "
                f"up to {LARGEST_NUMBER:g}, found {len(numbers)}",
                where="--vector",
                next_step="separate them by commas",
            )
        return Query(None, vector.astype(np.float32), None, None)

    def allowed_rows(self, condition: str) -> NDArray[np.int64]:
        """Rows of the set's lesions for which a SQL condition over `lesion_features` holds.

        The last condition's rows are kept: the store does not change under an open connection.

        Raises:
            StoreError: it is no condition, or no lesion with a vector is left.
        """
        if self._allowed and self._allowed[0] == condition:
            return self._allowed[1]
        rows = self.vectors.positions(lesions_where(self._connection, condition))
        if not len(rows):
            raise StoreError(
                "none of the lesions that are left has a vector in the feature set",
                where="--where",
                next_step="widen the condition",
            )
        self._allowed = condition, rows
        return rows

    def search(
        self, queries: Sequence[Query], k: int, *, allowed: NDArray[np.int64] | None = None, same_patient: bool = False
    ) -> list[Neighbours]:
        """The k nearest rows for every query, and all that tie for the last place.

        Args:
            queries: what to look for; a lesion is never its own neighbour.
            k: how many.
            allowed: rows that count, ascending; all of them unless given.
            same_patient: whether lesions of the query's own patient count.

        Raises:
            UsageError: k is out of range.
        """
        if not 1 <= k <= _MOST_NEIGHBOURS:
            raise UsageError(f"between 1 and {_MOST_NEIGHBOURS} neighbours can be asked for", where="-k")
        if not queries:
            return []
        left_out = [self._left_out(query, same_patient=same_patient) for query in queries]
        matrix = np.stack([query.vector for query in queries])
        if allowed is None:
            if self.vectors.index_file is not None:
                return self._search_index(matrix, k, left_out)
            return nearest(self.vectors.matrix, self.vectors.lengths, matrix, k, left_out)
        if len(allowed) < _GATHER_BELOW * len(self.vectors.lesions):
            inside = [np.searchsorted(allowed, np.intersect1d(rows, allowed, assume_unique=True)) for rows in left_out]
            found = nearest(self.vectors.matrix[allowed], self.vectors.lengths[allowed], matrix, k, inside)
            return [Neighbours(allowed[one.rows], one.distances) for one in found]
        refused = np.ones(len(self.vectors.lesions), bool)
        refused[allowed] = False
        merged = [np.concatenate([np.flatnonzero(refused), rows]) for rows in left_out]
        return nearest(self.vectors.matrix, self.vectors.lengths, matrix, k, merged)

    def hits(self, found: Sequence[Neighbours], k: int) -> list[list[Hit]]:
        """Names and features of what was found: the k nearest, lesions at one distance by their names."""
        rows = np.unique(np.concatenate([one.rows for one in found])) if found else np.empty(0, np.int64)
        described = self._describe(self.vectors.lesions[rows])
        answers = []
        for one in found:
            numbers = self.vectors.lesions[one.rows].tolist()
            ordered = sorted(zip(one.distances.tolist(), (described[number] for number in numbers), strict=True))
            answers.append([Hit(rank, distance, *row) for rank, (distance, row) in enumerate(ordered[:k], 1)])
        return answers

    def _left_out(self, query: Query, *, same_patient: bool) -> NDArray[np.int64]:
        if query.lesion_number is None:
            return np.empty(0, np.int64)
        if same_patient:
            return self.vectors.positions(np.array([query.lesion_number]))
        return np.flatnonzero(self.vectors.patients == query.patient)

    def _search_index(
        self, queries: NDArray[np.float32], k: int, left_out: Sequence[NDArray[np.int64]]
    ) -> list[Neighbours]:
        from store.indexes import ApproximateIndex

        if self._index is None and self.vectors.index_file is not None:
            self._index = ApproximateIndex(self.vectors.index_file)
        wanted = k + max(map(len, left_out))
        candidates = self._index.candidates(queries, wanted) if self._index else np.empty((len(queries), 0), np.int64)
        answers = []
        for query, rows, excluded in zip(queries, candidates, left_out, strict=True):
            kept = np.setdiff1d(rows[rows >= 0], excluded)
            answers.append(ranked(self.vectors.matrix, query, kept, k))
        return answers

    def _describe(self, numbers: NDArray[np.int64]) -> Mapping[int, tuple[Any, ...]]:
        columns = ", ".join(HIT_COLUMNS)
        rows = self._connection.execute(
            f"SELECT lesion_number, {columns} FROM lake_rows.lesion_features "  # noqa: S608 (our own names)
            "WHERE lesion_number IN (SELECT unnest(?::BIGINT[]))",
            [numbers.tolist()],
        ).fetchall()
        return {row[0]: row[1:] for row in rows}


def complain_of(unknown: Sequence[str], without: Sequence[str], feature_set: FeatureSet) -> None:
    """Refuse lesions that cannot be looked up.

    Raises:
        UnknownLesionError: the store does not have one.
        UsageError: one has no vector in the set.
    """
    if unknown:
        raise UnknownLesionError(
            "the store has no such lesion",
            where=unknown[0],
            next_step='`lesionary sql "FROM lesions LIMIT 5"` shows some',
        )
    if without:
        raise UsageError(
            f"the lesion has no vector in feature set {feature_set.feature_set_id}",
            where=without[0],
            next_step=f"`lesionary features describe {feature_set.name}` says what it needs",
        )
