"""Stacks with one bright disc each as the lesion: enough for every step of a detector's training."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from lesionary.caches import CacheWriter
from lesionary.lake import Lake
from lesionary.pixels import encode_slice
from lesionary.stack_schema import STACK_KIND, STACKS


def stack_rows(count=12, seed=0, slices=3, side=96, empty_every=0):
    """Rows of the table of stacks: a grey slice, a disc of 12 to 24 px on it, its box and diameters."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        height, width = side, side - 16 * (number % 2)
        pixels = rng.normal(40, 15, (slices, height, width))
        is_empty = bool(empty_every) and number % empty_every == empty_every - 1
        radius = float(rng.uniform(6, 12))
        x, y = rng.uniform(radius + 4, np.array([width, height]) - radius - 4)
        if not is_empty:
            across, down = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
            pixels[:, (across - x) ** 2 + (down - y) ** 2 <= radius**2] += 300
        rows.append(
            {
                "series_id": f"s-{number}",
                "patient_id": f"p-{number // 2}",
                "study_id": f"t-{number}",
                "slice_index": 10 + number,
                "split": ("train", "train", "train", "train", "val", "test")[number % 6],
                "rows": height,
                "columns": width,
                "scale_x": 0.5,
                "scale_y": 0.5,
                "lesion_ids": [] if is_empty else [f"dl-{number}"],
                "boxes": [] if is_empty else [[x - radius, y - radius, x + radius, y + radius]],
                "axes": [] if is_empty else [[x - radius, y, x + radius, y, x, y - radius, x, y + radius]],
                "types": [] if is_empty else [("bone", "lung")[number % 2]],
                "long_mm": [] if is_empty else [2 * radius],
                "short_mm": [] if is_empty else [2 * radius],
                "noisy": [] if is_empty else [False],
                "pixels": [encode_slice(image.astype(np.int16)) for image in pixels],
            }
        )
    return rows


def stack_table(rows) -> pa.Table:
    """The rows as a table."""
    return pa.Table.from_pylist(list(rows), schema=STACKS)


def write_stacks(folder: Path, rows) -> str:
    """The rows as a cache beside a new lake; its URL."""
    lake = Lake.create(str(folder / "lake"))
    with CacheWriter(lake, STACK_KIND, {"made_for": "a test"}, {"lesions": 0}, STACKS) as writer:
        writer.write(0, stack_table(rows))
        return writer.finish({}).url
