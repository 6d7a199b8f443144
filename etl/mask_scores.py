"""How near masks come to a phantom's true ones: Dice on the key slice and in space, diameters, volumes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from etl.mask_making import METHOD
from lesionary import __version__
from lesionary.calipers import measure_calipers
from lesionary.detection_tables import MASKED_LESIONS, MASKS
from lesionary.errors import UsageError
from lesionary.json_text import parse_json
from lesionary.lake import Lake
from lesionary.run_lengths import MaskRuns, decode_runs, overlap_px

# True long diameters below the first, and from the second on, are the small and the large lesions.
SIZE_BORDERS_MM = (10.0, 30.0)
SIZES = ("under 10 mm", "10 to 30 mm", "30 mm and more")


@dataclass(frozen=True, slots=True)
class TrueLesion:
    """A marked lesion of a phantom: one row of its release."""

    row_number: int
    lesion_type: str
    spacing_mm: float
    slices: Mapping[int, MaskRuns]
    interval_mm: float

    def slices_around(self, key: int) -> dict[int, MaskRuns]:
        """Those that follow each other through the key slice: another sub-volume is another place."""
        first = last = key
        while first - 1 in self.slices:
            first -= 1
        while last + 1 in self.slices:
            last += 1
        return {index: self.slices[index] for index in range(first, last + 1)}


@dataclass(frozen=True, slots=True)
class LesionScore:
    """One lesion's masks against the true ones; errors are measured minus true."""

    lesion_id: str
    lesion_type: str
    true_long_mm: float
    true_short_mm: float
    masked: bool
    dice_2d: float
    dice_3d: float
    long_error_mm: float | None
    """None without a mask or a pixel spacing; so are the others."""
    short_error_mm: float | None
    volume_error: float | None
    """As a share of the true volume on the slices there are."""

    @property
    def size(self) -> str:
        """Its stratum."""
        return SIZES[int(np.searchsorted(SIZE_BORDERS_MM, self.true_long_mm, side="right"))]


@dataclass(frozen=True, slots=True)
class MaskScores:
    """Of some lesions; errors are absolute ones, of those that have masks."""

    lesions: int
    masked: int
    dice_2d_mean: float
    dice_2d_median: float
    dice_3d_mean: float
    dice_3d_median: float
    long_error_mm_median: float | None
    long_error_mm_p95: float | None
    short_error_mm_median: float | None
    short_error_mm_p95: float | None
    volume_error_median: float | None
    volume_error_p95: float | None


@dataclass(frozen=True, slots=True)
class MaskReport:
    """What is said of the masks of marked lesions."""

    method: str
    scores: MaskScores
    by_type: Mapping[str, MaskScores]
    by_size: Mapping[str, MaskScores]
    not_scored: Mapping[str, int]
    """Measured lesions by the reason why the truth says nothing of them."""
    lake_versions: Mapping[str, int]
    lesionary: str


NOISY, UNKNOWN = "possibly noisy", "not in the truth"


def read_true_lesions(truth: Path) -> dict[int, TrueLesion]:
    """Row number to lesion, out of a phantom's `truth_masks.json`.

    Raises:
        UsageError: it is none.
    """
    try:
        found = {
            row: TrueLesion(
                row,
                entry["type"],
                float(entry["spacing_mm"]),
                {one[0]: MaskRuns(one[2], one[3], one[4], one[5], tuple(one[6])) for one in entry["slices"]},
                float(entry["slices"][0][1]),
            )
            for entry in parse_json(truth.read_bytes())["lesions"]
            for row in entry["rows"]
        }
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError) as cause:
        raise UsageError(
            f"these are no true masks ({type(cause).__name__})",
            where="--truth",
            next_step="give the truth_masks.json of a phantom's release",
        ) from cause
    return found


def score_lesions(
    lake: Lake, truth: Mapping[int, TrueLesion], namespace: str
) -> tuple[list[LesionScore], dict[str, int]]:
    """Scores of all measured lesions that the truth knows, and how many others there are, by reason.

    Raises:
        UsageError: there is none.
    """
    ours = pc.field("method") == METHOD
    columns = ["lesion_id", "slice_index", "left_out", "long_mm", "short_mm", "volume_mm3"]
    measured = lake.read(MASKED_LESIONS.name, columns=columns, where=ours & (pc.field("marked_by") == "reader"))
    noisy = _noisy(lake)
    masks = _masks(lake)
    scores: list[LesionScore] = []
    left_out = {NOISY: 0, UNKNOWN: 0}
    for row in measured.sort_by("lesion_id").to_pylist():
        name, _, number = row["lesion_id"].rpartition("-")
        known = truth.get(int(number)) if name == namespace and number.isdecimal() else None
        if known is None or row["slice_index"] not in known.slices:
            left_out[UNKNOWN] += 1
        elif row["lesion_id"] in noisy:
            left_out[NOISY] += 1
        else:
            scores.append(_score(row, masks.get(row["lesion_id"], {}), known))
    if not scores:
        raise UsageError(
            "the truth knows none of the lesions that were measured",
            where="--truth",
            next_step="give the truth_masks.json of the release that was ingested, and its --namespace; "
            "run `lesionary measure` before",
        )
    return scores, {reason: count for reason, count in left_out.items() if count}


def mask_report(lake: Lake, scores: Sequence[LesionScore], not_scored: Mapping[str, int]) -> MaskReport:
    """All that is said of these scores."""
    types = sorted({one.lesion_type for one in scores})
    sizes = [size for size in SIZES if any(one.size == size for one in scores)]
    return MaskReport(
        method=METHOD,
        scores=summarise(scores),
        by_type={name: summarise([one for one in scores if one.lesion_type == name]) for name in types},
        by_size={name: summarise([one for one in scores if one.size == name]) for name in sizes},
        not_scored=not_scored,
        lake_versions={name: lake.shards(name)[0] for name in ("lesions", "slices", MASKS.name, MASKED_LESIONS.name)},
        lesionary=__version__,
    )


def summarise(scores: Sequence[LesionScore]) -> MaskScores:
    """Means, medians and 95th percentiles of at least one lesion's scores."""
    flat, solid = ([getattr(one, name) for one in scores] for name in ("dice_2d", "dice_3d"))
    figures: dict[str, float | None] = {}
    for name in ("long_error_mm", "short_error_mm", "volume_error"):
        errors = [abs(value) for one in scores if (value := getattr(one, name)) is not None]
        figures[f"{name}_median"] = float(np.median(errors)) if errors else None
        figures[f"{name}_p95"] = float(np.quantile(errors, 0.95)) if errors else None
    return MaskScores(
        lesions=len(scores),
        masked=sum(one.masked for one in scores),
        dice_2d_mean=float(np.mean(flat)),
        dice_2d_median=float(np.median(flat)),
        dice_3d_mean=float(np.mean(solid)),
        dice_3d_median=float(np.median(solid)),
        **figures,
    )


def _score(row: Mapping[str, Any], masks: Mapping[int, MaskRuns], known: TrueLesion) -> LesionScore:
    key = row["slice_index"]
    true_masks = known.slices_around(key)
    spacing = (known.spacing_mm, known.spacing_mm)
    mask = true_masks[key]
    true = measure_calipers(decode_runs(mask.runs, mask.rows, mask.columns), spacing)
    if true is None:
        raise ValueError("a true mask has pixels")
    volume = sum(one.area_px for one in true_masks.values()) * known.spacing_mm**2 * known.interval_mm
    return LesionScore(
        lesion_id=row["lesion_id"],
        lesion_type=known.lesion_type,
        true_long_mm=true.long_mm,
        true_short_mm=true.short_mm,
        masked=row["left_out"] is None,
        dice_2d=dice({key: masks[key]} if key in masks else {}, {key: mask}),
        dice_3d=dice(masks, true_masks),
        long_error_mm=None if row["long_mm"] is None else row["long_mm"] - true.long_mm,
        short_error_mm=None if row["short_mm"] is None else row["short_mm"] - true.short_mm,
        volume_error=None if row["volume_mm3"] is None else row["volume_mm3"] / volume - 1,
    )


def dice(one: Mapping[int, MaskRuns], other: Mapping[int, MaskRuns]) -> float:
    """Twice the pixels shared over the pixels of both, on all slices together; 0 where both are empty."""
    pixels = sum(mask.area_px for masks in (one, other) for mask in masks.values())
    shared = sum(overlap_px(one[index], other[index]) for index in one.keys() & other.keys())
    return 2 * shared / pixels if pixels else 0.0


def _noisy(lake: Lake) -> set[str]:
    rows = lake.read("lesions", columns=["lesion_id"], where=pc.field("possibly_noisy"))
    return set(rows["lesion_id"].to_pylist())


def _masks(lake: Lake) -> dict[str, dict[int, MaskRuns]]:
    columns = ["lesion_id", "slice_index", "left_px", "top_px", "columns", "rows", "runs"]
    found: dict[str, dict[int, MaskRuns]] = {}
    for row in lake.read(MASKS.name, columns=columns, where=pc.field("method") == METHOD).to_pylist():
        mask = MaskRuns(row["left_px"], row["top_px"], row["columns"], row["rows"], tuple(row["runs"]))
        found.setdefault(row["lesion_id"], {})[row["slice_index"]] = mask
    return found
