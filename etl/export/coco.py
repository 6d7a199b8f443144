"""Lesions as COCO annotations: one JSON a split, boxes zero-based, and on request the key slices as 8-bit pictures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from etl.export.selection import (
    Choice,
    Lesion,
    Progress,
    Series,
    chosen_series,
    prepare_folder,
    seal_folder,
    with_progress,
)
from lesionary.anatomy import LESION_TYPES
from lesionary.artifacts import atomic_write_bytes
from lesionary.lake import Lake
from lesionary.picture import window_to_grey
from lesionary.recist import padded_box
from lesionary.slices import SliceReader

KIND = "coco"
_NO_SPLIT = "all"
_SOFT_TISSUE_HU = (-175.0, 275.0)
# Ids are the types' own; 0 is for lesions without one.
CATEGORIES: tuple[Mapping[str, object], ...] = (
    {"id": 0, "name": "unknown"},
    *({"id": number, "name": name} for number, name in enumerate(LESION_TYPES, start=1)),
)


@dataclass(frozen=True, slots=True)
class CocoExport:
    """What was written."""

    images: int
    lesions: int
    left_out: Mapping[str, int]


def export_coco(
    lake: Lake, folder: Path, choice: Choice, *, padding_px: float = 5.0, pictures: bool = False, force: bool = False,
    progress: Progress | None = None,
) -> CocoExport:  # fmt: skip
    """Write `annotations_<split>.json`, and pictures if wanted.

    Raises:
        UsageError: the folder is not empty.
        LakeError: nothing matches, or a slice cannot be read.
    """
    chosen = chosen_series(lake, choice)
    prepare_folder(folder, KIND, force=force)
    images: dict[str, list[dict[str, object]]] = {}
    annotations: dict[str, list[dict[str, object]]] = {}
    without_image = 0
    with SliceReader(lake) as reader:
        for one in with_progress(chosen, progress):
            for index, lesions in _by_slice(one).items():
                if index not in one.slices:
                    without_image += len(lesions)
                    continue
                split = str(lesions[0].row["split"] or _NO_SPLIT)
                own = images.setdefault(split, [])
                own.append(_image(one, index, len(own) + 1))
                made = annotations.setdefault(split, [])
                made += [
                    _annotation(lesion, len(own), len(made) + place, padding_px)
                    for place, lesion in enumerate(lesions, start=1)
                ]
                if pictures:
                    _write_picture(folder / str(own[-1]["file_name"]), reader, one, index)
    for split, own in images.items():
        content = {"images": own, "annotations": annotations[split], "categories": list(CATEGORIES)}
        data = json.dumps(content, separators=(",", ":"), sort_keys=True) + "\n"
        atomic_write_bytes(folder / f"annotations_{split}.json", data.encode())
    seal_folder(folder, KIND)
    left_out = {"no image": without_image} if without_image else {}
    return CocoExport(sum(map(len, images.values())), sum(map(len, annotations.values())), left_out)


def _by_slice(one: Series) -> dict[int, list[Lesion]]:
    found: dict[int, list[Lesion]] = {}
    for lesion in one.lesions:
        found.setdefault(lesion.slice_index, []).append(lesion)
    return found


def _image(one: Series, index: int, number: int) -> dict[str, object]:
    return {
        "id": number,
        "file_name": f"images/{one.series_id}_{index:04d}.png",
        "height": one.row["rows"],
        "width": one.row["columns"],
        "series_id": one.series_id,
        "patient_id": one.row["patient_id"],
        "slice_index": index,
        "spacing_x_mm": one.row["spacing_x_mm"],
        "spacing_y_mm": one.row["spacing_y_mm"],
    }


def _annotation(lesion: Lesion, image: int, number: int, padding_px: float) -> dict[str, object]:
    points = lesion.points("zero_based")
    low, high = points.min(axis=0), points.max(axis=0)
    x_min, y_min, x_max, y_max = padded_box((float(low[0]), float(low[1]), float(high[0]), float(high[1])), padding_px)
    kind = lesion.row["lesion_type"]
    return {
        "id": number,
        "image_id": image,
        "category_id": LESION_TYPES.index(str(kind)) + 1 if kind else 0,
        "bbox": [_rounded(value) for value in (x_min, y_min, x_max - x_min, y_max - y_min)],
        "area": _rounded((x_max - x_min) * (y_max - y_min)),
        "iscrowd": 0,
        "lesion_id": lesion.lesion_id,
        "recist": [_rounded(value) for value in points.ravel().tolist()],
        "long_mm": lesion.number("long_mm"),
        "short_mm": lesion.number("short_mm"),
    }


def _rounded(value: float) -> float:
    return round(value, 4)


def _write_picture(path: Path, reader: SliceReader, one: Series, index: int) -> None:
    low, high = one.number("window_low_hu"), one.number("window_high_hu")
    window = _SOFT_TISSUE_HU if low is None or high is None else (low, high)
    buffer = BytesIO()
    Image.fromarray(window_to_grey(reader.read(one.series_id, index), window)).save(buffer, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_bytes(path, buffer.getvalue())
