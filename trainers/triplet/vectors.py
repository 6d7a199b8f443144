"""Vectors of cached patches, for labels and scores: batches of one side, without gradients.

May import: lesionary, numpy, torch, trainers.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainers.batches import PatchSource, inference_batches
from trainers.triplet.model import MultiScaleNet

_BATCH = 64


@torch.inference_mode()
def vectors_of(
    net: MultiScaleNet,
    source: PatchSource,
    scale_mm: float,
    device: torch.device,
    *,
    precision: str = "fp32",
    untrained: bool = False,
) -> NDArray[np.float32]:
    """One row a patch of the source: the network's vectors, or the backbone's features that no head has seen.

    Args:
        net: on the device.
        source: patches.
        scale_mm: that the network was trained at.
        device: where the network is.
        precision: fp32 or bf16, of the convolutions.
        untrained: the features.
    """
    was_training = net.training
    net.eval()
    ask: Callable[[Tensor, Tensor, Tensor], Tensor] = net.features if untrained else net
    width = net.feature_count if untrained else net.settings.dimension
    found = np.empty((len(source), width), np.float32)
    for batch in inference_batches(source, _BATCH, scale_mm):
        images = batch.images.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            found[batch.rows] = ask(images, batch.boxes.to(device), batch.extents.to(device)).float().cpu().numpy()
    net.train(was_training)
    return found
