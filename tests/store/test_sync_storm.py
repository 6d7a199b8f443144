"""Syncs under readers, and syncs that are killed: every answer comes from a whole version of the store."""

import multiprocessing
import os
import random
import signal
import time

import pytest
from conftest import annotation_csv, annotation_row

from etl.ingest import ingest
from etl.planning import plan_sources
from lesionary.lake import Lake
from lesionary.settings import IngestSettings
from store.database import open_reader
from store.similar import Searcher
from store.sync import sync
from store.versions import files_folder

# Rows of one ingest: every version of the store holds a multiple of it in all its tables.
ROWS = 40
_ROWS_OF = (
    "SELECT (SELECT count(*) FROM lesions), (SELECT count(*) FROM lesion_features), (SELECT sum(lesions) FROM units), "
    "(SELECT min(lesions) FROM feature_sets), (SELECT max(lesions) FROM feature_sets), "
    "(SELECT count(DISTINCT series_id) FROM series)"
)


def take_in(lake, folder, number):
    rows = [annotation_row(File_name=f"{patient:06d}_01_01_003.png") for patient in range(1, ROWS + 1)]
    table = folder / f"{number}.csv"
    table.write_bytes(annotation_csv(*rows))
    settings = IngestSettings(annotations_only=True, namespace=f"n{number}")
    ingest(lake, plan_sources([str(table)], settings), settings)


def look(path):
    """What a reader sees: the number of lesions, and whether everything agrees with it."""
    with open_reader(path) as connection:
        (counts,) = connection.execute(_ROWS_OF).fetchall()
        searcher = Searcher(connection, path, "location+size")
        (query,), _, _ = searcher.queries_for([f"n1-{1 + counts[0] % ROWS}"])
        (hits,) = searcher.hits(searcher.search([query], 5), 5)
    whole = len(set(counts)) == 1 and counts[0] % ROWS == 0 and len(hits) == 5
    return counts[0], whole


def _read_on(path, stop, results):
    reads, failures, newest = 0, [], 0
    while not stop.is_set():
        try:
            count, whole = look(path)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is a failed read)
            failures.append(repr(error))
            continue
        if not whole or count < newest:
            failures.append(f"{count} after {newest}, whole: {whole}")
        newest, reads = max(newest, count), reads + 1
    results.put((reads, failures))


def _storm(tmp_path, readers, syncs, seconds):
    lake, path = Lake.create(str(tmp_path / "lake")), tmp_path / "f.duckdb"
    take_in(lake, tmp_path, 1)
    sync(lake, path)
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    processes = [context.Process(target=_read_on, args=(path, stop, results)) for _ in range(readers)]
    for process in processes:
        process.start()
    started = time.monotonic()
    for number in range(2, syncs + 2):
        take_in(lake, tmp_path, number)
        sync(lake, path)
        time.sleep(max(0.0, started + seconds * (number - 1) / syncs - time.monotonic()))
    stop.set()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    return outcomes, look(path)


def test_readers_see_whole_versions_while_syncs_run(tmp_path):
    outcomes, last = _storm(tmp_path, readers=2, syncs=4, seconds=4)

    assert [failures for _, failures in outcomes] == [[], []]
    assert all(reads > 0 for reads, _ in outcomes)
    assert last == (5 * ROWS, True)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_eight_readers_for_a_minute_of_twenty_syncs(tmp_path):
    outcomes, last = _storm(tmp_path, readers=8, syncs=20, seconds=60)

    assert [failures for _, failures in outcomes] == [[]] * 8
    assert sum(reads for reads, _ in outcomes) > 200
    assert last == (21 * ROWS, True)
    assert len(list(files_folder(tmp_path / "f.duckdb").glob("v*.duckdb"))) <= 2


def _sync(lake_url, path):
    sync(Lake.open(lake_url), path)


def check_killed_syncs(tmp_path, kills):
    lake, path = Lake.create(str(tmp_path / "lake")), tmp_path / "f.duckdb"
    take_in(lake, tmp_path, 1)
    sync(lake, path)
    context = multiprocessing.get_context("spawn")
    generator, expected = random.Random(11), ROWS
    survived = 0
    for number in range(2, kills + 2):
        take_in(lake, tmp_path, number)
        process = context.Process(target=_sync, args=(lake.url, path))
        process.start()
        # The imports of a fresh process take most of a second, the sync some tenths behind them.
        time.sleep(0.5 + generator.random() * 1.2)
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        survived += process.exitcode == 0
        count, whole = look(path)
        assert whole
        assert count in {expected, number * ROWS}
        if number % 3 == 0:
            sync(lake, path)
            expected = number * ROWS
            assert look(path) == (expected, True)
        expected = look(path)[0]
    sync(lake, path)
    assert look(path) == ((kills + 1) * ROWS, True)
    names = [file.name for file in files_folder(path).iterdir()]
    assert not [name for name in names if name.startswith("v") and ".part" in name]
    return survived


def test_killed_sync_leaves_a_whole_store_and_the_next_one_completes_it(tmp_path):
    check_killed_syncs(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_twenty_killed_syncs(tmp_path):
    assert check_killed_syncs(tmp_path, 20) < 20


def _sync_all(lake_url, path, numbers, folder):
    lake = Lake.open(lake_url)
    for number in numbers:
        take_in(lake, folder, number)
        sync(lake, path)


def test_two_syncs_at_once_lose_nothing(tmp_path):
    lake, path = Lake.create(str(tmp_path / "lake")), tmp_path / "f.duckdb"
    take_in(lake, tmp_path, 1)
    sync(lake, path)
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_sync_all, args=(lake.url, path, range(first, first + 3), tmp_path)) for first in (2, 5)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [process.exitcode for process in processes] == [0, 0]
    assert look(path) == (7 * ROWS, True)
