"""How detections are scored: everything that papers do differently, each as a named choice.

A figure means something only beside its protocol; reports carry all of it. `PUBLISHED` holds those of the papers that
docs/detection-scores.md compares with. This module needs nothing but the standard library.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from lesionary.errors import UsageError

FROC_RATES: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""False positives per image at which 3DCE and MULAN give the sensitivity."""

VOLUME_RATES: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""The same per sub-volume, as volumetric work gives it."""

TOP_ONE_OVERLAPS: tuple[float, ...] = tuple(step / 20 for step in range(1, 20))
"""Thresholds of the sweep of the top-1 accuracy."""

# Boxes are measured in floating point: a quotient that misses a threshold by less than this has reached it.
ROUNDING = 1e-10


class Dimensions(StrEnum):
    """What is compared with what."""

    SLICE = "2d"
    """Boxes on one slice; an image is a slice."""
    KEY_SLICE = "p3d"
    """A detection through several slices, by its box on the lesion's key slice; an image is a sub-volume."""
    VOLUME = "3d"
    """Boxes that reach from slice to slice; an image is a sub-volume."""


class Overlap(StrEnum):
    """How much two boxes share."""

    IOU = "iou"
    """Intersection over union."""
    IOBB = "iobb"
    """Intersection over the detected box."""


class NoisyRows(StrEnum):
    """What becomes of lesions that their source itself doubts."""

    DROP = "drop"
    """They go, and with them images that hold nothing else, as in 3DCE and MULAN."""
    KEEP = "keep"
    """They are lesions as others are."""
    REGION = "ignore"
    """They become ignore regions."""


class SecondHits(StrEnum):
    """What a detection counts as when others that are surer have hit all its lesions."""

    NEITHER = "ignore"
    """Neither right nor wrong, as in 3DCE and MULAN."""
    FALSE_POSITIVE = "false-positive"


class Assignment(StrEnum):
    """How many lesions one detection may hit."""

    MANY = "many"
    """All that it overlaps enough, as in 3DCE and MULAN."""
    ONE = "one"
    """The one it overlaps most among those not hit yet, surest detections first, as in COCO."""


class BeyondCurve(StrEnum):
    """How a curve is read between its points and beyond its end."""

    CLAMP = "clamp"
    """The last sensitivity stays, as in MULAN; of several at one rate the highest is read."""
    EXTRAPOLATE = "extrapolate"
    """The last step goes on, as in 3DCE, at most to 1; of several at one rate the first is read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """Everything that decides a figure, apart from truth and detections."""

    dimensions: Dimensions = Dimensions.SLICE
    overlap: Overlap = Overlap.IOU
    threshold: float = 0.5
    """A detection hits a lesion that it overlaps at least so much. Top-1 accuracy asks for more than that."""
    plus_one: bool = False
    """Widths and heights count both border pixels (x1 - x0 + 1), as in CADLab's code."""
    noisy: NoisyRows = NoisyRows.DROP
    second_hits: SecondHits = SecondHits.NEITHER
    assignment: Assignment = Assignment.MANY
    beyond: BeyondCurve = BeyondCurve.CLAMP
    most_boxes: int = 50
    """Of an image, the surest so many."""
    least_score: float | None = None
    """Detections below it are left out; None = none is."""
    rates: tuple[float, ...] = FROC_RATES
    """False positives per image at which sensitivity is read."""

    def __post_init__(self) -> None:
        """Refuse what could not be counted.

        Raises:
            UsageError: a value is out of its range.
        """
        if not 0 < self.threshold <= 1:
            raise UsageError("an overlap's threshold lies above 0 and is at most 1", where="threshold")
        if self.most_boxes < 1:
            raise UsageError("at least one box per image is needed", where="most_boxes")
        if self.least_score is not None and not math.isfinite(self.least_score):
            raise UsageError("a score is a finite number", where="least_score")
        rates = self.rates
        if (
            not rates
            or not all(math.isfinite(rate) and rate > 0 for rate in rates)
            or list(rates) != sorted(set(rates))
        ):
            raise UsageError(
                "rates of false positives are positive and ascend", where="rates", next_step="for example 0.5,1,2,4"
            )

    def record(self) -> dict[str, object]:
        """As JSON can say it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in _fields(self).items()}


def _fields(protocol: Protocol) -> dict[str, object]:
    return {one.name: getattr(protocol, one.name) for one in dataclasses.fields(protocol)}


PUBLISHED: Mapping[str, Protocol] = MappingProxyType(
    {
        "lesionary": Protocol(),
        "3dce": Protocol(plus_one=True, beyond=BeyondCurve.EXTRAPOLATE),
        "mulan": Protocol(plus_one=True),
        "mp3d": Protocol(),
        "paper-2017": Protocol(noisy=NoisyRows.KEEP, most_boxes=5, least_score=0.5),
        "lesion-harvester": Protocol(
            dimensions=Dimensions.KEY_SLICE, plus_one=True, beyond=BeyondCurve.EXTRAPOLATE, rates=VOLUME_RATES
        ),
        "lens": Protocol(
            dimensions=Dimensions.VOLUME,
            overlap=Overlap.IOBB,
            threshold=0.3,
            rates=tuple(rate for rate in VOLUME_RATES if rate <= 8),
        ),
        "coco": Protocol(
            noisy=NoisyRows.KEEP,
            assignment=Assignment.ONE,
            second_hits=SecondHits.FALSE_POSITIVE,
            most_boxes=100,
        ),
    }
)
"""Protocols by name; see docs/detection-scores.md for whose figures they stand beside."""
