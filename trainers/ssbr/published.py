"""A published body-part regressor in a worker: read out of the lake once, and kept."""

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray

from lesionary.errors import UsageError
from lesionary.lake import Lake
from lesionary.models import find_model, read_weights
from trainers.ssbr.model import net_from, score_slices


@cache
def published_scorer(
    lake_url: str, model_id: str, *, on_gpu: bool = False, precision: str = "fp32"
) -> Callable[[NDArray[np.int16]], NDArray[np.float32]]:
    """What turns shrunk slices into heights.

    Args:
        lake_url: the lake that holds the model.
        model_id: which.
        on_gpu: compute on the first GPU that this process sees.
        precision: fp32 or bf16, of the convolutions.

    Raises:
        UsageError: the lake has no such model, or there is no GPU here.
        ArtifactError: its card or its weights are damaged.
    """
    if on_gpu and not torch.cuda.is_available():
        raise UsageError("there is no GPU here that PyTorch can use", where="--gpus", next_step="leave the option out")
    lake = Lake.open(lake_url)
    card = find_model(lake, model_id, "ssbr")
    net = net_from(read_weights(lake, card), card.settings, where=model_id)
    return partial(score_slices, net.to(torch.device("cuda" if on_gpu else "cpu")), precision=precision)
