"""RECIST's new lesions: which groups are disease that was not there before."""

from collections.abc import Mapping

from store.recist_targets import at_least
from store.recist_terms import Measurement, Rules


class NewLesions:
    """Tells new lesions from old ones, study by study.

    Not new: what was marked in an earlier study, a part of such a lesion, and what such lesions grew together into.
    A node below `normal_node_short_mm` is no lesion at all. When it was marked while normal and grows, it counts as
    new from the size of a target on; in between RECIST's authors advise to wait for the next study.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._new: dict[int, bool] = {}
        """Every group known so far: whether it is, or came out of, a lesion that was new after the baseline."""
        self._normal: set[int] = set()
        """Nodes that were marked while they were normal."""
        self.unmeasured_nodes: set[int] = set()
        """Nodes that may be new, but have no short axis."""

    def learn(self, marks: Mapping[int, Measurement]) -> None:
        """Take the lesions of the baseline, or of a study before it, as known."""
        for group, mark in marks.items():
            short_mm = mark.size_mm(as_node=True)
            if mark.is_node and short_mm is not None and not at_least(short_mm, self._rules.normal_node_short_mm):
                self._normal.add(group)
            else:
                self._new[group] = False
            self._new.update(dict.fromkeys(mark.merged_groups, False))

    def see(self, marks: Mapping[int, Measurement]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The groups that are new in this study, and those here that were new in an earlier one."""
        unknown = {group: mark for group, mark in marks.items() if group not in self._new}
        # A part may have come out of a part that appears in the same study.
        while origins := {group: new for group, mark in unknown.items() if (new := self._origin(mark)) is not None}:
            self._new.update(origins)
            unknown = {group: mark for group, mark in unknown.items() if group not in origins}
        first = [group for group, mark in unknown.items() if self._is_disease(mark, self._least_node_mm(group))]
        earlier = [
            group
            for group, mark in marks.items()
            if self._new.get(group) and self._is_disease(mark, self._rules.normal_node_short_mm)
        ]
        self._new.update(dict.fromkeys(first, True))
        for group, mark in unknown.items():
            if mark.is_node and group not in self._new:
                (self._normal if mark.size_mm(as_node=True) is not None else self.unmeasured_nodes).add(group)
        for group, mark in marks.items():
            for other in mark.merged_groups:
                if group in self._new:
                    self._new.setdefault(other, self._new[group])
        return tuple(sorted(first)), tuple(sorted(earlier))

    def _origin(self, mark: Measurement) -> bool | None:
        """Whether the lesions that this one came out of were all new; None when none of them is known."""
        origins = [self._new[group] for group in (mark.split_from, *mark.merged_groups) if group in self._new]
        return all(origins) if origins else None

    def _least_node_mm(self, group: int) -> float:
        """Short axis from which a node that is not known as a lesion is a new one."""
        return self._rules.min_node_short_mm if group in self._normal else self._rules.normal_node_short_mm

    @staticmethod
    def _is_disease(mark: Measurement, least_node_mm: float) -> bool:
        size_mm = mark.size_mm(as_node=mark.is_node)
        if mark.is_node:
            return size_mm is not None and at_least(size_mm, least_node_mm)
        # A mark without a size is a lesion all the same; a size of 0 says that there is none.
        return size_mm is None or size_mm > 0.0
