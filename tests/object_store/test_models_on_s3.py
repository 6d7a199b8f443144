"""Training, embedding and models in a lake on a real S3 server behind a proxy that spoils requests."""

import json
import re

import numpy as np
import pytest
from faults.processes import wait_for
from object_store.fault_proxy import Fault, FaultPlan
from object_store.workloads import finished, problems_of, start
from safetensors.numpy import load
from small_training.driver import driver, killed_at_checkpoint

from lesionary.lake import Lake
from lesionary.models import find_model, list_models, read_weights, run_folder
from lesionary.object_stores import read_object
from trainers.runs import Run

SEED = 20_261_127
RATE = 0.05
SMALL = ("--preset", "smoke", "--steps", "4", "--threads", "1", "--set", "checkpoint_every=1")
FEW_LABELS = ("--set", "refine_steps=1", "--set", "anchor_share=0.3")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def command(store, *words):
    """What a command says, which has to end well."""
    code, said = finished(start(store, *map(str, words)))
    assert code == 0, (SEED, said)
    return said


def vectors(lake):
    """Every lesion's vector, in the lesions' order."""
    table = lake.read("embeddings", columns=["lesion_id", "vector"]).sort_by("lesion_id")
    return table["lesion_id"].to_pylist(), np.asarray(table["vector"].to_pylist())


def test_training_and_embedding_under_faults_end_as_on_a_disk(store, tmp_path):
    command(
        store, "phantom", "release", tmp_path / "p", "--patients", 30, "--image-size", 64, "--max-slices-per-series", 3
    )
    places = {"local": str(tmp_path / "lake"), "remote": f"{store.new_place('lake')}/lake"}
    for name, lake in places.items():
        command(store, "ingest", tmp_path / "p", "--lake", lake, "--workers", 1)
        store.proxy.use(FaultPlan(SEED, RATE if name == "remote" else 0.0))
        command(store, "train", "triplet", "--lake", lake, "--run", "r1", *SMALL, *FEW_LABELS)
        command(store, "embed", "--lake", lake, "--model", "triplet")
        command(store, "models", "export", "triplet", tmp_path / name, "--lake", lake)

    counts = store.proxy.counts()
    store.proxy.use(FaultPlan(SEED, 0.0))
    assert counts.faults.total() >= 20, (SEED, counts)
    here, there = (Lake.open(lake) for lake in places.values())
    assert read_weights(there, find_model(there, "triplet")) == read_weights(here, find_model(here, "triplet"))
    exported = [(tmp_path / name / "weights.safetensors").read_bytes() for name in places]
    assert exported[0] == exported[1]
    lesions, expected = vectors(here)
    assert vectors(there)[0] == lesions
    np.testing.assert_array_equal(vectors(there)[1], expected)
    assert there.read("labels").num_rows == here.read("labels").num_rows > 0
    assert problems_of(places["remote"]) == ()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.ray)])
def test_killed_training_under_faults_is_gone_on_with_to_the_same_weights(store, tmp_path, workers):
    lake = Lake.create(f"{store.new_place('training')}/lake")
    store.proxy.use(FaultPlan(SEED, RATE))
    environment = store.environment()
    killed_at_checkpoint(lake.url, tmp_path, environment, workers=workers)

    again = wait_for(driver(lake.url, tmp_path, environment, workers=workers, resume=True))

    assert again.code == 0, (SEED, again.said)
    store.proxy.use(FaultPlan(SEED, 0.0))
    (card,) = list_models(lake)
    result = json.loads(
        read_object(lake.location.filesystem, lake.location.join("models", "runs", "r1", "result.json"))
    )
    trained = result["returned"]["trained"]
    assert (trained["steps_done"], trained["resumed_from"], trained["world"]) == (22, 10, workers)
    local = Lake.create(str(tmp_path / "whole"))
    (tmp_path / "stopped").touch()
    assert wait_for(driver(local.url, tmp_path)).code == 0
    whole = load(read_weights(local, *list_models(local)))
    for name, weights in load(read_weights(lake, card)).items():
        if workers == 1:
            np.testing.assert_array_equal(weights, whole[name])
        else:
            np.testing.assert_allclose(weights, whole[name], rtol=1e-4, atol=1e-6)


def test_store_that_fails_for_good_blames_neither_the_run_nor_the_model(store, tmp_path, monkeypatch):
    lake = Lake.create(f"{store.new_place('failing')}/lake")
    (tmp_path / "stopped").touch()
    ended = wait_for(driver(lake.url, tmp_path, store.environment()))
    assert ended.code == 0, ended.said
    monkeypatch.setenv("LESIONARY_OBJECT_STORE_ATTEMPTS", "2")
    lake = Lake.open(lake.url)
    (card,) = list_models(lake)
    run = Run("r1", run_folder(lake, "r1"))
    store.proxy.use(FaultPlan(SEED, 1.0, (Fault.SERVER_ERROR,)))

    for question in (run.record, run.result, lambda: find_model(lake, "small-1"), lambda: read_weights(lake, card)):
        with pytest.raises(OSError, match="AWS Error"):
            question()
    code, said = finished(start(store, "models", "describe", "small-1", "--lake", lake.url))
    assert code == 2
    assert re.search(r"^lesionary: .*(store|cannot be)", said)
    assert "remove" not in said
