"""Approximate indexes for sets too large to be scanned for every question: how they are built, how asked.

An index only names candidates, in about their order; the exact distances come from the set's own vectors, which stay on
disk and are mapped. So inverted lists hold half a byte for every few dimensions, and a query that visits a quarter of
them still reads little. How many lists it visits is measured when the index is built: the fewest that find
`WANTED_RECALL` of the true neighbours of sampled vectors. `hnsw` keeps the vectors themselves and takes far longer to
build.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from store.nearest import nearest, ranked, squared_lengths
from store.vectors import IndexKind

WANTED_RECALL = 0.995
_RECALL_AT = 10
_SAMPLED_QUERIES = 200
_TRAINING_ROWS_PER_LIST = 48
# Dimensions that share half a byte, the most that go into the dimension.
_PIECES = (4, 2, 1)
_HALF_BYTE = 4
# Candidates in the order of half bytes: the more are compared exactly, the less their order matters.
_ROUGH_CANDIDATES, _ROUGH_PER_HIT = 400, 8
_SPARE_CANDIDATES = 8
_HNSW_LINKS, _HNSW_BUILD_EFFORT = 32, 80
_ADD_ROWS = 65_536
_SEED = 20180


def write_index(kind: IndexKind, matrix: NDArray[np.float32], file: Path, grown_from: Path | None = None) -> None:
    """Put an index over the rows of a matrix into a file.

    Args:
        kind: inverted lists or graph.
        matrix: (n, d).
        file: where to.
        grown_from: index over the matrix's first rows. The other rows are added to it if it is of that kind and has as
            many lists as a new one would have; else all of it is built.
    """
    index = _grown(kind, matrix, grown_from) if grown_from else None
    if index is None:
        index = _build_ivf(matrix) if kind is IndexKind.IVF else _build_hnsw(matrix)
        _measure_effort(index, matrix)
    faiss.write_index(index, str(file))


def _grown(kind: IndexKind, matrix: NDArray[np.float32], file: Path) -> Any:  # noqa: ANN401 (FAISS has no types)
    """The index of this file with the matrix's further rows, or None where a new one is due."""
    # A downcast index does not own what it shows.
    owner = faiss.read_index(str(file))
    index = faiss.downcast_index(owner)
    wanted = faiss.IndexIVFPQFastScan if kind is IndexKind.IVF else faiss.IndexHNSWFlat
    if not isinstance(index, wanted) or (kind is IndexKind.IVF and index.nlist != _lists_for(len(matrix))):
        return None
    _add(owner, matrix[owner.ntotal :])
    return owner


class ApproximateIndex:
    """An index file, ready to be asked."""

    def __init__(self, file: Path) -> None:
        self._index = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)

    def candidates(self, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:
        """(m, more than k) rows that hold the k nearest of each query, nearly always; -1 where fewer were found."""
        return _candidates(self._index, np.ascontiguousarray(queries, np.float32), k)

    def settings(self) -> Mapping[str, int]:
        """What the index was built with, for people."""
        index = faiss.downcast_index(self._index)
        if hasattr(index, "nlist"):
            return {"lists": int(index.nlist), "lists_visited": int(index.nprobe)}
        return {"links": _HNSW_LINKS, "search_effort": int(index.hnsw.efSearch)}


def _build_ivf(matrix: NDArray[np.float32]) -> Any:  # noqa: ANN401 (FAISS has no types)
    rows, dimension = matrix.shape
    lists = _lists_for(rows)
    piece = next(piece for piece in _PIECES if dimension % piece == 0)
    centers = faiss.IndexFlatL2(dimension)
    index = faiss.IndexIVFPQFastScan(centers, dimension, lists, dimension // piece, _HALF_BYTE)
    index.cp.seed, index.cp.niter = _SEED, 10
    generator = np.random.default_rng(_SEED)
    sample = np.sort(generator.choice(rows, min(rows, lists * _TRAINING_ROWS_PER_LIST), replace=False))
    index.train(np.ascontiguousarray(matrix[sample]))
    _add(index, matrix)
    return index


def _lists_for(rows: int) -> int:
    """Four times the root of the rows, down to a power of two, each list with enough rows to train it."""
    lists = int(min(4 * np.sqrt(rows), rows / _TRAINING_ROWS_PER_LIST))
    return max(1, 1 << (lists.bit_length() - 1))


def _build_hnsw(matrix: NDArray[np.float32]) -> Any:  # noqa: ANN401
    index = faiss.IndexHNSWFlat(matrix.shape[1], _HNSW_LINKS)
    index.hnsw.efConstruction = _HNSW_BUILD_EFFORT
    _add(index, matrix)
    return index


def _add(index: Any, matrix: NDArray[np.float32]) -> None:  # noqa: ANN401
    for start in range(0, len(matrix), _ADD_ROWS):
        index.add(np.ascontiguousarray(matrix[start : start + _ADD_ROWS]))


def _candidates(index: Any, queries: NDArray[np.float32], k: int) -> NDArray[np.int64]:  # noqa: ANN401
    rough = hasattr(index, "nprobe")
    wanted = _ROUGH_CANDIDATES + _ROUGH_PER_HIT * k if rough else k + _SPARE_CANDIDATES
    found: NDArray[np.int64] = index.search(queries, min(wanted, index.ntotal))[1]
    return found


def _measure_effort(index: Any, matrix: NDArray[np.float32]) -> None:  # noqa: ANN401
    """Set the least effort that finds the wanted share of true neighbours; a little aside of rows, as questions are."""
    generator = np.random.default_rng(_SEED)
    rows = generator.choice(len(matrix), min(len(matrix), _SAMPLED_QUERIES), replace=False)
    others = generator.choice(len(matrix), len(rows))
    queries = np.ascontiguousarray(0.9 * matrix[rows] + 0.1 * matrix[others], np.float32)
    truth = nearest(matrix, squared_lengths(matrix), queries, _RECALL_AT)
    wanted = WANTED_RECALL * sum(min(_RECALL_AT, len(one.rows)) for one in truth)
    most, effort, hits = int(getattr(index, "nlist", 1024)), 1, 0
    while hits < wanted and effort <= most:
        if hasattr(index, "nprobe"):
            index.nprobe = effort
        else:
            index.hnsw.efSearch = effort
        found = _candidates(index, queries, _RECALL_AT)
        hits = sum(
            len(np.intersect1d(one.rows[:_RECALL_AT], ranked(matrix, query, row[row >= 0], _RECALL_AT).rows))
            for one, query, row in zip(truth, queries, found, strict=True)
        )
        effort *= 2
