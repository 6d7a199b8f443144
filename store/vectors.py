"""A feature set's vectors beside the database: a memory-mapped matrix, and an approximate index where one pays.

    <set>-<digest>/vectors.npy     (n, d) float32, in the order of `rows.npy`
    <set>-<digest>/rows.npy        (n,) number of the lesion, code of its patient
    <set>-<digest>/lengths.npy     (n,) squared lengths of the vectors
    <set>-<digest>/index.faiss     only for sets with an approximate index

The database names the folder and holds a checksum of each file. A file that is missing, or differs from its checksum,
is never answered from: the vectors are made again from the database. To keep a cold answer quick, a file that was
checked once is known by its identity on disk (device, inode, size, times of change); anything that touches the file
changes that, and it is read and checked again.

Sets of up to `EXACT_BYTES` are scanned whole for every question (some 60 ms at that size on two cores), larger ones get
an inverted file, unless told otherwise (`kind_for`).
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lesionary.artifacts import atomic_write_bytes, file_sha256
from lesionary.errors import StoreError
from lesionary.json_text import parse_json
from store.members import LESIONS, Members
from store.nearest import squared_lengths
from store.versions import DRAFT_SUFFIX, make_durable

if TYPE_CHECKING:
    import duckdb

MATRIX_FILE, ROWS_FILE, LENGTHS_FILE, INDEX_FILE = "vectors.npy", "rows.npy", "lengths.npy", "index.faiss"
_CHECKED_FILE = "checked.json"
EXACT_BYTES = 256 << 20
FEWEST_INDEXED_ROWS = 1_000
_NAME_DIGITS = 16
# A header without a row; there is nothing to map then.
_EMPTY_BYTES = 128
_FETCH_ROWS = 16_384

ROW_TYPE = np.dtype([("lesion", "<i8"), ("patient", "<i4")])


class IndexKind(StrEnum):
    """How a feature set is searched."""

    AUTO = "auto"
    EXACT = "exact"
    IVF = "ivf"
    HNSW = "hnsw"


def kind_for(rows: int, dimension: int, wanted: IndexKind = IndexKind.AUTO) -> IndexKind:
    """The kind of index a set of this size gets; a set with too few rows for lists is scanned whatever was wanted."""
    if rows < FEWEST_INDEXED_ROWS:
        return IndexKind.EXACT
    if wanted is not IndexKind.AUTO:
        return wanted
    return IndexKind.EXACT if rows * dimension * 4 <= EXACT_BYTES else IndexKind.IVF


@dataclass(frozen=True, slots=True)
class Vectors:
    """One feature set, ready to be searched."""

    matrix: NDArray[np.float32]
    lengths: NDArray[np.float32]
    lesions: NDArray[np.int64]
    """(n,) numbers of the lesions, ascending."""
    patients: NDArray[np.int32]
    """(n,) code of each lesion's patient."""
    index_file: Path | None
    """The approximate index, for sets that have one."""

    @classmethod
    def in_memory(cls, matrix: NDArray[np.float32], rows: NDArray[np.void]) -> "Vectors":
        """Vectors that have no files; searched exactly."""
        lesions, patients = (np.ascontiguousarray(rows[name]) for name in ("lesion", "patient"))
        return cls(matrix, squared_lengths(matrix), lesions, patients, None)

    def positions(self, lesion_numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of these lesions, ascending; lesions without a vector have none."""
        wanted = np.sort(lesion_numbers)
        # np.unique takes ten times as long for the half of a large store.
        wanted = wanted[np.diff(wanted, prepend=-1) > 0]
        at = np.searchsorted(self.lesions, wanted)
        there = at < len(self.lesions)
        at, wanted = at[there], wanted[there]
        found: NDArray[np.int64] = at[self.lesions[at] == wanted]
        return found


@dataclass(frozen=True, slots=True)
class Built:
    """Vectors as they lie on disk: what the database has to know of them."""

    folder: str
    checksums: Mapping[str, str]
    index_kind: IndexKind


def read_vectors(
    connection: "duckdb.DuckDBPyConnection",
    table: str,
    dimension: int,
    members: Members = LESIONS,
    known: "Vectors | None" = None,
) -> tuple[NDArray[np.float32], NDArray[np.void]]:
    """Every lesion's vector out of the database, with its row of `ROW_TYPE`, by ascending number of the lesion.

    Args:
        connection: on the store.
        table: quoted name of the set's table or view.
        dimension: of its vectors.
        members: whose vectors they are.
        known: vectors of the first lesions, as the database still has them; those are not read again.
    """
    joined = f"FROM {members.rows} JOIN {table} USING (lesion_id)"
    named = connection.execute(
        f"SELECT lesion_number, dense_rank() OVER (ORDER BY patient_id) AS patient {joined} ORDER BY lesion_number"
    ).fetchnumpy()
    matrix, rows = np.empty((len(named["patient"]), dimension), np.float32), np.empty(len(named["patient"]), ROW_TYPE)
    rows["lesion"], rows["patient"] = named["lesion_number"], named["patient"]
    at = 0
    if known is not None:
        at = len(known.lesions)
        matrix[:at] = known.matrix
    last = int(rows["lesion"][at - 1]) if at else 0
    reader = connection.sql(
        f"SELECT vector {joined} WHERE lesion_number > {last} ORDER BY lesion_number"
    ).to_arrow_reader(_FETCH_ROWS)
    for batch in reader:
        part = slice(at, at + batch.num_rows)
        matrix[part] = batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
        at = part.stop
    return matrix, rows


def write_vectors(
    files: Path,
    set_id: str,
    matrix: NDArray[np.float32],
    rows: NDArray[np.void],
    kind: IndexKind,
    known: Vectors | None = None,
) -> Built:
    """Put vectors on disk under a name made of their content; nothing is written where they are there already.

    Args:
        files: folder of the store's versions.
        set_id: the feature set.
        matrix: (n, d).
        rows: (n,) of `ROW_TYPE`.
        kind: the index that is built over them; exact has none.
        known: vectors that the matrix begins with; an index over them is added to where that is as good.
    """
    digest = hashlib.sha256(matrix.reshape(-1).view(np.uint8).data)
    digest.update(rows.tobytes())
    digest.update(kind.encode())
    folder = files / f"{set_id}-{digest.hexdigest()[:_NAME_DIGITS]}"
    draft = files / f"{folder.name}.{secrets.token_hex(4)}{DRAFT_SUFFIX}"
    draft.mkdir()
    try:
        contents = {MATRIX_FILE: matrix, ROWS_FILE: rows, LENGTHS_FILE: squared_lengths(matrix)}
        for name, array in contents.items():
            with (draft / name).open("wb") as sink:
                np.save(sink, array, allow_pickle=False)
                sink.flush()
                os.fsync(sink.fileno())
        if kind is not IndexKind.EXACT:
            from store.indexes import write_index

            write_index(kind, matrix, draft / INDEX_FILE, known.index_file if known else None)
            make_durable(draft / INDEX_FILE)
        checksums = {file.name: _sha256(file) for file in sorted(draft.iterdir())}
        if not is_whole(folder, checksums):
            _move_into_place(draft, folder)
            _remember(folder, checksums)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Built(folder.name, checksums, kind)


def is_whole(folder: Path, checksums: Mapping[str, str]) -> bool:
    """Whether every file is there and is what was written."""
    try:
        remembered = parse_json((folder / _CHECKED_FILE).read_bytes())
    except (OSError, ValueError):
        remembered = {}
    try:
        known = isinstance(remembered, dict) and all(
            remembered.get(name) == [*_identity(folder / name), checksum] for name, checksum in checksums.items()
        )
        if known:
            return True
        if any(_sha256(folder / name) != checksum for name, checksum in checksums.items()):
            return False
    except OSError:
        return False
    _remember(folder, checksums)
    return True


def map_vectors(folder: Path) -> Vectors:
    """Vectors of a folder that `is_whole`, mapped into memory.

    Raises:
        StoreError: the files do not fit together.
    """
    try:
        mapped = (folder / ROWS_FILE).stat().st_size > _EMPTY_BYTES
        matrix = np.load(folder / MATRIX_FILE, mmap_mode="r" if mapped else None, allow_pickle=False)
        rows = np.load(folder / ROWS_FILE, allow_pickle=False)
        lengths = np.load(folder / LENGTHS_FILE, allow_pickle=False)
    except (OSError, ValueError) as cause:
        raise StoreError(
            "vectors of the store cannot be read", where=folder.name, next_step="run `lesionary sync`"
        ) from cause
    index = folder / INDEX_FILE
    return Vectors(
        # A plain view: numpy's memory maps are slow to slice.
        matrix.view(np.ndarray), lengths, np.ascontiguousarray(rows["lesion"]), np.ascontiguousarray(rows["patient"]),
        index if index.is_file() else None,
    )  # fmt: skip


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return file_sha256(stream)


def _identity(file: Path) -> tuple[int, int, int, int, int]:
    """Changes whenever the file is written, replaced or touched: the time of change cannot be set by hand."""
    status = file.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _remember(folder: Path, checksums: Mapping[str, str]) -> None:
    """Note that the files were checked; readers without the right to write check again next time."""
    with contextlib.suppress(OSError):
        known = {name: [*_identity(folder / name), checksum] for name, checksum in checksums.items()}
        atomic_write_bytes(folder / _CHECKED_FILE, json.dumps(known).encode())


def _move_into_place(draft: Path, folder: Path) -> None:
    """Make the draft the folder of that name; a damaged folder makes way for it."""
    try:
        draft.rename(folder)
    except OSError:
        damaged = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}{DRAFT_SUFFIX}")
        with contextlib.suppress(FileNotFoundError):
            folder.rename(damaged)
        with contextlib.suppress(OSError):
            # Another process may have put the same content there in between.
            draft.rename(folder)
        shutil.rmtree(damaged, ignore_errors=True)
