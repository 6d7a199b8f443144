"""Training reads beside a torch DataLoader over the same images as PNG and as NIfTI, and over MONAI's kept patches.

    python benchmarks/bench_loaders.py [--slices 500] [--reads 120] [--rounds 5] [--folder DIR]

* patches: a random lesion's patch, three slices of 1 mm pixels around its box, in batches of 16. Ours come from the
  cache that `train` makes (`PatchSource`). A DataLoader's dataset reads the slices around the lesion from PNG (OpenCV),
  .nii or .nii.gz (nibabel, only the slices that are wanted), cuts them by the same function, and collates;
* kept: MONAI's `PersistentDataset` has each patch in a file of its own, as our cache has it in one for many;
* stacks: three neighbouring slices, whole, from a random place. Ours come out of the lake itself (`SliceReader`).

A DataLoader has 0 and 2 workers, which it starts for every pass, as it does by default. Ways take turns, the first
round is not counted; processor time has the workers' in it. Files are in the page cache. Every way gives the same
pixels, which is checked. Ours gives images in grey levels besides, which the others would still have to make.
"""

import argparse
import hashlib
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import cv2
import nibabel
import numpy as np
import torch
from make_release import SLICES_PER_SERIES, write_release
from measure import Taken, in_turn, measured, ratio
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from etl.ingest import ingest
from etl.patch_cutting import LeftOut, PatchSettings, PlannedPatch, plan_patch, read_series
from etl.patch_geometry import cut_frame
from etl.patches import make_patches
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.lake import Lake
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from trainers.batches import PatchSource

_BATCH, _WORKERS = 16, (0, 2)
# A read out of .nii.gz unpacks the volume up to it: fewer of them tell as much.
_SLOW_SHARE = 6
# One pass over the cache is over before the machine has settled.
_REPEATS = 8
PATCHES_RATIO = 20.0

Images = list[NDArray[np.int16]]
ReadSlices = Callable[[str, Sequence[int]], Images]
"""A series of the release and slices, counted from 1, to their pixels."""


@dataclass(frozen=True, slots=True)
class PngSlices:
    """Slices out of a release's own files."""

    folder: Path

    def __call__(self, series: str, indices: Sequence[int]) -> Images:
        """Read and shift."""
        paths = [str(self.folder / series / f"{index:03d}.png") for index in indices]
        stored = [cv2.imread(path, cv2.IMREAD_UNCHANGED) for path in paths]
        return [(one.astype(np.int32) - 32768).astype(np.int16) for one in stored]


@dataclass(frozen=True, slots=True)
class NiftiSlices:
    """Slices out of the volumes that the demo's way made."""

    folder: Path
    suffix: str

    def __call__(self, series: str, indices: Sequence[int]) -> Images:
        """Read only what is asked for."""
        first, last = min(indices) - 1, max(indices)
        volume = nibabel.load(self.folder / f"{series}{self.suffix}")
        part = np.asanyarray(volume.dataobj[:, :, first:last])
        return [part[:, :, index - 1 - first] for index in indices]


@dataclass(slots=True)
class LakeSlices:
    """Slices out of the lake, by a reader of each process's own."""

    url: str
    reader: SliceReader | None = field(default=None, repr=False)

    def __call__(self, series: str, indices: Sequence[int]) -> Images:
        """Read one by one."""
        if self.reader is None:
            self.reader = SliceReader(Lake.open(self.url))
        return [self.reader.read(f"dl-{series}", index) for index in indices]


@dataclass(frozen=True, slots=True)
class Planned:
    """One lesion's patch, before it is cut."""

    series: str
    plan: PlannedPatch
    spacing_xy_mm: tuple[float, float]

    def cut(self, read: ReadSlices) -> NDArray[np.int16]:
        """(3, side, side)."""
        plan = self.plan
        return cut_frame(read(self.series, plan.slice_indices), plan.weights, plan.frame, self.spacing_xy_mm)


class Reads(Dataset[torch.Tensor]):
    """What a function makes of each item."""

    def __init__(self, items: Sequence[Any], make: Callable[[Any], NDArray[np.int16]]) -> None:
        self.items, self.make = items, make

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> torch.Tensor:
        return torch.from_numpy(self.make(self.items[number]))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, default=500)
    parser.add_argument("--reads", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="keep the made release here for the next time")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with (
        measured(parser, quick={"slices": 100, "reads": 48, "rounds": 2}) as arguments,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        release = write_release((arguments.folder or Path(scratch)) / f"release-{arguments.slices}", arguments.slices)
        lake = Lake.create(str(Path(scratch, "lake")))
        settings = IngestSettings(namespace="dl")
        ingest(lake, plan_sources([str(release)], settings), settings, choose_runner=lambda _: (run_here, 1))
        volumes = Path(scratch, "volumes")
        save_volumes(release, volumes)
        readers: dict[str, ReadSlices] = {
            "PNG": PngSlices(release / "Images_png"),
            ".nii": NiftiSlices(volumes, ".nii"),
            ".nii.gz": NiftiSlices(volumes, ".nii.gz"),
        }
        patches(lake, readers, Path(scratch, "kept"), arguments.reads, arguments.rounds)
        stacks(lake, readers, arguments.reads, arguments.rounds)


def save_volumes(release: Path, target: Path) -> None:
    target.mkdir()
    read = PngSlices(release / "Images_png")
    for folder in sorted((release / "Images_png").iterdir()):
        volume = np.stack(read(folder.name, range(1, SLICES_PER_SERIES + 1)), axis=2)
        for suffix in (".nii", ".nii.gz"):
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), str(target / f"{folder.name}{suffix}"))


def patches(lake: Lake, readers: Mapping[str, ReadSlices], kept: Path, reads: int, rounds: int) -> None:
    """Patches of random lesions."""
    source = PatchSource.open(make_patches(lake).url)
    rows = random.Random(7).choices(range(len(source)), k=reads)
    planned = planned_patches(lake, source, rows)

    def ours() -> None:
        for _ in range(_REPEATS):
            for start in range(0, reads, _BATCH):
                source.take(rows[start : start + _BATCH])

    ways: dict[str, Callable[[], object]] = {"ours": ours}
    counts = {"ours": reads * _REPEATS}
    for name, read in readers.items():
        some = planned if name != ".nii.gz" else planned[: reads // _SLOW_SHARE]
        data = Reads(some, partial(_cut, read))
        add_loaders(ways, counts, name, data)
        same(source.pixels(rows[0]), data[0].numpy(), f"patches from {name}")
    data = monai_kept(planned, readers["PNG"], kept)
    add_loaders(ways, counts, "kept by MONAI", data)
    same(source.pixels(rows[0]), data[0].numpy(), "MONAI's patches")
    tell("patches", in_turn(ways, rounds), counts, PATCHES_RATIO)


def planned_patches(lake: Lake, source: PatchSource, rows: Sequence[int]) -> list[Planned]:
    lesions = {one["lesion_id"]: one for one in lake.read("lesions").to_pylist()}
    wanted = [lesions[source.lesion_ids[row]] for row in rows]
    series = read_series(lake, sorted({one["series_id"] for one in wanted}))
    planned = []
    for one in wanted:
        plan = plan_patch(one, series[one["series_id"]], PatchSettings())
        if isinstance(plan, LeftOut):
            raise SystemExit(f"no patch of {one['lesion_id']}: {plan}")
        planned.append(Planned(one["series_id"].removeprefix("dl-"), plan, series[one["series_id"]].spacing_xy_mm))
    return planned


def _cut(read: ReadSlices, one: Planned) -> NDArray[np.int16]:
    return one.cut(read)


def monai_kept(planned: Sequence[Planned], read: ReadSlices, folder: Path) -> Dataset[torch.Tensor]:
    """MONAI's dataset over the same patches, each of them in its file already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.data import PersistentDataset
        from monai.transforms import Lambda

    def named(one: Planned) -> bytes:
        return hashlib.sha256(repr(one).encode()).hexdigest().encode()

    # A bare function would count as random, and nothing would be kept.
    cut = Lambda(lambda one: torch.from_numpy(_cut(read, one)), track_meta=False)
    kept = PersistentDataset(list(planned), cut, cache_dir=folder, hash_func=named)
    for number in range(len(kept)):
        kept[number]
    return kept


def stacks(lake: Lake, readers: Mapping[str, ReadSlices], reads: int, rounds: int) -> None:
    """Three neighbouring slices, whole."""
    names = sorted({one["series_id"].removeprefix("dl-") for one in lake.read("lesions").to_pylist()})
    chance = random.Random(11)
    places = [(chance.choice(names), chance.randint(2, SLICES_PER_SERIES - 1)) for _ in range(reads)]
    ways: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    ours = LakeSlices(lake.url)
    for name, read in {"ours": ours, **readers}.items():
        some = places if name != ".nii.gz" else places[: reads // _SLOW_SHARE]
        data = Reads(some, partial(_stack, read))
        add_loaders(ways, counts, name, data)
        same(_stack(LakeSlices(lake.url), places[0]), Reads(some, partial(_stack, read))[0].numpy(), f"stacks: {name}")
    # What the check opened must not travel into workers.
    ours.reader = None
    tell("stacks", in_turn(ways, rounds), counts, None)


def _stack(read: ReadSlices, place: tuple[str, int]) -> NDArray[np.int16]:
    series, index = place
    return np.stack(read(series, (index - 1, index, index + 1)))


def add_loaders(
    ways: dict[str, Callable[[], object]], counts: dict[str, int], name: str, data: Dataset[torch.Tensor]
) -> None:
    for workers in _WORKERS:
        title = f"{name}, {workers} workers"
        ways[title] = partial(one_pass, DataLoader(data, _BATCH, num_workers=workers))
        counts[title] = len(data)  # type: ignore[arg-type]


def one_pass(loader: DataLoader[torch.Tensor]) -> None:
    for _ in loader:
        pass


def tell(what: str, taken: Mapping[str, Taken], counts: Mapping[str, int], promised: float | None) -> None:
    """Milliseconds of each way, and ours over each of them, with as many workers where ours has any."""
    each = {name: one.processor / counts[name] for name, one in taken.items()}
    print(f"{what}: ms each, processor and clock")
    for name, one in taken.items():
        print(f"  {name:<24} {each[name] * 1e3:8.3f} {one.seconds / counts[name] * 1e3:8.3f}")
    for name, spent in each.items():
        peer, _, workers = name.partition(", ")
        if peer != "ours":
            limit = promised if peer == "PNG" else None
            ratio(
                f"{what}, speed over {name}",
                spent / each["ours" if "ours" in each else f"ours, {workers}"],
                at_least=limit,
            )


def same(ours: NDArray[np.int16], theirs: NDArray[np.int16], name: str) -> None:
    if not np.array_equal(ours, theirs):
        raise SystemExit(f"{name} has other pixels than ours")


if __name__ == "__main__":
    main()
