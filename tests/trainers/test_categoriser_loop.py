"""Looped deep mining from patches to categories: rounds, resuming, workers, and that no label is looked at."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_categories import TINY, kind_of, planted_rows
from small_patches import write_patches

from lesionary.errors import LesionaryError, TrainingError, UsageError
from lesionary.partitions import normalised_mutual_information, purity
from trainers.batches import PatchSource
from trainers.categoriser.evaluate import agreement
from trainers.categoriser.inference import ask
from trainers.categoriser.learner import CategoryLearner
from trainers.categoriser.loop import main, train
from trainers.categoriser.mining import points_of
from trainers.categoriser.model import CategoryNet, NetSettings, rebuilt_net
from trainers.categoriser.presets import PRESETS, CategoriserSettings, settings_for
from trainers.categoriser.targets import cut_crops, drawn_places, split_patients, step_crops
from trainers.fitting import Alone, Share
from trainers.rounds import History
from trainers.weights import start_weights

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    return write_patches(tmp_path_factory.mktemp("patches"), planted_rows())


@pytest.fixture(scope="module")
def trained(patches, tmp_path_factory):
    """A whole run: its folder and what it returned."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train(job(patches, folder), Alone(folder, "cpu"))


def job(patches, out, **changes):
    return {"patches": patches, "out": str(out), "preset": "smoke", "settings": TINY | changes}


def weights_in(folder):
    return (folder / "weights.safetensors").read_bytes()


def labels_in(folder):
    with pa.ipc.open_file(folder / "labels.arrow") as held:
        return held.read_all().to_pylist()


def test_every_round_says_what_it_did(trained):
    _, found = trained
    rounds = found["data"]["rounds"]
    assert [one["round"] for one in rounds] == [0, 1, 2]
    assert found["steps_done"] == 12
    assert [step for step, _ in found["curve"]] == list(range(1, 13))
    assert set(found["curve"][0][1]) == {"category", "place"}
    assert (rounds[0]["purity"], rounds[0]["nmi"]) == (None, None)
    for one in rounds:
        assert sum(one["sizes"]) == found["data"]["trained_on"]
        assert len(one["sizes"]) == one["k"]
        assert sum(one[f"{part}_lesions"] for part in ("train", "val", "held_out")) == found["data"]["trained_on"]
        assert 0 <= one["held_out_accuracy"] <= 1
    # k is chosen anew in the first rounds and kept then, and the whole curve is told.
    assert rounds[0]["choice"]["ks"] == [2, 3, 4, 5, 6]
    assert rounds[2]["choice"] is None
    assert rounds[2]["k"] <= rounds[1]["choice"]["k"]
    json.dumps(found, allow_nan=False)


def test_labels_of_every_round_are_written_and_the_last_word_is_of_all_lesions(trained, patches):
    folder, found = trained
    labels = labels_in(folder)
    counts = {number: sum(row["round"] == number for row in labels) for number in range(4)}
    trained_on, everybody = found["data"]["trained_on"], found["data"]["patches"]
    assert counts == {0: trained_on, 1: trained_on, 2: trained_on, 3: everybody}
    assert all(0 <= row["score"] <= 1 and row["label"].isdigit() for row in labels)
    # The last word is the network's own, of lesions of the test split as well.
    source = PatchSource.open(patches)
    settings = settings_for("smoke", TINY)
    net = rebuilt_net(settings.net(), weights_in(folder), "here")
    said = ask(net, source, settings, torch.device("cpu"), "pooled")
    last = {row["lesion_id"]: row for row in labels if row["round"] == 3}
    for at, lesion in enumerate(source.lesion_ids):
        assert last[lesion]["label"] == str(said.categories[at])
        assert last[lesion]["score"] == pytest.approx(said.probability[at].max(), rel=1e-4)


def test_what_neighbouring_rounds_agree_by_is_what_their_labels_say(trained):
    folder, found = trained
    by_round = [
        [row["label"] for row in sorted(labels_in(folder), key=lambda row: row["lesion_id"]) if row["round"] == number]
        for number in range(3)
    ]
    for number in (1, 2):
        before, after = (np.array(by_round[at], int) for at in (number - 1, number))
        assert found["data"]["rounds"][number]["purity"] == pytest.approx(purity(after, before))
        assert found["data"]["rounds"][number]["nmi"] == pytest.approx(normalised_mutual_information(after, before))
    assert found["metrics"]["nmi"] == found["data"]["rounds"][-1]["nmi"]


def test_planted_categories_are_found_and_rounds_settle(patches, tmp_path):
    settings = {"stop_purity": 0.9, "stop_nmi": 0.8, "max_rounds": 8, "least_k": 3, "choose_rounds": 1}
    found = train(job(patches, tmp_path, **settings), Alone(tmp_path, "cpu"))
    assert found["metrics"]["rounds"] < 8
    assert found["notes"] == []
    last = max(row["round"] for row in labels_in(tmp_path))
    rows = [row for row in labels_in(tmp_path) if row["round"] == last - 1]
    kinds = np.array([kind_of(int(row["lesion_id"].removeprefix("dl-"))) for row in rows])
    assert purity(np.array([int(row["label"]) for row in rows]), kinds) > 0.95


def test_rounds_that_never_agree_end_by_their_number_and_say_so(trained):
    assert trained[1]["notes"] == ["3 rounds were not enough to pass the thresholds"]


def test_labels_do_not_depend_on_what_lesions_are_said_to_be(trained, tmp_path):
    for name, changes in (("none", {"lesion_type": None}), ("lies", {"lesion_type": "bone"})):
        url = write_patches(tmp_path / name, planted_rows(**changes))
        train(job(url, tmp_path / name / "out"), Alone(tmp_path / name / "out", "cpu"))
        assert weights_in(tmp_path / name / "out") == weights_in(trained[0])
        assert (tmp_path / name / "out" / "labels.arrow").read_bytes() == (trained[0] / "labels.arrow").read_bytes()


def test_nobody_of_the_test_split_is_learnt_from(trained, patches, tmp_path):
    source = PatchSource.open(patches)
    unseen = set(source.patient_ids[np.setdiff1d(np.arange(len(source)), source.rows_outside_test())])
    assert unseen
    # Other pixels of theirs change no weight.
    rows = [row | ({"pixels": bytes(len(row["pixels"]))} if row["split"] == "test" else {}) for row in planted_rows()]
    url = write_patches(tmp_path, rows)
    train(job(url, tmp_path / "out"), Alone(tmp_path / "out", "cpu"))
    assert weights_in(tmp_path / "out") == weights_in(trained[0])
    assert not unseen & {
        row["patient_id"] for row in rows for label in labels_in(trained[0])
        if label["round"] < 3 and label["lesion_id"] == row["lesion_id"]
    }  # fmt: skip


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


@pytest.mark.parametrize("step", [2, 4, 6, 12])
def test_a_run_that_was_stopped_in_any_round_ends_as_if_it_had_not(patches, trained, tmp_path, step):
    with pytest.raises(_StoppedError):
        train(job(patches, tmp_path), _StopsAt(tmp_path, step))
    found = train(job(patches, tmp_path), Alone(tmp_path, "cpu"))
    assert weights_in(tmp_path) == weights_in(trained[0])
    assert found["curve"] == trained[1]["curve"]
    assert found["data"] == trained[1]["data"]
    assert found["resumed_from"] == step
    assert (tmp_path / "labels.arrow").read_bytes() == (trained[0] / "labels.arrow").read_bytes()


def test_a_checkpoint_keeps_the_labels_of_its_rounds(trained):
    newest = Alone(trained[0], "cpu").latest()
    history = History.read(newest, trained[1]["data"]["trained_on"])
    assert [labels.number for labels in history.labels] == [0, 1, 2]
    assert newest.name == "12"


def small_learner(patches, settings):
    source = PatchSource.open(patches)
    categories = np.arange(len(source)) % 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = CategoryNet(settings.net(), 3)
    return CategoryLearner(net, source, np.arange(len(source)), categories, settings, 5)


def test_two_workers_shares_are_the_batch_of_one(patches):
    learner = small_learner(patches, settings_for("smoke", TINY))
    with torch.no_grad():
        alone = learner(learner.batch(3, Share()))
        shares = [learner(learner.batch(3, Share(rank, 2))) for rank in range(2)]
    for name, part in alone.items():
        assert float(sum(share[name] for share in shares)) / 2 == pytest.approx(float(part), rel=1e-5)


def test_a_crop_is_the_padded_box_made_square(patches):
    source = PatchSource.open(patches)
    settings = CategoriserSettings(padding_mm=10, least_crop_mm=8, scale_mm=1, input_px=40)
    (batch,) = source.take([0, 1, 2])
    crops = cut_crops(batch, settings)
    for at in range(3):
        x0, y0, x1, y1 = batch.boxes[at].tolist()
        side = max(x1 - x0, y1 - y0) + 20
        expected = (np.array([x0, y0, x1, y1]) - 64 + side / 2) * 40 / side
        assert crops.boxes[at].tolist() == pytest.approx(expected.tolist(), abs=1e-3)
        low, high = int(64 - side / 2), int(64 + side / 2)
        mean = batch.images[at, :, low:high, low:high].mean()
        assert float(crops.images[at].mean()) == pytest.approx(float(mean), rel=0.02)
    # A wide crop at the patches' own scale is the patch's middle, untouched.
    wide = cut_crops(batch, CategoriserSettings(padding_mm=0, least_crop_mm=100, scale_mm=1, input_px=100))
    assert torch.allclose(wide.images, batch.images[:, :, 14:114, 14:114], atol=1e-3)


def test_a_shifted_crop_lies_where_it_is_said_to_lie(patches):
    source = PatchSource.open(patches)
    settings = CategoriserSettings(padding_mm=0, least_crop_mm=64, scale_mm=1, input_px=64, shift_mm=10)
    (batch,) = source.take([0, 1])
    crops = cut_crops(batch, settings, torch.tensor([[1.0, -0.5], [0, 0]]))
    assert torch.allclose(crops.images[0], batch.images[0, :, 27:91, 42:106], atol=1e-3)
    assert crops.moved[0].tolist() == pytest.approx([10 / 350, -5 / 240, 0])
    assert crops.moved[1].tolist() == [0, 0, 0]


def test_a_step_s_crops_carry_their_own_categories_and_places(patches):
    settings = settings_for("smoke", TINY | {"shift_mm": 0.0})
    learner = small_learner(patches, settings)
    batch = learner.batch(0, Share())
    again = learner.batch(0, Share())
    assert torch.equal(batch.images, again.images)
    assert not torch.equal(batch.images, learner.batch(1, Share()).images)
    source = PatchSource.open(patches)
    # Places are as good as names here: every lesion has its own.
    for place, category in zip(batch.places.numpy(), batch.categories.tolist(), strict=True):
        (row,) = np.flatnonzero(np.abs(source.location - place).max(axis=1) < 1e-6)
        assert row % 3 == category


def test_balanced_draws_see_small_categories_as_often_as_large_ones():
    categories = np.array([0] * 90 + [1] * 10)
    rng = np.random.default_rng(0)
    settings = CategoriserSettings(batch=2_000)
    even = categories[drawn_places(np.arange(100), categories, settings, rng)].mean()
    plain = categories[
        drawn_places(np.arange(100), categories, CategoriserSettings(batch=2_000, balanced=False), rng)
    ].mean()
    assert even == pytest.approx(0.5, abs=0.05)
    assert plain == pytest.approx(0.1, abs=0.03)


def test_splits_are_fresh_each_round_and_by_patient():
    patients = np.repeat(np.arange(40), 3)
    settings = CategoriserSettings()
    splits = [split_patients(patients, settings, number) for number in range(2)]
    for split in splits:
        parts = [set(patients[one].tolist()) for one in (split.train, split.val, split.held_out)]
        assert [len(part) for part in parts] == [30, 4, 6]
        assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert not np.array_equal(splits[0].held_out, splits[1].held_out)
    assert np.array_equal(split_patients(patients, settings, 1).train, splits[1].train)
    few = split_patients(np.array([0, 1, 2]), settings, 0)
    assert [len(one) for one in (few.train, few.val, few.held_out)] == [1, 1, 1]


def test_crops_of_a_step_are_shared_out_whole(patches):
    source, settings = PatchSource.open(patches), settings_for("smoke", TINY)
    rows = np.arange(8)
    parts = [step_crops(source, rows, settings, (1, 2), Share(rank, 2)) for rank in range(2)]
    assert sorted(np.concatenate([part.rows for part in parts]).tolist()) == list(range(8))


def test_fully_connected_layers_of_a_file_are_taken_over_where_they_fit(tmp_path):
    settings = NetSettings(neck="whole", grid=2, width=16, place=False)
    net, other = CategoryNet(settings), CategoryNet(settings)
    tensors = {f"features.{name.removeprefix('features.')}": one for name, one in other.backbone.state_dict().items()}
    tensors |= {"classifier.0.weight": other.fc6.weight, "classifier.0.bias": other.fc6.bias}
    tensors |= {"classifier.3.weight": torch.zeros(3, 3), "classifier.3.bias": torch.zeros(3)}
    torch.save({name: one.detach().clone() for name, one in tensors.items()}, tmp_path / "w.pt")
    before = net.fc7.weight.clone()
    record = start_weights(net, tmp_path / "w.pt", net.outside_layers)
    assert torch.equal(net.fc6.weight, other.fc6.weight)
    assert torch.equal(net.fc7.weight, before)
    assert record.tensors == len(other.backbone.state_dict()) + 2
    assert record.ignored == 2


@pytest.mark.parametrize(
    "changes",
    [{"neck": "whole", "place_weight": 0.0, "first_features": "fc6", "features": "fc7"}, {"k": 4}, {"components": 0}],
)
def test_other_ways_train_too(patches, tmp_path, changes):
    found = train(job(patches, tmp_path, max_rounds=2, **changes), Alone(tmp_path, "cpu"))
    assert found["metrics"]["categories"] == changes.get("k", found["metrics"]["categories"])
    assert np.isfinite([value for _, parts in found["curve"] for value in parts.values()]).all()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"count": 1, "patients": 1}, "lesions outside the test split: 1, of patients: 1"),
        ({"count": 6, "patients": 2}, "of patients: 2; at least 3"),
        ({"split": "test"}, "no patch is outside the test split"),
        ({"count": 3, "patients": 3}, "3 lesions of 3 patients are too few for 2 categories"),
        ({"pixels": bytes(2 * 3 * 128 * 128), "box": [60.0, 60.0, 68.0, 68.0]}, "have the same features"),
    ],
)
def test_degenerate_lakes_end_in_one_line(tmp_path, changes, sentence):
    patches = write_patches(tmp_path, planted_rows(**changes))
    with pytest.raises(LesionaryError, match=sentence) as caught:
        train(job(patches, tmp_path / "out"), Alone(tmp_path / "out", "cpu"))
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.sentence


def test_agreement_is_of_the_later_round_in_the_earlier():
    before, after = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 0])
    assert agreement(before, after) == (0.5, 0.0)
    assert agreement(before, np.array([3, 2, 1, 0]))[0] == 1


def test_it_runs_as_a_module_without_ray(patches, tmp_path, capsys):
    given = ["--patches", patches, "--out", str(tmp_path), "--preset", "smoke", "--k", "3", "--steps", "2"]
    assert main([*given, "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["categories"] == 3
    assert "step 4 of 4" in said.err
    assert main(["--patches", str(tmp_path / "no"), "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_paper_s_preset_is_the_paper_s():
    paper = PRESETS["paper"]
    assert (paper.backbone, paper.neck, paper.grid, paper.width, paper.input_px) == ("vgg16", "whole", 7, 4096, 224)
    assert (paper.train_share, paper.val_share, paper.place_weight) == (0.75, 0.10, 0.0)
    assert {paper.first_features, paper.features} <= {"fc6", "fc7"}


@pytest.mark.parametrize(
    "changes",
    [
        {"neck": "long"}, {"least_k": 9, "most_k": 3}, {"train_share": 0.9, "val_share": 0.2}, {"k": 1},
        {"criterion": "taste"}, {"features": "fc8"}, {"nothing": 1}, {"input_px": 8}, {"backbone": "alexnet"},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises((UsageError, TrainingError)) as caught:
        settings_for("small", changes)
    assert caught.value.exit_code == 2


def test_places_stand_beside_the_features_as_the_settings_weigh_them():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 5)).astype(np.float32)
    places = rng.uniform(size=(40, 3)).astype(np.float32)
    places[3] = np.nan
    settings = CategoriserSettings(components=0, cluster_place_weight=2.0)
    points = points_of(features, places, settings)
    assert np.array_equal(points[:, :5], features)
    # Twice the spread of all features together, a third of its square for each coordinate; the unknown lies midway.
    known = np.delete(points[:, 5:], 3, axis=0)
    assert known.var(axis=0).sum() == pytest.approx(4 * features.var(axis=0).sum(), rel=1e-4)
    assert points[3, 5:].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    assert points_of(features, places, CategoriserSettings(components=0, cluster_place_weight=0)) is features
    # A coordinate that nobody knows takes no part.
    places[:, 2] = np.nan
    assert points_of(features, places, settings).shape == (40, 7)
    places[:] = np.nan
    assert points_of(features, places, settings).shape == (40, 5)


@pytest.mark.slow
def test_two_workers_mine_what_one_mines(patches, tmp_path):
    alone = train(job(patches, tmp_path / "one", max_rounds=2), Alone(tmp_path / "one", "cpu"))
    folder = tmp_path / "two"
    folder.mkdir()
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    words = ["2", str(folder / "meeting"), str(folder), patches]
    workers = [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "gloo_categoriser.py", str(rank), *words],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    first, second = (json.loads((folder / f"worker-{rank}.json").read_text()) for rank in range(2))
    assert second == {}
    assert len(first["curve"]) == len(alone["curve"]) == 8
    # The first round starts alike; what differs later is the order of sums.
    for (step, one), (same_step, other) in zip(alone["curve"], first["curve"], strict=True):
        assert step == same_step
        assert other == pytest.approx(one, rel=1e-3)
    assert [row["label"] for row in labels_in(folder)] == [row["label"] for row in labels_in(tmp_path / "one")]
