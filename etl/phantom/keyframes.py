"""A quantity along the body: key frames over the height t (0 neck … 1 upper thigh), straight lines in between."""

import itertools
import math


def along(t: float, *frames: tuple[float, float]) -> float:
    """The value at height `t`; constant beyond the first and the last frame."""
    if t <= frames[0][0]:
        return frames[0][1]
    for (low, before), (high, after) in itertools.pairwise(frames):
        if t <= high:
            return before + (after - before) * (t - low) / (high - low)
    return frames[-1][1]


def bulge(t: float, center: float, half: float, power: float = 0.5) -> float:
    """How wide an organ is at height `t`: 1 in its middle, 0 at `half` above and below it and beyond."""
    inside = 1.0 - ((t - center) / half) ** 2
    return math.pow(inside, power) if inside > 0.0 else 0.0
