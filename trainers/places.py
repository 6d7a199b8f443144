"""Where a run lives: its device, its rank among the workers, and where its checkpoints and progress go.

`Alone` is one process with a folder. The place of a Ray worker is in `trainers/launch.py`.
"""

import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from lesionary.artifacts import atomic_write_json
from lesionary.errors import UnwritableError

# The one before the last survives whatever happens while the last is written or found damaged.
KEPT_CHECKPOINTS = 2

METRICS_FILE = "metrics.json"
_FOLDER = "checkpoints"
_NUMBER = re.compile(r"\d{1,12}")


@dataclass(frozen=True, slots=True)
class StepReport:
    """How far a run is."""

    step: int
    """Steps done."""
    steps: int
    parts: dict[str, float]
    """Mean of each loss part over the steps since the report before, over all workers."""
    loss: float
    items_per_second: float
    """Items of global batches; the first step of a process is left out."""
    seconds_left: float
    wait_share: float
    """Share of the time spent waiting for data; the first step of a process is left out."""


def progress_on_stderr(items: str) -> Callable[[StepReport], None]:
    """A listener that prints a line for each report; `items` is what a batch holds, as a person calls it."""

    def tell(report: StepReport) -> None:
        parts = ", ".join(f"{name} {value:.4f}" for name, value in report.parts.items())
        sys.stderr.write(
            f"step {report.step} of {report.steps}: {parts}; {report.items_per_second:.1f} {items}/s,"
            f" {report.seconds_left:.0f} s left\n"
        )

    return tell


class Place(Protocol):
    """What the loop needs to know of where it runs. Every worker calls `save` and `report` at the same steps."""

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""

    @property
    def world(self) -> int:
        """Number of workers; where it is more than 1, `torch.distributed` is ready."""

    @property
    def device(self) -> torch.device:
        """Where this worker computes."""

    def latest(self) -> Path | None:
        """Folder of the newest checkpoint of this run, readable here; None at the start."""

    def save(self, folder: Path | None, metrics: dict[str, Any]) -> None:
        """Keep a checkpoint: the folder's files are copied or moved. Workers other than 0 bring None."""

    def report(self, report: StepReport) -> None:
        """Tell how far the run is."""


class Alone:
    """One process. Checkpoints go to `<folder>/checkpoints/<step>/`, each whole or absent, the last two kept."""

    def __init__(
        self,
        folder: Path | None = None,
        device: torch.device | str | None = None,
        listener: Callable[[StepReport], None] | None = None,
    ) -> None:
        self.rank = 0
        self.world = 1
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._checkpoints = None if folder is None else folder / _FOLDER
        self._listener = listener

    def latest(self) -> Path | None:
        """The newest checkpoint."""
        return max(self._complete(), key=lambda path: int(path.name), default=None)

    def save(self, folder: Path | None, metrics: dict[str, Any]) -> None:
        """Copy a checkpoint beside the others under its step, then drop those that are not needed any more.

        Raises:
            UnwritableError: the run's folder takes no files.
        """
        if self._checkpoints is None or folder is None:
            return
        target = self._checkpoints / str(int(metrics["step"]))
        try:
            self._checkpoints.mkdir(parents=True, exist_ok=True)
            for leftover in self._checkpoints.glob(".*.part"):
                shutil.rmtree(leftover)
            temporary = self._checkpoints / f".{target.name}.{secrets.token_hex(4)}.part"
            shutil.copytree(folder, temporary)
            atomic_write_json(temporary / METRICS_FILE, metrics)
            _flush(temporary)
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
            for old in sorted(self._complete(), key=lambda path: int(path.name))[:-KEPT_CHECKPOINTS]:
                shutil.rmtree(old)
        except OSError as cause:
            raise UnwritableError(
                f"the checkpoint cannot be written ({cause.strerror or type(cause).__name__})",
                where=_FOLDER,
                next_step="check the folder, its space and your rights to it",
            ) from cause

    def report(self, report: StepReport) -> None:
        """Hand it to the listener."""
        if self._listener is not None:
            self._listener(report)

    def _complete(self) -> list[Path]:
        if self._checkpoints is None or not self._checkpoints.is_dir():
            return []
        return [path for path in self._checkpoints.iterdir() if _NUMBER.fullmatch(path.name)]


def _flush(folder: Path) -> None:
    """Onto the disk before the rename: a power cut must not leave a complete name on empty files."""
    for path in folder.iterdir():
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
