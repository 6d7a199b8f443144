"""The multi-scale network: shapes, unit length, gradients, precision, and rebuilding it from its card."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lesionary.errors import ArtifactError, UsageError
from trainers.checkpoint import weights_bytes
from trainers.triplet.model import MultiScaleNet, NetSettings, build_net, rebuild_net

SMALL: dict[str, Any] = {"backbone": "narrow", "dimension": 24, "stage_dimension": 8}


def net_of(**changes: Any) -> MultiScaleNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_net(SMALL | changes)


def patches(count: int = 3, side: int = 64) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 255
    box = torch.tensor([20.0, 24.0, 44.0, 40.5]).expand(count, 4)
    extent = torch.tensor([0.0, 0.0, float(side), side - 4.0]).expand(count, 4)
    return images, box, extent


@pytest.mark.parametrize("regions", ["align", "pool"])
@pytest.mark.parametrize("stages", [(2, 3, 4, 5), (5,), (2, 4)])
def test_vectors_have_the_stated_length_and_lie_on_the_unit_sphere(regions: str, stages: tuple[int, ...]) -> None:
    net = net_of(regions=regions, stages=stages)
    vectors = net(*patches())
    assert vectors.shape == (3, 24)
    assert vectors.dtype == torch.float32
    assert torch.allclose(vectors.norm(dim=1), torch.ones(3), atol=1e-6)
    assert net.features(*patches()).shape == (3, net.feature_count)


def test_vgg16_features_are_the_papers_1408_numbers_and_four_unit_vectors() -> None:
    net = net_of(backbone="vgg16").eval()
    with torch.inference_mode():
        found = net.features(*patches(2, 32))
    assert found.shape == (2, 1408)
    for part in found.split([128, 256, 512, 512], dim=1):
        assert torch.allclose(part.norm(dim=1), torch.ones(2), atol=1e-5)


def test_the_features_have_no_weights_of_the_heads() -> None:
    net = net_of()
    net.features(*patches()).sum().backward()
    assert all(one.grad is None for name, one in net.named_parameters() if not name.startswith("backbone."))


def test_every_weight_takes_part_in_the_vector() -> None:
    net = net_of()
    net(*patches())[:, :5].sum().backward()
    assert all(one.grad is not None and bool(one.grad.any()) for one in net.parameters())


def test_the_box_decides_the_shallow_stages_and_the_extent_the_deep_one() -> None:
    net = net_of().eval()
    images, box, extent = patches(1)
    with torch.inference_mode():
        parts = net.features(images, box, extent).split(list(net.backbone.channels), dim=1)
        other_box = net.features(images, box + 9, extent).split(list(net.backbone.channels), dim=1)
        other_extent = net.features(images, box, extent / 2).split(list(net.backbone.channels), dim=1)
    assert [bool(torch.equal(one, other)) for one, other in zip(parts, other_box, strict=True)] == [
        False, False, False, True,
    ]  # fmt: skip
    assert [bool(torch.equal(one, other)) for one, other in zip(parts, other_extent, strict=True)] == [
        True, True, True, False,
    ]  # fmt: skip


def test_gradients_of_the_heads_agree_with_finite_differences() -> None:
    net = net_of(dimension=3, stage_dimension=2, grid=2).double()
    images, box, extent = (given.double() for given in patches(2, 32))
    box = box / 2
    weights = {name: one.detach() for name, one in net.named_parameters()}
    checked = [name for name in weights if not name.startswith("backbone.") and name.endswith("bias")]
    checked += ["join.weight"]

    def vectors(*values: Tensor) -> Tensor:
        return torch.func.functional_call(net, weights | dict(zip(checked, values, strict=True)), (images, box, extent))

    assert torch.autograd.gradcheck(vectors, tuple(weights[name].clone().requires_grad_() for name in checked))


def test_channels_last_and_bf16_agree_with_fp32() -> None:
    net = net_of(dimension=64, stage_dimension=32).eval()
    images, box, extent = patches(4)
    with torch.inference_mode():
        plain = net(images, box, extent)
        net = net.to(memory_format=torch.channels_last)
        last = net(images.to(memory_format=torch.channels_last), box, extent)
        with torch.autocast("cpu", torch.bfloat16):
            mixed = net(images.to(memory_format=torch.channels_last), box, extent)
    assert torch.allclose(plain, last, atol=1e-5)
    assert mixed.dtype == torch.float32
    assert float((plain * mixed).sum(dim=1).min()) > 0.999


def test_the_heads_compute_in_fp32_under_mixed_precision() -> None:
    net = net_of()
    seen = []
    for head in [*net.heads.values(), net.join]:
        head.register_forward_hook(lambda _, inputs, output: seen.extend([inputs[0].dtype, output.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        net(*patches())
    assert seen
    assert set(seen) == {torch.float32}


def test_a_patch_is_answered_alike_alone_and_among_others() -> None:
    net = net_of().eval()
    images, box, extent = patches(3)
    with torch.inference_mode():
        assert torch.allclose(net(images, box, extent)[1:2], net(images[1:2], box[1:2], extent[1:2]), atol=1e-5)


def test_settings_and_weights_rebuild_the_network() -> None:
    net = net_of(stages=(3, 5)).eval()
    record = net.settings.record()
    again = rebuild_net(record, weights_bytes(net.state_dict()))
    assert again.settings == net.settings == NetSettings.of(record)
    assert not again.training
    with torch.inference_mode():
        assert torch.equal(net(*patches()), again(*patches()))


def test_weights_of_another_network_are_refused() -> None:
    data = weights_bytes(net_of().state_dict())
    with pytest.raises(ArtifactError, match="shape"):
        rebuild_net(SMALL | {"dimension": 25}, data)
    with pytest.raises(ArtifactError, match="unknown"):
        rebuild_net(SMALL | {"stages": [2, 5], "dimension": 24}, data)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "alexnet"},
        {"dimension": 0},
        {"dimension": True},
        {"dimension": "24"},
        {"grid": 33},
        {"regions": "crop"},
        {"stages": []},
        {"stages": [5, 2]},
        {"stages": [1]},
        {"stages": [2, 2]},
        {"dimensions": 24},
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        build_net(SMALL | changes)
