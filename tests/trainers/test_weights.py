"""Weights from outside: what fits is taken over exactly, everything else is one line and changes nothing."""

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torchvision.models import get_model

from lesionary.errors import ArtifactError, LesionaryError, UsageError
from trainers.backbones import Backbone, make_backbone
from trainers.triplet.model import build_net
from trainers.weights import load_weights_bytes, load_weights_file, start_weights


def narrow(seed: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make_backbone("narrow")


def saved(value: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    torch.save(value, sink, **options)
    return sink.getvalue()


def same(net: nn.Module, tensors: dict[str, Tensor]) -> bool:
    state = net.state_dict()
    return set(state) == set(tensors) and all(torch.equal(state[name], value) for name, value in tensors.items())


def refusal(net: nn.Module, data: bytes) -> str:
    """The one line of the refusal; the network must be as it was."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ArtifactError) as caught:
        start_weights(net, data)
    assert same(net, before)
    assert "\n" not in caught.value.sentence
    assert len(caught.value.sentence) < 400
    return caught.value.sentence


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before-zip"])
def test_state_dicts_and_safetensors_are_taken_over_exactly(tmp_path: Path, old: bool) -> None:
    wanted = narrow(1).state_dict()
    for name, data in (
        ("a.safetensors", save_safetensors(wanted)),
        # Files are told apart by their content, not by their name.
        ("b.bin", saved(wanted, _use_new_zipfile_serialization=not old)),
        ("c.pth", saved({"state_dict": {f"module.{key}": value for key, value in wanted.items()}, "epoch": 3})),
    ):
        (tmp_path / name).write_bytes(data)
        net = narrow(2)
        record = start_weights(net, str(tmp_path / name))
        assert same(net, wanted)
        assert (record.source, record.file, record.tensors, record.ignored) == ("file", name, len(wanted), 0)
        assert set(load_weights_file(tmp_path / name)) >= {"features.0.weight"} or name == "c.pth"


def test_a_trained_networks_file_starts_another_ones_backbone() -> None:
    trained = build_net({"backbone": "narrow", "dimension": 8, "stage_dimension": 4})
    net = build_net({"backbone": "narrow", "dimension": 16, "stage_dimension": 4})
    heads = {name: value.clone() for name, value in net.state_dict().items() if not name.startswith("backbone.")}
    record = start_weights(net, save_safetensors(trained.state_dict()))
    assert same(net.backbone, trained.backbone.state_dict())
    assert all(torch.equal(net.state_dict()[name], value) for name, value in heads.items())
    assert record.ignored == len(heads)


def test_a_state_dict_of_torchvisions_vgg16_fits(tmp_path: Path) -> None:
    theirs = {
        # The classifier by name only: it weighs half a gigabyte and is not looked at.
        name: value if name.startswith("features.") else torch.zeros(1)
        for name, value in _vgg16_state().items()
    }
    torch.save(theirs, tmp_path / "vgg16.pth")
    net = make_backbone("vgg16")
    record = start_weights(net, str(tmp_path / "vgg16.pth"))
    assert same(net, {name: value for name, value in theirs.items() if name.startswith("features.")})
    assert (record.tensors, record.ignored) == (26, 6)


def _vgg16_state() -> dict[str, Tensor]:
    with torch.device("meta"):
        whole = get_model("vgg16", weights=None, init_weights=False)
    generator = torch.Generator().manual_seed(4)
    return {
        name: torch.rand(value.shape, generator=generator) if name.startswith("features.") else value
        for name, value in whole.state_dict().items()
    }


def test_half_precision_files_are_widened() -> None:
    wanted = {name: value.half() for name, value in narrow(1).state_dict().items()}
    net = narrow(2)
    start_weights(net, save_safetensors(wanted))
    assert same(net, {name: value.float() for name, value in wanted.items()})


def test_none_leaves_the_random_start() -> None:
    net = narrow(5)
    assert start_weights(net, "none").source == "none"
    assert same(net, narrow(5).state_dict())


class _Bomb:
    """Unpickling this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before-zip"])
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "among-weights"])
def test_code_in_a_pickle_is_not_executed(tmp_path: Path, old: bool, inside: bool) -> None:
    bomb = _Bomb(tmp_path / "boom")
    value: Any = {**narrow(1).state_dict(), "features.0.weight": bomb} if inside else bomb
    assert "executed" in refusal(narrow(0), saved(value, _use_new_zipfile_serialization=not old))
    assert "executed" in refusal(narrow(0), pickle.dumps(value))
    assert not (tmp_path / "boom").exists()


def test_a_whole_pickled_module_is_refused() -> None:
    assert "executed" in refusal(narrow(0), saved(narrow(1)))


def altered(**changes: Any) -> dict[str, Any]:
    state: dict[str, Any] = {**narrow(1).state_dict(), **{name.replace("__", "."): v for name, v in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


def _spoilt(value: float) -> Tensor:
    tensor = narrow(1).state_dict()["features.0.weight"].clone()
    tensor[3, 1, 2, 2] = value
    return tensor


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (altered(features__0__weight=torch.zeros(16, 3, 3, 3)), "shape"),
        (altered(features__0__weight=_spoilt(float("nan"))), "NaN"),
        (altered(features__0__weight=_spoilt(float("-inf"))), "infinity"),
        (altered(features__0__weight=None), "lacks features.0.weight"),
        (altered(extra__weight=torch.zeros(3)), "unknown extra.weight"),
        (altered(features__0__weight=torch.zeros(16, 6, 5, 5, dtype=torch.int64)), "type"),
        (altered(features__0__weight=torch.zeros(16, 6, 5, 5, dtype=torch.complex64)), "type"),
        (altered(features__0__weight=torch.zeros(16, 6, 5, 5).to_sparse()), "plain"),
        (altered(features__0__weight=torch.zeros(16, 6, 5, 5, device="meta")), "plain"),
        # A few bytes that claim a tensor of petabytes.
        (altered(features__0__weight=torch.zeros(1).expand(1 << 50)), "shape"),
        (altered(features__0__weight="text"), "no state dict"),
        ({}, "no state dict"),
        ([1, 2, 3], "no state dict"),
        ({1: torch.zeros(2)}, "no state dict"),
        ({"\x1b[31mred": torch.zeros(2)}, "no state dict"),
        ({"state_dict": {"features": {}}}, "no state dict"),
        (torch.zeros(3), "no state dict"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(state: Any, said: str) -> None:
    assert said in refusal(narrow(0), saved(state))


def test_half_precision_that_overflowed_is_refused() -> None:
    state = narrow(1).state_dict() | {"features.0.weight": _spoilt(1e30).half()}
    assert "infinity" in refusal(narrow(0), save_safetensors(state))


def test_another_networks_weights_are_refused_by_name() -> None:
    resnet = get_model("resnet18", weights=None).state_dict()
    assert "another" in refusal(narrow(0), save_safetensors(resnet))
    assert "lacks" in refusal(make_backbone("convnext_tiny"), save_safetensors(narrow(1).state_dict()))


def _zip_of(name: str, content: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr(name, content)
    return sink.getvalue()


SAFE = save_safetensors(narrow(1).state_dict())
ZIPPED = saved(narrow(1).state_dict())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0", b"{}", b"\x80\x02.", b"not weights at all " * 50, ZIPPED[:1000], ZIPPED[: len(ZIPPED) // 2],
        SAFE[:7], SAFE[:40], SAFE[:-1], SAFE + b"\0", (1 << 62).to_bytes(8, "little") + SAFE[8:],
        (8).to_bytes(8, "little") + b"{bad json", _zip_of("readme.txt", b"hello"), _zip_of("archive/data.pkl", b"\x80"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_in_one_line(data: bytes) -> None:
    assert "the given weights" in refusal(narrow(0), data)


def test_flipped_bits_end_in_a_refusal_or_in_tensors() -> None:
    rng = torch.Generator().manual_seed(0)
    small = saved({"a": torch.ones(3), "b": torch.zeros(2, 2)})
    for _ in range(300):
        data = bytearray(small)
        at = int(torch.randint(len(data), (1,), generator=rng))
        data[at] ^= 1 << int(torch.randint(8, (1,), generator=rng))
        with contextlib.suppress(ArtifactError):
            assert all(isinstance(value, Tensor) for value in load_weights_bytes(bytes(data)).values())


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    for ask in (lambda path: start_weights(narrow(0), str(path)), load_weights_file):
        with pytest.raises(UsageError, match="no such weights file"):
            ask(tmp_path / name)


def test_the_narrow_network_has_no_imagenet_weights() -> None:
    with pytest.raises(UsageError, match="no ImageNet weights of the backbone narrow"):
        start_weights(narrow(0), "imagenet")


def test_imagenet_weights_come_from_torchvisions_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name: value for name, value in _vgg16_state().items() if name.startswith("features.")}
    _cached(tmp_path, monkeypatch, state)
    net = make_backbone("vgg16")
    record = start_weights(net, "imagenet")
    assert same(net, state)
    assert (record.source, record.file, record.tensors) == ("imagenet", "vgg16-397923af.pth", 26)


def _cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(value, tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth")


def test_a_hostile_file_in_torchvisions_cache_is_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _cached(tmp_path, monkeypatch, _Bomb(tmp_path / "boom"))
    with pytest.raises(ArtifactError, match=r"vgg16-397923af\.pth"):
        start_weights(make_backbone("vgg16"), "imagenet")
    assert not (tmp_path / "boom").exists()


def test_imagenet_without_cache_and_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: nobody listens
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(LesionaryError) as caught:
        start_weights(make_backbone("vgg16"), "imagenet")
    assert isinstance(caught.value, UsageError)
    assert "vgg16-397923af.pth" in caught.value.sentence
    assert "--weights position" in caught.value.sentence
    # The standard output belongs to the command's answer.
    assert capsys.readouterr().out == ""
