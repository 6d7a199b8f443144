"""A lesion's masks as a picture: one tile a slice with the outline, on the key slice also both diameters."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cli.figures.lesion_images import DEFAULT_WINDOW_HU
from cli.figures.palette import OKABE_ITO
from cli.figures.patches import cut_patch, field_of_view_mm
from cli.figures.sheet import Sheet
from cli.figures.tiles import draw_patch, size_text
from lesionary.artifacts import atomic_file
from lesionary.calipers import boundary_edges
from lesionary.errors import UnknownLesionError, UsageError
from lesionary.run_lengths import decode_runs
from lesionary.slices import SliceReader

if TYPE_CHECKING:
    from lesionary.lake import Lake

_TILE_PX, _TEXT_PX, _GAP_PX, _COLUMNS, _MOST_TILES = 320, 17, 6, 4, 12
_OUTLINE_COLOUR = OKABE_ITO["bluish_green"]


@dataclass(frozen=True, slots=True)
class MaskedSlice:
    """One slice with its mask; coordinates are zero-based pixel centres."""

    slice_index: int
    hu: NDArray[np.int16]
    left_px: int
    top_px: int
    inside: NDArray[np.bool_]
    """Of the mask's box."""
    axes_px: NDArray[np.float64]
    """(4, 2) on the key slice, (0, 2) on others."""


def write_mask_picture(lake: "Lake", lesion_id: str, file: Path) -> None:
    """The picture of a lesion, or detection, that has masks.

    Raises:
        UnknownLesionError: nothing of this name has been measured.
        UsageError: it has no mask.
    """
    import pyarrow.compute as pc

    named = pc.field("lesion_id") == lesion_id
    rows = lake.read("masked_lesions", where=named).to_pylist()
    if not rows:
        raise UnknownLesionError(
            "no lesion of this name has been measured", where=lesion_id, next_step="run `lesionary measure` first"
        )
    row = max(rows, key=lambda one: str(one["method"]))
    if row["left_out"] is not None:
        raise UsageError(f"it has no mask: {row['left_out']}", where=lesion_id)
    masks = lake.read("masks", where=named & (pc.field("method") == row["method"])).sort_by("slice_index").to_pylist()
    series = lake.read("series", where=pc.field("series_id") == row["series_id"]).to_pylist()
    spacing = series[0]["spacing_x_mm"], series[0]["spacing_y_mm"]
    marked = lake.read("lesions", columns=["window_low_hu", "window_high_hu"], where=named).to_pylist()
    with SliceReader(lake) as reader:
        slices = [_masked_slice(reader, row, mask) for mask in masks]
    window = _window(marked, slices)
    picture = draw_masks(slices, spacing if all(spacing) else (1.0, 1.0), window, _caption(row))
    with atomic_file(file) as sink:
        picture.save(sink, format="PNG")


def draw_masks(
    slices: list[MaskedSlice], spacing_xy_mm: tuple[float, float], window_hu: tuple[float, float], caption: str
) -> Image.Image:
    """Tiles of all slices, or of a dozen evenly chosen ones and the key slice among them, under a caption."""
    shown = _chosen(slices)
    box = (
        min(one.left_px for one in slices) - 0.5,
        min(one.top_px for one in slices) - 0.5,
        max(one.left_px + one.inside.shape[1] for one in slices) - 0.5,
        max(one.top_px + one.inside.shape[0] for one in slices) - 0.5,
    )
    columns = min(_COLUMNS, len(shown))
    rows = -(-len(shown) // columns)
    step = _TILE_PX + _GAP_PX
    head = round(_TEXT_PX * 1.8)
    sheet = Sheet(max(columns * step - _GAP_PX, 2 * _TILE_PX), head + rows * (step + head))
    sheet.write(caption, (4, 4), _TEXT_PX)
    field_mm = field_of_view_mm(box, spacing_xy_mm)
    for number, one in enumerate(shown):
        corner = number % columns * step, head + number // columns * (step + head)
        sheet.paste(_tile(one, box, spacing_xy_mm, window_hu, field_mm), corner)
        words = f"slice {one.slice_index}{', measured' if len(one.axes_px) else ''}"
        sheet.write(words, (corner[0] + 4, corner[1] + _TILE_PX + 4), _TEXT_PX)
    return sheet.image


def _tile(
    one: MaskedSlice,
    box: tuple[float, float, float, float],
    spacing_xy_mm: tuple[float, float],
    window_hu: tuple[float, float],
    field_mm: float,
) -> Image.Image:
    edges = boundary_edges(one.inside) + np.array([one.left_px, one.top_px])
    points = np.concatenate([one.axes_px, edges.reshape(-1, 2)])
    patch = cut_patch(one.hu, box, points, spacing_xy_mm, window_hu, field_mm=field_mm)
    tile = Sheet(_TILE_PX, _TILE_PX)
    tile.paste(draw_patch(replace(patch, points_xy_px=patch.points_xy_px[: len(one.axes_px)]), _TILE_PX), (0, 0))
    scale = _TILE_PX / patch.grey.shape[0]
    outline = (patch.points_xy_px[len(one.axes_px) :] + 0.5) * scale - 0.5
    for x1, y1, x2, y2 in outline.reshape(-1, 4).tolist():
        tile.line([(x1, y1), (x2, y2)], _OUTLINE_COLOUR, 2.0)
    return tile.image


def _chosen(slices: list[MaskedSlice]) -> list[MaskedSlice]:
    if len(slices) <= _MOST_TILES:
        return slices
    key = next((at for at, one in enumerate(slices) if len(one.axes_px)), 0)
    evenly = {round(at) for at in np.linspace(0, len(slices) - 1, _MOST_TILES - 1)}
    return [slices[at] for at in sorted(evenly | {key})]


def _masked_slice(reader: SliceReader, row: Mapping[str, Any], mask: Mapping[str, Any]) -> MaskedSlice:
    index = mask["slice_index"]
    axes = [*row["long_axis_px"], *row["short_axis_px"]] if index == row["slice_index"] else []
    return MaskedSlice(
        index,
        reader.read(row["series_id"], index),
        mask["left_px"],
        mask["top_px"],
        decode_runs(mask["runs"], mask["rows"], mask["columns"]),
        np.array(axes, np.float64).reshape(-1, 2),
    )


def _window(marked: list[dict[str, Any]], slices: list[MaskedSlice]) -> tuple[float, float]:
    """The reader's own; without one, lung's where the lesion lies in air."""
    low, high = (marked[0][name] if marked else None for name in ("window_low_hu", "window_high_hu"))
    if low is not None and high is not None and low < high:
        return float(low), float(high)
    around = [
        one.hu[
            max(one.top_px - 3, 0) : one.top_px + one.inside.shape[0] + 3,
            max(one.left_px - 3, 0) : one.left_px + one.inside.shape[1] + 3,
        ]
        for one in slices
    ]
    in_air = np.median(np.concatenate([part.ravel() for part in around])) < -300
    return (-1500.0, 500.0) if in_air else DEFAULT_WINDOW_HU


def _caption(row: Mapping[str, Any]) -> str:
    volume = f"{row['volume_mm3'] / 1000:.2f} ml" if row["volume_mm3"] is not None else "volume unknown"
    short = " at least" if row["cut_short"] and row["volume_mm3"] is not None else ""
    size = size_text(row["long_mm"], row["short_mm"])
    return f"{row['lesion_id']}  {size},{short} {volume}, by {row['method']}"
