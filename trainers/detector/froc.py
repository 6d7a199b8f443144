"""FROC: how many lesions are found, over how many false positives an image has, as 3DCE and MULAN count them.

The curve has a point for every score: all detections with it or a higher one. Detections of one score cannot be parted
by any threshold, so they make one point together, whatever their order. It starts where nothing is found.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainers.detector.evaluation_data import Detections, Numbers, Truth, Whole
from trainers.detector.hits import Hits, hits_of
from trainers.detector.intervals import Estimate, Resampling, estimates, share
from trainers.detector.overlaps import pairs_of
from trainers.detector.protocols import ROUNDING, BeyondCurve, Protocol
from trainers.detector.scene import Scene, scene_of
from trainers.detector.strata import Stratum, strata_of


@dataclass(frozen=True, slots=True)
class FrocCurve:
    """The curve itself; all arrays are of one length, starting at the highest score."""

    false_positives_per_image: Numbers
    sensitivities: Numbers
    scores: Numbers
    """Threshold of each point; infinity for the first, where nothing is found."""


@dataclass(frozen=True, slots=True)
class FrocScores:
    """Sensitivities of one stratum at the protocol's rates of false positives per image."""

    group: str
    name: str
    lesions: int
    sensitivities: tuple[Estimate, ...]
    mean: Estimate
    """Over the rates."""
    mean_to_4: Estimate
    """Over the rates up to 4, as MULAN and MP3D average."""


@dataclass(frozen=True, slots=True)
class Froc:
    """What FROC says of a detector."""

    images: int
    patients: int
    rates: tuple[float, ...]
    false_positives: int
    hits: int
    """Detections that hit a lesion first."""
    second_hits: int
    """Detections that only hit what surer ones had hit."""
    ignored: int
    """Detections in ignore regions."""
    strata: tuple[FrocScores, ...]
    """All lesions, then parts of them."""
    curve: FrocCurve
    """Of all lesions."""

    @property
    def all(self) -> FrocScores:
        """Of all lesions."""
        return self.strata[0]


def froc(
    truth: Truth,
    found: Detections,
    protocol: Protocol | None = None,
    strata: Sequence[Stratum] | None = None,
    resampling: Resampling | None = None,
) -> Froc:
    """Sensitivity over false positives per image, class ignored.

    Args:
        truth: what is there.
        found: what a detector found.
        protocol: how to count; Lesionary's own unless given.
        strata: parts of what a protocol keeps of the truth (`keep_lesions`); all lesions alone unless given.
        resampling: for intervals.

    Raises:
        UsageError: the truth and the detections do not fit together, or not the protocol.
    """
    protocol = protocol or Protocol()
    scene = scene_of(truth, found, protocol)
    hits = hits_of(scene, pairs_of(scene.truth, scene.detections, protocol), protocol.threshold, protocol.assignment)
    return froc_of_hits(scene, hits, protocol, strata or strata_of(scene.truth)[:1], resampling or Resampling())


def froc_of_hits(
    scene: Scene, hits: Hits, protocol: Protocol, strata: Sequence[Stratum], resampling: Resampling
) -> Froc:
    """The same for hits that are known already."""
    events = _events(scene, hits, protocol, strata)
    rates = np.asarray(protocol.rates)
    few = rates <= 4 + ROUNDING

    def figures(weights: Whole) -> Numbers:
        sensitivities = _sensitivities(events, weights, rates, protocol.beyond)
        # Without a rate up to 4 there is nothing to average.
        to_4 = sensitivities[..., few].mean(axis=2) if few.any() else np.full(sensitivities.shape[:2], np.nan)
        columns = [sensitivities, sensitivities.mean(axis=2)[..., None], to_4[..., None]]
        return np.concatenate(columns, axis=2).reshape(len(weights), -1)

    numbers = len(events.wrong_patients) + len(events.lesion_patients) * len(strata)
    found = estimates(figures, len(events.images), resampling, numbers)
    width = len(rates) + 2
    return Froc(
        images=scene.truth.image_count,
        patients=len(events.images),
        rates=protocol.rates,
        false_positives=len(events.wrong_patients),
        hits=int(hits.right.sum()),
        second_hits=int(hits.second.sum()),
        ignored=int(hits.ignored.sum()),
        strata=tuple(
            FrocScores(
                part.group,
                part.name,
                int(part.members.sum()),
                tuple(found[at * width : at * width + len(rates)]),
                found[at * width + len(rates)],
                found[at * width + len(rates) + 1],
            )
            for at, part in enumerate(strata)
        ),
        curve=_curve(scene, events),
    )


@dataclass(frozen=True, slots=True)
class _Events:
    """What moves a curve, surest detections first. A resample only counts patients more than once or not at all."""

    wrong_patients: Whole
    """Of the false positives."""
    lesion_patients: Whole
    """Of the lesions, those hit by the surest detections first."""
    members: Numbers
    """(strata, lesions) 1 where a lesion is in a stratum, in the same order."""
    wrong_at: Whole
    """(points,) false positives up to a point."""
    hit_at: Whole
    """(points,) lesions hit up to a point."""
    ends: Whole
    """(points,) place of a point's last detection; -1 for the first point."""
    images: Whole
    """(patients,)"""


def _events(scene: Scene, hits: Hits, protocol: Protocol, strata: Sequence[Stratum]) -> _Events:
    found, truth = scene.detections, scene.truth
    patients, count = scene.patients()
    wrong = hits.false_positives(protocol.second_hits)
    last_of_score = np.ones(found.count, bool)
    last_of_score[:-1] = found.scores[1:] != found.scores[:-1]
    ends = np.concatenate([[-1], np.flatnonzero(last_of_score)])
    by_hit = np.argsort(hits.first_hits, kind="stable")
    members = np.array([part.members[by_hit] for part in strata], np.float64)
    return _Events(
        wrong_patients=patients[found.images[wrong]],
        lesion_patients=patients[truth.images[by_hit]],
        members=members,
        wrong_at=np.concatenate([[0], np.cumsum(wrong)])[ends + 1],
        hit_at=np.searchsorted(hits.first_hits[by_hit], ends, side="right"),
        ends=ends,
        images=np.bincount(patients, minlength=count),
    )


def _sensitivities(events: _Events, weights: Whole, rates: Numbers, beyond: BeyondCurve) -> Numbers:
    """(rows, strata, rates) sensitivities where each patient counts as often as its weight says."""
    return np.array([_row(events, row, rates, beyond) for row in weights])


def _row(events: _Events, weights: Whole, rates: Numbers, beyond: BeyondCurve) -> Numbers:
    wrong = np.concatenate([[0], np.cumsum(weights[events.wrong_patients])])
    limits = rates * float(weights @ events.images)
    low, high, part = _between(wrong, events.wrong_at, limits, beyond)
    places = np.concatenate([events.hit_at[low], events.hit_at[high], events.hit_at[-1:], [events.members.shape[1]]])
    hit = _totals_up_to(places, events.members, weights[events.lesion_patients].astype(np.float64))
    at_low, at_high = hit[:, : len(rates)], hit[:, len(rates) : 2 * len(rates)]
    found = at_low + part * (at_high - at_low)
    if beyond is BeyondCurve.EXTRAPOLATE:
        # Hits after the last false positive count, and the last step goes on from there.
        found += (limits > wrong[-1] + ROUNDING) * (hit[:, -2:-1] - at_high)
    return np.minimum(share(found, hit[:, -1:]), 1.0)


def _totals_up_to(places: Whole, members: Numbers, weights: Numbers) -> Numbers:
    """(strata, places) weight of each stratum's lesions among the first so many."""
    ends = np.unique(np.concatenate([[0], places]))
    parts = [members[:, start:end] @ weights[start:end] for start, end in itertools.pairwise(ends)]
    totals = np.cumsum([np.zeros(len(members)), *parts], axis=0)
    return totals[np.searchsorted(ends, places)].T


def _between(wrong: Numbers, wrong_at: Whole, limits: Numbers, beyond: BeyondCurve) -> tuple[Whole, Whole, Numbers]:
    """Two points for each limit of false positives, and how far it lies from the first to the second.

    Args:
        wrong: (events + 1,) false positives after each of them.
        wrong_at: (points,) events up to each point.
        limits: false positives in all.
        beyond: how ties and the end are read.
    """
    last = len(wrong_at) - 1
    rounding = ROUNDING * np.maximum(1.0, limits)
    if beyond is BeyondCurve.CLAMP:
        within = np.searchsorted(wrong, limits + rounding, side="right") - 1
        low = np.searchsorted(wrong_at, within, side="right") - 1
        high = np.minimum(low + 1, last)
    else:
        # Beyond the end, the last step that adds a false positive.
        reached = np.searchsorted(wrong, np.minimum(limits, wrong[-1]) - rounding, side="left")
        high = np.searchsorted(wrong_at, reached, side="left")
        low = np.maximum(high - 1, 0)
    start, step = wrong[wrong_at[low]], wrong[wrong_at[high]] - wrong[wrong_at[low]]
    # Where no step adds a false positive there is no direction: what was reached stays.
    part = np.divide(limits - start, step, out=np.ones_like(limits), where=step > 0)
    return low, high, np.maximum(part, 0.0)


def _curve(scene: Scene, events: _Events) -> FrocCurve:
    lesions = int(events.members[0].sum())
    hit = np.concatenate([[0.0], np.cumsum(events.members[0])])[events.hit_at]
    images = scene.truth.image_count
    return FrocCurve(
        false_positives_per_image=events.wrong_at / images if images else np.zeros(len(events.ends)),
        sensitivities=share(hit, np.full(len(hit), float(lesions))),
        scores=np.concatenate([[np.inf], scene.detections.scores])[events.ends + 1],
    )
