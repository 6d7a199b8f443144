"""Where a command's work runs: this process for little of it, Ray for more or when a cluster was named."""

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etl.inference import InferenceRunner
    from etl.running import Runner

# Starting Ray takes 3 to 7 seconds: less than this is done sooner without it (docs/decisions/0005).
_WORTH_RAY_BYTES = 64 << 20


class Runners:
    """Starts or joins Ray at most once, when it is first needed, and leaves it with the session."""

    def __init__(self, session: ExitStack, workers: int, ray_address: str | None, at_least: int = 0) -> None:
        """Nothing is started yet.

        Args:
            session: what Ray is left with.
            workers: how many tasks at once; 0 = as many as there are cores.
            ray_address: of a running cluster; None = one of our own, if any.
            at_least: cores that one of our own pretends to have where there are fewer.
        """
        self._session = session
        self._at_least = at_least
        self._workers = workers
        self._ray_address = ray_address
        self._connected = False
        self._on_ray: tuple[Runner, int] | None = None

    @property
    def on_this_machine(self) -> bool:
        """Whether Ray is one of our own, rather than a cluster that was named."""
        return self._ray_address in {None, "local"}

    def choose(self, byte_count: int) -> "tuple[Runner, int]":
        """What runs work on so many bytes, and how many tasks at once."""
        if self._on_ray is None:
            if self._ray_address is None and (byte_count < _WORTH_RAY_BYTES or self._workers == 1):
                from etl.running import run_here

                return run_here, 1
            self.connect()
            from cli.cluster import cluster_cores
            from etl.ingest_job import run_on_ray

            self._on_ray = run_on_ray, self._workers or cluster_cores()
        return self._on_ray

    def connect(self) -> None:
        """Be connected to Ray."""
        if not self._connected:
            from cli.cluster import ray_session

            cores = self._workers or max(self._at_least, os.cpu_count() or 1)
            self._session.enter_context(ray_session(self._ray_address, cores))
            self._connected = True

    def choose_inference(self, workers: int, gpus: float) -> "tuple[InferenceRunner, int]":
        """What runs a model: this process for one worker; actors on Ray for several, or where a cluster was named."""
        if workers == 1 and self._ray_address is None:
            from etl.inference import infer_here

            return infer_here, 1
        from etl.inference_job import ActorPool

        self.connect()
        # A cluster that was named may yet grow.
        return ActorPool(workers, 1, gpus, growing=not self.on_this_machine), workers


def choose_inference(
    session: ExitStack, workers: int, gpus: float, ray_address: str | None, _count: int
) -> "tuple[InferenceRunner, int]":
    """`Runners.choose_inference` for a command that runs nothing else."""
    return Runners(session, 0, ray_address, at_least=workers).choose_inference(workers, gpus)
