"""Results that are added to: each key once, whoever adds; other shards stay; older tables get the columns of today."""

import multiprocessing

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.schema import Field

from lesionary.lake import Lake
from lesionary.results import GrowingUnit, write_results
from lesionary.schema import EMBEDDINGS

SET = "net@1"


@pytest.fixture
def lake(tmp_path):
    return Lake.create(str(tmp_path / "lake"))


def rows(names, source="i1", value=0.0, unit=SET):
    vectors = [[value, float(at)] for at, _ in enumerate(names)]
    columns = [[unit] * len(names), list(names), vectors, [source] * len(names)]
    return pa.table(columns, schema=EMBEDDINGS.schema)


def growing(lake, unit=SET):
    return GrowingUnit(lake, "embeddings", unit, "lesion_id", "lesion_ingest_id")


def held(lake, unit=SET):
    found = lake.read("embeddings").filter(pa.compute.field("feature_set_id") == unit).sort_by("lesion_id")
    return [(row["lesion_id"], row["vector"][0], row["lesion_ingest_id"]) for row in found.to_pylist()]


def paths(lake):
    return {shard.path for shard in lake.shards("embeddings")[1]}


def test_rows_join_those_that_are_there_and_no_shard_is_written_again(lake):
    unit = growing(lake)
    assert unit.held() == {}

    assert unit.add(rows(["a", "b"])) == 2
    before = paths(lake)
    assert unit.add(rows(["c"])) == 1

    assert before < paths(lake)
    assert [name for name, *_ in held(lake)] == ["a", "b", "c"]
    assert growing(lake).held() == {"a": "i1", "b": "i1", "c": "i1"}


def test_adding_the_same_again_changes_nothing(lake):
    growing(lake).add(rows(["a", "b"]))
    version, _ = lake.shards("embeddings")

    assert growing(lake).add(rows(["a", "b"], value=5.0)) == 0
    assert growing(lake).add(rows(["b", "c"], value=7.0)) == 1

    assert lake.shards("embeddings")[0] == version + 1
    assert held(lake) == [("a", 0.0, "i1"), ("b", 0.0, "i1"), ("c", 7.0, "i1")]


def test_a_row_made_from_something_else_takes_the_old_one_s_place(lake):
    growing(lake).add(rows(["a", "b"]))
    growing(lake).add(rows(["c"]))
    untouched = paths(lake)
    growing(lake).add(rows(["d"]))

    assert growing(lake).add(rows(["d"], "i2", 9.0)) == 1
    assert untouched < paths(lake)
    assert growing(lake).add(rows(["a", "e"], "i2", 8.0)) == 2

    assert held(lake) == [
        ("a", 8.0, "i2"), ("b", 0.0, "i1"), ("c", 0.0, "i1"), ("d", 9.0, "i2"), ("e", 8.0, "i2"),
    ]  # fmt: skip


def test_other_units_of_a_shared_shard_stay(lake):
    mixed = pa.concat_tables([rows(["a"], unit="other@1"), rows(["a", "b"])])
    write_results(lake, SET, {"embeddings": [mixed]})

    growing(lake).add(rows(["a"], "i2", 3.0))

    assert held(lake) == [("a", 3.0, "i2"), ("b", 0.0, "i1")]
    assert held(lake, "other@1") == [("a", 0.0, "i1")]


def test_rows_of_unknown_make_are_replaced(lake):
    write_results(lake, SET, {"embeddings": [rows(["a"], None)]})

    assert growing(lake).add(rows(["a"], "i1", 4.0)) == 1
    assert held(lake) == [("a", 4.0, "i1")]


def add_some(url, names, value):
    growing(Lake.open(url)).add(rows(names, value=value))


def test_many_writers_at_once_leave_each_key_once(lake):
    names = [f"l{number}" for number in range(20)]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add_some, args=(lake.url, names[at:], float(at))) for at in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()

    assert [writer.exitcode for writer in writers] == [0] * 4
    assert sorted(name for name, *_ in held(lake)) == sorted(names)


def test_a_table_of_an_older_release_gets_its_new_columns(lake):
    old = pa.schema([field for field in EMBEDDINGS.schema if field.name != "lesion_ingest_id"])
    DeltaTable.create(lake.table_folder("embeddings").url, schema=old)
    growing(lake).add(rows(["a"]))

    names = [field.name for field in lake.delta("embeddings").schema().fields]
    assert names == list(EMBEDDINGS.column_names)
    assert Field.from_arrow(EMBEDDINGS.schema.field("lesion_ingest_id")) in lake.delta("embeddings").schema().fields
    assert held(lake) == [("a", 0.0, "i1")]
