"""Running tasks: what a task is, and the plain way to run some. `etl/ingest_job.py` is the way on Ray."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Task(Protocol[Result_co]):
    """Work for one worker; pickles."""

    def run(self) -> Result_co:
        """Do it."""


Runner = Callable[[Iterable[Task[Any]]], Iterator[Any]]
"""Runs tasks and yields their results as they finish, in any order."""


def run_here(tasks: Iterable[Task[Result]]) -> Iterator[Result]:
    """Run tasks one after the other in this process: for sources too small to be worth starting Ray."""
    return (task.run() for task in tasks)


RunnerChoice = Callable[[int], tuple[Runner, int]]
"""Bytes to work through, to what runs the tasks and how many at once."""


def always_here(_byte_count: int) -> tuple[Runner, int]:
    """This process, whatever there is to do."""
    return run_here, 1
