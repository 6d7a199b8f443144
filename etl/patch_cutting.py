"""From a lesion's row to its patch: what is read for it, why it may have none, and many at once.

`etl/patch_geometry.py` knows where a patch lies; this module knows where the lake keeps what that takes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.patch_geometry import SPACINGS_MM, Frame, SlicePlaces, cut_frame, frame_around, slices_around
from lesionary.errors import UnknownLesionError
from lesionary.lake import Lake
from lesionary.patch_schema import CONTEXT_MM, SLICES_PER_PATCH
from lesionary.recist import FIRST_CENTERS, RELEASE_PADDING_PX
from lesionary.slices import SliceReader
from lesionary.table_shards import damaged_shard

LESION_COLUMNS = (
    "lesion_id", "patient_id", "study_id", "series_id", "slice_index", "box_xyxy_px", "coord_convention",
    "lesion_type", "split", "release_x", "release_y", "release_z", "body_x", "body_y", "long_mm", "short_mm",
)  # fmt: skip
_SERIES_COLUMNS = ("series_id", "spacing_x_mm", "spacing_y_mm", "spacing_z_mm")
_PLACE_COLUMNS = ("series_id", "slice_index", "z_mm", "rows", "columns")


class LeftOut(StrEnum):
    """Why a lesion has no patch."""

    KEY_SLICE_MISSING = "key_slice_missing"
    NO_PIXEL_SPACING = "no_pixel_spacing"
    ODD_PIXEL_SPACING = "odd_pixel_spacing"
    BOX_OUTSIDE_IMAGE = "box_outside_image"


@dataclass(frozen=True, slots=True)
class PatchSettings:
    """How much of a slice a patch shows."""

    box_padding_px: float = RELEASE_PADDING_PX
    """Source pixels around the box of the diameters' ends."""
    context_mm: float = CONTEXT_MM
    """Around the padded box."""


@dataclass(frozen=True, slots=True)
class Patch:
    """One lesion's patch; boxes count from its outer edge."""

    pixels: NDArray[np.int16]
    """(3, side, side) HU."""
    side: int
    box: tuple[float, float, float, float]
    extent: tuple[float, float, float, float]


def patch_of(
    reader: SliceReader, lesion: Mapping[str, Any], series: "Series", settings: PatchSettings
) -> Patch | LeftOut:
    """One lesion's patch, or why there is none.

    Args:
        reader: of the lake's slices.
        lesion: its row of table lesions.
        series: that it lies in.
        settings: how much a patch shows.
    """
    plan = plan_patch(lesion, series, settings)
    if isinstance(plan, LeftOut):
        return plan
    slices = [reader.read(series.series_id, index) for index in plan.slice_indices]
    pixels = cut_frame(slices, plan.weights, plan.frame, series.spacing_xy_mm)
    return Patch(pixels, plan.frame.side, plan.frame.box, plan.frame.extent)


def lesion_patch(lake: Lake, lesion_id: str, settings: PatchSettings | None = None) -> Patch | LeftOut:
    """The patch of a lesion of the lake, or why there is none.

    Raises:
        UnknownLesionError: the lake has no such lesion.
    """
    rows = lake.read("lesions", columns=LESION_COLUMNS, where=pc.field("lesion_id") == lesion_id).to_pylist()
    if not rows:
        raise UnknownLesionError("the lake has no such lesion", where=lesion_id)
    series = read_series(lake, [rows[0]["series_id"]])[rows[0]["series_id"]]
    with SliceReader(lake) as reader:
        return patch_of(reader, rows[0], series, settings or PatchSettings())


@dataclass(frozen=True, slots=True)
class Series:
    """What of a series decides its patches; spacings are not numbers where unknown."""

    series_id: str
    spacing_xy_mm: tuple[float, float]
    spacing_z_mm: float | None
    places: SlicePlaces


def read_series(lake: Lake, series_ids: Sequence[str], versions: Mapping[str, int] | None = None) -> dict[str, Series]:
    """Spacings and slices of some series; one that the lake does not describe has none of either."""
    described = {
        row["series_id"]: row for row in read_rows(lake, "series", series_ids, _SERIES_COLUMNS, versions).to_pylist()
    }
    slices = read_rows(lake, "slices", series_ids, _PLACE_COLUMNS, versions)
    slices = slices.sort_by([("series_id", "ascending"), ("slice_index", "ascending")])
    owners = slices["series_id"].to_pylist()
    numbers = {name: slices[name].to_numpy() for name in _PLACE_COLUMNS[1:]}
    bounds: dict[str, tuple[int, int]] = {}
    for position, owner in enumerate(owners):
        bounds[owner] = bounds.get(owner, (position, position))[0], position + 1
    found = {}
    for series_id in series_ids:
        row = described.get(series_id, {})
        start, end = bounds.get(series_id, (0, 0))
        spacing = tuple(math.nan if row.get(name) is None else float(row[name]) for name in _SERIES_COLUMNS[1:3])
        found[series_id] = Series(
            series_id,
            (spacing[0], spacing[1]),
            row.get("spacing_z_mm"),
            SlicePlaces(*(numbers[name][start:end] for name in _PLACE_COLUMNS[1:])),
        )
    return found


@dataclass(frozen=True, slots=True)
class PlannedPatch:
    """A patch that can be cut."""

    frame: Frame
    slice_indices: list[int]
    weights: NDArray[np.float64]


def plan_patch(lesion: Mapping[str, Any], series: Series, settings: PatchSettings) -> PlannedPatch | LeftOut:
    """What to cut for a lesion, or why nothing can be; no slice is read for it."""
    mixed = slices_around(series.places, lesion["slice_index"], series.spacing_z_mm)
    if mixed is None:
        return LeftOut.KEY_SLICE_MISSING
    if any(math.isnan(one) for one in series.spacing_xy_mm):
        return LeftOut.NO_PIXEL_SPACING
    if not all(SPACINGS_MM[0] <= one <= SPACINGS_MM[1] for one in series.spacing_xy_mm):
        return LeftOut.ODD_PIXEL_SPACING
    box_px = [value - FIRST_CENTERS[lesion["coord_convention"]] for value in lesion["box_xyxy_px"]]
    position = int(np.searchsorted(series.places.indices, lesion["slice_index"]))
    columns, rows = int(series.places.columns[position]), int(series.places.rows[position])
    # Not a number is nowhere: these comparisons then fail.
    if not (box_px[0] < columns and box_px[1] < rows and box_px[2] > -1 and box_px[3] > -1):
        return LeftOut.BOX_OUTSIDE_IMAGE
    frame = frame_around(
        box_px, series.spacing_xy_mm, padding_px=settings.box_padding_px, context_mm=settings.context_mm
    )
    return PlannedPatch(frame, *mixed)


def cut_all(
    reader: SliceReader, planned: Sequence[tuple[Mapping[str, Any], PlannedPatch]], series: Mapping[str, Series]
) -> pa.Array:
    """All patches behind one another, cut in the order of their slices: each of these is read once."""
    sizes = [SLICES_PER_PATCH * plan.frame.side**2 for _, plan in planned]
    ends = np.cumsum([0, *sizes])
    everything = np.empty(ends[-1], "<i2")
    held: dict[int, NDArray[np.int16]] = {}
    owner = ""
    for number in sorted(
        range(len(planned)), key=lambda one: (planned[one][0]["series_id"], planned[one][0]["slice_index"])
    ):
        row, plan = planned[number]
        if row["series_id"] != owner:
            owner, held = row["series_id"], {}
        # Later lesions lie on later slices: what lies before this one's is not needed again.
        held = {index: image for index, image in held.items() if index >= plan.slice_indices[0]}
        for index in plan.slice_indices:
            if index not in held:
                held[index] = reader.read(owner, index)
        images = [held[index] for index in plan.slice_indices]
        patch = cut_frame(images, plan.weights, plan.frame, series[owner].spacing_xy_mm)
        everything[ends[number] : ends[number + 1]] = patch.ravel()
    offsets = pa.py_buffer(ends.astype(np.int64) * everything.itemsize)
    return pa.Array.from_buffers(pa.large_binary(), len(planned), [None, offsets, pa.py_buffer(everything)])


def read_rows(
    lake: Lake, table: str, series_ids: Sequence[str], columns: Sequence[str], versions: Mapping[str, int] | None
) -> pa.Table:
    """Rows of some series, out of the shards that can hold them."""
    _, shards = lake.shards(table, None if versions is None else versions[table])
    low, high = min(series_ids), max(series_ids)
    paths = [shard.path for shard in shards if shard.low_unit <= high and shard.high_unit >= low]
    wanted = pc.field("series_id").isin(pa.array(series_ids, pa.string()))
    try:
        return lake.shard_dataset(table, paths).to_table(columns=list(columns), filter=wanted)
    except (pa.ArrowException, OSError) as cause:
        raise damaged_shard(lake.url, table, lake.first_damaged(table, paths, columns)) from cause
