"""Mine categories: cluster the lesions' features, teach the network the clusters, cluster again, until rounds agree.

    python -m trainers.categoriser.loop --patches URL --out FOLDER [--preset small] [--weights FILE] [--steps N]

No label of a lesion is looked at. Patients of the test split are neither clustered nor trained on; the last round's
network says their categories, as it does for everybody's under the number after the last round's.

May import: lesionary, torch, trainers.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from lesionary.artifacts import atomic_write_bytes, atomic_write_json
from lesionary.errors import LesionaryError
from lesionary.models import WEIGHTS_FILE
from trainers.batches import PatchSource
from trainers.categoriser.evaluate import accuracies, agreement
from trainers.categoriser.inference import Answers, ask
from trainers.categoriser.learner import CategoryLearner
from trainers.categoriser.mining import choose_categories, points_of, sort_lesions
from trainers.categoriser.model import CategoryNet
from trainers.categoriser.presets import DEFAULT_PRESET, PRESETS, CategoriserSettings, settings_for
from trainers.categoriser.targets import Split, split_patients
from trainers.checkpoint import weights_bytes
from trainers.fitting import Alone, FitResult, Place, fit
from trainers.places import progress_on_stderr
from trainers.rounds import LABELS_FILE, History, RoundLabels, RoundPlace, handed_round, label_rows, write_labels
from trainers.weights import NO_WEIGHTS, start_weights

RESULT_FILE = "result.json"


def train(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Mine categories, and write the network's weights and the labels of each round.

    Args:
        job: `patches` URL of the patch cache; `out` folder for the results (only worker 0 writes); `preset` and
            `settings` (changes to it); `weights` to start from, none unless given; `local_copy` folder for a cache
            that lies elsewhere.
        place: where.

    Returns:
        What the model's card needs: settings, data, metrics, curve.

    Raises:
        UsageError: nothing to train on, or a setting is wrong.
        TrainingError: too few or degenerate lesions, or a loss that is not finite.
    """
    changes = {name: job.get(name) for name in ("seed", "steps", "precision")}
    settings = settings_for(str(job.get("preset") or DEFAULT_PRESET), {**changes, **dict(job.get("settings") or {})})
    local_copy = job.get("local_copy")
    source = PatchSource.open(job["patches"], Path(local_copy) if local_copy else None)
    seen = source.rows_outside_test()
    # Every worker draws the same first weights, and nobody else's random numbers are disturbed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net = CategoryNet(settings.net())
    started = start_weights(net, job.get("weights") or NO_WEIGHTS, net.outside_layers)
    run = _Rounds(net.to(place.device), source.subset(seen), settings, place)
    last = run.finish()
    if place.rank != 0:
        return {}
    out = Path(job["out"])
    atomic_write_bytes(out / WEIGHTS_FILE, weights_bytes(net.state_dict()))
    final = ask(net, source, settings, place.device, settings.features)
    write_labels(out / LABELS_FILE, run.labels_table(source, final))
    records = run.history.records
    return {
        "settings": settings.record(),
        "data": _counts(source, seen) | {"start": asdict(started), "rounds": list(records)},
        "metrics": {
            "rounds": len(records),
            "categories": records[-1]["k"],
            **{name: records[-1][name] for name in ("purity", "nmi") if records[-1][name] is not None},
            "held_out_accuracy": records[-1]["held_out_accuracy"],
            "seconds": round(run.history.seconds, 3),
            "items_per_second": round(last.items_per_second, 3),
            "wait_share": round(last.wait_share, 4),
        },
        "steps_done": len(records) * settings.steps,
        "resumed_from": run.resumed_from,
        "curve": list(run.history.curve),
        "notes": [] if run.settled else [f"{len(records)} rounds were not enough to pass the thresholds"],
    }


class _Rounds:
    """The rounds of one run."""

    def __init__(self, net: CategoryNet, source: PatchSource, settings: CategoriserSettings, place: Place) -> None:
        # Too few patients are said before anything is looked at.
        split_patients(source.patients, settings, 0)
        self.net = net
        self.source = source
        self.settings = settings
        self.place = place
        self.history = History((), ())
        """Of the rounds that are done, and while one is trained with it."""
        self.resumed_from: int | None = None
        self.settled = False
        """Whether the last rounds agreed."""
        self._answers: Answers | None = None
        """Worker 0's, of the network as it is."""

    def finish(self) -> FitResult:
        """All rounds that are left; those before the newest checkpoint's are done."""
        newest = self.place.latest()
        taken_up = None if newest is None else History.read(newest, len(self.source))
        number = taken_up.present.number if taken_up else 0
        while True:
            if taken_up is not None and taken_up.present.number == number:
                self.history = taken_up
            else:
                labels, record = self._drawn_up(number)
                self.history = replace(
                    self.history,
                    labels=(*self.history.labels, labels),
                    records=(*self.history.records, {"round": number} | record),
                )
            result = self._fit(number)
            self.settled = self._agrees()
            number += 1
            if self.settled or number == self.settings.max_rounds:
                return result

    def _agrees(self) -> bool:
        """Whether the last two rounds sort alike; every worker has the labels, so all stop together."""
        if len(self.history.labels) < 2:
            return False
        purity, nmi = agreement(*(labels.types for labels in self.history.labels[-2:]))
        return purity >= self.settings.stop_purity and nmi >= self.settings.stop_nmi

    def _fit(self, number: int) -> FitResult:
        settings = self.settings
        categories = self.history.present.types
        fitted = settings.fit(number)
        count = int(categories.max()) + 1
        # Where categories went on from those before, so does the last layer; a checkpoint has one of this size.
        if not settings.warm_start or count != self.net.head.out_features:
            self.net.set_categories(count, fitted.seed)
        split = split_patients(self.source.patients, settings, number)
        learner = CategoryLearner(self.net, self.source, split.train, categories, settings, fitted.seed)
        result = fit(learner, fitted, RoundPlace(self.place, self.history, [settings.steps] * settings.max_rounds))
        before = number * settings.steps
        if self.resumed_from is None and result.resumed_from is not None:
            self.resumed_from = before + result.resumed_from
        told = tuple([step + before, parts] for step, parts in result.curve)
        self.history = replace(
            self.history, curve=(*self.history.curve, *told), seconds=self.history.seconds + result.seconds
        )
        if self.place.rank == 0:
            self._look(split)
        return result

    def _look(self, split: Split) -> None:
        """What the round's network says of the lesions: how sure it is of their categories, and how often right."""
        self._answers = ask(self.net, self.source, self.settings, self.place.device, self.settings.features)
        present = self.history.present
        sure = self._answers.probability[np.arange(len(present.types)), present.types]
        told = self.history.records[-1] | accuracies(self._answers.categories, present.types, split)
        self.history = replace(
            self.history,
            labels=(*self.history.labels[:-1], replace(present, probability=sure)),
            records=(*self.history.records[:-1], told),
        )

    def _drawn_up(self, number: int) -> tuple[RoundLabels, dict[str, Any]]:
        """A round's categories and what is said of them; the latter by worker 0 alone, whose checkpoints are kept."""
        labels, record = self._mined(number) if self.place.rank == 0 else (None, {})
        return handed_round(self.place, labels, len(self.source), number), record

    def _mined(self, number: int) -> tuple[RoundLabels, dict[str, Any]]:
        settings, before = self.settings, self.history.labels
        if number == 0:
            layer = settings.first_features
            answers = ask(self.net, self.source, settings, self.place.device, layer)
        else:
            layer = settings.features
            answers = self._answers or ask(self.net, self.source, settings, self.place.device, layer)
        points = points_of(answers.features, self.source.location, settings)
        k, choice = choose_categories(points, self.source.patients, settings, self.history.records)
        categories = sort_lesions(points, k, settings, before[-1].types if before else None)
        purity, nmi = agreement(before[-1].types, categories) if before else (None, None)
        record = {
            "k": int(categories.max()) + 1,
            "features": layer,
            "sizes": np.bincount(categories).tolist(),
            "purity": purity,
            "nmi": nmi,
            "choice": choice,
        }
        return RoundLabels(number, categories, np.zeros(len(categories))), record

    def labels_table(self, source: PatchSource, final: Answers) -> pa.Table:
        """The clusters of every round, and under the next number what the last network says of every lesion."""
        parts = [
            label_rows(self.source.lesion_ids, one.number, [str(kind) for kind in one.types], one.probability)
            for one in self.history.labels
        ]
        said = [str(kind) for kind in final.categories]
        parts.append(label_rows(source.lesion_ids, len(parts), said, final.probability.max(axis=1)))
        return pa.concat_tables(parts)


def _counts(source: PatchSource, seen: NDArray[np.int64]) -> dict[str, Any]:
    unseen = np.setdiff1d(np.arange(len(source)), seen)
    return {
        "patches": len(source),
        "trained_on": len(seen),
        "patients": len(np.unique(source.patients[seen])),
        "unseen": len(unseen),
        "unseen_patients": len(np.unique(source.patients[unseen])),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train in this process, without Ray; prints the metrics as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.categoriser.loop", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--patches", required=True, help="URL or folder of the patch cache")
    parser.add_argument("--out", required=True, help="folder for weights, curve and checkpoints")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET)
    parser.add_argument("--backbone")
    parser.add_argument("--weights", default=NO_WEIGHTS, help="imagenet, none or a file")
    parser.add_argument("--k", type=int, help="number of categories, instead of the criterion's")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--device")
    given = parser.parse_args(arguments)
    job = {
        "patches": given.patches,
        "out": given.out,
        "preset": given.preset,
        "settings": {name: getattr(given, name) for name in ("backbone", "k", "steps", "seed", "precision")},
        "weights": given.weights,
    }
    try:
        found = train(job, Alone(Path(given.out), given.device, progress_on_stderr("crops")))
        atomic_write_json(Path(given.out) / RESULT_FILE, found)
    except LesionaryError as error:
        sys.stderr.write(f"{error.sentence}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(found["metrics"], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
