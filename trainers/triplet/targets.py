"""The hierarchical triplet loss: the anchor is nearer to B than to C, to C than to D, to D than to E.

    L = 1/(2S) Σ max(0, d²AB − d²AC + m₁) + max(0, d²AC − d²AD + m₂) + max(0, d²AD − d²AE + m₃)

over the S sequences of `sampling.py`, d² squared Euclidean distances of unit vectors. With fewer cues a sequence has
fewer roles and the loss the terms between neighbours that remain. A term whose two lesions are the same row stands for
a lesion that does not exist: it counts 0, and S stays. May import: lesionary, torch.
"""

from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesionary.errors import UsageError
from trainers.triplet.cues import ALL_CUES, ROLES

MARGINS = (0.1, 0.2, 0.4)
"""For size, location and type (the paper's)."""

_TERM = {"C": "size", "D": "location", "E": "type"}
"""What separates a role from the one before it."""


def check_margins(margins: tuple[float, float, float]) -> None:
    """Refuse margins that are not 0 < size < location < type: the hierarchy is in their order."""
    if len(margins) != 3 or not 0 < margins[0] < margins[1] < margins[2] < np.inf:
        raise UsageError(f"margins must be three rising numbers above 0, not {margins}", where="triplet loss")


def hierarchical_loss(
    embeddings: Tensor,
    margins: tuple[float, float, float] = MARGINS,
    cues: str = ALL_CUES,
    rows: NDArray[np.int64] | Tensor | None = None,
) -> dict[str, Tensor]:
    """The terms by name (size, location, type: those the cues have); their sum is the loss.

    Args:
        embeddings: [S, roles, D], unit vectors in the order of `ROLES[cues]`; half precision is widened to fp32.
        margins: for size, location and type.
        cues: what supervises.
        rows: [S, roles] as drawn, to leave out terms of lesions that do not exist; None when all do.
    """
    roles = ROLES[cues]
    if embeddings.ndim != 3 or embeddings.shape[1] != len(roles) or embeddings.shape[0] == 0:
        raise UsageError(
            f"embeddings of shape {tuple(embeddings.shape)} are not [sequences, {len(roles)}, dimension]",
            where="triplet loss",
        )
    if embeddings.dtype in {torch.bfloat16, torch.float16}:
        embeddings = embeddings.float()
    apart = embeddings[:, 1:] - embeddings[:, :1]
    squared = (apart * apart).sum(dim=2)
    exists = _existing(rows, squared)
    by_name = dict(zip(("size", "location", "type"), margins, strict=True))
    parts = {}
    for column, (_, role) in enumerate(pairwise(roles[1:])):
        term = _TERM[role]
        hinge = torch.clamp(squared[:, column] - squared[:, column + 1] + by_name[term], min=0)
        parts[term] = (hinge * exists[:, column]).sum() / (2 * len(squared))
    return parts


def _existing(rows: NDArray[np.int64] | Tensor | None, squared: Tensor) -> Tensor:
    """[S, terms]: 1 where both lesions of a term exist, else 0."""
    if rows is None:
        return torch.ones_like(squared[:, 1:])
    drawn = torch.as_tensor(rows, device=squared.device)
    return (drawn[:, 1:-1] != drawn[:, 2:]).to(squared.dtype)
