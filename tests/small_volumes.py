"""Volumes drawn in a moment: a body whose outline and spine change from head to foot, as a cache's table."""

import numpy as np
import pyarrow as pa

from etl.volumes import volume_schema

SIDE = 32


def volume_hu(patient, count, first=0.0, last=1.0):
    """(count, side, side) int16 HU of a patient, between two heights."""
    rng = np.random.default_rng(patient)
    size, shift = rng.uniform(0.9, 1.1), rng.uniform(-2, 2, 2)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    slices = []
    for height in np.linspace(first, last, count):
        radius = size * (6 + 7 * height)
        body = np.hypot(x - shift[0], y - shift[1]) < radius
        lung = (np.abs(x - shift[0]) > 1) & (np.hypot(x - shift[0], y - shift[1]) < radius * 0.7 * (1 - height))
        hu = np.where(body, np.where(lung, -850, 40), -1000) + rng.normal(0, 20, x.shape)
        slices.append(hu.astype(np.int16))
    return np.stack(slices)


def volume_table(volumes):
    """The table of volumes given as (name, split, pixels); one part for every two volumes."""
    schema = volume_schema(SIDE)
    tables = []
    for name, split, pixels in volumes:
        count = len(pixels)
        columns = {
            "series_id": [f"{name}_01_01"] * count,
            "patient_id": [name] * count,
            "slice_index": range(1, count + 1),
            "z_mm": [5.0 * index for index in range(count)],
            "spacing_z_mm": [5.0] * count,
            "split": [split] * count,
            "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), type=schema.field("pixels").type),
        }
        tables.append(pa.table(columns, schema=schema))
    return pa.concat_tables(pa.concat_tables(tables[at : at + 2]).combine_chunks() for at in range(0, len(tables), 2))


def small_table(train=6, val=2, test=2, count=20):
    """A table of so many volumes of each split."""
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    return volume_table(
        [(f"t-{number:03d}", split, volume_hu(number, count + number % 3)) for number, split in enumerate(splits)]
    )
