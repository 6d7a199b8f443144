"""The lake: exactly-once commits, versions, single slices, and looking after it."""

import multiprocessing
import os
import pickle
import signal
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lesionary.commits import Batch, commit
from lesionary.errors import LakeError, UsageError
from lesionary.lake import Lake
from lesionary.pixels import encode_slice, pixel_digest
from lesionary.schema import SERIES, SLICES, TABLES, UNITS
from lesionary.shards import ShardWriter
from lesionary.slices import SliceReader
from lesionary.upkeep import vacuum, verify

SIDE = 24


def image(series_id, slice_index):
    seed = [int.from_bytes(series_id.encode(), "big") % 2**32, slice_index]
    return np.random.default_rng(seed).integers(-1000, 1000, (SIDE, SIDE)).astype(np.int16)


def slice_rows(series_ids, count, ingest_id):
    rows = []
    for series_id in series_ids:
        for index in range(1, count + 1):
            hu = image(series_id, index)
            rows.append(
                {
                    "series_id": series_id,
                    "slice_index": index,
                    "z_mm": float(index),
                    "rows": SIDE,
                    "columns": SIDE,
                    "pixels": encode_slice(hu),
                    "pixel_digest": pixel_digest(hu),
                    "flags": [],
                    "ingest_id": ingest_id,
                }
            )
    return pa.Table.from_pylist(rows, schema=SLICES.schema)


def unit_rows(series_ids, count, ingest_id):
    rows = []
    for series_id in series_ids:
        counts = {name: 0 for name in UNITS.column_names if name.startswith(("rows_", "files_"))}
        counts |= {"files_found": count, "files_accepted": count, "slices": count, "lesions": 0, "marks": 0}
        rows.append(
            {"unit_id": series_id, "source": "deeplesion", "fingerprint": f"{count}", "ingest_id": ingest_id} | counts
        )
    return pa.Table.from_pylist(rows, schema=UNITS.schema)


def series_rows(series_ids, ingest_id):
    empty = {pa.string(): "", pa.int32(): 0, pa.float32(): 0.0}
    needed = {field.name: empty.get(field.type, []) for field in SERIES.schema if not field.nullable}
    rows = [needed | {"series_id": series_id, "ingest_id": ingest_id} for series_id in series_ids]
    return pa.Table.from_pylist(rows, schema=SERIES.schema)


def write_shard(lake, table, rows, prefix, scratch):
    with ShardWriter(table, lake.table_folder(table.name), prefix, scratch) as writer:
        writer.write(rows)
        return writer.finish()


@dataclass
class Writer:
    """Writes series of a few slices as an ingest would."""

    lake: Lake
    scratch: object

    def batch(self, ingest_id, sequence, series_ids, count=3):
        rows = {
            "slices": slice_rows(series_ids, count, ingest_id),
            "series": series_rows(series_ids, ingest_id),
            "units": unit_rows(series_ids, count, ingest_id),
        }
        prefix = f"{ingest_id}-{sequence}"
        shards = {
            name: [write_shard(self.lake, TABLES[name], table, prefix, self.scratch)] for name, table in rows.items()
        }
        return Batch(ingest_id, sequence, frozenset(series_ids), shards)

    def write(self, ingest_id, sequence, series_ids, count=3):
        commit(self.lake, self.batch(ingest_id, sequence, series_ids, count))


@pytest.fixture
def lake(tmp_path):
    return Lake.create(str(tmp_path / "lake"))


@pytest.fixture
def writer(lake, tmp_path):
    return Writer(lake, tmp_path)


def keys(lake, **options):
    table = lake.read("slices", columns=["series_id", "slice_index"], **options)
    return sorted(zip(table["series_id"].to_pylist(), table["slice_index"].to_pylist(), strict=True))


def expected_keys(*series_ids, count=3):
    return [(series_id, index) for series_id in sorted(series_ids) for index in range(1, count + 1)]


def test_rows_come_back_in_the_declared_schema(lake, writer):
    writer.write("run-a", 1, ["s1", "s2"])

    table = lake.read("slices")

    assert table.schema.equals(SLICES.schema, check_metadata=False)
    assert keys(lake) == expected_keys("s1", "s2")
    assert table.filter(pc.field("series_id") == "s2").num_rows == 3


@pytest.mark.parametrize("name", list(TABLES))
def test_empty_tables_read_as_empty_with_their_columns(lake, name):
    table = lake.read(name)

    assert table.num_rows == 0
    assert tuple(table.column_names) == TABLES[name].column_names


def test_same_batch_twice_is_one_batch(lake, writer):
    batch = writer.batch("run-a", 1, ["s1"])

    commit(lake, batch)
    commit(lake, batch)

    assert keys(lake) == expected_keys("s1")
    assert lake.shards("slices")[0] == 1


def test_unit_that_comes_again_replaces_its_older_rows(lake, writer):
    writer.write("run-a", 1, ["s1", "s2", "s3"], count=5)
    writer.write("run-b", 1, ["s2"], count=2)

    assert keys(lake) == sorted(expected_keys("s1", "s3", count=5) + expected_keys("s2", count=2))
    assert lake.read("units").num_rows == 3
    assert verify(lake).problems == ()


def test_older_versions_stay_readable(lake, writer):
    writer.write("run-a", 1, ["s1"])
    writer.write("run-b", 1, ["s2"])

    assert keys(lake, version=1) == expected_keys("s1")
    assert keys(lake, version=0) == []


def test_history_names_runs_and_rows_newest_first(lake, writer):
    writer.write("run-a", 1, ["s1"])
    writer.write("run-b", 1, ["s1"], count=4)

    found = [
        (record.table, record.operation, record.rows_added, record.ingest_id)
        for record in lake.history()
        if record.table == "slices" and record.ingest_id
    ]

    assert found == [("slices", "replace", 1, "run-b"), ("slices", "append", 3, "run-a")]


def test_half_a_batch_is_replaced_when_the_work_is_done_again(lake, writer):
    killed = writer.batch("run-a", 1, ["s1", "s2"])
    # What a kill between two tables leaves: slices have arrived, the units have not.
    commit(lake, Batch(killed.ingest_id, 1, killed.unit_ids, {"slices": killed.shards["slices"]}))
    assert "slices: 6 rows where the complete units name 0" in verify(lake).problems[0]

    writer.write("run-b", 1, ["s1", "s2"])

    assert keys(lake) == expected_keys("s1", "s2")
    assert verify(lake).problems == ()


def _write_from_another_process(url, scratch, number, barrier):
    writer = Writer(Lake.open(url), scratch)
    batches = [writer.batch(f"run-{number}", step, [f"p{number}-{step}", "shared"]) for step in (1, 2, 3)]
    barrier.wait(60)
    for batch in batches:
        commit(writer.lake, batch)


def test_writers_at_once_lose_nothing_and_double_nothing(lake, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    processes = [
        context.Process(target=_write_from_another_process, args=(lake.url, tmp_path, number, barrier))
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    own = [f"p{number}-{step}" for number in range(3) for step in (1, 2, 3)]
    assert keys(lake) == expected_keys(*own, "shared")
    assert verify(lake, deep=True).problems == ()


def _commit_for_ever(url, scratch, ready):
    writer = Writer(Lake.open(url), scratch)
    ready.set()
    for step in range(1, 10_000):
        writer.write("victim", step, [f"v{step:05d}"])


@pytest.mark.parametrize("moment_s", [0.02, 0.11, 0.23])
def test_killed_writer_leaves_only_whole_batches(lake, writer, tmp_path, moment_s):
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_commit_for_ever, args=(lake.url, tmp_path, ready))
    process.start()
    ready.wait(60)
    time.sleep(moment_s)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)

    done = set(lake.read("units")["unit_id"].to_pylist())
    half = {series_id for series_id, _ in keys(lake)} - done
    assert len(half) <= 1
    writer.write("rerun", 1, sorted(half) or ["fresh"])
    vacuum(lake, dry_run=False, older_than_hours=0)
    report = verify(lake, deep=True)
    assert report.problems == ()
    assert report.slices_decoded == 3 * len(done | (half or {"fresh"}))
    live = {shard.path for shard in lake.shards("slices")[1]}
    assert {entry.name for entry in os.scandir(lake.table_folder("slices").path) if entry.is_file()} == live


def test_each_slice_is_read_alone(lake, writer):
    writer.write("run-a", 1, ["s1", "s2"], count=11)
    writer.write("run-b", 1, ["s0", "s9"], count=2)

    with SliceReader(lake) as reader:
        assert reader.slice_indices("s2") == list(range(1, 12))
        assert reader.slice_indices("s5") == []
        for series_id, index in [("s2", 7), ("s0", 2), ("s1", 1), ("s2", 11), ("s9", 1)]:
            np.testing.assert_array_equal(reader.read(series_id, index), image(series_id, index))


def test_reader_reads_a_row_group_once_for_neighbours(lake, writer, monkeypatch):
    writer.write("run-a", 1, ["s1", "s2"], count=11)
    writer.write("run-b", 1, ["s0"], count=2)
    read_group, read = pq.ParquetFile.read_row_group, []
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda file, number, **options: read.append(number) or read_group(file, number, **options),
    )

    with SliceReader(lake) as reader:
        groups = {reader.place("s1", index).row_group for index in range(1, 12)}
        for index in [*range(1, 12), 11, 10]:
            np.testing.assert_array_equal(reader.read("s1", index), image("s1", index))
        assert len(read) == len(groups)
        # The same number in another shard is another row group.
        for series_id, index in [("s1", 1), ("s0", 1), ("s1", 1), ("s0", 2)]:
            np.testing.assert_array_equal(reader.read(series_id, index), image(series_id, index))
    assert len(read) > len(groups)


def test_reader_keeps_its_snapshot_and_travels(lake, writer):
    writer.write("run-a", 1, ["s1"])
    reader = SliceReader(lake)
    writer.write("run-b", 1, ["s2"])

    assert reader.slice_indices("s2") == []
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(reader)).read("s2", 1), image("s2", 1))


@pytest.mark.parametrize(("series_id", "index"), [("s1", 4), ("s1", 0), ("nobody", 1)])
def test_absent_slice_is_named(lake, writer, series_id, index):
    writer.write("run-a", 1, ["s1"])

    with pytest.raises(LakeError, match=f"no slice {index} of series {series_id}"):
        SliceReader(lake).read(series_id, index)


def _only_shard(lake, table="slices"):
    (shard,) = lake.shards(table)[1]
    return os.path.join(lake.table_folder(table).path, shard.path)


def test_verify_finds_a_missing_shard(lake, writer):
    writer.write("run-a", 1, ["s1"])
    os.unlink(_only_shard(lake))

    assert "missing" in verify(lake).problems[0]
    with pytest.raises(LakeError, match="lake verify"):
        lake.read("slices")
    with pytest.raises(LakeError, match="lake verify"):
        SliceReader(lake).read("s1", 1)


def test_verify_finds_a_single_flipped_bit(lake, writer):
    writer.write("run-a", 1, ["s1"])
    path = _only_shard(lake)
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))

    assert "digest differs" in verify(lake).problems[0]


def test_deep_verify_compares_every_slice_with_its_digest(lake, tmp_path):
    rows = slice_rows(["s1"], 3, "run-a")
    digests = pa.array(["0" * 32, *rows["pixel_digest"].to_pylist()[1:]])
    forged = rows.set_column(SLICES.column_names.index("pixel_digest"), SLICES.schema.field("pixel_digest"), digests)
    shards = {
        "slices": [write_shard(lake, SLICES, forged, "x", tmp_path)],
        "series": [write_shard(lake, SERIES, series_rows(["s1"], "run-a"), "x", tmp_path)],
        "units": [write_shard(lake, UNITS, unit_rows(["s1"], 3, "run-a"), "x", tmp_path)],
    }
    commit(lake, Batch("run-a", 1, frozenset(["s1"]), shards))

    assert verify(lake).problems == ()
    assert "does not decode to its digest" in verify(lake, deep=True).problems[0]


def test_verify_finds_repeated_keys_and_counts_that_do_not_add_up(lake, tmp_path):
    rows = slice_rows(["s1"], 2, "run-a")
    shards = {
        "slices": [write_shard(lake, SLICES, pa.concat_tables([rows, rows]), "x", tmp_path)],
        "units": [write_shard(lake, UNITS, unit_rows(["s1"], 2, "run-a"), "x", tmp_path)],
    }
    commit(lake, Batch("run-a", 1, frozenset(["s1"]), shards))

    problems = verify(lake).problems

    assert any("2 rows repeat the key" in problem for problem in problems)
    assert any("4 rows where the complete units name 2" in problem for problem in problems)


def test_vacuum_removes_orphans_and_replaced_shards_but_nothing_live(lake, writer, tmp_path):
    writer.write("run-a", 1, ["s1"])
    writer.write("run-b", 1, ["s1"], count=4)
    orphan = write_shard(lake, SLICES, slice_rows(["s8"], 2, "x"), "x", tmp_path)
    ahead = time.time() + 1e6  # a clock that was wrong
    os.utime(lake.table_folder("slices").join(orphan.path), (ahead, ahead))

    preview = vacuum(lake, dry_run=True, older_than_hours=0)
    young = vacuum(lake, dry_run=False, older_than_hours=1)
    done = vacuum(lake, dry_run=False, older_than_hours=0)

    assert young.removed == ()
    assert set(preview.removed) == set(done.removed)
    assert f"slices/{orphan.path}" in done.removed
    assert len(done.removed) == 4  # the orphan, and the replaced shards of slices, series and units
    assert done.bytes > orphan.bytes
    assert verify(lake, deep=True).problems == ()


def test_writer_that_fails_leaves_no_file(lake, tmp_path):
    with (
        pytest.raises(RuntimeError),
        ShardWriter(SLICES, lake.table_folder("slices"), "x", tmp_path) as writer,
    ):
        writer.write(slice_rows(["s1"], 5, "x"))
        raise RuntimeError

    assert not [entry for entry in os.scandir(lake.table_folder("slices").path) if entry.is_file()]


def test_absent_lake_is_named_with_the_remedy(tmp_path):
    with pytest.raises(LakeError, match="there is no lake here; make one with `lesionary ingest"):
        Lake.open(str(tmp_path))


def test_lake_is_not_made_among_other_files(tmp_path):
    (tmp_path / "thesis.docx").touch()

    with pytest.raises(LakeError, match="already holds 1 other"):
        Lake.create(str(tmp_path))


def test_lake_of_a_newer_format_is_refused(lake):
    with open(os.path.join(lake.url, "lake.json"), "w") as file:
        file.write('{"format_version": 99}')

    with pytest.raises(LakeError, match="format 99"):
        Lake.open(lake.url)


def test_half_made_lake_is_finished(tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    os.unlink(os.path.join(lake.url, "lake.json"))

    assert Lake.create(lake.url).read("slices").num_rows == 0


@pytest.mark.parametrize("call", [lambda lake: lake.read("patients"), lambda lake: lake.read("slices", columns=["x"])])
def test_unknown_names_are_users_mistakes(lake, call):
    with pytest.raises(UsageError):
        call(lake)


def test_unknown_version_is_named(lake):
    with pytest.raises(LakeError, match="version 7 of table slices"):
        lake.read("slices", version=7)


def test_lake_works_through_a_url(tmp_path):
    lake = Lake.create(f"file://{tmp_path}/lake")

    Writer(lake, tmp_path).write("run-a", 1, ["s1"])

    assert verify(Lake.open(str(tmp_path / "lake")), deep=True).problems == ()
