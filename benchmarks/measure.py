"""Shared by the benchmarks: processes of their own, rounds in turn, medians, and ratios that can be compared again.

Every benchmark runs inside `measured`, which gives it the options `--quick` and `--json`, and tells what it found with
`ratio` (dimensionless, so that it can be held against another day's: `compare.py`) or `report` (seconds, counts).
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
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


def processor_seconds(command: Sequence[str]) -> float:
    """User and system time of a command and everything it started."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise SystemExit(f"{command[0]} failed")
    return usage.ru_utime + usage.ru_stime


@dataclass(frozen=True, slots=True)
class Taken:
    """Medians of one way, in seconds."""

    seconds: float
    processor: float
    """Of all threads, and of the processes that it started and that ended; other work on the machine is not in it."""


def processor_clock() -> float:
    """User and system seconds so far, of this process and of those that it started and that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usages)


def in_turn(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Taken]:
    """What each way takes, all of them run in turn; the first round is not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, way in ways.items():
            clock, processor = time.perf_counter(), processor_clock()
            way()
            taken[name].append((time.perf_counter() - clock, processor_clock() - processor))
    return {name: Taken(*(median(list(one)) for one in zip(*each[1:], strict=True))) for name, each in taken.items()}


@dataclass(frozen=True, slots=True)
class TimedTask:
    """A task of `etl/inference.py` that says when it began and ended, wherever it ran."""

    task: Any

    def run(self, model: Any) -> tuple[float, float, Any]:
        """Seconds of the epoch, and the task's own result."""
        started = time.time()
        result = self.task.run(model)
        return started, time.time(), result


def median(values: Sequence[float]) -> float:
    """The middle value."""
    return statistics.median(values)


def report(title: str, value: str, wanted: str, *, holds: bool) -> None:
    """One line of result against what the project promises."""
    print(f"{'ok  ' if holds else 'MISS'} {title}: {value} (promised {wanted})")


@dataclass(frozen=True, slots=True)
class Ratio:
    """What one run found, and which way is better."""

    value: float
    better: str
    """`higher` or `lower`."""


_found: dict[str, Ratio] = {}


def ratio(
    title: str,
    value: float,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    better: str = "higher",
    digits: int = 2,
) -> None:
    """One ratio, printed and kept for `--json`: a promise if it has a limit, otherwise a figure next to a peer's.

    Args:
        title: names it among the ratios of its benchmark; the same from run to run.
        value: ours over theirs.
        at_least: promised; higher is better then.
        at_most: promised; lower is better then.
        better: without a promise, `higher` or `lower`.
        digits: printed behind the point.
    """
    if title in _found:
        raise ValueError(f"{title!r} was told already")
    if at_least is not None or at_most is not None:
        better = "higher" if at_least is not None else "lower"
    _found[title] = Ratio(value, better)
    shown = f"{value:.{digits}f} ×"
    if at_least is not None:
        report(title, shown, f"≥ {at_least:g}", holds=value >= at_least)
    elif at_most is not None:
        report(title, shown, f"≤ {at_most:g}", holds=value <= at_most)
    else:
        print(f"--   {title}: {shown} ({better} is better)")


@contextlib.contextmanager
def measured(parser: argparse.ArgumentParser, quick: Mapping[str, object]) -> Iterator[argparse.Namespace]:
    """A benchmark's options; at a good end its ratios are written where `--json` says.

    Args:
        parser: with the benchmark's own options.
        quick: the values that `--quick` gives to options that are not named on the command line.
    """
    small = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in quick.items())
    parser.add_argument("--quick", action="store_true", help=f"small, for the regression guard: {small}")
    parser.add_argument("--json", type=Path, default=None, help="write the ratios here")
    if "--quick" in sys.argv[1:]:
        parser.set_defaults(**quick)
    arguments = parser.parse_args()
    _found.clear()
    # Scratch folders and servers of benchmarks go when their blocks are left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    yield arguments
    if arguments.json:
        values = {title: asdict(one) for title, one in _found.items()}
        arguments.json.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n")
