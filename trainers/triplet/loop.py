"""Train the triplet network: label types from seeds, train on sequences of lesions, label anew, train again.

    python -m trainers.triplet.loop --patches URL --out FOLDER [--preset small] [--weights FILE] [--steps N] [--seed N]

Every lesion outside the test split whose type is known is a seed; types of the test split are never looked at. The
split is the source's, or by patient where it has none.

May import: lesionary, torch, trainers.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lesionary.anatomy import LESION_TYPES
from lesionary.artifacts import atomic_write_bytes, atomic_write_json
from lesionary.errors import LesionaryError, TrainingError
from lesionary.models import WEIGHTS_FILE
from trainers.batches import UNKNOWN_TYPE, PatchSource
from trainers.checkpoint import weights_bytes
from trainers.fitting import Alone, FitResult, Place, fit
from trainers.places import progress_on_stderr
from trainers.rounds import LABELS_FILE, History, RoundLabels, RoundPlace, handed_round, label_rows, write_labels
from trainers.triplet.evaluate import order_kept
from trainers.triplet.labels import Labels, pseudo_labels
from trainers.triplet.learner import TripletLearner
from trainers.triplet.model import MultiScaleNet
from trainers.triplet.presets import DEFAULT_PRESET, PRESETS, TripletSettings, settings_for
from trainers.triplet.sampling import SequenceSampler
from trainers.triplet.vectors import vectors_of
from trainers.weights import NO_WEIGHTS, start_weights

RESULT_FILE = "result.json"


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """The lesions that are trained on."""

    source: PatchSource
    rows: NDArray[np.int64]
    types: NDArray[np.int64]
    """Of the seeds; -1 elsewhere."""
    unseen: NDArray[np.int64]
    """Rows of the test split."""

    @property
    def seeds(self) -> NDArray[np.int64]:
        """Places of the seeds among the rows."""
        return np.flatnonzero(self.types >= 0)


def training_set(source: PatchSource) -> TrainingSet:
    """Split a source by patient; whoever is in the test split teaches nothing, neither place nor type.

    Raises:
        UsageError: nothing is left to train on.
    """
    rows = source.rows_outside_test()
    return TrainingSet(source, rows, source.types[rows], np.flatnonzero(source.splits_by_patient() == "test"))


def train(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Train, and write the network's weights and the labels of each round.

    Args:
        job: `patches` URL of the patch cache; `out` folder for the results (only worker 0 writes); `preset` and
            `settings` (changes to it); `weights` to start from, none unless given; `local_copy` folder for a cache
            that lies elsewhere.
        place: where.

    Returns:
        What the model's card needs: settings, data, metrics, curve.

    Raises:
        UsageError: nothing to train on, or a setting is wrong.
        TrainingError: no seeds, degenerate lesions, or a loss that is not finite.
    """
    changes = {name: job.get(name) for name in ("seed", "steps", "precision")}
    settings = settings_for(str(job.get("preset") or DEFAULT_PRESET), {**changes, **dict(job.get("settings") or {})})
    local_copy = job.get("local_copy")
    lesions = training_set(PatchSource.open(job["patches"], Path(local_copy) if local_copy else None))
    # Every worker draws the same first weights, and nobody else's random numbers are disturbed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net = MultiScaleNet(settings.net())
    started = start_weights(net, job.get("weights") or NO_WEIGHTS)
    run = _Rounds(net.to(place.device), lesions, settings, place)
    last = run.finish()
    if place.rank != 0:
        return {}
    out = Path(job["out"])
    atomic_write_bytes(out / WEIGHTS_FILE, weights_bytes(net.state_dict()))
    write_labels(out / LABELS_FILE, run.labels_table())
    return {
        # With the stages that are used: the network is rebuilt from its own settings' names.
        "settings": settings.record() | settings.net().record(),
        "data": _counts(lesions) | {"start": asdict(started), "rounds": list(run.history.records)},
        "metrics": {
            **{f"order_kept_{name}": value for name, value in run.scores().items()},
            "seconds": round(run.history.seconds, 3),
            "items_per_second": round(last.items_per_second, 3),
            "wait_share": round(last.wait_share, 4),
        },
        "steps_done": sum(run.steps),
        "resumed_from": run.resumed_from,
        "curve": list(run.history.curve),
    }


class _Rounds:
    """The rounds of one run."""

    def __init__(self, net: MultiScaleNet, lesions: TrainingSet, settings: TripletSettings, place: Place) -> None:
        self.net = net
        self.lesions = lesions
        self.settings = settings
        self.place = place
        self.needs_types = settings.sampling().uses("type")
        self.rounds = 1 + (settings.refinements if self.needs_types else 0)
        self.steps = [settings.steps_of(number) for number in range(self.rounds)]
        self.history = History((), ())
        """Of the rounds that are done, and while one is trained with it."""
        self.resumed_from: int | None = None
        if self.needs_types and not len(lesions.seeds):
            raise TrainingError(
                "no lesion outside the test split has a known type",
                where="triplet labels",
                next_step='label some lesions, or train with the "location" cue',
            )

    def finish(self) -> FitResult:
        """All rounds that are left; those before the newest checkpoint's are done."""
        first = {name: value.clone() for name, value in self.net.state_dict().items()}
        newest = self.place.latest()
        taken_up = None if newest is None else History.read(newest, len(self.lesions.rows))
        for number in range(taken_up.present.number if taken_up else 0, self.rounds):
            if taken_up is not None and taken_up.present.number == number:
                self.history = taken_up
            else:
                labels, record = self._drawn_up(number)
                self.history = replace(
                    self.history,
                    labels=(*self.history.labels, labels),
                    records=(*self.history.records, {"round": number} | record),
                )
                if number > 0 and self.settings.refine_from_start:
                    self.net.load_state_dict(first)
            result = self._fit(number)
        return result

    def _fit(self, number: int) -> FitResult:
        fitted = self.settings.fit(number)
        types = self.history.present.types
        learner = TripletLearner(self.net, self.lesions.source, self.lesions.rows, types, self.settings, fitted.seed)
        self.history.records[number]["sampling"] = learner.sampler.record()
        result = fit(learner, fitted, RoundPlace(self.place, self.history, self.steps))
        before = sum(self.steps[:number])
        if self.resumed_from is None and result.resumed_from is not None:
            self.resumed_from = before + result.resumed_from
        told = tuple([step + before, parts] for step, parts in result.curve)
        self.history = replace(
            self.history, curve=(*self.history.curve, *told), seconds=self.history.seconds + result.seconds
        )
        return result

    def _drawn_up(self, number: int) -> tuple[RoundLabels, dict[str, Any]]:
        """A round's labels and what is said of them; the latter by worker 0 alone, whose checkpoints are kept."""
        labels, record = self._learnt(number) if self.place.rank == 0 else (None, {})
        return handed_round(self.place, labels, len(self.lesions.rows), number), record

    def _learnt(self, number: int) -> tuple[RoundLabels, dict[str, Any]]:
        lesions, settings = self.lesions, self.settings
        count = len(lesions.rows)
        if not self.needs_types:
            return RoundLabels(number, np.full(count, UNKNOWN_TYPE), np.zeros(count)), {}
        found = learnt_labels(self.net, lesions, settings, self.place.device, number)
        types = found.confident(settings.least_probability)
        return RoundLabels(number, types, np.nan_to_num(found.probability, nan=0.0)), {"labels": found.record}

    def scores(self) -> dict[str, float]:
        """How the order is kept on unseen patients whose types are known; nothing where they cannot be drawn."""
        lesions, settings = self.lesions, self.settings
        unseen = lesions.source.subset(lesions.unseen)
        try:
            sampler = SequenceSampler(
                unseen.types, unseen.location, unseen.size_mm, unseen.patients, settings.sampling(), settings.seed
            )
        except TrainingError:
            return {}
        return order_kept(vectors_of(self.net, unseen, settings.scale_mm, self.place.device), sampler)

    def labels_table(self) -> pa.Table:
        """The labels of every round, seeds with their own types."""
        names = np.array(LESION_TYPES)
        lesion_ids = self.lesions.source.lesion_ids[self.lesions.rows]
        parts = []
        for labels in self.history.labels:
            known = np.flatnonzero(labels.types >= 0)
            words = names[labels.types[known]].tolist()
            parts.append(label_rows(lesion_ids[known], labels.number, words, labels.probability[known]))
        return pa.concat_tables(parts)


def learnt_labels(
    net: MultiScaleNet, lesions: TrainingSet, settings: TripletSettings, device: torch.device, number: int
) -> Labels:
    """Types of all training lesions out of the seeds': from the backbone's features first, then from the vectors."""
    source = lesions.source.subset(lesions.rows)
    features = vectors_of(net, source, settings.scale_mm, device, precision=settings.precision, untrained=number == 0)
    places = source.location[:, np.isfinite(source.location[lesions.seeds]).any(axis=0)]
    weights = None
    if settings.label_place_weight > 0 and places.shape[1]:
        # A lesion of unknown place is taken to be where the average seed is.
        places = np.where(np.isfinite(places), places, np.nanmean(places[lesions.seeds], axis=0))
        # The numbers of the place together weigh as much as all of the network's features, times the setting.
        share = settings.label_place_weight * np.sqrt(features.shape[1] / places.shape[1])
        weights = np.concatenate([np.ones(features.shape[1]), np.full(places.shape[1], share)])
        features = np.concatenate([features, places], axis=1)
    return pseudo_labels(
        features,
        lesions.types,
        source.patients,
        lesions.seeds,
        np.arange(len(lesions.rows)),
        settings.seed,
        settings.labels(),
        refinement=number,
        weights=weights,
    )


def _counts(lesions: TrainingSet) -> dict[str, Any]:
    patients = lesions.source.patients
    return {
        "patches": len(lesions.source),
        "trained_on": len(lesions.rows),
        "patients": len(np.unique(patients[lesions.rows])),
        "seeds": len(lesions.seeds),
        "unseen": len(lesions.unseen),
        "unseen_patients": len(np.unique(patients[lesions.unseen])),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train in this process, without Ray; prints the metrics as JSON."""
    parser = argparse.ArgumentParser(prog="python -m trainers.triplet.loop", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--patches", required=True, help="URL or folder of the patch cache")
    parser.add_argument("--out", required=True, help="folder for weights, curve and checkpoints")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET)
    parser.add_argument("--weights", default=NO_WEIGHTS, help="imagenet, none or a file")
    parser.add_argument("--device")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="change a setting; repeatable")
    for name, kind in (("steps", int), ("seed", int)):
        parser.add_argument(f"--{name}", type=kind)
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    given = parser.parse_args(arguments)
    try:
        flags = {name: getattr(given, name) for name in ("steps", "seed", "precision")}
        changes = _changes(given.set) | {name: value for name, value in flags.items() if value is not None}
        job = {
            "patches": given.patches,
            "out": given.out,
            "preset": given.preset,
            "settings": changes,
            "weights": given.weights,
        }
        found = train(job, Alone(Path(given.out), given.device, progress_on_stderr("patches")))
        atomic_write_json(Path(given.out) / RESULT_FILE, found)
    except LesionaryError as error:
        sys.stderr.write(f"{error.sentence}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(found["metrics"], indent=2) + "\n")
    return 0


def _changes(settings: Sequence[str]) -> dict[str, Any]:
    changes = {}
    for text in settings:
        name, _, value = text.partition("=")
        try:
            changes[name] = json.loads(value)
        except ValueError:
            changes[name] = value
    return changes


if __name__ == "__main__":
    raise SystemExit(main())
