"""Training a run to its end: what every process does that takes part, and the plain way, in this process alone.

Every trainer has the same face, `train(job, place)`, and does not know where it runs; `trainers/launch.py` is the way
on Ray. What is kept goes into the run's folder and nowhere else.
"""

import importlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import torch

from lesionary.errors import InternalError, UsageError
from lesionary.models import hardware_record
from trainers.places import KEPT_CHECKPOINTS, Alone, Place, StepReport
from trainers.runs import Run, RunResult

Listener = Callable[[StepReport], None]


class Entry(Protocol):
    """The face of a trainer, such as `trainers.ssbr.loop:train`."""

    def __call__(self, job: Mapping[str, Any], place: Place) -> Mapping[str, Any]:
        """Train, write the weights into the folder job["out"], return what was measured, as JSON."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training a run came to."""

    returned: Mapping[str, Any]
    """What the trainer measured."""
    files: Mapping[str, str]
    """Names of the files that came out, and their SHA-256."""
    hardware: Mapping[str, Any]
    """Of the first worker."""
    restarts: int = 0
    """How often lost workers were replaced."""


def train_here(run: Run, device: str = "cpu", threads: int = 0, listener: Listener | None = None) -> Outcome:
    """Train a run in this process, from its newest checkpoint if it has one.

    Args:
        run: driven by this process; its record names the trainer and the job.
        device: PyTorch's name of where to compute.
        threads: PyTorch's threads; 0 = as it chooses.
        listener: told of progress.

    Raises:
        LesionaryError: the trainer raised it, or there is no such device.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("this machine has no GPU that PyTorch can use", where="--gpus", next_step="leave it out")
    if threads:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="lesionary-") as scratch:
        take_part(run, Here(device, Shelf(run, Path(scratch)), listener))
    return outcome_of(run)


def take_part(run: Run, place: Place) -> None:
    """What each worker does, however many there are: train, and the first one keeps what came out.

    Raises:
        LesionaryError: the trainer raised it, or the run names no trainer.
    """
    record = run.record()
    with tempfile.TemporaryDirectory(prefix="lesionary-") as folder:
        out, inputs = Path(folder, "out"), Path(folder, "inputs")
        out.mkdir()
        inputs.mkdir()
        job = {**record.job, **run.fetch_inputs(inputs), "out": str(out)}
        returned = _entry(record.entry)(job, place)
        if place.rank == 0:
            run.finish(out, {"trained": dict(returned), "hardware": hardware_record()})


def outcome_of(run: Run, restarts: int = 0) -> Outcome:
    """What a finished run came to.

    Raises:
        InternalError: it is not finished.
    """
    result: RunResult | None = run.result()
    if result is None:
        raise InternalError("the training ended without a result", where=f"run {run.name}")
    return Outcome(result.returned["trained"], result.files, result.returned["hardware"], restarts)


def _entry(name: str) -> Entry:
    module, _, function = name.partition(":")
    try:
        return cast("Entry", getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as cause:
        raise InternalError(f"the trainer {name} cannot be loaded ({cause})") from cause


class Shelf:
    """The checkpoints of a run, in a folder or in an object store."""

    def __init__(self, run: Run, scratch: Path) -> None:
        self._run = run
        self._scratch = scratch
        self._local = Alone(Path(run.location.path), "cpu") if run.location.is_local else None

    def newest(self) -> int | None:
        """Step of the newest checkpoint."""
        self._run.require_driver()
        if self._local is None:
            return self._run.newest_step()
        folder = self._local.latest()
        return None if folder is None else int(folder.name)

    def folder(self, step: int) -> Path:
        """A checkpoint, readable here."""
        if self._local is None:
            return self._run.fetch_checkpoint(step, self._scratch)
        return Path(self._run.checkpoint_path(step))

    def keep(self, folder: Path, metrics: dict[str, Any]) -> str:
        """Keep a checkpoint, whole; gives its path in the lake's file system."""
        self._run.require_driver()
        if self._local is None:
            self._run.keep_checkpoint(folder, metrics, KEPT_CHECKPOINTS)
        else:
            self._local.save(folder, metrics)
        return self._run.checkpoint_path(int(metrics["step"]))


class Here:
    """The place of a training in one process, without Ray."""

    rank = 0
    world = 1

    def __init__(self, device: str, shelf: Shelf, listener: Listener | None = None) -> None:
        self.device = torch.device(device)
        self._shelf = shelf
        self._listener = listener

    def latest(self) -> Path | None:
        """The newest checkpoint."""
        step = self._shelf.newest()
        return None if step is None else self._shelf.folder(step)

    def save(self, folder: Path | None, metrics: dict[str, Any]) -> None:
        """Keep a checkpoint."""
        if folder is not None:
            self._shelf.keep(folder, metrics)

    def report(self, report: StepReport) -> None:
        """Tell the listener."""
        if self._listener is not None:
            self._listener(report)
