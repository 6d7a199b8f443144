"""Similar lesions beside LanceDB, DuckDB's own arrays and pgvector: the same vectors, the same ten nearest.

    python benchmarks/bench_search_peers.py [--rows 32735] [--dimension 1024] [--rounds 40] [--keep FOLDER]

The vectors are those of a store of ours, made once and kept in a folder: the release's size unless told otherwise. A
question is a vector a little off one of the store's, and its 10 nearest by Euclidean distance; recall is the share of
the ten that brute force in double precision finds. Every system has one thread and otherwise comes as it is, except
that PostgreSQL gets a gigabyte of shared buffers; it runs as a private cluster on a socket in a scratch folder.
pgvector and LanceDB are asked without an index and with the one their documentation starts from (HNSW; IVF with product
quantisation, refined from ten times as many rows). Building counts from vectors in memory to an index on disk.

Ways take turns, one question after the other; figures are means of processor time (for pgvector of all PostgreSQL's
processes too), which other work on the machine disturbs little, and medians of the clock.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# Read when it is imported.
os.environ["LANCE_CPU_THREADS"] = "1"

import duckdb
import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfPq
from make_store import DIMENSION, LESIONS, make_large_store, make_store
from measure import measured, median, processor_clock, ratio
from numpy.typing import NDArray
from private_postgres import Postgres
from threadpoolctl import threadpool_limits

from store.database import open_reader
from store.similar import Searcher

K = 10
_SEED = 7
# Questions of each way that are not counted.
_WARM = 3
_REFINED, _PROBED = 10, 20
_INSERT_ROWS = 8_192

Vectors = NDArray[np.float32]
Ask = Callable[[Vectors], Sequence[int]]
"""A vector to the rows of its nearest."""


@dataclass(frozen=True, slots=True)
class Way:
    """One system, ready to be asked."""

    ask: Ask
    built_seconds: float
    processor: Callable[[], float] = processor_clock


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=LESIONS)
    parser.add_argument("--dimension", type=int, default=DIMENSION)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "lesionary-benchmarks"))
    with (
        measured(parser, quick={"rows": 20_000, "dimension": 64, "rounds": 15}) as arguments,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        rows, dimension = arguments.rows, arguments.dimension
        if (rows, dimension) == (LESIONS, DIMENSION):
            _, store = make_store(arguments.keep / f"release-{DIMENSION}")
        else:
            store = make_large_store(arguments.keep / f"large-{rows}-{dimension}", rows, dimension)
        with open_reader(store) as connection, Postgres(Path(scratch, "postgres")) as postgres:
            searcher = Searcher(connection, store, "embedding")
            with threadpool_limits(1):
                compare(searcher, Path(scratch), postgres, arguments.rounds)


def compare(searcher: Searcher, scratch: Path, postgres: Postgres, rounds: int) -> None:
    """All ways on the vectors of a store."""
    matrix = np.ascontiguousarray(searcher.vectors.matrix)
    ways = {"ours": Way(lambda vector: ours(searcher, vector), 0.0)}
    ways |= lance_ways(matrix, scratch / "lance")
    ways["DuckDB, arrays"] = duckdb_way(matrix, scratch / "vectors.duckdb")
    ways |= pgvector_ways(matrix, postgres)
    queries = some_queries(matrix, rounds + _WARM)
    clock: dict[str, list[float]] = {name: [] for name in ways}
    processor = dict.fromkeys(ways, 0.0)
    found: dict[str, list[set[int]]] = {name: [] for name in ways}
    for at, query in enumerate(queries):
        for name, way in ways.items():
            spent, started = way.processor(), time.perf_counter()
            rows = way.ask(query)
            clock[name].append(time.perf_counter() - started)
            processor[name] += way.processor() - spent if at >= _WARM else 0.0
            found[name].append(set(rows))
    truth = [brute_force(matrix, query) for query in queries]
    kind = "an index" if searcher.vectors.index_file else "scanned whole"
    print(f"{len(matrix):,} × {matrix.shape[1]:,}, ours {kind}; {rounds} questions; processor, clock, recall, built")
    recalls = {name: recall(each, truth) for name, each in found.items()}
    for name, way in ways.items():
        built = f"{way.built_seconds:7.1f} s" if way.built_seconds else ""
        spent, taken = processor[name] / rounds * 1e3, median(clock[name][_WARM:]) * 1e3
        print(f"  {name:<22} {spent:8.2f} ms {taken:8.2f} ms  {recalls[name]:.4f} {built}")
    for name in tuple(ways)[1:]:
        ratio(f"speed over {name}", processor[name] / processor["ours"])
    ratio("recall", recalls["ours"], at_least=0.98, digits=4)


def some_queries(matrix: Vectors, count: int) -> list[Vectors]:
    generator = np.random.default_rng(_SEED)
    rows = generator.choice(len(matrix), count, replace=False)
    # As far off as a tenth of a typical vector's length.
    spread = 0.1 * float(np.linalg.norm(matrix[rows], axis=1).mean()) / np.sqrt(matrix.shape[1])
    return [(matrix[row] + generator.normal(0, spread, matrix.shape[1])).astype(np.float32) for row in rows]


def brute_force(matrix: Vectors, query: Vectors) -> set[int]:
    # Blocks, so that double precision never holds the whole.
    blocks = (matrix[start : start + 65_536] for start in range(0, len(matrix), 65_536))
    distances = np.concatenate([np.linalg.norm(block - query.astype(np.float64), axis=1) for block in blocks])
    return set(np.argsort(distances, kind="stable")[:K].tolist())


def recall(found: Sequence[set[int]], truth: Sequence[set[int]]) -> float:
    return sum(len(ours & right) for ours, right in zip(found, truth, strict=True)) / (K * len(truth))


def ours(searcher: Searcher, vector: Vectors) -> list[int]:
    query = searcher.query_for_vector(vector)
    rows: list[int] = searcher.search([query], K)[0].rows[:K].tolist()
    return rows


def as_table(matrix: Vectors) -> pa.Table:
    lists = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
    return pa.table({"id": pa.array(np.arange(len(matrix), dtype=np.int32)), "vector": lists})


def lance_ways(matrix: Vectors, folder: Path) -> dict[str, Way]:
    """LanceDB without an index, and with one."""
    started = time.perf_counter()
    database = lancedb.connect(str(folder))
    plain = database.create_table("plain", as_table(matrix))
    loaded = time.perf_counter() - started
    indexed = database.create_table("indexed", as_table(matrix))
    started = time.perf_counter()
    indexed.create_index("vector", config=IvfPq(distance_type="l2"))
    built = time.perf_counter() - started

    def without(vector: Vectors) -> Sequence[int]:
        found: list[int] = plain.search(vector).limit(K).select(["id", "_distance"]).to_arrow()["id"].to_pylist()
        return found

    def through(vector: Vectors) -> Sequence[int]:
        search = indexed.search(vector).limit(K).nprobes(_PROBED).refine_factor(_REFINED)
        found: list[int] = search.select(["id", "_distance"]).to_arrow()["id"].to_pylist()
        return found

    return {"LanceDB, no index": Way(without, loaded), "LanceDB, IVF-PQ": Way(through, built)}


def duckdb_way(matrix: Vectors, file: Path) -> Way:
    """A table with an array in each row, in the release of DuckDB that we have ourselves."""
    started = time.perf_counter()
    connection = duckdb.connect(file, config={"threads": 1})
    dimension = matrix.shape[1]
    connection.execute(f"CREATE TABLE vectors (id INTEGER, vector FLOAT[{dimension}])")
    connection.register("incoming", as_table(matrix))
    connection.execute("INSERT INTO vectors SELECT * FROM incoming; CHECKPOINT")
    connection.unregister("incoming")
    built = time.perf_counter() - started
    question = f"SELECT id FROM vectors ORDER BY array_distance(vector, ?::FLOAT[{dimension}]) LIMIT {K}"  # noqa: S608

    def ask(vector: Vectors) -> Sequence[int]:
        return [number for (number,) in connection.execute(question, [vector]).fetchall()]

    return Way(ask, built)


def pgvector_ways(matrix: Vectors, postgres: Postgres) -> dict[str, Way]:
    """pgvector without an index, and with HNSW."""
    connection = postgres.connect()
    dimension = matrix.shape[1]
    started = time.perf_counter()
    connection.execute("CREATE EXTENSION vector")
    connection.execute("SET max_parallel_workers_per_gather = 0")
    connection.execute("SET max_parallel_maintenance_workers = 0")
    # Vectors stay inside their rows up to what a page takes, as pgvector's own advice for scans has it.
    connection.execute(f"CREATE TABLE plain (id integer, embedding vector({dimension}))")
    connection.execute("ALTER TABLE plain ALTER embedding SET STORAGE PLAIN")
    with connection.cursor().copy("COPY plain FROM STDIN (FORMAT BINARY)") as copy:
        for piece in binary_rows(matrix):
            copy.write(piece)
    connection.execute("VACUUM ANALYZE plain")
    loaded = time.perf_counter() - started
    connection.execute("CREATE TABLE indexed AS TABLE plain")
    connection.execute("SET maintenance_work_mem = '1GB'")
    started = time.perf_counter()
    connection.execute("CREATE INDEX ON indexed USING hnsw (embedding vector_l2_ops)")
    built = time.perf_counter() - started
    connection.execute("VACUUM ANALYZE indexed")

    def asking(table: str) -> Ask:
        question = f"SELECT id FROM {table} ORDER BY embedding <-> %s::vector LIMIT {K}"  # noqa: S608

        def ask(vector: Vectors) -> Sequence[int]:
            text = "[" + ",".join(map(str, vector.tolist())) + "]"
            return [number for (number,) in connection.execute(question, [text]).fetchall()]

        return ask

    def processor() -> float:
        return postgres.processor() + processor_clock()

    return {
        "pgvector, no index": Way(asking("plain"), loaded, processor),
        "pgvector, HNSW": Way(asking("indexed"), built, processor),
    }


def binary_rows(matrix: Vectors) -> Iterator[bytes]:
    """Rows in PostgreSQL's binary form: of each a number and a vector, which says its dimension first."""
    dimension = matrix.shape[1]
    row = np.dtype(
        [
            ("fields", ">i2"), ("number_bytes", ">i4"), ("number", ">i4"), ("vector_bytes", ">i4"),
            ("dimension", ">i2"), ("unused", ">i2"), ("values", ">f4", (dimension,)),
        ]
    )  # fmt: skip
    yield b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for start in range(0, len(matrix), _INSERT_ROWS):
        part = matrix[start : start + _INSERT_ROWS]
        rows = np.zeros(len(part), row)
        rows["fields"], rows["number_bytes"], rows["vector_bytes"] = 2, 4, 4 + 4 * dimension
        rows["number"], rows["dimension"], rows["values"] = np.arange(start, start + len(part)), dimension, part
        yield rows.tobytes()
    yield (-1).to_bytes(2, "big", signed=True)


if __name__ == "__main__":
    main()
