"""Checkpoints come back as they were; whatever else lies in their place is refused in one line and runs nothing."""

import hashlib
import json
import pickle

import pytest
import safetensors.torch
import torch
from torch import nn

from lesionary.errors import ArtifactError, TrainingError
from trainers.checkpoint import (
    RECORD_FILE,
    TENSORS_FILE,
    fill_module,
    load_state,
    save_state,
    weights_bytes,
    weights_from_bytes,
)


class Payload:
    """Unpickling it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))


def rewrite(folder, data):
    """Put other tensors under a record that vouches for them."""
    (folder / TENSORS_FILE).write_bytes(data)
    about = json.loads((folder / RECORD_FILE).read_text())
    about["sha256"] = hashlib.sha256(data).hexdigest()
    (folder / RECORD_FILE).write_text(json.dumps(about))


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "40"
    folder.mkdir()
    save_state(folder, net().state_dict(), {"steps_done": 40, "note": "ä"})
    return folder


def refused(folder):
    with pytest.raises(ArtifactError) as caught:
        load_state(folder)
    assert "\n" not in caught.value.sentence
    assert caught.value.sentence.startswith("checkpoint 40: ")
    return caught.value.sentence


def test_every_type_comes_back_bit_for_bit(tmp_path):
    shared = torch.arange(6.0)
    tensors = {
        "half": torch.tensor([1.5, -2], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "empty": torch.zeros((0, 4)),
        "image": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "whole": shared,
        "view": shared[2:],
    }

    save_state(tmp_path, tensors, {"steps_done": 1, "list": [1, 0.1]})
    found, record = load_state(tmp_path)

    assert record == {"steps_done": 1, "list": [1, 0.1]}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_the_same_weights_make_the_same_file():
    weights = net().state_dict()

    assert weights_bytes(weights) == weights_bytes(dict(reversed(weights.items())))


def test_a_pickle_is_refused_and_not_run(saved, tmp_path):
    mark = tmp_path / "it-ran"
    rewrite(saved, pickle.dumps(Payload(mark)))

    assert "not a whole safetensors file" in refused(saved)
    assert not mark.exists()


def test_a_torch_file_is_refused_and_not_run(saved, tmp_path):
    mark = tmp_path / "it-ran"
    torch.save({"weight": Payload(mark)}, tmp_path / "w.pt")
    rewrite(saved, (tmp_path / "w.pt").read_bytes())

    assert "not a whole safetensors file" in refused(saved)
    assert not mark.exists()


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"\xff" * 8,
        b"\x00" * 8,
        (2**62).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (64).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,800000000]}}  ',
        (64).to_bytes(8, "little") + b'{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}          ' + b"\x00" * 8,
        (66).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}}',
        (65).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}           '
        + b"\x00" * 4,
    ],
)
def test_files_that_only_begin_like_weights_are_refused(header):
    with pytest.raises(ArtifactError, match="not a whole safetensors file"):
        weights_from_bytes(header, "w.safetensors")


def test_every_truncation_is_refused(saved):
    whole = (saved / TENSORS_FILE).read_bytes()
    for length in range(0, len(whole), 7):
        with pytest.raises(ArtifactError, match="not a whole safetensors file"):
            weights_from_bytes(whole[:length], "w.safetensors")
    (saved / TENSORS_FILE).write_bytes(whole[:-4])

    assert "its digest differs" in refused(saved)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_that_are_no_numbers_are_refused(saved, value, dtype):
    spoilt = {"0.bias": torch.tensor([0.0, value], dtype=dtype)}
    rewrite(saved, safetensors.torch.save(spoilt))

    assert "0.bias holds values that are not finite" in refused(saved)
    with pytest.raises(TrainingError, match=r"0\.bias holds values that are not finite"):
        weights_bytes(spoilt)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"0.weight": torch.zeros(2, 1, 5, 5)}, "0.weight has shape (2, 1, 5, 5) where the model needs (2, 1, 3, 3)"),
        ({"2.bias": torch.zeros(3, dtype=torch.float64)}, "2.bias is of type torch.float64"),
        ({"9.bias": torch.zeros(3), "8.bias": torch.zeros(3)}, "holds unknown 8.bias and 1 more"),
        ({"2.bias": None}, "lacks 2.bias: these are another model's weights"),
    ],
)
def test_another_models_weights_are_refused_and_change_nothing(change, sentence):
    module = net()
    before = {name: one.clone() for name, one in module.state_dict().items()}
    weights = {name: one for name, one in {**net().state_dict(), **change}.items() if one is not None}

    with pytest.raises(ArtifactError) as caught:
        fill_module(module, weights, "triplet-3")

    assert sentence in caught.value.sentence
    assert caught.value.sentence.startswith("triplet-3: ")
    assert all(torch.equal(one, before[name]) for name, one in module.state_dict().items())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": 1, "sha256": "", "record": []}',
        b'{"format": 2, "sha256": "", "record": {}}',
    ],
)
def test_a_record_that_is_none_is_refused(saved, text):
    (saved / RECORD_FILE).write_bytes(text)

    assert "\n" not in refused(saved)


@pytest.mark.parametrize("name", [RECORD_FILE, TENSORS_FILE])
def test_a_missing_file_is_named(saved, name):
    (saved / name).unlink()

    assert f"{name} cannot be read (No such file or directory)" in refused(saved)


def test_a_checkpoint_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "40").write_bytes(pickle.dumps([1]))

    assert "\n" not in refused(tmp_path / "40")
