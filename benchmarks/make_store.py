"""Stores for the benchmarks: one of DeepLesion's own size (4,427 patients, 32,735 lesions), and a large one. No images.

Lesions per patient and study follow a heavy tail as in the release; a lesion keeps its place and its embedding, give or
take some noise, through the studies of its patient.

The large store has no lake: its rows are made in the engine, everything after that is what `sync` does.
"""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.ingest import ingest
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.lake import Lake
from lesionary.schema import RELEASE_COLUMNS
from lesionary.settings import IngestSettings
from store.database import open_draft
from store.feature_files import import_set
from store.features import LesionsVersion, feature_table, make_feature_table, refresh_sets
from store.sync import sync
from store.vectors import IndexKind
from store.versions import writing

PATIENTS, LESIONS, DIMENSION = 4_427, 32_735, 1_024
LARGE_SET = "embedding@1"
_SEED = 20180
_INTRINSIC = 32
# Of the large store: marks of one lesion, and of one patient.
_SIGHTINGS, _PER_PATIENT = 2, 8
_INSERT_ROWS = 65_536


def make_store(folder: Path, dimension: int = DIMENSION) -> tuple[Path, Path]:
    """Lake and store with the built-in sets and one set `embedding`; kept if already there."""
    lake_folder = folder / "lake"
    store = lake_folder / "features.duckdb"
    if (folder / "complete").exists():
        return lake_folder, store
    folder.mkdir(parents=True, exist_ok=True)
    lesions = drawn_lesions()
    lake = Lake.create(str(lake_folder))
    take_in(lake, folder / "DL_info.csv", lesions)
    vectors = clustered(LESIONS, dimension, lesions[:, 2].astype(np.int64))
    pq.write_table(_named([f"dl-{number}" for number in range(1, LESIONS + 1)], vectors), folder / "vectors.parquet")
    import_set(lake, folder / "vectors.parquet", "embedding", "benchmark")
    sync(lake, store)
    (folder / "complete").touch()
    return lake_folder, store


def take_in(lake: Lake, table: Path, lesions: NDArray[np.float64], namespace: str = "dl") -> None:
    """Write a table of marks as the release has it and ingest it, without images."""
    table.write_text("\n".join([",".join(RELEASE_COLUMNS), *map(_row, *lesions.T)]) + "\n")
    settings = IngestSettings(annotations_only=True, namespace=namespace)
    ingest(lake, plan_sources([str(table)], settings), settings, choose_runner=lambda _: (run_here, 1))


def make_large_store(folder: Path, rows: int, dimension: int) -> Path:
    """A store with one large set `embedding`, searched as `sync` would have it; kept if already there."""
    store = folder / "features.duckdb"
    if (folder / "complete").exists():
        return store
    folder.mkdir(parents=True, exist_ok=True)
    made_at = datetime(2026, 1, 2, tzinfo=UTC)
    with writing(store), open_draft(store) as (connection, draft):
        connection.execute(_LARGE_SERIES, [_PER_PATIENT, rows])
        connection.execute(_LARGE_LESIONS, [_PER_PATIENT, rows])
        connection.execute(
            "INSERT INTO lake_rows.lesion_features SELECT nextval('store.lesion_numbers'), * "
            "FROM store.lesion_features_now ORDER BY lesion_id"
        )
        connection.execute(
            "INSERT INTO lake_rows.feature_sets "
            "VALUES (?, 'embedding', 1, 'benchmark', ?, 'euclidean', 1, ?, 1, NULL, NULL)",
            [LARGE_SET, dimension, made_at],
        )
        make_feature_table(connection, LARGE_SET, dimension)
        vectors = clustered(rows, dimension, np.arange(rows) // _SIGHTINGS)
        for start in range(0, rows, _INSERT_ROWS):
            part = vectors[start : start + _INSERT_ROWS]
            names = [f"l-{number:07d}" for number in range(start, start + len(part))]
            connection.register("incoming", _named(names, part))
            connection.execute(f"INSERT INTO {feature_table(LARGE_SET)} SELECT *, 1 FROM incoming")  # noqa: S608
            connection.unregister("incoming")
        del vectors
        draft.vector_folders += refresh_sets(connection, draft.folder, LesionsVersion(1, made_at), IndexKind.AUTO)
    (folder / "complete").touch()
    return store


_LARGE_SERIES = """
INSERT INTO lake_rows.series (series_id, patient_id, study_id, study_index, age_years)
SELECT format('p-{:06d}_01', n), format('p-{:06d}', n), format('p-{:06d}_01', n), 1, 20 + hash(n) % 70
FROM (SELECT DISTINCT range // ? AS n FROM range(?))
"""
_LARGE_LESIONS = """
INSERT INTO lake_rows.lesions (
    lesion_id, series_id, patient_id, study_id, slice_index, lesion_type, long_mm, short_mm, release_x, release_y,
    release_z
)
SELECT format('l-{:07d}', n), format('p-{:06d}_01', p), format('p-{:06d}', p), format('p-{:06d}_01', p), 1,
    ['bone', 'liver', 'lung', 'kidney'][(1 + hash(n) % 4)::BIGINT],
    5 + hash(n + 1) % 600 / 10, 3 + hash(n + 2) % 200 / 10,
    hash(n + 3) % 1000 / 1000, hash(n + 4) % 1000 / 1000, hash(n + 5) % 1000 / 1000
FROM (SELECT range AS n, range // ? AS p FROM range(?))
"""


def _named(names: list[str], vectors: NDArray[np.float32]) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return pa.table({"lesion_id": names, "vector": lists})


def clustered(rows: int, dimension: int, cluster: NDArray[np.int64], spread: float = 0.5) -> NDArray[np.float32]:
    """Unit vectors of few intrinsic dimensions around the centres of their clusters, with noise in all dimensions."""
    generator = np.random.default_rng(_SEED)
    basis = generator.normal(size=(_INTRINSIC, dimension)) / np.sqrt(_INTRINSIC)
    centers = generator.normal(size=(int(cluster.max()) + 1, _INTRINSIC))
    vectors = np.empty((rows, dimension), np.float32)
    for start in range(0, rows, 65_536):
        part = cluster[start : start + 65_536]
        place = centers[part] + spread * generator.normal(size=(len(part), _INTRINSIC))
        vectors[start : start + len(part)] = place @ basis + 0.1 * generator.normal(size=(len(part), dimension))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def drawn_lesions() -> NDArray[np.float64]:
    """(lesions, 9): patient, study, lesion's identity, x, y, z, long and short axis in px, type."""
    generator = np.random.default_rng(_SEED)
    shares = generator.pareto(1.6, PATIENTS) + 0.25
    # As in the release: nobody has hundreds of marked lesions.
    shares = np.minimum(shares, 12 * shares.mean())
    counts = 1 + generator.multinomial(LESIONS - PATIENTS, shares / shares.sum())
    rows = []
    identity = 0
    for patient, count in enumerate(counts, 1):
        left, lesions, study = int(count), [], 1
        while left:
            if not lesions or generator.random() < 0.3:
                identity += 1
                place = np.clip(generator.normal(0.5, 0.15, 3), 0.02, 0.98)
                lesions.append((identity, place, generator.lognormal(3.0, 0.5), generator.integers(1, 9)))
            for name, place, size, kind in lesions[: max(1, left)]:
                if not left:
                    break
                x, y, z = np.clip(place + generator.normal(0, 0.01, 3), 0, 1)
                long_px = size * np.exp(generator.normal(0, 0.1))
                rows.append((patient, study, name, x, y, z, long_px, 0.7 * long_px, kind))
                left -= 1
            study += 1
    return np.array(rows)


def _row(
    patient: float,
    study: float,
    _name: float,
    x: float,
    y: float,
    z: float,
    long_px: float,
    short_px: float,
    kind: float,
) -> str:
    center_x, center_y = 100 + 300 * x, 100 + 300 * y
    ends = (
        center_x - long_px / 2, center_y, center_x + long_px / 2, center_y,
        center_x, center_y - short_px / 2, center_x, center_y + short_px / 2,
    )  # fmt: skip
    box = (ends[0] - 5, ends[5] - 5, ends[2] + 5, ends[7] + 5)
    key = 10 + int(400 * z)
    return ",".join(
        (
            f"{int(patient):06d}_{int(study):02d}_01_{key:03d}.png", str(int(patient)), str(int(study)), "1", str(key),
            f'"{", ".join(f"{value:.3f}" for value in ends)}"', f'"{", ".join(f"{value:.3f}" for value in box)}"',
            f'"{long_px:.3f}, {short_px:.3f}"', f'"{x:.5f}, {y:.5f}, {z:.5f}"', str(int(kind)), "0",
            f'"{key - 6}, {key + 6}"', '"0.8, 0.8, 5"', '"512, 512"', '"-175, 275"', "F", "60.0", "3",
        )
    )  # fmt: skip
