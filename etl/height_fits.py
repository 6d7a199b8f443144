"""What the heights of a series' slices say: smoothed heights, its order, its slice interval, the part of the body.

A model gives every slice a height by its picture alone, so single slices are odd now and then. Everything here goes by
medians: of slopes between pairs of slices (Theil and Sen's line) and of distances from it. Up to 29 % of the slices
may say anything without moving a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]

# The release publishes 30 mm on either side of a lesion.
WINDOW_MM = 30.0
_WINDOW_SLICES = 7
_MIN_IN_WINDOW = 5

# From this correlation of heights and places on, slices are in order. Reversed series are rare, and some 60 mm of the
# body may well look alike, so that it takes more to say so.
SURE_CORRELATION = 0.5
SURELY_REVERSED = -0.9
_MIN_SLICES_FOR_ORDER = 4

# Bodies differ, and heights do not rise evenly: what the usual mistakes do to an interval is beyond this factor.
WRONG_INTERVAL_FACTOR = 1.7
# Over less of the body heights may rise as they please: by the stated interval, or, where that may be too small, by
# so much that no noise rises like it.
MIN_STATED_MM = 120.0
MIN_ESTIMATED_MM = 240.0
_MIN_CORRELATION_FOR_INTERVAL = 0.9
_MIN_SERIES_FOR_USUAL_RISE = 5

# Pairs grow with the square of the slices; so many of them, evenly chosen, give the same line.
_MAX_POINTS = 400
_SMOOTHED_OVER = 5
# A part of the body is named when so many of the slices show it.
_MIN_SHARE_OF_PART = 0.03

MIN_RELEASE_LESIONS = 50

BODY_PARTS = ("chest", "abdomen", "pelvis")
"""From head to foot. The chest takes the neck with it; the pelvis, the thighs."""

# Bones and soft tissue are everywhere.
_PART_OF_TYPE: Mapping[str, int] = MappingProxyType(
    {"lung": 0, "mediastinum": 0, "liver": 1, "kidney": 1, "abdomen": 1, "pelvis": 2}
)
_MIN_LESIONS_OF_PART = 20


@dataclass(frozen=True, slots=True)
class SeriesHeights:
    """The scored slices of one series, in the order of their numbers."""

    slice_indices: NDArray[np.int64]
    heights: Numbers
    places: Numbers
    """Along the series: millimetres, or slice numbers where `in_mm` is False. Never falling."""
    in_mm: bool


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What the heights of one series say of it; None where they do not tell."""

    correlation: float | None
    reversed: bool | None
    estimated_interval_mm: float | None
    interval_ratio: float | None
    wrong_interval: bool | None
    smallest_height: float
    largest_height: float
    body_range: str | None


@dataclass(frozen=True, slots=True)
class ReleaseFit:
    """A line from a model's heights to the release's z."""

    scale: float
    offset: float
    error: float
    """Median distance from the line."""

    def __call__(self, height: float) -> float:
        """The release's z of a height."""
        return self.offset + self.scale * height


def series_heights(
    slice_indices: Sequence[int] | NDArray[np.int64],
    z_mm: Sequence[float | None],
    heights: Sequence[float] | NDArray[np.float32],
    *,
    counted: bool,
) -> SeriesHeights:
    """Heights with the places they were taken at.

    Args:
        slice_indices: ascending.
        z_mm: of the slices, None where unknown.
        heights: of the slices.
        counted: z_mm is a slice's number times an interval, as in a release; with several intervals in one series such
            places contradict each other, and numbers serve instead.
    """
    indices = np.asarray(slice_indices, np.int64)
    places = np.array([np.nan if z is None else z for z in z_mm], np.float64)
    steps = np.diff(places)
    in_mm = bool(np.isfinite(places).all() and (steps >= 0).all())
    if in_mm and counted and len(steps):
        intervals = steps / np.diff(indices)
        in_mm = bool(np.ptp(intervals) <= 0.01 * np.median(intervals))
    return SeriesHeights(
        indices, np.asarray(heights, np.float64), places if in_mm else indices.astype(np.float64), in_mm
    )


def robust_line(x: Numbers, y: Numbers) -> tuple[float, float] | None:
    """Slope and intercept of the line through most points; None when all lie at one x."""
    if len(x) > _MAX_POINTS:
        chosen = np.linspace(0, len(x) - 1, _MAX_POINTS).round().astype(int)
        x, y = x[chosen], y[chosen]
    first, second = np.triu_indices(len(x), 1)
    run = x[second] - x[first]
    apart = run != 0
    if not apart.any():
        return None
    slope = float(np.median((y[second] - y[first])[apart] / run[apart]))
    return slope, float(np.median(y - slope * x))


def correlation(series: SeriesHeights) -> float | None:
    """Of heights and places; None for fewer than three places, or heights that are all the same."""
    if len(np.unique(series.places)) < 3 or np.ptp(series.heights) == 0:
        return None
    return float(np.corrcoef(series.places, series.heights)[0, 1])


def direction(series: SeriesHeights) -> int:
    """1 from head to foot, -1 from foot to head, 0 where the heights do not tell."""
    found = correlation(series)
    if found is None or len(series.heights) < _MIN_SLICES_FOR_ORDER:
        return 0
    return 1 if found >= SURE_CORRELATION else -1 if found <= SURELY_REVERSED else 0


def height_at(series: SeriesHeights, slice_index: int) -> float | None:
    """The smoothed height at a slice; None outside the scored ones.

    A line through the slices around it, which may not run against the series; a missing slice lies between its
    neighbours.
    """
    indices = series.slice_indices
    if not indices[0] <= slice_index <= indices[-1]:
        return None
    place = float(np.interp(slice_index, indices, series.places))
    away = np.abs(series.places - place)
    window = WINDOW_MM if series.in_mm else _WINDOW_SLICES
    near = away <= max(window, min(2 * window, float(np.sort(away)[:_MIN_IN_WINDOW][-1])))
    if not near.any():
        return None
    x, y = series.places[near] - place, series.heights[near]
    line = robust_line(x, y)
    if line is None or line[0] * direction(series) <= 0:
        return float(np.median(y))
    return line[1]


def rise_per_mm(series: SeriesHeights) -> float | None:
    """How heights rise along a series that is in order, or fall along a reversed one; None where they do not tell."""
    found = correlation(series)
    if not series.in_mm or found is None or abs(found) < _MIN_CORRELATION_FOR_INTERVAL:
        return None
    if len(series.heights) < _MIN_SLICES_FOR_ORDER:
        return None
    line = robust_line(series.places, series.heights)
    return None if line is None else abs(line[0])


def usual_rise(all_series: Sequence[SeriesHeights]) -> float | None:
    """The median rise of heights per millimetre over series that show enough of the body; None with too few of them."""
    rises = [
        rise
        for series in all_series
        if np.ptp(series.places) >= MIN_STATED_MM and (rise := rise_per_mm(series)) is not None and rise > 0
    ]
    return float(np.median(rises)) if len(rises) >= _MIN_SERIES_FOR_USUAL_RISE else None


def judge(
    series: SeriesHeights,
    stated_interval_mm: float | None,
    usual: float | None,
    borders: tuple[float, float] | None,
) -> Verdicts:
    """What the heights of a series say of it.

    Args:
        series: its heights.
        stated_interval_mm: as the series states it.
        usual: rise of heights per millimetre in other series.
        borders: heights at which the chest ends and the pelvis begins.
    """
    way = direction(series)
    smooth = _running_median(series.heights)
    ratio = _interval_ratio(series, usual)
    return Verdicts(
        correlation=correlation(series),
        reversed=None if way == 0 else way < 0,
        estimated_interval_mm=None if ratio is None or stated_interval_mm is None else ratio * stated_interval_mm,
        interval_ratio=ratio,
        wrong_interval=None if ratio is None else not 1 / WRONG_INTERVAL_FACTOR <= ratio <= WRONG_INTERVAL_FACTOR,
        smallest_height=float(smooth.min()),
        largest_height=float(smooth.max()),
        body_range=None if borders is None else _body_range(smooth, borders),
    )


def body_part(heights: Numbers, borders: tuple[float, float]) -> NDArray[np.int64]:
    """Number in `BODY_PARTS` of each height."""
    parts: NDArray[np.int64] = np.searchsorted(np.asarray(borders), heights, side="right").astype(np.int64)
    return parts


def fit_to_release(heights: Sequence[float], release_z: Sequence[float]) -> ReleaseFit | None:
    """The line from heights to the release's z; None with too few lesions, or when z does not rise with height."""
    if len(heights) < MIN_RELEASE_LESIONS:
        return None
    x, y = np.asarray(heights, np.float64), np.asarray(release_z, np.float64)
    line = robust_line(x, y)
    if line is None or line[0] <= 0:
        return None
    scale, offset = line
    return ReleaseFit(scale, offset, float(np.median(np.abs(y - offset - scale * x))))


def borders_from_types(heights: Sequence[float], types: Sequence[str | None]) -> tuple[float, float] | None:
    """Heights at which the chest ends and the pelvis begins, by lesions whose type says the part they are in.

    None with too few lesions of a part, or when the parts do not follow each other.
    """
    parts = [_PART_OF_TYPE.get(name or "") for name in types]
    groups = [np.array([height for height, of in zip(heights, parts, strict=True) if of == part]) for part in range(3)]
    if min(map(len, groups)) < _MIN_LESIONS_OF_PART:
        return None
    chest_ends, pelvis_begins = _border(groups[0], groups[1]), _border(groups[1], groups[2])
    return (chest_ends, pelvis_begins) if chest_ends < pelvis_begins else None


def _border(above: Numbers, below: Numbers) -> float:
    """The height with the smallest sum of shares on the wrong side; the middle where several heights are."""
    candidates = np.unique(np.concatenate([above, below]))
    middles = (candidates[1:] + candidates[:-1]) / 2
    wrong = (
        1
        - np.searchsorted(np.sort(above), middles) / len(above)
        + np.searchsorted(np.sort(below), middles) / len(below)
    )
    best = middles[wrong <= wrong.min() + 1e-9]
    return float((best[0] + best[-1]) / 2)


def _interval_ratio(series: SeriesHeights, usual: float | None) -> float | None:
    """Estimated over stated interval; None where too little of the body is seen, whatever interval is stated."""
    rise = rise_per_mm(series)
    if rise is None or usual is None:
        return None
    stated_mm, ratio = float(np.ptp(series.places)), rise / usual
    return ratio if stated_mm >= MIN_STATED_MM or stated_mm * ratio >= MIN_ESTIMATED_MM else None


def _running_median(heights: Numbers) -> Numbers:
    """Of each slice and its neighbours, so that the odd one drops out; the ends keep what stands inside of them."""
    if len(heights) < _SMOOTHED_OVER:
        return np.full(1, np.median(heights))
    windows = np.lib.stride_tricks.sliding_window_view(heights, _SMOOTHED_OVER)
    smoothed: Numbers = np.median(windows, axis=1)
    return smoothed


def _body_range(heights: Numbers, borders: tuple[float, float]) -> str:
    counts = np.bincount(body_part(heights, borders), minlength=len(BODY_PARTS))
    named = [part for part, count in zip(BODY_PARTS, counts, strict=True) if count >= _MIN_SHARE_OF_PART * len(heights)]
    return "+".join(named)
