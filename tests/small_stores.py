"""Small stores made without a lake: lesions as dictionaries, published as `sync` would publish them."""

from datetime import UTC, datetime

import numpy as np

from store.database import open_draft
from store.features import LesionsVersion, make_feature_table, refresh_sets
from store.vectors import IndexKind
from store.versions import writing

MADE_AT = datetime(2026, 1, 2, tzinfo=UTC)
LESION = {
    "lesion_id": "t-1",
    "patient_id": "t-p1",
    "study_id": "t-p1_01",
    "series_id": "t-p1_01_01",
    "study_index": 1,
    "study_day": None,
    "slice_index": 1,
    "coord_convention": "one_based",
    "lesion_type": "lung",
    "long_mm": 20.0,
    "short_mm": 10.0,
    "release_x": 0.5,
    "release_y": 0.5,
    "release_z": 0.5,
    "sex": "F",
    "age_years": 60.0,
    "split": None,
}
_OF_SERIES = ("series_id", "patient_id", "study_id", "study_index", "study_day", "sex", "age_years")
_OF_LESION = (
    "lesion_id", "series_id", "patient_id", "study_id", "slice_index", "coord_convention", "lesion_type", "long_mm",
    "short_mm", "release_x", "release_y", "release_z", "split",
)  # fmt: skip


def make_store(path, lesions, vectors=None, index=IndexKind.AUTO):
    """A store of these lesions; `vectors` maps names of further feature sets to {lesion_id: vector}.

    A store that is there already gets them as well.
    """
    rows = [LESION | lesion for lesion in lesions]
    series = {row["series_id"]: row for row in rows}
    with writing(path), open_draft(path) as (connection, draft):
        for (present,) in connection.execute("SELECT series_id FROM lake_rows.series").fetchall():
            series.pop(present, None)
        _insert(connection, "series", _OF_SERIES, series.values())
        _insert(connection, "lesions", _OF_LESION, rows)
        connection.execute(
            "INSERT INTO lake_rows.lesion_features SELECT nextval('store.lesion_numbers'), * "
            "FROM store.lesion_features_now WHERE lesion_id NOT IN (SELECT lesion_id FROM lake_rows.lesion_features) "
            "ORDER BY lesion_id"
        )
        for name, by_lesion in (vectors or {}).items():
            _add_set(connection, name, by_lesion)
        draft.vector_folders += refresh_sets(connection, draft.folder, LesionsVersion(1, MADE_AT), index)
    return path


def _insert(connection, table, columns, rows):
    rows = list(rows)
    if rows:
        lists = [[row[column] for row in rows] for column in columns]
        marks = ", ".join("unnest(?)" for _ in columns)
        connection.execute(f"INSERT INTO lake_rows.{table} ({', '.join(columns)}) SELECT {marks}", lists)


def _add_set(connection, name, by_lesion):
    dimension = len(next(iter(by_lesion.values())))
    set_id = f"{name}@1"
    present = connection.execute("SELECT 1 FROM lake_rows.feature_sets WHERE feature_set_id = ?", [set_id]).fetchone()
    if not present:
        connection.execute(
            "INSERT INTO lake_rows.feature_sets VALUES (?, ?, 1, 'test', ?, 'euclidean', 1, ?, 1, NULL, NULL)",
            [set_id, name, dimension, MADE_AT],
        )
    make_feature_table(connection, set_id, dimension)
    connection.execute(
        f"INSERT INTO features.\"{set_id}\" SELECT unnest(?), unnest(?), nextval('store.shard_numbers')",
        [list(by_lesion), [np.asarray(vector, np.float32).tolist() for vector in by_lesion.values()]],
    )
