"""The Ray Data face of batch inference: a pool of actors, each with its model, and tasks that flow to whoever is free.

Each block is one task: a plan of some hundred bytes goes in, a small table comes back, and what the model looks at is
read by the actor itself from the lake or a cache. An actor that dies is replaced by Ray and its task run again; what
had come back is kept.
"""

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray.data
from ray.exceptions import RayError

from etl.inference import InferenceTask, ModelMaker
from etl.ingest_job import MOST_DEATHS, begin_work, deaths_counted, our_error, prepare_ray_data
from lesionary.errors import LesionaryError, UsageError
from lesionary.provenance import worker_contract


@dataclass(frozen=True, slots=True)
class ActorPool:
    """Runs inference on the connected Ray cluster; an `InferenceRunner`."""

    actors: int
    """Models at work at once."""
    cores: int = 1
    """Of each actor."""
    gpus: float = 0.0
    """Of each actor; a fraction lets several share one."""
    growing: bool = False
    """Whether the cluster may get what it lacks by itself; otherwise that is refused."""

    def __call__(self, tasks: Iterable[InferenceTask[Any, Any]], make_model: ModelMaker) -> Iterator[Any]:
        """Run tasks and yield their results as they finish.

        Raises:
            LesionaryError: a task, or making the model, raised it.
            UsageError: the cluster does not have what the actors need.
            InternalError: Ray itself gave up.
        """
        prepare_ray_data()
        rows = [{"task": pickle.dumps(task)} for task in tasks]
        if not rows:
            return
        self._require_room()
        with deaths_counted():
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Actor,
                fn_constructor_args=(pickle.dumps(make_model), worker_contract(networks=True)),
                batch_size=1,
                batch_format="numpy",
                concurrency=min(self.actors, len(rows)),
                num_cpus=self.cores,
                num_gpus=self.gpus or None,
                max_task_retries=MOST_DEATHS - 1,
            )
        try:
            for row in dataset.iter_rows():
                yield pickle.loads(row["result"])  # noqa: S301 (our own bytes, from our own workers)
        except (LesionaryError, RayError) as error:
            raise our_error(error) from error

    def _require_room(self) -> None:
        """Refuse what would wait for ever."""
        if self.growing:
            return
        there = ray.cluster_resources()
        for kind, unit, wanted in (("CPU", "cores", self.cores), ("GPU", "GPUs", self.gpus)):
            found = there.get(kind, 0.0)
            if wanted * self.actors > found + 1e-6:
                raise UsageError(
                    f"{self.actors} workers with {wanted:g} {unit} each need more than the cluster's {found:g}",
                    where="--workers, --gpus",
                    next_step="ask for fewer workers, or a smaller share of a GPU for each",
                )


class _Actor:
    """A model in a process of its own. It is made with the first task, so that its errors arrive as a task's do."""

    def __init__(self, make_model: bytes, contract: str) -> None:
        self._make_model = make_model
        self._contract = contract
        self._model: Any = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self._model is None:
            begin_work(self._contract)
            self._model = pickle.loads(self._make_model)()  # noqa: S301 (our own bytes, from our own driver)
        tasks: list[InferenceTask[Any, Any]] = [pickle.loads(task) for task in batch["task"]]  # noqa: S301 (ours)
        return {"result": [pickle.dumps(task.run(self._model)) for task in tasks]}
