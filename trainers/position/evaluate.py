"""How far off the places are that a network names, on patches it was not trained on."""

import numpy as np
import torch
from numpy.typing import NDArray

from trainers.batches import PatchSource
from trainers.position.model import COORDINATES, PositionNet
from trainers.position.presets import PositionSettings
from trainers.position.targets import middle_crops, read_crops

_CROPS_AT_ONCE = 128


def position_errors(
    net: PositionNet,
    source: PatchSource,
    rows: NDArray[np.int64],
    train_rows: NDArray[np.int64],
    settings: PositionSettings,
    device: torch.device,
) -> dict[str, float]:
    """Mean absolute errors over the middles of patches, and what knowing nothing would come to.

    Args:
        net: on the device; left in evaluation mode.
        source: of the patches.
        rows: those to look at.
        train_rows: those trained on; their mean place is the answer of knowing nothing.
        settings: sizes.
        device: where to compute.

    Returns:
        `error_x` and `guess_error_x`, likewise y and z; those left out whose coordinate no patch has.
    """
    net.eval()
    wrong = [np.zeros((0, len(COORDINATES)), np.float32)]
    with torch.inference_mode():
        for start in range(0, len(rows), _CROPS_AT_ONCE):
            crops = read_crops(source, middle_crops(rows[start : start + _CROPS_AT_ONCE], settings), settings)
            said = net(crops.images.to(device), crops.boxes.to(device)).cpu()
            wrong.append(torch.where(crops.known > 0, (said - crops.places).abs(), torch.nan).numpy())
    errors = np.concatenate(wrong)
    found = {}
    for at, name in enumerate(COORDINATES):
        seen = errors[np.isfinite(errors[:, at]), at]
        places, learnt = (source.location[some, at] for some in (rows, train_rows))
        places, learnt = places[np.isfinite(places)], learnt[np.isfinite(learnt)]
        if len(seen):
            found[f"error_{name}"] = float(seen.mean())
        if len(places) and len(learnt):
            found[f"guess_error_{name}"] = float(np.abs(places - learnt.mean()).mean())
    return found
