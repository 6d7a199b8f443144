"""A worker's share of detecting: series to look through, and what is seen there as rows of the lake's tables.

Which series are due follows from what the lake holds: a series is looked through again when its fingerprint, its
slices or the thresholds have changed, or when only its marked slices had been looked at so far.
"""

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from etl.detect_slices import DetectorInput, DetectSettings, tracklets_of, without_padding
from etl.inference import ModelMaker
from etl.patch_cutting import Series, read_series
from etl.stack_geometry import is_possible_spacing
from etl.tracklets import Tracklet
from etl.volumes import published_splits, slices_by_series
from lesionary.detection_tables import DETECTION_BOXES, DETECTION_SERIES, DETECTIONS
from lesionary.errors import UsageError
from lesionary.lake import Lake
from lesionary.slices import SliceReader
from lesionary.splits import split_of_patient
from lesionary.stack_schema import FindLesions

# Raised when the same slices and thresholds would give other rows than before.
_FORMAT = 1

SOURCES = ("lesions", "series", "slices")
_SERIES_COLUMNS = (
    "series_id", "patient_id", "study_id", "axial", "spacing_x_mm", "spacing_y_mm", "fingerprint"
)  # fmt: skip


class Scope(StrEnum):
    """Which slices are looked at."""

    ALL = "all"
    KEY_SLICES = "key_slices"


class LeftOut(StrEnum):
    """Why a series is not looked through."""

    NO_IMAGES = "no images in the lake"
    NOT_AXIAL = "not axial"
    NO_PIXEL_SPACING = "no pixel spacing"
    ODD_PIXEL_SPACING = "odd pixel spacing"
    NO_MARKED_SLICE = "no marked slice in the lake"


@dataclass(frozen=True, slots=True)
class DetectorModel:
    """What detecting has to know of a model."""

    shown: DetectorInput
    maker: ModelMaker
    """Makes a `lesionary.stack_schema.FindLesions`."""
    category_model_id: str | None = None
    """The categoriser whose categories it gives; its own id where they are its own; None for one class."""
    own_categories: tuple[str, ...] = ()
    """What its own categories are called, by their numbers."""

    @property
    def model_id(self) -> str:
        """Its name in the lake."""
        return self.shown.model_id


@dataclass(frozen=True, slots=True)
class SeriesChoice:
    """Which series of the lake are meant: those that all of these leave."""

    series_ids: tuple[str, ...] = ()
    """Empty = all of them."""
    patient_id: str | None = None
    split: str | None = None
    """train, val or test: by the source where it publishes one, else by the patient's name."""
    scope: Scope = Scope.ALL
    """Which of their slices."""


@dataclass(frozen=True, slots=True)
class SeriesToLookAt:
    """One series and its slices that are to be looked at."""

    series_id: str
    patient_id: str
    study_id: str
    slice_indices: tuple[int, ...]
    fingerprint: str
    """As table detection_series keeps it."""
    whole_fingerprint: str
    """The same for all of its slices: whoever looked at these has looked at the marked ones as well."""


@dataclass(frozen=True, slots=True)
class ChosenSeries:
    """The series that are meant: those that can be looked through, and how many others, by reason."""

    found: int
    usable: tuple[SeriesToLookAt, ...]
    left_out: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DetectResult:
    """What a worker brings back: rows of three tables, and slices looked at."""

    detections: pa.Table
    boxes: pa.Table
    series: pa.Table
    slices: int


@dataclass(frozen=True, slots=True)
class DetectTask:
    """One worker's share: neighbouring series; an `InferenceTask`."""

    lake_url: str
    versions: Mapping[str, int]
    shown: DetectorInput
    category_model_id: str | None
    settings: DetectSettings
    scope: Scope
    series: tuple[SeriesToLookAt, ...]

    def run(self, model: FindLesions) -> DetectResult:
        """Look through the series.

        Raises:
            LakeError: a slice cannot be read.
            InternalError: the model gives no numbers.
        """
        lake = Lake.open(self.lake_url)
        known = read_series(lake, [one.series_id for one in self.series], self.versions)
        rows: dict[str, list[dict[str, Any]]] = {"detections": [], "boxes": [], "series": []}
        with SliceReader(lake, self.versions["slices"]) as reader:
            for one in self.series:
                tracklets = tracklets_of(
                    reader, known[one.series_id], one.slice_indices, model, self.shown, self.settings,
                    linked=self.scope is Scope.ALL,
                )  # fmt: skip
                self._add_rows(rows, one, known[one.series_id], tracklets)
        return DetectResult(
            pa.Table.from_pylist(rows["detections"], schema=DETECTIONS.schema),
            pa.Table.from_pylist(rows["boxes"], schema=DETECTION_BOXES.schema),
            pa.Table.from_pylist(rows["series"], schema=DETECTION_SERIES.schema),
            sum(len(one.slice_indices) for one in self.series),
        )

    def _add_rows(
        self, rows: dict[str, list[dict[str, Any]]], one: SeriesToLookAt, series: Series, tracklets: Sequence[Tracklet]
    ) -> None:
        unit_id = unit_of(self.shown.model_id, one.series_id)
        places = series.places
        sizes = dict(
            zip(places.indices.tolist(), zip(places.columns.tolist(), places.rows.tolist(), strict=True), strict=True)
        )
        for number, tracklet in enumerate(tracklets, 1):
            tight = {
                box.slice_index: without_padding(box.box, self.shown.box_padding_px, *sizes[box.slice_index])
                for box in tracklet.boxes
            }
            shared = {"unit_id": unit_id, "detection_id": f"{unit_id}/{number}"}
            key = tracklet.key
            rows["detections"].append(
                {
                    **shared,
                    "model_id": self.shown.model_id,
                    "series_id": one.series_id,
                    "patient_id": one.patient_id,
                    "study_id": one.study_id,
                    "slice_index": key.slice_index,
                    "first_slice_index": tracklet.boxes[0].slice_index,
                    "last_slice_index": tracklet.boxes[-1].slice_index,
                    "slices": len(tracklet.boxes),
                    "box_xyxy_px": tight[key.slice_index],
                    "score": key.score,
                    "category": None if self.category_model_id is None else key.category,
                    "category_model_id": self.category_model_id,
                }
            )
            rows["boxes"] += [
                {**shared, "slice_index": box.slice_index, "box_xyxy_px": tight[box.slice_index], "score": box.score}
                for box in tracklet.boxes
            ]
        rows["series"].append(
            {
                "unit_id": unit_id,
                "model_id": self.shown.model_id,
                "series_id": one.series_id,
                "scope": self.scope.value,
                "slices": len(one.slice_indices),
                "detections": len(tracklets),
                "fingerprint": one.fingerprint,
            }
        )


def unit_of(model_id: str, series_id: str) -> str:
    """Names a series' detections by a model, which are replaced together."""
    return f"{model_id}/{series_id}"


def choose_series(
    lake: Lake, choice: SeriesChoice, settings: DetectSettings, versions: Mapping[str, int]
) -> ChosenSeries:
    """The series that are meant, by their names.

    Raises:
        UsageError: the lake has no such series, or patient.
    """
    series = lake.read("series", version=versions["series"], columns=_SERIES_COLUMNS).sort_by("series_id")
    rows = _meant(lake, series.to_pylist(), choice, versions)
    slices = slices_by_series(lake, versions["slices"])
    marked = _marked_slices(lake, versions["lesions"]) if choice.scope is Scope.KEY_SLICES else None
    usable = []
    left_out: Counter[str] = Counter()
    for row in rows:
        indices, _ = slices.get(row["series_id"], ([], []))
        wanted = indices if marked is None else sorted(marked[row["series_id"]] & set(indices))
        reason = _why_not(row, indices, wanted)
        if reason:
            left_out[reason.value] += 1
            continue
        names = row["series_id"], row["patient_id"], row["study_id"]
        prints = (_fingerprint(row["fingerprint"], some, settings) for some in (wanted, indices))
        usable.append(SeriesToLookAt(*names, tuple(wanted), *prints))
    return ChosenSeries(len(rows), tuple(usable), dict(sorted(left_out.items())))


def not_looked_at(lake: Lake, model_id: str, scope: Scope, series: Sequence[SeriesToLookAt]) -> list[SeriesToLookAt]:
    """Those that the model has not looked through in their present state, or not so far as is asked now."""
    columns = ["series_id", "scope", "fingerprint"]
    held = lake.read(DETECTION_SERIES.name, columns=columns, where=pc.field("model_id") == model_id).to_pylist()
    done = {(row["series_id"], row["scope"], row["fingerprint"]) for row in held}
    return [
        one
        for one in series
        if (one.series_id, scope.value, one.fingerprint) not in done
        and (one.series_id, Scope.ALL.value, one.whole_fingerprint) not in done
    ]


def cut_detect_tasks(
    lake: Lake,
    versions: Mapping[str, int],
    model: DetectorModel,
    settings: DetectSettings,
    scope: Scope,
    series: Sequence[SeriesToLookAt],
    slices_per_task: int,
) -> Iterator[DetectTask]:
    """Neighbouring series in tasks of about equal numbers of slices; series are kept whole."""
    shared = lake.url, versions, model.shown, model.category_model_id, settings, scope
    group: list[SeriesToLookAt] = []
    filled = 0
    for one in series:
        if group and filled + len(one.slice_indices) > slices_per_task:
            yield DetectTask(*shared, tuple(group))
            group, filled = [], 0
        group.append(one)
        filled += len(one.slice_indices)
    if group:
        yield DetectTask(*shared, tuple(group))


def _meant(
    lake: Lake, rows: Sequence[dict[str, Any]], choice: SeriesChoice, versions: Mapping[str, int]
) -> list[dict[str, Any]]:
    missing = set(choice.series_ids) - {row["series_id"] for row in rows}
    if missing:
        raise UsageError(
            "the lake has no such series",
            where=min(missing),
            next_step='`lesionary sql "SELECT series_id FROM series"` has them',
        )
    if choice.patient_id is not None and all(row["patient_id"] != choice.patient_id for row in rows):
        raise UsageError(
            "the lake has no series of such a patient",
            where=choice.patient_id,
            next_step='`lesionary sql "FROM patients"` has them',
        )
    splits = published_splits(lake, versions["lesions"]) if choice.split else {}
    return [
        row
        for row in rows
        if (not choice.series_ids or row["series_id"] in choice.series_ids)
        and (choice.patient_id is None or row["patient_id"] == choice.patient_id)
        and (
            choice.split is None
            or (splits.get(row["patient_id"]) or split_of_patient(row["patient_id"])) == choice.split
        )
    ]


def _why_not(row: Mapping[str, Any], indices: Sequence[int], wanted: Sequence[int]) -> LeftOut | None:
    spacing = tuple(math.nan if row[name] is None else float(row[name]) for name in ("spacing_x_mm", "spacing_y_mm"))
    if not indices:
        return LeftOut.NO_IMAGES
    if row["axial"] is False:
        return LeftOut.NOT_AXIAL
    if any(math.isnan(one) for one in spacing):
        return LeftOut.NO_PIXEL_SPACING
    if not is_possible_spacing((spacing[0], spacing[1])):
        return LeftOut.ODD_PIXEL_SPACING
    return None if wanted else LeftOut.NO_MARKED_SLICE


def _fingerprint(series_fingerprint: str, indices: Sequence[int], settings: DetectSettings) -> str:
    text = json.dumps([_FORMAT, series_fingerprint, list(indices), asdict(settings)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _marked_slices(lake: Lake, version: int) -> defaultdict[str, set[int]]:
    rows = lake.read("lesions", version=version, columns=["series_id", "slice_index"])
    found: defaultdict[str, set[int]] = defaultdict(set)
    for series_id, index in zip(rows["series_id"].to_pylist(), rows["slice_index"].to_pylist(), strict=True):
        found[series_id].add(index)
    return found
