"""What body-part regression is trained with: no labels, only that a volume's slices are in order and equally far apart.

    order      sum over neighbours of -log sigmoid(S[j+1] - S[j]): scores rise from head to foot
    distance   sum over neighbouring steps of smoothL1(step[j+1] - step[j]): equal ways make equal steps

Both are sums within a volume and means over volumes (Yan et al., ISBI 2018 and CVPR 2018).
"""

import torch
from torch import Tensor
from torch.nn import functional

# Scores that spread less than this do not order anything; dividing by it would make noise of nothing.
_FLAT = 1e-12


def order_loss(scores: Tensor) -> Tensor:
    """Mean over volumes of the order loss.

    Args:
        scores: (volumes, slices) from head to foot; at least two slices.
    """
    steps = scores[:, 1:] - scores[:, :-1]
    return -functional.logsigmoid(steps).sum(dim=1).mean()


def distance_loss(scores: Tensor) -> Tensor:
    """Mean over volumes of the distance loss.

    Args:
        scores: (volumes, slices) equally far apart; below three slices there is nothing to compare and it is 0.
    """
    steps = scores[:, 1:] - scores[:, :-1]
    return functional.smooth_l1_loss(steps[:, 1:], steps[:, :-1], reduction="none").sum(dim=1).mean()


def slice_correlations(scores: Tensor) -> Tensor:
    """Pearson correlation of each volume's scores with the slices' order; 0 where all scores are the same.

    Args:
        scores: (volumes, slices) equally far apart, from head to foot.
    """
    places = torch.arange(scores.shape[1], dtype=scores.dtype, device=scores.device)
    places = places - places.mean()
    centred = scores - scores.mean(dim=1, keepdim=True)
    product = centred.norm(dim=1) * places.norm()
    return torch.where(product > _FLAT, (centred @ places) / product.clamp_min(_FLAT), torch.zeros_like(product))
