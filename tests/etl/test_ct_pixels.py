"""Damaged codestreams: what is noticed, codec by codec, and that nothing but a refusal comes out of a decoder."""

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest
from pacs_files import ct, picture
from pydicom.encaps import generate_frames

from etl.ct_pixels import to_hu
from etl.dicom_fields import read_encoding, read_fields
from etl.dicom_images import WANTED_TAGS, FilePlace, read_images
from etl.quality import Reason, RefusedError

# Of 150 damaged streams each: a flipped bit inside a run of literals or a code block can still mean something.
LEAST_REFUSED = {"rle": 55, "jpeg-lossless": 115, "jpeg-ls": 145, "jpeg-2000": 50, "htj2k": 110}


def stored(syntax):
    data = ct(hu=np.tile(picture(3, 64), (2, 2)), syntax=syntax, signed=False)
    encoding = read_encoding(data)
    fields, pixels = read_fields(encoding, WANTED_TAGS)
    (image,) = read_images(fields, encoding, pixels, FilePlace(0, "", len(data), 0))
    return next(generate_frames(data[image.pixel_start :], number_of_frames=1)), image.storage


def damaged(stream, seed):
    rng, copy = random.Random(seed), bytearray(stream)
    if seed % 3 == 0:
        copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
    elif seed % 3 == 1:
        del copy[rng.randrange(len(copy)) :]
    else:
        for _ in range(8):
            copy[rng.randrange(len(copy))] = rng.randrange(256)
    return bytes(copy)


@pytest.mark.parametrize("syntax", sorted(LEAST_REFUSED))
def test_damaged_streams_are_mostly_refused_and_never_anything_worse(syntax):
    stream, storage = stored(syntax)
    outcomes = Counter(outcome(damaged(stream, seed), storage) for seed in range(150))

    assert set(outcomes) <= {Reason.CODESTREAM_DAMAGED, (storage.rows, storage.columns)}
    assert outcomes[Reason.CODESTREAM_DAMAGED] >= LEAST_REFUSED[syntax]


def outcome(stream, storage):
    """The image's shape, or why there is none."""
    try:
        return to_hu(stream, storage)[0].shape
    except RefusedError as refusal:
        return refusal.reason


@pytest.mark.parametrize("syntax", sorted(set(LEAST_REFUSED) - {"rle"}))
def test_stream_cut_off_anywhere_is_refused(syntax):
    stream, storage = stored(syntax)

    for part in (0.2, 0.5, 0.8, 0.97):
        with pytest.raises(RefusedError):
            to_hu(stream[: int(len(stream) * part)], storage)


@pytest.mark.parametrize("syntax", sorted(LEAST_REFUSED))
def test_stream_of_another_size_is_refused(syntax):
    stream, storage = stored(syntax)

    with pytest.raises(RefusedError):
        to_hu(stream, dataclasses.replace(storage, rows=storage.rows + 16))
