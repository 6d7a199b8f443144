"""Places that models gave: PACS lesions get into the set `location`, and only lesions that moved are read again."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from etl.ingest import ingest
from etl.planning import plan_sources
from lesionary.lake import Lake
from lesionary.results import remove_results, write_results
from lesionary.schema import LOCATION_MODELS, LOCATIONS
from lesionary.settings import IngestSettings
from store.database import open_reader
from store.features import find_set, open_vectors
from store.sync import sync


@pytest.fixture(scope="module")
def ingested(tmp_path_factory, phantom_pacs):
    folder = tmp_path_factory.mktemp("located")
    settings = IngestSettings(key_file=str(folder / "key"))
    lake = Lake.create(str(folder / "lake"))
    ingest(lake, plan_sources([str(phantom_pacs[0])], settings), settings)
    return lake


@pytest.fixture
def lake(ingested):
    yield ingested
    for name in (
        ingested.read("location_models")["model_id"].to_pylist() if ingested.has_table("location_models") else ()
    ):
        remove_results(ingested, name, ["locations", "location_models"])


def put(lake, model, heights, made_at):
    """What `locate` writes of one model."""
    rows = [{"model_id": model, "lesion_id": name, "x": None, "y": None, "z": z} for name, z in heights.items()]
    record = dict.fromkeys(LOCATION_MODELS.column_names) | {
        "model_id": model, "model_created_at": made_at, "created_at": made_at, "release_lesions": 0, "series": 1,
        "lesions": len(rows), "lesions_version": 1,
    }  # fmt: skip
    write_results(
        lake,
        model,
        {
            "locations": [pa.Table.from_pylist(rows, schema=LOCATIONS.schema)],
            "location_models": [pa.Table.from_pylist([record], schema=LOCATION_MODELS.schema)],
        },
    )


def day(number):
    return datetime(2026, 1, number, tzinfo=UTC)


def placed(path):
    """Lesion to its number, z, and the model that gave it."""
    with open_reader(path) as connection:
        rows = connection.execute(
            "SELECT lesion_id, lesion_number, location_z, located_by FROM lake_rows.lesion_features ORDER BY ALL"
        ).fetchall()
        found = find_set(connection, "location")
        vectors = open_vectors(connection, path, found)
        by_number = dict(zip(vectors.lesions.tolist(), vectors.matrix[:, 2].tolist(), strict=True))
    assert by_number == pytest.approx({number: z for _, number, z, _ in rows if z is not None})
    assert found.lesions == len(by_number)
    return {name: (number, z, model) for name, number, z, model in rows}


def test_located_lesions_get_into_the_location_set(lake, tmp_path):
    path = tmp_path / "f.duckdb"
    sync(lake, path)
    before = placed(path)
    names = sorted(before)
    assert {z for _, z, _ in before.values()} == {None}

    put(lake, "ssbr-1", {name: at / 100 for at, name in enumerate(names[:-1])}, day(1))
    sync(lake, path)
    after = placed(path)

    assert [after[name][1:] for name in names] == [(at / 100, "ssbr-1") for at in range(len(names) - 1)] + [
        (None, None)
    ]
    fresh = tmp_path / "fresh.duckdb"
    sync(lake, fresh)
    assert {name: row[1:] for name, row in placed(fresh).items()} == {name: row[1:] for name, row in after.items()}


def test_only_lesions_that_moved_are_numbered_anew(lake, tmp_path):
    path = tmp_path / "f.duckdb"
    names = sorted(lake.read("lesions")["lesion_id"].to_pylist())
    heights = {name: at / 100 for at, name in enumerate(names)}
    put(lake, "ssbr-1", heights, day(1))
    sync(lake, path)
    before = placed(path)

    put(lake, "ssbr-1", heights | {names[0]: 0.9}, day(1))
    sync(lake, path)
    after = placed(path)

    assert [name for name in names if before[name] != after[name]] == names[:1]
    assert after[names[0]][1] == 0.9


def test_newest_model_places_lesions_whatever_the_order_of_runs(lake, tmp_path):
    path = tmp_path / "f.duckdb"
    names = lake.read("lesions")["lesion_id"].to_pylist()
    put(lake, "neck-1", dict.fromkeys(names, 0.7), day(3))
    put(lake, "ssbr-2", dict.fromkeys(names, 0.2), day(2))
    sync(lake, path)
    assert {row[1:] for row in placed(path).values()} == {(0.7, "neck-1")}

    remove_results(lake, "neck-1", ["locations", "location_models"])
    sync(lake, path)
    assert {row[1:] for row in placed(path).values()} == {(0.2, "ssbr-2")}


def test_the_releases_place_comes_before_a_models(release, tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    ingest(lake, plan_sources([str(release)], IngestSettings()), IngestSettings())
    names = lake.read("lesions")["lesion_id"].to_pylist()
    put(lake, "ssbr-1", dict.fromkeys(names, 0.25), day(1))
    sync(lake, tmp_path / "f.duckdb")

    assert {row[1:] for row in placed(tmp_path / "f.duckdb").values()} == {(0.6, None)}


def test_places_of_a_model_that_has_not_ended_its_run_are_not_taken(lake, tmp_path):
    names = lake.read("lesions")["lesion_id"].to_pylist()
    rows = [{"model_id": "ssbr-1", "lesion_id": name, "x": None, "y": None, "z": 0.5} for name in names]
    write_results(lake, "ssbr-1", {"locations": [pa.Table.from_pylist(rows, schema=LOCATIONS.schema)]})
    sync(lake, tmp_path / "f.duckdb")

    assert {row[1:] for row in placed(tmp_path / "f.duckdb").values()} == {(None, None)}
    remove_results(lake, "ssbr-1", ["locations"])
