"""Runs on real Ray workers: the same curve as alone, lost workers replaced, errors of ours as they are."""

import numpy as np
import pytest
from pyarrow import fs
from small_training.loop import ENTRY

from lesionary.errors import InternalError, TrainingError
from lesionary.locations import Location
from trainers import running
from trainers.runs import Run, RunRecord

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(240), pytest.mark.usefixtures("ray_cluster")]


def begin(folder, **job):
    record = RunRecord("small", ENTRY, job)
    return Run.begin(folder.name, Location(str(folder), fs.LocalFileSystem(), str(folder)), record)


def losses(outcome):
    return np.array([[parts["square"], parts["plain"]] for _, parts in outcome.returned["curve"]])


def train_here(run):
    with run.driven():
        return running.train_here(run, threads=1)


def launch(run, count=2, **how):
    from trainers.launch import Workers, train_on_ray

    told = []
    with run.driven():
        return train_on_ray(run, Workers(count, **how), told.append), told


def test_two_workers_give_the_curve_of_one(tmp_path):
    alone = train_here(begin(tmp_path / "alone"))

    outcome, told = launch(begin(tmp_path / "two"))

    assert (outcome.returned["world"], outcome.returned["steps_done"], outcome.restarts) == (2, 12, 0)
    np.testing.assert_allclose(losses(outcome), losses(alone), rtol=1e-5)
    assert told[-1].step == 12
    assert told[-1].parts == outcome.returned["curve"][-1][1]


def test_a_killed_worker_is_replaced_and_all_steps_are_done(tmp_path):
    whole = train_here(begin(tmp_path / "whole"))
    run = begin(tmp_path / "killed", stop="kill", stop_at=10, stopped=str(tmp_path / "stopped"))

    outcome, _ = launch(run)

    assert (tmp_path / "stopped").exists()
    assert (outcome.restarts, outcome.returned["resumed_from"], outcome.returned["steps_done"]) == (1, 10, 12)
    np.testing.assert_allclose(losses(outcome), losses(whole), rtol=1e-5)


@pytest.mark.parametrize(
    ("mishap", "error", "message", "attempts"),
    [
        ("fail", TrainingError, "^step 3: spoilt; train otherwise$", 1),
        ("bug", InternalError, "^run bug: the training stopped .worker 1: ZeroDivisionError.*--run bug --resume", 2),
    ],
)
def test_an_error_of_ours_ends_the_run_at_once_and_any_other_after_the_attempts_that_are_allowed(
    tmp_path, mishap, error, message, attempts
):
    log = tmp_path / "attempts.log"
    run = begin(tmp_path / mishap, attempts=str(log), **{mishap: "spoilt"})

    with pytest.raises(error, match=message):
        launch(run, max_failures=1)

    assert len(log.read_text().split()) == attempts
    assert run.result() is None


def test_a_run_that_began_here_goes_on_with_ray_with_the_threads_it_is_given(tmp_path):
    run = begin(tmp_path / "r1", stop="interrupt", stop_at=10, stopped=str(tmp_path / "stopped"))
    with pytest.raises(KeyboardInterrupt):
        train_here(run)
    (tmp_path / "r1" / "checkpoint_manager_snapshot.json").write_text('{"cut sho')

    outcome, _ = launch(run, count=1, threads=2)

    assert (outcome.returned["resumed_from"], outcome.returned["steps_done"]) == (10, 12)
    assert (outcome.returned["threads"], outcome.hardware["threads"]) == (2, 2)
