"""What evaluations are made of, read from the store: labelled vectors, and lesions as truth files name them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.anatomy import LESION_TYPES
from lesionary.recist import FIRST_CENTERS
from lesionary.schema import COORDINATE_COLUMNS
from store.evaluate import MatchingReport, Progress, evaluate_matching
from store.features import FeatureSet, no_vector, open_vectors
from store.match_runs import MatchSettings, marks_to_match, thresholds_for
from store.matching import Sightings, Thresholds, match
from store.retrieval_scores import Labelled
from store.selection import lesions_where
from store.truth_mentions import KnownLesions
from store.truth_pairs import TruthGroups, read_truth
from store.vectors import Vectors

if TYPE_CHECKING:
    import duckdb

_MEASURES = ("location_x", "location_y", "location_z", "long_mm", "short_mm")
_UNKNOWN_TYPE = -1


def labelled_lesions(
    connection: "duckdb.DuckDBPyConnection", path: Path, feature_set: FeatureSet, where: str | None, as_of: str | None
) -> Labelled:
    """The lesions with a vector in a set, and what is known of their type, place and size.

    Args:
        connection: on the store.
        path: of the store.
        feature_set: the set.
        where: a condition of the person's; those it leaves out are neither queries nor hits.
        as_of: a day, see `store.selection`.

    Raises:
        StoreError: the condition is none, or nothing is left.
    """
    vectors = open_vectors(connection, path, feature_set)
    wanted = lesions_where(connection, where, as_of)
    rows = vectors.positions(wanted)
    if not len(rows):
        raise no_vector(feature_set, len(wanted), "evaluate")
    return labelled_rows(connection, vectors, rows)


def labelled_rows(connection: "duckdb.DuckDBPyConnection", vectors: Vectors, rows: NDArray[np.int64]) -> Labelled:
    """What is known of the lesions in some rows of a set's vectors.

    Args:
        connection: on the store.
        vectors: of the set.
        rows: ascending.
    """
    found = connection.execute(
        f"SELECT coalesce(list_position(?, lesion_type), 0) - 1 AS kind, {', '.join(_MEASURES)} "  # noqa: S608
        "FROM lake_rows.lesion_features WHERE lesion_number IN (SELECT unnest(?::BIGINT[])) ORDER BY lesion_number",
        [list(LESION_TYPES), vectors.lesions[rows].tolist()],
    ).fetchnumpy()
    x, y, z, long_mm, short_mm = (_with_nan(found[name]) for name in _MEASURES)
    return Labelled(
        vectors=np.asarray(vectors.matrix[rows]),
        patients=vectors.patients[rows].astype(np.int64),
        types=np.ma.filled(found["kind"], _UNKNOWN_TYPE).astype(np.int64),
        locations=np.column_stack([x, y, z]),
        sizes_mm=np.column_stack([long_mm, short_mm]),
    )


def evaluate_matching_in_store(
    connection: "duckdb.DuckDBPyConnection",
    path: Path,
    feature_set: FeatureSet,
    truth_file: Path,
    settings: MatchSettings,
    *,
    namespace: str | None = None,
    t2_values: Sequence[float] | None = None,
    progress: Progress = lambda _: None,
) -> MatchingReport:
    """Match as `settings` say and compare with a truth file, at its thresholds and over a sweep of T2.

    Args:
        connection: on the store.
        path: of the store.
        feature_set: the set that `settings` name.
        truth_file: see `store.truth_pairs`.
        settings: what is matched, and the thresholds.
        namespace: of the lesions that the truth names by place, where several fit.
        t2_values: thresholds of the sweep; taken from the distances unless given.
        progress: told what is being done.

    Raises:
        UsageError: no thresholds are known, or the truth is none.
        StoreError: a condition that is none, or nothing is left.
    """
    thresholds = thresholds_for(feature_set, settings.t1, settings.t2)
    found = marks_to_match(connection, path, feature_set, settings)
    known = known_lesions(connection, [mark.lesion_id for mark in found.marks])
    truth = read_truth(truth_file, known, namespace=namespace)
    return evaluate_marks(
        feature_set.feature_set_id, found.sightings, truth, thresholds, t2_values=t2_values, progress=progress
    )


def evaluate_marks(
    feature_set: str,
    sightings: Sightings,
    truth: TruthGroups,
    thresholds: Thresholds,
    *,
    t2_values: Sequence[float] | None = None,
    progress: Progress = lambda _: None,
) -> MatchingReport:
    """Match marks and compare with their truth, at some thresholds and over a sweep of T2."""
    # Patients that the truth says nothing of change no score.
    named = np.isin(sightings.patients, np.unique(sightings.patients[truth.groups >= 0]))
    seen = Sightings(sightings.patients[named], sightings.studies[named], sightings.vectors[named])

    def grouping(t1: float, t2: float) -> NDArray[np.int64]:
        progress(f"matching {len(seen.patients):,} marks with T2 {t2:.4g}")
        return match(seen, Thresholds(t1, t2)).group

    return evaluate_matching(
        feature_set,
        seen.patients,
        seen.vectors,
        TruthGroups(truth.groups[named], truth.summary),
        grouping,
        t1=thresholds.t1,
        t2=thresholds.t2,
        t2_values=t2_values,
    )


def known_lesions(connection: "duckdb.DuckDBPyConnection", lesion_ids: Sequence[str]) -> KnownLesions:
    """Lesions of the store in this order, with the places by which truth files name them."""
    listed = ", ".join(COORDINATE_COLUMNS)
    rows = connection.execute(
        f"SELECT lesion_id, patient_id, series_id, slice_index, coord_convention, {listed} "  # noqa: S608 (our own)
        "FROM lake_rows.lesions JOIN (SELECT unnest(?) AS lesion_id, generate_subscripts(?, 1) AS place) "
        "USING (lesion_id) ORDER BY place",
        [list(lesion_ids), list(lesion_ids)],
    ).fetchall()
    points = np.array([row[5:] for row in rows], np.float64).reshape(len(rows), len(COORDINATE_COLUMNS))
    return KnownLesions(
        lesion_ids=[row[0] for row in rows],
        patient_ids=[row[1] for row in rows],
        series_ids=[row[2] for row in rows],
        slice_indices=np.array([row[3] for row in rows], np.int64),
        points_px=points,
        first_centers=np.array([FIRST_CENTERS[row[4]] for row in rows], np.float64),
    )


def _with_nan(values: NDArray[np.float64]) -> NDArray[np.float64]:
    filled: NDArray[np.float64] = np.ma.filled(values, np.nan).astype(np.float64)
    return filled
