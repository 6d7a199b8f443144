"""Ingest against a bare loop that does the same work, against a plain script, against itself with four times the data.

    python benchmarks/bench_ingest.py [--slices 2000] [--rounds 3] [--folder DIR]

* bare: two processes, each reading, decoding, digesting, encoding and writing its half of the series into one shard;
* lesionary: `ingest` on Ray with two workers, all of it (listing, planning, commits) but the start of Ray, which is
  measured and printed beside it;
* script: what people write first: OpenCV reads each PNG, nibabel saves each series as .nii.gz.

Rounds alternate between the three, so that a drifting machine hits all alike; every file is read once before, so that
all find it in the page cache.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from make_release import write_release
from measure import alone, measured, median, ratio, report

WORKERS = 2


def bare(source: Path, target: Path) -> float:
    """Seconds of two processes that read, decode, digest, encode and write."""
    series = sorted((source / "Images_png").iterdir())
    halves = [series[0::WORKERS], series[1::WORKERS]]
    with Pool(WORKERS) as pool:
        pool.map(_warm, range(WORKERS), chunksize=1)
        started = time.perf_counter()
        pool.starmap(_bare_half, [(half, target / f"{number}.parquet") for number, half in enumerate(halves)])
        return time.perf_counter() - started


def _warm(_: int) -> None:
    _bare_imports()


def _bare_imports() -> tuple[object, ...]:
    import imagecodecs
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lesionary import pixels

    return imagecodecs, np, pa, pq, pixels


def _bare_half(series: Sequence[Path], target: Path) -> None:
    import imagecodecs
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lesionary.pixels import encode_slice, pixel_digest

    schema = pa.schema({"series": pa.string(), "slice": pa.int32(), "digest": pa.string(), "pixels": pa.binary()})
    compression = {"series": "ZSTD", "slice": "ZSTD", "digest": "ZSTD", "pixels": "NONE"}
    with pq.ParquetWriter(target, schema, compression=compression, use_dictionary=["series"]) as writer:
        for folder in series:
            rows: list[tuple[str, int, str, bytes]] = []
            for path in sorted(folder.iterdir()):
                hu = (imagecodecs.png_decode(path.read_bytes()).astype(np.int32) - 32768).astype(np.int16)
                rows.append((folder.name, int(path.stem), pixel_digest(hu), encode_slice(hu)))
            columns = [pa.array(column) for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(columns, names=schema.names).cast(schema), row_group_size=4)


def lesionary(source: Path, target: Path) -> tuple[float, float]:
    """Seconds of an ingest on a warm Ray, and of starting Ray."""
    from cli.cluster import ray_session
    from etl.ingest import ingest
    from etl.planning import plan_sources
    from lesionary.lake import Lake
    from lesionary.settings import IngestSettings

    started = time.perf_counter()
    with ray_session(workers=WORKERS):
        from etl.ingest_job import run_on_ray

        # The first tasks start the worker processes; the rest of Ray's start hides there.
        warm = Path(source.parent, "warm")
        warm_lake = Lake.create(str(target / "warm"))
        plan = plan_sources([str(write_release(warm, 100))], IngestSettings(namespace="warm"))
        settings = IngestSettings(workers=WORKERS)
        ingest(warm_lake, plan, settings, choose_runner=lambda _: (run_on_ray, WORKERS))
        ray_start = time.perf_counter() - started

        started = time.perf_counter()
        lake = Lake.create(str(target / "lake"))
        plan = plan_sources([str(source)], IngestSettings(namespace="dl"))
        summary = ingest(lake, plan, settings, choose_runner=lambda _: (run_on_ray, WORKERS))
        seconds = time.perf_counter() - started
    counts = summary.tally.counts
    if counts["files_accepted"] != counts["files_found"] - 1:  # the marker file
        raise SystemExit(f"the ingest refused slices: {summary.tally}")
    return seconds, ray_start


def script(source: Path, target: Path) -> float:
    """Seconds of the script people write first."""
    import cv2
    import nibabel
    import numpy as np

    started = time.perf_counter()
    for folder in sorted((source / "Images_png").iterdir()):
        slices = [
            (cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.int32) - 32768).astype(np.int16)
            for path in sorted(folder.iterdir())
        ]
        volume = np.stack(slices, axis=2)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([0.8, 0.8, 5.0, 1.0])), str(target / f"{folder.name}.nii.gz"))
    return time.perf_counter() - started


def folder_bytes(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.rglob(pattern))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=None, help="keep the made release here for the next time")
    with (
        measured(parser, quick={"slices": 200, "rounds": 1}) as arguments,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        run_all(arguments.folder or Path(scratch), Path(scratch), arguments.slices, arguments.rounds)


def run_all(data: Path, scratch: Path, slices: int, rounds: int) -> None:
    small = write_release(data / f"release-{slices}", slices)
    large = write_release(data / f"release-{slices * 4}", slices * 4)

    for release in (small, large):
        for path in release.rglob("*.png"):
            path.read_bytes()

    def fresh() -> Path:
        target = scratch / "target"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return target

    ours, theirs, starts, peaks = [], [], [], []
    for _ in range(rounds):
        theirs.append(alone(bare, small, fresh()).value)
        run = alone(lesionary, small, fresh())
        ours.append(run.value[0])
        starts.append(run.value[1])
        peaks.append(run.peak_mb)
    lake_bytes = folder_bytes(scratch / "target" / "lake", "*.parquet")
    longer = [alone(lesionary, large, fresh()) for _ in range(min(rounds, 2))]
    four_times, large_peak = min(run.value[0] for run in longer), median([run.peak_mb for run in longer])
    plain = alone(script, small, fresh()).value

    print(f"{slices} slices of 512 × 512, {WORKERS} processes, medians of {rounds} rounds")
    print(f"  bare loop   {median(theirs):7.2f} s  {slices / median(theirs):6.0f} slices/s")
    print(f"  lesionary   {median(ours):7.2f} s  {slices / median(ours):6.0f} slices/s")
    print(f"              Ray's start, with its first tasks: {median(starts):.1f} s, not counted")
    print(f"  script      {plain:7.2f} s  {slices / plain:6.0f} slices/s (one process, OpenCV + nibabel)")
    print(f"  {slices * 4} slices {four_times:7.2f} s  {slices * 4 / four_times:6.0f} slices/s")
    ratio("speed over the bare loop's", median(theirs) / median(ours), at_least=0.90)
    ratio("speed over the script's", plain / median(ours), at_least=3)
    ratio("time for four times the slices", four_times / median(ours), at_most=4.4)
    memory = large_peak / median(peaks)
    peaks_mb = f"{median(peaks):.0f} → {large_peak:.0f} MB"
    report("driver's peak memory, 4 × the data", peaks_mb, "no growth", holds=memory <= 1.1)
    png_bytes = folder_bytes(small, "*.png")
    ratio("the lake's size over the PNGs'", lake_bytes / png_bytes, at_most=1, digits=3)


if __name__ == "__main__":
    main()
