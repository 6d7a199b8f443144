"""A lake on a real S3 server behind a proxy that spoils requests: what comes out is what a local lake holds."""

import concurrent.futures
import json
import os
import pickle
import re
import signal
import threading
import time

import pyarrow as pa
import pytest
from object_store.fault_proxy import ALL_FAULTS, Fault, FaultPlan
from object_store.s3_server import client_environment
from object_store.workloads import finished, lake_digest, problems_of, start, upload_source, write_sources
from pyarrow import fs

from lesionary.commits import Batch, commit
from lesionary.errors import LakeError
from lesionary.lake import Lake
from lesionary.locations import open_location
from lesionary.object_stores import whole_object
from lesionary.remote_files import open_remote
from lesionary.schema import TABLES
from lesionary.shards import ShardWriter
from lesionary.upkeep import vacuum

SEED = 20_261_127
RATE = 0.05
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_sources(tmp_path_factory.mktemp("sources"), series=5, slices=6)


@pytest.fixture(scope="module")
def wanted(tmp_path_factory, sources, running_store):
    """Digests of the local runs."""
    digests = {}
    for name, source in sources.items():
        lake = str(tmp_path_factory.mktemp("local") / "lake")
        code, said = finished(start(running_store, "ingest", str(source), "--lake", lake, "--workers", "1"))
        assert code == 0, said
        digests[name] = lake_digest(lake)
    return digests


def one_row_batch(lake, ingest_id, unit, tmp_path):
    """A batch of one quarantine row, written as a driver writes it."""
    table = TABLES["quarantine"]
    row = dict.fromkeys(table.column_names) | {
        "unit_id": unit, "ingest_id": ingest_id, "kind": "file", "member": "x", "reason": "stray_file", "detail": "",
    }  # fmt: skip
    rows = pa.Table.from_pylist([{name: row[name] for name in table.column_names}], schema=table.schema)
    with ShardWriter(table, lake.table_folder(table.name), f"{ingest_id}-b0001", tmp_path) as writer:
        writer.write(rows)
        shard = writer.finish()
    return Batch(ingest_id, 1, frozenset({unit}), {table.name: [shard]})


def test_conditional_puts_are_granted_to_one_of_many(store):
    """What Delta's commits rest on: without it no test below would prove anything."""
    from deltalake import CommitProperties, DeltaTable
    from deltalake.exceptions import CommitFailedError, DeltaError
    from deltalake.transaction import Transaction

    url = f"{store.new_place('puts')}/t"
    DeltaTable.create(url, schema=pa.schema([("a", pa.int64())]))
    tables = [DeltaTable(url) for _ in range(8)]

    def write(number):
        properties = CommitProperties(app_transactions=[Transaction("same", 1)], max_commit_retries=0)
        try:
            tables[number].create_write_transaction(
                [], mode="append", schema=tables[number].schema(), partition_by=[], commit_properties=properties
            )
        except (CommitFailedError, DeltaError):
            return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        granted = list(pool.map(write, range(8)))

    assert granted.count(True) == 1
    assert DeltaTable(url).version() == 1


@pytest.mark.parametrize("form", ["folders", "zip", "tar"])
def test_ingest_and_sync_under_faults_end_as_on_a_disk(store, sources, wanted, tmp_path, form):
    source, lake = upload_source(store, sources[form]), f"{store.new_place('lake')}/lake"
    store.proxy.use(FaultPlan(SEED, RATE))

    code, said = finished(start(store, "ingest", source, "--lake", lake, "--workers", "1", "--json"))

    assert code == 0, (SEED, said)
    code, said = finished(start(store, "sync", "--lake", lake, "--store", str(tmp_path / "f.duckdb"), "--json"))
    counts = store.proxy.counts()
    assert code == 0, (SEED, said)
    rows = {one["table"]: one["rows_added"] for one in json.loads(said[said.index("[") :])}
    assert rows["lesions"] == Lake.open(lake).snapshot().rows("lesions")
    assert counts.faults.total() >= 3, (SEED, counts)
    assert counts.retries >= counts.faults.total() - counts.faults[Fault.SLOW] - 2, (SEED, counts)
    store.proxy.use(FaultPlan(SEED, 0.0))
    assert lake_digest(lake) == wanted[form], (SEED, counts.log)
    assert problems_of(lake) == (), (SEED, counts.log)


@pytest.mark.parametrize("kind", [Fault.LOST_ANSWER, Fault.RACE, Fault.CUT_UPLOAD])
def test_commit_counts_once_whatever_becomes_of_its_put(store, tmp_path, kind):
    lake = Lake.create(f"{store.new_place('commit')}/lake")
    store.proxy.use(FaultPlan(SEED, 0.5, (kind,)))

    for number in range(6):
        commit(lake, one_row_batch(lake, f"run-{number}", f"u{number}", tmp_path))

    counts = store.proxy.counts()
    store.proxy.use(FaultPlan(SEED, 0.0))
    found = lake.read("quarantine", columns=["unit_id"])["unit_id"].to_pylist()
    assert counts.faults[kind] >= 2, (SEED, counts)
    assert sorted(found) == [f"u{number}" for number in range(6)], (SEED, counts.log)


def test_races_of_several_writers_lose_and_double_nothing(store, tmp_path):
    lake = Lake.create(f"{store.new_place('races')}/lake")
    store.proxy.use(FaultPlan(SEED, RATE))
    writers, rounds = 4, 10
    start_line = threading.Barrier(writers, timeout=120)

    def write(number):
        for turn in range(rounds):
            batch = one_row_batch(lake, f"w{number}-r{turn}", f"u{number}-{turn}", tmp_path)
            start_line.wait()
            commit(lake, batch)

    with concurrent.futures.ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))

    counts = store.proxy.counts()
    store.proxy.use(FaultPlan(SEED, 0.0))
    found = sorted(lake.read("quarantine", columns=["unit_id"])["unit_id"].to_pylist())
    assert found == sorted(f"u{number}-{turn}" for number in range(writers) for turn in range(rounds)), (SEED, counts)


def test_two_drivers_make_and_fill_one_lake_at_once(store, sources, wanted):
    urls = [upload_source(store, sources["zip"]), upload_source(store, sources["zip"])]
    lake = f"{store.new_place('two')}/lake"
    store.proxy.use(FaultPlan(SEED, RATE))

    jobs = [
        start(store, "ingest", url, "--lake", lake, "--workers", "1", "--namespace", name)
        for url, name in zip(urls, ("left", "right"), strict=True)
    ]

    for job in jobs:
        code, said = finished(job)
        assert code == 0, (SEED, said)
    store.proxy.use(FaultPlan(SEED, 0.0))
    assert problems_of(lake) == (), SEED
    series = Lake.open(lake).read("series", columns=["series_id"])["series_id"].to_pylist()
    assert sorted(name.split("-")[0] for name in series) == ["left"] * 5 + ["right"] * 5, SEED


def test_driver_killed_while_it_uploads_and_rerun_ends_the_same(store, sources, wanted):
    source, lake = upload_source(store, sources["folders"]), f"{store.new_place('kill')}/lake"
    # Slow enough that the moment lies inside the work, wherever the machine is in it.
    store.proxy.use(FaultPlan(SEED, 0.5, (Fault.SLOW,), slow_seconds=0.1))
    job = start(store, "ingest", source, "--lake", lake, "--workers", "1", "--commit-seconds", "1")
    until = time.monotonic() + 60
    while store.proxy.counts().by_method["PUT"] < 12 and time.monotonic() < until and job.poll() is None:
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGKILL)
    job.communicate()
    store.proxy.use(FaultPlan(SEED, RATE))

    code, said = finished(start(store, "ingest", source, "--lake", lake, "--workers", "1"))

    assert code == 0, (SEED, said)
    store.proxy.use(FaultPlan(SEED, 0.0))
    opened = Lake.open(lake)
    vacuum(opened, dry_run=False, older_than_hours=0)
    assert lake_digest(lake) == wanted["folders"], SEED
    assert problems_of(lake) == (), SEED
    for name in ("slices", "series", "lesions", "quarantine", "units"):
        folder = opened.table_folder(name)
        there = {info.base_name for info in folder.filesystem.get_file_info(fs.FileSelector(folder.path))}
        assert there - {"_delta_log"} == {shard.path for shard in opened.shards(name)[1]}, SEED


def test_stream_left_by_an_exception_publishes_no_short_object(store):
    location = open_location(store.new_place("cut"))

    with pytest.raises(RuntimeError), whole_object(location.filesystem, location.join("shard")) as sink:
        sink.write(b"half of it")
        raise RuntimeError

    assert location.filesystem.get_file_info(location.join("shard")).type.name == "NotFound"


def test_short_reads_are_tried_again_when_the_answer_is_longer_than_the_range(store):
    """pyarrow alone gives up here: a busy store's answer does not fit where one byte was to go."""
    location = open_location(store.new_place("range"))
    with location.filesystem.open_output_stream(location.join("file")) as sink:
        sink.write(bytes(range(100)))
    store.proxy.use(FaultPlan(SEED, 0.4, (Fault.THROTTLE, Fault.CUT_DOWNLOAD)))

    with open_remote(location.filesystem, location.join("file")) as file:
        found = [(file.seek(at), file.read(1))[1] for at in range(40)]

    counts = store.proxy.counts()
    assert found == [bytes([at]) for at in range(40)]
    assert counts.faults.total() >= 5, (SEED, counts)


def test_store_that_fails_for_good_never_becomes_a_quarantined_file(store, sources, monkeypatch):
    """A file the store did not give is not a bad file: the run ends, and the next one takes everything."""
    source, lake = upload_source(store, sources["folders"]), f"{store.new_place('outage')}/lake"
    monkeypatch.setenv("LESIONARY_OBJECT_STORE_ATTEMPTS", "2")
    monkeypatch.setenv("LESIONARY_OBJECT_STORE_PATIENCE_SECONDS", "1")
    Lake.create(lake)
    store.proxy.use(FaultPlan(SEED, 0.5, (Fault.SERVER_ERROR, Fault.LOST_ANSWER)))

    code, said = finished(start(store, "ingest", source, "--lake", lake, "--workers", "1"))

    assert code == 2, said
    assert len(said.strip().splitlines()) == 1, said
    store.proxy.use(FaultPlan(SEED, 0.0))
    assert Lake.open(lake).read("quarantine").num_rows == 0


def test_location_travels_without_credentials_and_arrives_patient(store):
    location = open_location("s3://some-bucket/lake")

    travelled = pickle.dumps(location)

    credentials = store.server.credentials
    assert credentials.secret.encode() not in travelled
    assert credentials.key_id.encode() not in travelled
    assert pickle.loads(travelled).url == location.url


@pytest.mark.parametrize(
    ("change", "meaning"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret-planted"}, "refuses the key or its signature|denies access"),
        ({"AWS_ACCESS_KEY_ID": "AKIANOBODY0000000000"}, "refuses the key or its signature|denies access"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"),
        ({}, "there is no such bucket|there is no such file|no lake here"),
    ],
    ids=["wrong secret", "unknown key", "server down", "no such bucket"],
)
@pytest.mark.parametrize("command", ["ingest", "verify"])
def test_store_that_refuses_is_one_line_without_credentials(store, monkeypatch, change, meaning, command, tmp_path):
    bucket = "s3://nobody-made-this-bucket" if not change else store.new_place("closed")
    environment = client_environment(store.proxy.endpoint, store.server.credentials) | change
    monkeypatch.setattr(type(store), "environment", lambda self: {**os.environ, **environment})
    monkeypatch.setenv("LESIONARY_OBJECT_STORE_ATTEMPTS", "3")
    monkeypatch.setenv("LESIONARY_OBJECT_STORE_PATIENCE_SECONDS", "2")
    where = ["--lake", f"{bucket}/lake"]
    (tmp_path / "source").mkdir()
    write_sources(tmp_path / "source", series=2, slices=2, side=64)
    arguments = ["ingest", str(tmp_path / "source" / "release")] if command == "ingest" else ["lake", "verify"]

    code, said = finished(start(store, *arguments, *where))

    assert code == 2, said
    assert len(said.strip().splitlines()) == 1, said
    assert re.search(meaning, said), said
    for secret in (environment["AWS_SECRET_ACCESS_KEY"], environment["AWS_ACCESS_KEY_ID"]):
        assert secret not in said


def test_credentials_are_in_no_output_and_no_object(store, sources, monkeypatch):
    """At debug level, of a run that works and of one that is refused on purpose."""
    source, lake = upload_source(store, sources["zip"]), f"{store.new_place('secret')}/lake"
    planted = store.server.credentials
    code, said = finished(start(store, "--debug", "ingest", source, "--lake", lake, "--workers", "1"))
    assert code == 0, said
    token = "PlantedSessionToken0003"  # noqa: S105
    environment = store.environment() | {"AWS_SESSION_TOKEN": token}
    monkeypatch.setattr(type(store), "environment", lambda self: environment)
    _, refused = finished(start(store, "--debug", "lake", "verify", "--lake", f"{lake}-of-nobody"))

    folder = open_location(lake)
    objects = folder.filesystem.get_file_info(fs.FileSelector(folder.path, recursive=True))
    texts = [said.encode(), refused.encode()]
    for info in objects:
        if info.type == fs.FileType.File:
            with folder.filesystem.open_input_stream(info.path) as stream:
                texts.append(stream.read())
    assert len(texts) > 15
    for secret in (planted.secret, planted.key_id, token):
        assert not any(secret.encode() in text for text in texts), secret


def test_every_kind_of_fault_can_happen():
    """The table in docs/object-store.md names them all."""
    assert len(ALL_FAULTS) == len(Fault) == 8


def test_missing_lake_is_told_from_a_missing_bucket(store):
    with pytest.raises(LakeError, match="there is no lake here"):
        Lake.open(f"{store.new_place('empty')}/lake")
