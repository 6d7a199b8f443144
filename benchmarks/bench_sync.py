"""A sync of everything against one of a little more, on a lake of the release's size.

    python benchmarks/bench_sync.py [--rounds 3] [--keep FOLDER]

The lake has 32,735 marks with 1,024 values each. A round syncs half of them into a new store, then all of them into
another, then takes in 40 marks more and syncs again. What a small sync costs: a copy of the store's file (none where
the file system shares blocks), a hash over each feature set, and putting all of it on disk.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import pyarrow.parquet as pq
from make_store import DIMENSION, LESIONS, drawn_lesions, make_store, take_in
from measure import measured, median, processor_clock, ratio

from lesionary.lake import Lake
from store.database import open_reader
from store.feature_files import import_set
from store.sync import sync

FEW = 40


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "lesionary-benchmarks"))
    with measured(parser, quick={"rounds": 1}) as arguments:
        kept = arguments.keep / f"release-{DIMENSION}"
        make_store(kept)
        rounds = [one_round(kept / "vectors.parquet") for _ in range(arguments.rounds)]
        half, whole, few, nothing = (median(list(each)) for each in zip(*rounds, strict=True))
        print(f"medians of {arguments.rounds} rounds")
        print(f"  half of the marks and vectors   {half:6.2f} s\n  all of them                     {whole:6.2f} s")
        print(f"  {FEW} marks more                   {few:6.2f} s\n  nothing new                     {nothing:6.2f} s")
        ratio("time for twice the marks", whole / half, at_most=2.2)
        ratio(f"{FEW} marks more, over all", few / whole, at_most=0.25)


def one_round(vectors: Path) -> tuple[float, float, float, float]:
    """Seconds of a sync of half, of all, of a little more, and of nothing."""
    lesions = drawn_lesions()
    with tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch:
        folder = Path(scratch)
        half = make_lake(folder / "half", lesions[: LESIONS // 2], vectors)
        whole = make_lake(folder / "whole", lesions, vectors)
        store = folder / "whole.duckdb"
        taken = [seconds(half, folder / "half.duckdb"), seconds(whole, store)]
        take_in(whole, folder / "more.csv", lesions[:FEW], "more")
        taken += [seconds(whole, store), seconds(whole, store)]
        with open_reader(store) as connection:
            ((rows,),) = connection.execute("SELECT count(*) FROM lesions").fetchall()
        if rows != LESIONS + FEW:
            raise SystemExit(f"the store holds {rows} lesions, {LESIONS + FEW} were taken in")
    return taken[0], taken[1], taken[2], taken[3]


def make_lake(folder: Path, lesions: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", vectors: Path) -> Lake:
    folder.mkdir()
    lake = Lake.create(str(folder / "lake"))
    take_in(lake, folder / "DL_info.csv", lesions)
    part = folder / "vectors.parquet"
    pq.write_table(pq.read_table(vectors).slice(0, len(lesions)), part)
    import_set(lake, part, "embedding", "benchmark")
    return lake


def seconds(lake: Lake, store: Path) -> float:
    """Of the processor, all threads: other work on the machine disturbs these little."""
    started = processor_clock()
    sync(lake, store)
    return processor_clock() - started


if __name__ == "__main__":
    main()
