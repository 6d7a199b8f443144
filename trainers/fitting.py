"""The one training loop: whatever is trained, on a CPU, a GPU or any number of workers, runs through `fit`.

    take the batch made meanwhile  →  begin the next one  →  forward, backward, average over workers
      →  refuse what is not finite  →  step  →  report, checkpoint

Exact: the random numbers of a step come from (seed, step, rank), so a run that was killed goes on from its checkpoint
as if nothing had happened: on the same machine with the same number of threads, bit for bit. Several workers share one
global batch and average their gradients, so their number changes the order of sums and nothing else; the learning rate
belongs to the global batch and is not scaled with workers.

Settings are in `trainers/fit_settings.py`, the learner's interface in `trainers/learner.py`, places in
`trainers/places.py`; all are re-exported here.
"""

import contextlib
import dataclasses
import json
import math
import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lesionary.errors import ArtifactError, TrainingError, UsageError
from trainers.checkpoint import TrainingState, load_state, not_finite, pack_training, save_state, unpack_training
from trainers.fit_settings import FREE_SETTINGS, FitSettings
from trainers.learner import Learner, Share, step_generator
from trainers.places import Alone, Place, StepReport
from trainers.prefetch import Prefetcher, to_device
from trainers.schedule import rate_factor

__all__ = [
    "Alone", "FitResult", "FitSettings", "Learner", "Place", "Share", "StepReport", "fit", "step_generator",
]  # fmt: skip

Curve = list[tuple[int, dict[str, float]]]


@dataclass(frozen=True, slots=True)
class FitResult:
    """What a run came to."""

    steps_done: int
    curve: Curve
    """Steps done, and each part's mean since the entry before, over all workers."""
    seconds: float
    """Of the whole run, the time before a resume included."""
    wait_share: float
    """Share of this process's time spent waiting for data, its first step left out."""
    resumed_from: int | None
    """Steps that were done when this process took over."""
    items_per_second: float
    """Of this process, its first step left out."""


def fit(learner: Learner, settings: FitSettings, place: Place) -> FitResult:
    """Train a learner, from the place's newest checkpoint where there is one.

    Args:
        learner: moved to the place's device, and left there trained.
        settings: how.
        place: where; every worker calls this with an equal learner.

    Raises:
        TrainingError: a loss part, gradient or weight is not finite; the learner stands as before that step.
        UsageError: workers do not divide the global batch, or the checkpoint is of other settings.
        ArtifactError: the checkpoint is damaged or another model's.
    """
    with _reproducible(settings, place.device):
        run = _Run(learner, settings, place)
        try:
            return run.finish()
        finally:
            run.prefetcher.close()


class _Run:
    """One process's part of a run."""

    def __init__(self, learner: Learner, settings: FitSettings, place: Place) -> None:
        self.settings = settings
        self.place = place
        self.share = Share(place.rank, place.world)
        if learner.shared_units() % place.world:
            raise UsageError(
                f"{place.world} workers cannot share a batch of {learner.shared_units()} equally",
                next_step="choose a number of workers that divides it",
            )
        self.learner = learner.to(place.device)
        if settings.channels_last:
            self.learner.to(memory_format=torch.channels_last)
        self.learner.train()
        self.named = {name: one for name, one in learner.named_parameters() if one.requires_grad}
        self.optimizer = _optimizer(settings, list(self.named.values()))
        # Not `self`: a run that refers to itself keeps its network's copies and buffers until Python collects cycles.
        share = self.share
        self.prefetcher = Prefetcher(lambda step: learner.batch(step, share), place.device)
        self.curve: Curve = []
        self.window: dict[str, list[float]] = {}
        self.seconds_before = 0.0
        self.resumed_from: int | None = None
        self._ready: Any = None
        self.first_step = self._restore()
        if settings.compile:
            for module in learner.compiled_modules():
                module.compile()
        # Gradients are averaged while the backward pass still runs; buffers are never synchronised (no BatchNorm).
        self.model: nn.Module = (
            DistributedDataParallel(learner, broadcast_buffers=False, gradient_as_bucket_view=True)
            if place.world > 1
            else learner
        )
        self.began_s = time.perf_counter()
        self.clock_s = self.began_s
        self.clock_step = self.first_step
        self.clock_waited_s = 0.0

    def finish(self) -> FitResult:
        """All steps that are left."""
        settings = self.settings
        if self.first_step < settings.steps:
            self._begin()
        for step in range(self.first_step, settings.steps):
            batch, self._ready = self._ready, None
            if step + 1 < settings.steps:
                self.prefetcher.start(step + 1)
            self._note(self._step(step, batch))
            if step + 1 < settings.steps:
                self._ready = self.prefetcher.take()
            self._after(step)
            if step == self.first_step:
                # The first step pays for warming up and has no batch made meanwhile.
                self.clock_s, self.clock_step = time.perf_counter(), step + 1
                self.clock_waited_s = self.prefetcher.waited_s
        return FitResult(
            steps_done=max(self.first_step, settings.steps),
            curve=self.curve,
            seconds=self.seconds_before + time.perf_counter() - self.began_s,
            wait_share=self._wait_share(),
            resumed_from=self.resumed_from,
            items_per_second=self._items_per_second(settings.steps),
        )

    def _begin(self) -> None:
        self.prefetcher.start(self.first_step)
        self._ready = self.prefetcher.take()
        if self.resumed_from is not None:
            # The batch just drawn belongs to the state before the last step's update; see `_after`.
            self.learner.load_extra_state(self._next_extra)

    def _step(self, step: int, batch: Any) -> dict[str, float]:
        """One optimizer step; the global mean of each loss part."""
        settings = self.settings
        factor = rate_factor(
            step,
            steps=settings.steps,
            schedule=settings.schedule,
            milestones=settings.milestones,
            decay=settings.decay,
            warmup_steps=settings.warmup_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * factor
        batch = to_device(batch, self.place.device, channels_last=settings.channels_last)
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._forward(self.model, step, batch)
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
        if step == self.first_step:
            self._refuse_idle_parameters()
        gradients = [one.grad for one in self.named.values() if one.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        values = self._over_workers(parts)
        if not all(map(math.isfinite, values.values())):
            raise _not_a_number(f"the loss part {', '.join(_spoilt(values))}", step)
        if not math.isfinite(float(norm)):
            raise _not_a_number(self._blame_gradient(step, batch), step)
        if settings.clip_norm is not None:
            nn.utils.clip_grads_with_norm_(list(self.named.values()), settings.clip_norm, norm)
        self.optimizer.step()
        return values

    def _forward(self, model: nn.Module, step: int, batch: Any) -> dict[str, Tensor]:
        torch.manual_seed(int(step_generator(self.settings.seed, step, self.share.rank).integers(2**62)))
        mixed = self.settings.precision == "bf16"
        with torch.autocast(self.place.device.type, torch.bfloat16, enabled=mixed):
            parts: dict[str, Tensor] = model(batch)
        return {name: parts[name].float() for name in sorted(parts)}

    def _over_workers(self, parts: dict[str, Tensor]) -> dict[str, float]:
        """Means over all workers; what is no number on one of them becomes so on all, and all stop together."""
        values = torch.stack([part.detach() for part in parts.values()])
        if self.share.world > 1:
            dist.all_reduce(values)
            values /= self.share.world
        return dict(zip(parts, values.tolist(), strict=True))

    def _refuse_idle_parameters(self) -> None:
        idle = [name for name, one in self.named.items() if one.grad is None]
        if idle:
            more = f" and {len(idle) - 1} more take" if len(idle) > 1 else " takes"
            raise TrainingError(
                f"the weight {idle[0]}{more} no part in the loss", where="training", next_step="freeze what is not used"
            )

    def _blame_gradient(self, step: int, batch: Any) -> str:
        """Which loss parts' gradients are not finite, each computed by itself; called on all workers."""
        names = list(self._forward(self.learner, step, batch))
        blamed = torch.zeros(len(names), device=self.place.device)
        for at, name in enumerate(names):
            part = self._forward(self.learner, step, batch)[name]
            if part.requires_grad:
                gradients = torch.autograd.grad(part, list(self.named.values()), allow_unused=True)
                blamed[at] = any(not bool(torch.isfinite(one).all()) for one in gradients if one is not None)
        if self.share.world > 1:
            dist.all_reduce(blamed)
        guilty = [name for name, count in zip(names, blamed.tolist(), strict=True) if count]
        weight = next(
            (name for name, one in self.named.items() if one.grad is not None and not bool(one.grad.isfinite().all())),
            "the sum over all weights",
        )
        return f"the gradient of the loss part {', '.join(guilty) or ' + '.join(names)} (first at {weight})"

    def _note(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            window = self.window.setdefault(name, [0.0, 0.0])
            window[0] += value
            window[1] += 1

    def _after(self, step: int) -> None:
        """What follows a step, while no batch is being made.

        The next batch was drawn from the sampling state before this step's update. A checkpoint therefore keeps the
        state on both sides of the update: the first to draw that batch again, the second to go on with.
        """
        done = step + 1
        every = self.settings.checkpoint_every
        is_checkpoint = every > 0 and (done % every == 0 or done == self.settings.steps)
        drawn_from = _plain(self.learner.extra_state()) if is_checkpoint else {}
        self.learner.after_step(step, self.share)
        if done % self.settings.log_every == 0 or done == self.settings.steps:
            self._report(done)
        if is_checkpoint:
            self._checkpoint(done, {"drawn_from": drawn_from, "next": _plain(self.learner.extra_state())})

    def _report(self, done: int) -> None:
        parts = {name: total / count for name, (total, count) in self.window.items()}
        self.window = {}
        self.curve.append((done, parts))
        rate = self._items_per_second(done)
        left = (self.settings.steps - done) * self.learner.global_batch()
        self.place.report(
            StepReport(
                step=done,
                steps=self.settings.steps,
                parts=parts,
                loss=sum(parts.values()),
                items_per_second=rate,
                seconds_left=left / rate if rate else 0.0,
                wait_share=self._wait_share(),
            )
        )

    def _checkpoint(self, done: int, extra: dict[str, Any]) -> None:
        # Every worker looks for itself, so that all stop together.
        if spoilt := not_finite(self.learner.state_dict()):
            raise _not_a_number(f"the weight {spoilt}", done - 1)
        last = self.curve[-1][1] if self.curve else {}
        metrics = {"step": done, "loss": sum(last.values()), **{f"loss_{name}": value for name, value in last.items()}}
        if self.place.rank != 0:
            self.place.save(None, metrics)
            return
        tensors, record = pack_training(self.learner, self.optimizer, TrainingState(done, extra))
        record |= {
            "settings": _plain(dataclasses.asdict(self.settings)),
            "global_batch": self.learner.global_batch(),
            "curve": self.curve,
            "window": self.window,
            "seconds": self.seconds_before + time.perf_counter() - self.began_s,
        }
        with tempfile.TemporaryDirectory(prefix="lesionary-") as folder:
            save_state(Path(folder), tensors, record)
            self.place.save(Path(folder), metrics)

    def _restore(self) -> int:
        """Take up the newest checkpoint; the steps already done."""
        folder = self.place.latest()
        if folder is None:
            return 0
        where = f"checkpoint {folder.name}"
        tensors, record = load_state(folder)
        self._refuse_other_settings(record, where)
        state = unpack_training(self.learner, self.optimizer, tensors, record, where)
        try:
            self.curve = [(int(step), dict(parts)) for step, parts in record["curve"]]
            self.window = {name: list(sums) for name, sums in record["window"].items()}
            self.seconds_before = float(record["seconds"])
            drawn_from, self._next_extra = dict(state.extra["drawn_from"]), dict(state.extra["next"])
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise ArtifactError("the record is not that of a run", where=where, next_step="train again") from cause
        self.learner.load_extra_state(drawn_from)
        self.resumed_from = state.steps_done
        return state.steps_done

    def _refuse_other_settings(self, record: dict[str, Any], where: str) -> None:
        here = _plain(dataclasses.asdict(self.settings)) | {"global_batch": self.learner.global_batch()}
        before = record.get("settings")
        there = (before if isinstance(before, dict) else {}) | {"global_batch": record.get("global_batch")}
        for name in sorted(set(here) - FREE_SETTINGS):
            if here[name] != there.get(name):
                raise UsageError(
                    f"the run was begun with {name} = {there.get(name)}, not {here[name]}",
                    where=where,
                    next_step="go on with the same settings, or begin a run under another name",
                )

    def _wait_share(self) -> float:
        spent = time.perf_counter() - self.clock_s
        return (self.prefetcher.waited_s - self.clock_waited_s) / spent if spent > 0 else 0.0

    def _items_per_second(self, done: int) -> float:
        steps, since = done - self.clock_step, self.clock_s
        spent = time.perf_counter() - since
        return steps * self.learner.global_batch() / spent if spent > 0 else 0.0


def _optimizer(settings: FitSettings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if not parameters:
        raise UsageError("there is nothing to train: every weight is frozen")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, settings.learning_rate, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    return torch.optim.AdamW(parameters, settings.learning_rate, weight_decay=settings.weight_decay)


@contextlib.contextmanager
def _reproducible(settings: FitSettings, device: torch.device) -> Iterator[None]:
    """Our own random state and deterministic operations inside; the caller's as they were afterwards."""
    gpus = [torch.cuda.current_device() if device.index is None else device.index] if device.type == "cuda" else []
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    if gpus and settings.deterministic:
        # Read when the library is first used; without it, its products may vary from run to run.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with torch.random.fork_rng(gpus), warnings.catch_warnings():
        # Some have no deterministic form on a GPU: known, and said in docs/decisions/0011.
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
        torch.use_deterministic_algorithms(settings.deterministic, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        try:
            yield
        finally:
            torch.utils.deterministic.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
            torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _spoilt(values: dict[str, float]) -> list[str]:
    return [name for name, value in values.items() if not math.isfinite(value)]


def _not_a_number(what: str, step: int) -> TrainingError:
    return TrainingError(
        f"{what} is not finite",
        where=f"step {step}",
        next_step="train with a lower learning rate, a warm-up or clipped gradients, or in fp32",
    )


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A copy as JSON would bring it back."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    return copy
