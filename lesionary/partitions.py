"""How far two sortings of the same things agree: purity and normalised mutual information."""

import numpy as np
from numpy.typing import NDArray


def purity(clusters: NDArray[np.int64], types: NDArray[np.int64]) -> float:
    """Share (0 to 1) of things that are of the commonest type of their cluster; at least one thing is needed."""
    table = _contingency(clusters, types)
    return float(table.max(axis=1).sum() / table.sum())


def normalised_mutual_information(clusters: NDArray[np.int64], types: NDArray[np.int64]) -> float:
    """Mutual information over the arithmetic mean of both entropies, 0 to 1; 1 for two partitions of one part."""
    shares = _contingency(clusters, types) / len(clusters)
    rows, columns = shares.sum(axis=1), shares.sum(axis=0)
    mean = (_entropy(rows) + _entropy(columns)) / 2
    if mean == 0:
        return 1.0
    there = shares > 0
    mutual = float((shares[there] * np.log(shares[there] / np.outer(rows, columns)[there])).sum())
    return min(1.0, max(0.0, mutual / mean))


def _contingency(clusters: NDArray[np.int64], types: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts: a row for each cluster, a column for each type."""
    _, cluster = np.unique(clusters, return_inverse=True)
    _, kind = np.unique(types, return_inverse=True)
    table = np.zeros((int(cluster.max()) + 1, int(kind.max()) + 1), dtype=np.int64)
    np.add.at(table, (cluster, kind), 1)
    return table


def _entropy(shares: NDArray[np.float64]) -> float:
    known = shares[shares > 0]
    return float(-(known * np.log(known)).sum())
