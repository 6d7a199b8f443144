"""Training as a person asks for it: the model that comes of it, going on after a stop, and what is refused."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from faults.processes import wait_for
from safetensors.numpy import load
from small_training.driver import driver, killed_at_checkpoint

from cli.training import Wish, progress_line, train
from cli.training_inputs import TRAINERS, Prepared, Trainer
from lesionary.errors import ArtifactError, TrainingError, UsageError
from lesionary.lake import Lake
from lesionary.models import list_models, publish, read_model_file, read_weights
from trainers.places import StepReport

SMOKE = Wish(preset="smoke", threads=1)


@pytest.fixture
def lake(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Lake.create("lake")


def small(prepared=None, **job):
    """The small trainer, with mishaps; `prepared` gets a line whenever inputs are made."""

    def prepare(lake, settings, choose_runner, show):
        if prepared is not None:
            prepared.append(settings)
        return Prepared(job, {"lesions": 0, "series": 0}, {"items": 24})

    return Trainer("small", prepare, "small_training")


def asked(wish, **changes):
    return dataclasses.replace(wish, **changes)


def run_folder(lake, name):
    return Path(lake.location.path, "models", "runs", name)


def test_a_model_comes_of_it_with_a_card_that_says_how(lake):
    card = train(small(), "lake", asked(SMOKE, changes={"seed": 3}, name="mine", run="r1"))

    assert list_models(lake) == [card]
    assert (card.model_id, card.kind, card.preset, card.seed) == ("mine-1", "small", "smoke", 3)
    assert card.settings["steps"] == 12
    assert card.settings["origins"] == {"seed": "flag"}
    assert (card.lake, card.data) == ({"lesions": 0, "series": 0}, {"items": 24, "start": None, "started_from": "none"})
    assert {"run": "r1", "workers": 1, "restarts": 0}.items() <= card.hardware.items()
    assert card.metrics["loss"] > 0
    assert set(load(read_weights(lake, card))) == {"net.0.weight", "net.0.bias", "net.4.weight", "net.4.bias"}
    assert len(json.loads(read_model_file(lake, card, "curve.json"))) == 12


def test_what_only_the_training_needed_is_dropped(lake):
    train(small(), "lake", asked(SMOKE, run="r1"))

    left = {path.name for path in run_folder(lake, "r1").iterdir()}
    assert left == {"run.json", "driver.json", "result.json", "published.json", ".lock"}


def test_settings_come_from_the_file_the_environment_and_flags(lake, tmp_path, monkeypatch):
    (tmp_path / "lesionary.toml").write_text(
        '[train]\npreset = "smoke"\n[small]\nsteps = 6\nlearning_rate = 0.5\nmilestones = [0.5]\n'
    )
    monkeypatch.setenv("LESIONARY_SMALL_LEARNING_RATE", "0.01")
    monkeypatch.setenv("LESIONARY_SMALL_PRECISION", "bf16")

    card = train(small(), "lake", Wish(threads=1, changes={"steps": 7}, pairs=["checkpoint-every=3"]))

    assert card.preset == "smoke"
    assert {name: card.settings[name] for name in card.settings["origins"]} == {
        "steps": 7, "learning_rate": 0.01, "milestones": [0.5], "precision": "bf16", "checkpoint_every": 3
    }  # fmt: skip
    assert card.settings["origins"] == {
        "steps": "flag", "learning_rate": "environment", "milestones": "file", "precision": "environment",
        "checkpoint_every": "flag",
    }  # fmt: skip


def test_a_finished_run_says_so_and_makes_no_second_model(lake, capsys):
    card = train(small(), "lake", asked(SMOKE, run="r1"))

    assert train(small(), "lake", asked(SMOKE, run="r1", resume=True)) == card
    assert "run r1 is finished: its model is small-1" in capsys.readouterr().err
    assert list_models(lake) == [card]


@pytest.mark.parametrize("stopped_after", ["training", "publishing"])
def test_a_driver_that_dies_around_publishing_leaves_one_model(lake, monkeypatch, stopped_after):
    def stop(*arguments):
        if stopped_after == "publishing":
            publish(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("lesionary.models.publish", stop)
        with pytest.raises(KeyboardInterrupt):
            train(small(), "lake", asked(SMOKE, run="r1"))

    card = train(small(bug="not trained again"), "lake", asked(SMOKE, run="r1", resume=True))
    assert [one.model_id for one in list_models(lake)] == [card.model_id] == ["small-1"]


def test_a_name_that_is_taken_is_refused_before_anything_is_made(lake):
    train(small(), "lake", asked(SMOKE, run="r1"))
    prepared = []

    with pytest.raises(UsageError, match="--run: there is a run r1; add --resume to go on with it, or name another"):
        train(small(prepared), "lake", asked(SMOKE, run="r1"))
    assert prepared == []


def interrupted(lake, tmp_path, **wish):
    trainer = small(stop="interrupt", stop_at=10, stopped=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        train(trainer, "lake", asked(SMOKE, run="r1", **wish))


def test_an_interrupted_run_says_how_to_go_on_and_goes_on_without_making_its_inputs_again(lake, tmp_path, capsys):
    interrupted(lake, tmp_path)
    assert "run r1 is kept: the same command with --run r1 --resume goes on with it" in capsys.readouterr().err
    prepared = []

    card = train(small(prepared), "lake", asked(SMOKE, run="r1", resume=True))

    whole = train(small(), "lake", asked(SMOKE, name="whole"))
    assert read_weights(lake, card) == read_weights(lake, whole)
    assert len(prepared) == 0


def test_going_on_takes_the_same_command_and_refuses_another(lake, tmp_path):
    interrupted(lake, tmp_path, changes={"seed": 4}, pairs=["milestones=0.5"])
    same = asked(SMOKE, run="r1", resume=True)

    for other, message in (
        ({"changes": {"steps": 30}}, "--resume: run r1 was begun with steps = 12, not 30; go on with the same"),
        ({"pairs": ["milestones=0.25"]}, r"begun with milestones = \[0.5\], not \(0.25,\)"),
        ({"preset": "small"}, "begun with preset = smoke, not small"),
        ({"weights": "none"}, "begun with weights = None, not none"),
    ):
        with pytest.raises(UsageError, match=message):
            train(small(), "lake", asked(same, **other))
    with pytest.raises(UsageError, match="run r1 trains small; use `lesionary train small`"):
        train(Trainer("ssbr", TRAINERS["ssbr"].prepare), "lake", same)
    assert train(small(), "lake", asked(same, changes={"seed": 4}, pairs=["milestones=0.5"])).seed == 4


def test_weights_to_start_from_are_kept_with_the_run(lake, tmp_path):
    (tmp_path / "start.bin").write_text("of before")
    interrupted(lake, tmp_path, weights="start.bin")
    (tmp_path / "start.bin").unlink()

    card = train(small(), "lake", asked(SMOKE, run="r1", resume=True))

    assert (card.data["start"], card.data["started_from"]) == ("of before", "start.bin")
    assert train(small(), "lake", asked(SMOKE, weights="imagenet")).data["start"] == "imagenet"
    for weights, message in (
        ("absent/file.pt", "--weights absent/file.pt: there is no such file"),
        ("position", "the lake has no position model yet"),
        ("other", "the lake has no model 'other'"),
    ):
        with pytest.raises(UsageError, match=message):
            train(small(), "lake", asked(SMOKE, weights=weights))


def test_a_model_of_the_lake_can_be_started_from(lake):
    first = train(small(), "lake", SMOKE)
    with pytest.raises(UnicodeDecodeError):
        # The small trainer reads its start as text; these are weights.
        train(small(), "lake", asked(SMOKE, weights=first.model_id, run="r2"))

    assert (run_folder(lake, "r2") / "inputs" / "weights").read_bytes() == read_weights(lake, first)


def test_a_damaged_start_is_one_line(lake, tmp_path):
    (tmp_path / "start.bin").write_text("of before")
    interrupted(lake, tmp_path, weights="start.bin")
    (run_folder(lake, "r1") / "inputs" / "weights").write_text("of others")

    with pytest.raises(ArtifactError, match="run r1: inputs/weights is missing or not what was written"):
        train(small(), "lake", asked(SMOKE, run="r1", resume=True))


def test_an_error_of_the_trainer_comes_out_as_it_is(lake):
    with pytest.raises(TrainingError, match="^step 3: spoilt; train otherwise$"):
        train(small(fail="spoilt"), "lake", SMOKE)
    assert list_models(lake) == []


def test_progress_is_one_line():
    report = StepReport(40, 1500, {"order": 0.6912, "distance": 0.0031}, 0.6943, 212.4, 190.0, 0.021)

    line = "step 40 of 1500: loss 0.6943 (order 0.6912, distance 0.0031), 212 items/s, 3 min 10 s left"
    assert progress_line(report) == line
    assert progress_line(dataclasses.replace(report, wait_share=0.3)) == f"{line}, 30% waiting for data"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--resume"], "--resume: say which run to go on with; add --run NAME"),
        (["--resume", "--run", "r9"], "--resume: there is no run r9"),
        (["--run", "../r9"], "--run: a run's name is"),
        (["--name", "Mine"], "'Mine': a model's name is"),
        (["--set", "breadth=3"], "--set: there is no setting 'breadth'; known are backbone"),
        (["--set", "steps"], "--set: 'steps' is not NAME=VALUE"),
        (["--set", "steps=many"], "--set steps: 'many' is not a value of type int"),
        (["--gpus", "1.5"], "gpus must be a fraction or a whole number of GPUs, found 1.5"),
    ],
)
def test_what_cannot_be_is_one_line(run, lake, words, message):
    code, _, said = run("train", "position", "--preset", "smoke", *words)

    assert (code, said[: len(message)]) == (2, message)


def test_without_torch_it_says_what_to_install(run, lake, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)

    code, _, said = run("train", "position")

    assert code == 2
    assert said == "training needs PyTorch, which is not installed; pip install 'lesionary[train]'"


def test_a_gpu_that_is_not_there_is_one_line(lake, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(UsageError, match="--gpus: this machine has no GPU"):
        train(small(), "lake", asked(SMOKE, gpus=1.0))


def test_models_are_listed_described_exported_and_dropped(run, lake, tmp_path):
    for _ in range(2):
        train(small(), "lake", asked(SMOKE, name="mine"))

    table = run("models", "list")[1].splitlines()
    assert [line.split()[:3] for line in table[2:]] == [["mine-1", "small", "smoke"], ["mine-2", "small", "smoke"]]
    assert json.loads(run("models", "list", "--kind", "ssbr", "--json")[1]) == []
    described = json.loads(run("models", "describe", "mine", "--json")[1])
    assert (described["model_id"], described["settings"]["steps"]) == ("mine-2", 12)
    assert described["files"] == ["card.json", "curve.json", "weights.safetensors"]
    assert "learning_rate" in run("models", "describe", "mine-1")[1]
    assert run("models", "export", "mine", "out")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == described["files"]
    assert (tmp_path / "out" / "weights.safetensors").read_bytes() == read_weights(lake, list_models(lake)[1])
    assert (
        run("models", "export", "mine", "out")[2] == "out: the folder holds such files; add --force to overwrite them"
    )
    assert run("models", "drop", "mine")[2] == "mine: say which one; the newest is mine-2"
    assert run("models", "drop", "mine-2")[2] == "mine-2: dropped\n"
    assert [card.model_id for card in list_models(lake)] == ["mine-1"]


def test_a_model_that_is_not_there_and_one_that_was_changed_are_one_line(run, lake):
    assert run("models", "describe", "mine")[2].endswith("train one with `lesionary train KIND`")
    card = train(small(), "lake", SMOKE)
    Path("lake/models", card.model_id, "weights.safetensors").write_bytes(b"other")

    code, _, said = run("models", "export", "small", "out")

    assert code == 2
    assert said.startswith("small-1: the weights are not what was published")
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_killed_driver_is_gone_on_with_to_the_same_weights(lake):
    killed_at_checkpoint("lake", Path.cwd())

    again = wait_for(driver("lake", Path.cwd(), resume=True))
    assert again.code == 0, again.said

    (card,) = list_models(lake)
    result = json.loads((run_folder(lake, "r1") / "result.json").read_text())["returned"]["trained"]
    assert (result["steps_done"], result["resumed_from"]) == (22, 10)
    whole = train(small(), "lake", Wish(preset="small", threads=1, name="whole"))
    assert read_weights(lake, card) == read_weights(lake, whole)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(280)
def test_a_killed_driver_of_ray_workers_is_gone_on_with_to_the_same_state(lake):
    killed_at_checkpoint("lake", Path.cwd(), workers=2)

    again = wait_for(driver("lake", Path.cwd(), workers=2, resume=True))
    assert again.code == 0, again.said

    (card,) = list_models(lake)
    result = json.loads((run_folder(lake, "r1") / "result.json").read_text())["returned"]["trained"]
    assert (result["steps_done"], result["resumed_from"], result["world"]) == (22, 10, 2)
    whole = load(read_weights(lake, train(small(), "lake", Wish(preset="small", threads=1, name="whole"))))
    for name, weights in load(read_weights(lake, card)).items():
        np.testing.assert_allclose(weights, whole[name], rtol=1e-4, atol=1e-6)


def test_labels_of_a_triplet_training_land_in_the_lake_once(run):
    assert run("phantom", "release", "p", "--patients", 30, "--image-size", 64, "--max-slices-per-series", 3)[0] == 0
    assert run("ingest", "p")[0] == 0
    tiny = ("--set", "refine_steps=1", "--set", "anchor_share=0.3")
    code, out, err = run("train", "triplet", "--preset", "smoke", "--steps", 2, "--run", "r", "--json", *tiny)
    assert code == 0, err
    assert json.loads(out)["model_id"] == "triplet-1"
    labels = Lake.open("lake").read("labels")
    assert set(labels["round"].to_pylist()) == {0, 1}
    assert set(labels["model_id"].to_pylist()) == {"triplet-1"}
    assert run("train", "triplet", "--run", "r", "--resume")[0] == 0
    assert Lake.open("lake").read("labels").num_rows == labels.num_rows
