"""Patches: what cutting them costs, and what reading them in batches saves over going back to the slices.

    python benchmarks/bench_patches.py [--slices 1000] [--patches 300] [--rounds 5] [--folder DIR]

* build: the whole cache, on one core, beside reading the slices it needs and doing nothing with them;
* png: for each patch of a batch its three slices decoded from PNG and the patch cut, as a loader without a cache does;
* png, decoding alone: the same without cutting;
* lake: the three slices read from the lake, and the patch cut;
* batches: the same patches from the mapped cache, as images in grey levels;
* batches, augmented: shifted, scaled, noise added.

Every way takes the same patches in the same random order; files are in the page cache for all.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import imagecodecs
import numpy as np
from make_release import write_release
from measure import measured, median, ratio

from etl.ingest import ingest
from etl.patch_cutting import LeftOut, PatchSettings, PlannedPatch, patch_of, plan_patch, read_series
from etl.patch_geometry import cut_frame
from etl.patches import make_patches
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.lake import Lake
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from trainers.augment import Augmentation
from trainers.batches import PatchSource

_BATCH = 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--patches", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="keep the made release here for the next time")
    with (
        measured(parser, quick={"slices": 200, "patches": 60, "rounds": 2}) as arguments,
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
        source = building(lake, arguments.rounds)
        reading(data, lake, source, arguments.patches, arguments.rounds)


def building(lake: Lake, rounds: int) -> PatchSource:
    lesions = lake.read("lesions").to_pylist()
    series = read_series(lake, sorted({one["series_id"] for one in lesions}))
    plans = [(one["series_id"], plan_patch(one, series[one["series_id"]], PatchSettings())) for one in lesions]
    needed = sorted({(name, index) for name, plan in plans for index in plan.slice_indices})

    def build() -> None:
        cache = make_patches(lake)
        Path(cache.url, "cache.json").unlink()

    def read() -> None:
        with SliceReader(lake) as reader:
            for key in needed:
                reader.read(*key)

    built, decoded = (median([_cpu_seconds(way) for _ in range(rounds)]) for way in (build, read))
    count = len(lesions)
    print(f"{count} patches of {len(needed)} slices of 512 × 512, one core, medians of {rounds} rounds")
    print(f"  build        {built / count * 1e3:6.3f} ms a patch  {count / built:8.0f} a second")
    print(f"  slices alone {decoded / count * 1e3:6.3f} ms a patch  {len(needed) / count:8.2f} slices a patch")
    ratio("building over reading its slices", built / decoded, at_most=3)
    return PatchSource.open(make_patches(lake).url)


def reading(data: Path, lake: Lake, source: PatchSource, patches: int, rounds: int) -> None:
    rows = random.Random(7).choices(range(len(source)), k=patches)
    lesions = {one["lesion_id"]: one for one in lake.read("lesions").to_pylist()}
    wanted = [lesions[source.lesion_ids[row]] for row in rows]
    series = read_series(lake, sorted({one["series_id"] for one in wanted}))
    plans = [plan_patch(one, series[one["series_id"]], PatchSettings()) for one in wanted]
    reader = SliceReader(lake)

    def pngs(lesion: Mapping[str, Any], plan: PlannedPatch | LeftOut) -> list[np.ndarray]:
        folder = data / "Images_png" / lesion["series_id"].removeprefix("dl-")
        files = [folder / f"{index:03d}.png" for index in plan.slice_indices]
        return [(imagecodecs.png_decode(file.read_bytes()).astype(np.int32) - 32768).astype(np.int16) for file in files]

    def from_png() -> None:
        for lesion, plan in zip(wanted, plans, strict=True):
            spacing = series[lesion["series_id"]].spacing_xy_mm
            cut_frame(pngs(lesion, plan), plan.weights, plan.frame, spacing)

    def decoding() -> None:
        for lesion, plan in zip(wanted, plans, strict=True):
            pngs(lesion, plan)

    def from_lake() -> None:
        for lesion in wanted:
            patch_of(reader, lesion, series[lesion["series_id"]], PatchSettings())

    def batches(augment: Augmentation | None) -> Callable[[], None]:
        def take() -> None:
            for start in range(0, len(rows), _BATCH):
                source.take(rows[start : start + _BATCH], augment=augment, rng=np.random.default_rng(start))

        return take

    ways: dict[str, Callable[[], None]] = {
        "png": from_png,
        "png, decoding alone": decoding,
        "lake": from_lake,
        "batches": batches(None),
        "batches, augmented": batches(Augmentation()),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(_cpu_seconds(way))
    print(f"{patches} random patches, one core, medians of {rounds} rounds")
    base = median(seconds["png"])
    for name, values in seconds.items():
        print(f"  {name:<20} {median(values) / patches * 1e3:7.3f} ms a patch  {base / median(values):6.1f} × png")
    plain, augmented = (base / median(seconds[name]) for name in ("batches", "batches, augmented"))
    ratio("batches from the cache over PNGs", plain, at_least=20)
    ratio("the same, augmented", augmented, at_least=10)


def _cpu_seconds(way: Callable[[], None]) -> float:
    """This process's own time: a busy machine's waiting is not counted."""
    started = time.process_time()
    way()
    return time.process_time() - started


if __name__ == "__main__":
    main()
