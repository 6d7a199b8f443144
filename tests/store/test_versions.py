"""Readers and writers of the store never meet: versions appear whole, and go when nobody needs them."""

import multiprocessing
import os
import random
import signal
import time

import duckdb
import pytest
from small_stores import make_store

from lesionary.errors import StoreError
from store.database import open_draft, open_reader, open_writer
from store.versions import files_folder, writing

# A version counts its own rows twice: whoever sees half of it sees two numbers.
COUNT = "SELECT count(*), any_value(row_number) FROM lesions"


def write(path, rows):
    with open_writer(path) as connection:
        connection.execute("DELETE FROM lake_rows.lesions")
        connection.execute(
            "INSERT INTO lake_rows.lesions (lesion_id, row_number) SELECT 't-' || i, ? FROM range(?) AS t(i)",
            [rows, rows],
        )


def read(path):
    with open_reader(path) as connection:
        return connection.execute(COUNT).fetchone()


def versions(path):
    return sorted(file.name for file in files_folder(path).glob("v*.duckdb"))


def test_reader_keeps_its_version_while_new_ones_come_and_it_goes_afterwards(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 1)
    with open_reader(path) as connection:
        write(path, 2)
        write(path, 3)
        assert connection.execute(COUNT).fetchone() == (1, 1)
        assert read(path) == (3, 3)
        assert versions(path) == ["v00000001.duckdb", "v00000003.duckdb"]
    write(path, 4)

    assert versions(path) == ["v00000004.duckdb"]
    assert [file.name for file in files_folder(path).glob("v*.json")] == ["v00000004.json"]


def test_failed_writer_changes_nothing_and_leaves_nothing(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 1)

    with pytest.raises(ZeroDivisionError), open_writer(path) as connection:
        connection.execute("DELETE FROM lake_rows.lesions")
        raise ZeroDivisionError

    assert read(path) == (1, 1)
    assert sorted(file.name for file in files_folder(path).iterdir()) == ["lock", "v00000001.duckdb", "v00000001.json"]


def test_store_of_an_older_release_is_a_plain_file_and_is_taken_over(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 5)
    plain = tmp_path / "g.duckdb"
    plain.write_bytes(path.read_bytes())
    assert read(plain) == (5, 5)

    write(plain, 6)

    assert plain.is_symlink()
    assert read(plain) == (6, 6)


def test_deleted_link_starts_a_new_store(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 2)
    path.unlink()
    with pytest.raises(StoreError, match="there is no store yet"):
        read(path)

    with open_writer(path):
        pass

    assert read(path) == (0, None)
    assert len(versions(path)) == 1


def test_link_to_nothing_is_named(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 2)
    (files_folder(path) / "v00000001.duckdb").unlink()

    with pytest.raises(StoreError, match="newest version is gone; run `lesionary sync`"):
        read(path)


def test_writer_whose_lock_was_removed_publishes_nothing(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 1)

    with (
        pytest.raises(StoreError, match="the store's lock was removed .* run the same command again"),
        open_writer(path) as connection,
    ):
        connection.execute("DELETE FROM lake_rows.lesions")
        (files_folder(path) / "lock").unlink()
        write(path, 2)

    assert read(path) == (2, 2)
    write(path, 3)
    assert read(path) == (3, 3)
    assert versions(path) == ["v00000003.duckdb"]


def test_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "f.duckdb.files").write_text("in the way")

    with pytest.raises(StoreError, match="the store cannot be written"), open_writer(tmp_path / "f.duckdb"):
        pass


def test_folder_in_place_of_a_store_is_named_and_left_alone(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()

    for opened in (open_reader, open_writer):
        with (
            pytest.raises(StoreError, match="folder: this is a folder, not a feature store; name a file"),
            opened(folder),
        ):
            pass
    assert list(tmp_path.iterdir()) == [folder]


def test_vectors_of_versions_that_are_read_stay(tmp_path):
    path = tmp_path / "f.duckdb"
    make_store(path, [{"lesion_id": "t-1"}])
    with open_reader(path) as connection:
        named = {row[0] for row in connection.execute("SELECT vector_folder FROM store.feature_sets").fetchall()}
        with writing(path), open_draft(path):
            pass
        assert named <= {entry.name for entry in files_folder(path).iterdir()}
    with writing(path), open_draft(path):
        pass

    assert not named & {entry.name for entry in files_folder(path).iterdir()}


def _read_on(path, stop, results):
    reads = failures = torn = 0
    newest = 0
    while not stop.is_set():
        try:
            count, stated = read(path)
        except (StoreError, duckdb.Error, OSError):
            failures += 1
            continue
        reads += 1
        torn += count != stated or count < newest
        newest = max(newest, count)
    results.put((reads, failures, torn))


@pytest.mark.parametrize(("readers", "writes"), [(4, 12)])
def test_readers_never_fail_and_see_whole_versions_in_order(tmp_path, readers, writes):
    path = tmp_path / "f.duckdb"
    write(path, 1)
    context = multiprocessing.get_context("spawn")
    stop, results = context.Event(), context.Queue()
    processes = [context.Process(target=_read_on, args=(path, stop, results)) for _ in range(readers)]
    for process in processes:
        process.start()
    for rows in range(2, writes + 2):
        write(path, rows)
        time.sleep(0.1)
    stop.set()
    outcomes = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)

    assert all(reads > 0 for reads, _, _ in outcomes)
    assert [(failures, torn) for _, failures, torn in outcomes] == [(0, 0)] * readers


def _write_on(path, first, count):
    for rows in range(first, first + count):
        write(path, rows)


def test_two_writers_at_once_follow_each_other(tmp_path):
    path = tmp_path / "f.duckdb"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_on, args=(path, first, 5)) for first in (10, 20)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [process.exitcode for process in processes] == [0, 0]
    assert read(path) in {(14, 14), (24, 24)}
    assert len(versions(path)) == 1
    assert versions(path) == ["v00000010.duckdb"]


@pytest.mark.parametrize(
    "left",
    [
        "v00000088.json",
        "v00000002.duckdb.5262a2ea.part",
        "v00000002.duckdb.5262a2ea.part.wal",
        "link.5262a2ea.part",
        ".v00000002.json.5262a2ea.part",
    ],
)
def test_whatever_a_killed_writer_was_at_is_removed_by_the_next_one(tmp_path, left):
    path = tmp_path / "f.duckdb"
    write(path, 1)
    (files_folder(path) / left).write_bytes(b"half")
    write(path, 2)

    assert read(path) == (2, 2)
    assert not (files_folder(path) / left).exists()


def test_killed_writer_leaves_the_old_version_and_the_next_one_cleans_up(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 1)
    context = multiprocessing.get_context("spawn")
    generator = random.Random(4)
    for _ in range(6):
        process = context.Process(target=_write_on, args=(path, 2, 1_000))
        process.start()
        time.sleep(0.8 + generator.random() * 0.4)
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)

        count, stated = read(path)
        assert count == stated

    write(path, 3)
    assert read(path) == (3, 3)
    names = [file.name for file in files_folder(path).iterdir()]
    assert len([name for name in names if name.startswith("v")]) == 2
    assert not [name for name in names if ".part" in name]


def test_what_a_killed_writer_spilled_is_swept_away_by_the_next(tmp_path):
    path = tmp_path / "f.duckdb"
    write(path, 1)
    spilled = files_folder(path) / "v00000002.duckdb.part.tmp"
    spilled.mkdir()
    (spilled / "duckdb_temp_storage-0.tmp").write_bytes(b"rows")

    write(path, 2)

    assert read(path) == (2, 2)
    assert not spilled.exists()


def test_writer_keeps_to_its_memory(tmp_path):
    with writing(tmp_path / "f.duckdb"), open_draft(tmp_path / "f.duckdb", 100) as (connection, _):
        assert connection.execute("SELECT current_setting('memory_limit')").fetchone() == ("100.0 MiB",)
