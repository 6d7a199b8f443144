"""Training body-part regression: the draw, the shares of workers, hard and reversed volumes, and a whole run."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_volumes import small_table, volume_hu, volume_table

from lesionary.caches import CacheWriter
from lesionary.errors import ArtifactError, UsageError
from lesionary.lake import Lake
from trainers.checkpoint import weights_bytes
from trainers.fitting import Alone, Share
from trainers.ssbr.loop import SsbrLearner, draw_places, main, train
from trainers.ssbr.presets import settings_for
from trainers.ssbr.source import VolumeSource, spread_places

QUICK = {"input_px": 32, "volumes_per_step": 4, "steps": 6, "checkpoint_every": 3, "log_every": 2}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def source():
    return VolumeSource(small_table())


@pytest.fixture(scope="module")
def cache_url(tmp_path_factory):
    table = small_table(train=10)
    lake = Lake.create(str(tmp_path_factory.mktemp("ssbr") / "lake"))
    with CacheWriter(lake, "volumes", {}, {}, table.schema) as writer:
        for number, batch in enumerate(table.to_batches()):
            writer.write(number, pa.Table.from_batches([batch]))
        return writer.finish().url


def learner_of(source, **changes):
    return SsbrLearner(source, source.of_split("train"), settings_for("smoke", QUICK | changes))


def note(learner, correlations):
    """Tell the learner these correlations of its volumes, again and again."""
    for _ in range(20):
        learner._measured = torch.tensor(list(correlations)), torch.tensor(list(correlations.values()))
        learner.after_step(0, Share())


@pytest.mark.parametrize("count", [8, 9, 15, 16, 100])
@pytest.mark.parametrize("least", [0.0, 0.5, 1.0])
def test_places_are_equidistant_and_inside(count, least):
    drawn = [draw_places(np.random.default_rng(seed), count, 8, least) for seed in range(200)]

    for places in drawn:
        assert places[0] >= 0
        assert places[-1] < count
        assert len(set(np.diff(places))) == 1
        assert places[1] - places[0] >= least * ((count - 1) // 7)
    assert min(places[0] for places in drawn) == 0
    assert max(places[-1] for places in drawn) == count - 1


def test_slices_are_the_caches_own(source):
    places = np.array([2, 0, 19])

    assert np.array_equal(source.slices(3, places), volume_hu(3, 20)[places])
    assert source.slice_indices(3, places).tolist() == [3, 1, 20]
    assert source.counts()["volumes_by_split"] == {"test": 2, "train": 6, "val": 2}
    assert spread_places(10, 4).tolist() == [0, 3, 6, 9]


def test_workers_shares_make_up_the_batch_of_one(source):
    learner = learner_of(source)
    whole = learner.batch(3, Share())
    shares = [learner.batch(3, Share(rank, 2)) for rank in (0, 1)]

    for name in ("volumes", "images", "crops", "light"):
        for rank in (0, 1):
            assert torch.equal(getattr(whole, name)[rank::2], getattr(shares[rank], name)), name
    losses = [learner(share) for share in shares]
    for part, value in learner(whole).items():
        assert float(value.detach()) == pytest.approx(sum(float(loss[part].detach()) for loss in losses) / 2, rel=1e-5)


def test_batches_follow_from_seed_and_step(source):
    first, again, other = learner_of(source), learner_of(source), learner_of(source, seed=1)

    assert torch.equal(first.batch(5, Share()).crops, again.batch(5, Share()).crops)
    assert not torch.equal(first.batch(5, Share()).crops, other.batch(5, Share()).crops)
    assert not torch.equal(first.batch(5, Share()).crops, first.batch(6, Share()).crops)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert len(set(first.draw_volumes(5).tolist())) == 4


def test_slices_of_one_volume_are_changed_each_on_its_own(source):
    batch = learner_of(source).batch(0, Share())

    assert len({tuple(crop.flatten().tolist()) for crop in batch.crops[0]}) == 8
    assert len({tuple(light.tolist()) for light in batch.light[0]}) == 8


def test_hard_volumes_are_drawn_more_often(source):
    learner = learner_of(source, volumes_per_step=1, hard_share=0.8)
    note(learner, {0: 0.2, 1: 0.99, 2: 0.99, 3: 0.99, 4: 0.99, 5: 0.99})

    drawn = np.bincount([int(learner.draw_volumes(step)[0]) for step in range(300)], minlength=6)

    assert drawn[0] > 1.5 * drawn[1:].max()
    assert drawn.min() > 0
    assert learner.reversed_volumes() == []


def test_a_reversed_volume_is_named_and_drawn_rarely(source):
    learner = learner_of(source, volumes_per_step=1, hard_share=1.0)
    note(learner, {0: -0.9, 1: 0.95, 2: 0.95, 3: 0.95, 4: 0.9, 5: 0.9})

    drawn = np.bincount([int(learner.draw_volumes(step)[0]) for step in range(300)], minlength=6)

    assert learner.reversed_volumes() == [0]
    assert drawn[0] <= drawn[1:].max()


def test_while_everything_is_reversed_nothing_is(source):
    learner = learner_of(source)
    note(learner, dict.fromkeys(range(6), -0.9))

    assert learner.reversed_volumes() == []


def test_the_record_of_order_survives_a_checkpoint(source):
    learner = learner_of(source)
    note(learner, {0: 0.2, 1: 0.9})
    again = learner_of(source)

    again.load_extra_state(json.loads(json.dumps(learner.extra_state())))

    assert again.draw_volumes(9).tolist() == learner.draw_volumes(9).tolist()
    with pytest.raises(UsageError, match="begun on 2 volumes"):
        again.load_extra_state({"correlations": [1.0, 1.0]})


def test_gradients_are_those_of_finite_differences(source):
    learner = learner_of(source).double()
    learner.net.prepare = lambda images, crops: torch.nn.functional.interpolate(
        images[:, None].double() / 1000, size=32
    )
    batch = learner.batch(0, Share(0, 4))
    weight = learner.net.trunk[0].weight
    head = learner.net.output
    # The head computes in fp32 on purpose; here everything is to be exact.
    head.forward = lambda values: torch.nn.functional.linear(values.double(), head.weight, head.bias)
    learner.net.trunk.float = learner.net.trunk.double

    def loss(values):
        state = dict(learner.named_parameters()) | {"net.trunk.0.weight": values}
        return sum(torch.func.functional_call(learner, state, (batch,)).values())

    probe = weight.detach().clone().requires_grad_()
    loss(probe).backward()
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        numeric = (loss(weight + 1e-5 * direction) - loss(weight - 1e-5 * direction)) / 2e-5
    assert float((probe.grad * direction).sum()) == pytest.approx(float(numeric), rel=2e-2)


def test_a_whole_run_puts_unseen_volumes_in_order(cache_url, tmp_path):
    job = {"volumes": cache_url, "preset": "smoke", "out": str(tmp_path), "settings": {"input_px": 32, "log_every": 5}}

    result = train(job, Alone(tmp_path, device="cpu"))

    assert result["metrics"]["mean_correlation_val"] > 0.9
    assert result["steps_done"] == 50
    assert result["data"]["training_volumes"] == 10
    low, high = result["settings"]["score_range"]
    assert low < high
    assert [step for step, _ in result["curve"]] == list(range(5, 51, 5))
    assert json.loads(json.dumps(result)) == result
    assert (tmp_path / "weights.safetensors").stat().st_size > 0


def test_a_run_that_was_stopped_ends_where_the_whole_one_does(cache_url, tmp_path):
    class StoppedError(Exception):
        pass

    def stop(report):
        if report.step == 4:
            raise StoppedError

    job = {"volumes": cache_url, "preset": "smoke", "settings": QUICK}
    whole = train(job | {"out": str(tmp_path / "a")}, Alone(tmp_path / "a", device="cpu"))
    with pytest.raises(StoppedError):
        train(job | {"out": str(tmp_path / "b")}, Alone(tmp_path / "b", device="cpu", listener=stop))
    resumed = train(job | {"out": str(tmp_path / "b")}, Alone(tmp_path / "b", device="cpu"))

    assert resumed["resumed_from"] == 3
    assert resumed["curve"][-1] == whole["curve"][-1]
    assert (tmp_path / "a" / "weights.safetensors").read_bytes() == (
        tmp_path / "b" / "weights.safetensors"
    ).read_bytes()


def test_the_module_runs_by_itself(cache_url, tmp_path, capsys):
    heights = [[at + 1, 0, at / 21] for at in range(22)]
    truth = {"series": {f"{number:03d}_01_01": {"slice_index_z_mm_height": heights} for number in range(14)}}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    arguments = ["--volumes", cache_url, "--out", str(tmp_path / "out"), "--preset", "smoke", "--input-px", "32"]

    of_phantom = ["--truth", str(tmp_path / "truth.json"), "--namespace", "t"]
    assert main([*arguments, *of_phantom, "--steps", "12", "--checkpoint-every", "0", "--seed", "3"]) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["body_parts"]["slices"] > 40
    assert printed["body_parts"]["volumes_test"] == 2
    assert printed == json.loads((tmp_path / "out" / "result.json").read_text())["metrics"]
    assert main([*arguments[:1], str(tmp_path / "nowhere"), *arguments[2:]]) == 2
    assert "there is no finished cache here" in capsys.readouterr().err


def test_too_little_to_train_on_is_said(source):
    with pytest.raises(UsageError, match="none of the 0 training volumes has 8 slices"):
        SsbrLearner(source, source.of_split("train")[:0], settings_for("smoke"))
    with pytest.raises(UsageError, match="none of the 6 training volumes has 40 slices"):
        learner_of(source, slices_per_volume=40)


def test_only_a_network_with_a_backbone_starts_from_weights(source):
    train_on = source.of_split("train")

    with pytest.raises(UsageError, match="--weights: the network conv has no backbone"):
        SsbrLearner(source, train_on, settings_for("smoke"), weights="imagenet")
    paper = settings_for("paper", {"input_px": 32})
    first = SsbrLearner(source, train_on, paper)
    backbone = {name: one + 1 for name, one in first.net.trunk.backbone.state_dict().items()}

    second = SsbrLearner(source, train_on, paper, weights=weights_bytes(backbone))

    assert second.started.tensors == len(backbone)
    assert torch.equal(second.net.trunk.backbone.features[0].bias, backbone["features.0.bias"])


def test_one_volume_is_enough_to_run(source, tmp_path):
    one = VolumeSource(volume_table([("t-000", "train", volume_hu(0, 12))]))
    learner = learner_of(one)

    assert learner.draw_volumes(0).tolist() == [0, 0, 0, 0]
    assert learner(learner.batch(0, Share()))["order"].requires_grad


def test_a_table_of_something_else_is_refused():
    table = small_table(1, 0, 0)

    with pytest.raises(ArtifactError, match="no column split"):
        VolumeSource(table.drop_columns(["split"]))
    with pytest.raises(ArtifactError, match="not square int16"):
        VolumeSource(table.set_column(6, "pixels", pa.array([b""] * table.num_rows)))
