"""Every table of the lake, declared once: its columns, their types, units and meaning.

`docs/data-contract.md` is generated from here, the lake writes no column that is not here, and readers get these
Arrow schemas whatever the Parquet files hold. A column that is not listed cannot leave the ETL: this is the
allow-list that keeps identifiers and free text out.

Changing a table means raising its version and writing a migration in `store/migrations.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import pyarrow as pa

# Raised when a reader of an older release could misread the lake.
LAKE_FORMAT_VERSION = 2


@dataclass(frozen=True, slots=True)
class Column:
    """One column: what it holds, in which unit, and whether it may be null."""

    name: str
    type: pa.DataType
    meaning: str
    unit: str = ""
    nullable: bool = False

    def field(self) -> pa.Field:
        """The Arrow field, unit and meaning in its metadata."""
        metadata = {"meaning": self.meaning} | ({"unit": self.unit} if self.unit else {})
        return pa.field(self.name, self.type, nullable=self.nullable, metadata=metadata)


@cache
def _arrow_schema(name: str, version: int, columns: tuple[Column, ...]) -> pa.Schema:
    # Asked for with every few rows that are written.
    metadata = {"table": name, "version": str(version)}
    return pa.schema([column.field() for column in columns], metadata=metadata)


@dataclass(frozen=True, slots=True)
class Table:
    """One table of the lake."""

    name: str
    version: int
    meaning: str
    key: tuple[str, ...]
    """Columns that together name a row; no two live rows share them. Empty: rows need no name."""
    columns: tuple[Column, ...]
    unit_column: str
    """Names the unit of work a row came from; replacing a unit replaces all its rows."""

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with the table's name and version in its metadata."""
        return _arrow_schema(self.name, self.version, self.columns)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(column.name for column in self.columns)


_TEXT = pa.string()
_COUNT = pa.int32()
_REAL = pa.float64()
_FLAG = pa.bool_()
_FLAGS = pa.list_(pa.string())

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


def _text(name: str, meaning: str, *, nullable: bool = False) -> Column:
    return Column(name, _TEXT, meaning, nullable=nullable)


def _real(name: str, unit: str, meaning: str, *, nullable: bool = True) -> Column:
    return Column(name, _REAL, meaning, unit, nullable)


def _count(name: str, meaning: str, *, unit: str = "", nullable: bool = False) -> Column:
    return Column(name, _COUNT, meaning, unit, nullable)


_SERIES_ID = _text("series_id", "the series, with its source's namespace in front")
_PATIENT_ID = _text("patient_id", "the patient's pseudonym, with its source's namespace in front")
_STUDY_ID = _text("study_id", "the study (one visit to the scanner)")
_INGEST_ID = _text("ingest_id", "the run that wrote the row")
_ROW_FLAGS = Column("flags", _FLAGS, "what is odd about this row, as codes of `etl/quality.py`; empty = nothing")

_FINDING_SITE = _text(
    "finding_site", "where it is, as scheme:code of a published list; null when unknown", nullable=True
)
_FINDING = _text("finding", "what it is, as scheme:code of a published list; null when unknown", nullable=True)
_TRACKING_ID = _text("tracking_id", "pseudonym of the identifier that follows it through reports", nullable=True)
_SOURCE_FORMATS = (
    "where the mark came from: dl_info, sr, aim_sr, aim, gsps, key_object, table, rtstruct or segmentation"
)

SERIES = Table(
    "series",
    2,
    "one CT series: who, when, how large, how regular",
    ("series_id",),
    (
        _SERIES_ID,
        _PATIENT_ID,
        _STUDY_ID,
        _count("study_index", "order of the study among the patient's, 1-based; null when unknown", nullable=True),
        _count("study_day", "days since the patient's first study; null when unknown", unit="day", nullable=True),
        _text("source", "kind of source: deeplesion, pacs"),
        _text("sex", "F or M; null when unknown", nullable=True),
        _real("age_years", "year", "age at the study; null when unknown"),
        _count("rows", "height of its images; null without images", unit="px", nullable=True),
        _count("columns", "width of its images; null without images", unit="px", nullable=True),
        _real("spacing_x_mm", "mm", "distance between pixel centres along a row"),
        _real("spacing_y_mm", "mm", "distance between pixel centres along a column"),
        _real("spacing_z_mm", "mm", "distance between slices; the smallest one where the series has several"),
        _count("slice_count", "slices of this series in the lake"),
        Column(
            "regular_spacing",
            _FLAG,
            "one slice interval and no slice missing between the first and the last; null when unknown",
            nullable=True,
        ),
        Column("axial", _FLAG, "slices lie across the body; null when unknown", nullable=True),
        _real("tilt_deg", "degree", "gantry tilt; null when unknown"),
        Column("single_position", _FLAG, "all slices lie at one place; null when unknown", nullable=True),
        Column("has_gaps", _FLAG, "an interval is larger than the smallest one; null when unknown", nullable=True),
        Column("doubled_positions", _FLAG, "several slices share one place; null when unknown", nullable=True),
        Column(
            "mixed_orientation",
            _FLAG,
            "its source series also holds images of another orientation, which are another series here; "
            "null when unknown",
            nullable=True,
        ),
        Column(
            "orientation",
            pa.list_(_REAL, 6),
            "direction of a row, then of a column, in patient coordinates (to the left, back and head)",
            nullable=True,
        ),
        _real("slice_thickness_mm", "mm", "nominal thickness of a slice; null when unknown"),
        _real("window_low_hu", "HU", "lower end of the display window the reader used"),
        _real("window_high_hu", "HU", "upper end of the display window the reader used"),
        _ROW_FLAGS,
        _text("fingerprint", "digest of the input the row was made from"),
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
        _SERIES_ID,
        _count("slice_index", "number of the slice in its source, 1-based; gaps are gaps of the source"),
        _real(
            "z_mm",
            "mm",
            "place along the series' axis: slice_index times the interval of its sub-volume in a release, millimetres "
            "from the first slice in a PACS series; null when unknown",
        ),
        _count("rows", "height", unit="px"),
        _count("columns", "width", unit="px"),
        Column("pixels", pa.binary(), "int16 HU, row after row, encoded", "HU"),
        _text("pixel_digest", "digest of the decoded pixels, their shape included"),
        _text("image_id", "pseudonym of the image it came from; null in a release", nullable=True),
        _count("frame_number", "frame of a multi-frame image, 1-based; null for single frames", nullable=True),
        Column(
            "position_xyz_mm",
            pa.list_(_REAL, 3),
            "centre of the first pixel in patient coordinates; null when unknown",
            "mm",
            nullable=True,
        ),
        Column(
            "body_xyxy_px",
            pa.list_(_REAL, 4),
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
        _text("lesion_id", "stable name; DeepLesion rows are dl-<row number>"),
        _count("row_number", "row of the annotation table, 1-based, header not counted", nullable=True),
        _SERIES_ID,
        _PATIENT_ID,
        _STUDY_ID,
        _count("slice_index", "key slice: the one measured on"),
        *(
            _real(f"{name}_px", "px", f"{meaning}{_ONE_AXIS[name]}", nullable=name.startswith("short"))
            for name, meaning in _AXIS_ENDS
        ),
        _text("coord_convention", COORD_CONVENTION_MEANING),
        Column(
            "box_xyxy_px",
            pa.list_(_REAL, 4),
            "tight box x_min, y_min, x_max, y_max; padding is a setting",
            "px",
        ),
        _real("long_px", "px", "long diameter, recomputed from the points", nullable=False),
        _real("short_px", "px", "short diameter, recomputed from the points; null for a single length"),
        _real("long_mm", "mm", "long diameter, recomputed; null without a pixel spacing"),
        _real("short_mm", "mm", "short diameter, recomputed; null without a pixel spacing or for a single length"),
        _real("stated_long", "stated_unit", "long diameter as written in the source"),
        _real("stated_short", "stated_unit", "short diameter as written in the source"),
        _text("stated_unit", "unit of the stated diameters: px or mm", nullable=True),
        _real("stated_ratio", "", "stated over recomputed long diameter, in the stated unit; 1 = they agree"),
        _real("axes_angle_deg", "degree", "angle between the two diameters, 0 to 90"),
        _real("body_x", "", "centre of the box in the body's extent, 0 to 1 along a row; null where not looked for"),
        _real("body_y", "", "centre of the box in the body's extent, 0 to 1 along a column; null where not looked for"),
        _real("release_x", "", "normalised location in the body, right to left, as the release gives it"),
        _real("release_y", "", "normalised location in the body, front to back, as the release gives it"),
        _real("release_z", "", "normalised location in the body, head to foot, as the release gives it"),
        _text(
            "lesion_type",
            "one of the eight types of `lesionary/anatomy.py`; null when nobody assigned one",
            nullable=True,
        ),
        Column("possibly_noisy", _FLAG, "the source itself doubts the row"),
        _text("split", "train, val or test, by patient; null when the source gives none", nullable=True),
        _count("range_first_slice", "first slice of the sub-volume published around the key slice", nullable=True),
        _count("range_last_slice", "last slice of the sub-volume published around the key slice", nullable=True),
        _real("window_low_hu", "HU", "lower end of the display window the reader used"),
        _real("window_high_hu", "HU", "upper end of the display window the reader used"),
        _text("mark_id", "the mark it was made from; null in a release", nullable=True),
        _FINDING_SITE,
        _FINDING,
        _TRACKING_ID,
        _text("source_format", f"{_SOURCE_FORMATS}"),
        _real("confidence", "", "how sure the reading of the mark is, 0 to 1", nullable=False),
        _ROW_FLAGS,
        Column(
            "raw",
            pa.struct([pa.field(name, _TEXT) for name in RELEASE_COLUMNS]),
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
        _text("mark_id", "stable name, from the report it stands in and its place there"),
        _text("unit_id", "unit of the source it belongs to: its series, or its study's marks without an image"),
        _PATIENT_ID,
        _STUDY_ID,
        _text("series_id", "series of the marked image; null when that image is not there", nullable=True),
        _count("slice_index", "the marked slice; null when it is not there", nullable=True),
        _text("lesion_id", "lesion made of it; null for a key image, a duplicate or an orphan", nullable=True),
        _text("duplicate_of", "mark_id of the mark that says the same; null when none does", nullable=True),
        _text("image_id", "pseudonym of the marked image; null when the mark names none", nullable=True),
        _count("frame_number", "frame of a multi-frame image, 1-based; null for single frames", nullable=True),
        _text("report_id", "pseudonym of the report it stands in"),
        _text("shape", "bidirectional, length, outline or key_image"),
        *(_real(f"{name}_px", "px", f"{meaning}; null when there is none") for name, meaning in _AXIS_ENDS),
        _text("coord_convention", f"{COORD_CONVENTION_MEANING}; null without points", nullable=True),
        _real("long_mm", "mm", "long diameter, recomputed; null without points or a pixel spacing"),
        _real("short_mm", "mm", "short diameter, recomputed; null without points or a pixel spacing"),
        _real("stated_long", "stated_unit", "long diameter as written in the report"),
        _real("stated_short", "stated_unit", "short diameter as written in the report"),
        _text("stated_unit", "unit of the stated diameters: mm, cm or px; null when it names none", nullable=True),
        _real("stated_ratio", "", "stated over recomputed long diameter, in the stated unit; 1 = they agree"),
        _TRACKING_ID,
        _FINDING_SITE,
        _FINDING,
        _text("source_format", f"{_SOURCE_FORMATS}"),
        _real("confidence", "", "how sure the reading of the mark is, 0 to 1", nullable=False),
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
        _text("unit_id", "unit of the source it belongs to"),
        _text("kind", "row (of an annotation table, or an item of a report) or file"),
        _text(
            "member",
            "which one: row number, or name inside the source where that is known to hold no identifier",
        ),
        _text("reason", "code of `etl/quality.py`"),
        _text("detail", "expected and found, never text from the input"),
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
        _text("unit_id", "the series, or the annotation table for rows that belong to no series"),
        _text("source", "kind of source"),
        _text("fingerprint", "digest of names, sizes, checksums, annotation rows and the reading code's version"),
        _count("rows_found", "annotation rows and marks of the unit"),
        _count("rows_accepted", "of these, taken in without a remark"),
        _count("rows_flagged", "of these, taken in with flags"),
        _count("rows_quarantined", "of these, not taken in"),
        _count("files_found", "files of the unit (images, strays, broken archives)"),
        _count("files_accepted", "of these, taken in without a remark"),
        _count("files_flagged", "of these, taken in with flags"),
        _count("files_quarantined", "of these, not taken in"),
        _count("slices", "rows of the unit in table slices"),
        _count("lesions", "rows of the unit in table lesions"),
        _count("marks", "rows of the unit in table marks"),
        _INGEST_ID,
    ),
    "unit_id",
)

_FEATURE_SET_ID = _text("feature_set_id", "the feature set, as name@version")
_RUN = _text("run", "name of the run of `lesionary match`")
_LESION_ID = _text("lesion_id", "the lesion")
_CREATED_AT = Column("created_at", pa.timestamp("us", tz="UTC"), "when it was made")

EMBEDDINGS = Table(
    "embeddings",
    2,
    "one lesion's vector in one feature set",
    ("feature_set_id", "lesion_id"),
    (
        _FEATURE_SET_ID,
        _LESION_ID,
        Column("vector", pa.list_(pa.float32()), "as many numbers as the set's dimension"),
        _text(
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
        _text("name", "what people call it"),
        _count("version", "counts the sets of one name, from 1"),
        _text("model_id", "the model, or other owner, that made the vectors"),
        _count("dimension", "numbers in a vector"),
        _text("metric", "distance between two vectors: euclidean"),
        _count(
            "lesions_version",
            "version of the lake's table lesions it was computed from; null when unknown",
            nullable=True,
        ),
        _CREATED_AT,
        _real("t1", "", "`lesionary match` takes marks of one study below this distance for one lesion; null: unknown"),
        _real("t2", "", "`lesionary match` takes marks of two studies above it for two lesions; null: unknown"),
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
        _PATIENT_ID,
        _text("kind", "same_study, same_lesion, merged or split"),
        _text("from_lesion_id", "the earlier mark"),
        _text("to_lesion_id", "the later mark"),
        _real("distance", "", "between their vectors, in the feature set's own scale", nullable=False),
        _real("confidence", "", "how close and how distinct the pair is, 0 to 1; null within a study"),
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
        _PATIENT_ID,
        _STUDY_ID,
        _text("lesion_id", "the mark; null in the row that says a lesion has vanished", nullable=True),
        _text("group_id", "the lesion through all studies, unique in the run"),
        _text("state", "baseline, new, persistent, vanished, merged or split"),
        _real("confidence", "", "of the best edge that ties it to its group, 0 to 1; null without an edge"),
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
        _real("t1", "", "marks of one study below this distance are one lesion", nullable=False),
        _real("t2", "", "marks of two studies above this distance are two lesions", nullable=False),
        _count("lesions_version", "version of the lake's table lesions that was matched"),
        _count("patients", "patients matched"),
        _count("lesions", "marks matched"),
        _count("groups", "lesions found"),
        _CREATED_AT,
    ),
    "run",
)

_MODEL_ID = _text("model_id", "the model of the lake's folder models that said it")

SLICE_HEIGHTS = Table(
    "slice_heights",
    1,
    "how far down the body a model puts one slice; written series by series as they are scored",
    ("model_id", "series_id", "slice_index"),
    (
        _text("unit_id", "the model and the series, as model_id/series_id"),
        _MODEL_ID,
        _SERIES_ID,
        _count("slice_index", "number of the slice in its source, 1-based"),
        _real("z_mm", "mm", "place of the slice when it was scored, as in table slices"),
        Column(
            "height",
            pa.float32(),
            "as the model gives it: 0 to 1 from head to foot, by percentiles of the slices it was trained on",
        ),
        _text(
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
        _MODEL_ID,
        _SERIES_ID,
        _count("slices", "slices scored"),
        _real("correlation", "", "of height with the slices' place; null for fewer than three places"),
        Column(
            "reversed",
            _FLAG,
            "the slices run from foot to head; null where the correlation is too weak or the slices too few to tell",
            nullable=True,
        ),
        _real("stated_interval_mm", "mm", "distance between slices as the series states it"),
        _real(
            "estimated_interval_mm", "mm", "distance at which heights would rise as they do in other series of the lake"
        ),
        _real("interval_ratio", "", "estimated over stated interval; 1 = they agree"),
        Column(
            "wrong_interval",
            _FLAG,
            "the ratio is beyond the factor of `etl/height_fits.py`, either way; null where too little of the body is "
            "seen to tell",
            nullable=True,
        ),
        _real("smallest_height", "", "of the slices, nearest the head, odd ones left out"),
        _real("largest_height", "", "of the slices, nearest the feet, odd ones left out"),
        _text(
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
        _MODEL_ID,
        _LESION_ID,
        _real("x", "", "right to left, 0 to 1; null for a model that tells heights only"),
        _real("y", "", "front to back, 0 to 1; null for a model that tells heights only"),
        _real(
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
        _MODEL_ID,
        Column(
            "model_created_at",
            pa.timestamp("us", tz="UTC"),
            "when the model was made; `lesion_features` takes the newest one's places",
        ),
        _real("height_per_mm", "1/mm", "usual rise of height along a series; null with too few series to tell"),
        _real("release_scale", "", "z = release_offset + release_scale × height; null where nothing was fitted"),
        _real("release_offset", "", "z = release_offset + release_scale × height; null where nothing was fitted"),
        _real("release_error", "", "median distance of the fitted from the release's z; null where nothing was fitted"),
        _count("release_lesions", "lesions with the release's z and images, which the fit is made of"),
        _real("chest_ends", "", "height of the border between chest and abdomen; null where nothing tells it"),
        _real("pelvis_begins", "", "height of the border between abdomen and pelvis; null where nothing tells it"),
        _count("series", "series the model has scored"),
        _count("lesions", "lesions it has given a place"),
        _count("lesions_version", "version of the lake's table lesions that was located"),
        _CREATED_AT,
    ),
    "model_id",
)

LABELS = Table(
    "labels",
    1,
    "the type a model gives one lesion in one round of labelling",
    ("model_id", "lesion_id", "round"),
    (
        _MODEL_ID,
        _LESION_ID,
        _count("round", "rounds of refinement before it: 0 = from the seed lesions"),
        _text("label", "one of the eight types of `lesionary/anatomy.py`"),
        _real("score", "", "probability of the label, 0 to 1", nullable=False),
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
        )
    }
)
"""What was computed from that; a lake that holds no result of a kind may lack its table."""

TABLES: Mapping[str, Table] = MappingProxyType({**SOURCE_TABLES, **RESULT_TABLES})
