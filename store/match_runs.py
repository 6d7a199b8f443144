"""Runs of `lesionary match`: the store's lesions through Algorithm 1, and the answer as rows of the lake."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import StoreError, UsageError
from store.features import FeatureSet, find_set, no_vector, open_vectors
from store.lineage import lake_versions
from store.matching import DEFAULT_THRESHOLDS, EdgeKind, Matching, Sightings, State, Thresholds, match
from store.selection import lesions_where

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from lesionary.lake import Lake

STUDIES_IN_ORDER = """
    SELECT patient_id, study_id, min(study_day) AS study_day, row_number() OVER (
        PARTITION BY patient_id ORDER BY min(study_day) NULLS LAST, min(study_index) NULLS LAST, study_id
    ) AS study
    FROM (
        SELECT patient_id, study_id, study_day, study_index FROM lake_rows.series
        UNION ALL SELECT patient_id, study_id, study_day, study_index FROM lake_rows.lesion_features
    ) GROUP BY patient_id, study_id
"""
"""Every study of every patient with its place among the patient's, by day, then index, then name."""


@dataclass(frozen=True, slots=True)
class MatchSettings:
    """What is matched, and how."""

    feature_set: str
    t1: float | None = None
    """Of one study below it: one lesion. As recorded for the feature set unless given."""
    t2: float | None = None
    """Of two studies above it: two lesions. As recorded for the feature set unless given."""
    patient_id: str | None = None
    """One patient; all of them with None."""
    where: str | None = None
    as_of: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """One mark of a reader, as `lesion_features` has it, with its study's place among the patient's."""

    lesion_id: str
    patient_id: str
    study_id: str
    study: int
    """Its place among all of the patient's studies, marked or not, from 1."""
    study_index: int | None
    study_day: int | None
    lesion_type: str | None
    long_mm: float | None
    short_mm: float | None


@dataclass(frozen=True, slots=True)
class MatchedRow:
    """A mark and the lesion it is a sighting of; `mark` is None in the row that says a lesion has vanished."""

    patient_id: str
    study_id: str
    study: int
    study_day: int | None
    group_id: str
    state: str
    confidence: float | None
    mark: Mark | None


@dataclass(frozen=True, slots=True)
class MatchedEdge:
    """Two marks that were tied together."""

    patient_id: str
    kind: str
    from_lesion_id: str
    to_lesion_id: str
    distance: float
    confidence: float | None


@dataclass(frozen=True, slots=True)
class MatchRun:
    """The answer for some patients, ready to be printed, drawn, or landed in the lake."""

    feature_set: FeatureSet
    thresholds: Thresholds
    marks: Sequence[Mark]
    matching: Matching
    without_vector: int
    """Marks that could not be matched because they have no vector in the set."""
    lesions_version: int
    """Of the lake's table lesions, as the store held it."""

    @property
    def patients(self) -> int:
        """Patients matched."""
        return len({mark.patient_id for mark in self.marks})

    @property
    def groups(self) -> int:
        """Lesions found."""
        return int(self.matching.group.max(initial=-1)) + 1

    def states(self) -> dict[str, int]:
        """How many of `rows` are in each state that occurs, by name."""
        counts = np.bincount(self.matching.state, minlength=len(State))
        counts[State.VANISHED] = self.matching.vanished.group.size
        return {state.name.lower(): int(counts[state]) for state in State if counts[state]}

    def rows(self) -> Iterator[MatchedRow]:
        """Marks by patient, study and lesion, then the vanished lesions of each patient among them."""
        names = self._group_names()
        confidence = _none_for_nan(self.matching.confidence)
        states = [State(code).name.lower() for code in self.matching.state.tolist()]
        rows = [
            MatchedRow(mark.patient_id, mark.study_id, mark.study, mark.study_day, names[group], state, sure, mark)
            for mark, group, state, sure in zip(
                self.marks, self.matching.group.tolist(), states, confidence, strict=True
            )
        ]
        studies = {(mark.patient_id, mark.study): (mark.study_id, mark.study_day) for mark in self.marks}
        gone = self.matching.vanished
        for group, study in zip(gone.group.tolist(), gone.study.tolist(), strict=True):
            patient = names[group].rpartition(".")[0]
            study_id, day = studies[patient, study]
            rows.append(MatchedRow(patient, study_id, study, day, names[group], "vanished", None, None))
        yield from sorted(rows, key=lambda row: (row.patient_id, row.study, group_number(row.group_id)))

    def edges(self) -> Iterator[MatchedEdge]:
        """What ties marks together."""
        edges = self.matching.edges
        columns = (edges.kind, edges.from_row, edges.to_row, edges.distance)
        rows = zip(*(column.tolist() for column in columns), _none_for_nan(edges.confidence), strict=True)
        for kind, start, end, distance, sure in rows:
            first, second = self.marks[start], self.marks[end]
            yield MatchedEdge(
                first.patient_id, EdgeKind(kind).name.lower(), first.lesion_id, second.lesion_id, distance, sure
            )

    def _group_names(self) -> list[str]:
        """Every group's name: its patient's, and its number among the patient's from 1."""
        patients = [""] * self.groups
        for mark, group in zip(self.marks, self.matching.group.tolist(), strict=True):
            patients[group] = mark.patient_id
        names, number = [], 0
        for at, patient in enumerate(patients):
            number = number + 1 if at and patients[at - 1] == patient else 1
            names.append(f"{patient}.g{number}")
        return names


def thresholds_for(feature_set: FeatureSet, t1: float | None, t2: float | None) -> Thresholds:
    """The thresholds given, or those recorded for the set.

    Raises:
        UsageError: none are recorded, or a given one is negative.
    """
    recorded = None
    if feature_set.built_in:
        recorded = DEFAULT_THRESHOLDS.get(feature_set.name)
    elif feature_set.t1 is not None and feature_set.t2 is not None:
        recorded = Thresholds(feature_set.t1, feature_set.t2)
    if recorded is None and (t1 is None or t2 is None):
        raise UsageError(
            f"no thresholds are recorded for feature set {feature_set.feature_set_id}",
            where="--t1, --t2",
            next_step="give both; `lesionary evaluate matching` shows what they reach",
        )
    return Thresholds(
        recorded.t1 if t1 is None and recorded else float(t1 or 0.0),
        recorded.t2 if t2 is None and recorded else float(t2 or 0.0),
    )


@dataclass(frozen=True, slots=True)
class MarksToMatch:
    """Marks of the store that have a vector, and the same as Algorithm 1 takes them."""

    marks: Sequence[Mark]
    sightings: Sightings
    without_vector: int


def match_store(connection: "duckdb.DuckDBPyConnection", path: Path, settings: MatchSettings) -> MatchRun:
    """Match the marks of one patient, or of all.

    Raises:
        UsageError: no such feature set, or no thresholds for it.
        StoreError: no such patient, nothing to match, or a condition that is none.
    """
    feature_set = find_set(connection, settings.feature_set)
    thresholds = thresholds_for(feature_set, settings.t1, settings.t2)
    found = marks_to_match(connection, path, feature_set, settings)
    matching = match(found.sightings, thresholds)
    version = lake_versions(connection).get("lesions", 0)
    return MatchRun(feature_set, thresholds, found.marks, matching, found.without_vector, version)


def marks_to_match(
    connection: "duckdb.DuckDBPyConnection", path: Path, feature_set: FeatureSet, settings: MatchSettings
) -> MarksToMatch:
    """The marks that the settings choose, with their vectors in a set.

    Raises:
        StoreError: no such patient, nothing to match, or a condition that is none.
    """
    if settings.patient_id is not None:
        require_patient(connection, settings.patient_id)
    chosen = settings.where is not None or settings.as_of is not None
    wanted = lesions_where(connection, settings.where, settings.as_of) if chosen else None
    numbers, marks = read_marks(connection, settings.patient_id, wanted)
    if not marks:
        raise StoreError(
            "none of the patient's lesions is left" if chosen else "the store holds no lesion",
            where="match",
            next_step="widen the condition or the day" if chosen else "run `lesionary ingest` and `lesionary sync`",
        )
    vectors = open_vectors(connection, path, feature_set)
    at = np.searchsorted(vectors.lesions, numbers)
    there = (at < len(vectors.lesions)) & np.isin(numbers, vectors.lesions)
    kept = [mark for mark, has in zip(marks, there.tolist(), strict=True) if has]
    if not kept:
        raise no_vector(feature_set, len(marks), "match")
    codes = {patient: code for code, patient in enumerate(dict.fromkeys(mark.patient_id for mark in kept))}
    sightings = Sightings(
        np.array([codes[mark.patient_id] for mark in kept], np.int64),
        np.array([mark.study for mark in kept], np.int64),
        vectors.matrix[at[there]],
    )
    return MarksToMatch(kept, sightings, len(marks) - len(kept))


def require_patient(connection: "duckdb.DuckDBPyConnection", patient_id: str) -> None:
    """Refuse a patient the store does not know.

    Raises:
        StoreError: it has no lesion of this patient.
    """
    if connection.execute("SELECT 1 FROM lake_rows.lesions WHERE patient_id = ? LIMIT 1", [patient_id]).fetchone():
        return
    example = connection.execute("SELECT min(patient_id) FROM lake_rows.lesions").fetchone()
    known = f"names look like {example[0]}" if example and example[0] else "it is empty: run `lesionary sync`"
    raise StoreError("the store has no lesion of such a patient", where="patient", next_step=known)


def read_marks(
    connection: "duckdb.DuckDBPyConnection", patient_id: str | None, wanted: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], list[Mark]]:
    """Marks with their numbers, by patient, study and name."""
    rows = connection.execute(
        f"""
        SELECT lesion_number, lesion_id, patient_id, study_id, study, study_index, lesions.study_day, lesion_type,
            long_mm, short_mm
        FROM lake_rows.lesion_features AS lesions JOIN ({STUDIES_IN_ORDER}) AS studies USING (patient_id, study_id)
        WHERE (? OR lesion_number IN (SELECT unnest(?::BIGINT[]))) AND (?::VARCHAR IS NULL OR patient_id = ?)
        ORDER BY patient_id, study, lesion_id
        """,  # noqa: S608 (our own)
        [wanted is None, [] if wanted is None else wanted.tolist(), patient_id, patient_id],
    ).fetchall()
    return np.array([row[0] for row in rows], np.int64), [Mark(*row[1:]) for row in rows]


def land(lake: "Lake", run: str, found: MatchRun) -> None:
    """Put a run into the lake; it replaces the one of that name.

    Raises:
        CommitConflictError: other writers won every race.
    """
    from lesionary.results import write_results

    write_results(lake, run, {name: [table] for name, table in _tables(run, found).items()})


def _tables(run: str, found: MatchRun) -> "dict[str, pa.Table]":
    import pyarrow as pa

    from lesionary.schema import MATCH_EDGES, MATCH_RUNS, MATCHES

    rows = list(found.rows())
    matches = {
        "run": [run] * len(rows),
        "patient_id": [row.patient_id for row in rows],
        "study_id": [row.study_id for row in rows],
        "lesion_id": [row.mark.lesion_id if row.mark else None for row in rows],
        "group_id": [row.group_id for row in rows],
        "state": [row.state for row in rows],
        "confidence": [row.confidence for row in rows],
    }
    edges = found.matching.edges
    # By column: there are several edges to a mark, and one object for each would take longer than finding them.
    lesions, patients = (
        pa.array([getattr(mark, name) for mark in found.marks]) for name in ("lesion_id", "patient_id")
    )
    kinds = pa.array([kind.name.lower() for kind in EdgeKind])
    tied = {
        "patient_id": patients.take(pa.array(edges.from_row)),
        "kind": kinds.take(pa.array(edges.kind)),
        "from_lesion_id": lesions.take(pa.array(edges.from_row)),
        "to_lesion_id": lesions.take(pa.array(edges.to_row)),
        "distance": edges.distance,
        "confidence": pa.array(edges.confidence, from_pandas=True),
    }
    described = {
        "run": run,
        "feature_set_id": found.feature_set.feature_set_id,
        "t1": found.thresholds.t1,
        "t2": found.thresholds.t2,
        "lesions_version": found.lesions_version,
        "patients": found.patients,
        "lesions": len(found.marks),
        "groups": found.groups,
        "created_at": datetime.now(UTC),
    }
    return {
        MATCH_EDGES.name: pa.table({"run": [run] * edges.kind.size, **tied}, schema=MATCH_EDGES.schema),
        MATCHES.name: pa.table(matches, schema=MATCHES.schema),
        MATCH_RUNS.name: pa.Table.from_pylist([described], schema=MATCH_RUNS.schema),
    }


def _none_for_nan(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def group_number(group_id: str) -> int:
    """A group's number among its patient's, out of its name."""
    return int(group_id.rpartition(".g")[2])
