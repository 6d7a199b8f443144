"""Every fuzzed parser by name: the module that holds its target, and what of our code guides the search."""

import importlib
from dataclasses import dataclass

from fuzz.contract import Target


@dataclass(frozen=True)
class Entry:
    """Where a target is, and which modules are instrumented: few, since instrumenting takes longer than importing."""

    module: str
    instrumented: tuple[str, ...]


_DICOM = ("etl.dicom_fields", "etl.dicom_images", "etl.pacs_files")
_MARKS = (
    *_DICOM,
    "etl.marks.content_tree",
    "etl.marks.report_items",
    "etl.marks.measured_value",
    "etl.marks.coordinates",
)
ENTRIES = {
    "annotations": Entry("fuzz.text_targets", ("etl.annotations",)),
    "marks_table": Entry("fuzz.text_targets", ("etl.marks.table", "etl.marks.measured_value")),
    "aim": Entry("fuzz.text_targets", ("etl.marks.aim", "etl.marks.measured_value")),
    "settings": Entry("fuzz.settings_targets", ("lesionary.settings", "tomllib")),
    "dicom_header": Entry("fuzz.dicom_targets", ("etl.dicom_fields",)),
    "dicom_image": Entry("fuzz.dicom_targets", (*_DICOM, "etl.ct_pixels", "etl.codestreams", "pydicom.encaps")),
    "codestream": Entry("fuzz.dicom_targets", ("etl.codestreams", "etl.ct_pixels")),
    "report": Entry(
        "fuzz.dicom_targets",
        (*_MARKS, "etl.marks.reports", "etl.marks.sr", "etl.marks.aim_sr", "etl.marks.key_objects"),
    ),
    "gsps": Entry("fuzz.dicom_targets", (*_MARKS, "etl.marks.gsps")),
    "zip": Entry("fuzz.archive_targets", ("etl.containers", "etl.archive", "zipfile")),
    "tar": Entry("fuzz.archive_targets", ("etl.containers", "etl.archive", "tarfile")),
    "packed_tar": Entry("fuzz.archive_targets", ("etl.containers", "etl.archive")),
    "png": Entry("fuzz.archive_targets", ("etl.decoding",)),
    "slice": Entry("fuzz.archive_targets", ("lesionary.pixels",)),
    "runs": Entry("fuzz.archive_targets", ("lesionary.run_lengths",)),
    "truth": Entry("fuzz.json_targets", ("store.truth_pairs", "store.truth_tracking", "store.truth_mentions")),
    "detections": Entry("fuzz.json_targets", ("trainers.detector.detection_files", "trainers.detector.json_values")),
    "phantom_truth": Entry(
        "fuzz.json_targets", ("cli.category_report", "cli.detection_truth", "cli.evaluate_ssbr", "etl.mask_scores")
    ),
    "records": Entry("fuzz.json_targets", ("lesionary.lake", "lesionary.models", "lesionary.caches", "trainers.runs")),
    "checkpoint": Entry("fuzz.artifact_targets", ("trainers.checkpoint",)),
    "weights": Entry("fuzz.artifact_targets", ("trainers.weights", "torch._weights_only_unpickler")),
    "history": Entry("fuzz.artifact_targets", ("trainers.rounds", "trainers.checkpoint", "json.decoder")),
    "vectors": Entry("fuzz.artifact_targets", ("store.feature_files",)),
    "condition": Entry("fuzz.engine_targets", ("store.conditions",)),
    "supervised": Entry("fuzz.engine_targets", ("etl.supervision",)),
    "outlines": Entry("fuzz.dicom_targets", (*_MARKS, "etl.marks.outlines")),
}


def load(name: str) -> Target:
    """The target of a name."""
    module = importlib.import_module(ENTRIES[name].module)
    return next(target for target in module.TARGETS if target.name == name)
