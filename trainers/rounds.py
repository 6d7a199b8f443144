"""Rounds of one run: a training, new labels out of its vectors, another training.

A round's labels are drawn up once, by worker 0, handed to the others, and stored in each of the round's checkpoints,
with what the rounds before came to: a run that is taken up again goes on in its round and tells the whole story. Steps
of later rounds are counted on from the earlier ones', so that a run's newest checkpoint is that of its furthest round.

May import: lesionary, numpy, torch, trainers.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from lesionary.artifacts import atomic_file, atomic_write_bytes
from lesionary.errors import ArtifactError
from lesionary.json_text import parse_json
from trainers.checkpoint import weights_bytes, weights_from_bytes
from trainers.fitting import Place, StepReport

HISTORY_FILE = "rounds.safetensors"
LABELS_FILE = "labels.arrow"

LABELS_SCHEMA = pa.schema(
    [
        pa.field("lesion_id", pa.string(), nullable=False),
        pa.field("round", pa.int32(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
"""What a training says of its lesions; the command takes it into the lake's table of labels."""

_STEP = "step"


@dataclass(frozen=True, slots=True)
class RoundLabels:
    """The labels that a round trains on."""

    number: int
    """0 for the first training, 1 for that after the first refinement."""
    types: NDArray[np.int64]
    """One a training row; -1 where there is none."""
    probability: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class History:
    """A run up to and with its present round: everything that its checkpoints must keep beside the loop's state."""

    labels: tuple[RoundLabels, ...]
    """Of each round."""
    records: tuple[dict[str, Any], ...]
    """What was drawn up for each round, as JSON can hold it."""
    curve: tuple[list[Any], ...] = ()
    """Of the rounds before this one, steps counted through."""
    seconds: float = 0.0
    """Of the rounds before this one."""

    @property
    def present(self) -> RoundLabels:
        """The round that is being trained."""
        return self.labels[-1]

    def write(self, folder: Path) -> None:
        """Into a checkpoint's folder."""
        told = {"records": self.records, "curve": self.curve, "seconds": self.seconds}
        tensors = {
            "types": torch.from_numpy(np.stack([one.types for one in self.labels])),
            "probability": torch.from_numpy(np.stack([one.probability for one in self.labels])),
            "told": torch.frombuffer(bytearray(json.dumps(told).encode()), dtype=torch.uint8),
        }
        atomic_write_bytes(folder / HISTORY_FILE, weights_bytes(tensors))

    @classmethod
    def read(cls, folder: Path, count: int) -> "History":
        """Out of a checkpoint's folder.

        Raises:
            ArtifactError: the file is not there, or not of so many lesions.
        """
        try:
            held = weights_from_bytes((folder / HISTORY_FILE).read_bytes(), f"checkpoint {folder.name}")
            types, probability = held["types"], held["probability"]
            told = parse_json(held["told"].numpy().tobytes())
            records, curve = tuple(map(dict, told["records"])), tuple(map(list, told["curve"]))
            seconds = float(told["seconds"])
        except (ArtifactError, OSError, ValueError, OverflowError, KeyError, TypeError) as cause:
            raise _refused(folder) from cause
        if (types.dtype, probability.dtype) != (torch.int64, torch.float64):
            raise _refused(folder)
        if types.shape != probability.shape or types.shape != (len(records), count):
            raise _refused(folder)
        pairs = zip(types.numpy(), probability.numpy(), strict=True)
        labels = tuple(RoundLabels(at, *pair) for at, pair in enumerate(pairs))
        return cls(labels, records, curve, seconds)


class RoundPlace:
    """A run's place as one of its rounds sees it."""

    def __init__(self, place: Place, history: History, steps: Sequence[int]) -> None:
        """Look at a place.

        Args:
            place: of the whole run.
            history: up to the round.
            steps: of each round.
        """
        self._place = place
        self._history = history
        self._before = sum(steps[: history.present.number])
        self._all = sum(steps)

    @property
    def rank(self) -> int:
        """As of the run."""
        return self._place.rank

    @property
    def world(self) -> int:
        """As of the run."""
        return self._place.world

    @property
    def device(self) -> torch.device:
        """As of the run."""
        return self._place.device

    def latest(self) -> Path | None:
        """The newest checkpoint, if it is of this round."""
        folder = self._place.latest()
        if folder is None:
            return None
        present = self._history.present
        return folder if History.read(folder, len(present.types)).present.number == present.number else None

    def save(self, folder: Path | None, metrics: dict[str, Any]) -> None:
        """Keep a checkpoint with the round's labels in it."""
        if folder is not None:
            self._history.write(folder)
        number = self._history.present.number
        self._place.save(folder, {**metrics, _STEP: metrics[_STEP] + self._before, "round": number})

    def report(self, report: StepReport) -> None:
        """Count on from the rounds before."""
        left = report.seconds_left
        if report.items_per_second and report.step:
            pace = left / max(report.steps - report.step, 1)
            left += pace * (self._all - self._before - report.steps)
        self._place.report(replace(report, step=report.step + self._before, steps=self._all, seconds_left=left))


def handed_round(place: Place, labels: RoundLabels | None, count: int, number: int) -> RoundLabels:
    """Worker 0's labels, on every worker.

    Args:
        place: the run's.
        labels: worker 0's; None elsewhere.
        count: lesions.
        number: the round.
    """
    if place.world == 1:
        if labels is None:
            raise ValueError("worker 0 has the labels")
        return labels
    device = place.device if dist.get_backend() == "nccl" else torch.device("cpu")
    types = torch.zeros(count, dtype=torch.int64, device=device)
    probability = torch.zeros(count, dtype=torch.float64, device=device)
    if labels is not None:
        types.copy_(torch.from_numpy(labels.types))
        probability.copy_(torch.from_numpy(labels.probability))
    dist.broadcast(types, 0)
    dist.broadcast(probability, 0)
    return RoundLabels(number, types.cpu().numpy(), probability.cpu().numpy())


def label_rows(
    lesion_ids: Sequence[str] | NDArray[np.object_],
    number: int,
    words: Sequence[str],
    scores: NDArray[np.floating],
) -> pa.Table:
    """A round's labels as rows of `LABELS_SCHEMA`."""
    columns = [
        pa.array(lesion_ids, pa.string()),
        pa.array(np.full(len(lesion_ids), number), pa.int32()),
        pa.array(words, pa.string()),
        pa.array(scores, pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=LABELS_SCHEMA)


def write_labels(path: Path, rows: pa.Table) -> None:
    """Labels into a file beside the weights, whole or not at all."""
    with atomic_file(path) as sink, pa.ipc.new_file(sink, LABELS_SCHEMA) as writer:
        writer.write_table(rows)


def _refused(folder: Path) -> ArtifactError:
    return ArtifactError(
        "the checkpoint holds no labels of these lesions",
        where=f"checkpoint {folder.name}",
        next_step="begin the run again",
    )
