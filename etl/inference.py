"""Batch inference: tasks that a model works through, and the plain way to do it. `etl/inference_job.py` is Ray's.

A task knows what it reads and what it does with a model; how the model is made is the business of whoever starts the
run (`cli/`), so that nothing here has to know a trainer. Tasks and makers pickle; models need not.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

Model_contra = TypeVar("Model_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)


class InferenceTask(Protocol[Model_contra, Result_co]):
    """Work for a model; pickles small, and so does its result: plans travel, pixels never do."""

    def run(self, model: Model_contra) -> Result_co:
        """Read what the task is about, and ask the model."""


ModelMaker = Callable[[], Any]
"""Makes a model, once in each process that has tasks for one; pickles."""

InferenceRunner = Callable[[Iterable[InferenceTask[Any, Any]], ModelMaker], Iterator[Any]]
"""Runs tasks with a model and yields their results as they finish, in any order."""

InferenceChoice = Callable[[int], tuple[InferenceRunner, int]]
"""Number of things to look at, to what runs the tasks and how many models work at once."""


def infer_here(tasks: Iterable[InferenceTask[Any, Any]], make_model: ModelMaker) -> Iterator[Any]:
    """Run tasks one after the other in this process; without a task no model is made."""
    model = None
    for task in tasks:
        if model is None:
            model = make_model()
        yield task.run(model)


def always_infer_here(_count: int) -> tuple[InferenceRunner, int]:
    """This process, whatever there is to do."""
    return infer_here, 1
