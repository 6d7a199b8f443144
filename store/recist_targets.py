"""RECIST's target lesions: which ones are chosen at the baseline, and how large each is in later studies."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from store.recist_terms import Measurement, NotChosen, Reason, Rules, Target

# Lengths carry a few digits, and sums of them rounding: what misses a threshold by less than this part has met it.
_ROUNDING = 1e-9

# All lymph nodes are one organ, wherever they lie (EORTC, questions and clarifications to RECIST 1.1).
_NODES = "lymph nodes"


def at_least(value: float, threshold: float) -> bool:
    """Whether the value reaches the threshold, but for rounding."""
    return value >= threshold * (1.0 - _ROUNDING)


def choose_targets(baseline: Iterable[Measurement], rules: Rules) -> tuple[tuple[Target, ...], tuple[NotChosen, ...]]:
    """The targets, largest first, and every other lesion of the baseline study by group.

    Equal sizes go by group number. Lesions of unknown organ share one.
    """
    left_out: list[NotChosen] = []
    candidates: list[tuple[float, Measurement]] = []
    for lesion in baseline:
        size_mm = lesion.size_mm(as_node=lesion.is_node)
        refusal = _why_not_measurable(lesion, size_mm, rules)
        if refusal is None and size_mm is not None:
            candidates.append((size_mm, lesion))
        elif refusal is not None:
            left_out.append(NotChosen(lesion.group, lesion.organ, lesion.is_node, size_mm, *refusal))
    candidates.sort(key=lambda candidate: (-candidate[0], candidate[1].group))
    targets: list[Target] = []
    taken: defaultdict[tuple[bool, str | None], int] = defaultdict(int)
    for size_mm, lesion in candidates:
        organ = (lesion.is_node, _NODES if lesion.is_node else lesion.organ)
        refusal = _why_no_room(lesion, len(targets), taken[organ], rules)
        if refusal is None:
            taken[organ] += 1
            targets.append(Target(lesion.group, lesion.organ, lesion.is_node, size_mm))
        else:
            left_out.append(NotChosen(lesion.group, lesion.organ, lesion.is_node, size_mm, *refusal))
    return tuple(targets), tuple(sorted(left_out, key=lambda lesion: lesion.group))


def _why_not_measurable(lesion: Measurement, size_mm: float | None, rules: Rules) -> tuple[Reason, str] | None:
    axis = "short axis" if lesion.is_node else "longest diameter"
    least_mm = rules.min_node_short_mm if lesion.is_node else rules.min_long_mm
    interval_mm = lesion.slice_interval_mm
    if size_mm is None:
        return "not_measured", f"its {axis} was not measured"
    if lesion.is_node and not at_least(size_mm, rules.normal_node_short_mm):
        return "normal_node", f"a node of {size_mm:.4g} mm is normal, below {rules.normal_node_short_mm:g} mm"
    if not at_least(size_mm, least_mm):
        return "too_small", f"its {axis} of {size_mm:.4g} mm is below {least_mm:g} mm"
    if interval_mm is not None and interval_mm > rules.thick_slices_mm and not at_least(size_mm, 2 * interval_mm):
        return "thick_slices", f"{size_mm:.4g} mm are less than two slice intervals of {interval_mm:.4g} mm"
    return None


def _why_no_room(lesion: Measurement, chosen: int, chosen_in_organ: int, rules: Rules) -> tuple[Reason, str] | None:
    if chosen_in_organ >= rules.max_per_organ:
        where = "among the lymph nodes" if lesion.is_node else "in its organ" if lesion.organ else "of unknown organ"
        return "organ_full", f"{rules.max_per_organ} targets {where} are at least as large"
    if chosen >= rules.max_targets:
        return "targets_full", f"{rules.max_targets} targets are at least as large"
    return None


@dataclass(frozen=True, slots=True)
class TargetSize:
    """A target in one study: the diameters of its parts that were measured, and whether those are all of it."""

    is_node: bool
    known_mm: tuple[float, ...]
    complete: bool

    @property
    def size_mm(self) -> float | None:
        """The sum over its parts; None when a part is missing."""
        return sum(self.known_mm, 0.0) if self.complete else None

    def shows_disease(self, rules: Rules) -> bool:
        """Whether something measured here is disease: any size, of a node a short axis that is not normal."""
        if self.is_node:
            return any(at_least(part, rules.normal_node_short_mm) for part in self.known_mm)
        return any(part > 0.0 for part in self.known_mm)


@dataclass(slots=True)
class LesionsThroughTime:
    """Which lesion is contained in which: parts it fell into, lesions it grew together with.

    Studies are shown to it in order with `see`.
    """

    _seen: set[int] = field(default_factory=set)
    _parts: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Groups that split off, by the group they were a part of."""
    _dissolved: set[int] = field(default_factory=set)
    """Groups that were not marked any more when their parts appeared: the parts stand for them."""
    _contained_in: dict[int, int] = field(default_factory=dict)
    """Group that a group grew together with, until it is marked on its own again."""

    def see(self, marks: Mapping[int, Measurement]) -> None:
        """Take in the next study: its measurements by group."""
        for group in marks:
            self._contained_in.pop(group, None)
            self._dissolved.discard(group)
        for group, mark in marks.items():
            for other in mark.merged_groups:
                if other not in marks:
                    self._contained_in[other] = group
            whole = mark.split_from
            # A lesion of the baseline, or with a history of its own since, is no part of another.
            if whole is not None and self._seen and group not in self._seen:
                self._parts[whole].add(group)
                if whole not in marks and whole not in self._contained_in:
                    self._dissolved.add(whole)
        self._seen.update(marks)

    def bodies(self, group: int) -> set[int]:
        """The groups whose diameters together are the size of this one now."""
        reached: set[int] = set()
        waiting = [group]
        while waiting:
            one = waiting.pop()
            if one in reached:
                continue
            reached.add(one)
            waiting.extend(self._parts.get(one, ()))
            if one in self._contained_in:
                waiting.append(self._contained_in[one])
        return reached - self._dissolved - self._contained_in.keys()


def measure_targets(
    targets: Sequence[Target], marks: Mapping[int, Measurement], lesions: LesionsThroughTime, rules: Rules
) -> list[TargetSize]:
    """Every target's size in the study that `lesions` saw last.

    The one diameter of lesions that grew together counts once: for the target that carries the mark's number, else
    for the first one in it; the others count 0.
    """
    bodies = {target.group: lesions.bodies(target.group) for target in targets}
    owner: dict[int, int] = {}
    for target in targets:
        for body in bodies[target.group]:
            owner.setdefault(body, body if body in bodies else target.group)
    return [
        _measure([body for body in sorted(bodies[target.group]) if owner[body] == target.group], target, marks, rules)
        for target in targets
    ]


def _measure(bodies: Sequence[int], target: Target, marks: Mapping[int, Measurement], rules: Rules) -> TargetSize:
    known: list[float] = []
    for body in bodies:
        if body in marks:
            size_mm = marks[body].size_mm(as_node=target.is_node)
        else:
            size_mm = 0.0 if rules.absent == "gone" else None
        if size_mm is not None:
            known.append(size_mm)
    return TargetSize(target.is_node, tuple(known), complete=len(known) == len(bodies))
