"""Similar patients: how far apart two patients' sets of lesions are, and which pairs of lesions make it so.

The distance of two sets is the mean of two means: how far each lesion of the one is from its nearest in the other, and
the other way round. It is symmetric, 0 for equal sets, and needs no lesion to have a partner of its own: three
metastases near one another are near a single one. A lesion of the set that was measured in many studies counts as often
as it was measured; a condition (`--where`) can narrow the sets to one study.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import StoreError
from store.features import FeatureSet, find_set, open_vectors
from store.match_runs import require_patient
from store.selection import lesions_where

if TYPE_CHECKING:
    import duckdb

_SINGLE_EPSILON = float(np.finfo(np.float32).eps)
_BLOCK_VALUES = 1 << 23


@dataclass(frozen=True, slots=True)
class LesionPair:
    """A lesion, its nearest one in the other patient, and what that adds to the distance."""

    of: str
    """query or hit: whose lesion looks for its nearest."""
    lesion_id: str
    nearest_lesion_id: str
    distance: float
    adds: float
    """Part of the patients' distance; all pairs together make it."""


@dataclass(frozen=True, slots=True)
class SimilarPatient:
    """One patient near the one that was asked for."""

    rank: int
    distance: float
    patient_id: str
    lesions: int
    pairs: tuple[LesionPair, ...]


@dataclass(frozen=True, slots=True)
class PatientAnswer:
    """Who is similar to a patient."""

    feature_set: FeatureSet
    lesions: int
    """Lesions of the patient that was asked for."""
    hits: tuple[SimilarPatient, ...]


@dataclass(frozen=True, slots=True)
class _Sets:
    """Vectors grouped by patient: rows of one patient follow each other."""

    matrix: NDArray[np.float32]
    lesions: NDArray[np.int64]
    starts: NDArray[np.int64]
    """First row of each patient, and the number of rows behind the last."""


def similar_patients(
    connection: "duckdb.DuckDBPyConnection", path: Path, patient_id: str, *, feature_set: str, k: int,
    where: str | None = None, as_of: str | None = None,
) -> PatientAnswer:  # fmt: skip
    """The k patients whose lesions are nearest to this patient's; condition and day hold for both sides.

    Raises:
        UsageError: no such feature set.
        StoreError: no such patient, a condition that is none, or nothing left to compare.
    """
    require_patient(connection, patient_id)
    found = find_set(connection, feature_set)
    vectors = open_vectors(connection, path, found)
    rows = np.arange(len(vectors.lesions))
    if where is not None or as_of is not None:
        rows = vectors.positions(lesions_where(connection, where, as_of))
    own_numbers = connection.execute(
        "SELECT lesion_number FROM lake_rows.lesion_features WHERE patient_id = ?", [patient_id]
    ).fetchnumpy()["lesion_number"]
    own = np.intersect1d(rows, vectors.positions(np.asarray(own_numbers, np.int64)), assume_unique=True)
    if not len(own):
        raise StoreError(
            f"none of the patient's lesions that are left has a vector in {found.feature_set_id}",
            where="patient", next_step="widen the condition, or choose another --feature-set",
        )  # fmt: skip
    others = rows[vectors.patients[rows] != vectors.patients[own[0]]]
    if not len(others):
        raise StoreError("there is no other patient to compare with", where="patient", next_step="widen the condition")
    codes = vectors.patients[others]
    order = np.argsort(codes, kind="stable")
    starts = np.append(np.flatnonzero(np.diff(codes[order], prepend=-1)), len(order))
    sets = _Sets(vectors.matrix[others[order]], vectors.lesions[others[order]], starts)
    query = np.asarray(vectors.matrix[own])
    nearest = _nearest_sets(query, sets, k)
    names = _names(connection, np.concatenate([vectors.lesions[own], *(_rows_of(sets, one)[1] for _, one in nearest)]))
    hits = tuple(
        _explained(rank, query, vectors.lesions[own], sets, one, names) for rank, (_, one) in enumerate(nearest, 1)
    )
    return PatientAnswer(found, len(own), hits)


def set_distance(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    """The distance of two sets of vectors, (n, d) and (m, d)."""
    distances = _distances(first, second)
    return float((distances.min(axis=1).mean() + distances.min(axis=0).mean()) / 2)


def _nearest_sets(query: NDArray[np.float32], sets: _Sets, k: int) -> list[tuple[float, int]]:
    """Distance and number of the k nearest sets: bounds for all of them, exact distances for those within reach."""
    low, high = (np.concatenate(parts) for parts in zip(*_bounds(query, sets), strict=True))
    k = min(k, len(low))
    reach = np.partition(high, k - 1)[k - 1]
    exact = [(set_distance(query, _rows_of(sets, one)[0]), one) for one in np.flatnonzero(low <= reach).tolist()]
    return sorted(exact)[:k]


def _bounds(query: NDArray[np.float32], sets: _Sets) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """What the distance of each set is at least and at most, from single-precision products, some sets at a time."""
    lengths = np.einsum("ij,ij->i", query, query)
    longest = float(np.sqrt(max(lengths.max(), _longest(sets.matrix))))
    slack = 4 * _SINGLE_EPSILON * (query.shape[1] + 4) * longest**2
    for first, last in _blocks(sets, max(1, _BLOCK_VALUES // max(len(query), query.shape[1]))):
        rows = slice(sets.starts[first], sets.starts[last])
        part = sets.matrix[rows]
        squared = lengths[:, None] - 2 * (query @ part.T) + np.einsum("ij,ij->i", part, part)
        at = (sets.starts[first:last] - sets.starts[first]).astype(np.intp)
        counts = np.diff(sets.starts[first : last + 1])
        bounds = []
        for shift in (-slack, slack):
            distances = np.sqrt(np.maximum(squared + shift, 0.0), dtype=np.float64)
            there = np.minimum.reduceat(distances, at, axis=1).mean(axis=0)
            back = np.add.reduceat(distances.min(axis=0), at) / counts
            bounds.append((there + back) / 2)
        yield bounds[0], bounds[1]


def _longest(matrix: NDArray[np.float32]) -> float:
    return float(np.einsum("ij,ij->i", matrix, matrix).max(initial=0.0))


def _blocks(sets: _Sets, rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of sets of about so many rows together."""
    first, count = 0, len(sets.starts) - 1
    while first < count:
        last = int(np.searchsorted(sets.starts, sets.starts[first] + rows, side="right")) - 1
        last = min(max(last, first + 1), count)
        yield first, last
        first = last


def _rows_of(sets: _Sets, one: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rows = slice(sets.starts[one], sets.starts[one + 1])
    return sets.matrix[rows], sets.lesions[rows]


def _distances(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    distances: NDArray[np.float64] = cdist(first.astype(np.float64), second.astype(np.float64))
    return distances


def _explained(
    rank: int, query: NDArray[np.float32], own: NDArray[np.int64], sets: _Sets, one: int,
    names: dict[int, tuple[str, str]],
) -> SimilarPatient:  # fmt: skip
    vectors, lesions = _rows_of(sets, one)
    distances = _distances(query, vectors)
    pairs = [
        *_pairs("query", distances, own, lesions, names),
        *_pairs("hit", distances.T, lesions, own, names),
    ]
    total = float((distances.min(axis=1).mean() + distances.min(axis=0).mean()) / 2)
    return SimilarPatient(rank, total, names[int(lesions[0])][1], len(lesions), tuple(pairs))


def _pairs(
    of: str, distances: NDArray[np.float64], lesions: NDArray[np.int64], others: NDArray[np.int64],
    names: dict[int, tuple[str, str]],
) -> Iterator[LesionPair]:  # fmt: skip
    for lesion, row in zip(lesions.tolist(), distances, strict=True):
        at = int(row.argmin())
        distance = float(row[at])
        yield LesionPair(of, names[lesion][0], names[int(others[at])][0], distance, distance / (2 * len(lesions)))


def _names(connection: "duckdb.DuckDBPyConnection", numbers: NDArray[np.int64]) -> dict[int, tuple[str, str]]:
    rows = connection.execute(
        "SELECT lesion_number, lesion_id, patient_id FROM lake_rows.lesion_features "
        "WHERE lesion_number IN (SELECT unnest(?::BIGINT[]))",
        [numbers.tolist()],
    ).fetchall()
    return {number: (lesion_id, patient_id) for number, lesion_id, patient_id in rows}
