"""Lakes of millions of lesions without images, written as ingest writes them: the same shards, the same commits."""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa

from lesionary.anatomy import LESION_TYPES
from lesionary.commits import Batch, commit
from lesionary.identifiers import new_ingest_id
from lesionary.lake import Lake
from lesionary.schema import COORDINATE_COLUMNS, SOURCE_TABLES
from lesionary.shards import ShardWriter

LESIONS_PER_SERIES = 4
_SERIES_AT_ONCE = 25_000
_BATCHES_PER_COMMIT = 4
_SEED = 20261127


def add_lesions(lake: Lake, count: int, first: int = 0) -> None:
    """Write lesions number `first` to `first + count`, a patient for each four, in commits of 400,000."""
    ingest_id = new_ingest_id()
    numbers = np.arange(first // LESIONS_PER_SERIES, (first + count) // LESIONS_PER_SERIES)
    chunks = [numbers[at : at + _SERIES_AT_ONCE] for at in range(0, len(numbers), _SERIES_AT_ONCE)]
    for sequence, at in enumerate(range(0, len(chunks), _BATCHES_PER_COMMIT), 1):
        group = chunks[at : at + _BATCHES_PER_COMMIT]
        shards = {}
        with tempfile.TemporaryDirectory(prefix="lesionary-") as scratch:
            for name, rows in _tables(ingest_id).items():
                table = SOURCE_TABLES[name]
                prefix = f"{ingest_id}-b{sequence:04d}"
                with ShardWriter(table, lake.table_folder(name), prefix, Path(scratch)) as writer:
                    for part in group:
                        writer.write(rows(part))
                    shards[name] = [writer.finish()]
        units = frozenset(_series_names(np.concatenate(group)))
        commit(lake, Batch(ingest_id, sequence, units, shards))


def _series_names(numbers: np.ndarray) -> list[str]:
    return [f"m-{number:07d}_01_01" for number in numbers.tolist()]


def _tables(ingest_id: str) -> "dict[str, object]":
    return {
        "series": lambda numbers: _filled("series", _series(numbers), ingest_id),
        "lesions": lambda numbers: _filled("lesions", _lesions(numbers), ingest_id),
        "units": lambda numbers: _filled("units", _units(numbers), ingest_id),
    }


def _filled(name: str, columns: dict[str, object], ingest_id: str) -> pa.Table:
    """A table of the lake from some of its columns; the others are null, empty or zero, as they may be."""
    length = len(next(iter(columns.values())))
    arrays = []
    for declared in SOURCE_TABLES[name].schema:
        if declared.name in columns:
            arrays.append(pa.array(columns[declared.name], declared.type))
        elif declared.name == "ingest_id":
            arrays.append(pa.array([ingest_id] * length, declared.type))
        elif declared.name == "flags":
            arrays.append(pa.array([[]] * length, declared.type))
        elif declared.nullable:
            arrays.append(pa.nulls(length, declared.type))
        else:
            arrays.append(pa.array([0] * length).cast(declared.type))
    return pa.Table.from_arrays(arrays, schema=SOURCE_TABLES[name].schema)


def _series(numbers: np.ndarray) -> dict[str, object]:
    return {
        "series_id": _series_names(numbers),
        "patient_id": [f"m-{number:07d}" for number in numbers.tolist()],
        "study_id": [f"m-{number:07d}_01" for number in numbers.tolist()],
        "study_index": np.ones(len(numbers), np.int64),
        "source": ["deeplesion"] * len(numbers),
        "sex": np.where(numbers % 2, "F", "M"),
        "age_years": 20.0 + numbers % 70,
        "fingerprint": [f"{number:032x}" for number in numbers.tolist()],
    }


def _units(numbers: np.ndarray) -> dict[str, object]:
    marks = np.full(len(numbers), LESIONS_PER_SERIES)
    return {
        "unit_id": _series_names(numbers),
        "source": ["deeplesion"] * len(numbers),
        "fingerprint": [f"{number:032x}" for number in numbers.tolist()],
        **dict.fromkeys(("rows_found", "rows_accepted", "lesions"), marks),
    }


def _lesions(numbers: np.ndarray) -> dict[str, object]:
    series = np.repeat(numbers, LESIONS_PER_SERIES)
    lesions = series * LESIONS_PER_SERIES + np.tile(np.arange(LESIONS_PER_SERIES), len(numbers))
    rng = np.random.default_rng([_SEED, int(numbers[0])])
    center = rng.uniform(100, 400, (len(lesions), 2))
    long_px, short_px = rng.lognormal(3, 0.5, (2, len(lesions)))
    ends = (-long_px / 2, 0, long_px / 2, 0, 0, -short_px / 2, 0, short_px / 2)
    points = {
        name: center[:, at % 2] + end for at, (name, end) in enumerate(zip(COORDINATE_COLUMNS, ends, strict=True))
    }
    names = [f"m-{number:07d}" for number in series.tolist()]
    box = np.column_stack([points["long_x1_px"], points["short_y1_px"], points["long_x2_px"], points["short_y2_px"]])
    return {
        "lesion_id": [f"m-{number}" for number in lesions.tolist()],
        "row_number": lesions,
        "series_id": [f"{name}_01_01" for name in names],
        "patient_id": names,
        "study_id": [f"{name}_01" for name in names],
        "slice_index": rng.integers(1, 300, len(lesions)),
        **points,
        "coord_convention": ["one_based"] * len(lesions),
        "box_xyxy_px": box.tolist(),
        "long_px": long_px,
        "short_px": short_px,
        "long_mm": long_px * 0.8,
        "short_mm": short_px * 0.8,
        **{f"release_{axis}": rng.uniform(0, 1, len(lesions)) for axis in "xyz"},
        "lesion_type": np.array(LESION_TYPES)[rng.integers(0, len(LESION_TYPES), len(lesions))],
        "source_format": ["dl_info"] * len(lesions),
        "confidence": np.ones(len(lesions)),
    }
