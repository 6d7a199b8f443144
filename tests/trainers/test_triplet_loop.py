"""The triplet network's training from patches to weights: rounds, resuming, workers, and what is refused."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_patches import patch_rows, write_patches

from lesionary.errors import ArtifactError, LesionaryError, TrainingError, UsageError
from trainers.batches import PatchSource
from trainers.checkpoint import load_state
from trainers.fitting import Alone, Share
from trainers.rounds import History
from trainers.triplet.learner import TripletLearner
from trainers.triplet.loop import main, train, training_set
from trainers.triplet.model import MultiScaleNet, NetSettings, rebuild_net
from trainers.triplet.presets import PRESETS, settings_for

TINY = {
    "steps": 4, "refine_steps": 3, "sequences": 2, "group": 1, "dimension": 8, "stage_dimension": 8, "grid": 2,
    "scale_mm": 4.0, "checkpoint_every": 2, "log_every": 1, "location_low": 0.2, "location_high": 0.3,
    "size_low": 0.1, "size_high": 0.11,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"), patch_rows())


def job(patches, out, **changes):
    return {"patches": patches, "out": str(out), "preset": "smoke", "settings": TINY | changes}


def weights_in(folder):
    return (folder / "weights.safetensors").read_bytes()


def test_a_training_is_repeatable_and_says_what_it_did(patches, tmp_path):
    first = train(job(patches, tmp_path / "a"), Alone(tmp_path / "a", "cpu"))
    second = train(job(patches, tmp_path / "b"), Alone(tmp_path / "b", "cpu"))
    assert weights_in(tmp_path / "a") == weights_in(tmp_path / "b")
    assert first["curve"] == second["curve"]
    assert [step for step, _ in first["curve"]] == list(range(1, 8))
    assert set(first["curve"][0][1]) == {"type", "location", "size"}
    assert first["steps_done"] == 7
    assert first["data"]["trained_on"] == 36
    assert first["data"]["seeds"] == 12
    assert [entry["round"] for entry in first["data"]["rounds"]] == [0, 1]
    assert first["data"]["rounds"][0]["labels"]["targets"] == 24
    json.dumps(first, allow_nan=False)


def test_the_weights_and_settings_rebuild_the_network(patches, tmp_path):
    found = train(job(patches, tmp_path), Alone(tmp_path, "cpu"))
    net_settings = {name: found["settings"][name] for name in NetSettings().record()}
    net = rebuild_net(net_settings, weights_in(tmp_path))
    (batch, *_) = PatchSource.open(patches).take([0, 1, 2], 4.0)
    assert net(batch.images, batch.boxes, batch.extents).norm(dim=1).tolist() == pytest.approx([1, 1, 1], rel=1e-5)


def test_labels_of_every_round_are_written_and_seeds_keep_their_types(patches, tmp_path):
    train(job(patches, tmp_path), Alone(tmp_path, "cpu"))
    with pa.ipc.open_file(tmp_path / "labels.arrow") as held:
        labels = held.read_all().to_pylist()
    rows = {row["lesion_id"]: row for row in patch_rows()}
    assert {row["round"] for row in labels} == {0, 1}
    assert len(labels) == 72
    seeds = [row for row in labels if rows[row["lesion_id"]]["split"] == "val"]
    assert all(row["label"] == rows[row["lesion_id"]]["lesion_type"] and row["score"] == 1 for row in seeds)


def test_nobody_of_the_test_split_is_trained_on_or_a_seed(patches):
    source = PatchSource.open(patches)
    lesions = training_set(source)
    unseen = set(source.patient_ids[lesions.unseen])
    assert unseen
    assert not unseen & set(source.patient_ids[lesions.rows])
    assert len(lesions.rows) + len(lesions.unseen) == len(source)


class _StoppedError(Exception):
    pass


class _StopsAt(Alone):
    """A place whose process dies when it has saved a checkpoint of this step."""

    def __init__(self, folder, step):
        super().__init__(folder, "cpu")
        self._step = step

    def save(self, folder, metrics):
        super().save(folder, metrics)
        if metrics["step"] == self._step:
            raise _StoppedError


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_run_that_was_stopped_in_any_round_ends_as_if_it_had_not(patches, tmp_path, step):
    whole = train(job(patches, tmp_path / "whole"), Alone(tmp_path / "whole", "cpu"))
    with pytest.raises(_StoppedError):
        train(job(patches, tmp_path / "cut"), _StopsAt(tmp_path / "cut", step))
    found = train(job(patches, tmp_path / "cut"), Alone(tmp_path / "cut", "cpu"))
    assert weights_in(tmp_path / "cut") == weights_in(tmp_path / "whole")
    assert found["curve"] == whole["curve"]
    assert found["data"] == whole["data"]
    assert found["resumed_from"] == step
    assert (tmp_path / "cut" / "labels.arrow").read_bytes() == (tmp_path / "whole" / "labels.arrow").read_bytes()


def test_two_workers_shares_are_the_batch_of_one(patches):
    source = PatchSource.open(patches)
    settings = settings_for("smoke", TINY | {"sequences": 4, "group": 2})
    lesions = training_set(source)
    types = np.arange(len(lesions.rows)) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        learner = TripletLearner(MultiScaleNet(settings.net()), source, lesions.rows, types, settings, 0)
    with torch.no_grad():
        alone = learner(learner.batch(3, Share()))
        shares = [learner(learner.batch(3, Share(rank, 2))) for rank in range(2)]
    for name, part in alone.items():
        assert float(sum(share[name] for share in shares)) / 2 == pytest.approx(float(part), rel=1e-5)


def test_a_checkpoint_keeps_the_labels_of_its_round(patches, tmp_path):
    train(job(patches, tmp_path), Alone(tmp_path, "cpu"))
    newest = Alone(tmp_path, "cpu").latest()
    history = History.read(newest, 36)
    assert [labels.number for labels in history.labels] == [0, 1]
    assert [step for step, _ in history.curve] == [1, 2, 3, 4]
    assert newest.name == "7"
    assert load_state(newest)[1]["curve"][-1][0] == 3
    with pytest.raises(ArtifactError, match="no labels of these lesions"):
        History.read(newest, 35)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"types": 1}, "all 12 seed lesions are of one type"),
        ({"patients": 4}, "of one patient"),
        ({"lesion_type": None}, "no lesion outside the test split has a known type"),
        ({"split": "test"}, "no patch is outside the test split"),
        ({"z": None}, "location"),
        ({"long_mm": None}, "size"),
    ],
)
def test_degenerate_patches_end_in_one_line(tmp_path, changes, sentence):
    patches = write_patches(tmp_path, patch_rows(**changes))
    with pytest.raises(LesionaryError, match=sentence) as caught:
        train(job(patches, tmp_path / "out"), Alone(tmp_path / "out", "cpu"))
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.sentence


def test_without_types_the_location_cue_still_trains(tmp_path):
    patches = write_patches(tmp_path, patch_rows(lesion_type=None))
    found = train(job(patches, tmp_path / "out", cues="location"), Alone(tmp_path / "out", "cpu"))
    assert set(found["curve"][0][1]) == {"location"}
    assert found["steps_done"] == 4


@pytest.mark.parametrize("changes", [{"multi_scale": False}, {"compare": "sequences"}, {"cues": "type"}])
def test_the_paper_s_other_rows_train(patches, tmp_path, changes):
    found = train(job(patches, tmp_path, **changes), Alone(tmp_path, "cpu"))
    assert np.isfinite([value for _, parts in found["curve"] for value in parts.values()]).all()


def test_it_runs_as_a_module_without_ray(patches, tmp_path, capsys):
    tiny = [f"--set={name}={json.dumps(value)}" for name, value in TINY.items()]
    assert main(["--patches", patches, "--out", str(tmp_path), "--preset", "smoke", "--device", "cpu", *tiny]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["seconds"] > 0
    assert "step 7 of 7" in said.err
    assert main(["--patches", str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_paper_s_preset_is_the_paper_s():
    paper = PRESETS["paper"]
    assert (paper.backbone, paper.dimension, paper.scale_mm, paper.sequences, paper.steps) == (
        "vgg16",
        1024,
        1.0,
        24,
        3000,
    )
    assert paper.margins == (0.1, 0.2, 0.4)
    assert (paper.location_low, paper.location_high, paper.refinements) == (0.02, 0.1, 1)
    fitted = paper.fit(0)
    assert (fitted.optimizer, fitted.learning_rate, fitted.milestones) == ("sgd", 0.002, (2 / 3,))
    assert paper.compare == "sequences"


@pytest.mark.parametrize(
    "changes",
    [{"group": 3}, {"margin_type": 0.1}, {"compare": "all"}, {"nothing": 1}, {"scale_mm": 9.0}, {"cues": "colour"}],
)
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises((UsageError, TrainingError)) as caught:
        settings_for("small", changes)
    assert caught.value.exit_code == 2
