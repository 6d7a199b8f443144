"""Stacks out of their cache, in batches: decoded when they are taken, cropped, turned, and padded to one size.

Images stay HU in int16 until the network windows them, so that little travels. A batch's size follows from the whole
global batch, not from a worker's share: padding is seen by the normalisation, and the workers' number must change
nothing.

May import: lesionary, numpy, torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lesionary.caches import open_cache
from lesionary.errors import ArtifactError
from lesionary.patch_schema import WINDOW_HU
from lesionary.pixels import decode_slice
from lesionary.stack_schema import STACKS
from trainers.detector.presets import DetectorSettings

# Maps are halved so often: sides of batches are multiples of it.
SIDE_MULTIPLE = 32

AIR_HU = int(WINDOW_HU[0])


@dataclass(frozen=True, slots=True)
class Marks:
    """What is marked on one stack."""

    boxes: NDArray[np.float32]
    """(n, 4), without padding."""
    axes: NDArray[np.float32]
    """(n, 8): ends of the long, then of the short diameter; NaN where there is none."""
    categories: NDArray[np.int64]
    """(n,); -1 = a lesion that nothing can be learnt from, nor from its surroundings."""


@dataclass(frozen=True, slots=True)
class StackBatch:
    """Stacks of one size, with what is marked on each."""

    images: Tensor
    """(n, slices, height, width) int16 HU, air beyond each stack's own size."""
    sizes: Tensor
    """(n, 2) rows and columns that are the stack's own."""
    boxes: list[Tensor]
    """Each (k, 4) float32, padded."""
    categories: list[Tensor]
    """Each (k,); -1 = to be ignored."""
    axes: list[Tensor]
    """Each (k, 8)."""
    seeds: Tensor
    """(n,) int64: of each stack's random choices, whichever worker makes them."""


class StackSource:
    """The stacks of a cache."""

    def __init__(self, table: pa.Table) -> None:
        """Describe a cache's table; its pixels stay where they are.

        Raises:
            ArtifactError: the table is not one of stacks.
        """
        if not table.schema.equals(STACKS):
            raise ArtifactError(
                "no cache of stacks: it has other columns", next_step="make it again with `lesionary train detector`"
            )
        self._pixels = table["pixels"]
        self.splits: NDArray[np.object_] = table["split"].to_numpy()
        self.patient_ids: NDArray[np.object_] = table["patient_id"].to_numpy()
        self.series_ids: NDArray[np.object_] = table["series_id"].to_numpy()
        self.slice_indices: NDArray[np.int64] = table["slice_index"].to_numpy().astype(np.int64)
        self.sides: NDArray[np.int64] = np.stack([table["rows"].to_numpy(), table["columns"].to_numpy()], axis=1)
        self.scales: NDArray[np.float64] = np.stack([table["scale_x"].to_numpy(), table["scale_y"].to_numpy()], axis=1)
        """(n, 2): stack pixels in a pixel of the slice, along x and y."""
        self.lesion_ids: list[list[str]] = table["lesion_ids"].to_pylist()
        self.types: list[list[str | None]] = table["types"].to_pylist()
        self.long_mm: list[list[float]] = table["long_mm"].to_pylist()
        self.short_mm: list[list[float]] = table["short_mm"].to_pylist()
        self.noisy: list[list[bool]] = table["noisy"].to_pylist()
        self._boxes = _by_row(table["boxes"], 4)
        self._axes = _by_row(table["axes"], 8)

    @classmethod
    def open(cls, url: str, local_copy: Path | None = None) -> Self:
        """The stacks of a cache, by its URL; `local_copy` as in `open_cache`."""
        return cls(open_cache(url, local_copy))

    def __len__(self) -> int:
        return len(self.splits)

    def marks(self, row: int, categories: dict[str, int] | None) -> Marks:
        """What is marked on a stack; a lesion that `categories` does not know, or its source doubts, is ignored."""
        numbers = [
            -1 if noisy else 0 if categories is None else categories.get(lesion, -1)
            for lesion, noisy in zip(self.lesion_ids[row], self.noisy[row], strict=True)
        ]
        return Marks(self._boxes[row], self._axes[row], np.array(numbers, np.int64))

    def padded_boxes(self, row: int, padding_px: float) -> NDArray[np.float32]:
        """The boxes of a stack's marks, larger on every side by so many pixels of its slice."""
        padding = padding_px * self.scales[row]
        padded: NDArray[np.float32] = (self._boxes[row] + np.concatenate([-padding, padding])).astype(np.float32)
        return padded

    def pixels(self, row: int, slices: int) -> NDArray[np.int16]:
        """The middle `slices` images of a stack.

        Raises:
            ArtifactError: the cache has fewer.
        """
        encoded = self._pixels[row].values
        spare = len(encoded) - slices
        if spare < 0 or spare % 2:
            raise ArtifactError(
                f"stacks of {len(encoded)} slices cannot show {slices}", next_step="make them with that many"
            )
        images = [decode_slice(encoded[at].as_buffer()) for at in range(spare // 2, spare // 2 + slices)]
        return np.stack(images)


@dataclass(frozen=True, slots=True)
class _View:
    """How one stack is shown: a change of size, a part of what comes of it, perhaps mirrored."""

    scale: float
    top: int
    left: int
    rows: int
    columns: int
    mirrored: bool
    stretch: float
    seed: int


def training_batch(
    source: StackSource,
    rows: Sequence[int],
    settings: DetectorSettings,
    categories: dict[str, int] | None,
    rng: np.random.Generator,
    share: slice,
) -> StackBatch:
    """A worker's share of a global batch, augmented.

    Args:
        source: of the stacks.
        rows: of the global batch.
        settings: how stacks are shown.
        categories: lesion to category; None = one class.
        rng: what is drawn from for the whole global batch, in the order of `rows`.
        share: positions of `rows` that are this worker's.
    """
    views = [_draw_view(source, row, settings, rng) for row in rows]
    height, width = _common_size([(view.rows, view.columns) for view in views])
    shown = [
        _show(source, row, view, settings, categories) for row, view in zip(rows[share], views[share], strict=True)
    ]
    return _joined(shown, [view.seed for view in views[share]], height, width)


def plain_batch(
    source: StackSource, rows: Sequence[int], settings: DetectorSettings, categories: dict[str, int] | None = None
) -> StackBatch:
    """Whole stacks as they are."""
    views = [_whole_view(*(int(side) for side in source.sides[row])) for row in rows]
    height, width = _common_size([(view.rows, view.columns) for view in views])
    shown = [_show(source, row, view, settings, categories) for row, view in zip(rows, views, strict=True)]
    return _joined(shown, [0] * len(rows), height, width)


def padded_images(images: NDArray[np.int16]) -> Tensor:
    """Stacks of one size with air around them, so that their sides are what the network wants."""
    height, width = _common_size([images.shape[-2:]])
    whole = torch.full((*images.shape[:2], height, width), AIR_HU, dtype=torch.int16)
    whole[..., : images.shape[2], : images.shape[3]] = torch.from_numpy(images)
    return whole


def _draw_view(source: StackSource, row: int, settings: DetectorSettings, rng: np.random.Generator) -> _View:
    """What is drawn for a stack: always as many numbers, so that the next stack's do not depend on this one."""
    size, mirror, stretch, centred, across, down = rng.random(6)
    chosen, seed = (int(number) for number in rng.integers(2**31, size=2))
    scale = float(np.exp((2 * size - 1) * np.log1p(settings.scale_change)))
    whole = np.maximum(1, np.rint(source.sides[row] * scale).astype(int))
    shown = np.minimum(whole, settings.crop_px) if settings.crop_px else whole
    room = whole - shown
    boxes = source.marks(row, None).boxes * scale
    if len(boxes) and centred < settings.lesion_crops:
        box = boxes[chosen % len(boxes)]
        # Anywhere, as long as the lesion is seen as a whole where that is possible.
        low = np.clip(np.array([box[3], box[2]]) - shown + 1, 0, room)
        high = np.clip(np.array([box[1], box[0]]), 0, room)
        start = np.minimum(low, high) + np.array([down, across]) * np.abs(high - low)
    else:
        start = np.array([down, across]) * room
    top, left = np.clip(np.rint(start).astype(int), 0, room)
    return _View(
        scale=scale,
        top=int(top),
        left=int(left),
        rows=int(shown[0]),
        columns=int(shown[1]),
        mirrored=bool(settings.flip and mirror < 0.5),
        stretch=1.0 + (2 * stretch - 1) * settings.grey_change,
        seed=seed,
    )


def _whole_view(rows: int, columns: int) -> _View:
    return _View(scale=1.0, top=0, left=0, rows=rows, columns=columns, mirrored=False, stretch=1.0, seed=0)


def _show(
    source: StackSource, row: int, view: _View, settings: DetectorSettings, categories: dict[str, int] | None
) -> tuple[Tensor, Marks]:
    """One stack as its view has it, and its marks, padded and without those that are not seen."""
    images = torch.from_numpy(source.pixels(row, settings.slices))
    if view.scale != 1.0:
        whole = [max(1, round(float(side) * view.scale)) for side in source.sides[row]]
        images = functional.interpolate(images.float()[None], whole, mode="bilinear", align_corners=False)[0]
    images = images[:, view.top : view.top + view.rows, view.left : view.left + view.columns]
    if view.stretch != 1.0:
        images = images.float() * view.stretch
    if images.dtype != torch.int16:
        images = images.round().clamp(-32768, 32767).to(torch.int16)
    marks = source.marks(row, categories)
    boxes = source.padded_boxes(row, settings.box_padding_px) * np.float32(view.scale)
    axes = marks.axes * np.float32(view.scale)
    corner = np.array([view.left, view.top], np.float32)
    boxes, axes = boxes - np.tile(corner, 2), axes - np.tile(corner, 4)
    if view.mirrored:
        images = images.flip(-1)
        boxes = np.stack([view.columns - boxes[:, 2], boxes[:, 1], view.columns - boxes[:, 0], boxes[:, 3]], axis=1)
        axes = axes * np.tile(np.array([-1, 1], np.float32), 4) + np.tile(np.array([view.columns, 0], np.float32), 4)
    seen, doubtful = _seen(boxes, view)
    numbers = np.where(doubtful, -1, marks.categories)[seen]
    limits = np.array([view.columns, view.rows] * 2, np.float32)
    return images, Marks(np.clip(boxes, 0, limits)[seen], axes[seen], numbers)


def _seen(boxes: NDArray[np.float32], view: _View) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which boxes a view shows anything of, and of which it shows less than half: nobody could say what those are."""
    limits = np.array([view.columns, view.rows] * 2, np.float32)
    inside = np.clip(boxes, 0, limits)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = (inside[:, 2] - inside[:, 0]) * (inside[:, 3] - inside[:, 1])
    return left > 1.0, left < 0.5 * area


def _common_size(sizes: Sequence[Any]) -> tuple[int, int]:
    """Rows and columns that hold them all, as the network wants them."""
    height, width = np.max(np.array(sizes, np.int64), axis=0)
    return tuple(int(-(-side // SIDE_MULTIPLE) * SIDE_MULTIPLE) for side in (height, width))  # type: ignore[return-value]


def _joined(shown: Sequence[tuple[Tensor, Marks]], seeds: Sequence[int], height: int, width: int) -> StackBatch:
    slices = shown[0][0].shape[0] if shown else 1
    images = torch.full((len(shown), slices, height, width), AIR_HU, dtype=torch.int16)
    for at, (image, _) in enumerate(shown):
        images[at, :, : image.shape[1], : image.shape[2]] = image
    return StackBatch(
        images=images,
        sizes=torch.tensor([image.shape[1:] for image, _ in shown], dtype=torch.int64).reshape(-1, 2),
        boxes=[torch.from_numpy(np.ascontiguousarray(marks.boxes)) for _, marks in shown],
        categories=[torch.from_numpy(marks.categories) for _, marks in shown],
        axes=[torch.from_numpy(np.ascontiguousarray(marks.axes)) for _, marks in shown],
        seeds=torch.tensor(seeds, dtype=torch.int64),
    )


def _by_row(column: pa.ChunkedArray, width: int) -> list[NDArray[np.float32]]:
    """Lists of rows of numbers, as arrays."""
    return [np.array(rows, np.float32).reshape(-1, width) for rows in column.to_pylist()]
