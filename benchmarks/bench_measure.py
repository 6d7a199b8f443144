"""Masks: what `measure` does beyond making them, and how well boxes do in place of diameters.

    python benchmarks/bench_measure.py [--release DIR] [--errors 0,1,2] [--rounds 3]

* bare: masks of all lesions, slices in memory, nothing written;
* measure: the command's work on a fresh lake, from reading slices to rows committed;
* boxes: Dice and diameters when only the box is known, and each of its sides is off by a normal error of so many px.

The release is a phantom's, drawn unless given: its `truth_masks.json` is what Dice is taken against.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from measure import measured, median, ratio
from numpy.typing import NDArray

from etl.ingest import ingest
from etl.mask_making import LeftOut, Mark, Masked, make_masks
from etl.mask_scores import TrueLesion, dice, read_true_lesions
from etl.mask_tasks import marks_of_lesions
from etl.masks import measure
from etl.patch_cutting import Series, read_series
from etl.planning import plan_sources
from lesionary.calipers import measure_calipers
from lesionary.lake import Lake
from lesionary.run_lengths import decode_runs
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader


@dataclass(frozen=True, slots=True)
class Case:
    """One marked lesion with its slices in memory, and its truth."""

    mark: Mark
    series: Series
    images: Mapping[int, NDArray[np.int16]]
    true: TrueLesion

    def made(self, mark: Mark) -> Masked | LeftOut:
        """Masks of a mark on this lesion's slices."""
        return make_masks(mark, self.series, self.images.__getitem__)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--release", type=Path)
    parser.add_argument("--patients", type=int, default=20, help="of the release that is drawn where none is given")
    parser.add_argument("--errors", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=3)
    with measured(parser, quick={"rounds": 1, "patients": 3, "errors": "1"}) as arguments:
        with tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch:
            release = arguments.release or drawn(Path(scratch, "release"), arguments.patients)
            lakes = [Lake.create(str(Path(scratch, f"lake-{number}"))) for number in range(arguments.rounds)]
            for lake in lakes:
                ingest(lake, plan_sources([str(release)], IngestSettings(namespace="dl")), IngestSettings())
            cases = read_cases(lakes[0], release)
            speed(lakes, cases)
        quality("diameters", cases, [one.mark for one in cases])
        for error in arguments.errors.split(","):
            quality(f"boxes, {error} px", cases, boxes(cases, float(error)))


def drawn(folder: Path, patients: int) -> Path:
    """A release of the phantom."""
    options = ["--patients", str(patients), "--image-size", "256", "--max-slices-per-series", "13", "--no-progress"]
    command = [str(Path(sys.executable).with_name("lesionary")), "phantom", "release", str(folder), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder


def read_cases(lake: Lake, release: Path) -> list[Case]:
    """All marked lesions that the truth knows."""
    true = read_true_lesions(release / "truth_masks.json")
    units = marks_of_lesions(lake)
    series = read_series(lake, [one.series_id for one in units])
    cases = []
    with SliceReader(lake) as reader:
        for unit in units:
            name = unit.series_id
            images = {index: reader.read(name, index) for index in reader.slice_indices(name)}
            for mark in unit.marks:
                known = true.get(int(mark.lesion_id.rpartition("-")[2]))
                if known is not None and mark.slice_index in known.slices:
                    cases.append(Case(mark, series[name], images, known))
    return cases


def speed(lakes: Sequence[Lake], cases: Sequence[Case]) -> None:
    """Lesions a second: bare and as the command."""
    bare, whole = [], []
    for lake in lakes:
        started = time.perf_counter()
        for one in cases:
            one.made(one.mark)
        bare.append(len(cases) / (time.perf_counter() - started))
        summary = measure(lake)
        whole.append(summary.lesions_masked / summary.seconds)
    print(f"bare      {median(bare):8.1f} lesions/s")
    print(f"measure   {median(whole):8.1f} lesions/s")
    ratio("measure, share of the bare loop's speed", median(whole) / median(bare))


def boxes(cases: Sequence[Case], error_px: float) -> list[Mark]:
    """The lesions' boxes with sides that are off, as a detector's are, and without diameters."""
    rng = np.random.default_rng(1)
    marks = []
    for one in cases:
        x_min, y_min, x_max, y_max = (np.array(one.mark.box_px) + rng.normal(size=4) * error_px).tolist()
        box = (min(x_min, x_max - 1), min(y_min, y_max - 1), max(x_max, x_min + 1), max(y_max, y_min + 1))
        marks.append(replace(one.mark, box_px=box, points_px=()))
    return marks


def quality(words: str, cases: Sequence[Case], marks: Sequence[Mark]) -> None:
    """Dice in 2-D and 3-D and errors of diameters of these marks."""
    flat, solid, errors = [], [], []
    for case, mark in zip(cases, marks, strict=True):
        made = case.made(mark)
        masks = {} if isinstance(made, LeftOut) else dict(made.masks)
        key = mark.slice_index
        true = case.true.slices[key]
        flat.append(dice({key: masks[key]} if key in masks else {}, {key: true}))
        solid.append(dice(masks, case.true.slices_around(key)))
        exact = measure_calipers(decode_runs(true.runs, true.rows, true.columns), case.series.spacing_xy_mm)
        if exact is not None and not isinstance(made, LeftOut):
            found = made.calipers
            errors.append((abs(found.long_mm - exact.long_mm), abs(found.short_mm - exact.short_mm)))
    long_mm, short_mm = np.median(errors, axis=0)
    print(
        f"{words:<14} {len(cases)} lesions: Dice 2-D {np.mean(flat):.3f} mean, {np.median(flat):.3f} median; 3-D "
        f"{np.mean(solid):.3f}, {np.median(solid):.3f}; diameters {long_mm:.2f} and {short_mm:.2f} mm median"
    )


if __name__ == "__main__":
    main()
