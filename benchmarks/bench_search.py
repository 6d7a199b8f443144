"""Similar lesions as a program asks for them, against raw FAISS on the same vectors in the same run.

    python benchmarks/bench_search.py [--rounds 40] [--skip-large] [--rows 1000000] [--dimension 256] [--keep FOLDER]

Stores are made once and kept in a folder: one of the release's size with a set of 1,024 values, which is scanned whole
for every question, and a large one, whose index takes minutes to build (`--skip-large` leaves it out).

A question is one lesion and its 10 nearest: `Searcher.search`, everything that a program waits for but the names
(`Searcher.hits`, in a line of its own). FAISS is a flat index in memory, under the same number of threads, one and all
of them. Ways take turns, one lesion after the other; figures are medians, of processor time for one thread, else of
the clock.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import faiss
import numpy as np
from make_store import DIMENSION, LESIONS, make_large_store, make_store
from measure import measured, median, ratio, report
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from store.database import open_reader
from store.nearest import nearest
from store.similar import Query, Searcher
from store.vectors import Vectors

K = 10
ONE_PERCENT, HALF = "hash(lesion_id) % 100 = 0", "hash(lesion_id) % 2 = 0"
OVER_FAISS, LARGE_MS, RECALL = 1.3, 5.0, 0.98
_BLOCK_ROWS = 65_536
_CHECKED_QUERIES, _RECALL_QUERIES = 20, 200
# Questions of each way that are not counted.
_WARM = 3

Way = Callable[[int], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--skip-large", action="store_true")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "lesionary-benchmarks"))
    with measured(parser, quick={"rounds": 15, "rows": 50_000, "dimension": 64}) as arguments:
        _, store = make_store(arguments.keep / f"release-{DIMENSION}")
        exact(store, arguments.rounds)
        if not arguments.skip_large:
            name = f"large-{arguments.rows}-{arguments.dimension}"
            started = time.perf_counter()
            store = make_large_store(arguments.keep / name, arguments.rows, arguments.dimension)
            print(f"\nlarge store made, or found, in {time.perf_counter() - started:.0f} s")
            large(store, arguments.rounds)


def exact(store: Path, rounds: int) -> None:
    with open_reader(store) as connection:
        searcher = Searcher(connection, store, "embedding")
        matrix = np.ascontiguousarray(searcher.vectors.matrix)
        queries = some_queries(connection, searcher, rounds + _WARM)
        flat = {"FlatL2": faiss.IndexFlatL2(DIMENSION), "FlatIP": faiss.IndexFlatIP(DIMENSION)}
        for index in flat.values():
            index.add(matrix)
        allowed = searcher.allowed_rows(ONE_PERCENT)
        print(f"{LESIONS:,} × {DIMENSION:,}, scanned whole; medians of {rounds} questions")
        ways: dict[str, Way] = {
            f"FAISS {name}": lambda at, index=index: index.search(queries[at].vector[None], K)
            for name, index in flat.items()
        }
        ways |= {
            "any patient": lambda at: searcher.search([queries[at]], K, same_patient=True),
            "other patients": lambda at: searcher.search([queries[at]], K),
            "among 1 %": lambda at: searcher.search([queries[at]], K, allowed=allowed),
            "a new condition": lambda at: searcher.allowed_rows(one_percent(at + 50)),
            "a new one, and search": lambda at: searcher.search(
                [queries[at]], K, allowed=searcher.allowed_rows(one_percent(at))
            ),
            "the same, and search": lambda at: searcher.search(
                [queries[at]], K, allowed=searcher.allowed_rows(one_percent(at))
            ),
        }
        found = searcher.search(queries[:1], K)
        ways["names of the hits"] = lambda _: searcher.hits(found, K)
        for threads in sorted({1, faiss.omp_get_max_threads()}):
            with threadpool_limits(threads):
                medians = timed(ways, rounds, time.process_time if threads == 1 else time.perf_counter)
            show(f"{threads} thread{'s' * (threads > 1)}", medians)
            for way in ("any patient", "other patients"):
                tell(threads, f"{way} over FlatL2", medians[way] / medians["FAISS FlatL2"], OVER_FAISS)
            for way in ("among 1 %", "the same, and search", "a new one, and search"):
                tell(threads, f"{way}, over no condition", medians[way] / medians["other patients"], 1)
        check_exact(searcher, queries[:_CHECKED_QUERIES], (None, ONE_PERCENT, HALF))


def tell(threads: int, title: str, value: float, at_most: float) -> None:
    """One thread's ratios can be held against another day's; more threads wait for each other and for other work."""
    if threads == 1:
        ratio(f"1 thread: {title}", value, at_most=at_most)
    else:
        report(f"{threads} threads: {title}", f"{value:.2f} ×", f"≤ {at_most:g}", holds=value <= at_most)


def large(store: Path, rounds: int) -> None:
    started = time.perf_counter()
    with open_reader(store) as connection:
        searcher = Searcher(connection, store, "embedding")
        queries = some_queries(connection, searcher, _RECALL_QUERIES)
        opened = time.perf_counter()
        found = searcher.search(queries[-1:], K)
        first = time.perf_counter() - opened
        vectors = searcher.vectors
        print(f"{len(vectors.lesions):,} × {vectors.matrix.shape[1]}, an index; opened in {opened - started:.2f} s")
        print(f"first question {first * 1e3:.0f} ms; index {size_mb(vectors):.0f} MB")
        kept = {name: searcher.allowed_rows(name) for name in (ONE_PERCENT, HALF)}
        ways: dict[str, Way] = {
            "any patient": lambda at: searcher.search([queries[at]], K, same_patient=True),
            "other patients": lambda at: searcher.search([queries[at]], K),
            "names of the hits": lambda _: searcher.hits(found, K),
        }
        medians = timed(ways, min(rounds * 3, _RECALL_QUERIES - _WARM))
        slow: dict[str, Way] = {"every row": lambda at: nearest_of_all(vectors, queries[at])}
        for share, condition in (("1 %", ONE_PERCENT), ("half", HALF)):
            rows = kept[condition]
            slow[f"among {share}"] = lambda at, rows=rows: searcher.search([queries[at]], K, allowed=rows)
            slow[f"a new condition: {share}"] = lambda at, condition=condition: searcher.allowed_rows(
                f"{condition} -- {at}"
            )
        show("all threads", medians | timed(slow, max(5, rounds // 4)))
        for way in ("any patient", "other patients"):
            report(f"{way}, p50", f"{medians[way]:.1f} ms", f"≤ {LARGE_MS:g} ms", holds=medians[way] <= LARGE_MS)
        for way, same_patient in (("any patient", True), ("other patients", False)):
            share = recall(searcher, queries, same_patient=same_patient)
            ratio(f"{way}, recall at {K}", share, at_least=RECALL, digits=4)
        check_exact(searcher, queries[:_CHECKED_QUERIES], (ONE_PERCENT, HALF))


def one_percent(at: int) -> str:
    return f"hash(lesion_id) % 100 = {at % 100}"


def some_queries(connection: object, searcher: Searcher, count: int) -> list[Query]:
    names = connection.execute(  # type: ignore[attr-defined]
        "SELECT lesion_id FROM lesions ORDER BY hash(lesion_id) LIMIT ?", [count]
    ).fetchall()
    return searcher.queries_for([name for (name,) in names])[0]


def timed(ways: Mapping[str, Way], rounds: int, clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Median milliseconds of each way, all of them asked in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for at in range(rounds + _WARM):
        for name, way in ways.items():
            started = clock()
            way(at)
            taken[name].append((clock() - started) * 1e3)
    return {name: median(each[_WARM:]) for name, each in taken.items()}


def show(title: str, medians: Mapping[str, float]) -> None:
    print(f" {title}")
    for name, value in medians.items():
        print(f"  {name:<22} {value:8.2f} ms")


def recall(searcher: Searcher, queries: Sequence[Query], *, same_patient: bool) -> float:
    found = [searcher.search([query], K, same_patient=same_patient)[0].rows[:K] for query in queries]
    vectors = searcher.vectors
    left_out = [
        np.flatnonzero(vectors.lesions == query.lesion_number if same_patient else vectors.patients == query.patient)
        for query in queries
    ]
    stacked = np.stack([query.vector for query in queries])
    truth = nearest(vectors.matrix, vectors.lengths, stacked, K, left_out)
    hits = sum(len(np.intersect1d(ours, one.rows[:K])) for ours, one in zip(found, truth, strict=True))
    return hits / (K * len(queries))


def check_exact(searcher: Searcher, queries: Sequence[Query], conditions: Sequence[str | None]) -> None:
    """Answers against distances in double precision to every row, one by one."""
    wrong = 0
    for condition in conditions:
        allowed = None if condition is None else searcher.allowed_rows(condition)
        for query in queries:
            kept = searcher.vectors.patients != query.patient
            if allowed is not None:
                kept &= np.isin(np.arange(len(kept)), allowed)
            distances = np.where(kept, plain_distances(searcher.vectors.matrix, query), np.inf)
            ours = searcher.search([query], K, allowed=allowed)[0]
            wrong += sorted(ours.rows[:K].tolist()) != sorted(np.argsort(distances, kind="stable")[:K].tolist())
    asked = len(queries) * len(conditions)
    named = ", ".join("without a condition" if one is None else one for one in conditions)
    report(f"as by brute force ({named})", f"{asked - wrong} of {asked}", "all", holds=not wrong)


def plain_distances(matrix: NDArray[np.float32], query: Query) -> NDArray[np.float64]:
    blocks = (matrix[start : start + _BLOCK_ROWS] for start in range(0, len(matrix), _BLOCK_ROWS))
    return np.concatenate([np.linalg.norm(block - query.vector.astype(np.float64), axis=1) for block in blocks])


def nearest_of_all(vectors: Vectors, query: Query) -> object:
    return nearest(vectors.matrix, vectors.lengths, query.vector[None], K)


def size_mb(vectors: Vectors) -> float:
    return vectors.index_file.stat().st_size / 1e6 if vectors.index_file else 0.0


if __name__ == "__main__":
    main()
