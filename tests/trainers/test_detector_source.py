"""Stacks as a detector is shown them: marks move with their pixels, shares make up the batch, padding is air."""

import numpy as np
import pytest
import torch
from small_stacks import stack_rows, stack_table

from lesionary.errors import ArtifactError, UsageError
from trainers.detector.loop import DetectorLearner, lesion_categories, make_detector, padded_boxes, with_anchors
from trainers.detector.presets import PRESETS, DetectorSettings, settings_for
from trainers.detector.source import AIR_HU, StackSource, padded_images, plain_batch, training_batch
from trainers.fitting import Share

SETTINGS = DetectorSettings(
    pixel_mm=2.0, max_side_px=128, batch=4, steps=2, checkpoint_every=0, proposals=16, box_padding_px=0.0
)


@pytest.fixture
def source():
    return StackSource(stack_table(stack_rows()))


def bright_box(image, own):
    """The extent of what is bright on a stack's own part, as a box from edge to edge."""
    rows, columns = np.nonzero(image[: own[0], : own[1]].numpy() > 200)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("crop_px", [0, 64])
def test_boxes_and_diameters_move_with_the_pixels(source, crop_px):
    settings = settings_for("small", {"crop_px": crop_px, "box_padding_px": 0.0, "max_side_px": 128})
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(6):
        batch = training_batch(source, range(12), settings, None, rng, slice(None))
        for image, size, boxes, categories, axes in zip(
            batch.images, batch.sizes.tolist(), batch.boxes, batch.categories, batch.axes, strict=True
        ):
            whole = len(boxes) and bool(
                (boxes[0, :2] > 1).all() and (boxes[0, 2:] < torch.tensor(size[::-1]) - 1).all()
            )
            if not whole:
                continue
            seen += 1
            assert np.abs(np.array(bright_box(image[1], size)) - boxes[0].numpy()).max() <= 1.6
            ends = axes[0].reshape(4, 2)
            assert torch.allclose(ends.mean(dim=0), (boxes[0, :2] + boxes[0, 2:]) / 2, atol=1e-3)
            assert categories.tolist() == [0]
    assert seen > 40


def test_crops_hold_the_lesion_as_often_as_is_asked(source):
    always = settings_for("small", {"crop_px": 64, "lesion_crops": 1.0, "max_side_px": 128, "scale_change": 0.0})
    batch = training_batch(source, list(range(12)) * 4, always, None, np.random.default_rng(0), slice(None))

    assert batch.images.shape[-2:] == (64, 64)
    assert all(len(boxes) == 1 for boxes in batch.boxes)
    assert all((categories == 0).all() for categories in batch.categories)


def test_shares_of_two_workers_make_up_the_batch_of_one(source):
    learner = DetectorLearner(
        make_detector(with_anchors(SETTINGS, padded_boxes(source, np.arange(12), 0.0)), 1), source, np.arange(12), None
    )
    whole = learner.batch(3, Share())
    parts = [learner.batch(3, Share(rank, 2)) for rank in range(2)]

    for rank, part in enumerate(parts):
        assert torch.equal(part.images, whole.images[rank::2])
        assert torch.equal(part.seeds, whole.seeds[rank::2])
        assert all(torch.equal(mine, its) for mine, its in zip(part.boxes, whole.boxes[rank::2], strict=True))
    assert not torch.equal(whole.images, learner.batch(4, Share()).images)


def test_no_stack_comes_twice_before_all_have_come_once(source):
    learner = DetectorLearner(
        make_detector(with_anchors(SETTINGS, padded_boxes(source, np.arange(12), 0.0)), 1), source, np.arange(10), None
    )
    drawn = [row for step in range(5) for row in learner._drawn(step)]

    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert drawn[:10] != drawn[10:20]


def test_padding_is_air_and_plain_stacks_are_as_they_were(source):
    batch = plain_batch(source, [0, 1], SETTINGS)

    assert batch.images.shape == (2, 3, 96, 96)
    assert np.array_equal(batch.images[1, :, :96, :80].numpy(), source.pixels(1, 3))
    assert (batch.images[1, :, :, 80:] == AIR_HU).all()
    padded = padded_images(source.pixels(1, 3)[None])
    assert padded.shape == (1, 3, 96, 96)
    assert torch.equal(padded[0], batch.images[1])


def test_boxes_are_padded_in_pixels_of_the_slice(source):
    tight = plain_batch(source, [0], SETTINGS).boxes[0]
    padded = plain_batch(source, [0], settings_for("small", {"box_padding_px": 4.0})).boxes[0]

    assert torch.allclose(padded - tight, torch.tensor([[-2.0, -2.0, 2.0, 2.0]]), atol=1e-4)


def test_fewer_slices_are_the_middle_ones():
    rows = stack_rows(1, slices=9)
    wide = StackSource(stack_table(rows))

    assert np.array_equal(wide.pixels(0, 3), wide.pixels(0, 9)[3:6])
    assert np.array_equal(wide.pixels(0, 1), wide.pixels(0, 9)[4:5])
    with pytest.raises(ArtifactError, match="stacks of 9 slices cannot show 15"):
        wide.pixels(0, 15)


def test_doubtful_lesions_are_ignored_and_categories_are_those_given():
    rows = stack_rows(3)
    rows[0]["noisy"] = [True]
    source = StackSource(stack_table(rows))

    assert source.marks(0, None).categories.tolist() == [-1]
    assert source.marks(1, {"dl-1": 4}).categories.tolist() == [4]
    assert source.marks(2, {"dl-1": 4}).categories.tolist() == [-1]


def test_categories_by_type_and_by_categoriser(source):
    assert lesion_categories(source, "none", None) == (None, ["lesion"])
    by_type, names = lesion_categories(source, "types", None)
    assert by_type["dl-1"] == names.index("lung")
    assigned = {"names": ["a", "b"], "lesions": {"dl-0": 1}}
    assert lesion_categories(source, "categoriser-1", assigned) == ({"dl-0": 1}, ["a", "b"])
    with pytest.raises(UsageError, match="no lesion of the training split has a category"):
        lesion_categories(source, "categoriser-1", {"names": ["a", "b"], "lesions": {"dl-5": 1}})


def test_a_table_of_something_else_is_no_source(source):
    with pytest.raises(ArtifactError, match="no cache of stacks"):
        StackSource(stack_table([]).select(["rows"]))
    assert len(StackSource(stack_table([]))) == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"slices": 5}, "slices must be one of 1, 3, 9"),
        ({"backbone": "resnet"}, "there is no backbone"),
        ({"architecture": "yolo"}, "there is no architecture"),
        ({"architecture": "paper", "backbone": "convnext_tiny"}, "no pooling to leave out"),
        ({"windows_hu": [200, 100]}, "a lower and a higher HU"),
        ({"crop_px": 16}, "crop_px must be 0 or lie between 64 and"),
        ({"anchors_px": [-1]}, "must be positive"),
        ({"batch": 0}, "batch must lie between"),
        ({"pixel_mm": 0.01}, "pixel_mm must lie between"),
        ({"colour": 1}, "the detector has no setting colour"),
    ],
)
def test_settings_that_cannot_run_are_refused(changes, sentence):
    with pytest.raises(UsageError, match=sentence):
        settings_for("small", changes)


def test_every_preset_comes_back_from_its_record():
    for settings in PRESETS.values():
        assert DetectorSettings(**settings.record()) == settings
