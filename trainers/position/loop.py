"""Train a backbone to say where a crop lies; its weights are where other trainings start from.

    python -m trainers.position.loop --patches URL --out FOLDER [--preset small] [--steps N] [--seed N]

The data are the cached patches (millimetre pixels, three slices 2 mm apart), not the whole slices that body-part
regression is trained on: those have pixels of 3 to 4 mm and one slice, and features learnt there would be those of
another kind of image than every later step sees. The price is that crops lie where somebody once marked a lesion,
up to `shift_mm` off it. No label is used, and of the marks only their places.

May import: lesionary, torch, trainers.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionary.artifacts import atomic_write_bytes, atomic_write_json
from lesionary.errors import LesionaryError, UsageError
from lesionary.models import WEIGHTS_FILE
from trainers.batches import PatchSource
from trainers.checkpoint import weights_bytes
from trainers.fitting import Alone, Learner, Place, Share, fit, step_generator
from trainers.places import progress_on_stderr
from trainers.position.evaluate import position_errors
from trainers.position.model import COORDINATES, PositionNet
from trainers.position.presets import DEFAULT_PRESET, PRESETS, PositionSettings, settings_for
from trainers.position.targets import Crops, draw_crops, position_loss, read_crops
from trainers.weights import NO_WEIGHTS, start_weights

RESULT_FILE = "result.json"


class PositionLearner(Learner):
    """Crops of a patch source, and how far off the network is with them."""

    def __init__(
        self, net: PositionNet, source: PatchSource, rows: NDArray[np.int64], settings: PositionSettings
    ) -> None:
        super().__init__()
        self.net = net
        self._source = source
        self._rows = rows
        self._settings = settings

    def batch(self, step: int, share: Share) -> Crops:
        """The worker's share of a step's crops."""
        draw = draw_crops(self._rows, self._settings, step_generator(self._settings.seed, step))
        return read_crops(self._source, draw.share(share.rank, share.world), self._settings)

    def forward(self, batch: Crops) -> dict[str, Tensor]:
        """How far off x, y and z are."""
        predicted = self.net(batch.images, batch.boxes)
        return position_loss(predicted, batch.places, batch.known, self._settings.tolerance)

    def global_batch(self) -> int:
        """Crops of a step."""
        return self._settings.batch

    def compiled_modules(self) -> Sequence[torch.nn.Module]:
        """The convolutions; what follows is small."""
        return (self.net.backbone,)


def usable_rows(source: PatchSource) -> dict[str, NDArray[np.int64]]:
    """Rows whose place is known at all, by split: the source's own where it has one, else by the patient."""
    known = np.isfinite(source.location).any(axis=1)
    splits = source.splits_by_patient()
    return {split: np.flatnonzero(known & (splits == split)) for split in ("train", "val", "test")}


def train(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Train, and write the backbone's weights.

    Args:
        job: `patches` URL of the patch cache; `out` folder for the weights (only worker 0 writes); `preset` and
            `settings` (changes to it); `weights` to start from, none unless given; `local_copy` folder for a cache
            that lies elsewhere. As a convenience `seed`, `steps` and `precision` may stand beside `settings`.
        place: where.

    Returns:
        What the model's card needs: settings, data, metrics, curve. The weights are the backbone's alone, under the
        names that `--weights FILE` takes.

    Raises:
        UsageError: no patch of the training split has a known place, or a setting is wrong.
        TrainingError: a loss is not finite.
    """
    changes = {name: job.get(name) for name in ("seed", "steps", "precision")}
    settings = settings_for(str(job.get("preset") or DEFAULT_PRESET), {**changes, **dict(job.get("settings") or {})})
    local_copy = job.get("local_copy")
    source = PatchSource.open(job["patches"], Path(local_copy) if local_copy else None)
    rows = usable_rows(source)
    if not len(rows["train"]):
        raise UsageError(
            "no patch of the training split has a known place in the body",
            where="patches",
            next_step="ingest more patients, or run `lesionary locate`",
        )
    # Every worker draws the same first weights, and nobody else's random numbers are disturbed.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        net = PositionNet(settings.backbone, settings.hidden, settings.grid)
    started = start_weights(net, job.get("weights") or NO_WEIGHTS)
    learner = PositionLearner(net, source, rows["train"], settings)
    result = fit(learner, settings.fit(), place)
    if place.rank != 0:
        return {}
    out = Path(job["out"])
    atomic_write_bytes(out / WEIGHTS_FILE, weights_bytes(net.backbone.state_dict()))
    errors = position_errors(net, source, rows["val"], rows["train"], settings, place.device)
    return {
        "settings": settings.record(),
        "data": _counts(source, rows) | {"start": asdict(started)},
        "metrics": {
            **{f"{name}_val": value for name, value in errors.items()},
            "seconds": round(result.seconds, 3),
            "items_per_second": round(result.items_per_second, 3),
            "wait_share": round(result.wait_share, 4),
        },
        "steps_done": result.steps_done,
        "resumed_from": result.resumed_from,
        "curve": [[step, parts] for step, parts in result.curve],
    }


def _counts(source: PatchSource, rows: Mapping[str, NDArray[np.int64]]) -> dict[str, Any]:
    patients = np.asarray(source.patients)
    known = np.isfinite(source.location[rows["train"]]).sum(axis=0)
    return {
        "patches": len(source),
        "patches_by_split": {split: len(found) for split, found in rows.items()},
        "train_patients": len(np.unique(patients[rows["train"]])),
        "train_known": {name: int(count) for name, count in zip(COORDINATES, known, strict=True)},
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Train in this process, without Ray; prints the metrics as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.position.loop", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--patches", required=True, help="URL or folder of the patch cache")
    parser.add_argument("--out", required=True, help="folder for weights, curve and checkpoints")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET)
    parser.add_argument("--backbone")
    parser.add_argument("--weights", default=NO_WEIGHTS, help="imagenet, none or a file")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--device")
    given = parser.parse_args(arguments)
    changes = {name: getattr(given, name) for name in ("backbone", "steps", "seed", "precision")}
    job = {
        "patches": given.patches,
        "out": given.out,
        "preset": given.preset,
        "settings": changes,
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
