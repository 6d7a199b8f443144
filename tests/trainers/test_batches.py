"""Batches are the cache's patches, brought to size and grey levels as a slow reading of the same says."""

import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from lesionary.caches import CacheWriter
from lesionary.errors import ArtifactError, UsageError
from lesionary.lake import Lake
from lesionary.patch_schema import PATCHES
from trainers.augment import Augmentation, View, boxes_in_view, draw, image_side, view_of
from trainers.batches import PatchSource, inference_batches

torch.set_num_threads(1)
SIDES = (128, 160, 128, 192, 160, 128)
NOTHING = Augmentation(shift_mm=0, scale=0, gain=0, offset_hu=0, noise_hu=0)


def patch_hu(number):
    """A patch's pixels: random, beyond the window at both ends, smooth enough to be averaged."""
    side = SIDES[number]
    blocks = np.random.default_rng(number).integers(-1500, 3500, (3, side // 2, side // 2))
    return np.kron(blocks, np.ones((1, 2, 2))).astype("<i2")


def table(**changes):
    count = len(SIDES)
    columns = {
        "lesion_id": [f"l{n}" for n in range(count)],
        "patient_id": ["p1", "p2", "p1", "p3", "p2", "p1"],
        "study_id": ["s"] * count,
        "lesion_type": ["bone", None, "pelvis", "liver", "unheard_of", "lung"],
        "split": ["train", None, "test", "val", "train", "train"],
        "x": [0.1, None, 0.3, 0.4, 0.5, 0.6],
        "y": [0.2, 0.3, 0.4, 0.5, 0.6, 0.7],
        "z": [None, 0.1, 0.2, 0.3, 0.4, 0.5],
        "long_mm": [10.0, 20.0, 30.0, None, 50.0, 60.0],
        "short_mm": [5.0, None, 15.0, 20.0, 25.0, 30.0],
        "side": list(SIDES),
        "box": [[side / 2 - 10, side / 2 - 6, side / 2 + 10, side / 2 + 6] for side in SIDES],
        "extent": [[side / 2 - 60, side / 2 - 56, side / 2 + 60, side / 2 + 56] for side in SIDES],
        "pixels": [patch_hu(n).tobytes() for n in range(count)],
    } | changes
    return pa.Table.from_pydict(columns, schema=PATCHES)


@pytest.fixture
def source(tmp_path):
    """Six patches of three sides in two parts of a cache."""
    lake = Lake.create(str(tmp_path / "lake"))
    with CacheWriter(lake, "patches", {}, {}, PATCHES) as writer:
        writer.write(0, table().slice(0, 4).combine_chunks())
        writer.write(1, table().slice(4))
        url = writer.finish().url
    return PatchSource.open(url)


def grey(hu):
    return (np.clip(np.asarray(hu, float), -1024, 3071) + 1024) / 4095 * 255


def box_of(number):
    return np.array(table()["box"][number].as_py(), np.float32)


def by_row(batches):
    """Image, box and extent of each position of a request."""
    found = {}
    for batch in batches:
        for at, row in enumerate(batch.rows.tolist()):
            found[row] = (batch.images[at].numpy(), batch.boxes[at].numpy(), batch.extents[at].numpy())
    return [found[row] for row in range(len(found))]


# --- what is known of patches ---


def test_columns_are_arrays(source):
    assert len(source) == 6
    assert source.lesion_ids.tolist() == [f"l{n}" for n in range(6)]
    assert source.patients.tolist() == [0, 1, 0, 2, 1, 0]
    assert source.types.tolist() == [0, -1, 7, 3, -1, 4]
    assert source.splits.tolist() == ["train", "", "test", "val", "train", "train"]
    assert source.sides.tolist() == list(SIDES)
    np.testing.assert_allclose(source.location[:2], [[0.1, 0.2, math.nan], [math.nan, 0.3, 0.1]], atol=1e-6)
    np.testing.assert_array_equal(source.size_mm[:4], [[10, 5], [20, math.nan], [30, 15], [math.nan, 20]])


def test_pixels_stay_in_the_mapped_file(source):
    allocated = pa.total_allocated_bytes()
    for number in range(6):
        view = source.pixels(number)
        assert not view.flags.owndata
        assert not view.flags.writeable
        assert (view == patch_hu(number)).all()
    assert pa.total_allocated_bytes() == allocated


def test_a_subset_shows_the_same_patches(source):
    part = source.subset([4, 0, 3])

    assert part.lesion_ids.tolist() == ["l4", "l0", "l3"]
    assert part.patients.tolist() == [1, 0, 2]
    assert all((part.pixels(at) == patch_hu(row)).all() for at, row in enumerate((4, 0, 3)))
    assert part.subset([2]).lesion_ids.tolist() == ["l3"]
    assert source.subset(source.types >= 0).lesion_ids.tolist() == ["l0", "l2", "l3", "l5"]
    assert len(source.subset([])) == 0
    assert source.subset([]).take([]) == []


@pytest.mark.parametrize("pixels", [b"", b"x" * (3 * 128 * 128 * 2 + 1)])
def test_patches_of_another_length_than_their_side_says_are_refused(pixels):
    with pytest.raises(ArtifactError, match="more or fewer pixels"):
        PatchSource(table(pixels=[pixels] + [patch_hu(n).tobytes() for n in range(1, 6)]))


def test_other_tables_are_refused():
    with pytest.raises(ArtifactError, match="other columns"):
        PatchSource(pa.table({"lesion_id": ["x"]}))


# --- batches as they are ---


def test_a_batch_for_each_side(source):
    batches = source.take([3, 0, 1, 5, 0])

    assert [batch.rows.tolist() for batch in batches] == [[1, 3, 4], [2], [0]]
    assert [tuple(batch.images.shape) for batch in batches] == [(3, 3, 128, 128), (1, 3, 160, 160), (1, 3, 192, 192)]
    assert {one.dtype for batch in batches for one in (batch.images, batch.boxes, batch.extents)} == {torch.float32}
    for batch in batches:
        for at, row in enumerate(batch.rows.tolist()):
            np.testing.assert_allclose(batch.images[at], grey(patch_hu([3, 0, 1, 5, 0][row])), atol=1e-3)
    np.testing.assert_array_equal(batches[1].boxes, [[70, 74, 90, 86]])
    np.testing.assert_array_equal(batches[1].extents, [[20, 24, 140, 136]])


def test_images_are_writable_copies(source):
    (batch,) = source.take([0])
    batch.images.zero_()

    assert (source.pixels(0) == patch_hu(0)).all()


def test_two_millimetres_are_means_of_two_by_two_clipped_pixels(source):
    ((image, box, extent),) = by_row(source.take([1], scale_mm=2))

    exact = grey(patch_hu(1)).reshape(3, 80, 2, 80, 2).mean((2, 4))
    np.testing.assert_allclose(image, exact, atol=1e-3)
    np.testing.assert_array_equal(box, [35, 37, 45, 43])
    np.testing.assert_array_equal(extent, [10, 12, 70, 68])


def slow_area(patch, left, top, step, side):
    """Every pixel of the image the slow way; beyond the patch its edge goes on."""

    def weights(start, end, length):
        found = np.zeros(length)
        if end - start >= 1 - 1e-12:
            for pixel in range(math.floor(start), math.ceil(end)):
                found[min(max(pixel, 0), length - 1)] += max(0.0, min(pixel + 1, end) - max(pixel, start))
            return found / (end - start)
        middle = (start + end) / 2 - 0.5
        for pixel in (math.floor(middle), math.floor(middle) + 1):
            found[min(max(pixel, 0), length - 1)] += 1 - abs(pixel - middle)
        return found

    length = patch.shape[1]
    down = [weights(top + row * step, top + (row + 1) * step, length) for row in range(side)]
    across = [weights(left + column * step, left + (column + 1) * step, length) for column in range(side)]
    return np.array(down) @ patch @ np.array(across).T


def test_a_scale_between_pixels_averages_over_areas(source):
    for row, image in zip((0, 1, 3), by_row(source.take([0, 1, 3], scale_mm=1.7)), strict=True):
        side = SIDES[row]
        image_px = int(side / 1.7) // 2 * 2
        margin = (side - image_px * 1.7) / 2
        exact = slow_area(grey(patch_hu(row)), margin, margin, 1.7, image_px)
        np.testing.assert_allclose(image[0], exact, atol=1e-2)
        np.testing.assert_allclose(image[1], ((np.array([-10, -6, 10, 6]) + side / 2) - margin) / 1.7, rtol=1e-6)


def test_what_cannot_be_taken_is_said(source):
    for rows in ([6], [-1], [[0]]):
        with pytest.raises(ValueError, match="rows between"):
            source.take(rows)
    for scale in (0.0, 0.5, math.nan, 17.0):
        with pytest.raises(ValueError, match="a pixel of"):
            source.take([0], scale)
    with pytest.raises(ValueError, match="generator"):
        source.take([0], augment=NOTHING)


def test_inference_takes_every_patch_once_small_sides_first(source):
    batches = list(inference_batches(source, 2))

    assert [batch.rows.tolist() for batch in batches] == [[0, 2], [5], [1, 4], [3]]
    for batch in batches:
        for at, row in enumerate(batch.rows.tolist()):
            np.testing.assert_allclose(batch.images[at], grey(patch_hu(row)), atol=1e-3)
    assert list(inference_batches(source.subset([]), 2)) == []


# --- augmentation ---


def test_nothing_allowed_changes_nothing(source):
    for plain, augmented in zip(
        by_row(source.take(range(6))),
        by_row(source.take(range(6), augment=NOTHING, rng=np.random.default_rng(0))),
        strict=True,
    ):
        for one, other in zip(plain, augmented, strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_same_generator_gives_the_same_batch_whatever_stands_beside(source):
    def taken(rows, seed, threads=1):
        with_threads = PatchSource(table(), threads)
        return by_row(with_threads.take(rows, 1.5, Augmentation(flip=True), np.random.default_rng(seed)))

    first = taken([0, 1, 3, 0], 7)
    for again in (taken([0, 1, 3, 0], 7), taken([0, 1, 3, 0], 7, threads=3)):
        for one, other in zip(first, again, strict=True):
            for left, right in zip(one, other, strict=True):
                np.testing.assert_array_equal(left, right)
    # The last row's draw stays its own when the others' sides are different ones.
    np.testing.assert_array_equal(taken([3, 3, 1, 0], 7)[3][0], first[3][0])
    assert not np.array_equal(first[0][0], first[3][0])
    assert not np.array_equal(taken([0, 1, 3, 0], 8)[0][0], first[0][0])


@pytest.mark.parametrize("scale_mm", [1.0, 1.5, 2.0])
@pytest.mark.parametrize(
    "settings", [Augmentation(flip=True), Augmentation(scale=0), Augmentation(scale=0.4, shift_mm=30)]
)
def test_views_are_what_a_slow_reading_sees(source, settings, scale_mm):
    quiet = replace(settings, gain=0, offset_hu=0, noise_hu=0)
    rows = [0, 3, 1, 1, 3, 0]
    draws = draw(quiet, len(rows), np.random.default_rng(5))
    seen = by_row(source.take(rows, scale_mm, quiet, np.random.default_rng(5)))

    for at, row in enumerate(rows):
        view = view_of(SIDES[row], scale_mm, quiet, draws, at, box_of(row))
        exact = slow_area(grey(patch_hu(row)), view.left, view.top, view.step, view.side)
        np.testing.assert_allclose(seen[at][0], exact[:, :, ::-1] if view.mirrored else exact, atol=1e-2)


@pytest.mark.parametrize("scale_mm", [1.0, 2.0])
def test_boxes_follow_what_they_stand_around(scale_mm):
    # A bright square on dark ground is found again in the image: its box must be where its pixels are.
    hu = np.full((3, 160, 160), -1024, "<i2")
    hu[:, 74:86, 70:90] = 3071
    pixels = [hu.tobytes() if n == 1 else patch_hu(n).tobytes() for n in range(6)]
    source = PatchSource(table(pixels=pixels))
    settings = Augmentation(shift_mm=20, scale=0.3, gain=0, offset_hu=0, noise_hu=0, flip=True)

    seen = by_row(source.take([1] * 20, scale_mm, settings, np.random.default_rng(3)))

    for image, box, _ in seen:
        share = image[1] / 255
        middle = np.arange(image.shape[1]) + 0.5
        x, y = (share.sum(0) @ middle) / share.sum(), (share.sum(1) @ middle) / share.sum()
        assert (x, y) == pytest.approx(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), abs=0.15)
        assert share.sum() == pytest.approx((box[2] - box[0]) * (box[3] - box[1]), rel=0.02)
    assert len({tuple(box) for _, box, _ in seen}) == 20


def test_boxes_are_cut_at_the_image():
    view = View(left=30, top=-10, step=2.0, side=50, mirrored=False)
    boxes = np.array([[0, 0, 160, 160], [40, 20, 60, 50]], np.float32)

    assert boxes_in_view(boxes, view).tolist() == [[0, 5, 50, 50], [5, 15, 15, 30]]
    assert boxes_in_view(boxes, replace(view, mirrored=True)).tolist() == [[0, 5, 50, 50], [35, 15, 45, 30]]


def test_views_move_within_what_is_allowed():
    settings = Augmentation(shift_mm=10, scale=0.25, flip=True)
    draws = draw(settings, 2000, np.random.default_rng(0))

    assert image_side(160, 1.0, settings) == 140
    assert image_side(160, 2.0, settings) == 70
    assert (draws.shift_px.min(), draws.shift_px.max()) == (-10, 10)
    assert (draws.shift_px == np.rint(draws.shift_px)).all()
    assert 0.8 <= draws.zoom.min() < 0.82
    assert 1.23 < draws.zoom.max() <= 1.25
    assert 0.45 < draws.mirrored.mean() < 0.55
    assert not draw(replace(settings, flip=False), 2000, np.random.default_rng(0)).mirrored.any()
    # Without scaling, a shifted view never leaves its patch.
    unscaled = replace(settings, scale=0)
    draws = draw(unscaled, 200, np.random.default_rng(0))
    views = [view_of(128, 1.0, unscaled, draws, row, box_of(0)) for row in range(200)]
    assert min(min(view.left, view.top) for view in views) == 0
    assert max(max(view.left, view.top) + view.side for view in views) == 128
    assert all(view.plain for view in views)


def test_a_view_moves_no_farther_than_its_box_stays_in_it():
    settings = Augmentation(shift_mm=30, scale=0.5)
    draws = draw(settings, 500, np.random.default_rng(1))
    box = np.array([50, 40, 78, 88], np.float32)

    for row in range(500):
        view = view_of(128, 1.0, settings, draws, row, box)
        seen = boxes_in_view(box[None], view)[0]
        assert seen[2] - seen[0] == pytest.approx(28 / view.step, abs=1e-4)
        assert seen[3] - seen[1] == pytest.approx(min(48 / view.step, view.side), abs=1e-4)


def test_grey_values_change_as_drawn(source):
    settings = Augmentation(shift_mm=0, scale=0, gain=0.2, offset_hu=200, noise_hu=0)
    draws = draw(settings, 4, np.random.default_rng(2))
    seen = by_row(source.take([0, 1, 2, 3], 1.0, settings, np.random.default_rng(2)))

    for row, (image, _, _) in enumerate(seen):
        exact = np.clip(grey(patch_hu(row)) * draws.gain[row] + draws.offset[row], 0, 255)
        np.testing.assert_allclose(image, exact, atol=1e-2)
    assert np.abs(draws.gain - 1).max() <= 0.2
    assert np.abs(draws.offset).max() <= 200 / 4095 * 255


def test_noise_has_the_drawn_width_and_differs_between_rows():
    flat = PatchSource(table(pixels=[np.full((3, side, side), 1000, "<i2").tobytes() for side in SIDES]))
    settings = replace(NOTHING, noise_hu=400)
    draws = draw(settings, 6, np.random.default_rng(4))
    seen = [image - grey(1000) for image, _, _ in by_row(flat.take([0] * 6, 1.0, settings, np.random.default_rng(4)))]

    for row, image in enumerate(seen):
        assert image.std() == pytest.approx(draws.noise[row], rel=0.02)
        assert abs(image.mean()) < 0.05 * draws.noise[row]
    assert abs(np.corrcoef(seen[0].ravel(), seen[1].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    "changes", [{"shift_mm": -1}, {"shift_mm": 33}, {"scale": 0.6}, {"gain": math.nan}, {"noise_hu": math.inf}]
)
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises(UsageError, match=next(iter(changes))):
        Augmentation(**changes)
