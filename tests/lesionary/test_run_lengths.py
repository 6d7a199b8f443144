"""Masks survive their run lengths, and shared pixels are counted without unpacking whole slices."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lesionary.run_lengths import MaskRuns, decode_mask, decode_runs, encode_mask, overlap_px

masks = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda shape: arrays(bool, shape))


@settings(max_examples=200, deadline=None)
@given(masks)
def test_a_mask_comes_back_from_its_runs(mask):
    encoded = encode_mask(mask)

    if not mask.any():
        assert encoded is None
        return
    assert np.array_equal(decode_mask(encoded, mask.shape), mask)
    assert sum(encoded.runs) == encoded.rows * encoded.columns
    assert encoded.area_px == mask.sum()
    assert all(run > 0 for run in encoded.runs[1:])
    box = decode_runs(encoded.runs, encoded.rows, encoded.columns)
    assert box[0].any()
    assert box[-1].any()
    assert box[:, 0].any()
    assert box[:, -1].any()


@settings(max_examples=100, deadline=None)
@given(masks, masks, st.integers(-4, 4), st.integers(-4, 4))
def test_shared_pixels_are_those_of_the_unpacked_masks(one, other, left, top):
    first, second = encode_mask(one, 5, 5), encode_mask(other, 5 + left, 5 + top)
    if first is None or second is None:
        return

    assert overlap_px(first, second) == (decode_mask(first, (30, 30)) & decode_mask(second, (30, 30))).sum()


def test_the_first_run_is_outside():
    assert encode_mask(np.array([[True, False], [True, True]]), 3, 7) == MaskRuns(3, 7, 2, 2, (0, 1, 1, 2))


def test_what_lies_beyond_the_slice_is_cut():
    inside = encode_mask(np.ones((4, 4), bool), -2, 1)

    assert decode_mask(inside, (3, 5)).tolist() == [[False] * 5, [True, True, *[False] * 3], [True, True, *[False] * 3]]


def test_runs_that_do_not_fill_their_box_are_refused():
    with pytest.raises(ValueError, match="runs over 3 pixels in a box of 2 × 2"):
        decode_runs((1, 2), 2, 2)
