"""Tables of what was found without a reader's mark: categories, detections, and masks of lesions and detections."""

import pyarrow as pa

from lesionary.columns import (
    CREATED_AT,
    FLAG,
    MODEL_ID,
    PATIENT_ID,
    REAL,
    SERIES_ID,
    STUDY_ID,
    Column,
    Table,
    count,
    real,
    text,
)

_DETECTION_ID = text(
    "detection_id", "the detection, as model_id/series_id/number; the surest of its series is number 1"
)
_UNIT_ID = text("unit_id", "the model and the series, as model_id/series_id")
_BOX = Column(
    "box_xyxy_px", pa.list_(REAL, 4), "x_min, y_min, x_max, y_max; the first pixel's centre lies at (0, 0)", "px"
)
_MASK_UNIT = text("unit_id", "the method, for detections their model's id, and the series, with / between them")
_METHOD = text("method", "how it was made, with its version, such as contrast-1")

CATEGORIES = Table(
    "categories",
    1,
    "one category that a categoriser sorts lesions into, and what people call it",
    ("model_id", "category"),
    (
        MODEL_ID,
        count("category", "its number, from 0; table labels names it by this number"),
        text("name", "what a person called it; null until somebody has", nullable=True),
        count("lesions", "lesions of this category in the last round"),
        CREATED_AT,
    ),
    "model_id",
)

DETECTION_BOXES = Table(
    "detection_boxes",
    1,
    "one detection on one of the slices that it goes through",
    ("detection_id", "slice_index"),
    (
        _UNIT_ID,
        _DETECTION_ID,
        count("slice_index", "number of the slice in its source, 1-based"),
        _BOX,
        real("score", "", "how sure the detector is on this slice, 0 to 1", nullable=False),
    ),
    "unit_id",
)

DETECTIONS = Table(
    "detections",
    1,
    "one lesion that a detector sees in one series: its boxes on neighbouring slices, taken together",
    ("detection_id",),
    (
        _DETECTION_ID,
        _UNIT_ID,
        MODEL_ID,
        SERIES_ID,
        PATIENT_ID,
        STUDY_ID,
        count("slice_index", "key slice: where the detector is surest"),
        count("first_slice_index", "first slice with a box"),
        count("last_slice_index", "last slice with a box"),
        count("slices", "slices with a box"),
        Column(_BOX.name, _BOX.type, f"on the key slice: {_BOX.meaning}", "px"),
        real("score", "", "of the key slice, 0 to 1", nullable=False),
        count("category", "of table categories; null for a detector of one class", nullable=True),
        text("category_model_id", "the categoriser whose category it is; null for one class", nullable=True),
    ),
    "unit_id",
)

DETECTION_SERIES = Table(
    "detection_series",
    1,
    "one series that a detector has looked through; written last, so that its detections are there as a whole",
    ("unit_id",),
    (
        _UNIT_ID,
        MODEL_ID,
        SERIES_ID,
        text("scope", "all: every slice, boxes linked from slice to slice; key_slices: marked slices, each by itself"),
        count("slices", "slices looked at"),
        count("detections", "detections found"),
        text(
            "fingerprint",
            "digest of the series at that time, of the slices looked at and of the thresholds; one that has another "
            "by now is due again",
        ),
    ),
    "unit_id",
)

MASKS = Table(
    "masks",
    1,
    "the pixels of one lesion, or of one detection, on one slice",
    ("method", "lesion_id", "slice_index"),
    (
        _MASK_UNIT,
        _METHOD,
        text("lesion_id", "the lesion, or the detection"),
        SERIES_ID,
        count("slice_index", "number of the slice in its source, 1-based"),
        count("left_px", "column of its first pixel, zero-based", unit="px"),
        count("top_px", "row of its first pixel, zero-based", unit="px"),
        count("columns", "width", unit="px"),
        count("rows", "height", unit="px"),
        Column(
            "runs",
            pa.list_(pa.int32()),
            "lengths of runs outside and inside by turns, row after row, outside first; their sum is rows × columns",
            "px",
        ),
    ),
    "unit_id",
)

MASKED_LESIONS = Table(
    "masked_lesions",
    1,
    "what the masks of one lesion, or of one detection, measure, or why it has none",
    ("method", "lesion_id"),
    (
        _MASK_UNIT,
        _METHOD,
        text("lesion_id", "the lesion, or the detection"),
        text("marked_by", "reader for a lesion; the model's id for a detection"),
        SERIES_ID,
        count("slice_index", "key slice: the one measured on"),
        text("left_out", "why there is no mask; null where there is one", nullable=True),
        Column(
            "long_axis_px",
            pa.list_(REAL, 4),
            "x1, y1, x2, y2 of the long diameter; the first pixel's centre lies at (0, 0)",
            "px",
            nullable=True,
        ),
        Column(
            "short_axis_px",
            pa.list_(REAL, 4),
            "x1, y1, x2, y2 of the short diameter, square to the long one",
            "px",
            nullable=True,
        ),
        real("long_mm", "mm", "long diameter of the mask; null without a pixel spacing"),
        real("short_mm", "mm", "short diameter of the mask; null without a pixel spacing"),
        real("area_mm2", "mm²", "of the mask on the key slice; null without a pixel spacing"),
        real("volume_mm3", "mm³", "of all slices; null where the distance between slices is unknown"),
        count("slices", "slices with a mask"),
        Column(
            "cut_short",
            FLAG,
            "the lake's slices, or those without a gap, end before the lesion does: its volume is a lower bound",
            nullable=True,
        ),
        text("fingerprint", "digest of the mark and the series it was made from; one that has another by now is due"),
    ),
    "unit_id",
)
