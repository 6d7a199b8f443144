"""Feature sets: built in, imported, versioned, dropped, described, compared."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import annotation_csv, annotation_row
from small_stores import make_store

from etl.ingest import ingest
from etl.planning import plan_sources
from lesionary.errors import LakeError, SourceError, UsageError
from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.schema import EMBEDDINGS
from lesionary.settings import IngestSettings
from store.database import open_reader
from store.feature_files import drop_set, import_set
from store.feature_reports import compare, describe
from store.features import find_set, list_sets, open_vectors
from store.similar import Searcher
from store.sync import sync

NAMES = [f"dl-{number}" for number in range(1, 9)]


@pytest.fixture
def lake(tmp_path):
    rows = [annotation_row(File_name=f"00000{number}_01_01_003.png") for number in range(1, 9)]
    return take_in(Lake.create(str(tmp_path / "lake")), tmp_path, rows)


def take_in(lake, folder, rows):
    table = folder / f"{len(rows)}.csv"
    table.write_bytes(annotation_csv(*rows))
    settings = IngestSettings(annotations_only=True)
    ingest(lake, plan_sources([str(table)], settings), settings)
    return lake


def write_file(path, names=NAMES, dimension=6, **columns):
    vectors = np.random.default_rng(len(names)).normal(size=(len(names), dimension)).astype(np.float32)
    data = {"lesion_id": list(names), "vector": list(vectors)} | columns
    pq.write_table(pa.table(data), path)
    return path


def sets_in(path):
    with open_reader(path) as connection:
        return {one.feature_set_id: one for one in list_sets(connection)}


def tables_in(path):
    with open_reader(path) as connection:
        rows = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'features'").fetchall()
        views = connection.execute("SELECT view_name FROM duckdb_views() WHERE schema_name = 'features'").fetchall()
    return {name for (name,) in [*rows, *views]}


def test_built_in_sets_hold_location_and_size(tmp_path):
    path = make_store(
        tmp_path / "f.duckdb",
        [
            {"lesion_id": "a", "release_x": 0.1, "release_y": 0.2, "release_z": 0.3, "long_mm": 50.0, "short_mm": 25.0},
            {"lesion_id": "b", "release_z": None},
            {"lesion_id": "c", "short_mm": None},
        ],
    )
    with open_reader(path) as connection:
        held = {
            name: dict(connection.execute(f'SELECT lesion_id, vector FROM features."{name}"').fetchall())
            for name in ("location", "size", "location+size", "location@1")
        }

    assert held["location"]["a"] == pytest.approx((0.1, 0.2, 0.3))
    assert held["size"]["a"] == pytest.approx((0.5, 0.25))
    assert held["location+size"]["a"] == pytest.approx((0.1, 0.2, 0.3, 0.5, 0.25))
    assert [sorted(held[name]) for name in ("location", "size", "location+size")] == [["a", "c"], ["a", "b"], ["a"]]
    assert held["location@1"] == held["location"]


def test_imported_set_is_searched_by_name_and_gets_a_new_version_each_time(lake, tmp_path):
    path = tmp_path / "f.duckdb"
    first = import_set(lake, write_file(tmp_path / "v.parquet"), "made", "model a")
    second = import_set(lake, write_file(tmp_path / "w.parquet", NAMES[:5], 4), "made", "model b")
    sync(lake, path)

    assert (first.feature_set_id, first.dimension, first.vectors) == ("made@1", 6, 8)
    assert (second.feature_set_id, second.dimension, second.vectors) == ("made@2", 4, 5)
    found = sets_in(path)
    assert (found["made@1"].lesions, found["made@2"].lesions) == (8, 5)
    assert (found["made@1"].model_id, found["made@2"].model_id) == ("model a", "model b")
    assert len(found["made@1"].mean) == 6
    with open_reader(path) as connection:
        assert find_set(connection, "made").feature_set_id == "made@2"
        searcher = Searcher(connection, path, "made@1")
        queries, _, _ = searcher.queries_for(NAMES)
        assert len(searcher.search(queries, 3)) == 8
        kinds = connection.execute("SELECT DISTINCT typeof(vector) FROM features.made").fetchall()
    assert kinds == [("FLOAT[4]",)]


def test_vectors_read_from_the_store_are_those_of_the_file(lake, tmp_path):
    file = write_file(tmp_path / "v.parquet")
    import_set(lake, file, "made", "m")
    sync(lake, tmp_path / "f.duckdb")
    with open_reader(tmp_path / "f.duckdb") as connection:
        vectors = open_vectors(connection, tmp_path / "f.duckdb", find_set(connection, "made"))
        names = dict(connection.execute("SELECT lesion_number, lesion_id FROM lake_rows.lesion_features").fetchall())

    wanted = {row["lesion_id"]: row["vector"] for row in pq.read_table(file).to_pylist()}
    for number, vector in zip(vectors.lesions.tolist(), vectors.matrix, strict=True):
        assert vector.tolist() == wanted[names[number]]


def test_dropped_set_leaves_lake_and_store_and_its_number_may_come_again(lake, tmp_path):
    path = tmp_path / "f.duckdb"
    import_set(lake, write_file(tmp_path / "v.parquet"), "made", "m")
    sync(lake, path)
    assert {"made", "made@1"} <= tables_in(path)

    drop_set(lake, "made@1")
    sync(lake, path)

    assert not {"made", "made@1"} & tables_in(path)
    assert "made@1" not in sets_in(path)
    assert lake.read("embeddings").num_rows == 0
    again = import_set(lake, write_file(tmp_path / "w.parquet", dimension=3), "made", "m")
    sync(lake, path)
    assert again.feature_set_id == "made@1"
    assert sets_in(path)["made@1"].dimension == 3


def test_dropping_and_importing_anew_between_two_syncs_takes_the_new_vectors(lake, tmp_path):
    path = tmp_path / "f.duckdb"
    import_set(lake, write_file(tmp_path / "v.parquet"), "made", "m")
    sync(lake, path)
    drop_set(lake, "made@1")
    import_set(lake, write_file(tmp_path / "w.parquet", NAMES[:2], 3), "made", "m")
    sync(lake, path)

    assert (sets_in(path)["made@1"].dimension, sets_in(path)["made@1"].lesions) == (3, 2)


def test_vectors_whose_set_nobody_described_wait_for_it(lake, tmp_path):
    path = tmp_path / "f.duckdb"
    rows = pa.table(
        {"feature_set_id": ["made@1"], "lesion_id": ["dl-1"], "vector": [[1.0, 2.0]], "lesion_ingest_id": [None]},
        schema=EMBEDDINGS.schema,
    )
    write_results(lake, "made@1", {"embeddings": [rows]})
    sync(lake, path)
    assert "made@1" not in sets_in(path)

    # What a killed import left is replaced by the next one.
    import_set(lake, write_file(tmp_path / "v.parquet"), "made", "m")
    sync(lake, path)

    assert sets_in(path)["made@1"].lesions == 8


@pytest.mark.parametrize("name", ["location", "size", "location+size"])
def test_built_in_sets_can_neither_be_dropped_nor_replaced(lake, tmp_path, name):
    with pytest.raises(UsageError, match="cannot be dropped"):
        drop_set(lake, f"{name}@1")
    with pytest.raises(UsageError, match="built-in feature set has this name"):
        import_set(lake, write_file(tmp_path / "v.parquet"), name, "m")


def test_absent_set_cannot_be_dropped(lake):
    with pytest.raises(LakeError, match="the lake has no such feature set"):
        drop_set(lake, "made@1")


@pytest.mark.parametrize("name", ["", "Made", "1made", 'a"b', "a b", "a@1", "a" * 64, "a;drop"])
def test_names_that_could_not_stand_in_sql_are_refused(lake, tmp_path, name):
    with pytest.raises(UsageError, match="feature set's name"):
        import_set(lake, write_file(tmp_path / "v.parquet"), name, "m")


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"lesion_id": ["dl-1"] * 8}, "stands in it twice"),
        ({"lesion_id": [None, *NAMES[1:]]}, "has no name"),
        ({"vector": [[1.0]] * 7 + [[1.0, 2.0]]}, "one length"),
        ({"vector": [[1.0]] * 7 + [None]}, "one length"),
        ({"vector": [[]] * 8}, "one length"),
        ({"vector": [[float("nan")]] * 8}, "not finite"),
        ({"vector": [[1e25]] * 8}, "too large for distances"),
        ({"vector": ["text"] * 8}, "cannot be read"),
    ],
)
def test_files_with_other_content_are_refused_and_leave_nothing(lake, tmp_path, columns, sentence):
    with pytest.raises(SourceError, match=sentence):
        import_set(lake, write_file(tmp_path / "v.parquet", **columns), "made", "m")

    assert lake.read("feature_sets").num_rows == lake.read("embeddings").num_rows == 0


@pytest.mark.parametrize("content", [b"", b"no parquet", b"PAR1" + bytes(50)])
def test_files_that_are_no_parquet_are_refused(lake, tmp_path, content):
    (tmp_path / "v.parquet").write_bytes(content)

    with pytest.raises(SourceError, match=r"v\.parquet: no feature set"):
        import_set(lake, tmp_path / "v.parquet", "made", "m")


def test_file_without_the_columns_or_rows_is_refused(lake, tmp_path):
    pq.write_table(pa.table({"lesion_id": ["dl-1"]}), tmp_path / "v.parquet")
    with pytest.raises(SourceError, match="one column lesion_id and one column vector are needed"):
        import_set(lake, tmp_path / "v.parquet", "made", "m")
    twice = [pa.array(["dl-1"]), pa.array(["dl-1"]), pa.array([[1.0]])]
    pq.write_table(pa.Table.from_arrays(twice, ["lesion_id", "lesion_id", "vector"]), tmp_path / "v.parquet")
    with pytest.raises(SourceError, match="one column lesion_id and one column vector are needed"):
        import_set(lake, tmp_path / "v.parquet", "made", "m")
    pq.write_table(
        pa.table({"lesion_id": pa.array([], pa.string()), "vector": pa.array([], pa.list_(pa.float32()))}),
        tmp_path / "w.parquet",
    )
    with pytest.raises(SourceError, match="no vector in it"):
        import_set(lake, tmp_path / "w.parquet", "made", "m")


def test_incremental_sync_of_new_lesions_equals_a_fresh_store(lake, tmp_path):
    path, fresh = tmp_path / "f.duckdb", tmp_path / "g.duckdb"
    import_set(lake, write_file(tmp_path / "v.parquet", [f"dl-{n}" for n in range(1, 13)]), "made", "m")
    sync(lake, path)
    assert sets_in(path)["made@1"].lesions == 8
    rows = [annotation_row(File_name=f"0000{number:02d}_01_01_003.png") for number in range(1, 13)]
    take_in(lake, tmp_path, rows)
    sync(lake, path)
    sync(lake, fresh)

    ours, theirs = sets_in(path), sets_in(fresh)
    assert ours["made@1"].lesions == theirs["made@1"].lesions == 12
    for file in (path, fresh):
        with open_reader(file) as connection:
            searcher = Searcher(connection, file, "made")
            queries, _, _ = searcher.queries_for(NAMES)
            hits = searcher.hits(searcher.search(queries, 5), 5)
        if file is path:
            before = hits
    assert hits == before


def test_description_counts_what_lesions_lack(tmp_path):
    path = make_store(
        tmp_path / "f.duckdb",
        [{"lesion_id": f"t-{at}", "patient_id": f"p{at}", "release_x": at / 10} for at in range(8)]
        + [{"lesion_id": "t-9", "short_mm": None, "release_z": None}],
    )
    with open_reader(path) as connection:
        report = describe(connection, path, find_set(connection, "location+size"))

    assert (report.lesions_in_store, report.without_vector) == (9, 1)
    assert report.lacking == {"short_mm": 1, "location_z": 1}
    assert report.nearest_other_patient["50%"] == pytest.approx(0.1)
    assert 0.1 <= report.any_two_lesions["50%"] <= 0.7


def test_comparison_of_a_set_with_itself_and_with_noise(tmp_path):
    generator = np.random.default_rng(2)
    names = [f"t-{at}" for at in range(200)]
    made = {name: generator.normal(size=4) for name in names}
    noise = {name: generator.normal(size=4) for name in names[:150]}
    path = make_store(
        tmp_path / "f.duckdb",
        [{"lesion_id": name, "patient_id": name} for name in names],
        {"made": made, "same": {name: vector * 2 for name, vector in made.items()}, "noise": noise},
    )
    with open_reader(path) as connection:
        made_set, same, noise_set = (find_set(connection, name) for name in ("made", "same", "noise"))
        alike = compare(connection, path, made_set, same)
        unlike = compare(connection, path, made_set, noise_set)

    assert (alike.in_both, alike.shared_neighbours) == (200, 1.0)
    assert alike.rank_correlation == pytest.approx(1.0)
    assert (unlike.in_both, unlike.only_first, unlike.only_second) == (150, 50, 0)
    assert unlike.shared_neighbours < 0.2
    assert abs(unlike.rank_correlation) < 0.1
