"""Intervals by resampling patients: lesions and images of one patient are alike, so they are drawn together."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from trainers.detector.evaluation_data import Numbers, Whole

LEVEL_PERCENT = 95.0

# Numbers that a block of resamples may hold at a time.
_BLOCK_NUMBERS = 2_000_000


@dataclass(frozen=True, slots=True)
class Resampling:
    """How often patients are drawn anew; 0 = no intervals."""

    resamples: int = 0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and where the middle 95 % of it lie over resampled patients; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


def patient_weights(patients: int, resampling: Resampling, row_numbers: int) -> Iterator[Whole]:
    """How often each patient is drawn, a row for each resample, in blocks; the same for the same seed.

    Args:
        patients: how many there are.
        resampling: how many resamples.
        row_numbers: that one resample takes; decides how many are made at a time, never what is drawn.
    """
    generator = np.random.default_rng(resampling.seed)
    shares = np.full(patients, 1 / patients) if patients else np.empty(0)
    block = max(1, _BLOCK_NUMBERS // max(1, row_numbers))
    for start in range(0, resampling.resamples, block):
        rows = min(block, resampling.resamples - start)
        yield generator.multinomial(patients, shares, size=rows)


def estimates(
    figures: Callable[[Whole], Numbers], patients: int, resampling: Resampling, row_numbers: int
) -> list[Estimate]:
    """Figures with their intervals.

    Args:
        figures: gives (rows, figures) for weights of (rows, patients).
        patients: how many there are.
        resampling: how many resamples.
        row_numbers: that one resample takes.
    """
    plain = figures(np.ones((1, patients), np.int64))[0]
    if not resampling.resamples or not patients:
        return [Estimate(_known(value)) for value in plain]
    drawn = np.concatenate([figures(weights) for weights in patient_weights(patients, resampling, row_numbers)])
    tails = (50 - LEVEL_PERCENT / 2, 50 + LEVEL_PERCENT / 2)
    found = []
    for value, column in zip(plain, drawn.T, strict=True):
        # A resample without a lesion of a stratum says nothing of it.
        defined = column[~np.isnan(column)]
        ends = np.percentile(defined, tails) if defined.size else (np.nan, np.nan)
        found.append(Estimate(_known(value), _known(ends[0]), _known(ends[1])))
    return found


def share(part: Numbers, whole: Numbers) -> Numbers:
    """Quotients; not a number where the whole is nothing."""
    found = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    np.divide(part, whole, out=found, where=whole > 0)
    return found


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
