"""The lake's models: numbered, whole or absent, found by name, refused when damaged."""

import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from lesionary.errors import ArtifactError, LesionaryError, UsageError
from lesionary.lake import Lake
from lesionary.locations import Location
from lesionary.models import (
    CARD_FILE,
    WEIGHTS_FILE,
    ModelDraft,
    find_model,
    hardware_record,
    list_models,
    publish,
    read_model_file,
    read_weights,
    run_folder,
    runs_folder,
)

ROOT = Path(__file__).parents[2]


def draft(**changes):
    fields = {
        "kind": "ssbr",
        "preset": "smoke",
        "settings": {"widths": (16, 32), "rate": 0.1},
        "lake": {"slices": 3},
        "data": {"volumes": np.int64(12)},
        "metrics": {"correlation": np.float32(0.5), "undefined": float("nan")},
        "seed": 4,
        "notes": ["a start from nothing"],
    }
    return ModelDraft(**(fields | changes))


@pytest.fixture
def lake(tmp_path):
    return Lake.create(str(tmp_path / "lake"))


@pytest.fixture(params=["disk", "store"])
def any_lake(request, tmp_path):
    """A lake on a disk, and one whose file system is not the machine's own: models take the object stores' way."""
    if request.param == "disk":
        return Lake.create(str(tmp_path / "lake"))
    (tmp_path / "bucket").mkdir()
    filesystem = fs.SubTreeFileSystem(str(tmp_path / "bucket"), fs.LocalFileSystem())
    return Lake(Location("mock://bucket/lake", filesystem, "lake"))


def card_path(lake, model_id):
    return Path(lake.url, "models", model_id, CARD_FILE)


def test_a_model_comes_back_as_it_was_published(any_lake):
    published = publish(any_lake, None, draft(), b"weights", {"curve.json": b"[1]"})

    found = find_model(any_lake, None, "ssbr")
    assert found == published
    assert found.model_id == "ssbr-1"
    assert found.settings == {"widths": [16, 32], "rate": 0.1}
    assert found.data == {"volumes": 12}
    assert found.metrics == {"correlation": 0.5, "undefined": None}
    assert read_weights(any_lake, found) == b"weights"
    assert read_model_file(any_lake, found, "curve.json") == b"[1]"
    assert found.hardware["cores"] >= 1
    assert len(found.code) == 16


def test_models_are_found_by_id_by_name_and_by_kind(any_lake):
    for name, kind in ((None, "ssbr"), ("ct-all", "triplet"), ("ct-all", "triplet"), ("ct", "triplet")):
        publish(any_lake, name, draft(kind=kind), b"")
    publish(any_lake, None, draft(), b"")

    assert {card.model_id for card in list_models(any_lake)} == {"ssbr-1", "ssbr-2", "ct-1", "ct-all-1", "ct-all-2"}
    assert {card.model_id for card in list_models(any_lake, "ssbr")} == {"ssbr-1", "ssbr-2"}
    assert find_model(any_lake, "ct-all-1").model_id == "ct-all-1"
    assert find_model(any_lake, "ct-all", "triplet").model_id == "ct-all-2"
    assert find_model(any_lake, None, "ssbr").model_id == "ssbr-2"


def test_numbers_are_compared_as_numbers(lake):
    for _ in range(11):
        publish(lake, None, draft(), b"")

    assert find_model(lake, None, "ssbr").model_id == "ssbr-11"
    assert find_model(lake, "ssbr").model_id == "ssbr-11"


def test_what_is_not_there_is_named_with_what_is(lake):
    with pytest.raises(UsageError, match="the lake has no triplet model yet; train one with `lesionary train triplet`"):
        find_model(lake, None, "triplet")
    publish(lake, None, draft(), b"")

    with pytest.raises(UsageError, match="no model 'ssbr-2'; there are ssbr-1"):
        find_model(lake, "ssbr-2")
    with pytest.raises(UsageError, match="ssbr-1 is a ssbr model, a triplet model is needed"):
        find_model(lake, "ssbr-1", "triplet")


@pytest.mark.parametrize("name", ["", "A", "1a", "a/b", "..", "a" * 42, "runs", "a b", "a\n"])
def test_names_that_could_not_be_folders_are_refused(lake, name):
    with pytest.raises(UsageError):
        publish(lake, name, draft(), b"")
    assert not Path(lake.url, "models").exists()


@pytest.mark.parametrize("name", ["../x", CARD_FILE, WEIGHTS_FILE, "claim-1", "a/b", ""])
def test_files_that_would_leave_the_folder_are_refused(lake, name):
    with pytest.raises(UsageError):
        publish(lake, None, draft(), b"", {name: b""})


@pytest.mark.parametrize("run", ["", "..", "a/b", ".hidden", "a" * 82])
def test_runs_have_names_too(lake, run):
    with pytest.raises(UsageError):
        run_folder(lake, run)


def test_runs_lie_beside_the_models_and_are_none(any_lake):
    folder = run_folder(any_lake, "night-1")

    assert folder.path == f"{any_lake.location.path}/models/runs/night-1"
    assert folder.url == f"{any_lake.url}/models/runs/night-1"
    assert runs_folder(any_lake).url == f"{any_lake.url}/models/runs"
    folder.filesystem.create_dir(folder.path, recursive=True)
    assert list_models(any_lake) == []


def test_publishers_at_once_get_a_number_each(any_lake):
    together = threading.Barrier(4)

    def one(at):
        together.wait()
        return publish(any_lake, None, draft(seed=at), bytes([at]))

    with ThreadPoolExecutor(4) as pool:
        cards = list(pool.map(one, range(4)))

    assert len({card.model_id for card in cards}) == 4
    assert sorted(card.seed for card in list_models(any_lake)) == [0, 1, 2, 3]
    assert all(read_weights(any_lake, card) == bytes([card.seed]) for card in cards)


KILLED = """
import os, signal, sys
import lesionary.models as models
from lesionary.lake import Lake
from pathlib import Path

written = []
whole = models.atomic_write_bytes

def dying(path, data):
    written.append(path)
    if len(written) == int(sys.argv[2]):
        Path(path).with_name(".half").write_bytes(data[:3])
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, data)

models.atomic_write_bytes = dying
draft = models.ModelDraft(kind="ssbr", preset="", settings={}, lake={}, data={}, metrics={}, seed=0)
models.publish(Lake.open(sys.argv[1]), None, draft, b"weights", {"curve.json": b"[]"})
"""


@pytest.mark.parametrize("at_file", [1, 2, 3])
def test_a_killed_publisher_leaves_no_model(lake, at_file):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, lake.url, str(at_file)], cwd=ROOT, capture_output=True, check=False
    )

    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list_models(lake) == []
    with pytest.raises(UsageError, match="no ssbr model yet"):
        find_model(lake, None, "ssbr")
    with pytest.raises(UsageError, match="no ssbr model 'ssbr-1'"):
        find_model(lake, "ssbr-1", "ssbr")
    assert publish(lake, None, draft(), b"weights").model_id == "ssbr-2"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"format": 1}', '{"format": 9}', "[" * 50_000],
)
def test_a_damaged_card_is_one_line(lake, text):
    publish(lake, None, draft(), b"")
    card_path(lake, "ssbr-1").write_text(text)

    for question in (lambda: list_models(lake), lambda: find_model(lake, "ssbr-1"), lambda: find_model(lake, None)):
        with pytest.raises(ArtifactError) as caught:
            question()
        assert caught.value.sentence.startswith("ssbr-1: ")
        assert "\n" not in caught.value.sentence


@pytest.mark.parametrize("change", [{"seed": "4"}, {"settings": []}, {"model_id": "ssbr-2"}, {"notes": None}])
def test_a_card_with_other_types_is_refused(lake, change):
    publish(lake, None, draft(), b"")
    path = card_path(lake, "ssbr-1")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(ArtifactError, match="is not a model's card"):
        list_models(lake)


def test_a_cards_further_fields_are_passed_over(lake):
    published = publish(lake, None, draft(), b"")
    path = card_path(lake, "ssbr-1")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"colour": "green"}))

    assert find_model(lake, "ssbr-1") == published


def test_weights_that_changed_or_went_are_refused(lake):
    card = publish(lake, None, draft(), b"weights")
    path = card_path(lake, "ssbr-1").with_name(WEIGHTS_FILE)
    path.write_bytes(b"weightz")
    with pytest.raises(ArtifactError, match="ssbr-1: the weights are not what was published"):
        read_weights(lake, card)

    path.unlink()
    with pytest.raises(ArtifactError, match=r"ssbr-1: weights\.safetensors cannot be read"):
        read_weights(lake, card)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    Path(lake.url, "models").write_bytes(b"in the way")

    with pytest.raises(LesionaryError) as caught:
        publish(lake, None, draft(), b"")

    assert caught.value.exit_code == 2


def test_the_record_of_the_hardware_loads_no_torch():
    program = (
        "import sys; from lesionary.models import hardware_record\n"
        "print(hardware_record()['processor']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == hardware_record()["processor"]
