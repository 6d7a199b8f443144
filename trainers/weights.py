"""Weights from outside: torchvision's ImageNet weights, safetensors, and state dicts without pickled code.

    imagenet   torchvision's own file, from its cache or the network
    none       the random start
    FILE       safetensors, or a state dict of torch.save; of the backbone, of torchvision's network or of one of ours

A file is judged by its content, not its name. Nothing in it is ever executed: safetensors holds numbers only, and
torch reads its own format with `weights_only`. All of a file is checked before the first number is taken over, so a
refused file leaves the network as it was.

May import: lesionary, torch, torchvision, safetensors, trainers.backbones, trainers.checkpoint.
"""

import contextlib
import hashlib
import io
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors.torch import load as parse_safetensors
from torch import Tensor, nn

from lesionary.errors import ArtifactError, UsageError
from trainers.backbones import Backbone, imagenet_weights
from trainers.checkpoint import fill_module

NO_WEIGHTS = "none"
IMAGENET = "imagenet"

# Parts of torchvision's networks that come after the feature maps.
_HEAD_PREFIXES = ("classifier.", "fc.", "head.")
_BACKBONE_PREFIX = "backbone."
# Names under which training scripts keep a state dict beside other things.
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_SAFETENSORS_START = 8
_MAX_FILE_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class WeightsRecord:
    """Where a network's first weights came from, for its model card."""

    source: str
    """imagenet, none or file."""
    file: str | None = None
    sha256: str | None = None
    tensors: int = 0
    ignored: int = 0
    """Tensors of the file that belong to other parts than the backbone."""


def start_weights(
    net: nn.Module, source: str | Path | bytes, layers: Mapping[str, nn.Linear] | None = None
) -> WeightsRecord:
    """Fill a network's backbone.

    Args:
        net: a backbone, or a network with one as its `backbone`.
        source: imagenet, none, a file's path, or a file's bytes.
        layers: further layers of the network, by the file's names for them; those that the file has are filled too.

    Raises:
        UsageError: there are no such weights.
        ArtifactError: the file is damaged, unsafe, or of another network.
    """
    backbone = net if isinstance(net, Backbone) else net.get_submodule("backbone")
    if not isinstance(backbone, Backbone):
        raise TypeError(f"{type(net).__name__} has no backbone of trainers.backbones")
    if isinstance(source, str) and source == NO_WEIGHTS:
        return WeightsRecord(NO_WEIGHTS)
    if isinstance(source, str) and source == IMAGENET:
        tensors, name = _imagenet(backbone.name)
        kept = _fill_backbone(backbone, tensors, name) + _fill_layers(layers, tensors, name)
        return WeightsRecord(IMAGENET, name, None, kept, len(tensors) - kept)
    if isinstance(source, bytes):
        data, name = source, "the given weights"
    else:
        data, name = _file_bytes(Path(source)), Path(source).name
    tensors = load_weights_bytes(data, name)
    kept = _fill_backbone(backbone, tensors, name) + _fill_layers(layers, tensors, name)
    return WeightsRecord("file", name, hashlib.sha256(data).hexdigest(), kept, len(tensors) - kept)


def load_weights_file(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a state dict, on the CPU; not yet compared with any network.

    Raises:
        UsageError: there is no such file.
        ArtifactError: the file is damaged or unsafe.
    """
    return load_weights_bytes(_file_bytes(path), path.name)


def load_weights_bytes(data: bytes, where: str = "the given weights") -> dict[str, Tensor]:
    """The tensors of a file's bytes; `where` names it in errors.

    Raises:
        ArtifactError: the bytes are damaged or unsafe.
    """
    if data[_SAFETENSORS_START : _SAFETENSORS_START + 1] == b"{":
        try:
            return _state_dict(parse_safetensors(data), where)
        except ArtifactError:
            raise
        except Exception as cause:  # hostile bytes end a parser in many ways
            raise _unreadable(where, "is damaged", cause) from cause
    return _state_dict(_torch_file(data, where), where)


def _fill_backbone(backbone: Backbone, tensors: Mapping[str, Tensor], where: str) -> int:
    """Copy the backbone's part of a file into it, if all of it fits; how many tensors that were."""
    wanted = backbone.state_dict()
    kept = {name: _usable(name, tensor, wanted.get(name), where) for name, tensor in _of_backbone(tensors).items()}
    fill_module(backbone, kept, where)
    return len(kept)


def _fill_layers(layers: Mapping[str, nn.Linear] | None, tensors: Mapping[str, Tensor], where: str) -> int:
    """Copy those layers that a file has in these shapes; how many tensors that were."""
    kept = 0
    for name, layer in (layers or {}).items():
        held = {part: tensors.get(f"{name}.{part}") for part in ("weight", "bias")}
        fits = {
            part: _usable(f"{name}.{part}", tensor, layer.state_dict()[part], where)
            for part, tensor in held.items()
            if tensor is not None and tensor.shape == layer.state_dict()[part].shape
        }
        if len(fits) == len(held):
            fill_module(layer, fits, where)
            kept += len(fits)
    return kept


def _usable(name: str, tensor: Tensor, target: Tensor | None, where: str) -> Tensor:
    """A tensor in the network's own number type; files of half precision are common."""
    if target is None or tensor.shape != target.shape:
        # Refused by its name or shape, untouched: a small file may claim a huge tensor, all of one element.
        return tensor
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise ArtifactError(f"{name} is no plain tensor of numbers", where=where, next_step="give other weights")
    if tensor.is_floating_point() and target.is_floating_point():
        tensor = tensor.to(target.dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise ArtifactError(
                f"{name} holds NaN or infinity", where=where, next_step="give weights of a training that went well"
            )
    return tensor


def _of_backbone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a file, named as the backbone names it."""
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    inner = {name: value for name, value in tensors.items() if name.startswith(_BACKBONE_PREFIX)}
    if inner:
        return {name.removeprefix(_BACKBONE_PREFIX): value for name, value in inner.items()}
    return {name: value for name, value in tensors.items() if not name.startswith(_HEAD_PREFIXES)}


def _file_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(
                "there is no such weights file",
                where=str(path),
                next_step="give a file of weights, or one of: imagenet, none",
            )
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ArtifactError("the file is larger than any network's weights", where=path.name)
        return path.read_bytes()
    except OSError as cause:
        raise UsageError(f"cannot be read ({cause.strerror})", where=path.name, next_step="check the file") from cause


def _torch_file(data: bytes, where: str) -> object:
    try:
        with warnings.catch_warnings():
            # Warnings about old formats are of no use to whoever cannot change the file.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as cause:  # hostile bytes end a parser in many ways
        raise _unreadable(where, "is neither safetensors nor a state dict that can be read safely", cause) from cause


def _state_dict(value: object, where: str) -> dict[str, Tensor]:
    if isinstance(value, Mapping):
        for wrapper in _WRAPPERS:
            if isinstance(value.get(wrapper), Mapping):
                value = value[wrapper]
                break
    if not isinstance(value, Mapping) or not value or not all(_is_entry(*entry) for entry in value.items()):
        raise ArtifactError(
            "the file holds no state dict (names with tensors)",
            where=where,
            next_step="save the network's state_dict(), best as safetensors",
        )
    return {name: tensor.detach() for name, tensor in value.items()}


def _is_entry(name: object, tensor: object) -> bool:
    # Names are shown to people: no control characters.
    return isinstance(name, str) and name.isprintable() and type(tensor) in {Tensor, nn.Parameter}


def _unreadable(where: str, what: str, cause: Exception) -> ArtifactError:
    return ArtifactError(
        f"the file {what} ({type(cause).__name__})",
        where=where,
        next_step="nothing of it was executed; give a whole safetensors file, or a state dict saved with torch.save",
    )


def _imagenet(name: str) -> tuple[Mapping[str, Tensor], str]:
    """The state dict of torchvision's file, from the cache or the network, and the file's name."""
    weights = imagenet_weights(name)
    if weights is None:
        raise UsageError(
            f"there are no ImageNet weights of the backbone {name}",
            next_step="use --weights position or none, or the backbone vgg16",
        )
    file = Path(urlparse(weights.url).path).name
    try:
        # torchvision announces a download on the standard output, where a command's answer belongs.
        with contextlib.redirect_stdout(sys.stderr):
            tensors = weights.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except OSError as cause:
        raise UsageError(
            f"torchvision's ImageNet weights of {name} are not in its cache and cannot be fetched",
            where=weights.url,
            next_step=f"copy {file} into {torch.hub.get_dir()}/checkpoints, or use --weights position, none or a file",
        ) from cause
    except Exception as cause:
        raise _unreadable(file, "in torchvision's cache is damaged", cause) from cause
    return _state_dict(tensors, file), file
