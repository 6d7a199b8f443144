"""Training a run on Ray Train: the only builder of a `TorchTrainer`.

    a worker dies     the others are stopped, all start again and take up the newest checkpoint (`max_failures` times)
    the driver dies   its workers follow; the same command with --resume takes up the newest checkpoint
    an error of ours  is final: training the same again would end the same

Workers share each global batch, so their number changes neither the learning rate nor the curve. What is kept lies in
the run's folder. Ray's own list of checkpoints is told of each and never read: it is not written atomically, and it
would tie a run to Ray, and to its version.
"""

import contextlib
import logging
import os
import queue
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train import (
    Checkpoint,
    CheckpointConfig,
    CheckpointUploadMode,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    UserCallback,
    get_context,
)
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchTrainer, get_device
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lesionary.core_dumps import forbid_core_dumps
from lesionary.errors import InternalError, LesionaryError
from lesionary.provenance import require_same_contract, worker_contract
from trainers.board import Board
from trainers.node_addresses import NodeTorchConfig
from trainers.places import StepReport
from trainers.running import Listener, Outcome, Shelf, outcome_of, take_part
from trainers.runs import Run

# How often the driver looks for word, and Ray's controller for reports and deaths (2 s by itself: so long could a
# checkpoint have to wait).
_LOOK_SECONDS = 0.3
_ANSWER_SECONDS = 5.0
_CONTROLLER_LOOKS = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")

_RAY_SNAPSHOT = "checkpoint_manager_snapshot.json"

# Of a node with many cores: one thread prepares data, PyTorch has little use for more than these.
_MOST_THREADS = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workers:
    """How a training is spread over the connected cluster."""

    count: int = 1
    gpus: float = 0.0
    """GPUs of each; a fraction lets several share one."""
    max_failures: int = 2
    """How often lost workers are replaced."""
    threads: int = 0
    """PyTorch's threads in each; 0 = an equal share of the cores."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What every worker is told."""

    run: Run
    threads: int
    board: ActorHandle


def train_on_ray(run: Run, workers: Workers, listener: Listener | None = None) -> Outcome:
    """Train a run on the connected cluster, from its newest checkpoint if it has one.

    Args:
        run: driven by this process; its record names the trainer and the job.
        workers: how many, and with what.
        listener: told of progress, in this process.

    Raises:
        LesionaryError: the trainer raised it.
        InternalError: workers were lost more often than allowed, or Ray itself gave up.
    """
    # Handed on by Ray Train from the driver's environment to its controller.
    os.environ.setdefault(*_CONTROLLER_LOOKS)
    logging.getLogger("ray.train").setLevel(logging.ERROR)
    # It may be cut short where a driver was killed, and names checkpoints that were dropped since.
    run.forget_foreign(_RAY_SNAPSHOT)
    # Beside the driver: on another node it could be lost without it.
    beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = ray.remote(num_cpus=0, scheduling_strategy=beside)(Board).remote()
    threads = workers.threads or _threads_of_each(workers)
    order = _Order(run, threads, board)
    starts = _fit(_trainer(order, workers), order, listener)
    return outcome_of(run, restarts=max(0, starts - 1))


def _trainer(order: _Order, workers: Workers) -> TorchTrainer:
    storage, _, name = order.run.location.path.rpartition("/")
    resources: dict[str, float] = {"CPU": order.threads}
    if workers.gpus:
        resources["GPU"] = workers.gpus
    # NCCL refuses two workers on one GPU.
    alone_on_gpu = workers.gpus >= 1 or (workers.gpus > 0 and workers.count == 1)
    return TorchTrainer(
        _work,
        train_loop_config={"contract": worker_contract(networks=True), "order": order},
        torch_config=NodeTorchConfig(backend="nccl" if alone_on_gpu else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=workers.count, use_gpu=workers.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=name,
            storage_path=storage,
            storage_filesystem=order.run.location.filesystem,
            failure_config=FailureConfig(max_failures=workers.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=None),
            callbacks=[StopAtOurErrors()],
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _fit(trainer: TorchTrainer, order: _Order, listener: Listener | None) -> int:
    """Run the trainer and pass on word of its progress; gives the number of attempts."""
    failure: queue.SimpleQueue[BaseException] = queue.SimpleQueue()

    def fit() -> None:
        try:
            trainer.fit()
        except BaseException as error:  # noqa: BLE001 (raised below, in the main thread)
            failure.put(error)

    # Not in the main thread: there Ray would take interrupts for itself, and leave with code 0.
    fitting = threading.Thread(target=fit, name="ray-train", daemon=True)
    fitting.start()
    starts = 0
    while fitting.is_alive():
        fitting.join(_LOOK_SECONDS)
        starts = _pass_on(order.board, starts, listener)
    starts = _pass_on(order.board, starts, listener)
    if not failure.empty():
        raise _our_error(failure.get(), order.run.name)
    return starts


def _pass_on(board: ActorHandle, starts: int, listener: Listener | None) -> int:
    # Progress is not worth failing for.
    with contextlib.suppress(RayError):
        starts, word = ray.get(board.read.remote(), timeout=_ANSWER_SECONDS)
        if word is not None and listener is not None:
            listener(StepReport(**word))
    return starts


def _threads_of_each(workers: Workers) -> int:
    """The largest equal share of cores with which all workers find room on the cluster's nodes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for threads in range(_MOST_THREADS, 1, -1):
        room = 0.0
        for node in nodes:
            by_gpu = node.get("GPU", 0) // workers.gpus if workers.gpus else workers.count
            room += min(node.get("CPU", 0) // threads, by_gpu)
        if room >= workers.count:
            return threads
    return 1


class StopAtOurErrors(UserCallback):  # type: ignore[misc]
    """Makes errors of ours final, in Ray's controller, which would spend all its attempts on them."""

    def after_exception(self, run_context: object, worker_exceptions: Mapping[int, Exception]) -> None:  # noqa: ARG002
        """Raise what would come again at every attempt; an exception from here ends the training."""
        for error in worker_exceptions.values():
            if (ours := _ours_within(error)) is not None:
                raise ours


def _our_error(error: BaseException, run: str) -> LesionaryError:
    """The error of ours inside Ray's, or one that names what the workers met."""
    if (ours := _ours_within(error)) is not None:
        return ours
    _log.debug("what Ray Train raised", exc_info=error)
    met = [f"worker {rank}: {type(one).__name__}" for rank, one in getattr(error, "worker_failures", {}).items()]
    return InternalError(
        f"the training stopped ({', '.join(met) or type(error).__name__})",
        where=f"run {run}",
        next_step=f"its checkpoints are kept, the same command with --run {run} --resume goes on from the newest",
    )


def _ours_within(error: BaseException) -> LesionaryError | None:
    """The first error of ours in a chain of Ray's."""
    waiting: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while waiting:
        one = waiting.pop(0)
        # One that is Ray's as well says its whole traceback; the error itself is its cause.
        if isinstance(one, LesionaryError) and not isinstance(one, RayError):
            return one
        if one is None or one in seen:
            continue
        seen.append(one)
        waiting += [getattr(one, "cause", None), getattr(one, "controller_failure", None), one.__cause__]
        waiting += getattr(one, "worker_failures", {}).values()
    return None


def _work(config: dict[str, Any]) -> None:
    """What Ray runs in each worker."""
    # On a cluster that others started, workers have the limits of others.
    forbid_core_dumps()
    require_same_contract(config["contract"], f"Ray worker on node {ray.util.get_node_ip_address()}")
    order: _Order = config["order"]
    # Ray gives each worker one thread, whatever it was granted.
    torch.set_num_threads(order.threads)
    with tempfile.TemporaryDirectory(prefix="lesionary-") as scratch:
        take_part(order.run, RayPlace(Shelf(order.run, Path(scratch)), order.board))


class RayPlace:
    """The place of one Ray worker."""

    def __init__(self, shelf: Shelf, board: ActorHandle) -> None:
        self.rank: int = get_context().get_world_rank()
        self.world: int = get_context().get_world_size()
        self.device: torch.device = get_device()
        self._shelf = shelf
        self._board = board
        if self.rank == 0:
            board.started.remote()

    def latest(self) -> Path | None:
        """The newest checkpoint, the same one for all workers."""
        step = broadcast_from_rank_zero(self._shelf.newest() if self.rank == 0 else None)
        return None if step is None else self._shelf.folder(step)

    def save(self, folder: Path | None, metrics: dict[str, Any]) -> None:
        """Keep the first worker's checkpoint, then tell Ray Train of it: here all wait for each other."""
        kept = None
        if folder is not None:
            path = self._shelf.keep(folder, metrics)
            kept = Checkpoint(path, get_context().get_storage().storage_filesystem)
        ray.train.report(metrics, checkpoint=kept, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)

    def report(self, report: StepReport) -> None:
        """Leave word for the driver."""
        if self.rank == 0:
            self._board.post.remote(asdict(report))
