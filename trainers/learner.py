"""What is trained: the interface between a trainer (its data, its losses) and the one loop that fits them all.

A step's global batch depends on the seed, the step and the sampling state alone, never on the number of workers: each
worker takes its share of it. So one worker and several walk the same path, up to the order of sums.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Share:
    """One worker's part of every global batch: each `world`-th item, from `rank` on."""

    rank: int = 0
    world: int = 1

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This worker's items."""
        return items[self.rank :: self.world]

    def gather(self, tensor: Tensor) -> Tensor:
        """All workers' rows in the order of the global batch; every worker must call it at the same place.

        Not for `Learner.batch`: it runs beside the step, whose own exchange it would meet.
        """
        if self.world == 1:
            return tensor
        # NCCL moves tensors of its GPU only.
        wire = tensor.detach().to("cuda" if dist.get_backend() == "nccl" else "cpu")
        rows = torch.tensor([len(wire)], device=wire.device)
        every_rows = [torch.zeros_like(rows) for _ in range(self.world)]
        dist.all_gather(every_rows, rows)
        counts = [int(count) for count in every_rows]
        padded = wire.new_zeros((max(counts), *wire.shape[1:]))
        padded[: len(wire)] = wire
        parts = [torch.zeros_like(padded) for _ in range(self.world)]
        dist.all_gather(parts, padded)
        whole = wire.new_zeros((sum(counts), *wire.shape[1:]))
        for rank, (part, count) in enumerate(zip(parts, counts, strict=True)):
            whole[rank :: self.world] = part[:count]
        return whole.to(tensor.device)


def step_generator(seed: int, step: int, stream: int = 0) -> np.random.Generator:
    """The random numbers of one step; `stream` tells several uses within a step apart."""
    return np.random.default_rng([seed, step, stream])


class Learner(nn.Module):
    """A model with its data and losses. `trainers.fitting.fit` calls, for steps 0, 1, 2, …:

    batch(step)          in a background thread, while the step before is computed
    forward(batch)       moved to the device, under mixed precision, gradients averaged over workers
    after_step(step)     between two calls of batch, never beside one

    Every trainable parameter must take part in every step; freeze the others with `requires_grad_(False)`.
    No BatchNorm: its statistics would depend on the number of workers.
    """

    @abstractmethod
    def batch(self, step: int, share: Share) -> Any:
        """The worker's share of a step's global batch, on the CPU: tensors within tuples, lists, mappings, dataclasses.

        Must not use the global random state; see `step_generator`.
        """

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """Named parts of the loss, each the mean over the share; their sum is minimised. Compute them in fp32."""

    @abstractmethod
    def global_batch(self) -> int:
        """Items of a global batch, as throughput counts them."""

    def shared_units(self) -> int:
        """Parts of a global batch that stay together on one worker; the number of workers must divide them."""
        return self.global_batch()

    def after_step(self, step: int, share: Share) -> None:
        """Update the sampling state: the batch of step + 1 is already drawn, that of step + 2 will see it.

        The state must come out the same on every worker; `share.gather` brings the values of all.
        """
        del step, share

    def extra_state(self) -> dict[str, Any]:
        """The sampling state as JSON, for the checkpoint."""
        return {}

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `extra_state` gave."""
        del state

    def compiled_modules(self) -> Sequence[nn.Module]:
        """What `compile` compiles: the network rather than the losses, where shapes or lists vary."""
        return (self,)
