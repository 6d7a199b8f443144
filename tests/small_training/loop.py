"""A trainer as small as one can be, with the face that all have, and mishaps on demand."""

import json
import os
import signal
import time
from pathlib import Path

import torch
from small_learner import SmallLearner
from small_training.presets import settings_for

from lesionary.errors import TrainingError
from trainers.checkpoint import weights_bytes
from trainers.fitting import fit

ENTRY = "small_training.loop:train"

# Longer than any test.
_HANG_SECONDS = 3600.0


def train(job, place):
    """Fit the small learner.

    The job may ask for mishaps on the last worker: `fail`, an error of ours; `bug`, any other; `stop_at`, a step after
    whose checkpoint the worker stops by `stop` ("kill", "interrupt", or "hang" until it is killed), once: `stopped` is
    a file that says it did. `attempts` is a file with a line for each attempt.
    """
    # Written by the worker that fails: the others may be stopped before they come this far.
    if place.rank == place.world - 1 and "attempts" in job:
        with Path(job["attempts"]).open("a") as log:
            log.write(f"{os.getpid()}\n")
    _prepare_mishaps(job, place)
    settings = settings_for(job.get("preset", "smoke"), job.get("settings"))
    learner = SmallLearner(seed=settings.seed)
    done = fit(learner, settings.fit(), place)
    if place.rank == 0:
        Path(job["out"], "weights.safetensors").write_bytes(weights_bytes(learner.state_dict()))
        Path(job["out"], "curve.json").write_text(json.dumps(done.curve))
    start = job.get("weights")
    return {
        "settings": settings.record(),
        "data": {"start": Path(start).read_text() if start and Path(start).is_file() else start},
        "metrics": {"loss": sum(done.curve[-1][1].values())},
        "steps_done": done.steps_done,
        "resumed_from": done.resumed_from,
        "curve": done.curve,
        "world": place.world,
        "threads": torch.get_num_threads(),
    }


def _prepare_mishaps(job, place):
    last = place.rank == place.world - 1
    if last and "fail" in job:
        raise TrainingError(job["fail"], where="step 3", next_step="train otherwise")
    if last and "bug" in job:
        raise ZeroDivisionError(job["bug"])
    keep = place.save

    def save(folder, metrics):
        keep(folder, metrics)
        if last and metrics["step"] == job.get("stop_at") and not Path(job["stopped"]).exists():
            Path(job["stopped"]).touch()
            if job["stop"] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if job["stop"] == "hang":
                time.sleep(_HANG_SECONDS)
            raise KeyboardInterrupt

    place.save = save
