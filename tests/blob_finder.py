"""A detector without a network: bright blobs on the middle image of a stack. Everything around it runs for real."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import ndimage

from etl.detect_slices import DetectorInput
from etl.detect_tasks import DetectorModel
from lesionary.stack_schema import Found, StackSettings

THRESHOLD_HU = 200
PADDING_PX = 2.0
# Series of the tests have pixels of this size, so that a stack's pixel is a slice's pixel.
PIXEL_MM = 0.8


@dataclass
class BlobFinder:
    """Boxes around what is brighter than `THRESHOLD_HU`, padded; a score of a thousandth of its mean HU."""

    padding_px: float = PADDING_PX
    categories: int = 1
    diary: str | None = None
    """A file that gets a line with the number of stacks for every call."""

    def __call__(self, stacks):
        assert stacks.dtype == np.int16
        assert stacks.ndim == 4
        if self.diary:
            with Path(self.diary).open("a") as lines:
                lines.write(f"{len(stacks)}\n")
        return [self._look(stack[len(stack) // 2]) for stack in stacks]

    def _look(self, image):
        parts, count = ndimage.label(image > THRESHOLD_HU)
        rows = []
        for number, (down, across) in enumerate(ndimage.find_objects(parts), 1):
            mean = float(image[parts == number].mean())
            box = np.array([across.start + 0.5, down.start + 0.5, across.stop - 0.5, down.stop - 0.5])
            padded = box + np.array([-1, -1, 1, 1]) * self.padding_px
            rows.append((min(mean / 1000, 1.0), padded, int(mean) % self.categories))
        rows.sort(key=lambda row: (-row[0], *row[1]))
        return Found(
            np.array([row[1] for row in rows], np.float32).reshape(count, 4),
            np.array([row[0] for row in rows], np.float32),
            np.array([row[2] for row in rows], np.int64),
        )


def blob_detector(model_id="detector-1", slices=1, categories=None, diary=None, batch_slices=4):
    """The finder as a model of the lake."""
    shown = DetectorInput(model_id, StackSettings(PIXEL_MM, slices), PADDING_PX, batch_slices)
    maker = partial(BlobFinder, PADDING_PX, categories or 1, None if diary is None else str(diary))
    return DetectorModel(shown, maker, None if categories is None else "categories-1")
