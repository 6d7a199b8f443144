"""Marks and image planes: from patient coordinates to pixels, the nearest slice, and the axes of an outline.

Patient coordinates of a pixel's centre are `position + x · spacing_x · row direction + y · spacing_y · column
direction` with zero-based x and y (DICOM PS3.3 C.7.6.2.1.1). Pixels come out half-based, as DICOM's own drawings are.
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from etl.marks.model import Axis, Convention, Mark, Point, Shape, SpacePoint
from lesionary.recist import FIRST_CENTERS

_HALF = FIRST_CENTERS[Convention.HALF_BASED]

# An outline of more corners than this is thinned: nobody draws them, and pairs of corners are compared.
_MOST_CORNERS = 400


@dataclass(frozen=True, slots=True)
class ImagePlane:
    """One image as marks see it."""

    image_uid: str
    frame_number: int | None
    series_key: str
    position_mm: SpacePoint
    orientation: tuple[float, ...]
    """Direction of a row, then of a column."""
    spacing_xy_mm: tuple[float, float] | None
    rows: int
    columns: int
    frame_of_reference_uid: str | None

    def in_space(self, point: Point) -> SpacePoint:
        """Where a zero-based pixel lies in the patient; pixels count as millimetres where there is no spacing."""
        x_mm, y_mm = self.spacing_xy_mm or (1.0, 1.0)
        row, column = self.orientation[:3], self.orientation[3:]
        x, y, z = (
            at + point[0] * x_mm * along + point[1] * y_mm * down
            for at, along, down in zip(self.position_mm, row, column, strict=True)
        )
        return x, y, z

    def in_pixels(self, point: SpacePoint) -> Point:
        """The zero-based pixel under a point of the patient."""
        x_mm, y_mm = self.spacing_xy_mm or (1.0, 1.0)
        offset = [a - b for a, b in zip(point, self.position_mm, strict=True)]
        along = sum(a * b for a, b in zip(offset, self.orientation[:3], strict=True))
        down = sum(a * b for a, b in zip(offset, self.orientation[3:], strict=True))
        return along / x_mm, down / y_mm

    def distance_mm(self, point: SpacePoint) -> float:
        """Of a point from the plane."""
        normal = np.cross(self.orientation[:3], self.orientation[3:])
        return abs(float(np.dot(np.subtract(point, self.position_mm), normal)))


def nearest_plane(points: Sequence[SpacePoint], planes: Iterable[ImagePlane], limit_mm: float) -> ImagePlane | None:
    """The plane that all points are nearest to, within a limit; the first of equals by name."""
    middle = tuple(float(value) for value in np.mean(points, axis=0))
    center = (middle[0], middle[1], middle[2])
    near = [
        (round(plane.distance_mm(center), 6), plane.series_key, plane.image_uid, plane.frame_number or 0, plane)
        for plane in planes
    ]
    best = min(near, key=lambda one: one[:4], default=None)
    if best is None or any(best[4].distance_mm(point) > limit_mm for point in points):
        return None
    return best[4]


def placed_on(mark: Mark, plane: ImagePlane) -> Mark:
    """The mark in the plane's pixels, where it was in patient coordinates."""

    def pixel(point: SpacePoint) -> Point:
        x, y = plane.in_pixels(point)
        return x + _HALF, y + _HALF

    def axis(ends: tuple[SpacePoint, SpacePoint] | None) -> Axis | None:
        return None if ends is None else (pixel(ends[0]), pixel(ends[1]))

    if mark.long_axis_mm is not None:
        return replace(
            mark, long_axis=axis(mark.long_axis_mm), short_axis=axis(mark.short_axis_mm),
            convention=Convention.HALF_BASED,
        )  # fmt: skip
    if mark.outline_mm:
        return replace(mark, outline=tuple(map(pixel, mark.outline_mm)), convention=Convention.HALF_BASED)
    return mark


def with_axes_of_outline(mark: Mark, plane: ImagePlane) -> Mark:
    """The mark with the diameters of its outline: the longest, and the widest chord at a right angle to it."""
    long_axis, short_axis = axes_of_outline(mark.outline, plane.spacing_xy_mm or (1.0, 1.0))
    return replace(mark, shape=Shape.OUTLINE, long_axis=long_axis, short_axis=short_axis)


def axes_of_outline(outline: Sequence[Point], spacing_xy_mm: tuple[float, float]) -> tuple[Axis, Axis | None]:
    """The long and short axis of a closed outline, measured in millimetres, given in pixels.

    Args:
        outline: corners in order, at least two.
        spacing_xy_mm: of the pixels.

    Returns:
        The longest distance between two corners, and the widest chord across it; no short axis for an outline that
        encloses nothing.
    """
    thinning = -(-len(outline) // _MOST_CORNERS)
    corners = np.asarray(outline[::thinning], dtype=np.float64) * spacing_xy_mm
    squared = ((corners[:, None] - corners[None]) ** 2).sum(axis=2)
    first, second = np.unravel_index(int(squared.argmax()), squared.shape)
    start, end = corners[first], corners[second]
    length = math.dist(start, end)
    long_axis = _as_axis(start, end, spacing_xy_mm)
    if length == 0.0:
        return long_axis, None
    along = (end - start) / length
    chord = _widest_chord(corners, start, along)
    return long_axis, None if chord is None else _as_axis(*chord, spacing_xy_mm)


def _widest_chord(
    corners: NDArray[np.float64], start: NDArray[np.float64], along: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """The longest line across the long axis from border to border; widths change linearly between corners."""
    across = np.array([-along[1], along[0]])
    places, heights = (corners - start) @ along, (corners - start) @ across
    best, chord = 0.0, None
    for place in np.unique(places):
        crossings = [
            a_height + (b_height - a_height) * (place - a) / (b - a) if a != b else a_height
            for (a, a_height), (b, b_height) in itertools.pairwise(
                [*zip(places, heights, strict=True), (places[0], heights[0])]
            )
            if min(a, b) <= place <= max(a, b)
        ]
        width = max(crossings) - min(crossings)
        if width > best:
            foot = start + along * place
            best, chord = width, (foot + across * min(crossings), foot + across * max(crossings))
    return chord


def _as_axis(start: NDArray[np.float64], end: NDArray[np.float64], spacing_xy_mm: tuple[float, float]) -> Axis:
    (x1, y1), (x2, y2) = (np.asarray(point) / spacing_xy_mm for point in (start, end))
    return (float(x1), float(y1)), (float(x2), float(y2))
