"""Tracklets: what is one lesion, against plain loops over single boxes, whatever order the boxes come in."""

import math
from dataclasses import replace

import numpy as np
import pytest

from etl.tracklets import (
    LinkSettings,
    SliceBoxes,
    TrackBox,
    Tracklet,
    drop_repeated,
    find_tracklets,
    link,
    overlap,
    share_within,
    single_boxes,
    thin_out,
)

SETTINGS = LinkSettings()


def tracklets_of(slices, settings):
    """As detect has it: each slice is thinned out, then all are linked."""
    return find_tracklets([thin_out(one, settings.slice_iou) for one in slices], settings)


def on_slice(index, *rows, z_mm=None):
    """Rows are (box, score) or (box, score, category); slices lie 2 mm apart unless said."""
    boxes = np.array([row[0] for row in rows], np.float64).reshape(-1, 4)
    return SliceBoxes(
        index, 2.0 * index if z_mm is None else z_mm, boxes,
        np.array([row[1] for row in rows], np.float64), np.array([(*row, 0)[2] for row in rows], np.int64),
    )  # fmt: skip


def numbers(tracklets):
    """(slice, score) of every box of every tracklet."""
    return [[(box.slice_index, box.score) for box in one.boxes] for one in tracklets]


def plain_area(box):
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])


def plain_shared(a, b):
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def plain_iou(a, b):
    union = plain_area(a) + plain_area(b) - plain_shared(a, b)
    return plain_shared(a, b) / union if union > 0 else 0.0


def plain_reach(box, index, z_mm, settings):
    near = abs(box.slice_index - index) <= 1 + settings.gap_slices
    return near and not abs(box.z_mm - z_mm) > settings.reach_mm


def plain_tracklets(slices, settings):
    """The same by definition: all pairs of boxes, no batches, no indices."""
    boxes = []
    for one in slices:
        rows = [
            TrackBox(one.slice_index, one.z_mm, tuple(box), float(score), int(category))
            for box, score, category in zip(one.boxes.tolist(), one.scores, one.categories, strict=True)
        ]
        kept = []
        for row in sorted(rows, key=lambda row: (-row.score, row.box, row.category)):
            if all(plain_iou(row.box, other.box) <= settings.slice_iou for other in kept):
                kept.append(row)
        boxes += kept
    tracks = []
    for index in sorted({box.slice_index for box in boxes}):
        here = [box for box in boxes if box.slice_index == index]
        pairs = []
        for track in tracks:
            for box in here:
                fits = plain_reach(track[-1], box.slice_index, box.z_mm, settings)
                if fits and plain_iou(track[-1].box, box.box) >= settings.link_iou:
                    pairs.append((-plain_iou(track[-1].box, box.box), -track[-1].slice_index, track[-1].box, box.box))
        while pairs:
            best = min(pairs)
            track = next(one for one in tracks if (-one[-1].slice_index, one[-1].box) == best[1:3])
            box = next(one for one in here if one.box == best[3])
            track.append(box)
            here.remove(box)
            pairs = [pair for pair in pairs if pair[1:3] != best[1:3] and pair[3] != best[3]]
        tracks += [[box] for box in here]
    found = sorted((Tracklet(tuple(track)) for track in tracks), key=lambda one: one.rank)
    kept = []
    for one in found:
        if not any(plain_share(one, other, settings) >= settings.same_share for other in kept):
            kept.append(one)
    return kept


def plain_share(inner, outer, settings):
    shared = 0.0
    for box in inner.boxes:
        near = [one for one in outer.boxes if plain_reach(one, box.slice_index, box.z_mm, settings)]
        near.sort(key=lambda one: (abs(one.slice_index - box.slice_index), one.slice_index))
        shared += plain_shared(box.box, near[0].box) if near else 0.0
    whole = sum(plain_area(box.box) for box in inner.boxes)
    return shared / whole if whole else 0.0


def random_slices(seed):
    """Boxes that crowd: a few lesions through many slices, wandering, repeated, with slices and places missing."""
    rng = np.random.default_rng(seed)
    lesions = [(rng.uniform(10, 60, 2), rng.uniform(3, 12), rng.integers(0, 12), rng.integers(1, 9)) for _ in range(5)]
    slices, z_mm = [], 0.0
    for index in range(16):
        z_mm += float(rng.choice([1.0, 2.0, 5.0, 12.0]))
        rows = []
        for middle, size, first, count in lesions:
            for _ in range(int(rng.integers(0, 3)) if first <= index < first + count else 0):
                at = middle + rng.normal(0, 1.5, 2)
                half = size * rng.uniform(0.6, 1.2, 2)
                # Few different scores and corners on a grid: ties everywhere.
                box = np.rint(np.concatenate([at - half, at + half]))
                rows.append((box, float(rng.choice([0.2, 0.5, 0.9])), int(rng.integers(3))))
        if rng.random() < 0.9:
            slices.append(on_slice(index, *rows, z_mm=math.nan if seed % 4 == 3 else z_mm))
    return slices


@pytest.mark.parametrize("gap", [0, 1, 2])
def test_tracklets_are_those_of_a_plain_loop(gap):
    several = 0
    for seed in range(60):
        slices, settings = random_slices(seed), replace(SETTINGS, gap_slices=gap)
        found = tracklets_of(slices, settings)

        assert found == plain_tracklets(slices, settings)
        several += sum(len(one.boxes) > 2 for one in found)
    assert several > 40


def test_order_of_slices_and_of_boxes_does_not_matter():
    rng = np.random.default_rng(1)
    for seed in range(20):
        slices = random_slices(seed)
        shuffled = []
        for one in slices:
            order = rng.permutation(len(one))
            shuffled.append(
                replace(one, boxes=one.boxes[order], scores=one.scores[order], categories=one.categories[order])
            )
        rng.shuffle(shuffled)

        assert tracklets_of(shuffled, SETTINGS) == tracklets_of(slices, SETTINGS)


def test_every_thinned_box_belongs_to_exactly_one_linked_tracklet():
    for seed in range(20):
        thinned = [thin_out(one, SETTINGS.slice_iou) for one in random_slices(seed)]
        tracklets = link(thinned, SETTINGS)

        placed = sorted((box.slice_index, box.box) for one in tracklets for box in one.boxes)
        there = sorted((one.slice_index, tuple(box)) for one in thinned for box in one.boxes.tolist())
        assert placed == there
        for one in tracklets:
            indices = [box.slice_index for box in one.boxes]
            assert indices == sorted(set(indices))


def test_a_lesion_goes_through_one_missing_slice_and_no_further():
    box = [10, 10, 20, 20]
    one_missing = [on_slice(at, (box, 0.5)) for at in (1, 2, 4)]
    two_missing = [on_slice(at, (box, 0.5)) for at in (1, 2, 5)]

    assert numbers(link(one_missing, SETTINGS)) == [[(1, 0.5), (2, 0.5), (4, 0.5)]]
    assert numbers(link(two_missing, SETTINGS)) == [[(1, 0.5), (2, 0.5)], [(5, 0.5)]]
    assert numbers(link(one_missing, replace(SETTINGS, gap_slices=0))) == [[(1, 0.5), (2, 0.5)], [(4, 0.5)]]


def test_slices_far_apart_are_not_linked_and_unknown_places_do_not_hinder():
    box = [10, 10, 20, 20]

    def at(*places):
        return [on_slice(index, (box, 0.5), z_mm=z_mm) for index, z_mm in enumerate(places)]

    assert len(link(at(0.0, 10.0), SETTINGS)) == 1
    assert len(link(at(0.0, 10.1), SETTINGS)) == 2
    assert len(link(at(math.nan, math.nan), SETTINGS)) == 1


def test_the_better_fit_wins_and_of_equals_the_nearer_slice():
    first = on_slice(1, ([10, 10, 20, 20], 0.5), ([13, 10, 23, 20], 0.4))
    second = on_slice(2, ([12, 10, 22, 20], 0.3))
    assert numbers(link([first, second], SETTINGS)) == [[(1, 0.5)], [(1, 0.4), (2, 0.3)]]

    far, near = on_slice(1, ([10, 10, 20, 20], 0.9)), on_slice(2, ([18, 10, 28, 20], 0.8))
    between = on_slice(3, ([14, 10, 24, 20], 0.7))
    assert numbers(link([far, near, between], SETTINGS)) == [[(1, 0.9)], [(2, 0.8), (3, 0.7)]]


def test_a_box_on_a_slice_goes_where_a_surer_one_overlaps_it():
    twice = on_slice(1, ([0, 0, 10, 10], 0.4), ([0, 0, 10, 11], 0.9), ([30, 30, 40, 40], 0.1))

    kept = thin_out(twice, 0.5)
    assert kept.scores.tolist() == [0.9, 0.1]
    assert thin_out(twice, 0.5, most=1).scores.tolist() == [0.9]
    assert thin_out(twice, 0.95).scores.tolist() == [0.9, 0.4, 0.1]


def test_the_rest_of_a_lesion_beyond_its_end_is_no_second_lesion():
    """Its last slice shows so little of it that the boxes do not overlap enough to be linked."""
    large, small, beside = [0, 0, 20, 20], [8, 8, 12, 12], [30, 30, 40, 40]
    slices = [on_slice(1, (large, 0.9)), on_slice(2, (large, 0.8)), on_slice(3, (small, 0.6), (beside, 0.3))]

    assert len(link(slices, SETTINGS)) == 3
    assert numbers(tracklets_of(slices, SETTINGS)) == [[(1, 0.9), (2, 0.8)], [(3, 0.3)]]
    assert len(tracklets_of(slices, replace(SETTINGS, same_share=1.1))) == 3


def test_a_large_unsure_box_around_a_small_sure_one_stays():
    small, large = [8, 8, 12, 12], [0, 0, 20, 20]
    slices = [on_slice(1, (small, 0.9), (large, 0.4))]

    inner, outer = link(slices, SETTINGS)
    assert share_within(outer, inner, SETTINGS) == pytest.approx(16 / 400)
    assert share_within(inner, outer, SETTINGS) == 1.0
    assert len(drop_repeated([inner, outer], SETTINGS)) == 2


def test_single_boxes_are_never_linked():
    box = [10, 10, 20, 20]
    slices = [on_slice(1, (box, 0.5), (box, 0.4)), on_slice(2, (box, 0.6))]

    assert numbers(single_boxes(thin_out(one, 0.5) for one in slices)) == [[(2, 0.6)], [(1, 0.5)]]


def test_the_key_is_the_surest_box_and_the_first_of_equals():
    (one,) = link([on_slice(at, ([0, 0, 9, 9], score)) for at, score in ((1, 0.5), (2, 0.7), (3, 0.7))], SETTINGS)
    assert (one.key.slice_index, one.key.score) == (2, 0.7)


def test_boxes_without_an_area_and_slices_without_boxes_do_no_harm():
    assert overlap(np.zeros((1, 4)), np.zeros((1, 4))).tolist() == [[0.0]]
    assert find_tracklets([], SETTINGS) == []
    point = [5, 5, 5, 5]
    found = find_tracklets([on_slice(1), on_slice(2, (point, 0.5)), on_slice(3, (point, 0.4))], SETTINGS)
    assert numbers(found) == [[(2, 0.5)], [(3, 0.4)]]
