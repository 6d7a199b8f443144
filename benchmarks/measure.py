"""Shared by the benchmarks: run a function in a process of its own, and print medians and ratios."""

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a function in its own process."""

    seconds: float
    peak_mb: float
    value: Any


def alone(function: Callable[..., Any], *arguments: object) -> Run:
    """Run a function in a fresh process; its own timer may be returned as the value."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        run: Run = receiver.recv()
    except EOFError:
        process.join()
        raise SystemExit(f"{function.__name__} died with exit code {process.exitcode}") from None
    process.join()
    return run


def _call(sender: Any, function: Callable[..., Any], arguments: tuple[object, ...]) -> None:
    started = time.perf_counter()
    value = function(*arguments)
    seconds = time.perf_counter() - started
    sender.send(Run(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, value))


@dataclass(frozen=True, slots=True)
class TimedTask:
    """A task of `etl/inference.py` that says when it began and ended, wherever it ran."""

    task: Any

    def run(self, model: Any) -> tuple[float, float, Any]:
        """Seconds of the epoch, and the task's own result."""
        started = time.time()
        result = self.task.run(model)
        return started, time.time(), result


def median(values: list[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def report(title: str, value: str, wanted: str, *, holds: bool) -> None:
    """One line of result against what the project promises."""
    print(f"{'ok  ' if holds else 'MISS'} {title}: {value} (promised {wanted})")
