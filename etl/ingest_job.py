"""The Ray Data face of ingest: tasks out, results back, at the speed of the codec.

Two settings make the difference on few cores (benchmarks/bench_ingest.py): the operator reservation is off, which
would leave a core idle, and each block is one task whose pixels never enter the object store.
"""

import contextlib
import logging
import pickle
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import ray.data
from ray.exceptions import RayActorError, RayError, WorkerCrashedError
from ray.util.annotations import RayDeprecationWarning

from etl.running import Task
from lesionary.core_dumps import forbid_core_dumps
from lesionary.errors import InternalError, LesionaryError
from lesionary.provenance import require_same_contract, worker_contract

# A task whose worker died so often takes no node with it by chance: it kills its workers. Ray would go on for ever.
MOST_DEATHS = 8


def run_on_ray(tasks: Iterable[Task[Any]]) -> Iterator[Any]:
    """Run tasks on the connected Ray cluster and yield results as they finish.

    A worker that is killed has its task run again by Ray, `MOST_DEATHS` times in all; shards of lost attempts are never
    committed.

    Raises:
        LesionaryError: a task raised it.
        InternalError: Ray itself gave up.
    """
    prepare_ray_data()
    rows = [{"task": pickle.dumps(task)} for task in tasks]
    if not rows:
        return
    contract = {"contract": worker_contract()}
    with deaths_counted():
        dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _run_pickled, fn_kwargs=contract, num_cpus=1, max_retries=MOST_DEATHS - 1
        )
    try:
        for row in dataset.iter_rows():
            yield pickle.loads(row["result"])  # noqa: S301 (our own bytes, from our own workers)
    except (LesionaryError, RayError) as error:
        raise our_error(error) from error


@contextlib.contextmanager
def deaths_counted() -> Iterator[None]:
    """A number of retries has no other way into Ray Data than one that it means to take away, and warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def prepare_ray_data() -> None:
    """Settings of every job of ours."""
    # Ray Data logs every plan that it runs, and on stderr every error with its traceback, which is raised here anyway.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.op_resource_reservation_enabled = False
    context.enable_progress_bars = False
    context.raise_original_map_exception = True


def _run_pickled(row: dict[str, bytes], *, contract: str) -> dict[str, bytes]:
    begin_work(contract)
    task: Task[Any] = pickle.loads(row["task"])  # noqa: S301 (our own bytes, from our own driver)
    return {"result": pickle.dumps(task.run())}


def begin_work(contract: str) -> None:
    """What a worker does before it unpickles anything: what another release's task looks like, nobody knows.

    Raises:
        CodeMismatchError: this process would not make the rows that the driver expects.
    """
    # On a cluster that others started, workers have the limits of others.
    forbid_core_dumps()
    require_same_contract(contract, f"Ray worker on node {ray.util.get_node_ip_address()}")


def our_error(error: BaseException) -> LesionaryError:
    """The error of ours inside a chain of Ray's, or an internal one that names Ray's.

    Ray raises it as a class of both kinds, which says its whole traceback instead of a sentence: the error itself is
    its cause.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, LesionaryError) and not isinstance(cause, RayError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    if isinstance(error, (WorkerCrashedError, RayActorError)):
        return InternalError(
            f"the worker of one task died {MOST_DEATHS} times: an input crashes it, or it has too little memory",
            next_step="give workers more memory, or take the input out; what was committed is kept",
        )
    return InternalError(
        f"Ray gave the job up ({type(error).__name__})", next_step="run it again: what was committed is kept"
    )
