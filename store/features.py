"""Feature sets: named, versioned ways of turning a lesion into a vector.

`location`, `size` and `location+size` are built in and follow from the lesions; all others were computed elsewhere and
come out of the lake. Each version is a table (or view) `features."name@version"` of `lesion_id` and `vector`, the
newest version of a name also the view `features."name"`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import StoreError, UsageError
from store.members import Members, members_of
from store.vectors import INDEX_FILE, IndexKind, Vectors, is_whole, kind_for, map_vectors, read_vectors, write_vectors
from store.versions import files_folder

if TYPE_CHECKING:
    import duckdb

EUCLIDEAN = "euclidean"
_BUILT_IN_OWNER = "built-in"
_NAME = re.compile(r"[a-z][a-z0-9_.+-]{0,62}")
_SET_ID = re.compile(r"([a-z][a-z0-9_.+-]{0,62})@([1-9][0-9]{0,5})")

_STATISTICS_ROWS = 16_384

# Lesions are measured in units of this: 10 mm weigh as much as a tenth of the body.
SIZE_UNIT_MM = 100.0
_LOCATION = ("location_x", "location_y", "location_z")
_SIZE = (f"long_mm / {SIZE_UNIT_MM:g}", f"short_mm / {SIZE_UNIT_MM:g}")


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A feature set that follows from `lesion_features`; raise the version with every change of its numbers."""

    name: str
    version: int
    numbers: tuple[str, ...]
    """SQL of each number of the vector."""

    @property
    def set_id(self) -> str:
        """Name and version."""
        return f"{self.name}@{self.version}"


BUILT_IN_SETS: tuple[BuiltIn, ...] = (
    BuiltIn("location", 1, _LOCATION),
    BuiltIn("size", 1, _SIZE),
    BuiltIn("location+size", 1, _LOCATION + _SIZE),
)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """What the store knows of one version of a feature set."""

    feature_set_id: str
    name: str
    version: int
    model_id: str
    built_in: bool
    dimension: int
    metric: str
    created_at: datetime
    lesions_version: int | None
    lesions: int
    mean: list[float]
    sd: list[float]
    minimum: list[float]
    maximum: list[float]
    index_kind: str
    vector_folder: str
    checksums: dict[str, str]
    t1: float | None
    """Recorded with the set for `store/match_runs.py`; None for sets that have none, and for built-in ones."""
    t2: float | None

    @property
    def table(self) -> str:
        """Its table, quoted."""
        return feature_table(self.feature_set_id)

    @property
    def members(self) -> Members:
        """Whose vectors it holds."""
        return members_of(self.name)


@dataclass(frozen=True, slots=True)
class LesionsVersion:
    """A version of the lake's table lesions: what the built-in sets were made from, and since when it is so."""

    version: int
    committed_at: datetime


def checked_set_name(name: str) -> str:
    """The name itself, if a feature set may have it.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            "a feature set's name is 1 to 63 lower-case letters, digits and _ . + -, starting with a letter",
            next_step="for example `triplet` or `location+size`",
        )
    return name


def feature_table(set_id: str) -> str:
    """Quoted name of a set's table; names that are not ours never get into SQL.

    Raises:
        StoreError: it is no name of a feature set.
    """
    if not (_SET_ID.fullmatch(set_id) or _NAME.fullmatch(set_id)):
        raise StoreError("the lake names a feature set in a way that is not ours", next_step="run `lake verify`")
    return f'features."{set_id}"'


def list_sets(connection: "duckdb.DuckDBPyConnection") -> list[FeatureSet]:
    """Every version of every set, by name and version."""
    columns = ", ".join(FeatureSet.__dataclass_fields__)
    rows = connection.execute(f"SELECT {columns} FROM store.feature_sets ORDER BY name, version").fetchall()  # noqa: S608
    return [FeatureSet(*row) for row in rows]


def find_set(connection: "duckdb.DuckDBPyConnection", name: str) -> FeatureSet:
    """A set by name (its newest version) or by name@version.

    Raises:
        UsageError: there is none.
    """
    sets = list_sets(connection)
    found = [one for one in sets if name in {one.name, one.feature_set_id}]
    if not found:
        known = ", ".join(dict.fromkeys(one.name for one in sets)) or "none: run `lesionary sync`"
        raise UsageError("the store has no such feature set", where="--feature-set", next_step=f"it has {known}")
    return found[-1]


def no_vector(found: FeatureSet, lesions: int, where: str) -> StoreError:
    """The refusal where none of so many lesions has a vector in a set."""
    return StoreError(
        f"none of the {lesions} lesions has a vector in feature set {found.feature_set_id}",
        where=where,
        next_step=f"`lesionary features describe {found.name}` says what it needs",
    )


def open_vectors(connection: "duckdb.DuckDBPyConnection", path: Path, found: FeatureSet) -> Vectors:
    """A set's vectors, made again from the database where the files beside it are missing or damaged.

    Args:
        connection: on the version of the store that names the set.
        path: of the store.
        found: the set.
    """
    folder = files_folder(path) / found.vector_folder
    if is_whole(folder, found.checksums):
        return map_vectors(folder)
    plain = {name: checksum for name, checksum in found.checksums.items() if name != INDEX_FILE}
    if len(plain) < len(found.checksums) and is_whole(folder, plain):
        # The next sync builds the index anew; until then the vectors are scanned.
        return replace(map_vectors(folder), index_file=None)
    matrix, rows = read_vectors(connection, found.table, found.dimension, found.members)
    try:
        built = write_vectors(folder.parent, found.feature_set_id, matrix, rows, IndexKind.EXACT)
    except OSError:
        # Nowhere to put them: this answer is exact and slower.
        return Vectors.in_memory(matrix, rows)
    return map_vectors(folder.parent / built.folder)


def make_feature_table(connection: "duckdb.DuckDBPyConnection", set_id: str, dimension: int) -> None:
    """A table for a set's vectors; one left by a set of the same name and another dimension goes."""
    table, kind = feature_table(set_id), f"FLOAT[{int(dimension)}]"
    present = connection.execute(
        "SELECT data_type FROM information_schema.columns "
        "WHERE table_schema = 'features' AND table_name = ? AND column_name = 'vector'",
        [set_id],
    ).fetchone()
    if present and present[0] != kind:
        connection.execute(f"DROP TABLE {table}")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {table} (lesion_id VARCHAR, vector {kind}, shard INTEGER)")


def refresh_sets(
    connection: "duckdb.DuckDBPyConnection", files: Path, lesions: LesionsVersion, wanted: IndexKind | None
) -> list[str]:
    """Bring every set's description and vector files up to the rows of the store; the folders that belong to it now.

    Args:
        connection: the writer's.
        files: folder of the store's versions.
        lesions: the lake's table lesions as the store holds it.
        wanted: kind of index; None: the kind that each set has, of new ones by their size.
    """
    for one in BUILT_IN_SETS:
        numbers = ", ".join(one.numbers)
        all_there = " AND ".join(f"({number}) IS NOT NULL" for number in one.numbers)
        connection.execute(
            f"CREATE OR REPLACE VIEW {feature_table(one.set_id)} AS SELECT lesion_id, "  # noqa: S608
            f"[{numbers}]::FLOAT[{len(one.numbers)}] AS vector FROM lake_rows.lesion_features WHERE {all_there}"
        )
    described = connection.execute(
        "SELECT feature_set_id, name, version, model_id, dimension, metric, created_at, lesions_version, t1, t2 "
        "FROM lake_rows.feature_sets"
    ).fetchall()
    sets = [(*row, False) for row in described]
    sets += [
        (
            one.set_id,
            one.name,
            one.version,
            _BUILT_IN_OWNER,
            len(one.numbers),
            EUCLIDEAN,
            lesions.committed_at,
            lesions.version,
            None,
            None,
            True,
        )
        for one in BUILT_IN_SETS
    ]
    _forget_all_but(connection, {str(name) for row in sets for name in row[:2]})
    for set_id, _, _, _, dimension, *_, built_in in sets:
        if not built_in:
            make_feature_table(connection, set_id, dimension)
    folders = [_refresh(connection, files, row, wanted) for row in sets]
    for name in {str(row[1]) for row in sets}:
        newest = max((int(row[2]), str(row[0])) for row in sets if row[1] == name)[1]
        connection.execute(
            f"CREATE OR REPLACE VIEW {feature_table(name)} AS SELECT * FROM {feature_table(newest)}"  # noqa: S608
        )
    return folders


def _forget_all_but(connection: "duckdb.DuckDBPyConnection", names: set[str]) -> None:
    """Drop what belongs to sets that are no more."""
    rows = connection.execute(
        "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'features'"
    ).fetchall()
    for name, kind in rows:
        if name not in names:
            connection.execute(f"DROP {'VIEW' if kind == 'VIEW' else 'TABLE'} {feature_table(name)}")
    connection.execute("DELETE FROM store.feature_sets WHERE NOT list_contains(?, feature_set_id)", [list(names)])


def _refresh(
    connection: "duckdb.DuckDBPyConnection", files: Path, row: tuple[object, ...], wanted: IndexKind | None
) -> str:
    """One set: nothing is read again where neither its lesions nor their vectors have changed."""
    set_id, name, version, model_id, dimension, metric, created_at, lesions_version, t1, t2, built_in = row
    set_id, dimension = str(set_id), int(str(dimension))
    table, members = feature_table(set_id), members_of(str(name))
    rows, signature = _signature(connection, table, members, built_in=bool(built_in))
    present = connection.execute(
        "SELECT signature, index_kind, vector_folder, checksums FROM store.feature_sets WHERE feature_set_id = ?",
        [set_id],
    ).fetchone()
    kind = kind_for(rows, dimension, wanted or (IndexKind(present[1]) if present else IndexKind.AUTO))
    known = None
    if present is not None and is_whole(files / present[2], present[3]):
        if (present[0], present[1]) == (signature, kind):
            connection.execute(
                "UPDATE store.feature_sets SET created_at = ?, lesions_version = ?, t1 = ?, t2 = ? "
                "WHERE feature_set_id = ?",
                [created_at, lesions_version, t1, t2, set_id],
            )
            return str(present[2])
        known = map_vectors(files / present[2])
        if _signature(connection, table, members, known, built_in=bool(built_in)) != (len(known.lesions), present[0]):
            known = None
    matrix, numbers = read_vectors(connection, table, dimension, members, known)
    built = write_vectors(files, set_id, matrix, numbers, kind, known)
    connection.execute(
        "INSERT OR REPLACE INTO store.feature_sets VALUES "
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            set_id, name, version, model_id, built_in, dimension, metric, created_at, lesions_version, rows,
            *_statistics(matrix), kind, built.folder, dict(built.checksums), signature, t1, t2,
        ],
    )  # fmt: skip
    return built.folder


def _signature(
    connection: "duckdb.DuckDBPyConnection",
    table: str,
    members: Members,
    known: Vectors | None = None,
    *,
    built_in: bool,
) -> tuple[int, str]:
    """How many vectors a set has, and a value that changes with them; of all of them, or up to the last known lesion.

    A lesion gets a new number whenever its row changes and a vector a new shard, so no vector has to be read for it.
    """
    key = "lesion_number" if built_in else "lesion_number, shard"
    upto = "true" if known is None else f"lesion_number <= {int(known.lesions[-1]) if len(known.lesions) else 0}"
    ((rows, signature),) = connection.execute(
        # In an order that does not matter.
        f"SELECT count(*), concat(count(*), '-', bit_xor(hash({key}))) "  # noqa: S608 (our own)
        f"FROM {members.rows} JOIN {table} USING (lesion_id) WHERE {upto}"
    ).fetchall()
    return rows, signature


def _statistics(matrix: NDArray[np.float32]) -> Sequence[list[float]]:
    """Mean, standard deviation, smallest and largest of each number; empty for an empty set."""
    if not len(matrix):
        return [], [], [], []
    parts = [matrix[start : start + _STATISTICS_ROWS] for start in range(0, len(matrix), _STATISTICS_ROWS)]
    mean = sum(part.sum(axis=0, dtype=np.float64) for part in parts) / len(matrix)
    variance = sum(((part - mean) ** 2).sum(axis=0) for part in parts) / len(matrix)
    return [mean.tolist(), np.sqrt(variance).tolist(), matrix.min(axis=0).tolist(), matrix.max(axis=0).tolist()]
