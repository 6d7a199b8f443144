"""The regressor: rebuilt from card and weights, refused when they are another's, each slice scored by itself."""

import numpy as np
import pytest
import safetensors.torch
import torch
from small_volumes import volume_hu

from lesionary.errors import ArtifactError, UsageError
from trainers.checkpoint import weights_bytes
from trainers.ssbr.model import NETWORKS, build_net, net_from, raw_scores, score_slices
from trainers.ssbr.presets import PRESETS, settings_for

SETTINGS = settings_for("smoke", {"input_px": 32}).record()


def net_of(seed=0, settings=SETTINGS):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_net(settings)


def test_weights_and_settings_rebuild_the_scores():
    net, images = net_of(), volume_hu(1, 9)
    low, high = net.set_score_range(raw_scores(net, images))

    again = net_from(weights_bytes(net.state_dict()), SETTINGS)

    assert np.array_equal(score_slices(again, images), score_slices(net, images))
    assert score_slices(net, images) == pytest.approx((raw_scores(net, images) - low) / (high - low), abs=1e-6)
    assert not again.training


def test_a_slice_scores_the_same_in_any_company():
    net, images = net_of(), volume_hu(1, 9)

    alone = np.concatenate([raw_scores(net, images[at : at + 1]) for at in range(9)])

    assert raw_scores(net, images) == pytest.approx(alone, abs=1e-5)
    assert raw_scores(net, images[:0]).shape == (0,)


def test_the_output_is_fp32_whatever_the_convolutions_are():
    net = net_of()
    with torch.autocast("cpu", torch.bfloat16):
        scores = net(net.prepare(torch.from_numpy(volume_hu(1, 4))))

    assert scores.dtype == torch.float32
    assert raw_scores(net, volume_hu(1, 4), precision="bf16") == pytest.approx(
        raw_scores(net, volume_hu(1, 4)), abs=0.2
    )


def test_air_and_bone_beyond_the_window_make_no_difference():
    net, images = net_of(), np.full((2, 32, 32), -1024, np.int16)
    images[1] = -3000

    # What the network makes of them may differ in the last bits with the place in the batch, on some processors.
    prepared = net.prepare(torch.from_numpy(images))
    assert torch.equal(prepared[0], prepared[1])
    first, second = raw_scores(net, images)
    assert first == pytest.approx(second, rel=1e-5)


def test_the_papers_network_scores_too():
    net = net_of(settings=settings_for("paper", {"input_px": 32}).record())

    assert np.isfinite(raw_scores(net, volume_hu(1, 2))).all()
    assert set(NETWORKS) == {preset.network for preset in PRESETS.values()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("output.bias"), "lacks output.bias"),
        (lambda state: state.update({"output.weight": torch.zeros(1, 3)}), "has shape"),
        (lambda state: state["output.weight"].fill_(torch.nan), "not finite"),
        (lambda state: state["score_range"].fill_(1.0), "range of scores is empty"),
    ],
)
def test_weights_of_another_kind_are_refused(change, message):
    state = {name: tensor.clone() for name, tensor in net_of().state_dict().items()}
    change(state)

    with pytest.raises(ArtifactError, match=message):
        if "finite" in message:
            net_from(safetensors.torch.save({name: one.contiguous() for name, one in state.items()}), SETTINGS)
        net_from(weights_bytes(state), SETTINGS)


def test_a_pickle_is_refused():
    with pytest.raises(ArtifactError, match="not a whole safetensors file"):
        net_from(b"\x80\x04cos\nsystem\n(S'true'\ntR.", SETTINGS)


def test_settings_of_something_else_are_refused():
    with pytest.raises(ArtifactError, match="model card.*window_low_hu"):
        build_net({"network": "conv", "input_px": 32})
    with pytest.raises(UsageError, match="there is no network resnet"):
        settings_for("small", {"network": "resnet"})
    with pytest.raises(UsageError, match="there is no preset large"):
        settings_for("large")
    with pytest.raises(UsageError, match="no setting speed"):
        settings_for("small", {"speed": 1})
    with pytest.raises(UsageError, match="another type"):
        settings_for("small", {"zoom": "much"})


def test_scores_that_say_nothing_are_refused():
    with pytest.raises(ArtifactError, match="nearly all training slices are the same"):
        net_of().set_score_range(np.ones(50))
