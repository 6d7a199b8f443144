"""Training sets: the vectors and labels asked for, no patient in two parts, and a recipe that makes them again."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from small_stores import make_store

from lesionary.artifacts import file_sha256
from lesionary.errors import StoreError, UsageError
from lesionary.splits import split_of_patient
from store.database import open_reader
from store.training_sets import TrainingSetSettings, export_training_set

PARTS = ("train", "val", "test", None)


@pytest.fixture
def path(tmp_path):
    lesions = [
        {
            "lesion_id": f"t-{at:02d}",
            "patient_id": f"t-p{at % 8}",
            "split": PARTS[at % 4],
            "study_index": 1 + at // 8,
            "study_day": None if at % 5 == 0 else at * 10,
            "series_id": f"s{at}",
            "release_x": at / 40,
            "release_z": None if at == 3 else 0.5,
        }
        for at in range(32)
    ]
    return make_store(tmp_path / "f.duckdb", lesions)


def export(path, target, **settings):
    with open_reader(path) as connection:
        written = export_training_set(connection, path, target, TrainingSetSettings("location", **settings))
    return (
        written,
        pq.read_table(target).to_pylist(),
        json.loads((target.parent / f"{target.name}.recipe.json").read_text()),
    )


def test_rows_carry_vectors_labels_and_parts(path, tmp_path):
    written, rows, recipe = export(path, tmp_path / "x.parquet")

    assert (written.rows, written.without_vector, written.patients) == (31, 1, 8)
    assert [row["lesion_id"] for row in rows] == [f"t-{at:02d}" for at in range(32) if at != 3]
    for row in rows:
        at = int(row["lesion_id"][2:])
        assert row["vector"] == pytest.approx(np.array([at / 40, 0.5, 0.5], np.float32))
        assert row["lesion_type"] == "lung"
        source = PARTS[at % 4]
        assert row["split"] == (source or split_of_patient(row["patient_id"]))
    assert sum(written.by_split.values()) == 31
    assert recipe["feature_set"]["id"] == "location@1"
    assert recipe["settings"]["feature_set"] == "location"


def test_recipe_names_the_file_and_repeats_it_byte_for_byte(path, tmp_path):
    first, _, recipe = export(path, tmp_path / "a.parquet", where="long_mm > 1", as_of="200")
    second, _, again = export(path, tmp_path / "b.parquet", **{
        name: value for name, value in recipe["settings"].items() if name != "feature_set"
    })  # fmt: skip

    with (tmp_path / "a.parquet").open("rb") as stream:
        assert file_sha256(stream) == first.sha256 == recipe["written"]["sha256"]
    assert second == first
    assert again == recipe


def test_patient_is_in_one_part_even_where_the_source_disagrees(tmp_path):
    lesions = [{"lesion_id": f"t-{part}", "patient_id": "t-p1", "split": part} for part in ("test", "val", None)]
    _, rows, _ = export(make_store(tmp_path / "f.duckdb", lesions), tmp_path / "x.parquet")

    assert {row["split"] for row in rows} == {"val"}


def test_patient_keeps_its_part_whatever_the_condition_leaves_of_it(tmp_path):
    lesions = [
        {"lesion_id": f"t-{part}", "patient_id": "t-p1", "split": part, "series_id": f"s{at}", "study_index": at}
        for at, part in enumerate(("test", "train", None), start=1)
    ]
    path = make_store(tmp_path / "f.duckdb", lesions)
    for settings in ({"where": "lesion_id = 't-test'"}, {"as_of": "study:1"}, {"where": "split IS NULL"}):
        _, rows, _ = export(path, tmp_path / "x.parquet", **settings)
        assert [row["split"] for row in rows] == ["train"]


def test_lesions_without_a_vector_make_no_training_set(tmp_path):
    path = make_store(tmp_path / "f.duckdb", [{"release_z": None}])
    with pytest.raises(StoreError, match="none of the 1 lesions has a vector in feature set location@1"):
        export(path, tmp_path / "x.parquet")
    assert not (tmp_path / "x.parquet").exists()


def test_split_by_patient_follows_the_salt_and_one_part_can_be_had(path, tmp_path):
    _, plain, _ = export(path, tmp_path / "a.parquet", split_by="patient")
    _, salted, _ = export(path, tmp_path / "b.parquet", split_by="patient", salt="1")
    written, train, _ = export(path, tmp_path / "c.parquet", split_by="patient", part="train")

    assert all(row["split"] == split_of_patient(row["patient_id"]) for row in plain)
    assert all(row["split"] == split_of_patient(row["patient_id"], salt="1") for row in salted)
    assert [row["split"] for row in plain] != [row["split"] for row in salted]
    assert train == [row for row in plain if row["split"] == "train"]
    assert dict(written.by_split) == {"train": len(train)}


@pytest.mark.parametrize(
    ("as_of", "keeps"),
    [
        ("120", lambda at: at % 5 and at * 10 <= 120),
        ("0", lambda at: False),
        ("study:2", lambda at: at < 16),
        (" study:1 ", lambda at: at < 8),
    ],
)
def test_only_what_was_known_by_the_day_goes_in(path, tmp_path, as_of, keeps):
    wanted = [f"t-{at:02d}" for at in range(32) if keeps(at) and at != 3]
    if not wanted:
        with pytest.raises(StoreError, match="--as-of: no lesion is left"):
            export(path, tmp_path / "x.parquet", as_of=as_of)
        return
    _, rows, _ = export(path, tmp_path / "x.parquet", as_of=as_of)

    assert [row["lesion_id"] for row in rows] == wanted


@pytest.mark.parametrize("as_of", ["", "-1", "soon", "study", "study:", "1.5", "1; DROP TABLE x", "1 OR true"])
def test_day_that_is_none_is_refused(path, tmp_path, as_of):
    with pytest.raises(UsageError, match="--as-of: a day since the patient's first study is needed, or study:N"):
        export(path, tmp_path / "x.parquet", as_of=as_of)
    assert not (tmp_path / "x.parquet").exists()


def test_a_part_without_a_lesion_is_refused(path, tmp_path):
    with pytest.raises(StoreError, match="--split: no lesion is in part train; --split-by patient makes parts"):
        export(path, tmp_path / "x.parquet", part="train", where="split = 'test'")
    assert not (tmp_path / "x.parquet").exists()
