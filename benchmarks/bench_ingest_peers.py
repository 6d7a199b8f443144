"""Ingest beside what people do with a release otherwise: the demo's way to NIfTI, and MONAI's loader.

    python benchmarks/bench_ingest_peers.py [--slices 500] [--rounds 5] [--folder DIR]

* lesionary: from planning to commits, in this process: digests, annotations, quality checks and all;
* demo: the way of the release's own example: for each series a loop over its slices, OpenCV reads the PNG, 32,768 is
  taken off, the slices are stacked, nibabel saves them as .nii.gz, and as .nii;
* MONAI: `LoadImaged` reads each series (PNGs through Pillow, or the demo's .nii.gz) and `PersistentDataset` keeps it.

All on one thread of one process that has imported everything, in processor seconds, which a busy machine disturbs less
than the clock. Ways take turns; the first round is not counted. What the ways made is compared, pixel by pixel.
"""

import argparse
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cv2
import nibabel
import numpy as np
import torch
from make_release import write_release
from measure import in_turn, measured, ratio

from etl.ingest import ingest
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.lake import Lake
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from monai.data import PersistentDataset
    from monai.transforms import Compose, Lambdad, LoadImaged


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="keep the made release here for the next time")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with (
        measured(parser, quick={"slices": 100, "rounds": 1}) as arguments,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        release = write_release((arguments.folder or Path(scratch)) / f"release-{arguments.slices}", arguments.slices)
        compare(release, arguments.slices, Path(scratch, "made"), arguments.rounds)


def compare(release: Path, slices: int, made: Path, rounds: int) -> None:
    """All ways in turn, on one release."""
    pngs = sorted((release / "Images_png").iterdir())
    made.mkdir()
    ways: dict[str, Callable[[Path], object]] = {
        "lesionary": lambda target: lesionary(release, target),
        "demo .nii.gz": lambda target: demo(pngs, target, ".nii.gz"),
        "demo .nii": lambda target: demo(pngs, target, ".nii"),
        "MONAI from PNG": lambda target: monai_pngs(pngs, target),
        "MONAI from .nii.gz": lambda target: monai_volumes(made / "demo .nii.gz", target),
    }
    works = {name: lambda name=name, way=way: way(emptied(made / name)) for name, way in ways.items()}
    taken = in_turn(works, rounds)
    stored = folder_bytes(release / "Images_png")
    print(f"{slices} slices of 512 × 512, one thread, processor time, medians of {rounds} rounds")
    for name, one in taken.items():
        each = one.processor / slices
        size = folder_bytes(made / name) / stored
        print(f"  {name:<18} {each * 1e3:6.2f} ms a slice  {1 / each:6.0f} slices/s  {size:5.2f} of the PNGs' bytes")
    for name in tuple(ways)[1:]:
        ratio(f"speed over {name}", taken[name].processor / taken["lesionary"].processor)
    check(made, pngs[-1].name)


def lesionary(release: Path, target: Path) -> None:
    settings = IngestSettings(namespace="dl")
    plan = plan_sources([str(release)], settings)
    ingest(Lake.create(str(target / "lake")), plan, settings, choose_runner=lambda _: (run_here, 1))


def demo(series: list[Path], target: Path, suffix: str) -> None:
    for folder in series:
        slices = []
        for path in sorted(folder.iterdir()):
            stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            slices.append((stored.astype(np.int32) - 32768).astype(np.int16))
        image = nibabel.Nifti1Image(np.stack(slices, axis=2), np.diag([0.8, 0.8, 5.0, 1.0]))
        nibabel.save(image, str(target / f"{folder.name}{suffix}"))


def monai_pngs(series: list[Path], target: Path) -> None:
    keep(
        [sorted(map(str, folder.iterdir())) for folder in series],
        target,
        LoadImaged("image", reader="PILReader", dtype="int32"),
        Lambdad("image", lambda image: image - 32768),
    )


def monai_volumes(folder: Path, target: Path) -> None:
    keep(sorted(map(str, folder.iterdir())), target, LoadImaged("image", reader="NibabelReader", dtype="int16"))


def keep(series: list[object], target: Path, *steps: object) -> None:
    """Every series through MONAI's steps once, which keeps them."""
    as_int16 = Lambdad("image", lambda image: image.to(torch.int16))
    kept = PersistentDataset([{"image": one} for one in series], Compose([*steps, as_int16]), cache_dir=target)
    for number in range(len(kept)):
        last = kept[number]["image"]
    np.save(target.with_suffix(".npy"), last.numpy())


def emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check(made: Path, name: str) -> None:
    """All ways hold the same pixels, by the last series."""
    with SliceReader(Lake.open(str(made / "lesionary" / "lake"))) as reader:
        indices = reader.slice_indices(f"dl-{name}")
        ours = np.stack([reader.read(f"dl-{name}", index) for index in indices], axis=2)
    theirs = {
        suffix: np.asanyarray(nibabel.load(made / f"demo {suffix}" / f"{name}{suffix}").dataobj)
        for suffix in (".nii", ".nii.gz")
    }
    theirs["MONAI's volume"] = np.load(made / "MONAI from .nii.npy")
    # Through Pillow: slices first, then columns.
    theirs["MONAI's slices"] = np.load(made / "MONAI from PNG.npy").transpose(2, 1, 0)
    for way, volume in theirs.items():
        if not np.array_equal(ours, volume):
            raise SystemExit(f"{way} has other pixels than the lake")


if __name__ == "__main__":
    main()
