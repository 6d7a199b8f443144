"""Quirks of series and slice files: what is odd before a picture is drawn, or in the file it becomes.

Every function takes all planned series and gives them back with one place changed. Key slices it touches carry the
quirk's name into their rows; slice files it touches are named by an edit. Whole scans without marks stay as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from etl.phantom.coverage import CONTEXT_MM, SubVolume
from etl.phantom.plan import KeySlice, SeriesPlan, SliceEdit
from etl.phantom.reading import draw_slice, read_key
from etl.phantom.scanner import make_series
from lesionary.recist import RELEASE_PADDING_PX

Plans = list[SeriesPlan]

# How far a box leaves the image, px.
_OVER_EDGE_PX = 1.5
# The interval of the odd stretch, unless the series has it already.
_THIN_MM, _THICK_MM = 1.0, 5.0
# Two sub-volumes are brought together over so many slices before another place is looked for.
_FEW_SLICES = 30
# A neighbour's distance, in long diameters of the lesion it was copied from.
_NEIGHBOUR_DIAMETERS = 1.3
_NEIGHBOUR_GROWTH = 0.8
_DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1))


@dataclass(frozen=True, slots=True)
class PlanQuirk:
    """A change to the planned series."""

    name: str
    sentence: str
    apply: Callable[[Plans, np.random.Generator, str], Plans]


def _shuffled(plans: Plans, rng: np.random.Generator) -> list[int]:
    """Places of the series with marks in an order of its own, those no quirk has touched first."""
    order = [int(place) for place in rng.permutation(len(plans)) if plans[place].keys]
    return sorted(order, key=lambda place: _is_touched(plans[place]))


def _is_touched(plan: SeriesPlan) -> bool:
    return bool(plan.edits) or any(key.quirks for key in plan.keys)


def _with(plans: Plans, place: int, plan: SeriesPlan) -> Plans:
    return [*plans[:place], plan, *plans[place + 1 :]]


def _named(keys: tuple[KeySlice, ...], name: str, slice_indices: set[int]) -> tuple[KeySlice, ...]:
    return tuple(replace(key, quirks=(*key.quirks, name)) if key.slice_index in slice_indices else key for key in keys)


def _key_indices(plan: SeriesPlan) -> set[int]:
    return {key.slice_index for key in plan.keys}


def _all_readable(plan: SeriesPlan, slice_index: int) -> bool:
    drawn = draw_slice(plan, slice_index)
    return all(read_key(plan, key, drawn) for key in plan.keys if key.slice_index == slice_index)


def _box_over_edge(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    """The patient lies so far to one side that the box of a series' only mark leaves the image."""
    for place in _shuffled(plans, rng):
        plan = plans[place]
        if len(plan.keys) != 1:
            continue
        key = plan.keys[0]
        reading = read_key(plan, key, draw_slice(plan, key.slice_index))
        if reading is None:
            continue
        to_left = min(reading.points[::2]) - RELEASE_PADDING_PX - 1.0
        to_right = plan.series.image_size - max(reading.points[::2]) - RELEASE_PADDING_PX
        shift = round(to_right + _OVER_EDGE_PX) if to_right < to_left else -round(to_left + _OVER_EDGE_PX)
        moved = replace(plan, shift_xy_px=(shift, 0), keys=_named(plan.keys, name, {key.slice_index}))
        return _with(plans, place, moved)
    return plans


def _large_image(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    return _resized(plans, rng, name, 1.5)


def _very_large_image(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    return _resized(plans, rng, name, 2.0)


def _resized(plans: Plans, rng: np.random.Generator, name: str, factor: float) -> Plans:
    for place in _shuffled(plans, rng):
        plan = plans[place]
        size = round(plan.series.image_size * factor)
        series = make_series(plan.patient, plan.study, plan.series.index, size)
        resized = replace(plan, series=series, keys=_named(plan.keys, name, _key_indices(plan)))
        if all(_all_readable(resized, index) for index in _key_indices(resized)):
            return _with(plans, place, resized)
    return plans


def _two_intervals(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    """The last stretch of a series lies at another interval around its only key slice."""
    for place in _shuffled(plans, rng):
        plan = plans[place]
        part = plan.sub_volumes[-1]
        keys = sorted(_key_indices(plan) & set(part.slice_indices))
        if len(plan.sub_volumes) < 2 or len(keys) != 1:
            continue
        key = keys[0]
        interval = _THICK_MM if part.interval_mm == _THIN_MM else _THIN_MM
        reach = min(max(key - part.first_index, part.last_index - key), int(CONTEXT_MM / interval))
        first = max(key - reach, plan.sub_volumes[-2].last_index + 2)
        odd = SubVolume(first, key + reach, part.z_mm(key) - (key - first) * interval, interval)
        changed = replace(plan, sub_volumes=(*plan.sub_volumes[:-1], odd), keys=_named(plan.keys, name, {key}))
        if _all_readable(changed, key):
            return _with(plans, place, changed)
    return plans


def _lesions_share_image(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    """A second, smaller lesion beside a marked one, marked on the same picture."""
    for place in _shuffled(plans, rng):
        plan = plans[place]
        for key in plan.keys:
            shared = _with_neighbour(plan, key)
            if shared is not None:
                return _with(plans, place, replace(shared, keys=_named(shared.keys, name, {key.slice_index})))
    return plans


def _with_neighbour(plan: SeriesPlan, key: KeySlice) -> SeriesPlan | None:
    state = plan.state(key.lesion_id)
    identifier = max(other.lesion.identifier for other in plan.states) + 1
    lesion = replace(state.lesion, identifier=identifier)
    reach_mm = _NEIGHBOUR_DIAMETERS * lesion.long_diameter_mm * state.growth
    x, y, z = state.shift_xyz_mm
    for dx, dy in _DIRECTIONS:
        shift = (x + dx * reach_mm, y + dy * reach_mm, z)
        neighbour = replace(state, lesion=lesion, growth=state.growth * _NEIGHBOUR_GROWTH, shift_xyz_mm=shift)
        second = KeySlice(identifier, key.slice_index, key.stated_type)
        changed = replace(plan, states=(*plan.states, neighbour), keys=(*plan.keys, second))
        if _all_readable(changed, key.slice_index):
            return changed
    return None


def _sub_volumes_one_apart(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    """Two sub-volumes with exactly one slice between them, where that adds fewest slices to the release."""
    best: tuple[bool, int, int, SeriesPlan] | None = None
    for place in _shuffled(plans, rng):
        plan = plans[place]
        for low, high in pairwise(sorted(_key_indices(plan))):
            one, other = plan.part_of(low), plan.part_of(high)
            if high - low < 2 or one.interval_mm != other.interval_mm:
                continue
            added = max(0, other.first_index - one.last_index - 2)
            cost = (_is_touched(plan) or added > _FEW_SLICES, added)
            if best is None or cost < best[:2]:
                best = (*cost, place, _split_between(plan, low, high, name))
    return plans if best is None else _with(plans, best[2], best[3])


def _split_between(plan: SeriesPlan, low: int, high: int, name: str) -> SeriesPlan:
    one, other = plan.part_of(low), plan.part_of(high)
    gap = (low + high) // 2
    head = replace(one, last_index=gap - 1)
    tail = SubVolume(gap + 1, other.last_index, other.z_mm(gap + 1), other.interval_mm)
    parts = sorted({*plan.sub_volumes} - {one, other} | {head, tail}, key=lambda part: part.first_index)
    touched = _key_indices(plan) & {*head.slice_indices, *tail.slice_indices}
    return replace(plan, sub_volumes=tuple(parts), keys=_named(plan.keys, name, touched))


def _key_on_edge(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    """A sub-volume ends with its last key slice."""
    for place in _shuffled(plans, rng):
        plan = plans[place]
        part = plan.sub_volumes[-1]
        last = max(_key_indices(plan))
        if part.first_index < last < part.last_index:
            parts = (*plan.sub_volumes[:-1], replace(part, last_index=last))
            return _with(plans, place, replace(plan, sub_volumes=parts, keys=_named(plan.keys, name, {last})))
    return plans


def _noisy_row(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
    """A mark beside its lesion, on a picture without other marks."""
    for place in _shuffled(plans, rng):
        plan = plans[place]
        for key in plan.keys:
            noisy = replace(key, noisy=True, quirks=(*key.quirks, name))
            alone = sum(other.slice_index == key.slice_index for other in plan.keys) == 1
            if alone and read_key(plan, noisy, draw_slice(plan, key.slice_index)) is not None:
                keys = tuple(noisy if other == key else other for other in plan.keys)
                return _with(plans, place, replace(plan, keys=keys))
    return plans


def _key_edit(action: str) -> Callable[[Plans, np.random.Generator, str], Plans]:
    """An edit of a key slice's file: the row stays, what it points to is damaged."""

    def apply(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
        for place in _shuffled(plans, rng):
            plan = plans[place]
            edited = {edit.slice_index for edit in plan.edits}
            for chosen in (int(index) for index in rng.permutation(sorted(_key_indices(plan) - edited))):
                edits = (*plan.edits, SliceEdit(chosen, action, name))
                changed = replace(plan, edits=edits, keys=_named(plan.keys, name, {chosen}))
                # A turned picture is read anew, and a mark near its edge might be lost.
                if _all_readable(changed, chosen):
                    return _with(plans, place, changed)
        return plans

    return apply


def _context_edit(action: str, count: int) -> Callable[[Plans, np.random.Generator, str], Plans]:
    """An edit of `count` neighbouring files that are nobody's key slice."""

    def apply(plans: Plans, rng: np.random.Generator, name: str) -> Plans:
        for place in _shuffled(plans, rng):
            plan = plans[place]
            taken = _key_indices(plan) | {edit.slice_index for edit in plan.edits}
            for part in plan.sub_volumes:
                inner = range(part.first_index + 1, part.last_index - count + 1)
                starts = [start for start in inner if not taken & set(range(start, start + count))]
                if starts:
                    start = int(rng.choice(starts))
                    added = tuple(SliceEdit(index, action, name) for index in range(start, start + count))
                    return _with(plans, place, replace(plan, edits=(*plan.edits, *added)))
        return plans

    return apply


PLAN_QUIRKS: tuple[PlanQuirk, ...] = (
    PlanQuirk("box-over-edge", "a lesion's box leaves the image", _box_over_edge),
    PlanQuirk("large-image", "a series has 1.5 times the rows and columns (768 where others have 512)", _large_image),
    PlanQuirk("very-large-image", "a series has twice the rows and columns (1024 for 512)", _very_large_image),
    PlanQuirk("two-intervals", "two sub-volumes of one series have different slice intervals", _two_intervals),
    PlanQuirk("sub-volumes-one-apart", "a single slice is missing between two sub-volumes", _sub_volumes_one_apart),
    PlanQuirk("lesions-share-image", "two rows name the same file: two lesions on one image", _lesions_share_image),
    PlanQuirk("key-on-edge", "a key slice is the last of its slice range", _key_on_edge),
    PlanQuirk("noisy-row", "a row is marked possibly noisy and its diameters miss the lesion", _noisy_row),
    PlanQuirk("missing-key-image", "a key slice's file is not there", _key_edit("missing")),
    PlanQuirk("truncated-image", "a key slice's file breaks off", _key_edit("truncated")),
    PlanQuirk("eight-bit-image", "a key slice's file has 8 bits a pixel", _key_edit("eight_bit")),
    PlanQuirk("bad-checksum-image", "a context slice's PNG has a wrong checksum", _context_edit("bad_checksum", 1)),
    PlanQuirk("missing-context-images", "two neighbouring files of a range are not there", _context_edit("missing", 2)),
    PlanQuirk("flipped-key-image", "a key image is mirrored left to right", _key_edit("flip_left_right")),
    PlanQuirk("upside-down-key-image", "a key image is mirrored top to bottom", _key_edit("flip_top_bottom")),
    PlanQuirk("rotated-key-image", "a key image is turned by a quarter", _key_edit("rotate_quarter")),
)
