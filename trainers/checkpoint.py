"""Checkpoints: tensors in safetensors, all else in JSON; no pickle, so that a file from anywhere runs no code.

    <folder>/state.safetensors   weights, and the optimizer's buffers under the names of their parameters
    <folder>/state.json          step, settings, curve, sampling state; the digest of the tensors

What comes back is checked: both files whole and fitting each other, every number finite, every name and shape the
model's own. Anything else is one ArtifactError.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lesionary.artifacts import atomic_write_bytes
from lesionary.errors import ArtifactError, TrainingError
from lesionary.json_text import parse_json

TENSORS_FILE = "state.safetensors"
RECORD_FILE = "state.json"
FORMAT_VERSION = 1

_MODEL = "model/"
_OPTIMIZER = "optimizer/"
_MAX_RECORD_BYTES = 1 << 28


def weights_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Named tensors as the content of a safetensors file; the same tensors make the same bytes.

    Raises:
        TrainingError: a tensor holds a value that is not finite.
    """
    if spoilt := not_finite(tensors):
        raise TrainingError(
            f"{spoilt} holds values that are not finite", where="checkpoint", next_step="train with a lower rate"
        )
    # Each tensor stands for itself: safetensors refuses tensors that share their memory.
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(plain)


def weights_from_bytes(data: bytes, where: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Args:
        data: the file's content.
        where: its name, for the message.

    Raises:
        ArtifactError: it is no such file, is cut short, or holds values that are not finite.
    """
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as cause:
        raise ArtifactError(
            "not a whole safetensors file", where=where, next_step="take another file or train again"
        ) from cause
    if spoilt := not_finite(tensors):
        raise ArtifactError(f"{spoilt} holds values that are not finite", where=where, next_step="train again")
    return tensors


def fill_module(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Set a module's weights and buffers, all of them.

    Raises:
        ArtifactError: a name is missing or unknown, or a shape or type is not the module's; the module is unchanged.
    """
    wanted = module.state_dict()
    _check_names(set(wanted), set(tensors), where)
    for name, tensor in tensors.items():
        _check_fit(name, tensor, wanted[name], where)
    module.load_state_dict(dict(tensors))


def save_state(folder: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write a checkpoint; the record is written last and completes it.

    Raises:
        TrainingError: a tensor holds a value that is not finite.
        UnwritableError: the folder takes no such file.
    """
    data = weights_bytes(tensors)
    about = {"format": FORMAT_VERSION, "sha256": hashlib.sha256(data).hexdigest(), "record": dict(record)}
    text = json.dumps(about, allow_nan=False)
    atomic_write_bytes(folder / TENSORS_FILE, data)
    atomic_write_bytes(folder / RECORD_FILE, text.encode())


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and record of a checkpoint.

    Raises:
        ArtifactError: a file is missing, damaged, or not a checkpoint of ours.
    """
    where = f"checkpoint {folder.name}"
    try:
        with (folder / RECORD_FILE).open("rb") as stream:
            text = stream.read(_MAX_RECORD_BYTES)
        data = (folder / TENSORS_FILE).read_bytes()
    except OSError as cause:
        missing = Path(cause.filename or "").name or "a file"
        raise ArtifactError(
            f"{missing} cannot be read ({cause.strerror or type(cause).__name__})",
            where=where,
            next_step="remove it to go on from the one before, or train again",
        ) from cause
    try:
        about = parse_json(text)
        version, digest, record = about["format"], about["sha256"], about["record"]
    except (ValueError, KeyError, TypeError) as cause:
        raise ArtifactError(
            f"{RECORD_FILE} is not the record of a checkpoint",
            where=where,
            next_step="remove it to go on from the one before, or train again",
        ) from cause
    if version != FORMAT_VERSION or not isinstance(record, dict):
        raise ArtifactError(
            f"the checkpoint has format {version!r}, this release reads {FORMAT_VERSION}",
            where=where,
            next_step="use the release that made it",
        )
    if hashlib.sha256(data).hexdigest() != digest:
        raise ArtifactError(
            f"{TENSORS_FILE} is not what was written (its digest differs)",
            where=where,
            next_step="remove it to go on from the one before, or train again",
        )
    return weights_from_bytes(data, where), record


@dataclass(frozen=True, slots=True)
class TrainingState:
    """What of a checkpoint is not a tensor."""

    steps_done: int
    extra: dict[str, Any]


def pack_training(
    module: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A run's state as tensors and record, for `save_state`."""
    tensors = {_MODEL + name: tensor for name, tensor in module.state_dict().items()}
    plain: dict[str, dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{key}/{name}"] = value
            elif value is not None:
                plain.setdefault(name, {})[key] = value
    record = {"steps_done": state.steps_done, "optimizer": plain, "extra": state.extra}
    return tensors, record


def unpack_training(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    record: Mapping[str, Any],
    where: str,
) -> TrainingState:
    """Set module and optimizer to a packed state.

    Raises:
        ArtifactError: the state is another model's or another optimizer's.
    """
    weights = {name.removeprefix(_MODEL): one for name, one in tensors.items() if name.startswith(_MODEL)}
    buffers = {name.removeprefix(_OPTIMIZER): one for name, one in tensors.items() if name.startswith(_OPTIMIZER)}
    if len(weights) + len(buffers) != len(tensors):
        raise ArtifactError("holds tensors of unknown purpose", where=where, next_step="train again")
    try:
        state = TrainingState(int(record["steps_done"]), dict(record["extra"]))
        plain = {str(name): dict(values) for name, values in dict(record["optimizer"]).items()}
    except (KeyError, TypeError, ValueError, OverflowError) as cause:
        raise ArtifactError("the record is not that of a training run", where=where, next_step="train again") from cause
    fill_module(module, weights, where)
    _fill_optimizer(module, optimizer, buffers, plain, where)
    return state


def _fill_optimizer(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    buffers: Mapping[str, Tensor],
    plain: Mapping[str, Mapping[str, Any]],
    where: str,
) -> None:
    parameters = dict(module.named_parameters())
    found: dict[str, dict[str, Any]] = {name: dict(values) for name, values in plain.items()}
    for label, tensor in buffers.items():
        key, _, name = label.partition("/")
        found.setdefault(name, {})[key] = tensor
    _check_names(set(parameters), set(found) | set(parameters), where)
    optimizer.state.clear()
    for name, values in found.items():
        parameter = parameters[name]
        for key, value in values.items():
            if not isinstance(value, Tensor):
                optimizer.state[parameter][key] = value
            elif value.dim() == 0 and parameter.dim() != 0:
                # A counter of steps; PyTorch keeps it on the CPU.
                optimizer.state[parameter][key] = value
            else:
                _check_fit(f"{key} of {name}", value, parameter, where)
                # In the parameter's own memory layout, so that the same kernels run as before the stop.
                optimizer.state[parameter][key] = torch.empty_like(parameter).copy_(value).detach()


def _check_names(wanted: set[str], found: set[str], where: str) -> None:
    for names, verdict in ((wanted - found, "lacks"), (found - wanted, "holds unknown")):
        if names:
            first = min(names)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ArtifactError(
                f"{verdict} {first}{more}: these are another model's weights",
                where=where,
                next_step="use the settings that the weights were trained with",
            )


def _check_fit(name: str, tensor: Tensor, wanted: Tensor, where: str) -> None:
    if tensor.shape != wanted.shape:
        raise ArtifactError(
            f"{name} has shape {tuple(tensor.shape)} where the model needs {tuple(wanted.shape)}",
            where=where,
            next_step="use the settings that the weights were trained with",
        )
    if tensor.dtype != wanted.dtype:
        raise ArtifactError(
            f"{name} is of type {tensor.dtype} where the model needs {wanted.dtype}",
            where=where,
            next_step="use the settings that the weights were trained with",
        )


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that holds a value that is not finite."""
    for name, tensor in tensors.items():
        # Types without arithmetic (8-bit floats) are widened first.
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.detach().float()).all()):
            return name
    return None
