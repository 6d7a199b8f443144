"""The next step's batch is made in a thread while the present step is computed; the time spent waiting is measured."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class Prefetcher:
    """Makes batches one step ahead. Between `take` and `start` its thread rests: state may be changed safely."""

    def __init__(self, make: Callable[[int], Any], device: torch.device) -> None:
        self._make = make
        self._pin = device.type == "cuda"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="next-batch")
        self._coming: Future[Any] | None = None
        self.waited_s = 0.0
        """Time that `take` waited, in all."""

    def start(self, step: int) -> None:
        """Begin a step's batch."""
        self._coming = self._pool.submit(self._prepare, step)

    def take(self) -> Any:
        """The batch begun last, waiting for it where needed."""
        if self._coming is None:
            raise RuntimeError("no batch was begun")
        began = time.perf_counter()
        batch = self._coming.result()
        self.waited_s += time.perf_counter() - began
        self._coming = None
        return batch

    def close(self) -> None:
        """Stop after the batch at hand."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, step: int) -> Any:
        batch = self._make(step)
        # Pinned memory is what lets the copy to the GPU run beside its work.
        return map_tensors(batch, lambda tensor: tensor.pin_memory()) if self._pin else batch


def to_device(batch: Any, device: torch.device, *, channels_last: bool) -> Any:
    """The batch with its tensors on the device, images in the wanted memory format."""

    def move(tensor: Tensor) -> Tensor:
        if channels_last and tensor.dim() == 4 and tensor.is_floating_point():
            return tensor.to(device, non_blocking=True, memory_format=torch.channels_last)
        return tensor.to(device, non_blocking=True)

    return map_tensors(batch, move)


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same structure with every tensor changed; what is no tensor stays."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: map_tensors(item, change) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(map_tensors(item, change) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(map_tensors(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {one.name: getattr(value, one.name) for one in dataclasses.fields(value) if one.init}
        return dataclasses.replace(value, **{name: map_tensors(item, change) for name, item in fields.items()})
    return value
