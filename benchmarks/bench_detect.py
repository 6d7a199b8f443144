"""Detecting: what a run over a lake adds to the bare network on the same batches.

    python benchmarks/bench_detect.py [--preset small] [--slices 100] [--rounds 3] [--gpu] [--ray]
    python benchmarks/bench_detect.py --lake DIR [--model detector-1] [--gpu]

A run finds what is due, reads slices, makes stacks, asks the network, takes boxes back to the slices, links them and
commits rows; reading the model counts for it. The bare network is shown the same batches, made beforehand and held in
memory. Without a lake, one is made, of 512 × 512 slices, with a network of random weights (`--preset`): it sees lesions
everywhere, so that linking has more to do than a trained one gives it. With one, its detector is copied for every
round, and up to `--slices` slices of whole series are looked at.

On Ray (`--ray`): one actor, from the beginning of its first task to the end of its last, beside the same tasks in this
process. Ways take turns, after one round that is not counted; figures are medians.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from make_release import SLICES_PER_SERIES, write_release
from measure import Taken, TimedTask, in_turn, measured, median, ratio
from numpy.typing import NDArray

from cli.detectors import detector_model
from etl.detect import detect
from etl.detect_slices import DetectorInput, DetectSettings
from etl.detect_tasks import SOURCES, DetectorModel, SeriesChoice, choose_series
from etl.inference import infer_here
from etl.ingest import ingest
from etl.patch_cutting import read_series
from etl.planning import plan_sources
from etl.running import run_here
from etl.stack_geometry import StackMaker, frame_for
from lesionary.lake import Lake
from lesionary.models import ModelDraft, find_model, publish, read_weights
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from lesionary.stack_schema import FindLesions
from trainers.checkpoint import weights_bytes
from trainers.detector.inference import KIND
from trainers.detector.loop import make_detector
from trainers.detector.presets import settings_for

DETECT_SHARE = 0.80
_ANCHOR_PX, _RATIOS = 16.0, (0.5, 1.0, 2.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="small")
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--lake")
    parser.add_argument("--model")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--ray", action="store_true")
    with (
        measured(parser, quick={"slices": 25, "rounds": 1}) as given,
        tempfile.TemporaryDirectory(prefix="lesionary-bench-") as scratch,
    ):
        lake = Lake.open(given.lake) if given.lake else small_lake(Path(scratch), given.slices)
        copy = partial(copied, lake, given.model) if given.lake else partial(published, lake, given.preset)
        model = copy()
        choice, slices = chosen(lake, given.slices)
        print(
            f"{model.settings['architecture']} on {model.settings['backbone']}, {model.settings['slices']} slices a "
            f"stack, {slices} slices, {torch.get_num_threads()} threads, {'GPU' if given.gpu else 'CPU'}"
        )
        ready = partial(detector_model, lake, on_gpu=given.gpu, precision=None, batch_size=None)
        # Each run needs one that has looked at nothing yet; publishing it is not the run's.
        cards = iter([copy() for _ in range((given.rounds + 1) * (3 if given.ray else 1))])
        whole(lake, ready(model), lambda: ready(next(cards)), choice, given.rounds)
        if given.ray:
            on_ray(lake, lambda: ready(next(cards)), choice, given.rounds)


def small_lake(folder: Path, slices: int) -> Lake:
    """A lake of series of 25 slices."""
    count = max(1, slices // SLICES_PER_SERIES) * SLICES_PER_SERIES
    source = write_release(folder / "release", count)
    lake = Lake.create(str(folder / "lake"))
    settings = IngestSettings(namespace="dl")
    ingest(lake, plan_sources([str(source)], settings), settings, choose_runner=lambda _: (run_here, 1))
    return lake


def published(lake: Lake, preset: str) -> Any:
    """A detector with random weights, under a number of its own."""
    settings = settings_for(preset)
    settings = replace(
        settings, anchors_px=settings.anchors_px or (_ANCHOR_PX,), anchor_ratios=settings.anchor_ratios or _RATIOS
    )
    weights = weights_bytes(make_detector(settings, 1).state_dict())
    record = settings.record() | {"category_names": ["lesion"]}
    draft = ModelDraft(kind=KIND, preset=preset, settings=record, lake={}, data={}, metrics={}, seed=0)
    return publish(lake, "bench", draft, weights)


def copied(lake: Lake, model: str | None) -> Any:
    """The lake's detector once more, which has looked at nothing yet."""
    card = find_model(lake, model, KIND)
    draft = ModelDraft(
        kind=KIND, preset=card.preset, settings=card.settings, lake=card.lake, data=card.data, metrics=card.metrics,
        seed=card.seed, notes=("copied by a benchmark",),
    )  # fmt: skip
    return publish(lake, "bench", draft, read_weights(lake, card))


def chosen(lake: Lake, most: int) -> tuple[SeriesChoice, int]:
    """Whole series of about so many slices together."""
    versions = {name: lake.shards(name)[0] for name in SOURCES}
    names, slices = [], 0
    for one in choose_series(lake, SeriesChoice(), DetectSettings(), versions).usable:
        if names and slices + len(one.slice_indices) > most:
            break
        names.append(one.series_id)
        slices += len(one.slice_indices)
    return SeriesChoice(series_ids=tuple(names)), slices


def whole(
    lake: Lake, first: DetectorModel, ready: Callable[[], DetectorModel], choice: SeriesChoice, rounds: int
) -> None:
    """A run in this process beside the network alone."""
    find = first.maker()
    batches = batches_of(lake, first.shown, choice)
    found: list[int] = []

    def run() -> None:
        found.append(detect(lake, ready(), choice=choice).boxes)

    taken = in_turn({"bare": lambda: bare(find, batches), "detect": run}, rounds)
    tell(taken["bare"], taken["detect"], sum(map(len, batches)), found[-1])


def batches_of(lake: Lake, shown: DetectorInput, choice: SeriesChoice) -> list[NDArray[np.int16]]:
    """The batches that a run shows the network."""
    batches = []
    with SliceReader(lake) as reader:
        for name, series in read_series(lake, choice.series_ids).items():
            indices = series.places.indices.tolist()
            frame = frame_for((reader.read(name, index) for index in indices), series.spacing_xy_mm, shown.stack)
            maker = StackMaker(reader, name, series.places, series.spacing_z_mm, frame, shown.stack)
            stacks = list(maker.stacks(indices))
            size = shown.batch_slices
            batches += [np.stack(stacks[at : at + size]) for at in range(0, len(stacks), size)]
    return batches


def bare(find: FindLesions, batches: list[NDArray[np.int16]]) -> None:
    """The network alone; boxes come back to the processor, so nothing is left waiting."""
    for batch in batches:
        find(batch)


def on_ray(lake: Lake, ready: Callable[[], DetectorModel], choice: SeriesChoice, rounds: int) -> None:
    """The same through an actor, from its first task's beginning to its last one's end."""
    from cli.cluster import ray_session
    from etl.inference_job import ActorPool

    def timed(infer: Any, into: list[float]) -> Callable[[], object]:
        def told(tasks: Any, make_model: Any) -> Iterator[Any]:
            times = []
            for started, ended, result in infer([TimedTask(task) for task in tasks], make_model):
                times.append((started, ended))
                yield result
            into.append(max(end for _, end in times) - min(start for start, _ in times))

        return lambda: detect(lake, ready(), choice=choice, choose_inference=lambda _: (told, 1))

    with ray_session():
        here: list[float] = []
        there: list[float] = []
        in_turn({"here": timed(infer_here, here), "ray": timed(ActorPool(1), there)}, rounds)
    share = median(here[1:]) / median(there[1:])
    ratio("one actor on Ray, of tasks in this process", share, at_least=DETECT_SHARE)


def tell(alone: Taken, run: Taken, slices: int, boxes: int) -> None:
    """What both took."""
    share = alone.seconds / run.seconds
    print(
        f"{slices} slices: network alone {alone.seconds:.2f} s ({slices / alone.seconds:.1f}/s), run "
        f"{run.seconds:.2f} s ({slices / run.seconds:.1f}/s), {boxes} boxes; by processor time {alone.processor:.2f} s "
        f"and {run.processor:.2f} s, a share of {alone.processor / run.processor:.3f}"
    )
    ratio("detect, share of the bare network's speed", share, at_least=DETECT_SHARE)
    ratio("detect, share of it by processor time", alone.processor / run.processor)


if __name__ == "__main__":
    main()
