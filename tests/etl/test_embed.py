"""Embedding: all lesions that can have a vector get one, once, whoever is killed; new ones join the set."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from conftest import annotation_csv, annotation_row, write_release
from faults.digests import vectors_of
from small_models import publish_small, small_net

from etl.embed import EmbeddingModel, embed
from etl.ingest import ingest
from etl.patch_cutting import PatchSettings
from etl.patches import find_patches, make_patches
from etl.planning import plan_sources
from etl.running import run_here
from lesionary.caches import open_cache
from lesionary.errors import ArtifactError, LakeError, UsageError
from lesionary.lake import Lake
from lesionary.results import write_results
from lesionary.schema import EMBEDDINGS, FEATURE_SETS
from lesionary.settings import IngestSettings
from store.database import open_reader
from store.features import find_set
from store.match_runs import thresholds_for
from store.sync import sync
from trainers.batches import PatchSource, inference_batches
from trainers.triplet.inference import EmbedderMaker, InferenceSettings

SIDE = 160
FP32 = InferenceSettings(precision="fp32", batch_size=8)


def marks(patient, studies=2, wide=False):
    """Three marks on one slice in each study of a patient, and one on the next slice."""
    rows = []
    for study in range(1, studies + 1):
        for at, x in enumerate((50, 70, 90, 110)):
            half = 40 if wide and at == 0 else 8
            rows.append(
                annotation_row(
                    File_name=f"{patient:06d}_{study:02d}_01_{3 if at < 3 else 4:03d}.png",
                    Measurement_coordinates=f"{x - half}, 60, {x + half}, 60, {x}, 55, {x}, 65",
                    Bounding_boxes=f"{x - half - 5}, 50, {x + half + 5}, 70",
                    Image_size=f"{SIDE}, {SIDE}",
                    Spacing_mm_px_="1, 1, 2",
                )
            )
    return rows


def take_in(lake, folder, patients, *, lacking=0, **changes):
    rows = [row for patient in patients for row in marks(patient, **changes)]
    rows += [annotation_row(File_name=f"{900 + n:06d}_01_01_003.png") for n in range(lacking)]
    series = {f"{patient:06d}_{study:02d}_01": range(1, 6) for patient in patients for study in (1, 2)}
    source = write_release(folder, series, rows, SIDE)
    plan = plan_sources([str(source)], IngestSettings(namespace=folder.name))
    ingest(lake, plan, IngestSettings(), choose_runner=lambda _: (run_here, 1))


@pytest.fixture
def lake(tmp_path):
    """Two patients with eight marks each, and one lesion without its slice."""
    lake = Lake.create(str(tmp_path / "lake"))
    take_in(lake, tmp_path / "one", (1, 2), lacking=1)
    return lake


def model_of(lake, card=None, settings=FP32):
    card = card or publish_small(lake)
    name, _, number = card.model_id.rpartition("-")
    return EmbeddingModel(card.model_id, name, int(number), EmbedderMaker(lake.url, card.model_id, settings))


def shards_of(lake):
    return {shard.path for shard in lake.shards("embeddings")[1]}


def test_vectors_are_what_the_network_says_of_the_cached_patches(lake):
    model = model_of(lake)
    done = embed(lake, model)

    source = PatchSource(open_cache(find_patches(lake).url))
    found = vectors_of(lake)
    assert (done.lesions, done.kept, done.embedded, done.left_out) == (17, 0, 16, {"key_slice_missing": 1})
    assert set(found) == set(source.lesion_ids)
    net = small_net()
    for batch in inference_batches(source, 4, 4.0):
        with torch.inference_mode():
            expected = net(batch.images, batch.boxes, batch.extents)
        for row, vector in zip(batch.rows, expected.numpy(), strict=True):
            np.testing.assert_allclose(found[source.lesion_ids[row]], vector, atol=1e-5)
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_second_run_finds_nothing_to_do(lake):
    model = model_of(lake)
    embed(lake, model)
    before = lake.snapshot().versions

    def refuse(_):
        raise AssertionError("no model is needed")

    again = embed(lake, model, choose_inference=lambda count: (_none(count), 1), choose_runner=refuse)

    assert (again.kept, again.embedded, again.left_out) == (16, 0, {"key_slice_missing": 1})
    assert lake.snapshot().versions == before


def _none(count):
    def run(tasks, make_model):
        assert not list(tasks)
        return iter(())

    return run


def test_lesions_of_a_later_ingest_join_the_set_and_old_shards_stay(lake, tmp_path):
    model = model_of(lake)
    embed(lake, model)
    store = tmp_path / "f.duckdb"
    sync(lake, store)
    old, shards = vectors_of(lake), shards_of(lake)
    # Few against those that are there: no cache of all is made for them.
    take_in(lake, tmp_path / "two", (3,), studies=1)

    done = embed(lake, model)
    found = vectors_of(lake)

    assert find_patches(lake) is None
    assert (done.embedded, done.kept, done.left_out) == (4, 16, {"key_slice_missing": 1})
    assert shards < shards_of(lake)
    assert all((found[name] == old[name]).all() for name in old)
    told = {one.table: one for one in sync(lake, store)}
    assert (told["embeddings"].rows_added, told["embeddings"].rows_removed) == (4, 0)
    with open_reader(store) as connection:
        assert find_set(connection, "triplet").lesions == 20


def test_cut_on_the_spot_and_cached_patches_give_the_same_vectors(lake, tmp_path):
    take_in(lake, tmp_path / "two", (3, 4, 5, 6), wide=True)
    cached = model_of(lake)
    spot = model_of(lake, publish_small(lake, "other"))
    make_patches(lake)
    embed(lake, cached)
    cache = find_patches(lake).url
    some = [name for name in vectors_of(lake) if name.startswith("two")]
    rows = lake.read("embeddings", where=~pc.field("lesion_id").isin(some[:5]))
    moved = rows.set_column(0, "feature_set_id", [["other@1"] * rows.num_rows]).cast(EMBEDDINGS.schema)
    write_results(lake, "other@1", {"embeddings": [moved]})
    Path(cache, "cache.json").unlink()

    done = embed(lake, spot)

    assert done.embedded == 5
    assert find_patches(lake) is None
    first, second = vectors_of(lake), vectors_of(lake, "other@1")
    assert first.keys() == second.keys()
    assert all(np.allclose(first[name], second[name], atol=1e-5) for name in first)


def test_a_cache_made_with_heights_serves_as_well(lake):
    cache = make_patches(lake, located={"one-1": 0.5})
    embed(lake, model_of(lake))

    assert find_patches(lake).url == cache.url


def test_a_lesion_taken_in_anew_gets_a_new_vector(lake, tmp_path):
    model = model_of(lake)
    embed(lake, model)
    old = vectors_of(lake)
    rows = [row for patient in (1, 2) for row in marks(patient)]
    rows[0] |= {"Measurement_coordinates": "30, 60, 90, 60, 60, 40, 60, 80", "Bounding_boxes": "25, 35, 95, 85"}
    (tmp_path / "one" / "DL_info.csv").write_bytes(annotation_csv(*rows))
    settings = IngestSettings(namespace="one")
    ingest(lake, plan_sources([str(tmp_path / "one")], settings), settings, choose_runner=lambda _: (run_here, 1))

    done = embed(lake, model)
    found = vectors_of(lake)

    assert done.embedded == 4  # its series was read again
    assert not np.allclose(found["one-1"], old["one-1"], atol=1e-4)
    assert all(np.allclose(found[name], old[name], atol=1e-5) for name in old if name != "one-1")


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(lake):
    card = publish_small(lake)
    make_patches(lake)
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from etl import embed as module
from etl.embed import EmbeddingModel, embed
from etl.inference import infer_here
from lesionary.lake import Lake
from trainers.triplet.inference import EmbedderMaker, InferenceSettings
module._FEWEST_PATCHES = module._MOST_PATCHES = 3
def dying(tasks, make_model):
    for number, result in enumerate(infer_here(tasks, make_model)):
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield result
maker = EmbedderMaker({lake.url!r}, "triplet-1", InferenceSettings(precision="fp32"))
model = EmbeddingModel("triplet-1", "triplet", 1, maker)
embed(Lake.open({lake.url!r}), model, choose_inference=lambda _: (dying, 1), commit_seconds=0)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(vectors_of(lake)) == 9
    assert not lake.has_table("feature_sets") or lake.read("feature_sets").num_rows == 0

    rest = embed(lake, model_of(lake, card))

    assert (rest.kept, rest.embedded) == (9, 7)
    assert len(vectors_of(lake)) == 16
    assert lake.read("feature_sets").num_rows == 1


def test_the_set_is_described_with_thresholds_that_match_takes(lake, tmp_path):
    take_in(lake, tmp_path / "two", range(3, 8))
    done = embed(lake, model_of(lake))
    (row,) = lake.read("feature_sets").to_pylist()

    assert (row["feature_set_id"], row["name"], row["version"], row["model_id"]) == (
        "triplet@1",
        "triplet",
        1,
        "triplet-1",
    )
    assert row["dimension"] == done.dimension == 16
    assert row["lesions_version"] == lake.shards("lesions")[0]
    assert 0 <= row["t1"] <= row["t2"] == done.t2
    sync(lake, tmp_path / "f.duckdb")
    with open_reader(tmp_path / "f.duckdb") as connection:
        known = thresholds_for(find_set(connection, "triplet"), None, None)
    assert (known.t1, known.t2) == (row["t1"], row["t2"])


def test_no_thresholds_are_recorded_where_marks_are_too_few(lake):
    done = embed(lake, model_of(lake))
    assert (done.t1, done.t2) == (None, None)


def test_a_set_of_somebody_else_is_left_alone(lake):
    model = model_of(lake)
    embed(lake, model)
    (row,) = lake.read("feature_sets").to_pylist()
    write_results(
        lake,
        "triplet@1",
        {"feature_sets": [pa.Table.from_pylist([row | {"model_id": "theirs"}], schema=FEATURE_SETS.schema)]},
    )
    with pytest.raises(UsageError, match="triplet@1 is there already, with vectors by theirs"):
        embed(lake, model)


def test_a_lake_without_lesions_is_refused(tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    with pytest.raises(LakeError, match="there is no lesion in it"):
        embed(lake, model_of(lake))


def test_patch_settings_are_the_model_s(lake):
    card = publish_small(lake)
    wide = EmbeddingModel(
        card.model_id, "triplet", 1, EmbedderMaker(lake.url, card.model_id, FP32), PatchSettings(context_mm=20.0)
    )
    embed(lake, wide)
    assert find_patches(lake) is None
    assert find_patches(lake, PatchSettings(context_mm=20.0)) is not None


@pytest.mark.slow
@pytest.mark.ray
def test_two_actors_on_ray_give_what_one_process_gives(lake, ray_cluster, tmp_path):
    from etl.inference_job import ActorPool

    take_in(lake, tmp_path / "two", range(3, 40))
    embed(lake, model_of(lake))
    told = []
    pool = ActorPool(actors=2)
    done = embed(
        lake,
        model_of(lake, publish_small(lake), InferenceSettings(precision="fp32", threads=1)),
        choose_inference=lambda _: (pool, 2),
        progress=lambda what, done, total: told.append((what, done, total)),
    )

    assert done.embedded == 16 + 37 * 8
    assert told[-1] == ("vectors", done.embedded, done.embedded + 1)
    assert len(told) > 2
    here, there = vectors_of(lake), vectors_of(lake, "triplet@2")
    assert here.keys() == there.keys()
    assert all(np.allclose(here[name], there[name], atol=1e-5) for name in here)


@pytest.mark.slow
@pytest.mark.ray
def test_ray_says_what_the_model_said_and_refuses_what_would_never_start(lake, ray_cluster):
    from etl.inference_job import ActorPool

    lost = model_of(lake)
    Path(lake.url, "models", "triplet-1", "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtifactError, match="not what was published"):
        embed(lake, lost, choose_inference=lambda _: (ActorPool(actors=2), 2))
    with pytest.raises(UsageError, match="more than the cluster's 0"):
        embed(lake, lost, choose_inference=lambda _: (ActorPool(actors=2, gpus=0.5), 2))
