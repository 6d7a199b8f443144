"""Train a detector on the cached stacks of a lake.

    python -m trainers.detector.loop --stacks URL --out FOLDER [--preset small] [--weights FILE] [--set NAME=VALUE]

Stacks of the test split are never looked at; those of val only at the end, for the metrics on the model's card.

May import: lesionary, torch, trainers.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionary.anatomy import LESION_TYPES
from lesionary.artifacts import atomic_write_bytes, atomic_write_json
from lesionary.errors import LesionaryError, UsageError
from lesionary.models import WEIGHTS_FILE
from trainers.checkpoint import weights_bytes
from trainers.detector.anchors import anchors_of_data
from trainers.detector.inference import Finder
from trainers.detector.model import Detector
from trainers.detector.presets import DEFAULT_PRESET, PRESETS, DetectorSettings, settings_for
from trainers.detector.source import StackBatch, StackSource, training_batch
from trainers.detector.validation import found_on, marked_rows, scores_for_card, truth_of
from trainers.fitting import Alone, Learner, Place, Share, fit, step_generator
from trainers.places import progress_on_stderr
from trainers.weights import NO_WEIGHTS, start_weights

RESULT_FILE = "result.json"

# Tells the order of an epoch from what is drawn for its stacks.
_ORDER_STREAM = 1_000_003


class DetectorLearner(Learner):
    """Stacks of a cache, and how wrong the detector is about them."""

    def __init__(
        self,
        detector: Detector,
        source: StackSource,
        rows: NDArray[np.int64],
        categories: dict[str, int] | None,
    ) -> None:
        super().__init__()
        self.detector = detector
        self._source = source
        self._rows = rows
        self._categories = categories

    def batch(self, step: int, share: Share) -> StackBatch:
        """The worker's share of a step's stacks."""
        settings = self.detector.settings
        return training_batch(
            self._source,
            self._drawn(step),
            settings,
            self._categories,
            step_generator(settings.seed, step),
            slice(share.rank, None, share.world),
        )

    def forward(self, batch: StackBatch) -> dict[str, Tensor]:
        """The losses of proposals and head, and of the map where there is one."""
        losses: dict[str, Tensor] = self.detector(batch)
        return losses

    def global_batch(self) -> int:
        """Stacks of a step."""
        return self.detector.settings.batch

    def compiled_modules(self) -> Sequence[torch.nn.Module]:
        """The trunk: what follows has lists of varying length."""
        return (self.detector.trunk,)

    def _drawn(self, step: int) -> list[int]:
        """A step's stacks: none comes again before all have come."""
        settings = self.detector.settings
        first = step * settings.batch
        count = len(self._rows)
        orders: dict[int, NDArray[np.int64]] = {}
        drawn = []
        for number in range(first, first + settings.batch):
            epoch, at = divmod(number, count)
            if epoch not in orders:
                orders[epoch] = step_generator(settings.seed, epoch, _ORDER_STREAM).permutation(count)
            drawn.append(int(self._rows[orders[epoch][at]]))
        return drawn


def lesion_categories(
    source: StackSource, wanted: str, assigned: Mapping[str, Any] | None
) -> tuple[dict[str, int] | None, list[str]]:
    """Lesion to category, None for one class; and what the categories are called.

    Args:
        source: of the stacks.
        wanted: "none", "types", or the model that `assigned` comes from.
        assigned: the `names` of its categories, and `lesions`: lesion to the number of one.

    Raises:
        UsageError: nothing of the training stacks has a category.
    """
    if wanted == "none":
        return None, ["lesion"]
    if wanted == "types":
        known = {
            lesion: LESION_TYPES.index(kind)
            for lesions, types in zip(source.lesion_ids, source.types, strict=True)
            for lesion, kind in zip(lesions, types, strict=True)
            if kind is not None
        }
        names = list(LESION_TYPES)
    else:
        known, names = dict((assigned or {}).get("lesions", {})), list((assigned or {}).get("names", []))
    train = {
        lesion
        for lesions, split in zip(source.lesion_ids, source.splits, strict=True)
        if split == "train"
        for lesion in lesions
    }
    if not train & known.keys():
        raise UsageError(
            "no lesion of the training split has a category",
            where=f"categories={wanted}",
            next_step="sort lesions with `lesionary train categories`, or take categories=none",
        )
    return known, names


def with_anchors(settings: DetectorSettings, boxes: NDArray[np.float32]) -> DetectorSettings:
    """Settings whose anchors suit some boxes, where they were not given."""
    if settings.anchors_px and settings.anchor_ratios:
        return settings
    side, ratios = anchors_of_data(boxes)
    return replace(settings, anchors_px=settings.anchors_px or (side,), anchor_ratios=settings.anchor_ratios or ratios)


def padded_boxes(source: StackSource, rows: NDArray[np.int64], padding_px: float) -> NDArray[np.float32]:
    """All boxes of some stacks, padded."""
    found = [source.padded_boxes(row, padding_px) for row in rows.tolist()]
    return np.concatenate([np.empty((0, 4), np.float32), *found])


def make_detector(settings: DetectorSettings, categories: int) -> Detector:
    """A detector with the random weights that belong to the settings' seed; nobody else's random numbers change."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return Detector(settings, categories)


def train(job: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Train, and write the detector's weights.

    Args:
        job: `stacks` URL of the cache; `out` folder for the weights (only worker 0 writes); `preset` and `settings`
            (changes to it); `weights` for the backbone, none unless given; `categories` lesion to category, where the
            settings name a categoriser (a JSON file); `local_copy` folder for a cache that lies elsewhere.
        place: where.

    Returns:
        What the model's card needs: settings, data, metrics, curve.

    Raises:
        UsageError: no stack of the training split has a lesion to learn from, or a setting is wrong.
        TrainingError: a loss is not finite.
    """
    settings = settings_for(str(job.get("preset") or DEFAULT_PRESET), dict(job.get("settings") or {}))
    local_copy = job.get("local_copy")
    source = StackSource.open(job["stacks"], Path(local_copy) if local_copy else None)
    assigned = json.loads(Path(job["categories"]).read_bytes()) if job.get("categories") else None
    categories, names = lesion_categories(source, settings.categories, assigned)
    rows = np.flatnonzero(source.splits == "train")
    boxes = padded_boxes(source, rows, settings.box_padding_px)
    if not len(boxes):
        raise UsageError(
            "no stack of the training split has a lesion", where="stacks", next_step="ingest more patients"
        )
    settings = with_anchors(settings, boxes)
    detector = make_detector(settings, len(names))
    started = start_weights(detector.trunk, job.get("weights") or NO_WEIGHTS)
    result = fit(DetectorLearner(detector, source, rows, categories), settings.fit(), place)
    if place.rank != 0:
        return {}
    atomic_write_bytes(Path(job["out"]) / WEIGHTS_FILE, weights_bytes(detector.state_dict()))
    rows_val = marked_rows(source, "val")
    finder = Finder(detector, on_gpu=place.device.type == "cuda", precision=settings.precision)
    truth = truth_of(source, rows_val, settings.box_padding_px)
    scores = scores_for_card(truth, found_on(finder, source, rows_val)) if len(rows_val) else {}
    return {
        "settings": settings.record() | {"category_names": names},
        "data": _counts(source, rows, categories) | {"start": asdict(started)},
        "metrics": {
            **{f"{name}_val": value for name, value in scores.items()},
            "seconds": round(result.seconds, 3),
            "items_per_second": round(result.items_per_second, 3),
            "wait_share": round(result.wait_share, 4),
        },
        "steps_done": result.steps_done,
        "resumed_from": result.resumed_from,
        "curve": [[step, parts] for step, parts in result.curve],
    }


def _counts(source: StackSource, rows: NDArray[np.int64], categories: Mapping[str, int] | None) -> dict[str, Any]:
    lesions = [lesion for row in rows.tolist() for lesion in source.lesion_ids[row]]
    found: dict[str, Any] = {
        "stacks": len(source),
        "train_stacks": len(rows),
        "train_empty": sum(not source.lesion_ids[row] for row in rows.tolist()),
        "train_lesions": len(lesions),
        "train_patients": len(np.unique(source.patient_ids[rows].astype(str))),
    }
    if categories is not None:
        numbers = Counter(categories.get(lesion, -1) for lesion in lesions)
        found["train_by_category"] = {str(number): numbers[number] for number in sorted(numbers)}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Train in this process, without Ray; prints the metrics as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m trainers.detector.loop", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--stacks", required=True, help="URL or folder of the cache of stacks")
    parser.add_argument("--out", required=True, help="folder for weights, curve and checkpoints")
    parser.add_argument("--preset", choices=sorted(PRESETS), default=DEFAULT_PRESET)
    parser.add_argument("--weights", default=NO_WEIGHTS, help="of the backbone: imagenet, none or a file")
    parser.add_argument("--categories", type=Path, help='JSON file: {"names": […], "lesions": {lesion: number}}')
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON", help="any setting, as JSON")
    parser.add_argument("--device")
    given = parser.parse_args(arguments)
    try:
        changes = {name: json.loads(value) for name, _, value in (one.partition("=") for one in given.set)}
    except ValueError:
        parser.error("--set takes NAME=JSON, such as slices=9 or backbone='\"vgg16\"'")
    job = {
        "stacks": given.stacks,
        "out": given.out,
        "preset": given.preset,
        "settings": changes,
        "weights": given.weights,
        "categories": given.categories,
    }
    try:
        found = train(job, Alone(Path(given.out), given.device, progress_on_stderr("stacks")))
        atomic_write_json(Path(given.out) / RESULT_FILE, found)
    except LesionaryError as error:
        sys.stderr.write(f"{error.sentence}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(found["metrics"], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
