"""Patches out of their cache, in batches: mapped, never loaded as a whole, brought to size and to grey levels.

Rows of one side share a batch, so that nothing is padded. What is known of all patches (patients, types, places,
sizes) lies in arrays; pixels are touched only when a batch is taken.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from lesionary.anatomy import LESION_TYPES
from lesionary.caches import open_cache
from lesionary.errors import ArtifactError, UsageError
from lesionary.patch_schema import PATCHES, PIXEL_MM, SLICES_PER_PATCH
from lesionary.splits import split_of_patient
from trainers.augment import Augmentation, Draws, boxes_in_view, brighten, draw, image_side, look, view_of

UNKNOWN_TYPE = -1

_BYTES_PER_PIXEL = 2


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """Patches of one side."""

    rows: NDArray[np.int64]
    """Which patches: positions within the request."""
    images: torch.Tensor
    """(n, 3, side, side) float32 in 0…255."""
    boxes: torch.Tensor
    """(n, 4) float32: x0, y0, x1, y1 in pixels of the images, counted from their outer edge."""
    extents: torch.Tensor
    """(n, 4): the box and its context, cut at the image."""


@dataclass(frozen=True, slots=True)
class _Pixels:
    """Where the patches' pixels lie in the mapped files."""

    buffers: tuple[memoryview, ...]
    file: NDArray[np.int64]
    """Patch to buffer."""
    start: NDArray[np.int64]
    """Patch to byte."""


class PatchSource:
    """The patches of a cache, or some of them."""

    def __init__(self, table: pa.Table, threads: int = 1) -> None:
        """Describe a cache's table; its pixels stay where they are.

        Args:
            table: as `open_cache` gives it.
            threads: that make the images of one batch.

        Raises:
            ArtifactError: the table is not one of patches.
        """
        if not table.schema.equals(PATCHES):
            raise _refused("it has other columns than patches have")
        self.sides: NDArray[np.int64] = table["side"].to_numpy().astype(np.int64)
        self.lesion_ids: NDArray[np.object_] = table["lesion_id"].to_numpy()
        self.splits: NDArray[np.object_] = table["split"].fill_null("").to_numpy()
        """Empty where the source gives none."""
        self.patients: NDArray[np.int64] = _codes(table["patient_id"])
        """Numbers from 0 in order of first appearance."""
        self.patient_ids: NDArray[np.object_] = table["patient_id"].to_numpy()
        self.study_ids: NDArray[np.object_] = table["study_id"].to_numpy()
        self.types: NDArray[np.int64] = _type_numbers(table["lesion_type"])
        """Positions in `LESION_TYPES`, -1 where unknown."""
        self.location = _columns(table, ("x", "y", "z"))
        """(n, 3): place in the body, not a number where unknown."""
        self.size_mm = _columns(table, ("long_mm", "short_mm"))
        """(n, 2)."""
        self._boxes = _fours(table["box"])
        self._extents = _fours(table["extent"])
        self._pixels = _mapped(table["pixels"], self.sides)
        self._pool = ThreadPoolExecutor(threads, "patches") if threads > 1 else None

    @classmethod
    def open(cls, url: str, local_copy: Path | None = None, threads: int = 1) -> Self:
        """The patches of a cache, by its URL; `local_copy` as in `open_cache`."""
        return cls(open_cache(url, local_copy), threads)

    def __len__(self) -> int:
        return len(self.sides)

    def subset(self, rows: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> "PatchSource":
        """Some of the patches, by position or as a mask, in that order; nothing of their pixels is copied."""
        chosen = np.asarray(rows)
        chosen = np.flatnonzero(chosen) if chosen.dtype == bool else chosen.astype(np.int64)
        part = object.__new__(PatchSource)
        for name, value in vars(self).items():
            setattr(part, name, value[chosen] if isinstance(value, np.ndarray) else value)
        part._pixels = _Pixels(self._pixels.buffers, self._pixels.file[chosen], self._pixels.start[chosen])
        return part

    def splits_by_patient(self) -> NDArray[np.object_]:
        """Every patch's split: the source's own where it gives one, else by the patient."""
        pairs = zip(self.splits, self.patient_ids, strict=True)
        return np.array([split or split_of_patient(patient) for split, patient in pairs], object)

    def rows_outside_test(self) -> NDArray[np.int64]:
        """The patches that may teach something.

        Raises:
            UsageError: there is none.
        """
        rows = np.flatnonzero(self.splits_by_patient() != "test")
        if not len(rows):
            raise UsageError(
                "no patch is outside the test split", where="patches", next_step="ingest patients of other splits"
            )
        return rows

    def pixels(self, row: int) -> NDArray[np.int16]:
        """One patch's pixels in the mapped file: (3, side, side) int16 HU, not to be written to."""
        side = int(self.sides[row])
        buffer = self._pixels.buffers[self._pixels.file[row]]
        values = np.frombuffer(buffer, "<i2", SLICES_PER_PATCH * side * side, int(self._pixels.start[row]))
        return values.reshape(SLICES_PER_PATCH, side, side)

    def take(
        self,
        rows: Sequence[int] | NDArray[np.int64],
        scale_mm: float = PIXEL_MM,
        augment: Augmentation | None = None,
        rng: np.random.Generator | None = None,
        only: NDArray[np.int64] | None = None,
    ) -> list[PatchBatch]:
        """Some patches as batches, one for each side among them, small sides first.

        Args:
            rows: positions; one may stand several times.
            scale_mm: size of an image's pixel; larger ones average over areas.
            augment: how images may differ from their patches; None = not at all.
            rng: what is drawn from then; each row's draw follows from its position among `rows`.
            only: positions of `rows` that are wanted, a worker's share; the draws are made for all. Batches name
                positions among these.

        Raises:
            ValueError: a row is not one, a scale is none, or augmentation has no generator.
        """
        wanted = np.asarray(rows, np.int64)
        if wanted.ndim != 1 or (wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self)):
            raise ValueError(f"rows between 0 and {len(self) - 1} are needed")
        if not PIXEL_MM <= scale_mm <= 16 * PIXEL_MM:
            raise ValueError(f"a pixel of {scale_mm} mm")
        draws = draw(augment, len(wanted), rng)
        if only is not None:
            wanted, draws = wanted[only], draws.of(only)
        request = _Request(wanted, scale_mm, augment, draws)
        sides = self.sides[wanted]
        return [self._batch(request, int(side), np.flatnonzero(sides == side)) for side in np.unique(sides)]

    def _batch(self, request: "_Request", patch_side: int, positions: NDArray[np.int64]) -> PatchBatch:
        """The batch of some positions of a request, all of one side."""
        side = image_side(patch_side, request.scale_mm, request.augment)
        images = np.empty((len(positions), SLICES_PER_PATCH, side, side), np.float32)
        boxes, extents = np.empty((2, len(positions), 4), np.float32)

        def fill(number: int) -> None:
            position = int(positions[number])
            row = int(request.rows[position])
            view = view_of(patch_side, request.scale_mm, request.augment, request.draws, position, self._boxes[row])
            look(self.pixels(row), view, images[number])
            brighten(images[number], request.draws, position)
            boxes[number], extents[number] = boxes_in_view(np.stack([self._boxes[row], self._extents[row]]), view)

        for _ in (
            map(fill, range(len(positions))) if self._pool is None else self._pool.map(fill, range(len(positions)))
        ):
            pass
        return PatchBatch(positions, torch.from_numpy(images), torch.from_numpy(boxes), torch.from_numpy(extents))


def inference_batches(source: PatchSource, batch_size: int, scale_mm: float = PIXEL_MM) -> Iterator[PatchBatch]:
    """All patches of a source as they are, small sides first, `batch_size` at once or what a side has left.

    The batches' rows are positions in the source: each of these comes exactly once.
    """
    order = np.argsort(source.sides, kind="stable")
    ends = np.flatnonzero(np.diff(source.sides[order], append=-1)) + 1
    start = 0
    for end in ends.tolist():
        for first in range(start, end, batch_size):
            rows = order[first : min(first + batch_size, end)]
            (batch,) = source.take(rows, scale_mm)
            yield replace(batch, rows=rows)
        start = end


@dataclass(frozen=True, slots=True)
class _Request:
    """What `take` was asked for, and what was drawn for it."""

    rows: NDArray[np.int64]
    scale_mm: float
    augment: Augmentation | None
    draws: Draws


def _columns(table: pa.Table, names: Sequence[str]) -> NDArray[np.float32]:
    """Columns side by side, nulls as what is not a number."""
    found = [pc.fill_null(table[name], float("nan")).to_numpy() for name in names]
    return np.stack(found, axis=1).astype(np.float32)


def _codes(names: pa.ChunkedArray) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = pa.concat_arrays(names.chunks).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def _type_numbers(names: pa.ChunkedArray) -> NDArray[np.int64]:
    known = pa.array(LESION_TYPES, pa.string())
    found: NDArray[np.int64] = pc.fill_null(pc.index_in(names, value_set=known), UNKNOWN_TYPE).to_numpy()
    return found.astype(np.int64)


def _fours(boxes: pa.ChunkedArray) -> NDArray[np.float32]:
    flat: NDArray[np.float32] = pc.list_flatten(boxes).to_numpy()
    return flat.reshape(-1, 4)


def _mapped(pixels: pa.ChunkedArray, sides: NDArray[np.int64]) -> _Pixels:
    """Where each patch's bytes lie.

    Raises:
        ArtifactError: a patch is not as long as its side says.
    """
    buffers: list[memoryview] = []
    files, starts, lengths = [], [], []
    for chunk in pixels.chunks:
        _, offsets, data = chunk.buffers()
        ends = np.frombuffer(offsets, np.int64, len(chunk) + 1, chunk.offset * 8)
        files.append(np.full(len(chunk), len(buffers)))
        starts.append(ends[:-1])
        lengths.append(np.diff(ends))
        buffers.append(memoryview(data))
    length = np.concatenate([np.empty(0, np.int64), *lengths])
    if (length != SLICES_PER_PATCH * sides * sides * _BYTES_PER_PIXEL).any():
        raise _refused("a patch has more or fewer pixels than its side says")
    empty = np.empty(0, np.int64)
    return _Pixels(tuple(buffers), np.concatenate([empty, *files]), np.concatenate([empty, *starts]))


def _refused(what: str) -> ArtifactError:
    return ArtifactError(f"no cache of patches: {what}", next_step="make it again with `lesionary train`")
