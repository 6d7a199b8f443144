"""A feature set out of the store for training: one Parquet file, and beside it the recipe that makes it again."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lesionary import __version__
from lesionary.artifacts import atomic_file, atomic_write_json, file_sha256
from lesionary.errors import StoreError
from lesionary.splits import SPLITS, split_of_patient
from store.features import FeatureSet, find_set, no_vector, open_vectors
from store.lineage import lake_versions
from store.selection import lesions_where

if TYPE_CHECKING:
    import duckdb

RECIPE_SUFFIX = ".recipe.json"
_COLUMNS = (
    "lesion_id", "patient_id", "study_id", "study_index", "study_day", "lesion_type", "long_mm", "short_mm", "split",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingSetSettings:
    """What goes into a training set."""

    feature_set: str
    part: str | None = None
    """train, val or test; all of them with None."""
    split_by: str = "source"
    """source: as the source publishes it, where it does; patient: by a digest of the patient's pseudonym throughout."""
    salt: str = ""
    """Gives an independent split by patient."""
    where: str | None = None
    as_of: str | None = None


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """What was written."""

    rows: int
    patients: int
    by_split: Mapping[str, int]
    without_vector: int
    sha256: str


def export_training_set(
    connection: "duckdb.DuckDBPyConnection", path: Path, target: Path, settings: TrainingSetSettings
) -> TrainingSet:
    """Write lesions, labels, parts and vectors to `target`, and the recipe beside it.

    A patient is in one part only: patients whose rows a source puts into several keep the first of train, val, test.

    Args:
        connection: on the store.
        path: of the store.
        target: the Parquet file.
        settings: what goes in.

    Raises:
        UsageError: there is no such feature set, or the day is none.
        StoreError: the condition is none, or nothing is left.
    """
    found = find_set(connection, settings.feature_set)
    vectors = open_vectors(connection, path, found)
    wanted = lesions_where(connection, settings.where, settings.as_of)
    rows = vectors.positions(wanted)
    if not len(rows):
        raise no_vector(found, len(wanted), "export")
    table: pa.Table = (
        connection.sql(
            f"SELECT lesion_number, {', '.join(_COLUMNS)} FROM lake_rows.lesion_features "  # noqa: S608 (our own names)
            "WHERE lesion_number IN (SELECT unnest(?::BIGINT[])) ORDER BY lesion_number",
            params=[vectors.lesions[rows].tolist()],
        )
        .to_arrow_reader()
        .read_all()
    )
    flat = pa.array(np.ascontiguousarray(vectors.matrix[rows]).reshape(-1), pa.float32())
    table = table.append_column("vector", pa.FixedSizeListArray.from_arrays(flat, found.dimension))
    table = _with_parts(connection, table.drop(["lesion_number"]), settings)
    if settings.part:
        table = table.filter(pc.equal(table["split"], settings.part))
        if not table.num_rows:
            raise StoreError(
                f"no lesion is in part {settings.part}", where="--split",
                next_step="--split-by patient makes parts of its own, --split all writes every one",
            )  # fmt: skip
    table = table.sort_by("lesion_id")
    with atomic_file(target) as sink:
        pq.write_table(table, sink, compression="zstd")
    with target.open("rb") as stream:
        digest = file_sha256(stream)
    written = TrainingSet(
        table.num_rows, len(pc.unique(table["patient_id"])), dict(sorted(Counter(table["split"].to_pylist()).items())),
        len(wanted) - len(rows), digest,
    )  # fmt: skip
    recipe = _recipe(connection, found, settings, written)
    atomic_write_json(target.with_name(target.name + RECIPE_SUFFIX), recipe)
    return written


def _recipe(
    connection: "duckdb.DuckDBPyConnection", found: FeatureSet, settings: TrainingSetSettings, written: TrainingSet
) -> dict[str, object]:
    """All that is needed to make the file again, and to tell whether it is the same."""
    return {
        "settings": asdict(settings),
        "feature_set": {
            "id": found.feature_set_id, "model": found.model_id, "dimension": found.dimension, "metric": found.metric,
            "signature": hashlib.sha256("".join(found.checksums.values()).encode()).hexdigest(),
        },
        "lake_versions": lake_versions(connection),
        "lesionary": __version__,
        "written": asdict(written),
    }  # fmt: skip


def _with_parts(connection: "duckdb.DuckDBPyConnection", table: pa.Table, settings: TrainingSetSettings) -> pa.Table:
    """Every row's part; all rows of a patient in one."""
    parts = _published_parts(connection) if settings.split_by == "source" else {}
    patients = table["patient_id"].to_pylist()
    split = [parts.get(patient) or split_of_patient(patient, salt=settings.salt) for patient in patients]
    return table.set_column(table.column_names.index("split"), "split", pa.array(split, pa.string()))


def _published_parts(connection: "duckdb.DuckDBPyConnection") -> dict[str, str]:
    """Each patient's part by all its rows: by those of one training set it could change with the condition."""
    rows = connection.execute(
        "SELECT patient_id, min(list_position(?, split)) FROM lake_rows.lesion_features "
        "WHERE list_contains(?, split) GROUP BY patient_id",
        [list(SPLITS), list(SPLITS)],
    ).fetchall()
    return {patient: SPLITS[place - 1] for patient, place in rows}
