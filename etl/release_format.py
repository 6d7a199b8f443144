"""How the DeepLesion release writes its two kinds of files; for whoever writes one."""

import csv
import io
from collections.abc import Iterable, Sequence

import imagecodecs
import numpy as np
from numpy.typing import NDArray

# What the release adds to HU so that they fit unsigned pixels.
HU_OFFSET = 32768

# Level 6 takes three times as long and saves nothing on noisy slices.
DEFAULT_PNG_LEVEL = 4


def png_of_slice(hu: NDArray[np.int16], level: int = DEFAULT_PNG_LEVEL) -> bytes:
    """The slice file of a picture in HU; the same picture at the same level gives the same bytes."""
    stored = (hu.astype(np.int32) + HU_OFFSET).astype(np.uint16)
    return bytes(imagecodecs.png_encode(stored, level=level))


def csv_text(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A CSV file's text; only cells with a comma are quoted."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return sink.getvalue()
