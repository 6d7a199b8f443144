"""How a training is put together: inputs through etl, a run in the lake, workers, and the model that comes of it.

Every step is found done when it is done: caches are kept, a run goes on from its checkpoint, a finished run is only
published, a published one only named.
"""

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import human_seconds, live_line, note
from cli.runners import Runners
from cli.training_inputs import Show, Trainer, TrainerSettings, start_weights
from cli.training_labels import land_labels
from lesionary.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lesionary.lake import Lake
    from lesionary.models import ModelCard
    from lesionary.settings import TrainSettings
    from trainers.places import StepReport
    from trainers.running import Outcome
    from trainers.runs import Run, RunRecord

# Where nobody watches a live line, a line is printed this often.
_PRINT_SECONDS = 60.0

_WEIGHTS, _CURVE = "weights.safetensors", "curve.json"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the person typed; None = not typed."""

    preset: str | None = None
    changes: Mapping[str, object | None] = field(default_factory=dict)
    """Settings of the trainer that have an option of their own."""
    pairs: Sequence[str] = ()
    """More of them, as NAME=VALUE."""
    weights: str | None = None
    name: str | None = None
    run: str | None = None
    resume: bool = False
    workers: int | None = None
    gpus: float | None = None
    threads: int | None = None
    max_failures: int | None = None
    ray_address: str | None = None
    config: Path | None = None

    def launch_flags(self) -> dict[str, object | None]:
        """Those of `TrainSettings`."""
        return {name: getattr(self, name) for name in ("preset", "workers", "gpus", "threads", "max_failures")}


def train(trainer: Trainer, lake_url: str, wish: Wish) -> "ModelCard":
    """Train what is wished for, and publish it.

    Raises:
        LesionaryError: something is missing, wrong, or went wrong; one line says what.
    """
    from lesionary.lake import Lake
    from lesionary.models import find_model
    from lesionary.settings import TrainSettings, resolve
    from trainers.runs import require_torch

    require_torch()
    resolved = resolve(
        TrainSettings, "train", flags=wish.launch_flags(), environment=os.environ, config_file=wish.config
    )
    how = resolved.value
    if wish.resume and wish.run is None:
        raise UsageError("say which run to go on with", where="--resume", next_step="add --run NAME")
    lake = Lake.open(lake_url)
    with ExitStack() as session, live_line() as show:
        runners = Runners(session, 0, wish.ray_address, at_least=how.workers)
        if _on_ray(how, wish):
            # A cluster that does not answer is said before anything is made.
            show("connecting to Ray")
            runners.connect()
        run = _resumed(trainer, lake, wish) if wish.resume else _begun(trainer, lake, wish, how, runners, show)
        session.enter_context(run.driven())
        if (model_id := run.published()) is not None:
            note(f"run {run.name} is finished: its model is {model_id}")
            card = find_model(lake, model_id)
        else:
            outcome = _outcome(run, how, wish, runners, show)
            show("publishing the model")
            card = _published(lake, run, outcome, how)
        # After publishing, and found done when it is done: a driver may be killed in between.
        land_labels(lake, card)
        return card


def _on_ray(how: "TrainSettings", wish: Wish) -> bool:
    return how.workers > 1 or wish.ray_address is not None


def _begun(trainer: Trainer, lake: "Lake", wish: Wish, how: "TrainSettings", runners: Runners, show: Show) -> "Run":
    """A new run, with its inputs made."""
    from lesionary.models import checked_model_name, run_folder
    from trainers.runs import Run, RunRecord, new_run_name

    name = checked_model_name(wish.name or trainer.kind)
    run_name = wish.run or new_run_name(trainer.kind)
    location = run_folder(lake, run_name)
    if Run(run_name, location).exists():
        # Before the caches are made: they may take long.
        raise Run.taken(run_name)
    settings, origins = _settings(trainer, how.preset, wish)
    start, start_bytes, started_from = start_weights(lake, wish.weights)
    prepared = trainer.prepare(lake, settings, runners.choose, show)
    record = RunRecord(
        kind=trainer.kind,
        entry=trainer.entry,
        job={**prepared.job, **start, "preset": how.preset, "settings": settings.record()},
        about={
            "name": name,
            "preset": how.preset,
            "weights": wish.weights,
            "origins": origins,
            "lake": dict(prepared.lake),
            "data": {**prepared.data, "started_from": started_from},
            "seed": settings.seed,
        },
    )
    return Run.begin(run_name, location, record, {**start_bytes, **prepared.files})


def _settings(trainer: Trainer, preset: str, wish: Wish) -> tuple[TrainerSettings, dict[str, str]]:
    """The trainer's settings, and where those came from that are not the preset's."""
    from lesionary.settings import given_settings, parsed_flags

    flags = {**wish.changes, **parsed_flags(trainer.settings, wish.pairs, "--set")}
    given, origins = given_settings(
        trainer.settings, trainer.kind, flags=flags, environment=os.environ, config_file=wish.config
    )
    return trainer.presets.settings_for(preset, given), {name: origins[name] for name in given}


def _resumed(trainer: Trainer, lake: "Lake", wish: Wish) -> "Run":
    """A run that was begun, if what was typed does not ask for another one.

    Raises:
        UsageError: there is none, it trains something else, or with other settings.
    """
    from lesionary.models import run_folder, train_word
    from lesionary.provenance import code_fingerprint
    from trainers.runs import Run

    name = wish.run or ""
    run = Run.resume(name, run_folder(lake, name))
    record = run.record()
    if record.kind != trainer.kind:
        raise UsageError(
            f"run {name} trains {record.kind}",
            where="--run",
            next_step=f"use `lesionary train {train_word(record.kind)}`",
        )
    for setting, before, now in _asked_otherwise(trainer, record, wish):
        raise UsageError(
            f"run {name} was begun with {setting} = {before}, not {now}",
            where="--resume",
            next_step="go on with the same settings, or begin a run under another name",
        )
    if record.code != code_fingerprint():
        note(f"run {name} was begun with other code ({record.code}); this is {code_fingerprint()}")
    return run


def _asked_otherwise(trainer: Trainer, record: "RunRecord", wish: Wish) -> "Iterator[tuple[str, object, object]]":
    from lesionary.settings import parsed_flags

    typed = {**wish.changes, **parsed_flags(trainer.settings, wish.pairs, "--set")}
    pairs = [(name, record.job["settings"].get(name), value) for name, value in typed.items()]
    pairs += [(name, record.about.get(name), getattr(wish, name)) for name in ("preset", "weights", "name")]
    for name, before, now in pairs:
        if now is not None and json.loads(json.dumps(now)) != before:
            yield name, before, now


def _outcome(run: "Run", how: "TrainSettings", wish: Wish, runners: Runners, show: Show) -> "Outcome":
    """What the run came to: trained now, or before."""
    from trainers.running import outcome_of, train_here

    if run.result() is not None:
        return outcome_of(run)
    with _kept(run), _Watcher(show) as watcher:
        if not _on_ray(how, wish):
            gpus = _gpus_here() if how.gpus is None else how.gpus
            return train_here(run, "cuda" if gpus else "cpu", how.threads, watcher.tell)
        show(f"starting {how.workers} workers on Ray")
        from trainers.launch import Workers, train_on_ray

        gpus = _gpus_on_ray(how, own_cluster=runners.on_this_machine)
        workers = Workers(how.workers, gpus, how.max_failures, how.threads)
        return train_on_ray(run, workers, watcher.tell)


@contextmanager
def _kept(run: "Run") -> "Iterator[None]":
    note(f"run {run.name}")
    try:
        yield
    except KeyboardInterrupt:
        note(f"run {run.name} is kept: the same command with --run {run.name} --resume goes on with it")
        raise


def _gpus_here() -> float:
    import torch

    return float(torch.cuda.is_available())


def _gpus_on_ray(how: "TrainSettings", *, own_cluster: bool) -> float:
    """GPUs of each worker.

    Raises:
        UsageError: this machine has fewer than are wanted; a cluster that was named may yet grow.
    """
    from cli.cluster import cluster_gpus

    there = cluster_gpus()
    if how.gpus is None:
        return float(there >= how.workers)
    if own_cluster and how.gpus * how.workers > there:
        raise UsageError(
            f"{how.workers} workers with {how.gpus:g} GPUs each need more than the {there:g} of this machine",
            where="--gpus",
            next_step="ask for fewer, or name a cluster with --ray-address",
        )
    return how.gpus


class _Watcher:
    """Shows progress: on the live line, and now and then in print where there is no terminal."""

    def __init__(self, show: Show) -> None:
        self._show = show
        self._printed = time.monotonic()

    def __enter__(self) -> "_Watcher":
        return self

    def __exit__(self, *_: object) -> None:
        self._show("")

    def tell(self, report: "StepReport") -> None:
        """Take word of progress."""
        line = progress_line(report)
        self._show(line)
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._printed >= _PRINT_SECONDS:
            self._printed = now
            note(line)


def progress_line(report: "StepReport") -> str:
    """Such as "step 40 of 1500: loss 0.694 (distance 0.003, order 0.691), 212 items/s, 3 min 10 s left"."""
    parts = ", ".join(f"{name} {value:.4g}" for name, value in report.parts.items())
    waiting = f", {report.wait_share:.0%} waiting for data" if report.wait_share >= 0.05 else ""
    return (
        f"step {report.step} of {report.steps}: loss {report.loss:.4g} ({parts}), "
        f"{report.items_per_second:.3g} items/s, {human_seconds(report.seconds_left)} left{waiting}"
    )


def _published(lake: "Lake", run: "Run", outcome: "Outcome", how: "TrainSettings") -> "ModelCard":
    """The model of a finished run: the one there is, where a driver was killed before it could say so."""
    from lesionary.models import ModelDraft, list_models, publish

    about = run.record().about
    for card in list_models(lake):
        if card.hardware.get("run") == run.name and card.created_at >= run.record().created_at:
            run.set_published(card.model_id)
            return card
    returned = dict(outcome.returned)
    files = {name: run.read_final(name) for name in outcome.files if name != _WEIGHTS}
    if "curve" in returned:
        files.setdefault(_CURVE, json.dumps(returned["curve"]).encode())
    draft = ModelDraft(
        kind=run.record().kind,
        preset=about["preset"],
        settings={**returned.get("settings", {}), "origins": about["origins"]},
        lake=about["lake"],
        data={**about["data"], **returned.get("data", {})},
        metrics=returned.get("metrics", {}),
        seed=about["seed"],
        hardware={**outcome.hardware, "workers": how.workers, "restarts": outcome.restarts, "run": run.name},
        notes=returned.get("notes", []),
    )
    card = publish(lake, about["name"], draft, run.read_final(_WEIGHTS), files)
    run.set_published(card.model_id)
    return card
