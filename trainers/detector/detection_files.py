"""Truth and detections out of files: a JSON of our own, described in docs/detection-scores.md, or COCO's two.

Whatever is wrong with a file is one line that names the file and the place in it. A file is the person's own, so names
out of it may appear in such a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainers.detector.evaluation_data import UNKNOWN, Detections, Numbers, SliceBoxes, Truth, Whole
from trainers.detector.json_values import Entry, entries, fail, listed, read_json_value

FORMAT = "lesionary-detections-1"


@dataclass(frozen=True, slots=True)
class ReadDetections:
    """What files say."""

    truth: Truth
    detections: Detections
    type_names: tuple[str, ...]
    category_names: tuple[str, ...]
    """By their numbers in the truth and the detections."""


def read_detections(detections_file: Path, truth_file: Path | None = None) -> ReadDetections:
    """Read detections and what they are compared with, of ours or of COCO's.

    Args:
        detections_file: of ours, or COCO's results.
        truth_file: of ours, or COCO's annotations; one of ours may hold its truth itself.

    Raises:
        UsageError: a file cannot be read or is not what it should be.
    """
    held = read_json_value(detections_file)
    if not isinstance(held, list):
        return _read_ours(detections_file, held, truth_file)
    if truth_file is None:
        raise fail(detections_file, "these are results as COCO's", next_step="name their annotations with --truth")
    return read_coco(truth_file, detections_file)


def read_coco(truth_file: Path, results_file: Path) -> ReadDetections:
    """COCO's annotations and results. Crowds are ignore regions; an image is a patient unless it has a `patient`.

    Raises:
        UsageError: a file cannot be read or is not what it should be.
    """
    held = _object(truth_file, read_json_value(truth_file))
    images = sorted(entries(truth_file, held, "images"), key=lambda one: one.whole("id"))
    # COCO goes through images by their ids; so equal scores are ranked alike.
    image_numbers = _numbered(images, "id")
    categories = sorted(entries(truth_file, held, "categories"), key=lambda one: one.whole("id"))
    category_numbers = _numbered(categories, "id")
    lesions = entries(truth_file, held, "annotations")
    found = listed(results_file, read_json_value(results_file), "results")
    return ReadDetections(
        Truth(
            patients=_patients(images),
            images=_places(lesions, "image_id", image_numbers),
            boxes=_corners(lesions),
            categories=_places(lesions, "category_id", category_numbers),
            ignore=np.array([one.flag("iscrowd") for one in lesions], bool),
        ),
        Detections(
            images=_places(found, "image_id", image_numbers),
            boxes=_corners(found),
            scores=np.array([one.number("score") for one in found]),
            categories=_places(found, "category_id", category_numbers),
        ),
        (),
        tuple(one.name("name") for one in categories),
    )


def _read_ours(detections_file: Path, held: object, truth_file: Path | None) -> ReadDetections:
    said = _ours(detections_file, held)
    truth_name = truth_file or detections_file
    known = said if truth_file is None else _ours(truth_file, read_json_value(truth_file))
    images = entries(truth_name, known, "images")
    lesions, found = entries(truth_name, known, "lesions"), entries(detections_file, said, "detections")
    image_numbers = _numbered(images, "image")
    type_names = _names(lesions, "type")
    category_names = _names([*lesions, *found], "category")
    truth = Truth(
        patients=_patients(images),
        images=_places(lesions, "image", image_numbers),
        boxes=_boxes(lesions),
        types=_named(lesions, "type", type_names),
        categories=_named(lesions, "category", category_names),
        long_mm=np.array([one.number("long_mm", np.nan) for one in lesions]),
        short_mm=np.array([one.number("short_mm", np.nan) for one in lesions]),
        noisy=np.array([one.flag("noisy") for one in lesions], bool),
        ignore=np.array([one.flag("ignore") for one in lesions], bool),
        intervals_mm=np.array([one.number("interval_mm", np.nan) for one in images]),
        key_slices=np.array([one.whole("key_slice") for one in lesions] if _all_say(lesions, "key_slice") else []),
        slices=_slices(lesions),
    )
    detections = Detections(
        images=_places(found, "image", image_numbers),
        boxes=_boxes(found),
        scores=np.array([one.number("score") for one in found]),
        categories=_named(found, "category", category_names),
        slices=_slices(found),
        slice_boxes=_slice_boxes(found) if _all_say(found, "slice_boxes") else None,
    )
    return ReadDetections(truth, detections, type_names, category_names)


def _object(file: Path, held: object) -> Mapping[str, object]:
    if not isinstance(held, Mapping):
        raise fail(file, "an object is needed here", next_step="docs/detection-scores.md shows one")
    return held


def _ours(file: Path, held: object) -> Mapping[str, object]:
    found = _object(file, held)
    if found.get("format") != FORMAT:
        raise fail(
            file, f'this is no file of detections: "format" is not "{FORMAT}"',
            next_step="docs/detection-scores.md shows one",
        )  # fmt: skip
    return found


def _numbered(rows: Sequence[Entry], name: str) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for row in rows:
        if (named := row.name(name)) in numbers:
            raise row.error(f"{name} {named} is there twice")
        numbers[named] = len(numbers)
    return numbers


def _places(rows: Sequence[Entry], name: str, numbers: Mapping[str, int]) -> Whole:
    places = []
    for row in rows:
        named = row.name(name)
        if named not in numbers:
            raise row.error(f"{name} {named} is not in the truth")
        places.append(numbers[named])
    return np.array(places, np.int64)


def _patients(images: Sequence[Entry]) -> Whole:
    """Numbers of the images' patients; an image that names none is a patient of its own."""
    names = [image.name("patient") if image.has("patient") else at for at, image in enumerate(images)]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names], np.int64)


def _corners(rows: Sequence[Entry]) -> Numbers:
    """COCO's x, y, width, height as corners."""
    boxes = np.array([row.numbers("bbox", 4) for row in rows]).reshape(-1, 4)
    if (wrong := (boxes[:, 2:] < 0).any(axis=1)).any():
        raise rows[int(np.argmax(wrong))].error("bbox has a negative width or height")
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _boxes(rows: Sequence[Entry]) -> Numbers:
    return np.array([row.box() for row in rows]).reshape(-1, 4)


def _names(rows: Sequence[Entry], name: str) -> tuple[str, ...]:
    return tuple(sorted({row.name(name) for row in rows if row.has(name)}))


def _named(rows: Sequence[Entry], name: str, names: Sequence[str]) -> Whole:
    numbers = {one: number for number, one in enumerate(names)}
    return np.array([numbers[row.name(name)] if row.has(name) else UNKNOWN for row in rows], np.int64)


def _all_say(rows: Sequence[Entry], name: str) -> bool:
    """Whether all of them say it.

    Raises:
        UsageError: some do, others do not.
    """
    said = [row.has(name) for row in rows]
    if any(said) and not all(said):
        raise rows[said.index(False)].error(f"{name} is missing, others have it")
    return any(said)


def _slices(rows: Sequence[Entry]) -> Whole:
    if not _all_say(rows, "slices"):
        return np.empty((0, 2), np.int64)
    found = np.array([row.whole_numbers("slices", 2) for row in rows], np.int64)
    if (wrong := found[:, 1] < found[:, 0]).any():
        raise rows[int(np.argmax(wrong))].error("slices end before they begin")
    return found


def _slice_boxes(rows: Sequence[Entry]) -> SliceBoxes:
    held = [(owner, at, box) for owner, row in enumerate(rows) for at, box in row.boxes_by_slice("slice_boxes").items()]
    return SliceBoxes(
        owners=np.array([one[0] for one in held], np.int64),
        slices=np.array([one[1] for one in held], np.int64),
        boxes=np.array([one[2] for one in held]).reshape(-1, 4),
    )
