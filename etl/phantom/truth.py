"""What a release does not say: `truth.csv` and `truth.json`, for tests and scores, never read by ingest.

`truth.csv` has one line for every row of `DL_info.csv`, in its order. `truth.json` holds the settings, what each
quirk touched (row numbers count from 1 without the header, files are named as in the release), every lesion through
the studies, the lesions nobody marked, and the true height of every slice.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from etl.phantom.quirks import TABLE_QUIRKS
from etl.phantom.release_table import ReleaseRow
from etl.phantom.release_zips import IMAGE_FOLDER
from etl.phantom.series_writer import SeriesResult
from etl.phantom.true_masks import lesion_name
from etl.release_format import csv_text
from lesionary.artifacts import atomic_write_bytes

TABLE_FILE = "DL_info.csv"
TRUTH_TABLE_FILE = "truth.csv"
TRUTH_FILE = "truth.json"

TRUTH_COLUMNS: tuple[str, ...] = (
    "row_number",
    "file_name",
    "series",
    "slice_index",
    "lesion_id",
    "true_type",
    "true_height",
    "growth",
    "quirks",
)


def quirk_places(
    names: Sequence[str], results: Sequence[SeriesResult], rows: Sequence[ReleaseRow]
) -> dict[str, dict[str, list[int] | list[str]]]:
    """For each chosen quirk the row numbers and the files it touched."""
    table_quirks = {quirk.name for quirk in TABLE_QUIRKS}
    places: dict[str, dict[str, list[int] | list[str]]] = {}
    for name in names:
        files = [
            f"{IMAGE_FOLDER}/{result.plan.name}/{edit.slice_index:03d}.png"
            for result in results
            for edit in result.plan.edits
            if edit.quirk == name
        ]
        touched = [number for number, row in enumerate(rows, start=1) if name in row.quirks]
        places[name] = {"rows": touched, "files": [TABLE_FILE] if name in table_quirks else sorted(files)}
    return places


def write_truth(
    folder: Path,
    settings: Mapping[str, object],
    places: Mapping[str, Mapping[str, Sequence[int | str]]],
    results: Sequence[SeriesResult],
    rows: Sequence[ReleaseRow],
) -> None:
    """Write both truth files into a release's folder."""
    lines = (
        (
            str(number),
            row.file_name,
            row.series_name,
            str(row.slice_index),
            row.lesion_id,
            row.true_type,
            f"{row.true_height:.6f}",
            f"{row.growth:.6f}",
            ";".join(row.quirks),
        )
        for number, row in enumerate(rows, start=1)
    )
    atomic_write_bytes(folder / TRUTH_TABLE_FILE, csv_text(TRUTH_COLUMNS, lines).encode())
    truth = {
        "settings": dict(settings),
        "quirks": places,
        "lesions": _lesions(results),
        "unmarked": _unmarked(results),
        "series": {result.plan.name: _series(result) for result in results},
    }
    atomic_write_bytes(folder / TRUTH_FILE, (json.dumps(truth, separators=(",", ":"), sort_keys=True) + "\n").encode())


def _lesions(results: Sequence[SeriesResult]) -> dict[str, dict[str, object]]:
    """Every lesion that is there in a study of the release: its type, and its growth study by study."""
    growth: dict[str, dict[str, float]] = {}
    lesions: dict[str, dict[str, object]] = {}
    for result in results:
        for state in result.plan.states:
            name = lesion_name(result.plan, state.lesion.identifier)
            by_study = growth.setdefault(name, {})
            by_study[str(result.plan.study_index)] = round(state.growth, 6)
            lesions[name] = {
                "type": state.lesion.lesion_type,
                "long_diameter_mm": round(state.lesion.long_diameter_mm, 3),
                "growth_by_study": by_study,
            }
    return lesions


def _unmarked(results: Sequence[SeriesResult]) -> list[dict[str, object]]:
    return [
        {
            "lesion_id": lesion.lesion_id,
            "type": lesion.lesion_type,
            "series": result.plan.name,
            "slice_index": lesion.slice_index,
            "points": [round(value, 3) for value in lesion.points],
            "growth": round(lesion.growth, 6),
        }
        for result in results
        for lesion in result.unmarked
    ]


def _series(result: SeriesResult) -> dict[str, object]:
    return {
        "marked": bool(result.plan.keys),
        "split": result.plan.split_code,
        "sub_volumes": [[part.first_index, part.last_index, part.interval_mm] for part in result.plan.sub_volumes],
        "slice_index_z_mm_height": [
            [truth.slice_index, round(truth.z_mm, 3), round(truth.height, 6)] for truth in result.slices
        ],
    }
