"""Similar lesions: the nearest vectors of one feature set, among the lesions that a condition leaves.

Lesions are looked up and found, or detections: a model's vectors of either lie in two sets, and compare across them.
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
from lesionary.identifiers import detections_set, is_detection
from store.features import FeatureSet, find_set, list_sets, open_vectors
from store.members import DETECTIONS, LESIONS, Members
from store.nearest import LARGEST_NUMBER, Neighbours, nearest, ranked
from store.selection import lesions_where
from store.vectors import Vectors

if TYPE_CHECKING:
    import duckdb

    from store.indexes import ApproximateIndex

# Gathering a part of the matrix beats scanning it whole when the part is small.
_GATHER_BELOW = 0.125
_MOST_NEIGHBOURS = 10_000

# Codes of patients count from 1.
_NO_PATIENT = 0


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked up: a lesion of the store, a detection, or a vector."""

    lesion_id: str | None
    vector: NDArray[np.float32]
    lesion_number: int | None
    patient: int
    """Code of the patient in the `Vectors.patients` that are searched; 0 for nobody in there."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One similar lesion, or detection."""

    rank: int
    distance: float
    lesion_id: str
    patient_id: str
    study_id: str
    lesion_type: str | None
    """Of a detection what its category is called."""
    long_mm: float | None
    short_mm: float | None


class Searcher:
    """One feature set of an open store, ready for any number of questions."""

    def __init__(
        self, connection: "duckdb.DuckDBPyConnection", path: Path, feature_set: str, *, among: Members = LESIONS
    ) -> None:
        """Open a set by name or name@version.

        Args:
            connection: on the store.
            path: of the store.
            feature_set: of marked lesions.
            among: what is searched: lesions, or detections by the same model's vectors.

        Raises:
            UsageError: the store has no such set, or none of such detections.
        """
        self._connection = connection
        self._path = path
        self._named = find_set(connection, feature_set)
        if self._named.members is DETECTIONS:
            raise UsageError(
                f"{self._named.feature_set_id} holds vectors of detections",
                where="--feature-set",
                next_step="name the set of the same model's lesions, with --among detections",
            )
        self._opened: dict[str, Vectors] = {}
        found = self._named if among is LESIONS else self._detections()
        if found is None:
            raise UsageError(
                f"the store has no vectors of detections beside {self._named.feature_set_id}",
                where="--among",
                next_step="run `lesionary embed --detections DETECTOR`, then `lesionary sync`",
            )
        self.feature_set: FeatureSet = found
        self.vectors: Vectors = self._open(found)
        self._index: ApproximateIndex | None = None
        self._allowed: tuple[str, NDArray[np.int64]] | None = None

    def queries_for(self, lesion_ids: Sequence[str]) -> tuple[list[Query], list[str], list[str]]:
        """Queries for lesions and detections of the store, those it does not have, and those without a vector."""
        known = self._numbers_of(lesion_ids)
        elsewhere = {patient for _, patient, source in known.values() if source != self.feature_set}
        codes = self._patient_codes(elsewhere) if elsewhere else {}
        queries, unknown, without = [], [], []
        for lesion_id in lesion_ids:
            if lesion_id not in known:
                unknown.append(lesion_id)
                continue
            number, patient_id, source = known[lesion_id]
            vectors = None if source is None else self._open(source)
            at = vectors.positions(np.array([number])) if vectors else np.empty(0, np.int64)
            if vectors is None or not len(at):
                without.append(lesion_id)
                continue
            patient = vectors.patients[at[0]] if source == self.feature_set else codes.get(patient_id, _NO_PATIENT)
            queries.append(Query(lesion_id, vectors.matrix[at[0]], number, int(patient)))
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
        return Query(None, vector.astype(np.float32), None, _NO_PATIENT)

    def allowed_rows(self, condition: str) -> NDArray[np.int64]:
        """Rows of the set for whose lesions, or detections, a SQL condition over their view holds.

        The last condition's rows are kept: the store does not change under an open connection.

        Raises:
            StoreError: it is no condition, or no lesion with a vector is left.
        """
        if self._allowed and self._allowed[0] == condition:
            return self._allowed[1]
        members = self.feature_set.members
        rows = self.vectors.positions(lesions_where(self._connection, condition, members=members))
        if not len(rows):
            raise StoreError(
                f"none of the {members.noun}s that are left has a vector in the feature set",
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

    def _numbers_of(self, lesion_ids: Sequence[str]) -> dict[str, tuple[int, str, FeatureSet | None]]:
        """Number, patient, and the set that should have a vector, of those that the store has."""
        known: dict[str, tuple[int, str, FeatureSet | None]] = {}
        for members in (LESIONS, DETECTIONS):
            asked = [name for name in lesion_ids if name not in known]
            if not asked:
                break
            rows = self._connection.execute(
                f"SELECT lesion_id, lesion_number, patient_id FROM {members.rows} "  # noqa: S608 (our own)
                "WHERE lesion_id IN (SELECT unnest(?::VARCHAR[]))",
                [asked],
            ).fetchall()
            source = self._named if members is LESIONS or not rows else self._detections()
            known |= {name: (number, patient, source) for name, number, patient in rows}
        return known

    def _open(self, found: FeatureSet) -> Vectors:
        if found.feature_set_id not in self._opened:
            self._opened[found.feature_set_id] = open_vectors(self._connection, self._path, found)
        return self._opened[found.feature_set_id]

    def _detections(self) -> FeatureSet | None:
        """The set with detections' vectors by the model of the named set."""
        name = detections_set(self._named.name)
        return next(
            (
                one
                for one in list_sets(self._connection)
                if (one.name, one.version, one.model_id) == (name, self._named.version, self._named.model_id)
            ),
            None,
        )

    def _patient_codes(self, patient_ids: set[str]) -> dict[str, int]:
        """Codes of patients in the set that is searched; those with nothing in there have none."""
        rows = self._connection.execute(
            f"SELECT lesion_number, patient_id FROM {self.feature_set.members.rows} "  # noqa: S608 (our own)
            "WHERE patient_id IN (SELECT unnest(?::VARCHAR[])) ORDER BY lesion_number",
            [sorted(patient_ids)],
        ).fetchnumpy()
        numbers = rows["lesion_number"].astype(np.int64)
        at = np.searchsorted(self.vectors.lesions, numbers)
        at[at == len(self.vectors.lesions)] = 0
        there = np.flatnonzero(self.vectors.lesions[at] == numbers) if len(self.vectors.lesions) else ()
        return {rows["patient_id"][row]: int(self.vectors.patients[at[row]]) for row in there}

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
        members = self.feature_set.members
        columns = ", ".join(members.described_by)
        rows = self._connection.execute(
            f"SELECT lesion_number, {columns} FROM {members.wide} "  # noqa: S608 (our own names)
            "WHERE lesion_number IN (SELECT unnest(?::BIGINT[]))",
            [numbers.tolist()],
        ).fetchall()
        return {row[0]: row[1:] for row in rows}


def newest_with_detections(connection: "duckdb.DuckDBPyConnection") -> str:
    """The newest set of lesions beside which detections have vectors by the same model.

    Raises:
        StoreError: there is none.
    """
    sets = {(one.name, one.version): one for one in list_sets(connection)}
    pairs = [
        (other.created_at, one.feature_set_id)
        for (name, version), one in sets.items()
        if (other := sets.get((detections_set(name), version))) is not None and other.model_id == one.model_id
    ]
    if not pairs:
        raise StoreError(
            "no detection has a vector", next_step="run `lesionary embed --detections DETECTOR`, then `lesionary sync`"
        )
    return max(pairs)[1]


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
    if without and is_detection(without[0]):
        raise UsageError(
            f"the detection has no vector beside feature set {feature_set.feature_set_id}",
            where=without[0],
            next_step="`lesionary embed --detections DETECTOR` gives it one, by a model; then run `lesionary sync`",
        )
    if without:
        raise UsageError(
            f"the lesion has no vector in feature set {feature_set.feature_set_id}",
            where=without[0],
            next_step=f"`lesionary features describe {feature_set.name}` says what it needs",
        )
