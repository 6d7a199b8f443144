"""Vectors that were computed elsewhere, into the lake as a feature set: a Parquet file of `lesion_id` and `vector`."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lesionary.errors import LakeError, SourceError, UsageError
from lesionary.identifiers import holds_detections
from lesionary.lake import Lake
from lesionary.results import remove_results, write_results
from lesionary.schema import EMBEDDINGS, FEATURE_SETS
from store.features import BUILT_IN_SETS, EUCLIDEAN, checked_set_name
from store.nearest import LARGEST_NUMBER

_MOST_NUMBERS = 16_384

_BATCH_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class ImportedSet:
    """A feature set that is in the lake now."""

    feature_set_id: str
    dimension: int
    vectors: int


def import_set(lake: Lake, file: Path, name: str, model_id: str) -> ImportedSet:
    """Take a file's vectors in as the next version of a feature set.

    Args:
        lake: where to.
        file: Parquet with the columns `lesion_id` (text) and `vector` (list of numbers, all of one length).
        name: of the set.
        model_id: who made the vectors.

    Raises:
        SourceError: the file cannot be read or holds something else.
        UsageError: the name cannot be a set's, is a built-in one's, or is kept for detections.
    """
    if checked_set_name(name) in {one.name for one in BUILT_IN_SETS}:
        raise UsageError("a built-in feature set has this name", where=name, next_step="choose another")
    if holds_detections(name):
        raise UsageError(
            "sets of such a name hold vectors of detections, which `lesionary embed --detections` makes",
            where=name,
            next_step="choose another",
        )
    dimension, count = _checked(file)
    taken = [row["version"] for row in lake.read("feature_sets").to_pylist() if row["name"] == name]
    version = max(taken, default=0) + 1
    set_id = f"{name}@{version}"
    lesions_version, _ = lake.shards("lesions")
    described = {
        "feature_set_id": set_id, "name": name, "version": version, "model_id": model_id, "dimension": dimension,
        "metric": EUCLIDEAN, "lesions_version": lesions_version, "created_at": datetime.now(UTC),
    }  # fmt: skip
    row = pa.Table.from_pylist([described], schema=FEATURE_SETS.schema)
    write_results(lake, set_id, {EMBEDDINGS.name: _parts(file, set_id), FEATURE_SETS.name: [row]})
    return ImportedSet(set_id, dimension, count)


def drop_set(lake: Lake, set_id: str) -> None:
    """Take one version of a feature set out of the lake.

    Raises:
        UsageError: it is built in, or the lake has none of that name.
    """
    if set_id in {one.set_id for one in BUILT_IN_SETS}:
        raise UsageError("a built-in feature set follows from the lesions and cannot be dropped", where=set_id)
    if set_id not in lake.read("feature_sets", columns=["feature_set_id"])["feature_set_id"].to_pylist():
        raise LakeError(
            "the lake has no such feature set", where=set_id, next_step="`lesionary features list` has their names"
        )
    remove_results(lake, set_id, (EMBEDDINGS.name, FEATURE_SETS.name))


def _checked(file: Path) -> tuple[int, int]:
    """Dimension and number of the file's vectors.

    Raises:
        SourceError: it is not what we take.
    """
    dimension, names = 0, []
    for batch in _batches(file):
        lengths = pc.unique(pc.list_value_length(batch["vector"])).to_pylist()
        dimension = dimension or lengths[0] or 0
        if lengths != [dimension] or not 1 <= dimension <= _MOST_NUMBERS:
            raise _refused(file, f"all vectors must have one length of 1 to {_MOST_NUMBERS} numbers")
        values = pc.list_flatten(batch["vector"])
        if values.null_count or not pc.all(pc.is_finite(values)).as_py():
            raise _refused(file, "a vector holds a number that is not finite")
        if pc.max(pc.abs(values)).as_py() > LARGEST_NUMBER:
            raise _refused(file, f"a vector holds a number beyond {LARGEST_NUMBER:g}, too large for distances")
        names.append(batch["lesion_id"])
    found = pa.chunked_array(names, pa.string())
    if not len(found):
        raise _refused(file, "there is no vector in it")
    if found.null_count or len(pc.unique(found)) != len(found):
        raise _refused(file, "a lesion has no name, or stands in it twice")
    return dimension, len(found)


def _parts(file: Path, set_id: str) -> Iterator[pa.Table]:
    for batch in _batches(file):
        columns = [
            pa.array([set_id] * batch.num_rows),
            batch["lesion_id"],
            batch["vector"].cast(pa.list_(pa.float32())),
            pa.nulls(batch.num_rows, pa.string()),
        ]
        yield pa.table(columns, names=list(EMBEDDINGS.column_names))


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file) as parquet:
            names = parquet.schema_arrow.names
            if any(names.count(column) != 1 for column in ("lesion_id", "vector")):
                raise _refused(file, "one column lesion_id and one column vector are needed")
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=["lesion_id", "vector"]):
                columns = [batch["lesion_id"].cast(pa.string()), batch["vector"].cast(pa.list_(pa.float32()))]
                yield pa.RecordBatch.from_arrays(columns, names=["lesion_id", "vector"])
    except SourceError:
        raise
    except (OSError, ValueError, pa.ArrowException) as cause:
        # Columns' names need not be text at all: a ValueError.
        raise _refused(file, f"it cannot be read as Parquet ({type(cause).__name__})") from cause


def _refused(file: Path, what: str) -> SourceError:
    return SourceError(
        f"no feature set: {what}", where=file.name, next_step="give a Parquet file with lesion_id and vector"
    )
