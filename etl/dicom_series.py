"""CT series out of images: which images belong together, in what order, and what the geometry of each series is.

A Series Instance UID is not enough: exports put several scans, orientations and matrices under one. Images form a
series here when they share study, series, patient, frame of reference, matrix, spacing and orientation. Order and
spacing come from positions and orientation, never from instance numbers. What is irregular is said, in columns of its
own; no image is left out for it, and none is invented.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from etl.dicom_images import ImageHeader

# Directions of one scan differ by rounding in the fourth digit; another orientation by degrees.
_SAME_DIRECTION = 0.02
# Intervals of one scan differ by rounding: a hundredth of them, or what three decimals can hide.
_SAME_INTERVAL_MM, _SAME_INTERVAL_SHARE = 0.02, 0.01
_SAME_PLACE_MM = 0.01
# Half a slice more than the smallest interval: a slice is missing.
_GAP = 1.5
# A gantry tilts by 30 degrees at most; a coronal slice stands at 90.
_AXIAL_COSINE = math.cos(math.radians(45))
_TILT_NOISE_DEG = 0.05


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a series lies in space."""

    z_mm: tuple[float, ...]
    """Place of each image along the series' axis, from the first one."""
    interval_mm: float | None
    """The smallest distance between two places; the usual one when regular. None for a single place."""
    regular: bool | None
    has_gaps: bool | None
    doubled: bool
    single_position: bool
    axial: bool
    tilt_deg: float | None
    """Between the slices' normal and the way from slice to slice; None for a single place."""


@dataclass(frozen=True, slots=True)
class CtSeries:
    """Images that form one series, from head to foot, and their geometry."""

    key: str
    """Names the series within its study: UIDs as written, never to leave the ETL."""
    images: tuple[ImageHeader, ...]
    geometry: Geometry
    mixed_orientation: bool


class _SeriesKey(NamedTuple):
    patient: str
    study: str
    series: str
    frame_of_reference: str
    rows: int
    columns: int
    spacing: tuple[float, ...]


def group_series(images: Iterable[ImageHeader]) -> list[CtSeries]:
    """Images as series, ordered by their keys."""
    by_key: dict[_SeriesKey, list[ImageHeader]] = {}
    for image in images:
        by_key.setdefault(_series_key(image), []).append(image)
    orientations: dict[tuple[str, str], set[str]] = {}
    found: list[tuple[_SeriesKey, str, list[ImageHeader]]] = []
    for key, members in by_key.items():
        for group in _by_orientation(members):
            code = _orientation_code(group[0].orientation)
            orientations.setdefault((key.study, key.series), set()).add(code)
            found.append((key, code, group))
    series = [
        _series(key, code, group, mixed=len(orientations[key.study, key.series]) > 1) for key, code, group in found
    ]
    return sorted(series, key=lambda one: one.key)


def _series_key(image: ImageHeader) -> _SeriesKey:
    header, storage = image.series, image.storage
    return _SeriesKey(
        header.patient_key or "",
        header.study_uid,
        header.series_uid,
        header.frame_of_reference_uid or "",
        storage.rows,
        storage.columns,
        tuple(round(value, 4) for value in image.spacing_xy_mm or ()),
    )


def _by_orientation(images: Sequence[ImageHeader]) -> list[list[ImageHeader]]:
    """Images whose directions are the same, whatever rounding did to them."""
    groups: list[list[ImageHeader]] = []
    for image in sorted(images, key=lambda image: (image.sop_uid, image.frame_number or 0, image.member)):
        for group in groups:
            first = group[0].orientation
            if max(abs(a - b) for a, b in zip(image.orientation, first, strict=True)) <= _SAME_DIRECTION:
                group.append(image)
                break
        else:
            groups.append([image])
    return groups


def _orientation_code(orientation: Sequence[float]) -> str:
    """Directions in tenths: the same for every image of a group, and for the group when it grows."""
    return ",".join(f"{round(value * 10):d}" for value in orientation)


def _series(key: _SeriesKey, code: str, images: list[ImageHeader], *, mixed: bool) -> CtSeries:
    normal = _normal(images[0].orientation)
    # From head to foot, and for other orientations from back to front or left to right: one rule for all.
    along = np.array([-(normal @ np.asarray(image.position_mm)) for image in images])
    order = sorted(
        range(len(images)),
        key=lambda number: (round(float(along[number]), 4), images[number].sop_uid, images[number].frame_number or 0),
    )
    ordered = tuple(images[number] for number in order)
    geometry = _geometry(normal, np.array([image.position_mm for image in ordered]))
    named = "|".join((key.study, key.series, key.frame_of_reference, f"{key.rows}x{key.columns}", repr(key.spacing)))
    return CtSeries(f"{key.patient}|{named}|{code}", ordered, geometry, mixed)


def _normal(orientation: Sequence[float]) -> NDArray[np.float64]:
    """The slices' normal, pointing to the head (or, across the body's axis, to the back or the left)."""
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    normal = np.cross(row, column)
    normal = normal / np.linalg.norm(normal)
    leading = int(np.abs(normal).argmax())
    pointing: NDArray[np.float64] = normal if normal[leading] > 0 else -normal
    return pointing


def _geometry(normal: NDArray[np.float64], positions: NDArray[np.float64]) -> Geometry:
    axial = bool(abs(normal[2]) >= _AXIAL_COSINE)
    z_mm = (positions[0] - positions) @ normal
    steps = np.diff(z_mm)
    # Another place needs a step along the normal: beside it is the same slice of a scan that was moved sideways.
    real = steps[steps > _SAME_PLACE_MM]
    doubled = bool(real.size < steps.size and real.size > 0)
    places = tuple(float(round(value, 6)) for value in z_mm)
    if real.size == 0:
        single = len(positions) > 1
        return Geometry(places, None, False if single else None, None, single, single, axial, None)
    smallest, usual = float(real.min()), float(np.median(real))
    tolerance = max(_SAME_INTERVAL_MM, _SAME_INTERVAL_SHARE * usual)
    regular = bool(np.all(np.abs(real - usual) <= tolerance)) and not doubled
    return Geometry(
        z_mm=places,
        interval_mm=usual if regular else smallest,
        regular=regular,
        has_gaps=bool(np.any(real > _GAP * smallest)),
        doubled=doubled,
        single_position=False,
        axial=axial,
        tilt_deg=_tilt_deg(normal, positions),
    )


def _tilt_deg(normal: NDArray[np.float64], positions: NDArray[np.float64]) -> float:
    way = positions[-1] - positions[0]
    cosine = abs(float(way @ normal)) / float(np.linalg.norm(way))
    tilt = math.degrees(math.acos(min(1.0, cosine)))
    return tilt if tilt > _TILT_NOISE_DEG else 0.0
