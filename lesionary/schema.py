"""Every table of the lake, declared once: its columns, their types, units and meaning.

`docs/data-contract.md` is generated from here, the lake writes no column that is not here, and readers get these
Arrow schemas whatever the Parquet files hold. A column that is not listed cannot leave the ETL: this is the
allow-list that keeps identifiers and free text out.

Changing a table means raising its version and writing a migration in `store/migrations.py`.
"""

from collections.abc import Mapping
from types import MappingProxyType

import pyarrow as pa

from lesionary.columns import (
    CREATED_AT,
    FLAG,
    FLAGS,
    MODEL_ID,
    PATIENT_ID,
    REAL,
    SERIES_ID,
    STUDY_ID,
    TEXT,
    Column,
    Table,
    count,
    real,
    text,
)
from lesionary.detection_tables import (
    CATEGORIES,
    DETECTION_BOXES,
    DETECTION_SERIES,
    DETECTIONS,
    MASKED_LESIONS,
    MASKS,
)

# Raised when a reader of an older release could misread the lake.
LAKE_FORMAT_VERSION = 2


# The 18 columns of DL_info.csv, in the published order and spelling.
RELEASE_COLUMNS: tuple[str, ...] = (
    "File_name",
    "Patient_index",
    "Study_index",
    "Series_ID",
    "Key_slice_index",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
)


_INGEST_ID = text("ingest_id", "the run that wrote the row")
_ROW_FLAGS = Column("flags", FLAGS, "what is odd about this row, as codes of `etl/quality.py`; empty = nothing")

_FINDING_SITE = text(
    "finding_site", "where it is, as scheme:code of a published list; null when unknown", nullable=True
)
_FINDING = text("finding", "what it is, as scheme:code of a published list; null when unknown", nullable=True)
_TRACKING_ID = text("tracking_id", "pseudonym of the identifier that follows it through reports", nullable=True)
_SOURCE_FORMATS = (
    "where the mark came from: dl_info, sr, aim_sr, aim, gsps, key_object, table, rtstruct or segmentation"
)

SERIES = Table(
    "series",
    2,
    "one CT series: who, when, how large, how regular",
    ("series_id",),
    (
        SERIES_ID,
        PATIENT_ID,
        STUDY_ID,
        count("study_index", "order of the study among the patient's, 1-based; null when unknown", nullable=True),
        count("study_day", "days since the patient's first study; null when unknown", unit="day", nullable=True),
        text("source", "kind of source: deeplesion, pacs"),
        text("sex", "F or M; null when unknown", nullable=True),
        real("age_years", "year", "age at the study; null when unknown"),
        count("rows", "height of its images; null without images", unit="px", nullable=True),
        count("columns", "width of its images; null without images", unit="px", nullable=True),
        real("spacing_x_mm", "mm", "distance between pixel centres along a row"),
        real("spacing_y_mm", "mm", "distance between pixel centres along a column"),
        real("spacing_z_mm", "mm", "distance between slices; the smallest one where the series has several"),
        count("slice_count", "slices of this series in the lake"),
        Column(
            "regular_spacing",
            FLAG,
            "one slice interval and no slice missing between the first and the last; null when unknown",
            nullable=True,
        ),
        Column("axial", FLAG, "slices lie across the body; null when unknown", nullable=True),
        real("tilt_deg", "degree", "gantry tilt; null when unknown"),
        Column("single_position", FLAG, "all slices lie at one place; null when unknown", nullable=True),
        Column("has_gaps", FLAG, "an interval is larger than the smallest one; null when unknown", nullable=True),
        Column("doubled_positions", FLAG, "several slices share one place; null when unknown", nullable=True),
        Column(
            "mixed_orientation",
            FLAG,
            "its source series also holds images of another orientation, which are another series here; "
            "null when unknown",
            nullable=True,
        ),
        Column(
            "orientation",
            pa.list_(REAL, 6),
            "direction of a row, then of a column, in patient coordinates (to the left, back and head)",
            nullable=True,
        ),
        real("slice_thickness_mm", "mm", "nominal thickness of a slice; null when unknown"),
        real("window_low_hu", "HU", "lower end of the display window the reader used"),
        real("window_high_hu", "HU", "upper end of the display window the reader used"),
        _ROW_FLAGS,
        text("fingerprint", "digest of the input the row was made from"),
        _INGEST_ID,
    ),
    "series_id",
)

SLICES = Table(
    "slices",
    2,
    "one axial CT image; pixels are int16 HU, losslessly encoded by `lesionary/pixels.py`",
    ("series_id", "slice_index"),
    (
        SERIES_ID,
        count("slice_index", "number of the slice in its source, 1-based; gaps are gaps of the source"),
        real(
            "z_mm",
            "mm",
            "place along the series' axis: slice_index times the interval of its sub-volume in a release, millimetres "
            "from the first slice in a PACS series; null when unknown",
        ),
        count("rows", "height", unit="px"),
        count("columns", "width", unit="px"),
        Column("pixels", pa.binary(), "int16 HU, row after row, encoded", "HU"),
        text("pixel_digest", "digest of the decoded pixels, their shape included"),
        text("image_id", "pseudonym of the image it came from; null in a release", nullable=True),
        count("frame_number", "frame of a multi-frame image, 1-based; null for single frames", nullable=True),
        Column(
            "position_xyz_mm",
            pa.list_(REAL, 3),
            "centre of the first pixel in patient coordinates; null when unknown",
            "mm",
            nullable=True,
        ),
        Column(
            "body_xyxy_px",
            pa.list_(REAL, 4),
            "extent of the patient's trunk, zero-based x_min, y_min, x_max, y_max; null where not looked for",
            "px",
            nullable=True,
        ),
        _ROW_FLAGS,
        _INGEST_ID,
    ),
    "series_id",
)

_AXIS_ENDS = (
    ("long_x1", "long axis, first end, x"),
    ("long_y1", "long axis, first end, y"),
    ("long_x2", "long axis, second end, x"),
    ("long_y2", "long axis, second end, y"),
    ("short_x1", "short axis, first end, x"),
    ("short_y1", "short axis, first end, y"),
    ("short_x2", "short axis, second end, x"),
    ("short_y2", "short axis, second end, y"),
)
_ONE_AXIS = {name: "; null for a single length" if name.startswith("short") else "" for name, _ in _AXIS_ENDS}
COORD_CONVENTION_MEANING = (
    "where the first pixel's centre lies: one_based (1, 1), as in the release; zero_based (0, 0); half_based "
    "(0.5, 0.5), as in DICOM"
)
COORDINATE_COLUMNS: tuple[str, ...] = tuple(f"{name}_px" for name, _ in _AXIS_ENDS)

LESIONS = Table(
    "lesions",
    2,
    "one measurement of one lesion on one slice: two crossing diameters",
    ("lesion_id",),
    (
        text("lesion_id", "stable name; DeepLesion rows are dl-<row number>"),
        count("row_number", "row of the annotation table, 1-based, header not counted", nullable=True),
        SERIES_ID,
        PATIENT_ID,
        STUDY_ID,
        count("slice_index", "key slice: the one measured on"),
        *(
            real(f"{name}_px", "px", f"{meaning}{_ONE_AXIS[name]}", nullable=name.startswith("short"))
            for name, meaning in _AXIS_ENDS
        ),
        text("coord_convention", COORD_CONVENTION_MEANING),
        Column(
            "box_xyxy_px",
            pa.list_(REAL, 4),
            "tight box x_min, y_min, x_max, y_max; padding is a setting",
            "px",
        ),
        real("long_px", "px", "long diameter, recomputed from the points", nullable=False),
        real("short_px", "px", "short diameter, recomputed from the points; null for a single length"),
        real("long_mm", "mm", "long diameter, recomputed; null without a pixel spacing"),
        real("short_mm", "mm", "short diameter, recomputed; null without a pixel spacing or for a single length"),
        real("stated_long", "stated_unit", "long diameter as written in the source"),
        real("stated_short", "stated_unit", "short diameter as written in the source"),
        text("stated_unit", "unit of the stated diameters: px or mm", nullable=True),
        real("stated_ratio", "", "stated over recomputed long diameter, in the stated unit; 1 = they agree"),
        real("axes_angle_deg", "degree", "angle between the two diameters, 0 to 90"),
        real("body_x", "", "centre of the box in the body's extent, 0 to 1 along a row; null where not looked for"),
        real("body_y", "", "centre of the box in the body's extent, 0 to 1 along a column; null where not looked for"),
        real("release_x", "", "normalised location in the body, right to left, as the release gives it"),
        real("release_y", "", "normalised location in the body, front to back, as the release gives it"),
        real("release_z", "", "normalised location in the body, head to foot, as the release gives it"),
        text(
            "lesion_type",
            "one of the eight types of `lesionary/anatomy.py`; null when nobody assigned one",
            nullable=True,
        ),
        Column("possibly_noisy", FLAG, "the source itself doubts the row"),
        text("split", "train, val or test, by patient; null when the source gives none", nullable=True),
        count("range_first_slice", "first slice of the sub-volume published around the key slice", nullable=True),
        count("range_last_slice", "last slice of the sub-volume published around the key slice", nullable=True),
        real("window_low_hu", "HU", "lower end of the display window the reader used"),
        real("window_high_hu", "HU", "upper end of the display window the reader used"),
        text("mark_id", "the mark it was made from; null in a release", nullable=True),
        _FINDING_SITE,
        _FINDING,
        _TRACKING_ID,
        text("source_format", f"{_SOURCE_FORMATS}"),
        real("confidence", "", "how sure the reading of the mark is, 0 to 1", nullable=False),
        _ROW_FLAGS,
        Column(
            "raw",
            pa.struct([pa.field(name, TEXT) for name in RELEASE_COLUMNS]),
            "the annotation row as published, text that is not of the published alphabet left out",
            nullable=True,
        ),
        _INGEST_ID,
    ),
    "series_id",
)

MARKS = Table(
    "marks",
    1,
    "one mark of a reader found in a PACS export, whether or not a lesion was made of it",
    ("mark_id",),
    (
        text("mark_id", "stable name, from the report it stands in and its place there"),
        text("unit_id", "unit of the source it belongs to: its series, or its study's marks without an image"),
        PATIENT_ID,
        STUDY_ID,
        text("series_id", "series of the marked image; null when that image is not there", nullable=True),
        count("slice_index", "the marked slice; null when it is not there", nullable=True),
        text("lesion_id", "lesion made of it; null for a key image, a duplicate or an orphan", nullable=True),
        text("duplicate_of", "mark_id of the mark that says the same; null when none does", nullable=True),
        text("image_id", "pseudonym of the marked image; null when the mark names none", nullable=True),
        count("frame_number", "frame of a multi-frame image, 1-based; null for single frames", nullable=True),
        text("report_id", "pseudonym of the report it stands in"),
        text("shape", "bidirectional, length, outline or key_image"),
        *(real(f"{name}_px", "px", f"{meaning}; null when there is none") for name, meaning in _AXIS_ENDS),
        text("coord_convention", f"{COORD_CONVENTION_MEANING}; null without points", nullable=True),
        real("long_mm", "mm", "long diameter, recomputed; null without points or a pixel spacing"),
        real("short_mm", "mm", "short diameter, recomputed; null without points or a pixel spacing"),
        real("stated_long", "stated_unit", "long diameter as written in the report"),
        real("stated_short", "stated_unit", "short diameter as written in the report"),
        text("stated_unit", "unit of the stated diameters: mm, cm or px; null when it names none", nullable=True),
        real("stated_ratio", "", "stated over recomputed long diameter, in the stated unit; 1 = they agree"),
        _TRACKING_ID,
        _FINDING_SITE,
        _FINDING,
        text("source_format", f"{_SOURCE_FORMATS}"),
        real("confidence", "", "how sure the reading of the mark is, 0 to 1", nullable=False),
        _ROW_FLAGS,
        _INGEST_ID,
    ),
    "unit_id",
)

QUARANTINE = Table(
    "quarantine",
    1,
    "one input that was not taken in, and why",
    (),
    (
        text("unit_id", "unit of the source it belongs to"),
        text("kind", "row (of an annotation table, or an item of a report) or file"),
        text(
            "member",
            "which one: row number, or name inside the source where that is known to hold no identifier",
        ),
        text("reason", "code of `etl/quality.py`"),
        text("detail", "expected and found, never text from the input"),
        _INGEST_ID,
    ),
    "unit_id",
)

UNITS = Table(
    "units",
    2,
    "one unit of work that is in the lake as a whole; written last, so a unit listed here is complete",
    ("unit_id",),
    (
        text("unit_id", "the series, or the annotation table for rows that belong to no series"),
        text("source", "kind of source"),
        text("fingerprint", "digest of names, sizes, checksums, annotation rows and the reading code's version"),
        count("rows_found", "annotation rows and marks of the unit"),
        count("rows_accepted", "of these, taken in without a remark"),
        count("rows_flagged", "of these, taken in with flags"),
        count("rows_quarantined", "of these, not taken in"),
        count("files_found", "files of the unit (images, strays, broken archives)"),
        count("files_accepted", "of these, taken in without a remark"),
        count("files_flagged", "of these, taken in with flags"),
        count("files_quarantined", "of these, not taken in"),
        count("slices", "rows of the unit in table slices"),
        count("lesions", "rows of the unit in table lesions"),
        count("marks", "rows of the unit in table marks"),
        _INGEST_ID,
    ),
    "unit_id",
)

_FEATURE_SET_ID = text("feature_set_id", "the feature set, as name@version")
_RUN = text("run", "name of the run of `lesionary match`")
_LESION_ID = text("lesion_id", "the lesion")

EMBEDDINGS = Table(
    "embeddings",
    2,
    "one lesion's vector in one feature set",
    ("feature_set_id", "lesion_id"),
    (
        _FEATURE_SET_ID,
        _LESION_ID,
        Column("vector", pa.list_(pa.float32()), "as many numbers as the set's dimension"),
        text(
            "lesion_ingest_id",
            "ingest_id of the lesion's row that it was made from: where that is another one by now, a new vector is "
            "due; null when unknown",
            nullable=True,
        ),
    ),
    "feature_set_id",
)

FEATURE_SETS = Table(
    "feature_sets",
    2,
    "one version of a feature set whose vectors were computed outside the store",
    ("feature_set_id",),
    (
        _FEATURE_SET_ID,
        text("name", "what people call it"),
        count("version", "counts the sets of one name, from 1"),
        text("model_id", "the model, or other owner, that made the vectors"),
        count("dimension", "numbers in a vector"),
        text("metric", "distance between two vectors: euclidean"),
        count(
            "lesions_version",
            "version of the lake's table lesions it was computed from; null when unknown",
            nullable=True,
        ),
        CREATED_AT,
        real("t1", "", "`lesionary match` takes marks of one study below this distance for one lesion; null: unknown"),
        real("t2", "", "`lesionary match` takes marks of two studies above it for two lesions; null: unknown"),
    ),
    "feature_set_id",
)

MATCH_EDGES = Table(
    "match_edges",
    1,
    "two marks of one patient that a run of `lesionary match` tied together",
    (),
    (
        _RUN,
        PATIENT_ID,
        text("kind", "same_study, same_lesion, merged or split"),
        text("from_lesion_id", "the earlier mark"),
        text("to_lesion_id", "the later mark"),
        real("distance", "", "between their vectors, in the feature set's own scale", nullable=False),
        real("confidence", "", "how close and how distinct the pair is, 0 to 1; null within a study"),
    ),
    "run",
)

MATCHES = Table(
    "matches",
    1,
    "what a run of `lesionary match` says of one mark: which lesion it is a sighting of, and what became of that",
    (),
    (
        _RUN,
        PATIENT_ID,
        STUDY_ID,
        text("lesion_id", "the mark; null in the row that says a lesion has vanished", nullable=True),
        text("group_id", "the lesion through all studies, unique in the run"),
        text("state", "baseline, new, persistent, vanished, merged or split"),
        real("confidence", "", "of the best edge that ties it to its group, 0 to 1; null without an edge"),
    ),
    "run",
)

MATCH_RUNS = Table(
    "match_runs",
    1,
    "one run of `lesionary match`",
    ("run",),
    (
        _RUN,
        _FEATURE_SET_ID,
        real("t1", "", "marks of one study below this distance are one lesion", nullable=False),
        real("t2", "", "marks of two studies above this distance are two lesions", nullable=False),
        count("lesions_version", "version of the lake's table lesions that was matched"),
        count("patients", "patients matched"),
        count("lesions", "marks matched"),
        count("groups", "lesions found"),
        CREATED_AT,
    ),
    "run",
)


SLICE_HEIGHTS = Table(
    "slice_heights",
    1,
    "how far down the body a model puts one slice; written series by series as they are scored",
    ("model_id", "series_id", "slice_index"),
    (
        text("unit_id", "the model and the series, as model_id/series_id"),
        MODEL_ID,
        SERIES_ID,
        count("slice_index", "number of the slice in its source, 1-based"),
        real("z_mm", "mm", "place of the slice when it was scored, as in table slices"),
        Column(
            "height",
            pa.float32(),
            "as the model gives it: 0 to 1 from head to foot, by percentiles of the slices it was trained on",
        ),
        text(
            "fingerprint",
            "of the series when it was scored; a series that has another one by now has to be scored again",
        ),
    ),
    "unit_id",
)

SERIES_LOCATIONS = Table(
    "series_locations",
    1,
    "what a model's heights say of one series: its order, its slice interval, and the part of the body it shows",
    ("model_id", "series_id"),
    (
        MODEL_ID,
        SERIES_ID,
        count("slices", "slices scored"),
        real("correlation", "", "of height with the slices' place; null for fewer than three places"),
        Column(
            "reversed",
            FLAG,
            "the slices run from foot to head; null where the correlation is too weak or the slices too few to tell",
            nullable=True,
        ),
        real("stated_interval_mm", "mm", "distance between slices as the series states it"),
        real(
            "estimated_interval_mm", "mm", "distance at which heights would rise as they do in other series of the lake"
        ),
        real("interval_ratio", "", "estimated over stated interval; 1 = they agree"),
        Column(
            "wrong_interval",
            FLAG,
            "the ratio is beyond the factor of `etl/height_fits.py`, either way; null where too little of the body is "
            "seen to tell",
            nullable=True,
        ),
        real("smallest_height", "", "of the slices, nearest the head, odd ones left out"),
        real("largest_height", "", "of the slices, nearest the feet, odd ones left out"),
        text(
            "body_range",
            "parts of the body shown, such as chest+abdomen; null where nothing tells the borders between them",
            nullable=True,
        ),
    ),
    "model_id",
)

LOCATIONS = Table(
    "locations",
    1,
    "where in the body a model puts one lesion",
    ("model_id", "lesion_id"),
    (
        MODEL_ID,
        _LESION_ID,
        real("x", "", "right to left, 0 to 1; null for a model that tells heights only"),
        real("y", "", "front to back, 0 to 1; null for a model that tells heights only"),
        real(
            "z",
            "",
            "head to foot: in the release's scale where the model was brought to it (`location_models`), else as in "
            "slice_heights; smoothed along the series; null for a model that tells no heights",
        ),
    ),
    "model_id",
)

LOCATION_MODELS = Table(
    "location_models",
    1,
    "a model that has located this lake's lesions, and how its heights were brought to the release's scale; written "
    "last, so a model listed here has its rows in `locations`",
    ("model_id",),
    (
        MODEL_ID,
        Column(
            "model_created_at",
            pa.timestamp("us", tz="UTC"),
            "when the model was made; `lesion_features` takes the newest one's places",
        ),
        real("height_per_mm", "1/mm", "usual rise of height along a series; null with too few series to tell"),
        real("release_scale", "", "z = release_offset + release_scale × height; null where nothing was fitted"),
        real("release_offset", "", "z = release_offset + release_scale × height; null where nothing was fitted"),
        real("release_error", "", "median distance of the fitted from the release's z; null where nothing was fitted"),
        count("release_lesions", "lesions with the release's z and images, which the fit is made of"),
        real("chest_ends", "", "height of the border between chest and abdomen; null where nothing tells it"),
        real("pelvis_begins", "", "height of the border between abdomen and pelvis; null where nothing tells it"),
        count("series", "series the model has scored"),
        count("lesions", "lesions it has given a place"),
        count("lesions_version", "version of the lake's table lesions that was located"),
        CREATED_AT,
    ),
    "model_id",
)

LABELS = Table(
    "labels",
    1,
    "the type or category that a model gives one lesion in one round of labelling",
    ("model_id", "lesion_id", "round"),
    (
        MODEL_ID,
        _LESION_ID,
        count("round", "rounds of labelling before it; a categoriser's last is its network's own word"),
        text("label", "one of the eight types of `lesionary/anatomy.py`, or the number of a category"),
        real("score", "", "probability of the label, 0 to 1", nullable=False),
    ),
    "model_id",
)

# In commit order: whoever sees a row of a later table finds its rows in the earlier ones.
SOURCE_TABLES: Mapping[str, Table] = MappingProxyType(
    {table.name: table for table in (SLICES, SERIES, LESIONS, MARKS, QUARANTINE, UNITS)}
)
"""What an ingest writes."""

RESULT_TABLES: Mapping[str, Table] = MappingProxyType(
    {
        table.name: table
        for table in (
            EMBEDDINGS,
            FEATURE_SETS,
            MATCH_EDGES,
            MATCHES,
            MATCH_RUNS,
            SLICE_HEIGHTS,
            SERIES_LOCATIONS,
            LOCATIONS,
            LOCATION_MODELS,
            LABELS,
            CATEGORIES,
            DETECTION_BOXES,
            DETECTIONS,
            DETECTION_SERIES,
            MASKS,
            MASKED_LESIONS,
        )
    }
)
"""What was computed from that; a lake that holds no result of a kind may lack its table."""

TABLES: Mapping[str, Table] = MappingProxyType({**SOURCE_TABLES, **RESULT_TABLES})
