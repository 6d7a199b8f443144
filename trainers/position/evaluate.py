"""How far off the places are that a network names, on patches it was not trained on."""

from typing import Any

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
) -> dict[str, Any]:
    """Mean absolute errors over the middles of patches.

    Args:
        net: on the device; put into evaluation mode.
        source: of the patches.
        rows: those to look at.
        train_rows: those trained on; their mean place is what knowing nothing would answer.
        settings: sizes.
        device: where to compute.

    Returns:
        For x, y and z the `error`, the error of answering the `guess`, and the number of patches; None where no patch
        has the coordinate.
    """
    net.eval()
    wrong, known = [], []
    with torch.inference_mode():
        for start in range(0, len(rows), _CROPS_AT_ONCE):
            crops = read_crops(source, middle_crops(rows[start : start + _CROPS_AT_ONCE], settings), settings)
            said = net(crops.images.to(device), crops.boxes.to(device)).cpu()
            wrong.append((said - crops.places).abs())
            known.append(crops.known > 0)
    wrongs, knowns = torch.cat(wrong).numpy(), torch.cat(known).numpy()
    places, learnt = source.location[rows], source.location[train_rows]
    found: dict[str, Any] = {"patches": len(rows)}
    for at, name in enumerate(COORDINATES):
        seen = knowns[:, at]
        guesses = learnt[np.isfinite(learnt[:, at]), at]
        values = places[np.isfinite(places[:, at]), at]
        error = float(wrongs[seen, at].mean()) if seen.any() else None
        guess = float(np.abs(values - guesses.mean()).mean()) if len(values) and len(guesses) else None
        found[name] = {"error": error, "guess": guess, "count": int(seen.sum())}
    return found
