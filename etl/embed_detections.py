"""Embedding detections: patches around what a detector saw, as around marked lesions, and a model's vectors of them.

The vectors form a feature set of their own beside the marked lesions' set of the same model: a detection is nobody's
mark, and questions about lesions must not meet it unasked. Detections of several detectors share it: their names tell
them apart.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.embed import (
    COMMIT_SECONDS,
    EUCLIDEAN,
    EmbeddingModel,
    EmbedSummary,
    Progress,
    VectorCommitter,
    described,
    patches_per_task,
)
from etl.embed_tasks import Embedder, EmbedResult, cut_and_ask
from etl.inference import InferenceChoice, always_infer_here
from etl.patch_cutting import LESION_COLUMNS, PatchSettings
from lesionary.detection_tables import DETECTION_SERIES, DETECTIONS
from lesionary.errors import LakeError
from lesionary.identifiers import detections_set
from lesionary.lake import Lake
from lesionary.results import GrowingUnit, write_results
from lesionary.schema import EMBEDDINGS, FEATURE_SETS

# What a mark has and a detection has not.
_NOT_KNOWN: Mapping[str, None] = dict.fromkeys(LESION_COLUMNS)

_COLUMNS = (
    "detection_id", "unit_id", "patient_id", "study_id", "series_id", "slice_index", "box_xyxy_px", "score"
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CutDetections:
    """A task: patches of some detections, cut from the lake's slices; an `InferenceTask`."""

    set_id: str
    lake_url: str
    versions: Mapping[str, int]
    settings: PatchSettings
    rows: tuple[Mapping[str, Any], ...]
    sources: Mapping[str, str]

    def run(self, model: Embedder) -> EmbedResult:
        """Cut, and ask the model.

        Raises:
            LakeError: a slice cannot be read.
        """
        lesions = [_as_lesion(row) for row in self.rows]
        lake = Lake.open(self.lake_url)
        return cut_and_ask(lake, model, self.set_id, lesions, self.sources, self.versions, self.settings)


def embed_detections(
    lake: Lake,
    model: EmbeddingModel,
    detector_id: str,
    min_score: float = 0.0,
    *,
    choose_inference: InferenceChoice = always_infer_here,
    progress: Progress = lambda _what, _done, _total: None,
    commit_seconds: float = COMMIT_SECONDS,
) -> EmbedSummary:
    """Give the detections of a detector vectors; safe to run again after any interruption.

    Args:
        lake: whose detections.
        model: what makes the vectors; named as for marked lesions.
        detector_id: whose detections.
        min_score: less sure ones get none.
        choose_inference: what runs the model.
        progress: told after every task.
        commit_seconds: a crash loses at most so much work.

    Returns:
        The summary, in which detections stand for lesions.

    Raises:
        LakeError: there is no detection, or the lake cannot be read or written.
        UsageError: the feature set belongs to somebody else.
    """
    model = replace(model, set_name=detections_set(model.set_name))
    row_there = described(lake, model)
    versions = {name: lake.shards(name)[0] for name in ("lesions", "series", "slices")}
    unit = GrowingUnit(lake, EMBEDDINGS.name, model.set_id, "lesion_id", "lesion_ingest_id")
    rows, sources = _detections(lake, detector_id)
    held = unit.held()
    missing = [row for row in rows if held.get(row["detection_id"]) != sources[row["detection_id"]]]
    wanted = [row for row in missing if row["score"] >= min_score]
    left_out = +Counter({f"score below {min_score:g}": len(missing) - len(wanted)})
    started = time.monotonic()
    embedded = 0
    if wanted:
        infer, workers = choose_inference(len(wanted))
        committer = VectorCommitter(unit, commit_seconds)
        tasks = _tasks(lake, model, versions, wanted, sources, patches_per_task(len(wanted), workers))
        for result in infer(tasks, model.maker):
            embedded += result.rows.num_rows
            left_out += Counter(result.left_out)
            progress("vectors", embedded, len(wanted))
            committer.take(result.rows)
        committer.commit()
    if row_there is None and (made := unit.held()):
        row_there = _describe(lake, model, versions["lesions"], min(made))
    return EmbedSummary(
        model_id=model.model_id,
        feature_set_id=model.set_id,
        lesions=len(rows),
        kept=len(rows) - len(missing),
        embedded=embedded,
        left_out=dict(sorted(left_out.items())),
        dimension=(row_there or {}).get("dimension"),
        t1=None,
        t2=None,
        seconds=time.monotonic() - started,
    )


def _detections(lake: Lake, detector_id: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """A detector's detections in the order of their slices, and what each one's vector follows from."""
    of_detector = pc.field("model_id") == detector_id
    rows = lake.read(DETECTIONS.name, columns=_COLUMNS, where=of_detector).to_pylist()
    if not rows:
        raise LakeError(
            f"there is no detection by {detector_id} in it",
            where=lake.url,
            next_step=f"run `lesionary detect --model {detector_id}`",
        )
    rows.sort(key=lambda row: (row["series_id"], row["slice_index"], row["detection_id"]))
    series = lake.read(DETECTION_SERIES.name, columns=["unit_id", "fingerprint"], where=of_detector).to_pylist()
    prints = {row["unit_id"]: row["fingerprint"] for row in series}
    sources = {row["detection_id"]: _made_from(row, prints.get(row["unit_id"], "")) for row in rows}
    return rows, sources


def _made_from(row: Mapping[str, Any], fingerprint: str) -> str:
    text = f"{fingerprint} {row['slice_index']} {row['box_xyxy_px']}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _tasks(
    lake: Lake,
    model: EmbeddingModel,
    versions: Mapping[str, int],
    rows: Sequence[Mapping[str, Any]],
    sources: Mapping[str, str],
    size: int,
) -> Iterator[CutDetections]:
    for start in range(0, len(rows), size):
        some = tuple(rows[start : start + size])
        own = {row["detection_id"]: sources[row["detection_id"]] for row in some}
        yield CutDetections(model.set_id, lake.url, versions, model.patches, some, own)


def _as_lesion(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **_NOT_KNOWN,
        **{name: row[name] for name in ("patient_id", "study_id", "series_id", "slice_index", "box_xyxy_px")},
        "lesion_id": row["detection_id"],
        "coord_convention": "zero_based",
    }


def _describe(lake: Lake, model: EmbeddingModel, lesions_version: int, member: str) -> dict[str, Any]:
    """Write the row that describes the set. Thresholds of `lesionary match` are about marks: it has none."""
    one = (pc.field("feature_set_id") == model.set_id) & (pc.field("lesion_id") == member)
    vectors = lake.read(EMBEDDINGS.name, columns=["vector"], where=one)
    row = {
        "feature_set_id": model.set_id,
        "name": model.set_name,
        "version": model.set_version,
        "model_id": model.model_id,
        "dimension": len(vectors["vector"][0]),
        "metric": EUCLIDEAN,
        "lesions_version": lesions_version,
        "created_at": datetime.now(UTC),
        "t1": None,
        "t2": None,
    }
    write_results(lake, model.set_id, {FEATURE_SETS.name: [pa.Table.from_pylist([row], schema=FEATURE_SETS.schema)]})
    return row
