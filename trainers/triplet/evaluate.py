"""How well a trained network keeps the wanted order on patients it has not seen, for its card.

The papers' scores (retrieval, matching) are the store's business: `lesionary evaluate`. May import: lesionary, numpy.
"""

import numpy as np
from numpy.typing import NDArray

from trainers.triplet.sampling import SequenceSampler

_SEQUENCES = 2_000


def order_kept(vectors: NDArray[np.float32], sampler: SequenceSampler) -> dict[str, float]:
    """Share of drawn sequences in which each lesion is nearer to the anchor than the next one, by the two roles.

    Args:
        vectors: (n, D) of the sampler's lesions, which the network was not trained on.
        sampler: draws sequences of them.
    """
    drawn = sampler.draw(0, _SEQUENCES)
    apart = np.linalg.norm(vectors[drawn[:, 1:]] - vectors[drawn[:, :1]], axis=2)
    roles = sampler.settings.roles
    kept = {}
    for at in range(apart.shape[1] - 1):
        # A row that repeats the one before it stands for a lesion that does not exist.
        exists = drawn[:, at + 1] != drawn[:, at + 2]
        if exists.any():
            kept[f"{roles[at + 1]}<{roles[at + 2]}"] = float(np.mean(apart[exists, at] < apart[exists, at + 1]))
    return kept


def label_accuracy(types: NDArray[np.int64], known: NDArray[np.int64]) -> float | None:
    """Share of labels that are right, of lesions whose type is known; None where none is."""
    both = (types >= 0) & (known >= 0)
    return float(np.mean(types[both] == known[both])) if both.any() else None
