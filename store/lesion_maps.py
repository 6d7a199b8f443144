"""Lesions as points on a plane: a feature set laid out by t-SNE or by its principal components, or places in the body.

The same lesions, settings and machine give the same points, whatever order the store has them in: they are laid out by
name, on one thread. t-SNE keeps neighbours together; distances between far groups, and their sizes, mean nothing.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import StoreError, UsageError
from store.features import FeatureSet, no_vector, open_vectors
from store.selection import lesions_where

if TYPE_CHECKING:
    import duckdb

WHERE = "map"
DEFAULT_MOST = 5_000
"""Larger maps are drawn of so many lesions: t-SNE of 5,000 takes about a minute on one core."""
FEWEST_FOR_TSNE = 5

_PERPLEXITY = 30.0
# Beyond, t-SNE works on the principal components, as its authors do.
_COMPONENTS = 50
_COLUMNS = ("location_x", "location_y", "location_z", "long_mm", "short_mm")


class Method(StrEnum):
    """How vectors become points."""

    TSNE = "tsne"
    PCA = "pca"


@dataclass(frozen=True, slots=True)
class MapLesions:
    """The lesions of a map, by name."""

    lesion_ids: tuple[str, ...]
    patient_ids: tuple[str, ...]
    types: tuple[str | None, ...]
    splits: tuple[str | None, ...]
    locations: NDArray[np.float64]
    """(n, 3) normalised x, y, z; nan where unknown."""
    sizes_mm: NDArray[np.float64]
    """(n, 2) long and short diameter; nan where unknown."""
    rows: NDArray[np.int64]
    """(n,) rows among the vectors of the set; empty without one."""
    asked: int
    """Lesions that were meant, before those went that cannot be placed or are too many."""
    placeable: int
    """Of these, how many have what the map needs."""

    def __len__(self) -> int:
        return len(self.lesion_ids)


@dataclass(frozen=True, slots=True)
class Layout:
    """Points, and how they came about."""

    points: NDArray[np.float64]
    """(n, 2)"""
    method: Method
    seed: int
    dimension: int
    components: int | None
    """Principal components that t-SNE worked on, where the vectors are longer."""
    perplexity: float | None
    """Of t-SNE."""
    explained: tuple[float, float] | None
    """Of the principal components: their shares of the variance."""


def lesions_with_vectors(
    connection: "duckdb.DuckDBPyConnection",
    path: Path,
    feature_set: FeatureSet,
    where: str | None,
    as_of: str | None,
    *,
    most: int = DEFAULT_MOST,
    seed: int = 0,
) -> tuple[MapLesions, NDArray[np.float32]]:
    """Lesions that have a vector in a set, at most so many of them, and their vectors.

    Raises:
        StoreError: the condition is none, or nothing is left.
    """
    asked = lesions_where(connection, where, as_of)
    vectors = open_vectors(connection, path, feature_set)
    there = vectors.positions(asked)
    if not len(there):
        raise no_vector(feature_set, len(asked), WHERE)
    found = _read(connection, vectors.lesions[there], there)
    found = replace(_some(found, most, seed), asked=len(asked), placeable=len(there))
    return found, np.asarray(vectors.matrix[found.rows])


def lesions_in_body(
    connection: "duckdb.DuckDBPyConnection",
    where: str | None,
    as_of: str | None,
    *,
    most: int = DEFAULT_MOST,
    seed: int = 0,
) -> MapLesions:
    """Lesions whose place in the body is known, at most so many of them.

    Raises:
        StoreError: the condition is none, or nothing is left.
    """
    asked = lesions_where(connection, where, as_of)
    every = _read(connection, asked, np.empty(0, np.int64))
    known = np.flatnonzero(~np.isnan(every.locations).any(axis=1))
    if not len(known):
        raise StoreError(
            f"none of the {len(asked)} lesions has a place in the body",
            where=WHERE,
            next_step="`lesionary features describe location` says what they lack",
        )
    return replace(_some(_take(every, known), most, seed), asked=len(asked), placeable=len(known))


def lay_out(vectors: NDArray[np.float32], method: Method, *, seed: int = 0, perplexity: float | None = None) -> Layout:
    """Put vectors on a plane.

    Args:
        vectors: (n, d).
        method: how.
        seed: of t-SNE's and the components' random numbers.
        perplexity: about how many neighbours t-SNE keeps together; 30, less for small sets, unless given.

    Raises:
        UsageError: there are too few vectors, they are all equal, or one is not finite.
    """
    count, dimension = vectors.shape
    fewest = FEWEST_FOR_TSNE if method is Method.TSNE else 2
    if count < fewest:
        less = "; --method pca takes two" if method is Method.TSNE and count > 1 else ""
        raise UsageError(
            f"{count} lesion{' is' if count == 1 else 's are'} too few for a map", where=WHERE,
            next_step=f"widen the condition{less}",
        )  # fmt: skip
    values = vectors.astype(np.float64)
    if not np.isfinite(values).all():
        raise UsageError(
            f"{int((~np.isfinite(values)).any(axis=1).sum())} of {count} vectors hold values that are not finite",
            where="feature set",
            next_step="leave those lesions out",
        )
    if (values == values[0]).all():
        raise UsageError(
            f"all {count} vectors are equal: there is nothing to map", where="feature set", next_step="take another set"
        )
    from threadpoolctl import threadpool_limits

    # Sums over several threads differ in their last digits from run to run, and t-SNE makes much of it.
    with threadpool_limits(limits=1):
        if method is Method.PCA:
            points, shares = _principal(values, 2, seed)
            return Layout(points, method, seed, dimension, None, None, (float(shares[0]), float(shares[1])))
        return _tsne(values, seed, _checked_perplexity(perplexity, count))


def _tsne(values: NDArray[np.float64], seed: int, perplexity: float) -> Layout:
    from sklearn.manifold import TSNE

    count, dimension = values.shape
    components = min(_COMPONENTS, count) if dimension > _COMPONENTS else None
    reduced = values if components is None else _principal(values, components, seed)[0]
    if dimension == 1:
        # It begins with two principal components.
        reduced = np.column_stack([reduced, np.zeros(count)])
    found = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed).fit_transform(reduced)
    return Layout(found.astype(np.float64), Method.TSNE, seed, dimension, components, perplexity, None)


def _principal(values: NDArray[np.float64], wanted: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, wanted) principal components and their shares of the variance; 0 where vectors have fewer."""
    from sklearn.decomposition import PCA

    there = min(wanted, *values.shape)
    fitted = PCA(there, random_state=seed)
    points, shares = np.zeros((len(values), wanted)), np.zeros(wanted)
    points[:, :there] = fitted.fit_transform(values)
    shares[:there] = fitted.explained_variance_ratio_
    return points, shares


def _checked_perplexity(given: float | None, count: int) -> float:
    """Three times as many neighbours are looked at, so a small set has a small one."""
    if given is None:
        return min(_PERPLEXITY, (count - 1) / 3)
    if not 1 <= given < count:
        raise UsageError(
            f"the perplexity must be at least 1 and below the number of lesions, {count}", where="--perplexity"
        )
    return given


def _read(connection: "duckdb.DuckDBPyConnection", numbers: NDArray[np.int64], rows: NDArray[np.int64]) -> MapLesions:
    """What is known of lesions, by name.

    Args:
        connection: on the store.
        numbers: ascending.
        rows: of the vectors of the same lesions; empty without any.
    """
    found = connection.execute(
        f"SELECT lesion_id, patient_id, lesion_type, split, {', '.join(_COLUMNS)} "  # noqa: S608 (our own)
        "FROM lake_rows.lesion_features WHERE lesion_number IN (SELECT unnest(?::BIGINT[])) ORDER BY lesion_number",
        [numbers.tolist()],
    ).fetchall()
    measures = np.array([row[4:] for row in found], np.float64).reshape(len(found), len(_COLUMNS))
    lesions = MapLesions(
        tuple(row[0] for row in found),
        tuple(row[1] for row in found),
        tuple(row[2] for row in found),
        tuple(row[3] for row in found),
        measures[:, :3],
        measures[:, 3:],
        rows,
        len(found),
        len(found),
    )
    return _take(lesions, np.array(sorted(range(len(found)), key=lesions.lesion_ids.__getitem__), np.int64))


def _some(lesions: MapLesions, most: int, seed: int) -> MapLesions:
    """At most so many, drawn with the seed."""
    if len(lesions) <= most:
        return lesions
    chosen = np.random.default_rng(seed).choice(len(lesions), most, replace=False)
    return _take(lesions, np.sort(chosen))


def _take(lesions: MapLesions, at: NDArray[np.int64]) -> MapLesions:
    places = at.tolist()
    return replace(
        lesions,
        lesion_ids=tuple(lesions.lesion_ids[place] for place in places),
        patient_ids=tuple(lesions.patient_ids[place] for place in places),
        types=tuple(lesions.types[place] for place in places),
        splits=tuple(lesions.splits[place] for place in places),
        locations=lesions.locations[at],
        sizes_mm=lesions.sizes_mm[at],
        rows=lesions.rows[at] if len(lesions.rows) else lesions.rows,
    )
