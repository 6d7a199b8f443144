"""A store of DeepLesion's own size for the benchmarks: 4,427 patients, 32,735 lesions, no images.

Lesions per patient and study follow a heavy tail as in the release; a lesion keeps its place and its embedding, give or
take some noise, through the studies of its patient.
"""

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
from store.feature_files import import_set
from store.sync import sync

PATIENTS, LESIONS, DIMENSION = 4_427, 32_735, 1_024
_SEED = 20180
_INTRINSIC = 32


def make_store(folder: Path, dimension: int = DIMENSION) -> tuple[Path, Path]:
    """Lake and store with the built-in sets and one set `embedding`; kept if already there."""
    lake_folder = folder / "lake"
    store = lake_folder / "features.duckdb"
    if (folder / "complete").exists():
        return lake_folder, store
    folder.mkdir(parents=True, exist_ok=True)
    lesions = _lesions(np.random.default_rng(_SEED))
    table = folder / "DL_info.csv"
    table.write_text("\n".join([",".join(RELEASE_COLUMNS), *map(_row, *lesions.T)]) + "\n")
    settings = IngestSettings(annotations_only=True)
    lake = Lake.create(str(lake_folder))
    ingest(lake, plan_sources([str(table)], settings), settings, choose_runner=lambda _: (run_here, 1))
    vectors = clustered(LESIONS, dimension, lesions[:, 2].astype(np.int64))
    pq.write_table(
        pa.table(
            {
                "lesion_id": [f"dl-{number}" for number in range(1, LESIONS + 1)],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension),
            }
        ),
        folder / "vectors.parquet",
    )
    import_set(lake, folder / "vectors.parquet", "embedding", "benchmark")
    sync(lake, store)
    (folder / "complete").touch()
    return lake_folder, store


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


def _lesions(generator: np.random.Generator) -> NDArray[np.float64]:
    """(lesions, 9): patient, study, lesion's identity, x, y, z, long and short axis in px, type."""
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
