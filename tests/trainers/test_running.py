"""A run in this process: its folder, going on with it, who drives it, and what is refused."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import fs
from small_training.loop import ENTRY

from lesionary.errors import ArtifactError, InternalError, TrainingError, UnwritableError, UsageError
from lesionary.locations import Location
from trainers import running
from trainers.runs import Run, RunRecord, new_run_name


def local(folder):
    return Location(str(folder), fs.LocalFileSystem(), str(folder))


def remote(folder):
    """A place that does not pass for this machine's disks, as an object store's does not."""
    folder.mkdir(exist_ok=True)
    return Location("mem://run", fs.SubTreeFileSystem(str(folder), fs.LocalFileSystem()), "run")


def train_here(run, **how):
    with run.driven():
        return running.train_here(run, **how)


def begin(location, **job):
    return Run.begin("r1", location, RunRecord("small", ENTRY, job))


def interrupted(location, tmp_path, step):
    """A run that was stopped right after the checkpoint of a step."""
    run = begin(location, stop="interrupt", stop_at=step, stopped=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        train_here(run, threads=1)
    return Run.resume("r1", location)


def test_a_run_trains_and_says_what_came_out(tmp_path):
    told = []
    run = begin(local(tmp_path / "r1"))

    outcome = train_here(run, threads=1, listener=told.append)

    assert outcome.returned["steps_done"] == 12
    assert outcome.hardware["cores"] >= 1
    assert set(outcome.files) == {"weights.safetensors", "curve.json"}
    assert json.loads(run.read_final("curve.json"))[-1][0] == 12
    assert [report.step for report in told] == list(range(1, 13))
    assert all(set(report.parts) == {"square", "plain"} for report in told)


@pytest.mark.parametrize("place", [local, remote])
def test_a_stopped_run_goes_on_from_its_newest_checkpoint_to_the_same_weights(tmp_path, place):
    whole = begin(place(tmp_path / "whole"))
    train_here(whole, threads=1)
    run = interrupted(place(tmp_path / "broken"), tmp_path, step=10)
    assert run.result() is None

    outcome = train_here(run, threads=1)

    assert outcome.returned["resumed_from"] == 10
    assert outcome.returned["curve"] == json.loads(whole.read_final("curve.json"))
    assert run.read_final("weights.safetensors") == whole.read_final("weights.safetensors")


@pytest.mark.parametrize("place", [local, remote])
def test_only_the_newest_two_checkpoints_are_kept_and_none_once_the_model_is_published(tmp_path, place):
    run = begin(place(tmp_path / "r1"), preset="small")
    train_here(run, threads=1)
    folder = tmp_path / "r1" / ("" if place is local else "run") / "checkpoints"

    assert sorted(path.name for path in folder.iterdir()) == ["20", "22"]
    run.forget_files()
    assert not folder.exists()
    assert run.result().returned["trained"]["steps_done"] == 22


def test_a_half_written_checkpoint_in_an_object_store_does_not_count(tmp_path):
    run = interrupted(remote(tmp_path / "r1"), tmp_path, step=10)
    checkpoints = tmp_path / "r1" / "run" / "checkpoints"
    (checkpoints / "10" / "metrics.json").unlink()

    assert train_here(run, threads=1).returned["resumed_from"] == 5


def test_a_name_that_is_taken_is_refused_and_so_is_going_on_with_nothing(tmp_path):
    location = local(tmp_path / "r1")
    with pytest.raises(UsageError, match="--resume: there is no run r1; leave --resume out"):
        Run.resume("r1", location)
    begin(location)

    with pytest.raises(UsageError, match="--run: there is a run r1; add --resume to go on with it"):
        begin(location)


def test_generated_names_differ():
    assert len({new_run_name("ssbr") for _ in range(20)}) == 20


def test_a_run_is_driven_by_one_process_at_a_time(tmp_path):
    run = begin(local(tmp_path / "r1"))
    program = "import pickle, sys\nwith pickle.load(sys.stdin.buffer).driven():\n    pass\n"

    def drive():
        return subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps(run),
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=False,
        )

    with run.driven():
        assert b"run r1 is being trained by another process" in drive().stderr
    assert drive().returncode == 0


def test_workers_of_a_driver_that_lost_the_run_stop(tmp_path):
    run = begin(local(tmp_path / "r1"))
    with run.driven():
        workers_own = pickle.loads(pickle.dumps(run))
        workers_own.require_driver()
    (tmp_path / "out").mkdir()
    with Run.resume("r1", run.location).driven():
        for step in (workers_own.require_driver, lambda: workers_own.finish(tmp_path / "out", {})):
            with pytest.raises(InternalError, match="another driver went on with"):
                step()
    assert run.result() is None


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path):
    run = begin(local(tmp_path / "r1"))

    with pytest.raises(UsageError, match="does not see the run's folder; use a lake that every node reaches"):
        run.require_driver()


@pytest.mark.parametrize("place", [local, remote])
def test_files_to_start_from_are_kept_with_the_run_and_checked(tmp_path, place):
    run = Run.begin("r1", place(tmp_path / "r1"), RunRecord("small", ENTRY, {}), {"weights": b"of before"})

    paths = run.fetch_inputs(tmp_path)
    assert (set(paths), Path(paths["weights"]).read_bytes()) == ({"weights"}, b"of before")

    next((tmp_path / "r1").rglob("inputs/weights")).write_bytes(b"others")
    with pytest.raises(ArtifactError, match="run r1: inputs/weights is missing or not what was written"):
        run.fetch_inputs(tmp_path)


def test_errors_of_a_trainer_come_out_as_they_are(tmp_path):
    with pytest.raises(TrainingError, match="step 3: the loss is spoilt; train otherwise"):
        train_here(begin(local(tmp_path / "r1"), fail="the loss is spoilt"), threads=1)


def test_a_trainer_that_does_not_exist_and_a_result_that_is_no_json_are_named(tmp_path):
    run = Run.begin("r1", local(tmp_path / "r1"), RunRecord("small", "no.such:thing", {}))
    with pytest.raises(InternalError, match="the trainer no.such:thing cannot be loaded"):
        train_here(run, threads=1)

    with run.driven(), pytest.raises(InternalError, match="result.json: what would be written is no JSON"):
        run.finish(tmp_path, {"loss": float("nan")})


def test_a_gpu_that_is_not_there_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)

    with pytest.raises(UsageError, match="--gpus: this machine has no GPU"):
        train_here(begin(local(tmp_path / "r1")), device="cuda")


@pytest.mark.parametrize("content", [b"", b"[]", b'{"kind": 1}', b"\xff"])
def test_damaged_records_and_results_are_one_line(tmp_path, content):
    run = begin(local(tmp_path / "r1"))
    for name, read in (("run.json", run.record), ("result.json", run.result)):
        (tmp_path / "r1" / name).write_bytes(content)
        with pytest.raises(ArtifactError, match=f"run r1: {name} is missing or not what was written"):
            read()


def test_final_files_are_checked_before_they_are_published(tmp_path):
    run = begin(local(tmp_path / "r1"))
    train_here(run, threads=1)
    (tmp_path / "r1" / "final" / "weights.safetensors").write_bytes(b"other")

    for name in ("weights.safetensors", "absent"):
        with pytest.raises(ArtifactError, match=f"{name} is missing or not what was written"):
            run.read_final(name)


def test_a_place_that_takes_no_files_is_named(tmp_path):
    (tmp_path / "r1").write_text("a file where a folder should be")

    with pytest.raises(UnwritableError, match="run.json: the file cannot be written"):
        begin(local(tmp_path / "r1"))
