"""What RECIST 1.1 speaks of: measurements of one patient, the rules in force, and the course that follows from them.

Sizes are millimetres. The size that counts is the longest diameter, of a lymph node the short axis. A `group` is the
number that matching gave one lesion through time; a `time` is the order of a study among the patient's.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from lesionary.errors import UsageError

Reason = Literal["not_measured", "normal_node", "too_small", "thick_slices", "organ_full", "targets_full"]
"""Why a lesion of the baseline is no target."""


class Response(StrEnum):
    """The verdict on one study, unconfirmed."""

    BASELINE = "baseline"
    CR = "CR"
    PR = "PR"
    SD = "SD"
    PD = "PD"
    NE = "NE"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One matched lesion in one study; a group is measured at most once in a study."""

    lesion_ids: tuple[str, ...]
    """The marks it was made from."""
    group: int
    time: int
    long_mm: float | None
    short_mm: float | None
    """0 of the diameter that counts says that somebody looked and the lesion is gone."""
    organ: str | None
    """A finding site's code or a lesion type, anything that is equal for equal organs; None when unknown."""
    is_node: bool
    slice_interval_mm: float | None
    split_from: int | None = None
    """The group that this one is a part of since it fell apart; from then on its size is added to that group's."""
    merged_groups: tuple[int, ...] = ()
    """Other groups that grew together into this lesion; from then on its one diameter counts for all of them."""

    def size_mm(self, *, as_node: bool) -> float | None:
        """The diameter that counts: the longer of the two, of a node the shorter; None when it was not measured.

        Axes written the wrong way round are put right; a single axis counts only as what it was written as.
        """
        long_mm, short_mm = _known(self.long_mm), _known(self.short_mm)
        if long_mm is not None and short_mm is not None:
            return min(long_mm, short_mm) if as_node else max(long_mm, short_mm)
        return short_mm if as_node else long_mm


def _known(size_mm: float | None) -> float | None:
    return size_mm if size_mm is not None and math.isfinite(size_mm) and size_mm >= 0.0 else None


@dataclass(frozen=True, slots=True)
class TimePoint:
    """One study of the patient, whether or not anything was marked in it."""

    time: int
    study_id: str
    study_day: int | None
    """Days since the patient's first study; None when unknown."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings; the defaults are those of RECIST 1.1 and what it leaves open.

    Raises:
        UsageError: a number is out of range or a word is none of the known ones.
    """

    baseline: int | None = None
    """Time of the baseline study; None takes the first one."""
    max_targets: int = 5
    max_per_organ: int = 2
    min_long_mm: float = 10.0
    min_node_short_mm: float = 15.0
    normal_node_short_mm: float = 10.0
    """Below this short axis a node is normal: no disease, neither new nor left over."""
    thick_slices_mm: float = 5.0
    """Above this slice interval a lesion must be at least two intervals wide to be a target."""
    absent: Literal["unknown", "gone"] = "unknown"
    """What it means when a target is not marked in a later study."""
    new_lesions: Literal["progress", "report"] = "progress"
    """Whether a new lesion is progression, or only listed."""

    def __post_init__(self) -> None:
        for name in ("max_targets", "max_per_organ"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1, found {getattr(self, name)}")
        for name in ("min_long_mm", "min_node_short_mm", "normal_node_short_mm", "thick_slices_mm"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise UsageError(f"{name} must be a length above 0 mm, found {getattr(self, name)}")
        if self.normal_node_short_mm > self.min_node_short_mm:
            raise UsageError(
                f"a normal node (below {self.normal_node_short_mm:g} mm) cannot be a target "
                f"(from {self.min_node_short_mm:g} mm)",
                next_step="lower normal_node_short_mm or raise min_node_short_mm",
            )
        if self.absent not in {"unknown", "gone"}:
            raise UsageError(f"absent is 'unknown' or 'gone', found {self.absent!r}")
        if self.new_lesions not in {"progress", "report"}:
            raise UsageError(f"new_lesions is 'progress' or 'report', found {self.new_lesions!r}")


@dataclass(frozen=True, slots=True)
class Target:
    """A lesion whose size is part of the sum."""

    group: int
    organ: str | None
    is_node: bool
    baseline_mm: float


@dataclass(frozen=True, slots=True)
class NotChosen:
    """A lesion of the baseline that is no target, and why."""

    group: int
    organ: str | None
    is_node: bool
    size_mm: float | None
    reason: Reason
    explanation: str
    """The reason as part of a sentence, with its figures."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """One study: its sum, its changes and the verdict."""

    time: int
    study_id: str
    study_day: int | None
    response: Response
    reason: str
    """One sentence without a full stop."""
    target_sizes_mm: tuple[float | None, ...]
    """In the order of `Course.targets`; None where not measured. What grew together counts for the first target."""
    sum_mm: float | None
    """None when a target is missing or there is none."""
    partial_sum_mm: float | None
    """Sum of the targets that were measured; None when none was."""
    nadir_mm: float | None
    """Smallest complete sum of the earlier studies from the baseline on; None at the baseline."""
    change_from_baseline_percent: float | None
    change_from_nadir_percent: float | None
    """None also from a nadir of 0."""
    change_from_nadir_mm: float | None
    missing_groups: tuple[int, ...]
    """Targets without a size here."""
    new_groups: tuple[int, ...]
    """Lesions that are new in this study."""
    earlier_new_groups: tuple[int, ...]
    """Lesions that were new in an earlier study after the baseline and are still marked."""


@dataclass(frozen=True, slots=True)
class Course:
    """One patient's response from the baseline on."""

    baseline_time: int
    targets: tuple[Target, ...]
    """Largest first."""
    not_chosen: tuple[NotChosen, ...]
    assessments: tuple[Assessment, ...]
    """Studies in order, the baseline first; studies before it are left out."""
    best_response: Response | None
    """Best verdict up to the first progression, unconfirmed; None without a study after the baseline."""
    progression_time: int | None
    """Time of the first PD."""
    progression_study_day: int | None
    limits: tuple[str, ...]
    """What this course cannot know, as plain sentences."""
