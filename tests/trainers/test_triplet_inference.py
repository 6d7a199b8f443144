"""Vectors by a model of the lake: the network's own, whatever the batches; damaged models are refused in one line."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from small_models import SMALL_NET, publish_small, small_net

from lesionary.errors import ArtifactError, UsageError
from lesionary.lake import Lake
from lesionary.models import ModelDraft, publish
from lesionary.patch_schema import PATCHES
from trainers.checkpoint import weights_bytes
from trainers.triplet.features import FeatureSource, features_model
from trainers.triplet.inference import (
    Embedder,
    EmbedderMaker,
    InferenceSettings,
    embedder_of,
    fastest_precision,
    net_settings,
)

FP32 = InferenceSettings(precision="fp32")


@pytest.fixture
def lake(tmp_path):
    return Lake.create(str(tmp_path / "lake"))


def patches(sides=(128, 160, 128, 192, 160, 128), seed=0):
    rng = np.random.default_rng(seed)
    rows = []
    for number, side in enumerate(sides):
        blocks = rng.integers(-1024, 3071, (3, 16, 16)).astype("<i2")
        pixels = np.kron(blocks, np.ones((1, side // 16, side // 16), "<i2"))
        middle = side / 2
        rows.append(
            {
                "lesion_id": f"l{number}", "patient_id": "p", "study_id": "s", "side": side,
                "box": [middle - 9, middle - 7, middle + 9, middle + 7], "extent": [4.0, 4.0, side - 4.0, side - 4.0],
                "pixels": pixels.tobytes(),
            }
        )  # fmt: skip
    return pa.Table.from_pylist(rows, schema=PATCHES)


def test_a_model_from_the_lake_is_the_network_that_was_published(lake):
    card = publish_small(lake, seed=4)
    found = EmbedderMaker(lake.url, card.model_id, FP32)()(patches())

    expected = Embedder(small_net(4), "triplet", 4.0, FP32)(patches())
    assert found.shape == (6, 16)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_vectors_come_in_the_patches_order_whatever_the_batches(lake):
    card = publish_small(lake)
    table = patches()
    whole = embedder_of(lake, card, FP32)(table)
    single = embedder_of(lake, card, InferenceSettings(precision="fp32", batch_size=1))(table)
    turned = embedder_of(lake, card, FP32)(table.take([5, 0, 3, 1, 4, 2]))

    np.testing.assert_allclose(single, whole, atol=1e-5)
    np.testing.assert_allclose(turned, whole[[5, 0, 3, 1, 4, 2]], atol=1e-5)
    assert embedder_of(lake, card, FP32)(table.slice(0, 0)).shape == (0, 16)


def test_larger_patches_come_in_smaller_batches(lake):
    embedder = embedder_of(lake, publish_small(lake), InferenceSettings(batch_size=9))
    sizes = [
        (batch.images.shape[-1] * 4, len(batch.rows)) for batch in embedder.batches(patches((128,) * 10 + (448,) * 3))
    ]

    assert sizes == [(128, 9), (128, 1), (448, 1), (448, 1), (448, 1)]


def test_bf16_differs_in_the_last_digits_only(lake):
    card = publish_small(lake)
    table = patches()
    exact = embedder_of(lake, card, FP32)(table)
    rough = embedder_of(lake, card, InferenceSettings(precision="bf16"))(table)

    assert rough.dtype == np.float32
    assert 0 < np.abs(rough - exact).max() < 0.05


def test_features_are_the_backbone_s_alone(lake):
    card = features_model(lake, FeatureSource(backbone="narrow", seed=5))
    again = features_model(lake, FeatureSource(backbone="narrow", seed=5))
    other = features_model(lake, FeatureSource(backbone="narrow", seed=6))
    found = embedder_of(lake, card, FP32)

    assert (card.model_id, again.model_id, other.model_id) == ("multi-scale-1", "multi-scale-1", "multi-scale-2")
    assert found.dimension == 32 + 64 + 96 + 128
    vectors = found(patches())
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 2, atol=1e-5)  # four stages, each of length one
    assert not np.allclose(vectors, embedder_of(lake, other, FP32)(patches()))


def test_nobody_else_s_random_numbers_are_disturbed(lake):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    features_model(lake, FeatureSource(backbone="narrow", seed=5))

    assert torch.equal(torch.rand(3), expected)


def test_a_network_of_one_stage_is_rebuilt_from_its_card(lake):
    card = publish_small(lake, stages=(5,))
    assert net_settings(card)["stages"] == [5]
    assert embedder_of(lake, card, FP32)(patches()).shape == (6, 16)


def publish_bytes(lake, weights, kind="triplet", **settings):
    draft = ModelDraft(
        kind=kind, preset="x", settings=SMALL_NET | {"scale_mm": 4.0} | settings, lake={}, data={}, metrics={}, seed=0
    )
    return publish(lake, "odd", draft, weights)


class _Payload:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def test_models_that_cannot_be_trusted_are_refused_in_one_line(lake):
    state = small_net().state_dict()
    spoilt = {name: torch.full_like(value, float("nan")) for name, value in state.items()}
    import safetensors.torch

    cases = [
        (pickle.dumps(_Payload()), {}, "not a whole safetensors file"),
        (weights_bytes(state)[:-9], {}, "not a whole safetensors file"),
        (safetensors.torch.save({name: value.contiguous() for name, value in spoilt.items()}), {}, "not finite"),
        (weights_bytes(state), {"dimension": 17}, "odd-"),
        (weights_bytes(small_net().backbone.state_dict()), {}, "odd-"),
        (weights_bytes(state), {"scale_mm": "2"}, "states no scale"),
        (weights_bytes(state), {"scale_mm": 0.0}, "states no scale"),
    ]
    for weights, settings, said in cases:
        with pytest.raises(ArtifactError, match=said) as refused:
            embedder_of(lake, publish_bytes(lake, weights, **settings), FP32)
        assert "\n" not in str(refused.value)
    with pytest.raises(UsageError, match="no backbone 'vgg99'"):
        embedder_of(lake, publish_bytes(lake, weights_bytes(state), backbone="vgg99"), FP32)
    with pytest.raises(UsageError, match="is a ssbr model, which gives lesions no vectors"):
        embedder_of(lake, publish_bytes(lake, weights_bytes(state), "ssbr"), FP32)


def test_vectors_that_are_not_finite_are_refused():
    net = small_net()
    with torch.no_grad():
        net.join.weight.fill_(1e38)
        net.join.bias.fill_(float("inf"))

    with pytest.raises(ArtifactError, match="not finite"):
        Embedder(net, "triplet", 4.0, FP32)(patches())


def test_what_could_not_run_is_refused():
    with pytest.raises(UsageError, match="--batch-size"):
        InferenceSettings(batch_size=0)
    with pytest.raises(UsageError, match="fp64"):
        InferenceSettings(precision="fp64")
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU is at hand"):
            Embedder(small_net(), "triplet", 4.0, InferenceSettings(device="cuda"))
    assert fastest_precision(torch.device("cpu")) in {"fp32", "bf16"}
