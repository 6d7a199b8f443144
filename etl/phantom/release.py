"""Writes a DeepLesion release out of nothing: slice files, `DL_info.csv`, and the truth beside it.

Three passes: every patient is planned and his key slices drawn once, to know which marks are really to be seen;
quirks are put into the plan; every series is drawn, measured and written, one series per task. What would surprise:

* the same settings give the same bytes whatever the number of workers: results are taken in the order of the plan;
* `DL_info.csv` is written last, so where it is, the release is whole; a broken-off one is replaced with `force`;
* workers are started fresh (spawn): a forked copy of a process with threads may hang.
"""

import multiprocessing
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from etl.phantom.plan import SeriesPlan, plan_patient, plan_volume
from etl.phantom.quirks import apply_to_plans, apply_to_rows, apply_to_table, selected_quirks
from etl.phantom.reading import confirm
from etl.phantom.release_table import sort_key, table_text
from etl.phantom.release_zips import IMAGE_FOLDER, NumberedZips
from etl.phantom.series_writer import SeriesResult, total_slices, write_series
from etl.phantom.true_masks import TRUTH_MASKS_FILE, write_true_masks
from etl.phantom.truth import TABLE_FILE, TRUTH_FILE, TRUTH_TABLE_FILE, quirk_places, write_truth
from etl.release_format import DEFAULT_PNG_LEVEL
from lesionary.artifacts import atomic_write_bytes
from lesionary.errors import UsageError

# Where series wait for their place in a zip.
_STAGING_FOLDER = ".writing"

# Tasks under way per worker: enough that none idles while an earlier, longer series is waited for.
_TASKS_PER_WORKER = 4

# Below this a lesion of median size is a pixel or two; above, one slice takes seconds.
IMAGE_SIZE_RANGE = (48, 1024)

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is: patients, then slices."""

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class ReleaseSettings:
    """Everything that decides a release's bytes."""

    patients: int
    seed: int = 0
    image_size: int = 512
    volumes: int = 0
    """Whole scans without marks, of further patients."""
    quirks: tuple[str, ...] = ()
    max_slices_per_series: int | None = None
    """Narrows the context around key slices; whole scans are not cut."""
    slices_per_zip: int | None = None
    """None: plain folders."""
    png_level: int = DEFAULT_PNG_LEVEL


@dataclass(frozen=True, slots=True)
class ReleaseSummary:
    """What was written, and how fast."""

    rows: int
    patients: int
    series: int
    volumes: int
    slice_files: int
    zips: int
    bytes: int
    unmarked_lesions: int
    quirks: tuple[str, ...]
    quirks_without_place: tuple[str, ...]
    """Asked for, but nothing in so small a release fits them."""
    seconds: float
    slices_per_second: float


def write_release(
    folder: Path, settings: ReleaseSettings, *, workers: int = 1, force: bool = False, progress: Progress | None = None
) -> ReleaseSummary:
    """Write a release into a folder.

    Args:
        folder: created when it is not there.
        settings: decide every byte.
        workers: processes; 1 draws in this one.
        force: replace a release that is there already; files of other names stay.
        progress: told after every patient planned and every series drawn.

    Raises:
        UsageError: a setting is out of range, or the folder is not empty and `force` is not given.
    """
    _check(settings, workers)
    quirks = selected_quirks(settings.quirks)
    _prepare(folder, force=force)
    started = time.monotonic()
    tell: Progress = progress or (lambda _stage, _done, _total: None)
    plans = apply_to_plans(quirks, settings.seed, _plan(settings, workers, tell))
    results, zips = _draw(folder, settings, plans, workers, tell)
    rows = sorted((row for result in results for row in result.rows), key=sort_key)
    rows = apply_to_rows(quirks, settings.seed, rows)
    places = quirk_places(quirks, results, rows)
    recorded = asdict(settings) | {"quirks": list(quirks)}
    write_truth(folder, recorded, places, results, rows)
    write_true_masks(folder, {result.plan.name: result.masks for result in results}, rows)
    atomic_write_bytes(folder / TABLE_FILE, apply_to_table(quirks, table_text(rows)))
    seconds = time.monotonic() - started
    files = sum(result.files for result in results)
    return ReleaseSummary(
        rows=len(rows),
        patients=len({row.patient_index for row in rows}),
        series=len(results) - settings.volumes,
        volumes=settings.volumes,
        slice_files=files,
        zips=zips,
        bytes=sum(result.bytes for result in results),
        unmarked_lesions=sum(len(result.unmarked) for result in results),
        quirks=quirks,
        quirks_without_place=tuple(name for name in quirks if not places[name]["rows"] and not places[name]["files"]),
        seconds=seconds,
        slices_per_second=files / seconds,
    )


def plan_series(settings: ReleaseSettings, index: int) -> list[SeriesPlan]:
    """A patient's series as they will be drawn; patients above `settings.patients` give whole scans."""
    if index > settings.patients:
        return [plan_volume(settings.seed, index, settings.image_size)]
    planned = plan_patient(settings.seed, index, settings.image_size)
    confirmed = (confirm(plan, settings.max_slices_per_series) for plan in planned)
    return [plan for plan in confirmed if plan is not None]


def ordered_map(function: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Results in the order of the tasks, with a bounded number of them waiting.

    Args:
        function: picklable when there is more than one worker.
        tasks: what to do.
        workers: processes; 1 works in this one.
    """
    if workers == 1:
        yield from map(function, tasks)
        return
    waiting: deque[Future[Result]] = deque()
    queue = iter(tasks)
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        waiting.extend(pool.submit(function, task) for task in islice(queue, workers * _TASKS_PER_WORKER))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(function, task) for task in islice(queue, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def _plan(settings: ReleaseSettings, workers: int, tell: Progress) -> list[SeriesPlan]:
    indices = range(1, settings.patients + settings.volumes + 1)
    plans: list[SeriesPlan] = []
    for done, planned in enumerate(ordered_map(partial(plan_series, settings), indices, workers), start=1):
        plans += planned
        tell("patients planned", done, len(indices))
    return plans


def _draw(
    folder: Path, settings: ReleaseSettings, plans: Sequence[SeriesPlan], workers: int, tell: Progress
) -> tuple[list[SeriesResult], int]:
    zipped = settings.slices_per_zip is not None
    target = folder / (_STAGING_FOLDER if zipped else IMAGE_FOLDER)
    target.mkdir()
    total = total_slices(plans)
    results: list[SeriesResult] = []
    done = 0
    with NumberedZips(folder, settings.slices_per_zip or 1) as zips:
        write = partial(write_series, folder=target, png_level=settings.png_level)
        for result in ordered_map(write, plans, workers):
            if zipped:
                zips.add_series(target / result.plan.name)
                shutil.rmtree(target / result.plan.name)
            results.append(result)
            done += len(result.slices)
            tell("slices drawn", done, total)
    if zipped:
        target.rmdir()
    return results, zips.count


def _prepare(folder: Path, *, force: bool) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        return
    if not force:
        raise UsageError(
            "the folder is not empty",
            where=str(folder),
            next_step="choose another folder, or replace the release in it with --force",
        )
    # The table goes first: without it nobody takes the rest for a release.
    for name in (TABLE_FILE, TRUTH_TABLE_FILE, TRUTH_FILE, TRUTH_MASKS_FILE):
        (folder / name).unlink(missing_ok=True)
    for path in (*folder.glob(f"{IMAGE_FOLDER}_*.zip"), *folder.glob(f".{IMAGE_FOLDER}_*.part")):
        path.unlink()
    for name in (IMAGE_FOLDER, _STAGING_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def _check(settings: ReleaseSettings, workers: int) -> None:
    low, high = IMAGE_SIZE_RANGE
    most = settings.max_slices_per_series
    rules = (
        (settings.patients >= 1, "--patients", "a release needs at least one patient"),
        (settings.volumes >= 0, "--volumes", "the number of whole scans cannot be negative"),
        (low <= settings.image_size <= high, "--image-size", f"images have {low} to {high} rows and columns"),
        (settings.seed >= 0, "--seed", "a seed is zero or a positive number"),
        (workers >= 1, "--workers", "at least one worker draws"),
        (
            settings.slices_per_zip is None or settings.slices_per_zip >= 1,
            "--slices-per-zip",
            "a zip holds at least one slice",
        ),
        (most is None or most >= 1, "--max-slices-per-series", "a series has at least one slice"),
        (0 <= settings.png_level <= 9, "--png-level", "a PNG level is 0 to 9"),
    )
    for holds, where, what in rules:
        if not holds:
            raise UsageError(what, where=where, next_step="change the option")
