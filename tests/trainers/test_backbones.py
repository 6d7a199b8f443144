"""Backbones: four stages of stated size, torchvision's names, nothing that depends on the batch."""

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from lesionary.errors import UsageError
from trainers.backbones import BACKBONES, imagenet_weights, make_backbone, soft_tissue


def images(count: int = 2, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255


@pytest.mark.parametrize("name", BACKBONES)
def test_four_stages_have_the_stated_channels_and_strides(name: str) -> None:
    backbone = make_backbone(name).eval()
    with torch.inference_mode():
        maps = backbone(images())
    assert [tuple(found.shape) for found in maps] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    assert all(torch.isfinite(found).all() for found in maps)


@pytest.mark.parametrize("name", BACKBONES)
def test_no_layer_mixes_the_images_of_a_batch(name: str) -> None:
    backbone = make_backbone(name).train()
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
    with torch.no_grad():
        together, alone = backbone(images()), backbone(images()[1:])
    for whole, part in zip(together, alone, strict=True):
        assert torch.allclose(whole[1:], part, rtol=1e-4, atol=1e-4)


def test_vgg16_has_torchvisions_names_and_shapes() -> None:
    with torch.device("meta"):
        theirs = get_model("vgg16", weights=None, init_weights=False).state_dict()
    ours = make_backbone("vgg16").state_dict()
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items() if name.startswith("features.")
    }


def test_vgg16_sees_what_torchvisions_network_sees_of_a_normalised_image() -> None:
    from torchvision.models import VGG16_Weights

    backbone = make_backbone("vgg16").eval()
    prepare = VGG16_Weights.IMAGENET1K_V1.transforms()
    whole = images(1)
    normalised = (whole / 255 - torch.tensor(prepare.mean).reshape(1, 3, 1, 1)) / torch.tensor(prepare.std).reshape(
        1, 3, 1, 1
    )
    with torch.inference_mode():
        expected = backbone.features(normalised)
        found = backbone(whole)[-1]
    assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_same_seed_draws_the_same_weights() -> None:
    states = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            states.append(make_backbone("narrow").state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="vgg16, narrow, convnext_tiny"):
        make_backbone("resnet9000")


def test_only_torchvisions_networks_have_imagenet_weights() -> None:
    assert imagenet_weights("narrow") is None
    assert str(imagenet_weights("vgg16")) == "VGG16_Weights.IMAGENET1K_V1"
    assert str(imagenet_weights("convnext_tiny")) == "ConvNeXt_Tiny_Weights.IMAGENET1K_V1"


def test_the_soft_tissue_window_spreads_organs_and_flattens_air_and_bone() -> None:
    hu = torch.tensor([-1024.0, -900.0, 40.0, 70.0, 1000.0, 3071.0])
    seen = soft_tissue((hu + 1024) / 4095 * 255)
    assert torch.allclose(seen, torch.tensor([-1.0, -1.0, 0.0, 0.197375, 1.0, 1.0]), atol=1e-4)
