"""Series of a round body with bright blobs, as a release that can be ingested."""

from pathlib import Path

import numpy as np
from conftest import annotation_csv, annotation_row, png_bytes

from etl.ingest import ingest
from etl.planning import plan_sources
from lesionary.settings import IngestSettings

NAMES = ("000001_01_01", "000002_01_01", "000003_01_01")
SIDE, SLICES = 96, 8
# One lesion through slices 2 to 4, surest on 3; one on slice 6 alone.
BLOBS = {2: [(40, 30, 4, 400)], 3: [(41, 30, 5, 600)], 4: [(41, 31, 3, 500)], 6: [(60, 50, 2, 300)]}


def write_series(folder, name, blobs, slices=SLICES, side=SIDE):
    target = Path(folder, "Images_png", name)
    target.mkdir(parents=True, exist_ok=True)
    for index in range(1, slices + 1):
        (target / f"{index:03d}.png").write_bytes(png_bytes(body_with_blobs(blobs.get(index, []), side)))


def row_of(name, key=3, slices=SLICES, side=SIDE, **changes):
    row = {
        "File_name": f"{name}_{key:03d}.png", "Slice_range": f"1, {slices}", "Image_size": f"{side}, {side}",
        "Spacing_mm_px_": "0.8, 0.8, 2", "Measurement_coordinates": "37, 31, 47, 31, 42, 26, 42, 36",
    }  # fmt: skip
    return annotation_row(**row | changes)


def take_in(lake, folder, *rows):
    Path(folder, "DL_info.csv").write_bytes(annotation_csv(*rows))
    ingest(lake, plan_sources([str(folder)], IngestSettings()), IngestSettings())
    return lake


def body_with_blobs(blobs, side=96):
    """A slice of a round body; blobs are (x, y, half side, HU) in zero-based pixels."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    hu = np.where(np.hypot(x, y) < side * 0.45, 40, -1000).astype(np.int16)
    for center_x, center_y, half, level in blobs:
        hu[max(center_y - half, 0) : center_y + half + 1, max(center_x - half, 0) : center_x + half + 1] = level
    return hu
