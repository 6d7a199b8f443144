"""What supervises a triplet network, as settings: the cues, the roles of a sequence they ask for, and the thresholds.

May import: lesionary.
"""

from dataclasses import dataclass
from math import inf

from lesionary.errors import TrainingError, UsageError

ROLES = {"type": "ABE", "location": "ABD", "type+location": "ABDE", "type+location+size": "ABCDE"}
"""The lesions of a sequence, by the cues that supervise; each role is a column of what is drawn."""

ALL_CUES = "type+location+size"
BALANCES = ("none", "type")


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How sequences are drawn; thresholds are those of the paper before they are widened."""

    cues: str = ALL_CUES
    location_low: float = 0.02
    location_high: float = 0.1
    size_low: float = 0.02
    size_high: float = 0.1
    size_unit_mm: float = 100.0
    """Sizes are divided by it; the unit of the evaluation's size error."""
    other_patient: bool = True
    """B is of another patient than A."""
    adapt: bool = True
    """Widen the low thresholds until `anchor_share` of the lesions have a B."""
    anchor_share: float = 0.8
    balance: str = "type"
    hard_candidates: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        checks = (
            (self.cues in ROLES, "cues", f"one of {', '.join(ROLES)}"),
            (self.balance in BALANCES, "balance", f"one of {', '.join(BALANCES)}"),
            (0 < self.location_low <= self.location_high < inf, "the location thresholds", "0 < low <= high"),
            (0 < self.size_low <= self.size_high < inf, "the size thresholds", "0 < low <= high"),
            (0 < self.size_unit_mm < inf, "size_unit_mm", "a number of mm above 0"),
            (0 < self.anchor_share <= 1, "anchor_share", "above 0 and at most 1"),
            (1 <= self.hard_candidates <= 1000, "hard_candidates", "1 (none) to 1000"),
            (self.hard_candidates == 1 or "location" in self.cues, "hard_candidates", "1 without the location cue"),
        )
        for fine, name, wanted in checks:
            if not fine:
                raise UsageError(f"{name} must be {wanted}", where="triplet sampling")

    @property
    def roles(self) -> str:
        """The letters of a sequence, A first."""
        return ROLES[self.cues]

    def uses(self, cue: str) -> bool:
        """Whether type, location or size supervises."""
        return cue in self.cues.split("+")


def refusal(what: str, next_step: str) -> TrainingError:
    """The error for lesions that cannot be sampled as asked."""
    return TrainingError(what, where="triplet sampling", next_step=next_step)
