"""The slice codec is lossless and notices damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lesionary.errors import ArtifactError
from lesionary.pixels import decode_slice, encode_slice, pixel_digest

images = hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40))


@given(images)
def test_round_trip_is_lossless(hu):
    decoded = decode_slice(encode_slice(hu))

    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, hu)


@pytest.mark.parametrize("shape", [(512, 512), (768, 768), (1, 4096), (300, 7)])
def test_extreme_values_and_shapes_survive(shape):
    hu = np.random.default_rng(1).choice(np.array([-32768, -1024, 0, 3071, 32767], np.int16), shape)

    np.testing.assert_array_equal(decode_slice(encode_slice(hu)), hu)


@pytest.mark.parametrize("value", [0, -1024, 32767])
@pytest.mark.parametrize("shape", [(1, 1), (2, 11), (500, 333), (512, 512)])
def test_image_of_one_value_survives(value, shape):
    hu = np.full(shape, value, np.int16)

    np.testing.assert_array_equal(decode_slice(encode_slice(hu)), hu)


def test_decoded_image_is_writable_and_owned():
    decoded = decode_slice(encode_slice(np.zeros((4, 4), np.int16)))
    decoded[0, 0] = 7

    assert decoded[0, 0] == 7


def test_non_contiguous_image_is_encoded_as_it_looks():
    hu = np.arange(64, dtype=np.int16).reshape(8, 8)[::2, ::-1]

    np.testing.assert_array_equal(decode_slice(encode_slice(hu)), hu)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4), np.uint16), np.zeros((4, 4), np.float32), np.zeros(4, np.int16), np.zeros((0, 4), np.int16)],
)
def test_what_is_no_slice_is_refused(wrong):
    with pytest.raises(ValueError, match="2-D int16"):
        encode_slice(wrong)


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.data())
def test_cut_off_bytes_are_refused(seed, data):
    encoded = encode_slice(np.random.default_rng(seed).integers(-1000, 1000, (16, 16)).astype(np.int16))
    kept = data.draw(st.integers(0, len(encoded) - 1))

    with pytest.raises(ArtifactError, match="damaged"):
        decode_slice(encoded[:kept])


@pytest.mark.parametrize("shape", [(32, 16), (8, 16), (16, 17)])
def test_header_that_states_another_size_is_refused(shape):
    encoded = encode_slice(np.arange(256, dtype=np.int16).reshape(16, 16))
    # As older releases wrote it, without a check.
    forged = b"LSN1" + np.array(shape, "<u4").tobytes() + encoded[16:]

    with pytest.raises(ArtifactError, match="different sizes"):
        decode_slice(forged)


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1))
def test_mutated_bytes_never_crash_and_never_pass_for_the_original(seed):
    rng = np.random.default_rng(seed)
    hu = rng.integers(-1000, 1000, (24, 24)).astype(np.int16)
    damaged = bytearray(encode_slice(hu))
    for position in rng.integers(0, len(damaged), 3):
        damaged[position] ^= int(rng.integers(1, 256))

    try:
        decoded = decode_slice(bytes(damaged))
    except ArtifactError:
        return
    assert decoded.shape == hu.shape or pixel_digest(decoded) != pixel_digest(hu)


def test_digest_tells_values_and_shapes_apart():
    flat = np.arange(16, dtype=np.int16)

    digests = {pixel_digest(flat.reshape(shape)) for shape in ((4, 4), (2, 8), (8, 2))}

    assert len(digests) == 3
    assert pixel_digest(flat.reshape(4, 4)) == pixel_digest(flat.astype(">i2").reshape(4, 4))


@settings(max_examples=300)
@given(st.integers(0, 7), st.integers(0, 2**32 - 1), st.booleans())
def test_no_single_flipped_bit_passes(seed, place, flat):
    hu = np.random.default_rng(seed).integers(-1000, 1000, (24, 24)).astype(np.int16)
    damaged = bytearray(encode_slice(np.full_like(hu, 7) if flat else hu))
    damaged[place // 8 % len(damaged)] ^= 1 << place % 8

    with pytest.raises(ArtifactError, match="damaged"):
        decode_slice(bytes(damaged))
