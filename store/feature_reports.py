"""What a feature set is like, and how two of them differ: for `lesionary features describe` and `compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from store.features import BUILT_IN_SETS, FeatureSet, open_vectors
from store.nearest import nearest
from store.vectors import Vectors

if TYPE_CHECKING:
    import duckdb

_SAMPLED_LESIONS = 500
_SAMPLED_PAIRS = 5_000
_NEIGHBOURS = 10
_SEED = 20180
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True, slots=True)
class SetReport:
    """One feature set beside the lesions of the store."""

    feature_set: FeatureSet
    lesions_in_store: int
    without_vector: int
    lacking: dict[str, int]
    """For built-in sets: what the lesions without a vector lack, and how many lack it."""
    nearest_other_patient: dict[str, float]
    """Quantiles of the distance to the nearest lesion of another patient, over sampled lesions."""
    any_two_lesions: dict[str, float]
    """Quantiles of the distance between two lesions drawn at random."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two feature sets over the lesions that have a vector in both."""

    in_both: int
    only_first: int
    only_second: int
    shared_neighbours: float | None
    """Mean share of the ten nearest lesions that the two have in common; chance is 10 over the lesions in both."""
    rank_correlation: float | None
    """Spearman's, between the distances of sampled pairs."""


def describe(connection: "duckdb.DuckDBPyConnection", path: Path, found: FeatureSet) -> SetReport:
    """Look at a set; distances are sampled, with a fixed seed."""
    ((lesions,),) = connection.execute(f"SELECT count(*) FROM {found.members.rows}").fetchall()  # noqa: S608 (our own)
    vectors = open_vectors(connection, path, found)
    return SetReport(
        found, lesions, lesions - found.lesions, _lacking(connection, found), _to_other_patients(vectors),
        _quantiles(_pair_distances(vectors.matrix, _pairs(len(vectors.lesions)))),
    )  # fmt: skip


def compare(connection: "duckdb.DuckDBPyConnection", path: Path, first: FeatureSet, second: FeatureSet) -> Comparison:
    """How far two sets agree on what is similar."""
    one, other = (open_vectors(connection, path, found) for found in (first, second))
    both = np.intersect1d(one.lesions, other.lesions, assume_unique=True)
    matrices = [vectors.matrix[vectors.positions(both)] for vectors in (one, other)]
    lengths = [vectors.lengths[vectors.positions(both)] for vectors in (one, other)]
    shared = correlation = None
    if len(both) > 2:
        from scipy.stats import spearmanr

        sample = _sample(len(both))
        near = [_neighbours(matrix, length, sample) for matrix, length in zip(matrices, lengths, strict=True)]
        k = min(_NEIGHBOURS, len(both) - 1)
        shared = float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(*near, strict=True)]))
        pairs = _pairs(len(both))
        distances = [_pair_distances(matrix, pairs) for matrix in matrices]
        if all(np.ptp(distance) > 0 for distance in distances):
            correlation = float(spearmanr(*distances).statistic)
    return Comparison(len(both), len(one.lesions) - len(both), len(other.lesions) - len(both), shared, correlation)


def _lacking(connection: "duckdb.DuckDBPyConnection", found: FeatureSet) -> dict[str, int]:
    numbers = next((one.numbers for one in BUILT_IN_SETS if one.set_id == found.feature_set_id), ())
    columns = [number.split(" ", maxsplit=1)[0] for number in numbers]
    if not columns:
        return {}
    counts = ", ".join(f"count(*) - count({column})" for column in columns)
    (row,) = connection.execute(f"SELECT {counts} FROM lake_rows.lesion_features").fetchall()  # noqa: S608 (our own)
    return {column: count for column, count in zip(columns, row, strict=True) if count}


def _to_other_patients(vectors: Vectors) -> dict[str, float]:
    sample = _sample(len(vectors.lesions))
    own = [np.flatnonzero(vectors.patients == vectors.patients[row]) for row in sample]
    found = nearest(vectors.matrix, vectors.lengths, np.asarray(vectors.matrix[sample]), 1, own)
    return _quantiles(np.array([one.distances[0] for one in found if len(one.distances)]))


def _neighbours(
    matrix: NDArray[np.float32], lengths: NDArray[np.float32], sample: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    found = nearest(matrix, lengths, matrix[sample], _NEIGHBOURS, [np.array([row]) for row in sample])
    return [one.rows[:_NEIGHBOURS] for one in found]


def _sample(rows: int) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(_SEED).choice(rows, min(rows, _SAMPLED_LESIONS), replace=False))


def _pairs(rows: int) -> NDArray[np.int64]:
    """(p, 2) rows drawn at random, two different ones each."""
    if rows < 2:
        return np.empty((0, 2), np.int64)
    generator = np.random.default_rng(_SEED)
    first = generator.integers(rows, size=_SAMPLED_PAIRS)
    return np.column_stack([first, (first + generator.integers(1, rows, size=_SAMPLED_PAIRS)) % rows])


def _pair_distances(matrix: NDArray[np.float32], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    distances: NDArray[np.float64] = np.linalg.norm(
        matrix[pairs[:, 0]].astype(np.float64) - matrix[pairs[:, 1]].astype(np.float64), axis=1
    )
    return distances


def _quantiles(values: NDArray[np.float64]) -> dict[str, float]:
    if not len(values):
        return {}
    return {
        f"{share:.0%}": float(value) for share, value in zip(_QUANTILES, np.quantile(values, _QUANTILES), strict=True)
    }
