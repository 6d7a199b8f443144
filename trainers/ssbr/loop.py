"""Trains the body-part regression: draws volumes and slices, follows which volumes are hard, scores what came out.

    python -m trainers.ssbr.loop --volumes CACHE --out FOLDER --preset small

Each slice is cropped, turned, brightened on its own, not with its volume: the losses compare slices of one volume
only, so what sets whole patients apart (their size, the field of view, contrast) would cost nothing and shift their
scores against each other. Varied within a volume it costs, and the network learns to look at anatomy instead.

Volumes whose scores are badly in order are drawn more often. One whose order comes out reversed while the others' are
well in order is more likely mislabelled than hard: it is drawn rarely, and named in the result.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionary.artifacts import atomic_write_bytes, atomic_write_json
from lesionary.errors import LesionaryError, UsageError
from lesionary.models import WEIGHTS_FILE
from trainers.checkpoint import weights_bytes
from trainers.fitting import Alone, Learner, Place, Share, fit, step_generator
from trainers.places import progress_on_stderr
from trainers.ssbr.evaluate import (
    BodyPartScores,
    body_part_scores,
    classes_of_heights,
    order_scores,
    phantom_heights,
)  # fmt: skip
from trainers.ssbr.model import SliceScorer, net_from, raw_scores, score_slices
from trainers.ssbr.presets import DEFAULT_PRESET, PRESETS, SsbrSettings, settings_for
from trainers.ssbr.source import VolumeSource, spread_places
from trainers.ssbr.targets import distance_loss, order_loss, slice_correlations
from trainers.weights import NO_WEIGHTS, WeightsRecord, start_weights

# How fast the record of a volume's correlation follows what is measured.
_MEMORY = 0.7

# No volume is ever left alone altogether: its record must be able to change.
_LEAST_WEIGHT = 0.05

# The others' median correlation, and a volume's own, from which on it is taken for reversed.
_GOOD_MEDIAN = 0.8
_REVERSED = -0.5

# Correlations enter the sampling rounded, so that the order of sums on several workers does not.
_DECIMALS = 3

# Slices of a volume that are scored after training: enough for percentiles and correlations, quick on a CPU.
_SCORED_PER_VOLUME = 48

RESULT_FILE = "result.json"


@dataclass(frozen=True, slots=True)
class SsbrBatch:
    """One worker's share of a step: v volumes of m slices."""

    volumes: Tensor
    """Numbers of the volumes (v,), in the order of the source."""
    images: Tensor
    """(v, m, side, side) int16 HU."""
    crops: Tensor
    """(v, m, 2, 3); see `SliceScorer.prepare`."""
    light: Tensor
    """(v, m, 2): gain and offset."""


class SsbrLearner(Learner):
    """The regressor with its sampling and losses."""

    def __init__(
        self,
        source: VolumeSource,
        numbers: NDArray[np.int64],
        settings: SsbrSettings,
        weights: str | bytes = NO_WEIGHTS,
    ) -> None:
        """Train on some of a source's volumes.

        Args:
            source: volumes.
            numbers: of those to train on.
            settings: how.
            weights: to start from, for networks with a backbone: imagenet, none, a file's path or content.

        Raises:
            UsageError: none of them has as many slices as a step takes, or the weights do not go with the network.
            ArtifactError: the weights are damaged, unsafe, or another network's.
        """
        super().__init__()
        self.settings = settings
        self.source = source
        long_enough = [
            number for number in numbers.tolist() if source.volumes[number].count >= settings.slices_per_volume
        ]
        if not long_enough:
            raise UsageError(
                f"none of the {len(numbers)} training volumes has {settings.slices_per_volume} slices",
                next_step="ingest whole series, or train with fewer slices",
            )
        self.numbers = np.array(long_enough, np.int64)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.net = SliceScorer(settings.net())
            self.started = self._start(weights)
        # Every volume starts as half in order, so that all are drawn alike at first.
        self._correlations = np.full(len(source), 0.5)
        self._measured: tuple[Tensor, Tensor] | None = None

    def _start(self, weights: str | bytes) -> WeightsRecord:
        if weights == NO_WEIGHTS:
            return WeightsRecord(NO_WEIGHTS)
        if not hasattr(self.net.trunk, "backbone"):
            raise UsageError(
                f"the network {self.settings.network} has no backbone that weights could fit",
                where="--weights",
                next_step="leave the option out, or take --preset paper",
            )
        return start_weights(self.net.trunk, weights)

    def global_batch(self) -> int:
        """Volumes of a step."""
        return self.settings.volumes_per_step

    def batch(self, step: int, share: Share) -> SsbrBatch:
        """Draw volumes, slices and their changes."""
        settings = self.settings
        drawn = self.draw_volumes(step)
        mine = share.of(list(enumerate(drawn.tolist())))
        images, crops, light = [], [], []
        for position, number in mine:
            rng = step_generator(settings.seed, step, position + 1)
            count = self.source.volumes[number].count
            places = draw_places(rng, count, settings.slices_per_volume, settings.least_interval)
            images.append(self.source.slices(number, places))
            crops.append(draw_crops(rng, settings))
            light.append(draw_light(rng, settings))
        return SsbrBatch(
            volumes=torch.tensor([number for _, number in mine]),
            images=torch.from_numpy(np.stack(images)),
            crops=torch.from_numpy(np.stack(crops)),
            light=torch.from_numpy(np.stack(light)),
        )

    def draw_volumes(self, step: int) -> NDArray[np.int64]:
        """Numbers of a step's volumes, over all workers; none twice where there are enough."""
        rng = step_generator(self.settings.seed, step)
        repeated = self.settings.volumes_per_step > len(self.numbers)
        drawn: NDArray[np.int64] = rng.choice(
            self.numbers, self.settings.volumes_per_step, replace=repeated, p=self._probabilities()
        )
        return drawn

    def forward(self, batch: SsbrBatch) -> dict[str, Tensor]:
        """Both losses."""
        volumes, slices = batch.images.shape[:2]
        prepared = self.net.prepare(batch.images.flatten(0, 1), batch.crops.flatten(0, 1))
        light = batch.light.flatten(0, 1)
        prepared = prepared * light[:, 0, None, None, None] + light[:, 1, None, None, None]
        scores = self.net(prepared).view(volumes, slices)
        self._measured = batch.volumes, slice_correlations(scores.detach())
        return {"order": order_loss(scores), "distance": self.settings.distance_weight * distance_loss(scores)}

    def after_step(self, step: int, share: Share) -> None:  # noqa: ARG002 (the learner's interface)
        """Remember how well each volume was in order."""
        if self._measured is None:
            return
        numbers, measured = (share.gather(part).cpu().numpy() for part in self._measured)
        for number, value in zip(numbers.tolist(), measured.astype(np.float64).round(_DECIMALS).tolist(), strict=True):
            kept = _MEMORY * self._correlations[number] + (1 - _MEMORY) * value
            self._correlations[number] = round(float(kept), _DECIMALS + 3)

    def extra_state(self) -> dict[str, Any]:
        """The record of correlations."""
        return {"correlations": self._correlations.tolist()}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take the record back.

        Raises:
            UsageError: it is of other volumes.
        """
        correlations = np.array(state["correlations"], np.float64)
        if correlations.shape != self._correlations.shape:
            raise UsageError(
                f"the run was begun on {correlations.size} volumes, not {self._correlations.size}",
                next_step="go on with the same cache, or begin a run under another name",
            )
        self._correlations = correlations

    def compiled_modules(self) -> Sequence[torch.nn.Module]:
        """The network."""
        return (self.net.trunk,)

    def reversed_volumes(self) -> list[int]:
        """Numbers of volumes that seem to be stored from foot to head."""
        return [int(number) for number in self.numbers[self._looks_reversed()]]

    def _looks_reversed(self) -> NDArray[np.bool_]:
        known = self._correlations[self.numbers]
        looks: NDArray[np.bool_] = (known < _REVERSED) & bool(np.median(known) > _GOOD_MEDIAN)
        return looks

    def _probabilities(self) -> NDArray[np.float64]:
        hard = np.clip(1.0 - self._correlations[self.numbers], 0.0, 1.0) + _LEAST_WEIGHT
        hard[self._looks_reversed()] = _LEAST_WEIGHT
        even = np.full(len(self.numbers), 1.0 / len(self.numbers))
        weights = self.settings.hard_share * hard / hard.sum() + (1.0 - self.settings.hard_share) * even
        probabilities: NDArray[np.float64] = weights / weights.sum()
        return probabilities


def draw_places(rng: np.random.Generator, count: int, slices: int, least: float = 0.0) -> NDArray[np.int64]:
    """Equidistant places in a volume of `count` slices: a random interval that fits, then a random start.

    Args:
        rng: says which.
        count: slices of the volume, at least `slices`.
        slices: places wanted.
        least: part of the longest interval that fits, from which on intervals are drawn.
    """
    longest = (count - 1) // (slices - 1)
    interval = int(rng.integers(max(1, math.ceil(least * longest)), longest + 1))
    start = int(rng.integers(0, count - (slices - 1) * interval))
    return start + interval * np.arange(slices, dtype=np.int64)


def draw_crops(rng: np.random.Generator, settings: SsbrSettings) -> NDArray[np.float32]:
    """(slices, 2, 3) random crops: zoom, stretch, turn and shift of each slice."""
    count = settings.slices_per_volume
    zoom = np.exp(rng.uniform(-settings.zoom, settings.zoom, count))
    stretch = np.exp(rng.uniform(-settings.stretch, settings.stretch, count))
    angle = rng.normal(0.0, 1.0, count) * settings.turn
    crops = np.empty((count, 2, 3), np.float32)
    crops[:, 0, 0], crops[:, 0, 1] = zoom * stretch * np.cos(angle), -zoom * np.sin(angle)
    crops[:, 1, 0], crops[:, 1, 1] = zoom * np.sin(angle), zoom / stretch * np.cos(angle)
    crops[:, :, 2] = rng.uniform(-settings.shift, settings.shift, (count, 2))
    return crops


def draw_light(rng: np.random.Generator, settings: SsbrSettings) -> NDArray[np.float32]:
    """(slices, 2) random gains and offsets."""
    gain = 1.0 + rng.uniform(-settings.gain, settings.gain, settings.slices_per_volume)
    offset = rng.uniform(-settings.offset, settings.offset, settings.slices_per_volume)
    return np.stack([gain, offset], axis=1).astype(np.float32)


def train(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Train a regressor: the entry for every launcher.

    Args:
        job: `volumes` (URL of the cache), `preset`, `settings` (changes to the preset), `out` (folder for the weights;
            only worker 0 writes), `weights` to start from (none unless given). `seed`, `steps` and `precision` may also
            stand beside `settings`.
        place: where it runs.

    Returns:
        What the model's card needs: settings, data, metrics, curve, notes.

    Raises:
        LesionaryError: the cache, a setting or the training is at fault.
    """
    changes = {name: job.get(name) for name in ("seed", "steps", "precision")}
    settings = settings_for(str(job.get("preset") or DEFAULT_PRESET), {**changes, **dict(job.get("settings") or {})})
    source = VolumeSource.open(str(job["volumes"]))
    numbers = source.of_split("train")
    if settings.max_volumes:
        numbers = numbers[: settings.max_volumes]
    learner = SsbrLearner(source, numbers, settings, job.get("weights") or NO_WEIGHTS)
    fitted = fit(learner, settings.fit(), place)
    if place.rank != 0:
        return {}
    net = learner.net.eval()
    low, high = net.set_score_range(_scores(net, source, learner.numbers, raw_scores)[0])
    out = Path(str(job["out"]))
    out.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(out / WEIGHTS_FILE, weights_bytes(net.state_dict()))
    reversed_ones = [source.volumes[number].series_id for number in learner.reversed_volumes()]
    return {
        "settings": {
            **settings.record(),
            "side_px": source.side,
            "score_range": [low, high],
            "weights": asdict(learner.started),
        },
        "data": {
            **source.counts(),
            "training_volumes": len(learner.numbers),
            "seem_reversed": reversed_ones,
        },
        "metrics": {
            **order_metrics(net, source, learner.numbers, "train"),
            **order_metrics(net, source, source.of_split("val"), "val"),
            "seconds": round(fitted.seconds, 3),
            "items_per_second": round(fitted.items_per_second, 3),
            "wait_share": round(fitted.wait_share, 4),
        },
        "steps_done": fitted.steps_done,
        "resumed_from": fitted.resumed_from,
        "curve": [[step, parts] for step, parts in fitted.curve],
    }


def order_metrics(net: SliceScorer, source: VolumeSource, numbers: NDArray[np.int64], split: str) -> dict[str, Any]:
    """Order within some volumes, each figure's name ending in the split's; empty without volumes."""
    volumes = []
    for number in numbers.tolist():
        places = spread_places(source.volumes[number].count, _SCORED_PER_VOLUME)
        scores = score_slices(net, source.slices(number, places)).astype(np.float64)
        volumes.append((scores, source.slice_indices(number, places)))
    found = order_scores(volumes)
    return {} if found is None else {f"{name}_{split}": value for name, value in asdict(found).items()}


def body_part_metrics(
    net: SliceScorer, source: VolumeSource, heights: Mapping[str, Mapping[int, float]]
) -> BodyPartScores:
    """Thresholds from training and validation volumes of known heights, tested on test volumes.

    Args:
        net: trained.
        source: volumes.
        heights: series to slice number to true height, as `phantom_heights` gives them.

    Raises:
        UsageError: no volume of known heights to choose or to test on.
    """
    fitted = np.concatenate([source.of_split("train"), source.of_split("val")])
    return body_part_scores(
        _known_classes(net, source, fitted, heights), _known_classes(net, source, source.of_split("test"), heights)
    )


def _known_classes(
    net: SliceScorer, source: VolumeSource, numbers: NDArray[np.int64], heights: Mapping[str, Mapping[int, float]]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    known = np.array([number for number in numbers.tolist() if source.volumes[number].series_id in heights], np.int64)
    scores, rows = _scores(net, source, known, score_slices)
    truth = [heights[source.volumes[number].series_id][index] for number, index in rows]
    return scores, classes_of_heights(np.array(truth, np.float64))


def _scores(
    net: SliceScorer,
    source: VolumeSource,
    numbers: NDArray[np.int64],
    score: Callable[[SliceScorer, NDArray[np.int16]], NDArray[Any]],
) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Scores of slices spread over some volumes, and which slices: number of the volume and number in the lake."""
    scores, rows = [np.zeros(0)], []
    for number in numbers.tolist():
        places = spread_places(source.volumes[number].count, _SCORED_PER_VOLUME)
        scores.append(score(net, source.slices(number, places)).astype(np.float64))
        rows += [(number, int(index)) for index in source.slice_indices(number, places)]
    return np.concatenate(scores), rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Train in this process, without Ray; prints what came out as JSON."""
    parser = argparse.ArgumentParser(prog="python -m trainers.ssbr.loop", description="Train body-part regression.")
    parser.add_argument("--volumes", required=True, help="folder of the cache of volumes")
    parser.add_argument("--out", required=True, type=Path, help="folder for weights, checkpoints and the result")
    parser.add_argument("--preset", default=DEFAULT_PRESET, choices=list(PRESETS))
    parser.add_argument("--weights", default=NO_WEIGHTS, help="to start from: imagenet, none or a file")
    parser.add_argument("--threads", type=int, help="of PyTorch")
    parser.add_argument("--truth", type=Path, help="a phantom's truth.json: tests parts of the body, too")
    parser.add_argument("--namespace", default="dl", help="that the phantom was ingested under")
    for field in dataclasses.fields(SsbrSettings):
        if isinstance(field.default, (int, float, str)) and not isinstance(field.default, bool):
            parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default))
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    changes = {field.name: getattr(given, field.name, None) for field in dataclasses.fields(SsbrSettings)}
    job = {"volumes": given.volumes, "preset": given.preset, "settings": changes, "out": str(given.out)}
    job["weights"] = given.weights
    try:
        result = train(job, Alone(given.out, listener=progress_on_stderr("volumes")))
        if given.truth is not None:
            result["metrics"]["body_parts"] = _tested(given, result)
        atomic_write_json(given.out / RESULT_FILE, result)
    except LesionaryError as error:
        print(error.sentence, file=sys.stderr)  # noqa: T201 (a command's message)
        return error.exit_code
    print(json.dumps(result["metrics"], indent=2))  # noqa: T201 (a command's result)
    return 0


def _tested(given: argparse.Namespace, result: Mapping[str, Any]) -> dict[str, Any]:
    net = net_from((given.out / WEIGHTS_FILE).read_bytes(), result["settings"])
    source = VolumeSource.open(given.volumes)
    heights = phantom_heights(json.loads(given.truth.read_bytes()), given.namespace)
    parts = asdict(body_part_metrics(net, source, heights))
    return parts | order_metrics(net, source, source.of_split("test"), "test")


if __name__ == "__main__":
    sys.exit(main())
