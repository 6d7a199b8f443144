"""Sequences of lesions for the hierarchical triplet loss: an anchor A and lesions that are less and less like it.

    B  same type, near, of like size, of another patient (where asked)     ┐ "type+location+size" has all five,
    C  same type, near, of different size                                  │ "type+location"       A B D E,
    D  same type, far                                                      │ "location"            A B D,
    E  another type                                                        ┘ "type"                A B E

Only what the cues name counts: with "location" the types are not looked at (B and D may be of any), with "type" B is
any lesion of the type. Near and far, like and different are the `Thresholds`; a distance between the low and the high
one is neither. Locations are normalised (x, y, z), sizes (long, short) in mm over `size_unit_mm`; both Euclidean.

Chance: A is drawn among the lesions that have a B, evenly over lesions or (`balance`) over types; every other role
evenly over all lesions that fulfil its conditions, E evenly over the other types first where types are balanced. With
`hard_candidates` above 1, D and E are the one nearest to A of so many drawn. The sequences of a step depend on nothing
but (seed, step), so that every worker can draw the whole step and keep its share.

Where a lesion of a role does not exist, in this order: C may lie up to the high location threshold (below which D
still never is); a missing C or D repeats the lesion before it, which the loss leaves out as a term. `coverage` says how
often. A lesion without a B is no anchor. May import: lesionary, numpy, scipy.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lesionary.anatomy import LESION_TYPES
from lesionary.errors import TrainingError
from trainers.triplet.cues import SamplingSettings, refusal
from trainers.triplet.groups import Group, Lesions, squared_distances
from trainers.triplet.thresholds import ROUNDING, Thresholds, factor_for_share, needed_factors

_TRIES = 16
_PROBED_ANCHORS = 2048


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many lesions can be drawn, and what is missing for them; shares are of the anchors looked at."""

    lesions: int
    taking_part: int
    without_type: int
    without_location: int
    without_size: int
    anchors: int
    """Of those taking part, the ones that have a B."""
    anchors_by_type: dict[str, int]
    looked_at: int
    """Shares below come from so many anchors, drawn evenly."""
    share_c: float | None
    """A C within the low location threshold; None where the cues have no C."""
    share_c_relaxed: float | None
    """No such C, but one within the high location threshold."""
    share_without_c: float | None
    share_d: float | None
    share_without_d: float | None


class SequenceSampler:
    """Draws sequences of lesions; immutable once made (new labels, new sampler).

    Raises:
        TrainingError: the lesions do not hold what the cues need.
    """

    def __init__(
        self,
        types: NDArray[np.int64],
        locations: NDArray[np.floating],
        sizes_mm: NDArray[np.floating],
        patients: NDArray[np.int64],
        settings: SamplingSettings,
        seed: int,
    ) -> None:
        """Prepare.

        Args:
            types: (n,) place in `LESION_TYPES`, -1 unknown.
            locations: (n, 3) normalised x, y, z; nan unknown.
            sizes_mm: (n, 2) long and short diameter; nan unknown.
            patients: (n,) any integer that tells patients apart.
            settings: see there.
            seed: with the step, all that a draw depends on.
        """
        self.settings = settings
        self.seed = seed
        lesions = Lesions.checked(types, locations, sizes_mm, patients, settings)
        self._lesions = lesions
        self._groups = lesions.groups()
        self._refuse_what_cannot_contrast()
        self.thresholds, needed = self._fit_thresholds()
        self._anchors = [self._places_with_b(group, need) for group, need in zip(self._groups, needed, strict=True)]
        if not any(places.size for places in self._anchors):
            raise self._no_anchor()
        sizes = np.array([len(group.rows) for group in self._groups])
        self._starts = np.concatenate(([0], np.cumsum(sizes)))
        self._all_rows = np.concatenate([group.rows for group in self._groups])
        self._anchor_ends = np.cumsum([places.size for places in self._anchors])
        self._groups_with_anchors = np.flatnonzero([places.size for places in self._anchors])
        self._coverage = self._look_at_anchors()
        self._refuse_silent_terms()

    def draw(self, step: int, count: int) -> NDArray[np.int64]:
        """The sequences of a step's global batch: (count, roles) rows of what the sampler was made from.

        A row that repeats the one before it (C or D) stands for a lesion that does not exist.
        """
        generator = np.random.default_rng((self.seed, step))
        drawn = [self._sequence(generator, *place) for place in self._draw_anchors(generator, count)]
        return np.array(drawn, dtype=np.int64).reshape(count, len(self.settings.roles))

    def coverage(self) -> Coverage:
        """What can be drawn and what is missing."""
        return self._coverage

    def record(self) -> dict[str, object]:
        """Settings, the thresholds in use and the coverage, for a model card."""
        return {
            "settings": asdict(self.settings),
            "thresholds": asdict(self.thresholds),
            "coverage": asdict(self._coverage),
            "seed": self.seed,
        }

    # --- set-up ----------------------------------------------------------------------------------------------------

    def _refuse_what_cannot_contrast(self) -> None:
        if self.settings.uses("type") and len(self._groups) < 2:
            only = LESION_TYPES[self._lesions.types[self._groups[0].rows[0]]]
            raise refusal(
                f"all {len(self._groups[0].rows)} lesions that could take part are of one type ({only})",
                'label lesions of at least two types, or train with the "location" cue',
            )
        if self.settings.other_patient and len(np.unique(np.concatenate([g.patients for g in self._groups]))) < 2:
            raise refusal(
                "all lesions are of one patient, and a positive must be of another",
                "add patients, or set other_patient to false",
            )

    def _fit_thresholds(self) -> tuple[Thresholds, list[NDArray[np.float64]]]:
        settings = self.settings
        given = Thresholds(settings.location_low, settings.location_high, settings.size_low, settings.size_high)
        needed = [
            needed_factors(
                group.location / given.location_low if settings.uses("location") else None,
                group.size / given.size_low if settings.uses("size") else None,
                group.patients,
                other_patient=settings.other_patient,
            )
            for group in self._groups
        ]
        if not settings.adapt:
            return given, needed
        return given.widened(factor_for_share(np.concatenate(needed), settings.anchor_share)), needed

    def _places_with_b(self, group: Group, needed: NDArray[np.float64]) -> NDArray[np.int64]:
        factor = self.thresholds.factor
        has_b = needed < factor
        if self.settings.uses("location"):
            # Within rounding of the threshold the candidates themselves decide: every anchor has a B when drawn.
            for at in np.flatnonzero(np.abs(needed - factor) <= 1e3 * ROUNDING * factor):
                has_b[at] = self._near_candidates(group, int(at))[0].size > 0
        return np.flatnonzero(has_b)

    def _no_anchor(self) -> TrainingError:
        used, settings = self.thresholds, self.settings
        parts = ["of another patient"] if settings.other_patient else []
        parts += ["of the same type"] if settings.uses("type") else []
        parts += [f"within {used.location_low:.3g} in location"] if settings.uses("location") else []
        parts += [f"within {used.size_low:.3g} in size"] if settings.uses("size") else []
        return refusal(
            f"no lesion has a positive: not one pair is {', '.join(parts)}",
            "add patients" if settings.adapt else "set adapt to true or widen the low thresholds",
        )

    def _look_at_anchors(self) -> Coverage:
        ends, roles = self._anchor_ends, self.settings.roles
        total = int(ends[-1])
        chosen = np.arange(total)
        if total > _PROBED_ANCHORS:
            chosen = np.random.default_rng(self.seed).choice(total, _PROBED_ANCHORS, replace=False)
        strict = relaxed = far = 0
        for place in chosen:
            number, at = self._anchor_at(int(place))
            group = self._groups[number]
            if "C" in roles:
                has_c = self._near_candidates(group, at)[1].size > 0
                strict += has_c
                relaxed += not has_c and self._relaxed_c(group, at).size > 0
            if "D" in roles:
                far += self._has_far(group, at)
        looked = len(chosen)
        by_type = {
            LESION_TYPES[self._lesions.types[group.rows[0]]]: int(places.size)
            for group, places in zip(self._groups, self._anchors, strict=True)
            if self.settings.uses("type")
        }
        c, d = "C" in roles, "D" in roles
        return Coverage(
            **self._lesions.counts(),
            anchors=total,
            anchors_by_type=by_type,
            looked_at=looked,
            share_c=strict / looked if c else None,
            share_c_relaxed=relaxed / looked if c else None,
            share_without_c=1 - (strict + relaxed) / looked if c else None,
            share_d=far / looked if d else None,
            share_without_d=1 - far / looked if d else None,
        )

    def _refuse_silent_terms(self) -> None:
        coverage, used = self._coverage, self.thresholds
        if coverage.share_without_c == 1:
            raise refusal(
                f"none of {coverage.looked_at} lesions has one near it that differs in size by more than"
                f" {used.size_high * self.settings.size_unit_mm:.3g} mm: the size cue has nothing to learn from",
                'lower size_high, or train with the "type+location" cues',
            )
        if coverage.share_without_d == 1:
            same = " of the same type" if self.settings.uses("type") else ""
            raise refusal(
                f"none of {coverage.looked_at} lesions has one{same} farther away than {used.location_high:.3g}:"
                " the location cue has nothing to learn from",
                'check the locations, lower location_high, or train with the "type" cue',
            )

    # --- drawing ---------------------------------------------------------------------------------------------------

    def _anchor_at(self, place: int) -> tuple[int, int]:
        """The group's number and the place in it of the n-th anchor."""
        number = int(np.searchsorted(self._anchor_ends, place, side="right"))
        before = self._anchor_ends[number - 1] if number else 0
        return number, int(self._anchors[number][place - before])

    def _draw_anchors(self, generator: np.random.Generator, count: int) -> Iterator[tuple[int, int]]:
        if self.settings.balance == "none" or not self.settings.uses("type"):
            for place in generator.integers(self._anchor_ends[-1], size=count):
                yield self._anchor_at(int(place))
            return
        for number in generator.choice(self._groups_with_anchors, size=count):
            places = self._anchors[number]
            yield int(number), int(places[generator.integers(places.size)])

    def _sequence(self, generator: np.random.Generator, number: int, at: int) -> list[int]:
        roles, group = self.settings.roles, self._groups[number]
        like, different = self._near_candidates(group, at)
        sequence = [int(group.rows[at]), int(group.rows[like[generator.integers(like.size)]])]
        if "C" in roles:
            if different.size == 0:
                different = self._relaxed_c(group, at)
            found = different.size > 0
            sequence.append(int(group.rows[different[generator.integers(different.size)]]) if found else sequence[-1])
        if "D" in roles:
            far = self._draw_far(generator, group, at)
            sequence.append(sequence[-1] if far is None else int(group.rows[far]))
        if "E" in roles:
            sequence.append(self._draw_other_type(generator, number, at))
        return sequence

    def _near_candidates(self, group: Group, at: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The places of all B and of all C within the low location threshold."""
        used, settings = self.thresholds, self.settings
        by_place = settings.uses("location")
        window = group.window(at, used.location_low) if by_place else slice(0, len(group.rows))
        other = group.patients[window] != group.patients[at]
        if not settings.other_patient:
            other = np.ones_like(other)
            other[at - window.start] = False
        near = np.ones_like(other)
        if by_place:
            near = group.location_distances(at, window) < used.location_low**2
        if not settings.uses("size"):
            return np.flatnonzero(near & other) + window.start, np.empty(0, dtype=np.int64)
        difference = group.size_differences(at, window)
        like = near & other & (difference < used.size_low**2)
        different = near & (difference > used.size_high**2)
        return np.flatnonzero(like) + window.start, np.flatnonzero(different) + window.start

    def _relaxed_c(self, group: Group, at: int) -> NDArray[np.int64]:
        used = self.thresholds
        window = group.window(at, used.location_high)
        near = group.location_distances(at, window) < used.location_high**2
        different = group.size_differences(at, window) > used.size_high**2
        return np.asarray(np.flatnonzero(near & different) + window.start)

    def _far_places(self, group: Group, at: int) -> NDArray[np.int64]:
        everyone = slice(0, len(group.rows))
        return np.asarray(np.flatnonzero(group.location_distances(at, everyone) > self.thresholds.location_high**2))

    def _has_far(self, group: Group, at: int) -> bool:
        # Both ends of z are the likeliest; only a compact organ needs the whole look.
        ends = np.array([0, len(group.rows) - 1])
        if (group.location_distances(at, ends) > self.thresholds.location_high**2).any():
            return True
        return bool(self._far_places(group, at).size)

    def _draw_far(self, generator: np.random.Generator, group: Group, at: int) -> int | None:
        """A place of D; drawing until one fits is as even as listing all, which only a rare D needs."""
        wanted = self.settings.hard_candidates
        tried = generator.integers(len(group.rows), size=max(_TRIES, 2 * wanted))
        distances = group.location_distances(at, tried)
        fits = np.flatnonzero(distances > self.thresholds.location_high**2)[:wanted]
        if fits.size == wanted:
            return int(tried[fits[np.argmin(distances[fits])]])
        everyone = self._far_places(group, at)
        if everyone.size == 0:
            return None
        tried = everyone[generator.integers(everyone.size, size=wanted)]
        return int(tried[np.argmin(group.location_distances(at, tried))])

    def _draw_other_type(self, generator: np.random.Generator, own: int, at: int) -> int:
        wanted = self.settings.hard_candidates
        if self.settings.balance == "type":
            numbers = generator.integers(len(self._groups) - 1, size=wanted)
            numbers += numbers >= own
            begin, end = self._starts[numbers], self._starts[numbers + 1]
            places = generator.integers(begin, end)
        else:
            start, stop = self._starts[own], self._starts[own + 1]
            places = generator.integers(len(self._all_rows) - (stop - start), size=wanted)
            places = np.where(places >= start, places + (stop - start), places)
        rows = self._all_rows[places]
        if wanted == 1:
            return int(rows[0])
        return int(rows[np.argmin(squared_distances(self._lesions.locations[rows], self._groups[own].location[at]))])
