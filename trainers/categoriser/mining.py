"""A round's categories: how many, and which lesion is in which.

May import: lesionary, numpy, trainers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainers.categoriser.clusters import choose_k, clustered, numbers_to_try, reduced, renumbered
from trainers.categoriser.presets import CategoriserSettings


def points_of(
    features: NDArray[np.float32], places: NDArray[np.float32], settings: CategoriserSettings
) -> NDArray[np.float32]:
    """What is clustered: principal components of the features, and the lesions' places in the body beside them.

    Args:
        features: (n, F).
        places: (n, 3) x, y, z, not a number where unknown; such a lesion is taken to be where the average one is.
        settings: how many components, and what a place counts.

    Raises:
        TrainingError: features are not finite, or all the same.
    """
    points = reduced(features, settings.components, whiten=settings.whiten, seed=settings.seed)
    places = places[:, np.isfinite(places).any(axis=0)]
    spread = np.nanstd(places, axis=0)
    places, spread = places[:, spread > 0], spread[spread > 0]
    if not settings.cluster_place_weight or not len(spread):
        return points
    apart = np.nan_to_num((places - np.nanmean(places, axis=0)) / spread)
    # The numbers of the place together vary as much as all components, times the setting.
    share = settings.cluster_place_weight * np.sqrt(points.var(axis=0).sum() / len(spread))
    return np.hstack([points, share * apart]).astype(np.float32)


def choose_categories(
    points: NDArray[np.float32],
    patients: NDArray[np.int64],
    settings: CategoriserSettings,
    records: Sequence[Mapping[str, Any]],
) -> tuple[int, dict[str, Any] | None]:
    """How many categories a round gets: the settings' number, the earlier rounds', or the criterion's with its curve.

    Raises:
        TrainingError: there are too few lesions, or all are the same.
    """
    if settings.k is not None:
        return settings.k, None
    if len(records) >= settings.choose_rounds:
        return int(records[-1]["k"]), None
    choice = choose_k(
        points,
        patients,
        numbers_to_try(settings.least_k, settings.most_k),
        criterion=settings.criterion,
        halvings=settings.halvings,
        seed=settings.seed,
    )
    return choice.k, choice.record()


def sort_lesions(
    points: NDArray[np.float32], k: int, settings: CategoriserSettings, before: NDArray[np.int64] | None
) -> NDArray[np.int64]:
    """A category for every lesion; numbers are those of the round before where lesions stayed together."""
    start = before if settings.warm_start else None
    found = clustered(points, min(k, len(points)), settings.restarts, settings.seed, start)
    return found if before is None else renumbered(found, before)
