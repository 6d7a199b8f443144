"""A cache of patches whose lesions are told apart by their brightness: enough for every step of a training."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from lesionary.anatomy import LESION_TYPES
from lesionary.caches import CacheWriter
from lesionary.lake import Lake
from lesionary.patch_schema import PATCHES

_SIDE = 128


def patch_rows(count=48, patients=12, types=3, seed=0, **changes):
    """Rows of the patch table: lesions of a few types, each bright in its own way and in its own place."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kind = number % types
        patient = number % patients
        split = "test" if patient % 4 == 3 else "val" if patient % 4 == 2 else "train"
        size = float(rng.uniform(6, 40))
        pixels = np.clip(rng.normal(40, 30, (3, _SIDE, _SIDE)), -1024, 3071)
        half = int(size / 2) + 2
        pixels[:, 64 - half : 64 + half, 64 - half : 64 + half] += (-600, 150, 700)[kind]
        rows.append(
            {
                "lesion_id": f"dl-{number:04d}",
                "patient_id": f"dl-{patient:03d}",
                "study_id": f"dl-{patient:03d}-{number % 2}",
                "lesion_type": LESION_TYPES[kind] if split != "train" else None,
                "split": split,
                "x": float(0.3 + 0.2 * kind + rng.normal(0, 0.02)),
                "y": 0.5 + float(rng.normal(0, 0.02)),
                "z": float(rng.uniform(0.2, 0.8)),
                "long_mm": size,
                "short_mm": size * 0.8,
                "side": _SIDE,
                "box": [64.0 - half, 64.0 - half, 64.0 + half, 64.0 + half],
                "extent": [0.0, 0.0, float(_SIDE), float(_SIDE)],
                "pixels": pixels.astype("<i2").tobytes(),
            }
            | changes
        )
    return rows


def write_patches(folder: Path, rows) -> str:
    """The rows as a cache beside a new lake; its URL."""
    lake = Lake.create(str(folder / "lake"))
    with CacheWriter(lake, "patches", {"made_for": "a test"}, {"lesions": 0}, PATCHES) as writer:
        writer.write(0, pa.Table.from_pylist(list(rows), schema=PATCHES))
        return writer.finish({}).url
