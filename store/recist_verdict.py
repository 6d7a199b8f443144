"""RECIST's verdict on one study after the other: what the targets' sizes and the new lesions amount to.

The order in which the rules are asked matters, because several can hold at once:

1. a new lesion is progression whatever the targets do;
2. targets that are all gone (nodes: all normal) are a complete response, even when normal nodes grew;
3. disease in a target after a complete response of the targets is progression, however small;
4. growth over the nadir is progression, even when the sum is still far below the baseline; it also holds when
   the targets that were measured prove it alone;
5. with a target missing nothing else follows;
6. shrinkage against the baseline is a partial response, and what is left is stable disease.
"""

from collections.abc import Sequence

from store.recist_targets import TargetSize, at_least
from store.recist_terms import Assessment, Response, Rules, Target, TimePoint

# Of the baseline sum and of the nadir; progression needs the millimetres as well.
_PARTIAL_RESPONSE = 0.30
_PROGRESSION = 0.20
_PROGRESSION_MM = 5.0


class Verdicts:
    """Assesses a patient's studies in order; keeps the baseline's sum, the nadir and whether all was gone."""

    def __init__(self, targets: Sequence[Target], rules: Rules) -> None:
        self._targets = targets
        self._rules = rules
        self._baseline_mm = sum((target.baseline_mm for target in targets), 0.0)
        self._nadir_mm = self._baseline_mm
        self._all_were_gone = False

    def begin(self, study: TimePoint) -> Assessment:
        """The baseline's assessment."""
        sum_mm = self._baseline_mm if self._targets else None
        count = len(self._targets)
        return Assessment(
            time=study.time,
            study_id=study.study_id,
            study_day=study.study_day,
            response=Response.BASELINE,
            reason=f"sum of {count} target{'s' * (count > 1)}: {_plain(self._baseline_mm)} mm" if count else _NO_TARGET,
            target_sizes_mm=tuple(target.baseline_mm for target in self._targets),
            sum_mm=sum_mm,
            partial_sum_mm=sum_mm,
            nadir_mm=None,
            change_from_baseline_percent=None,
            change_from_nadir_percent=None,
            change_from_nadir_mm=None,
            missing_groups=(),
            new_groups=(),
            earlier_new_groups=(),
        )

    def follow(
        self,
        study: TimePoint,
        sizes: Sequence[TargetSize],
        new_groups: tuple[int, ...],
        earlier_new_groups: tuple[int, ...],
    ) -> Assessment:
        """The next study's assessment.

        Args:
            study: the study.
            sizes: in the order of the targets.
            new_groups: lesions that are new here.
            earlier_new_groups: lesions that were new in an earlier study and are here, too.
        """
        known = [part for size in sizes for part in size.known_mm]
        sum_mm = sum(known) if sizes and all(size.complete for size in sizes) else None
        nadir_mm = self._nadir_mm if self._targets else None
        response, reason = self._verdict(sizes, sum_mm, (new_groups, earlier_new_groups))
        if sum_mm is not None:
            self._nadir_mm = min(self._nadir_mm, sum_mm)
            self._all_were_gone |= not any(size.shows_disease(self._rules) for size in sizes)
        grown_mm = None if sum_mm is None or nadir_mm is None else sum_mm - nadir_mm
        return Assessment(
            time=study.time,
            study_id=study.study_id,
            study_day=study.study_day,
            response=response,
            reason=reason,
            target_sizes_mm=tuple(size.size_mm for size in sizes),
            sum_mm=sum_mm,
            partial_sum_mm=sum(known) if known else None,
            nadir_mm=nadir_mm,
            change_from_baseline_percent=None if sum_mm is None else _percent(sum_mm, self._baseline_mm),
            change_from_nadir_percent=_percent(sum_mm, nadir_mm) if sum_mm is not None and nadir_mm else None,
            change_from_nadir_mm=grown_mm,
            missing_groups=self._missing(sizes),
            new_groups=new_groups,
            earlier_new_groups=earlier_new_groups,
        )

    def _verdict(
        self, sizes: Sequence[TargetSize], sum_mm: float | None, new: tuple[tuple[int, ...], tuple[int, ...]]
    ) -> tuple[Response, str]:
        response, reason = self._verdict_on_targets(sizes, sum_mm)
        found = _describe_new(*new)
        if not found:
            return response, reason
        if self._rules.new_lesions == "report":
            return response, f"{reason}; not counted: {found}"
        return Response.PD, f"{found}; {reason}"

    def _verdict_on_targets(self, sizes: Sequence[TargetSize], sum_mm: float | None) -> tuple[Response, str]:
        diseased = [
            target.group for target, size in zip(self._targets, sizes, strict=True) if size.shows_disease(self._rules)
        ]
        if not self._targets:
            return Response.NE, _NO_TARGET
        if sum_mm is not None and not diseased:
            return Response.CR, _describe_gone(self._targets, sum_mm)
        if diseased and self._all_were_gone:
            return Response.PD, f"disease is back after all targets were gone: {_groups(diseased)}"
        # Normal nodes may grow without being disease: a sum of nothing else proves nothing.
        partial_mm = sum(part for size in sizes for part in size.known_mm)
        if diseased and self._has_grown(partial_mm):
            part = "sum" if sum_mm is not None else "sum of the measured targets alone"
            return Response.PD, f"{part} {self._over_nadir(partial_mm)}"
        if sum_mm is None:
            missing = self._missing(sizes)
            return Response.NE, f"{len(missing)} of {len(sizes)} targets without a size: {_groups(missing)}"
        to_baseline = _change(sum_mm, self._baseline_mm, "baseline")
        if at_least(self._baseline_mm * (1.0 - _PARTIAL_RESPONSE), sum_mm):
            return Response.PR, f"sum {to_baseline}"
        # At the nadir's own level the second comparison would only repeat the first.
        to_nadir = "" if self._nadir_mm == self._baseline_mm else f", {self._over_nadir(sum_mm)}"
        return Response.SD, f"sum {to_baseline}{to_nadir}"

    def _has_grown(self, sum_mm: float) -> bool:
        enough = at_least(sum_mm, self._nadir_mm * (1.0 + _PROGRESSION))
        return enough and at_least(sum_mm, self._nadir_mm + _PROGRESSION_MM)

    def _over_nadir(self, sum_mm: float) -> str:
        grown_mm = sum_mm - self._nadir_mm
        change = _change(sum_mm, self._nadir_mm, "nadir")
        return f"{change} ({_plain(abs(grown_mm))} mm)" if grown_mm else change

    def _missing(self, sizes: Sequence[TargetSize]) -> tuple[int, ...]:
        return tuple(target.group for target, size in zip(self._targets, sizes, strict=True) if not size.complete)


_NO_TARGET = "no measurable lesion at the baseline, so there is no target to follow"


def _describe_new(new_groups: Sequence[int], earlier_new_groups: Sequence[int]) -> str:
    found = [f"new lesion: {_groups(new_groups)}"] if new_groups else []
    if earlier_new_groups:
        found.append(f"new since the baseline and still marked: {_groups(earlier_new_groups)}")
    return "; ".join(found)


def _describe_gone(targets: Sequence[Target], sum_mm: float) -> str:
    nodes = sum(target.is_node for target in targets)
    if not nodes:
        return "every target is gone"
    left = f" (their sum is {_plain(sum_mm)} mm)" if sum_mm else ""
    if nodes == len(targets):
        return f"every target node is normal{left}"
    return f"every target is gone and every target node is normal{left}"


def _groups(groups: Sequence[int]) -> str:
    """As `lesionary match` ends their names."""
    return ", ".join(f"g{group}" for group in groups)


def _percent(value: float, reference: float) -> float:
    return (value - reference) / reference * 100.0


def _change(value: float, reference: float, name: str) -> str:
    change = _percent(value, reference)
    if not change:
        return f"equal to the {name} of {_plain(reference)} mm"
    return f"{_plain(abs(change))} % {'above' if change > 0 else 'below'} the {name} of {_plain(reference)} mm"


def _plain(value: float) -> str:
    """Up to two decimals, and no more than are needed."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
