"""Lake to store: the same rows however they got there, and clear words when it cannot be opened."""

import multiprocessing

import duckdb
import pyarrow as pa
import pytest
from conftest import annotation_row, write_release

from etl.ingest import ingest
from etl.planning import plan_sources
from lesionary.errors import StoreError, UsageError
from lesionary.lake import Lake
from lesionary.schema import TABLES
from lesionary.settings import IngestSettings
from store.database import open_reader, open_writer, store_path
from store.migrations import MIGRATIONS, Migration, migrate
from store.sync import sync, synced_columns


@pytest.fixture
def lake(tmp_path, release):
    lake = Lake.create(str(tmp_path / "lake"))
    take_in(lake, release)
    return lake


# Vectors become tables of their own, and the built-in sets join the lake's (tests/store/test_features.py).
STORED = {name: table for name, table in TABLES.items() if name not in {"embeddings", "feature_sets"}}


def take_in(lake, release, namespace="dl"):
    plan = plan_sources([str(release)], IngestSettings(namespace=namespace))
    ingest(lake, plan, IngestSettings())


def rows_of(path):
    with open_reader(path) as connection:
        return {
            name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}").fetchall()))
            for name in [*STORED, "feature_sets", "lesion_features"]
        }


def test_store_holds_the_lakes_rows(lake, tmp_path):
    path = tmp_path / "features.duckdb"
    sync(lake, path)

    with open_reader(path) as connection:
        for name, table in STORED.items():
            columns = synced_columns(table)
            here = connection.sql(f"SELECT {', '.join(columns)} FROM {name}").to_arrow_table()
            there = lake.read(name, columns=columns)
            assert sorted(map(repr, here.to_pylist())) == sorted(map(repr, there.to_pylist()))


def test_columns_are_the_lakes_in_name_and_type(tmp_path):
    with open_writer(tmp_path / "features.duckdb") as connection:
        for name, table in STORED.items():
            made = connection.sql(f"SELECT * FROM {name} LIMIT 0").to_arrow_table().schema
            wanted = pa.schema([table.schema.field(column) for column in synced_columns(table)])
            assert sorted(made.names) == sorted(wanted.names)
            for there in wanted:
                assert _plain(made.field(there.name).type) == _plain(there.type), (name, there.name)


def _plain(kind):
    """Types without the names Arrow and DuckDB give to what is inside a list."""
    if pa.types.is_fixed_size_list(kind):
        return ("array", kind.list_size, _plain(kind.value_type))
    if pa.types.is_list(kind):
        return ("list", _plain(kind.value_type))
    if pa.types.is_struct(kind):
        return ("struct", [(field.name, _plain(field.type)) for field in kind])
    if pa.types.is_timestamp(kind):
        return (kind.unit, kind.tz is not None)
    return kind


def test_second_sync_does_nothing(lake, tmp_path):
    sync(lake, tmp_path / "f.duckdb")

    assert all(one.rows_added == one.rows_removed == 0 for one in sync(lake, tmp_path / "f.duckdb"))


def test_sync_follows_what_is_new_and_what_was_replaced(lake, release, tmp_path):
    path = tmp_path / "features.duckdb"
    sync(lake, path)
    (release / "Images_png/000001_01_01/003.png").write_bytes(b"broken")
    take_in(lake, release)
    other = write_release(tmp_path / "other", {"000001_01_01": [3]}, [annotation_row()])
    take_in(lake, other, "second")

    done = {one.table: one for one in sync(lake, path)}

    assert done["lesions"].rows_added > 0
    assert done["lesions"].rows_removed > 0
    fresh = tmp_path / "fresh.duckdb"
    sync(lake, fresh)
    assert rows_of(path) == rows_of(fresh)


def test_lake_made_anew_with_the_same_versions_replaces_every_row(tmp_path):
    path = tmp_path / "features.duckdb"
    for name, rows in (("old", 2), ("new", 3)):
        patients = [annotation_row(File_name=f"00000{rows + at}_01_01_003.png") for at in range(rows)]
        slices = {f"00000{rows + at}_01_01": [3] for at in range(rows)}
        lake = Lake.create(str(tmp_path / name))
        take_in(lake, write_release(tmp_path / f"release-{name}", slices, patients))
        sync(lake, path)

        with open_reader(path) as connection:
            here = connection.execute("SELECT patient_id FROM lesions ORDER BY ALL").fetchall()
        assert here == sorted((one,) for one in lake.read("lesions")["patient_id"].to_pylist())
        assert len(here) == rows


def test_deleted_store_comes_back_the_same(lake, tmp_path):
    path = tmp_path / "features.duckdb"
    sync(lake, path)
    before = rows_of(path)
    path.unlink()
    sync(lake, path)

    assert rows_of(path) == before


def test_failed_sync_changes_nothing(lake, release, tmp_path):
    path = tmp_path / "features.duckdb"
    sync(lake, path)
    before = rows_of(path)
    take_in(lake, release, "second")

    def fails(table, done, total):
        if table == "lesions":
            raise RuntimeError

    with pytest.raises(RuntimeError):
        sync(lake, path, fails)

    assert rows_of(path) == before


def test_lesion_features_join_lesion_series_and_image(lake, tmp_path):
    sync(lake, tmp_path / "f.duckdb")

    with open_reader(tmp_path / "f.duckdb") as connection:
        rows = connection.execute(
            "SELECT lesion_id, image_available, sex, spacing_x_mm, z_mm, round(ellipse_area_mm2, 3), short_over_long, "
            "center_x_px FROM lesion_features ORDER BY lesion_id"
        ).fetchall()

    assert rows[0] == ("dl-1", True, "F", 0.8, 15.0, 100.531, 0.5, 30.0)
    assert rows[3][:2] == ("dl-4", False)
    assert len(rows) == 4


def test_migrations_are_numbered_without_gaps_and_applied_once(tmp_path):
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    with open_writer(tmp_path / "f.duckdb") as connection:
        assert migrate(connection) == []


def test_failed_migration_leaves_the_store_as_it_was(tmp_path, monkeypatch):
    broken = Migration(len(MIGRATIONS) + 1, "broken", "CREATE TABLE half (a INTEGER); SELECT no_such_function()")
    with open_writer(tmp_path / "f.duckdb") as connection:
        monkeypatch.setattr("store.migrations.MIGRATIONS", (*MIGRATIONS, broken))
        with pytest.raises(duckdb.Error):
            migrate(connection)

        assert connection.execute("SELECT max(number) FROM store.migrations").fetchone() == (len(MIGRATIONS),)
        assert connection.execute("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'half'").fetchone() == (0,)


@pytest.mark.parametrize(("change", "sentence"), [(1, "a newer release made"), (-1, "an older release made")])
def test_store_of_another_release_is_named(tmp_path, change, sentence):
    path = tmp_path / "f.duckdb"
    with open_writer(path) as connection:
        connection.execute(
            "UPDATE store.migrations SET number = number + ? WHERE number = ?", [change * 100, len(MIGRATIONS)]
        )

    with pytest.raises(StoreError, match=sentence), open_reader(path):
        pass


def test_absent_store_is_named(tmp_path):
    with pytest.raises(StoreError, match="there is no store yet; run `lesionary sync`"), open_reader(tmp_path / "x"):
        pass


@pytest.mark.parametrize("content", [b"no database", b"", bytes(5000)])
def test_damaged_store_is_named(tmp_path, content):
    path = tmp_path / "f.duckdb"
    path.write_bytes(content)

    with pytest.raises(StoreError, match="delete it and run `lesionary sync`"), open_reader(path):
        pass


def _hold(path, ready, done):
    with open_writer(path):
        ready.set()
        done.wait(60)


def test_second_writer_waits_for_the_first_and_readers_for_nobody(tmp_path):
    path = tmp_path / "f.duckdb"
    with open_writer(path):
        pass
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(path, ready, done))
    process.start()
    ready.wait(60)
    waited = []

    def on_wait():
        with open_reader(path) as connection:
            waited.append(connection.execute("SELECT count(*) FROM lesions").fetchone())
        done.set()

    with open_writer(path, on_wait):
        process.join(60)

    assert waited == [(0,)]
    assert process.exitcode == 0


def test_store_lies_in_the_lakes_folder_unless_told_otherwise(tmp_path):
    assert store_path(str(tmp_path), None) == tmp_path / "features.duckdb"
    assert store_path(f"file://{tmp_path}", None) == tmp_path / "features.duckdb"
    assert store_path("s3://bucket/lake", str(tmp_path / "x")) == tmp_path / "x"
    with pytest.raises(UsageError, match="needs a local file"):
        store_path("s3://bucket/lake", None)
