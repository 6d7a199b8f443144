"""Random slices out of the lake against decoding the PNGs they came from.

    python benchmarks/bench_read.py [--slices 1000] [--reads 600] [--rounds 5] [--folder DIR]

* png: read the file, decode it (imagecodecs, and OpenCV beside it);
* bytes: the same slice's encoded bytes at hand, decoded: what the codec alone costs;
* shard: its row group read from the Parquet shard, then decoded: the cheapest way to a slice by its place;
* reader: `SliceReader.read(series, index)`, the public way, its index warm.

Every way reads the same slices in the same random order; files are in the page cache for all.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cv2
import imagecodecs
import pyarrow.parquet as pq
from make_release import write_release
from measure import in_turn, measured, ratio

from etl.ingest import ingest
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.lake import Lake
from lesionary.pixels import decode_slice
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--reads", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="keep the made release here for the next time")
    with (
        measured(parser, quick={"slices": 200, "reads": 150, "rounds": 3}) as arguments,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        data = write_release((arguments.folder or Path(scratch)) / f"release-{arguments.slices}", arguments.slices)
        lake = Lake.create(str(Path(scratch, "lake")))
        ingest(
            lake,
            plan_sources([str(data)], IngestSettings(namespace="dl")),
            IngestSettings(),
            choose_runner=lambda _: (run_here, 1),
        )
        compare(data, lake, arguments.reads, arguments.rounds)


def compare(data: Path, lake: Lake, reads: int, rounds: int) -> None:
    paths = sorted((data / "Images_png").rglob("*.png"))
    random.Random(7).shuffle(paths)
    chosen = paths[:reads]
    keys = [(f"dl-{path.parent.name}", int(path.stem)) for path in chosen]
    reader = SliceReader(lake)
    places = [reader.place(*key) for key in keys]
    shards = {
        path: pq.ParquetFile(lake.table_folder("slices").join(path), memory_map=True) for path, _, _ in set(places)
    }
    encoded = [
        shards[path].read_row_group(group, columns=["pixels"]).column(0)[row].as_buffer() for path, group, row in places
    ]

    def png() -> None:
        for path in chosen:
            imagecodecs.png_decode(path.read_bytes())

    def opencv() -> None:
        for path in chosen:
            cv2.imread(str(path), cv2.IMREAD_UNCHANGED)

    def from_bytes() -> None:
        for value in encoded:
            decode_slice(value)

    def from_shard() -> None:
        for path, group, row in places:
            table = shards[path].read_row_group(group, columns=["pixels"], use_threads=False)
            decode_slice(table.column(0)[row].as_buffer())

    def through_reader() -> None:
        for series, index in keys:
            reader.read(series, index)

    ways: dict[str, Callable[[], None]] = {
        "png": png,
        "png, OpenCV": opencv,
        "bytes": from_bytes,
        "shard": from_shard,
        "reader": through_reader,
    }
    seconds = {name: one.processor for name, one in in_turn(ways, rounds).items()}
    print(f"{reads} random slices of 512 × 512 out of {len(paths)}, processor time, medians of {rounds} rounds")
    base = seconds["png"]
    for name, value in seconds.items():
        print(f"  {name:<12} {value / reads * 1e3:6.3f} ms a slice  {base / value:5.1f} × png")
    shard, public = base / seconds["shard"], base / seconds["reader"]
    ratio("random slices from the lake over decoding the PNGs", shard, at_least=5)
    ratio("the same through the public reader", public, at_least=3)
    lake_bytes = sum(shard.bytes for shard in lake.shards("slices")[1])
    png_bytes = sum(path.stat().st_size for path in paths)
    ratio("the lake's size over the PNGs'", lake_bytes / png_bytes, at_most=1, digits=3)


if __name__ == "__main__":
    main()
