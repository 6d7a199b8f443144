"""How good slice scores are: order within volumes, and the part of the body that they say.

Order needs no truth: the slices' own order is it. The part of the body needs true heights, or classes; on the phantom
both come from its truth file. Boundaries between parts are two thresholds on the score, chosen on some volumes and
tested on others.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesionary.errors import UsageError

Scores = NDArray[np.float64]
Classes = NDArray[np.int64]

BODY_PARTS: tuple[str, ...] = ("chest", "abdomen", "pelvis")
"""From head to foot. The chest takes the neck with it; the pelvis, the thighs."""

PHANTOM_BOUNDARIES: tuple[float, float] = (0.436, 0.695)
"""Heights of the phantom's body where abdomen and pelvis begin: the mean level of the tops of both domes of the
diaphragm (0.425 and 0.447 in `etl/phantom/thorax.py`), and the top of the iliac crest (where `etl/phantom/skeleton.py`
begins to draw the iliac wings). Both are the average patient's: one patient's own lie up to some 0.02 beside them."""


@dataclass(frozen=True, slots=True)
class OrderScores:
    """How well scores put the slices of volumes in order; means are over volumes."""

    volumes: int
    mean_correlation: float
    """Pearson's, of scores and slice numbers."""
    sd_correlation: float
    least_correlation: float
    neighbour_errors: float
    """Share of neighbouring slices whose scores fall instead of rising."""
    pair_errors: float
    """The same share, of all pairs of slices of a volume."""


@dataclass(frozen=True, slots=True)
class BodyPartScores:
    """How well two thresholds on the score tell the parts of the body apart, on slices of unseen volumes."""

    slices: int
    accuracy: float
    thresholds: tuple[float, float]
    chosen_on: int
    """Slices that the thresholds were chosen on."""
    accuracy_there: float
    confusion: tuple[tuple[int, ...], ...]
    """Slices: a row for each true part, a column for each part said."""


def correlation(scores: Scores, indices: NDArray[np.int64]) -> float:
    """Pearson's correlation of a volume's scores and slice numbers; 0 where either is constant."""
    a, b = scores - scores.mean(), indices - indices.mean()
    product = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / product if product > 0 else 0.0


def neighbour_errors(scores: Scores) -> float:
    """Share of neighbouring slices, in the slices' order, whose scores do not rise."""
    return float((np.diff(scores) <= 0).mean()) if scores.size > 1 else 0.0


def pair_errors(scores: Scores) -> float:
    """Share of all pairs of slices whose scores do not rise with the slices' order."""
    count = scores.size
    if count < 2:
        return 0.0
    earlier, later = np.triu_indices(count, k=1)
    return float((scores[later] <= scores[earlier]).mean())


def order_scores(volumes: Sequence[tuple[Scores, NDArray[np.int64]]]) -> OrderScores | None:
    """Order within volumes, each given as scores and slice numbers from head to foot; None without a volume."""
    found = [one for one in volumes if one[0].size > 1]
    if not found:
        return None
    correlations = np.array([correlation(scores, indices) for scores, indices in found])
    return OrderScores(
        volumes=len(found),
        mean_correlation=float(correlations.mean()),
        sd_correlation=float(correlations.std(ddof=1)) if len(found) > 1 else 0.0,
        least_correlation=float(correlations.min()),
        neighbour_errors=float(np.mean([neighbour_errors(scores) for scores, _ in found])),
        pair_errors=float(np.mean([pair_errors(scores) for scores, _ in found])),
    )


def classes_of_heights(heights: Scores, boundaries: tuple[float, float] = PHANTOM_BOUNDARIES) -> Classes:
    """Number in `BODY_PARTS` of each true height; a boundary belongs to what lies below it."""
    return np.searchsorted(np.array(boundaries), heights, side="right").astype(np.int64)


def said_classes(scores: Scores, thresholds: tuple[float, float]) -> Classes:
    """Number in `BODY_PARTS` that each score says."""
    return np.searchsorted(np.array(thresholds), scores, side="right").astype(np.int64)


def best_thresholds(scores: Scores, classes: Classes) -> tuple[float, float]:
    """The two thresholds, ascending, that get most slices right; of several such pairs the lowest.

    Between two neighbouring scores, the middle; below or above all scores where a part is best never said.

    Raises:
        UsageError: there is no slice.
    """
    if scores.size == 0:
        raise UsageError("there are no slices to choose thresholds on", next_step="give volumes of known heights")
    order = np.argsort(scores, kind="stable")
    ranked, labels = scores[order], classes[order]
    # Slices of a class among the first 0, 1, …, n.
    chest, abdomen, pelvis = (np.concatenate([[0], np.cumsum(labels == number)]) for number in range(3))
    # Equal scores cannot be cut apart.
    cuts = np.flatnonzero(np.concatenate([[True], ranked[1:] > ranked[:-1], [True]]))
    # Right with cuts at i <= j: chest[i] + abdomen[j] - abdomen[i] + all pelvis - pelvis[j].
    first_gain, second_gain = (chest - abdomen)[cuts], (abdomen - pelvis)[cuts]
    best_first = np.maximum.accumulate(first_gain)
    second = int(np.argmax(best_first + second_gain))
    first = int(np.argmax(first_gain[: second + 1]))
    return _threshold(ranked, int(cuts[first])), _threshold(ranked, int(cuts[second]))


def body_part_scores(chosen_on: tuple[Scores, Classes], tested_on: tuple[Scores, Classes]) -> BodyPartScores:
    """Thresholds chosen on some slices and tested on others, each given as scores and true classes.

    Raises:
        UsageError: one of them has no slice.
    """
    thresholds = best_thresholds(*chosen_on)
    scores, classes = tested_on
    if scores.size == 0:
        raise UsageError("there are no slices to test on", next_step="give volumes of known heights")
    said = said_classes(scores, thresholds)
    confusion = np.zeros((len(BODY_PARTS), len(BODY_PARTS)), np.int64)
    np.add.at(confusion, (classes, said), 1)
    return BodyPartScores(
        slices=int(scores.size),
        accuracy=float((said == classes).mean()),
        thresholds=thresholds,
        chosen_on=int(chosen_on[0].size),
        accuracy_there=float((said_classes(chosen_on[0], thresholds) == chosen_on[1]).mean()),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def phantom_heights(truth: Mapping[str, object], namespace: str) -> dict[str, dict[int, float]]:
    """True heights of a phantom's slices, by the lake's series and slice numbers.

    Args:
        truth: content of its `truth.json`.
        namespace: that the phantom was ingested under.

    Raises:
        UsageError: it is not a phantom's truth.
    """
    try:
        series = dict(truth["series"])  # type: ignore[call-overload]
        return {
            f"{namespace}-{name}": {int(index): float(height) for index, _, height in one["slice_index_z_mm_height"]}
            for name, one in series.items()
        }
    except (KeyError, TypeError, ValueError, OverflowError) as cause:
        raise UsageError("this is not the truth file of a phantom", next_step="give its truth.json") from cause


def _threshold(ranked: Scores, cut: int) -> float:
    if cut == 0:
        return float(np.nextafter(ranked[0], -np.inf))
    if cut == ranked.size:
        return float(np.nextafter(ranked[-1], np.inf))
    middle = (ranked[cut - 1] + ranked[cut]) / 2
    # Between two neighbouring floats there is no middle; a score at the threshold counts as above it.
    return float(middle if middle > ranked[cut - 1] else ranked[cut])
