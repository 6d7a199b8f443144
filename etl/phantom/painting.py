"""Drawing soft-edged shapes into an image and its label map.

Shapes are given in mm in the patient's own frame: x to the image's right, y to the back. An edge is about one pixel
wide whatever the pixel size, so nothing shows steps. The canvas's coordinate arrays carry the patient's own warp: what
is drawn as an ellipse appears as an organ.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from etl.phantom.tissues import Tissue

Image = NDArray[np.float32]
Harmonic = tuple[int, float, float]
"""Wave number around the outline, amplitude as part of the radius, phase."""

_AIR_HU = -1000.0
# Bounding boxes grow by this: the warp seldom moves a point further.
_WARP_MARGIN_MM = 24.0
_HARMONIC_MARGIN = 1.25
_FINEST_EDGE_MM = 0.6
# The displacement changes slowly: the third step moves less than a tenth of a pixel.
_WARP_STEPS = 3


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the pixels of a square image lie, in mm."""

    size: int
    spacing_mm: float
    x_mm: Image
    y_mm: Image


def make_grid(size: int, spacing_mm: float, center_xy_mm: tuple[float, float] = (0.0, 0.0)) -> Grid:
    """A grid around a centre."""
    offsets = spacing_mm * (np.arange(size) - (size - 1) / 2)
    x_mm, y_mm = (offsets + center for center in center_xy_mm)
    return Grid(size, spacing_mm, x_mm.astype(np.float32), y_mm.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An outline: half axes in mm, turned by `turn` radians, waved by harmonics, squared by a power above 2."""

    x: float
    y: float
    half_x: float
    half_y: float
    turn: float = 0.0
    harmonics: Sequence[Harmonic] = ()
    power: float = 2.0
    softness: float = 1.2
    """Width of the edge in pixels."""

    def shrunk(self, by_mm: float) -> "Ellipse":
        """The outline `by_mm` further inside."""
        return dataclasses.replace(self, half_x=self.half_x - by_mm, half_y=self.half_y - by_mm)


Window = tuple[slice, slice]


class Canvas:
    """An image in HU and its labels, painted back to front."""

    def __init__(
        self, grid: Grid, x_mm: Image, y_mm: Image, grain: Image, origin_xy_mm: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        self.grid = grid
        self._origin = origin_xy_mm
        self.x = x_mm
        self.y = y_mm
        self.grain = grain
        self.hu: Image = np.full((grid.size, grid.size), _AIR_HU, np.float32)
        self.labels = np.zeros((grid.size, grid.size), np.uint8)

    def window(self, x: float, y: float, radius: float) -> Window | None:
        """The rows and columns that a shape may touch; None when it lies outside the image."""
        grid = self.grid
        reach = radius + _WARP_MARGIN_MM
        columns = self._span(x + self._origin[0], reach, float(grid.x_mm[0]))
        rows = self._span(y + self._origin[1], reach, float(grid.y_mm[0]))
        return None if columns is None or rows is None else (rows, columns)

    def _span(self, center: float, reach: float, origin: float) -> slice | None:
        first = max(0, int((center - reach - origin) / self.grid.spacing_mm))
        last = min(self.grid.size, int((center + reach - origin) / self.grid.spacing_mm) + 2)
        return slice(first, last) if last > first else None

    def cover(self, shape: Ellipse) -> tuple[Window, Image] | None:
        """How much of each pixel a shape covers, within its window."""
        if min(shape.half_x, shape.half_y) <= 0.2:
            return None
        window = self.window(shape.x, shape.y, max(shape.half_x, shape.half_y) * _HARMONIC_MARGIN)
        if window is None:
            return None
        u = self.x[window] - np.float32(shape.x)
        v = self.y[window] - np.float32(shape.y)
        if shape.turn:
            cosine, sine = np.float32(np.cos(shape.turn)), np.float32(np.sin(shape.turn))
            u, v = cosine * u + sine * v, cosine * v - sine * u
        u, v = u * np.float32(1 / shape.half_x), v * np.float32(1 / shape.half_y)
        radius = power_norm(u, v, shape.power)
        if shape.harmonics:
            angle = np.arctan2(v, u)
            wave = np.float32(1)
            for number, amplitude, phase in shape.harmonics:
                wave = wave + np.float32(amplitude) * np.cos(np.float32(number) * angle + np.float32(phase))
            radius = radius / wave
        edge_mm = shape.softness * max(self.grid.spacing_mm, _FINEST_EDGE_MM)
        steepness = np.float32(np.sqrt(shape.half_x * shape.half_y) / edge_mm)
        return window, np.clip((np.float32(1) - radius) * steepness + np.float32(0.5), 0, 1)

    def paint(
        self, shape: Ellipse, hu: float, tissue: Tissue | None, *, texture: float = 0.0, clip: Image | None = None
    ) -> None:
        """Fill a shape; `texture` HU of grain on top, only where `clip` allows."""
        covered = self.cover(shape)
        if covered is not None:
            self.blend(covered[0], covered[1], hu, tissue, texture=texture, clip=clip)

    def blend(
        self,
        window: Window,
        mask: Image,
        hu: float,
        tissue: Tissue | None,
        *,
        texture: float = 0.0,
        clip: Image | None = None,
    ) -> None:
        """Mix a value in by a mask; pixels more than half covered take the label."""
        if clip is not None:
            mask = mask * clip[window]
        image = self.hu[window]
        target = np.float32(hu) + np.float32(texture) * self.grain[window] if texture else np.float32(hu)
        image += mask * (target - image)
        if tissue is not None:
            self.labels[window][mask > 0.5] = tissue

    def fill(self, mask: Image, hu: float, tissue: Tissue | None, *, texture: float = 0.0) -> None:
        """Mix a value in by a mask as large as the image."""
        self.blend((slice(None), slice(None)), mask, hu, tissue, texture=texture)

    def region(self, shapes: Sequence[Ellipse], clip: Image | None = None) -> Image:
        """The union of shapes as a mask as large as the image."""
        mask = np.zeros_like(self.hu)
        for shape in shapes:
            covered = self.cover(shape)
            if covered is not None:
                mask[covered[0]] = np.maximum(mask[covered[0]], covered[1])
        return mask if clip is None else mask * clip

    def discs(self, x: Image, y: Image, radius: Image, clip: Image | None = None) -> Image | None:
        """The union of many small discs as a mask as large as the image, without a loop over them.

        Discs near the image's edge are left out. Their centres follow the patient's place and warp, their outlines stay
        round: tubes are thin.
        """
        if len(x) == 0:
            return None
        grid = self.grid
        reach = int(np.ceil(radius.max() / grid.spacing_mm)) + 1
        x, y = self._in_scanner(x, y)
        columns = np.rint((x - grid.x_mm[0]) / grid.spacing_mm).astype(np.int64)
        rows = np.rint((y - grid.y_mm[0]) / grid.spacing_mm).astype(np.int64)
        low, high = reach, grid.size - reach
        inside = (columns >= low) & (columns < high) & (rows >= low) & (rows < high)
        if not inside.any():
            return None
        x, y, radius, columns, rows = x[inside], y[inside], radius[inside], columns[inside], rows[inside]
        steps = np.arange(-reach, reach + 1)
        dx = grid.x_mm[0] + (columns[:, None] + steps) * grid.spacing_mm - x[:, None]
        dy = grid.y_mm[0] + (rows[:, None] + steps) * grid.spacing_mm - y[:, None]
        distance = np.sqrt(dx[:, None, :] ** 2 + dy[:, :, None] ** 2)
        covered: Image = np.clip((radius[:, None, None] - distance) / grid.spacing_mm + 0.5, 0, 1).astype(np.float32)
        covered *= np.minimum(1, 2 * radius / grid.spacing_mm)[:, None, None]
        flat = np.zeros(grid.size * grid.size, np.float32)
        places = (rows[:, None, None] + steps[None, :, None]) * grid.size + columns[:, None, None] + steps
        np.maximum.at(flat, places.ravel(), covered.ravel())
        mask = flat.reshape(grid.size, grid.size)
        return mask if clip is None else mask * clip

    def _in_scanner(self, x: Image, y: Image) -> tuple[Image, Image]:
        """Where in the scanner points of the patient's own frame lie: found by walking against the displacement."""
        grid = self.grid
        px, py = x + np.float32(self._origin[0]), y + np.float32(self._origin[1])
        for _ in range(_WARP_STEPS):
            columns = np.clip(np.rint((px - grid.x_mm[0]) / grid.spacing_mm), 0, grid.size - 1).astype(np.int64)
            rows = np.clip(np.rint((py - grid.y_mm[0]) / grid.spacing_mm), 0, grid.size - 1).astype(np.int64)
            # Where the nearest pixel lies in the patient's frame, and how far the point is from there.
            px = grid.x_mm[columns] + x - self.x[rows, columns]
            py = grid.y_mm[rows] + y - self.y[rows, columns]
        return px, py

    def fill_discs(
        self, x: Image, y: Image, radius: Image, hu: float, tissue: Tissue | None, clip: Image | None = None
    ) -> None:
        """Fill the union of many discs."""
        mask = self.discs(x, y, radius, clip)
        if mask is not None:
            self.fill(mask, hu, tissue)


def power_norm(u: Image, v: Image, power: float) -> Image:
    """The distance whose unit circle is round for power 2 and squarer above."""
    if power == 2.0:
        return np.sqrt(u * u + v * v)
    exponent = np.float32(power)
    norm = (np.abs(u) ** exponent + np.abs(v) ** exponent) ** (np.float32(1) / exponent)
    return norm.astype(np.float32, copy=False)
