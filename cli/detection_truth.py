"""What detections out of a lake are compared with: marked lesions of the series that detectors have looked at.

Boxes are zero-based here, as detections are, and padded. In 2-D an image is a key slice; else it is a sub-volume as
published around the key slice, or the whole series where none is published.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionary.anatomy import LESION_TYPES
from lesionary.errors import UsageError
from lesionary.json_text import parse_json
from lesionary.recist import FIRST_CENTERS, measure_points, padded_box
from lesionary.splits import split_of_patient
from trainers.detector.evaluation_data import UNKNOWN, Truth
from trainers.detector.protocols import Dimensions

if TYPE_CHECKING:
    from lesionary.lake import Lake

ImageKey = tuple[str, int, int]
"""Series, first and last slice; the key slice twice in 2-D."""

_WHOLE_SERIES = (-1, -1)


@dataclass(frozen=True, slots=True)
class UnmarkedLesion:
    """A lesion that nobody marked, and that somebody knows of all the same."""

    series_id: str
    slice_index: int
    points: tuple[float, ...]
    """Of its two diameters, one-based, as the release writes them."""
    lesion_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthRequest:
    """Which lesions count, and as what."""

    split: str
    dimensions: Dimensions
    padding_px: float
    wanted: AbstractSet[str] | None = None
    """Names of the lesions that `--where` leaves; others on their images are ignore regions."""
    unmarked: Sequence[UnmarkedLesion] = ()
    unmarked_are_regions: bool = True


@dataclass(frozen=True, slots=True)
class TruthCounts:
    """Where every lesion went."""

    lesions: int
    """Marked, in the split and, with `--where`, wanted."""
    elsewhere: int
    """Of these, in series that not every detector has looked at."""
    without_extent: int
    """Of these, without slices, where volumes are compared."""
    others_as_regions: int
    """Not wanted, on images of those that are."""
    unmarked: int
    """Lesions that nobody marked, on images that count."""
    unmarked_elsewhere: int


@dataclass(frozen=True, slots=True)
class LakeTruth:
    """Lesions of a lake, for the evaluator."""

    truth: Truth
    lesion_ids: Sequence[str | None]
    """Of the truth's lesions; None for those that nobody marked."""
    images: Mapping[ImageKey, int]
    counts: TruthCounts


_LESION_COLUMNS = (
    "lesion_id", "series_id", "patient_id", "slice_index", "coord_convention", "box_xyxy_px", "long_mm", "short_mm",
    "lesion_type", "possibly_noisy", "split", "range_first_slice", "range_last_slice",
)  # fmt: skip
_SERIES_COLUMNS = ("series_id", "patient_id", "spacing_x_mm", "spacing_y_mm", "spacing_z_mm")


def lake_truth(lake: "Lake", looked_at: AbstractSet[str], request: TruthRequest) -> LakeTruth:
    """Marked lesions of a split, in series that were looked at.

    Raises:
        UsageError: none is left.
    """
    series = {row["series_id"]: row for row in lake.read("series", columns=_SERIES_COLUMNS).to_pylist()}
    rows = _of_split(lake.read("lesions", columns=_LESION_COLUMNS).to_pylist(), request.split)
    wanted = [row for row in rows if request.wanted is None or row["lesion_id"] in request.wanted]
    there = [row for row in wanted if row["series_id"] in looked_at]
    extents = _extents(lake) if request.dimensions is Dimensions.VOLUME else None
    counted = [row for row in there if extents is None or row["lesion_id"] in extents]
    images = {key: at for at, key in enumerate(sorted({_key(row, request.dimensions) for row in counted}))}
    if not images:
        raise UsageError(
            f"no lesion of {request.split} patients is left: {len(wanted):,} are wanted, {len(there):,} of them in "
            f"series that every model has looked at, {len(counted):,} of these can be compared",
            where=lake.url,
            next_step="run `lesionary detect`, or ask for another --split",
        )
    known = {row["lesion_id"] for row in wanted}
    others = [row for row in rows if row["lesion_id"] not in known and _key(row, request.dimensions) in images]
    found = [_Lesion.marked(row, images[_key(row, request.dimensions)], extents) for row in counted]
    found += [_Lesion.marked(row, images[_key(row, request.dimensions)], None, ignore=True) for row in others]
    unmarked = _unmarked(request, images, series)
    counts = TruthCounts(
        lesions=len(wanted),
        elsewhere=len(wanted) - len(there),
        without_extent=len(there) - len(counted),
        others_as_regions=len(others),
        unmarked=len(unmarked),
        unmarked_elsewhere=len(request.unmarked) - len(unmarked),
    )
    return _as_truth([*found, *unmarked], images, series, request, counts)


def read_unmarked(file: Path, namespace: str) -> list[UnmarkedLesion]:
    """Lesions that a phantom's truth.json says nobody marked.

    Raises:
        UsageError: it is not a phantom's truth.
    """
    try:
        held = parse_json(file.read_bytes())["unmarked"]
        found = [
            UnmarkedLesion(
                f"{namespace}-{one['series']}", int(one["slice_index"]), tuple(map(float, one["points"])), one["type"]
            )
            for one in held
        ]
        for one in found:
            measure_points(np.array(one.points).reshape(4, 2), (1.0, 1.0))
    except (OSError, KeyError, TypeError, ValueError, OverflowError) as cause:
        raise UsageError(
            f"this is not the truth file of a phantom ({type(cause).__name__})",
            where="--full-truth",
            next_step="give its truth.json",
        ) from cause
    return found


@dataclass(frozen=True, slots=True)
class _Lesion:
    """One lesion or region on its way into arrays."""

    lesion_id: str | None
    image: int
    box: tuple[float, ...]
    """Zero-based, tight."""
    lesion_type: str | None
    long_mm: float
    short_mm: float
    noisy: bool
    ignore: bool
    key_slice: int
    slices: tuple[int, int]

    @classmethod
    def marked(
        cls, row: Mapping[str, Any], image: int, extents: Mapping[str, tuple[int, int]] | None, *, ignore: bool = False
    ) -> "_Lesion":
        first = FIRST_CENTERS[row["coord_convention"]]
        key = row["slice_index"]
        return cls(
            lesion_id=row["lesion_id"],
            image=image,
            box=tuple(value - first for value in row["box_xyxy_px"]),
            lesion_type=row["lesion_type"],
            long_mm=_or_nan(row["long_mm"]),
            short_mm=_or_nan(row["short_mm"]),
            noisy=row["possibly_noisy"],
            ignore=ignore,
            key_slice=key,
            slices=extents[row["lesion_id"]] if extents is not None else (key, key),
        )


def _of_split(rows: Sequence[Mapping[str, Any]], split: str) -> list[Mapping[str, Any]]:
    if split == "all":
        return list(rows)
    return [row for row in rows if (row["split"] or split_of_patient(row["patient_id"])) == split]


def _key(row: Mapping[str, Any], dimensions: Dimensions) -> ImageKey:
    if dimensions is Dimensions.SLICE:
        return row["series_id"], row["slice_index"], row["slice_index"]
    if row["range_first_slice"] is None or row["range_last_slice"] is None:
        return row["series_id"], *_WHOLE_SERIES
    return row["series_id"], row["range_first_slice"], row["range_last_slice"]


def _unmarked(
    request: TruthRequest, images: Mapping[ImageKey, int], series: Mapping[str, Mapping[str, Any]]
) -> list[_Lesion]:
    found = []
    places = ImagePlaces(images)
    for one in request.unmarked:
        image = places.image_of(one.series_id, one.slice_index)
        if image is None:
            continue
        held = series[one.series_id]
        spacing = _or_nan(held["spacing_x_mm"]), _or_nan(held["spacing_y_mm"])
        measured = measure_points(np.array(one.points).reshape(4, 2), spacing)
        found.append(
            _Lesion(
                lesion_id=None,
                image=image,
                box=tuple(value - FIRST_CENTERS["one_based"] for value in measured.box_xyxy_px),
                lesion_type=one.lesion_type,
                long_mm=measured.long_mm,
                short_mm=measured.short_mm,
                noisy=False,
                ignore=request.unmarked_are_regions,
                key_slice=one.slice_index,
                slices=(one.slice_index, one.slice_index),
            )
        )
    return found


class ImagePlaces:
    """Finds the image that a slice belongs to."""

    def __init__(self, images: Mapping[ImageKey, int]) -> None:
        self._by_series: dict[str, list[tuple[int, int, int]]] = {}
        for (series_id, first, last), image in images.items():
            self._by_series.setdefault(series_id, []).append((first, last, image))

    def image_of(self, series_id: str, slice_index: int) -> int | None:
        """The image's number; None where the slice belongs to none."""
        for first, last, image in self._by_series.get(series_id, ()):
            if (first, last) == _WHOLE_SERIES or first <= slice_index <= last:
                return image
        return None


def _as_truth(
    lesions: Sequence[_Lesion],
    images: Mapping[ImageKey, int],
    series: Mapping[str, Mapping[str, Any]],
    request: TruthRequest,
    counts: TruthCounts,
) -> LakeTruth:
    patients = [series[series_id]["patient_id"] for series_id, _, _ in images]
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    types = {name: number for number, name in enumerate(LESION_TYPES)}
    truth = Truth(
        patients=np.array([numbers[patient] for patient in patients]),
        images=np.array([one.image for one in lesions]),
        boxes=np.array([padded_box(one.box, request.padding_px) for one in lesions]),  # type: ignore[arg-type]
        types=np.array([types.get(one.lesion_type or "", UNKNOWN) for one in lesions]),
        long_mm=np.array([one.long_mm for one in lesions]),
        short_mm=np.array([one.short_mm for one in lesions]),
        noisy=np.array([one.noisy for one in lesions]),
        ignore=np.array([one.ignore for one in lesions]),
        intervals_mm=np.array([_or_nan(series[series_id]["spacing_z_mm"]) for series_id, _, _ in images]),
        key_slices=np.array([one.key_slice for one in lesions]),
        slices=np.array([one.slices for one in lesions]),
    )
    return LakeTruth(truth, [one.lesion_id for one in lesions], images, counts)


def _extents(lake: "Lake") -> dict[str, tuple[int, int]]:
    """First and last slice of each lesion, by the masks of the method that comes last by its name."""
    rows = (
        lake.read("masks", columns=["method", "lesion_id", "slice_index"]).to_pylist()
        if lake.has_table("masks")
        else []
    )
    newest = max((row["method"] for row in rows), default="")
    slices: dict[str, list[int]] = {}
    for row in rows:
        if row["method"] == newest:
            slices.setdefault(row["lesion_id"], []).append(row["slice_index"])
    if not slices:
        raise UsageError(
            "nobody knows which slices the lesions reach through",
            where=lake.url,
            next_step="run `lesionary measure` first, or score in 2d or p3d",
        )
    return {lesion: (min(held), max(held)) for lesion, held in slices.items()}


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
