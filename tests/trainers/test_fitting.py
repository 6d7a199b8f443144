"""The training loop: exact, resumable, the same for any number of workers, and it stops when numbers run out."""

import gc
import json
import math
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest
import torch
from small_learner import PAIR_SETTINGS, SmallLearner

from lesionary.errors import ArtifactError, TrainingError, UsageError
from trainers.checkpoint import RECORD_FILE
from trainers.fitting import Alone, FitSettings, Share, fit
from trainers.prefetch import map_tensors

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights_of(learner):
    return torch.cat([one.detach().flatten() for one in learner.parameters()])


def settings(**changes):
    return FitSettings(**({"steps": 12, "learning_rate": 0.05, "log_every": 3} | changes))


class StoppedError(Exception):
    """Somebody pulls the plug."""


def stop_at(step):
    def listener(report):
        if report.step >= step:
            raise StoppedError

    return listener


# --- one process


def test_training_lowers_the_loss():
    result = fit(SmallLearner(), settings(steps=40), Alone(device="cpu"))

    sums = [sum(parts.values()) for _, parts in result.curve]
    assert sums[-1] < sums[0]
    assert [step for step, _ in result.curve] == [*range(3, 40, 3), 40]
    assert result.steps_done == 40
    assert result.resumed_from is None
    assert 0 <= result.wait_share <= 1
    assert result.items_per_second > 0


def test_a_step_of_sgd_is_what_the_textbook_says():
    """Two steps by hand: gradient, weight decay, momentum, rate at each step."""
    rates = [0.05, 0.05 * 0.1]
    learner, twin = SmallLearner(sampled=False), SmallLearner(sampled=False)
    weights = [one.detach().clone() for one in twin.parameters()]
    speeds = [torch.zeros_like(one) for one in weights]
    for step, rate in enumerate(rates):
        for parameter, weight in zip(twin.parameters(), weights, strict=True):
            parameter.data = weight
            parameter.grad = None
        sum(twin(twin.batch(step, Share())).values()).backward()
        for at, parameter in enumerate(twin.parameters()):
            speeds[at] = 0.9 * speeds[at] + parameter.grad + 0.01 * weights[at]
            weights[at] = weights[at] - rate * speeds[at]

    fit(learner, settings(steps=2, weight_decay=0.01, schedule="step", milestones=(0.5,)), Alone(device="cpu"))

    for parameter, weight in zip(learner.parameters(), weights, strict=True):
        torch.testing.assert_close(parameter.detach(), weight)


def test_the_gradient_is_cut_to_its_largest_norm():
    learner = SmallLearner(sampled=False)
    before = weights_of(learner)

    fit(learner, settings(steps=1, clip_norm=0.01), Alone(device="cpu"))

    assert (weights_of(learner) - before).norm() == pytest.approx(0.05 * 0.01, rel=1e-3)


def test_the_same_seed_gives_the_same_bits_and_another_other_ones():
    learners = [SmallLearner(dropout=0.3) for _ in range(3)]
    for learner, seed in zip(learners, (1, 1, 2), strict=True):
        fit(learner, settings(seed=seed), Alone(device="cpu"))

    assert torch.equal(weights_of(learners[0]), weights_of(learners[1]))
    assert not torch.equal(weights_of(learners[0]), weights_of(learners[2]))


def test_the_callers_random_state_and_switches_stay():
    learner = SmallLearner(dropout=0.3)
    before = torch.get_rng_state()

    fit(learner, settings(), Alone(device="cpu"))

    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


def test_bf16_and_channels_last_keep_close_to_fp32():
    curves = []
    for precision, channels_last in (("fp32", False), ("bf16", True)):
        learner = SmallLearner()
        fitted = fit(learner, settings(precision=precision, channels_last=channels_last), Alone(device="cpu"))
        curves.append([sum(parts.values()) for _, parts in fitted.curve])
        assert all(one.dtype == torch.float32 for one in learner.parameters())

    assert curves[1] == pytest.approx(curves[0], rel=0.02)
    assert curves[1] != curves[0]


def test_frozen_weights_stay():
    learner = SmallLearner()
    learner.net[0].requires_grad_(False)
    before = learner.net[0].weight.clone(), learner.net[4].weight.clone()

    fit(learner, settings(optimizer="adamw", weight_decay=0.1), Alone(device="cpu"))

    assert torch.equal(learner.net[0].weight, before[0])
    assert not torch.equal(learner.net[4].weight, before[1])


def test_a_weight_without_part_in_the_loss_is_named():
    learner = SmallLearner()
    learner.idle = torch.nn.Linear(2, 2)

    with pytest.raises(TrainingError, match=r"idle\.weight and 1 more take no part in the loss"):
        fit(learner, settings(), Alone(device="cpu"))


def test_reports_carry_parts_rates_and_time_left():
    reports = []

    result = fit(SmallLearner(), settings(), Alone(device="cpu", listener=reports.append))

    assert [(report.step, report.steps) for report in reports] == [(3, 12), (6, 12), (9, 12), (12, 12)]
    assert [report.parts for report in reports] == [parts for _, parts in result.curve]
    assert reports[0].loss == pytest.approx(sum(reports[0].parts.values()))
    assert reports[0].items_per_second > 0
    assert reports[0].seconds_left > 0
    assert reports[-1].seconds_left == 0


# --- the thread that makes batches


class WatchedLearner(SmallLearner):
    """Notes what happens in which order, and in which thread."""

    def __init__(self):
        super().__init__()
        self.events = []
        self.drawing = False
        self.threads = set()

    def batch(self, step, share):
        self.drawing = True
        self.events.append(("batch", step))
        self.threads.add(threading.current_thread())
        made = super().batch(step, share)
        self.drawing = False
        return made

    def after_step(self, step, share):
        assert not self.drawing
        self.events.append(("after", step))
        super().after_step(step, share)


def test_batches_are_made_one_step_ahead_and_never_beside_an_update():
    learner = WatchedLearner()

    fit(learner, settings(steps=4), Alone(device="cpu"))

    expected = [("batch", 0), ("batch", 1), ("after", 0), ("batch", 2), ("after", 1), ("batch", 3)]
    assert learner.events == [*expected, ("after", 2), ("after", 3)]
    assert threading.current_thread() not in learner.threads


def test_a_failure_while_making_a_batch_ends_the_run():
    class Failing(SmallLearner):
        def batch(self, step, share):
            if step == 3:
                raise UsageError("no such patch")
            return super().batch(step, share)

    with pytest.raises(UsageError, match="no such patch"):
        fit(Failing(), settings(), Alone(device="cpu"))

    assert not [one for one in threading.enumerate() if one.name.startswith("next-batch")]


def test_tensors_are_found_in_every_structure():
    pair = torch.ones(1), [torch.ones(2), "text"]

    changed = map_tensors({"pair": pair, "share": Share(0, 1)}, lambda tensor: tensor * 3)

    assert changed["pair"][0].tolist() == [3]
    assert changed["pair"][1][0].tolist() == [3, 3]
    assert changed["pair"][1][1] == "text"
    assert changed["share"] == Share(0, 1)


# --- stop and go on


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("stopped_at", [5, 8])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, optimizer, stopped_at):
    how = settings(
        optimizer=optimizer,
        schedule="cosine",
        warmup_steps=2,
        weight_decay=0.01,
        checkpoint_every=4,
        channels_last=True,
        log_every=1,
    )
    whole, part, rest = (SmallLearner(dropout=0.2) for _ in range(3))
    expected = fit(whole, how, Alone(device="cpu"))

    with pytest.raises(StoppedError):
        fit(part, how, Alone(tmp_path, "cpu", stop_at(stopped_at)))
    found = fit(rest, how, Alone(tmp_path, "cpu"))

    assert found.resumed_from == 4
    assert torch.equal(weights_of(rest), weights_of(whole))
    assert found.curve == expected.curve
    assert rest.extra_state() == whole.extra_state()
    assert found.steps_done == 12


def test_windows_of_the_curve_go_on_across_a_stop(tmp_path):
    how = settings(checkpoint_every=4, log_every=5)
    expected = fit(SmallLearner(), how, Alone(device="cpu"))

    with pytest.raises(StoppedError):
        fit(SmallLearner(), how, Alone(tmp_path, "cpu", stop_at(5)))

    assert fit(SmallLearner(), how, Alone(tmp_path, "cpu")).curve == expected.curve


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    how = settings(checkpoint_every=5)
    first, second = SmallLearner(), SmallLearner()
    expected = fit(first, how, Alone(tmp_path, "cpu"))

    found = fit(second, how, Alone(tmp_path, "cpu"))

    assert (found.resumed_from, found.steps_done, found.curve) == (12, 12, expected.curve)
    assert torch.equal(weights_of(first), weights_of(second))


def test_the_last_two_checkpoints_stay_and_what_a_killed_writer_left_goes(tmp_path):
    (tmp_path / "checkpoints" / ".3.ab.part").mkdir(parents=True)

    fit(SmallLearner(), settings(checkpoint_every=2), Alone(tmp_path, "cpu"))

    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10", "12"]


def test_a_run_goes_on_with_its_own_settings_only(tmp_path):
    fit(SmallLearner(), settings(checkpoint_every=5), Alone(tmp_path, "cpu"))

    with pytest.raises(UsageError, match=r"begun with learning_rate = 0\.05, not 0\.1"):
        fit(SmallLearner(), settings(checkpoint_every=5, learning_rate=0.1), Alone(tmp_path, "cpu"))
    with pytest.raises(UsageError, match="begun with global_batch = 8, not 4"):
        fit(SmallLearner(batch=4), settings(), Alone(tmp_path, "cpu"))
    fit(SmallLearner(), settings(checkpoint_every=3, log_every=1, channels_last=True), Alone(tmp_path, "cpu"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda record: record.pop("curve"),
        lambda record: record.update(curve=[1, 2]),
        lambda record: record.update(extra=[]),
        lambda record: record["extra"].pop("next"),
        lambda record: record.update(optimizer={"net.9.weight": {}}),
        lambda record: record.update(steps_done=None),
    ],
)
def test_a_strange_record_is_refused_in_one_line(tmp_path, spoil):
    fit(SmallLearner(), settings(checkpoint_every=12), Alone(tmp_path, "cpu"))
    path = tmp_path / "checkpoints" / "12" / RECORD_FILE
    about = json.loads(path.read_text())
    spoil(about["record"])
    path.write_text(json.dumps(about))

    with pytest.raises(ArtifactError) as caught:
        fit(SmallLearner(), settings(checkpoint_every=12), Alone(tmp_path, "cpu"))

    assert caught.value.sentence.startswith("checkpoint 12: ")


# --- numbers that run out


class SpoiltLearner(SmallLearner):
    """From step 2 on, one loss part or its gradient is no number."""

    def __init__(self, fault):
        super().__init__(sampled=False)
        self.fault = fault
        self.steps = 0

    def batch(self, step, share):
        return super().batch(step, share) | {"step": step}

    def forward(self, batch):
        parts = super().forward(batch)
        spoilt = batch["step"] == 2
        zero = self.net[4].bias.sum() * 0
        if self.fault == "loss":
            parts["size"] = zero + (float("nan") if spoilt else 0.0)
        elif self.fault == "infinite loss":
            parts["size"] = zero + (math.inf if spoilt else 0.0)
        else:
            parts["size"] = zero.sqrt() if spoilt else zero
        return parts


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ("loss", "step 2: the loss part size is not finite; "),
        ("infinite loss", "step 2: the loss part size is not finite; "),
        ("gradient", "step 2: the gradient of the loss part size (first at net.4.bias) is not finite; "),
    ],
)
def test_a_loss_or_gradient_that_is_no_number_stops_the_run_and_is_named(tmp_path, fault, sentence):
    learner, sound = SpoiltLearner(fault), SpoiltLearner("none")
    sound.fault = "loss"

    with pytest.raises(TrainingError) as caught:
        fit(learner, settings(checkpoint_every=1), Alone(tmp_path, "cpu"))

    assert caught.value.sentence.startswith(sentence)
    assert caught.value.exit_code == 2
    # The learner stands as before the step, and so does the newest checkpoint.
    fit(sound, settings(steps=2), Alone(device="cpu"))
    assert torch.equal(weights_of(learner), weights_of(sound))
    assert Alone(tmp_path, "cpu").latest().name == "2"


def test_weights_that_run_out_are_never_saved(tmp_path):
    class Exploding(SmallLearner):
        def after_step(self, step, share):
            self.net[4].bias.data.fill_(math.inf)

    with pytest.raises(TrainingError, match=r"the weight net\.4\.bias is not finite"):
        fit(Exploding(), settings(checkpoint_every=1), Alone(tmp_path, "cpu"))

    assert Alone(tmp_path, "cpu").latest() is None


def test_what_a_training_held_is_free_as_soon_as_it_ended():
    learner = SmallLearner()
    held = weakref.ref(learner)
    gc.disable()
    try:
        fit(learner, settings(), Alone(device="cpu"))
        del learner
        assert held() is None
    finally:
        gc.enable()


# --- several workers


def run_pair(folder, spoilt_step=-1):
    """Two processes that train one run; what each of them says."""
    words = ["2", str(folder / "meeting"), str(folder), str(spoilt_step)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    workers = [
        subprocess.Popen(
            [sys.executable, ROOT / "tests" / "gloo_worker.py", str(rank), *words],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=240)
        assert worker.returncode == 0, errors
    return [json.loads((folder / f"worker-{rank}.json").read_text()) for rank in range(2)]


def assert_same_curve(found, expected):
    """Within 1e-5 of each value; what differs is the order of sums in fp32."""
    for (step, one), (same_step, other) in zip(expected, found, strict=True):
        assert step == same_step
        assert other == pytest.approx(one, rel=1e-5)


def test_two_workers_walk_the_path_of_one(tmp_path):
    learner = SmallLearner()
    alone = fit(learner, PAIR_SETTINGS, Alone(device="cpu"))

    pair = run_pair(tmp_path)

    assert pair[0] == pair[1]
    assert_same_curve(pair[0]["curve"], alone.curve)
    assert pair[0]["state"] == learner.extra_state()


def test_two_workers_stop_together_and_one_goes_on(tmp_path):
    """A value that is no number on one worker stops both with the same sentence; one worker ends the run."""
    expected = fit(SmallLearner(), PAIR_SETTINGS, Alone(device="cpu"))

    stopped = run_pair(tmp_path, spoilt_step=7)

    assert stopped[0] == stopped[1]
    assert "step 7: the loss part plain, square is not finite" in stopped[0]["error"]
    found = fit(SmallLearner(), PAIR_SETTINGS, Alone(tmp_path, "cpu"))
    assert found.resumed_from == 5
    assert_same_curve(found.curve, expected.curve)


def test_workers_that_cannot_share_the_batch_are_refused():
    place = Alone(device="cpu")
    place.world = 3

    with pytest.raises(UsageError, match="3 workers cannot share a batch of 8 equally"):
        fit(SmallLearner(), settings(), place)


def test_shares_cover_every_item_once():
    items = list(range(10))

    shares = [Share(rank, 3).of(items) for rank in range(3)]

    assert sorted(item for share in shares for item in share) == items
    assert shares[1] == [1, 4, 7]


# --- settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"optimizer": "adam"},
        {"schedule": "linear"},
        {"precision": "fp16"},
        {"clip_norm": 0.0},
        {"checkpoint_every": -1},
        {"log_every": 0},
    ],
)
def test_settings_that_cannot_run_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        settings(**wrong)


def test_nothing_to_train_is_refused():
    learner = SmallLearner()
    learner.requires_grad_(False)

    with pytest.raises(UsageError, match="nothing to train"):
        fit(learner, settings(), Alone(device="cpu"))
