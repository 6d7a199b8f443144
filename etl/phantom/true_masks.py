"""The true masks of a release's lesions: `truth_masks.json`, for scores of masks, never read by ingest.

One entry for every lesion in every series where it is to be seen, marked or not:

    series, lesion_id   as in `truth.json`
    type                true type
    rows                numbers of its rows in `DL_info.csv`, from 1
    spacing_mm          of a pixel, which is square
    slices              for each slice it is to be seen on: the slice's number, the interval around it in mm, and the
                        mask as left, top, columns, rows and lengths of runs (`lesionary/run_lengths.py`)

A pixel is the lesion's where the lesion fills more than half of it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etl.phantom.plan import SeriesPlan
from etl.phantom.reading import MASK_THRESHOLD, DrawnSlice
from etl.phantom.release_table import ReleaseRow
from lesionary.artifacts import atomic_write_bytes
from lesionary.run_lengths import MaskRuns, encode_mask

TRUTH_MASKS_FILE = "truth_masks.json"


@dataclass(frozen=True, slots=True)
class TrueMask:
    """One lesion on one written slice."""

    lesion_id: str
    lesion_type: str
    spacing_mm: float
    slice_index: int
    interval_mm: float
    mask: MaskRuns


def lesion_name(plan: SeriesPlan, lesion_id: int) -> str:
    """A lesion's name through all studies of its patient."""
    return f"{plan.patient.index:06d}-{lesion_id:02d}"


def masks_on_slice(plan: SeriesPlan, slice_index: int, drawn: DrawnSlice) -> list[TrueMask]:
    """Masks of the lesions that a slice shows."""
    types = {state.lesion.identifier: state.lesion.lesion_type for state in plan.states}
    interval_mm = plan.part_of(slice_index).interval_mm
    found = []
    for lesion_id, filled in sorted(drawn.masks.items()):
        mask = encode_mask(filled > MASK_THRESHOLD)
        if mask is not None:
            name, spacing = lesion_name(plan, lesion_id), plan.series.spacing_xy_mm
            found.append(TrueMask(name, types[lesion_id], spacing, slice_index, interval_mm, mask))
    return found


def write_true_masks(folder: Path, series: Mapping[str, Sequence[TrueMask]], rows: Sequence[ReleaseRow]) -> None:
    """Write the file into a release's folder.

    Args:
        folder: of the release.
        series: the name of each series, to its masks in the order of their slices.
        rows: as in `DL_info.csv`, in its order.
    """
    numbers: dict[tuple[str, str], list[int]] = {}
    for number, row in enumerate(rows, start=1):
        numbers.setdefault((row.series_name, row.lesion_id), []).append(number)
    lesions: dict[tuple[str, str], dict[str, Any]] = {}
    for name, masks in series.items():
        for one in masks:
            entry = lesions.setdefault(
                (name, one.lesion_id),
                {
                    "series": name,
                    "lesion_id": one.lesion_id,
                    "type": one.lesion_type,
                    "rows": numbers.get((name, one.lesion_id), []),
                    "spacing_mm": one.spacing_mm,
                    "slices": [],
                },
            )
            mask = one.mask
            box = (mask.left_px, mask.top_px, mask.columns, mask.rows)
            entry["slices"].append([one.slice_index, one.interval_mm, *box, list(mask.runs)])
    truth = {"lesions": list(lesions.values())}
    atomic_write_bytes(folder / TRUTH_MASKS_FILE, (json.dumps(truth, separators=(",", ":")) + "\n").encode())
