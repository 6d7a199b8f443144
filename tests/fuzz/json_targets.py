"""Targets: JSON and CSV that people hand in beside a lake. Truths, detections, and the records that lie in a lake."""

import contextlib
import json

import numpy as np
from fuzz.contract import Target, require, scratch, scratch_file
from fuzz.mutations import joined, mutated_csv, mutated_json, mutated_part, parts_of

from cli import evaluate_ssbr
from cli.category_report import true_types
from cli.detection_truth import read_unmarked
from etl.mask_scores import read_true_lesions
from lesionary.artifacts import read_json
from lesionary.caches import open_cache
from lesionary.errors import ArtifactError, LakeError, LesionaryError, UsageError
from lesionary.lake import Lake
from lesionary.locations import open_location
from lesionary.models import list_models
from lesionary.schema import LAKE_FORMAT_VERSION
from store.truth_mentions import KnownLesions
from store.truth_pairs import NOT_IN_TRUTH, read_truth
from trainers.detector.detection_files import ReadDetections, read_coco, read_detections
from trainers.runs import Run
from trainers.ssbr.evaluate import phantom_heights

KNOWN = KnownLesions(
    ["dl-1", "dl-2", "dl-3"], ["dl-p1", "dl-p1", "dl-p2"], ["dl-000016_01_01", "dl-000016_02_01", "dl-000017_01_01"],
    np.array([8, 9, 8]), np.tile(np.array([21.0, 31, 41, 31, 31, 26, 31, 36]), (3, 1)), np.ones(3),
)  # fmt: skip


def check_error(error: LesionaryError) -> None:
    """One line that can be printed."""
    require(error.sentence.isprintable(), "an error's sentence")


def run_truth(data: bytes) -> None:
    """Tracking pairs, pairs, groups, a phantom's truth: which lesions are one."""
    path = scratch_file("truth", data)
    for namespace in (None, "dl"):
        try:
            found = read_truth(path, KNOWN, namespace=namespace)
        except UsageError as error:
            check_error(error)
            continue
        require(found.groups.shape == (3,) and found.groups.dtype == np.int64, "groups")
        named = found.groups[found.groups != NOT_IN_TRUTH]
        require(found.summary.lesions == len(named) and found.summary.groups == len(set(named.tolist())), "counts")
        require(found.summary.unresolved <= found.summary.mentions, "mentions")


def truth_seeds() -> list[bytes]:
    pair = {f"{side} recist {what}": value for side in ("source", "target") for what, value in (
        ("slice", f"00001{'6' if side == 'source' else '7'}_01_01/008.png"),
        ("coordinate", [20.0, 30, 40, 30, 30, 25, 30, 35]),
    )}  # fmt: skip
    return [
        json.dumps([pair, pair]).encode(), b"lesion_id,other_lesion_id\ndl-1,dl-2\ndl-2,dl-9\n", b"dl-1,dl-2\n",
        b"lesion_id,group\ndl-1,a\ndl-2,a\ndl-3,b\n",
        b"row_number,series,slice_index,lesion_id,note\n1,000016_01_01,8,L1,x\n2,000016_02_01,9,L1,\n",
    ]  # fmt: skip


def mutated_table(data, rng):
    return (mutated_json if data[:1] in {b"[", b"{"} else mutated_csv)(data, rng)


def run_detections(data: bytes) -> None:
    """Detections and their truth: a file of ours, two of ours, or COCO's two."""
    first, second = (scratch_file(name, part) for name, part in zip("ab", parts_of(data, 2), strict=True))
    for read in (
        lambda: read_detections(first),
        lambda: read_detections(first, second),
        lambda: read_coco(second, first),
    ):
        try:
            _check_detections(read())
        except UsageError as error:
            check_error(error)


def _check_detections(found: ReadDetections) -> None:
    truth, said = found.truth, found.detections
    for one in (truth, said):
        require(one.boxes.shape == (len(one.images), 4) and np.isfinite(one.boxes).all(), "boxes")
        require((one.boxes[:, 2:] >= one.boxes[:, :2]).all(), "boxes that end before they begin")
        require(not len(one.images) or 0 <= one.images.min() <= one.images.max() < len(truth.patients), "images")
    require(np.isfinite(said.scores).all() and len(said.scores) == len(said.images), "scores")


def detection_seeds() -> list[bytes]:
    ours = {
        "format": "lesionary-detections-1",
        "images": [{"image": "a", "patient": "p", "interval_mm": 5.0}, {"image": 2}],
        "lesions": [{
            "image": "a", "box": [1, 2, 3, 4.5], "type": "lung", "category": "x", "long_mm": 9.5, "short_mm": 4,
            "noisy": False, "ignore": 1, "key_slice": 4, "slices": [3, 5],
        }],
        "detections": [{
            "image": "a", "box": [1, 2, 3, 4], "score": 0.5, "category": "x", "slices": [3, 5],
            "slice_boxes": {"3": [1, 2, 3, 4], "4": [1, 2, 3, 5]},
        }],
    }  # fmt: skip
    truth = {
        "images": [{"id": 1, "patient": "p"}, {"id": 2}], "categories": [{"id": 1, "name": "lesion"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
    }  # fmt: skip
    results = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25}]
    small = {"format": "lesionary-detections-1", "images": [{"image": 1}], "lesions": [], "detections": []}
    as_bytes = [json.dumps(one).encode() for one in (ours, truth, results, small)]
    return [
        joined(as_bytes[0], as_bytes[0]), joined(as_bytes[2], as_bytes[1]), joined(as_bytes[3], b""),
        joined(as_bytes[0], as_bytes[3]),
    ]  # fmt: skip


def run_phantom_truth(data: bytes) -> None:
    """What a phantom wrote beside its release: unmarked lesions, true masks, true types, true heights."""
    path = scratch_file("truth.json", data)
    readers = (
        lambda: read_unmarked(path, "dl"), lambda: read_true_lesions(path), lambda: true_types(path, "dl"),
        lambda: phantom_heights(evaluate_ssbr._read(path), "dl"),
    )  # fmt: skip
    for read in readers:
        try:
            found = read()
        except UsageError as error:
            check_error(error)
            continue
        require(isinstance(found, dict | list), "what was read")


def phantom_truth_seeds() -> list[bytes]:
    truth = {
        "unmarked": [{"series": "000001_01_01", "slice_index": 3, "points": [1, 2, 9, 2, 5, 0, 5, 4], "type": "lung"}],
        "series": {"000001_01_01": {"slice_index_z_mm_height": [[1, 0.0, 0.5], [2, 5.0, 0.51]]}},
    }
    masks = {"lesions": [{
        "rows": [1, 2], "type": "lung", "spacing_mm": 0.8, "slices": [[3, 1.0, 4, 5, 2, 2, [0, 4]]],
    }]}  # fmt: skip
    return [json.dumps(truth).encode(), json.dumps(masks).encode(), b"row_number,true_type\n1,lung\n2,liver\n"]


def run_records(data: bytes) -> None:
    """Records of a lake: its marker, a model's card, a cache's record, a training run's record and result."""
    marker, card, cache, run = parts_of(data, 4)
    for name, content in {
        "lake.json": marker, "models/ssbr-1/card.json": card, "cache/cache.json": cache, "run/run.json": run,
        "run/result.json": run,
    }.items():  # fmt: skip
        (scratch() / name).parent.mkdir(parents=True, exist_ok=True)
        scratch_file(name, content)
    place = str(scratch())
    with _declared(LakeError):
        Lake.open(place)
    with _declared(ArtifactError):
        for one in list_models(Lake(open_location(place))):
            require(isinstance(one.settings, dict) and isinstance(one.seed, int) and one.model_id == "ssbr-1", "a card")
    with _declared(ArtifactError):
        open_cache(f"{place}/cache")
    held = Run("one", open_location(f"{place}/run"))
    with _declared(ArtifactError):
        record = held.record()
        require(isinstance(record.kind, str) and isinstance(record.job, dict), "a run's record")
        require(not any("/" in name or name.startswith(".") for name in record.inputs), "a name that leaves its folder")
    with _declared(ArtifactError):
        require(isinstance(held.result().files, dict), "a run's result")
        held.published()
        held.read_final("weights.safetensors")
    with _declared(ArtifactError):
        read_json(scratch() / "run/run.json")


@contextlib.contextmanager
def _declared(kind: type[LesionaryError]):
    try:
        yield
    except kind as error:
        check_error(error)


def record_seeds() -> list[bytes]:
    card = {
        "format": 1, "model_id": "ssbr-1", "kind": "ssbr", "preset": "smoke", "created_at": "2026-01-01T00:00:00Z",
        "settings": {"a": 1}, "lake": {"slices": 3}, "data": {}, "metrics": {"r": 0.5}, "code": "x", "version": "1",
        "hardware": {}, "seed": 7, "weights_sha256": "0" * 64, "notes": ["n"],
    }  # fmt: skip
    marker = {"format_version": LAKE_FORMAT_VERSION, "created": "2026-01-01T00:00:00Z"}
    cache = {"rows": 3, "parts": [{"name": "part-00000.arrow", "rows": 3, "bytes": 10}], "kind": "patches"}
    run = {"kind": "ssbr", "entry": "trainers.ssbr.loop", "job": {"a": 1}, "about": {}, "inputs": {"weights": "0" * 64}}
    result = {"returned": {"a": 1}, "files": {"weights.safetensors": "0" * 64}, "finished_at": "2026-01-01T00:00:00Z"}
    held = [json.dumps(one).encode() for one in (marker, card, cache, run, result)]
    return [joined(*held[:4]), joined(*held[:3], held[4])]


TARGETS = (
    Target("truth", "store.truth_pairs.read_truth", run_truth, truth_seeds, mutated_table, 4096),
    Target(
        "detections", "trainers.detector.detection_files.{read_detections, read_coco}", run_detections, detection_seeds,
        mutated_part(mutated_json, mutated_json), 4096,
    ),
    Target(
        "phantom_truth", "cli.{category_report, detection_truth, evaluate_ssbr}, etl.mask_scores", run_phantom_truth,
        phantom_truth_seeds, mutated_table, 4096,
    ),
    Target(
        "records", "lesionary.{lake, models, caches, artifacts}, trainers.runs.Run", run_records, record_seeds,
        mutated_part(mutated_json, mutated_json, mutated_json, mutated_json), 8192,
    ),
)  # fmt: skip
