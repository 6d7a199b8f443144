"""How far two rounds agree, and how often a round's network is right on patients it did not learn from."""

import numpy as np
from numpy.typing import NDArray

from lesionary.partitions import normalised_mutual_information, purity
from trainers.categoriser.targets import Split


def agreement(before: NDArray[np.int64], after: NDArray[np.int64]) -> tuple[float, float]:
    """Purity of a round's categories in those of the round before, and their normalised mutual information."""
    return purity(after, before), normalised_mutual_information(after, before)


def accuracies(said: NDArray[np.int64], categories: NDArray[np.int64], split: Split) -> dict[str, float | int]:
    """Share of lesions whose category the network says, in each part of a round's split, and the parts' sizes."""
    found: dict[str, float | int] = {}
    for name in ("train", "val", "held_out"):
        places = getattr(split, name)
        found[f"{name}_accuracy"] = float((said[places] == categories[places]).mean())
        found[f"{name}_lesions"] = len(places)
    return found
