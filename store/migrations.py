"""The store's own schema, as numbered steps that are applied in order, each in a transaction, each once.

Rows from the lake live in schema `lake_rows`, every row with the number of the shard it came from; people see the
views of the same names in `main`. No pyarrow here: `lesionary sql` must answer before pyarrow could be imported. That
these columns are the lake's is checked by a test instead.
"""

from dataclasses import dataclass

import duckdb

from lesionary.errors import StoreError

_BOOKKEEPING = """
CREATE SCHEMA IF NOT EXISTS store;
CREATE TABLE IF NOT EXISTS store.migrations (
    number INTEGER PRIMARY KEY, name VARCHAR NOT NULL, applied_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
"""

_LAKE_ROWS = """
CREATE SCHEMA lake_rows;

CREATE SEQUENCE store.shard_numbers;
CREATE TABLE store.shards (
    table_name VARCHAR NOT NULL, path VARCHAR NOT NULL,
    shard INTEGER NOT NULL DEFAULT nextval('store.shard_numbers'),
    PRIMARY KEY (table_name, path)
);
CREATE TABLE store.synced (
    table_name VARCHAR PRIMARY KEY, lake_version BIGINT NOT NULL, synced_at TIMESTAMPTZ NOT NULL
);

CREATE TABLE lake_rows.series (
    series_id VARCHAR, patient_id VARCHAR, study_id VARCHAR, study_index INTEGER, study_day INTEGER, source VARCHAR,
    sex VARCHAR, age_years DOUBLE, rows INTEGER, columns INTEGER, spacing_x_mm DOUBLE, spacing_y_mm DOUBLE,
    spacing_z_mm DOUBLE, slice_count INTEGER, regular_spacing BOOLEAN, axial BOOLEAN, tilt_deg DOUBLE,
    single_position BOOLEAN, window_low_hu DOUBLE, window_high_hu DOUBLE, flags VARCHAR[], fingerprint VARCHAR,
    ingest_id VARCHAR, shard INTEGER
);
CREATE TABLE lake_rows.slices (
    series_id VARCHAR, slice_index INTEGER, z_mm DOUBLE, rows INTEGER, columns INTEGER, pixel_digest VARCHAR,
    flags VARCHAR[], ingest_id VARCHAR, shard INTEGER
);
CREATE TABLE lake_rows.lesions (
    lesion_id VARCHAR, row_number INTEGER, series_id VARCHAR, patient_id VARCHAR, study_id VARCHAR,
    slice_index INTEGER, long_x1_px DOUBLE, long_y1_px DOUBLE, long_x2_px DOUBLE, long_y2_px DOUBLE,
    short_x1_px DOUBLE, short_y1_px DOUBLE, short_x2_px DOUBLE, short_y2_px DOUBLE, coord_convention VARCHAR,
    box_xyxy_px DOUBLE[4], long_px DOUBLE, short_px DOUBLE, long_mm DOUBLE, short_mm DOUBLE, stated_long DOUBLE,
    stated_short DOUBLE, stated_unit VARCHAR, stated_ratio DOUBLE, axes_angle_deg DOUBLE, release_x DOUBLE,
    release_y DOUBLE, release_z DOUBLE, lesion_type VARCHAR, possibly_noisy BOOLEAN, split VARCHAR,
    range_first_slice INTEGER, range_last_slice INTEGER, window_low_hu DOUBLE, window_high_hu DOUBLE,
    source_format VARCHAR, confidence DOUBLE, flags VARCHAR[],
    raw STRUCT(
        File_name VARCHAR, Patient_index VARCHAR, Study_index VARCHAR, Series_ID VARCHAR, Key_slice_index VARCHAR,
        Measurement_coordinates VARCHAR, Bounding_boxes VARCHAR, Lesion_diameters_Pixel_ VARCHAR,
        Normalized_lesion_location VARCHAR, Coarse_lesion_type VARCHAR, Possibly_noisy VARCHAR, Slice_range VARCHAR,
        Spacing_mm_px_ VARCHAR, Image_size VARCHAR, DICOM_windows VARCHAR, Patient_gender VARCHAR,
        Patient_age VARCHAR, Train_Val_Test VARCHAR
    ),
    ingest_id VARCHAR, shard INTEGER
);
CREATE TABLE lake_rows.quarantine (
    unit_id VARCHAR, kind VARCHAR, member VARCHAR, reason VARCHAR, detail VARCHAR, ingest_id VARCHAR, shard INTEGER
);
CREATE TABLE lake_rows.units (
    unit_id VARCHAR, source VARCHAR, fingerprint VARCHAR, rows_found INTEGER, rows_accepted INTEGER,
    rows_flagged INTEGER, rows_quarantined INTEGER, files_found INTEGER, files_accepted INTEGER,
    files_flagged INTEGER, files_quarantined INTEGER, ingest_id VARCHAR, shard INTEGER
);

CREATE VIEW series AS SELECT * EXCLUDE (shard) FROM lake_rows.series;
CREATE VIEW slices AS SELECT * EXCLUDE (shard) FROM lake_rows.slices;
CREATE VIEW lesions AS SELECT * EXCLUDE (shard) FROM lake_rows.lesions;
CREATE VIEW quarantine AS SELECT * EXCLUDE (shard) FROM lake_rows.quarantine;
CREATE VIEW units AS SELECT * EXCLUDE (shard) FROM lake_rows.units;
"""

_LESION_FEATURES = """
CREATE VIEW lesion_features AS
SELECT
    lesion.lesion_id, lesion.patient_id, lesion.study_id, series.study_index, series.study_day, lesion.series_id,
    lesion.slice_index, lesion.lesion_type, lesion.long_mm, lesion.short_mm, lesion.long_px, lesion.short_px,
    pi() / 4 * lesion.long_mm * lesion.short_mm AS ellipse_area_mm2,
    CASE WHEN lesion.long_px > 0 THEN lesion.short_px / lesion.long_px END AS short_over_long,
    (lesion.box_xyxy_px[1] + lesion.box_xyxy_px[3]) / 2 AS center_x_px,
    (lesion.box_xyxy_px[2] + lesion.box_xyxy_px[4]) / 2 AS center_y_px,
    slice.z_mm, lesion.release_x, lesion.release_y, lesion.release_z, lesion.axes_angle_deg, series.sex,
    series.age_years, series.spacing_x_mm, series.spacing_y_mm, series.spacing_z_mm, lesion.window_low_hu,
    lesion.window_high_hu, lesion.split, lesion.possibly_noisy, lesion.flags, lesion.confidence, series.source,
    lesion.source_format, slice.series_id IS NOT NULL AS image_available, lesion.row_number, lesion.ingest_id
FROM lake_rows.lesions AS lesion
LEFT JOIN lake_rows.series AS series USING (series_id)
LEFT JOIN lake_rows.slices AS slice USING (series_id, slice_index);
"""

# A lake of another format fills the store anew: its shards have other names, so nothing of the old rows stays.
_PACS = """
DROP VIEW lesion_features;
DROP VIEW series;
DROP VIEW slices;
DROP VIEW lesions;
DROP VIEW units;

ALTER TABLE lake_rows.units ADD COLUMN slices INTEGER;
ALTER TABLE lake_rows.units ADD COLUMN lesions INTEGER;
ALTER TABLE lake_rows.units ADD COLUMN marks INTEGER;

ALTER TABLE lake_rows.series ADD COLUMN has_gaps BOOLEAN;
ALTER TABLE lake_rows.series ADD COLUMN doubled_positions BOOLEAN;
ALTER TABLE lake_rows.series ADD COLUMN mixed_orientation BOOLEAN;
ALTER TABLE lake_rows.series ADD COLUMN orientation DOUBLE[6];
ALTER TABLE lake_rows.series ADD COLUMN slice_thickness_mm DOUBLE;

ALTER TABLE lake_rows.slices ADD COLUMN image_id VARCHAR;
ALTER TABLE lake_rows.slices ADD COLUMN frame_number INTEGER;
ALTER TABLE lake_rows.slices ADD COLUMN position_xyz_mm DOUBLE[3];
ALTER TABLE lake_rows.slices ADD COLUMN body_xyxy_px DOUBLE[4];

ALTER TABLE lake_rows.lesions ADD COLUMN body_x DOUBLE;
ALTER TABLE lake_rows.lesions ADD COLUMN body_y DOUBLE;
ALTER TABLE lake_rows.lesions ADD COLUMN mark_id VARCHAR;
ALTER TABLE lake_rows.lesions ADD COLUMN finding_site VARCHAR;
ALTER TABLE lake_rows.lesions ADD COLUMN finding VARCHAR;
ALTER TABLE lake_rows.lesions ADD COLUMN tracking_id VARCHAR;

CREATE TABLE lake_rows.marks (
    mark_id VARCHAR, unit_id VARCHAR, patient_id VARCHAR, study_id VARCHAR, series_id VARCHAR, slice_index INTEGER,
    lesion_id VARCHAR, duplicate_of VARCHAR, image_id VARCHAR, frame_number INTEGER, report_id VARCHAR, shape VARCHAR,
    long_x1_px DOUBLE, long_y1_px DOUBLE, long_x2_px DOUBLE, long_y2_px DOUBLE, short_x1_px DOUBLE,
    short_y1_px DOUBLE, short_x2_px DOUBLE, short_y2_px DOUBLE, coord_convention VARCHAR, long_mm DOUBLE,
    short_mm DOUBLE, stated_long DOUBLE, stated_short DOUBLE, stated_unit VARCHAR, stated_ratio DOUBLE,
    tracking_id VARCHAR, finding_site VARCHAR, finding VARCHAR, source_format VARCHAR, confidence DOUBLE,
    flags VARCHAR[], ingest_id VARCHAR, shard INTEGER
);

CREATE VIEW series AS SELECT * EXCLUDE (shard) FROM lake_rows.series;
CREATE VIEW slices AS SELECT * EXCLUDE (shard) FROM lake_rows.slices;
CREATE VIEW lesions AS SELECT * EXCLUDE (shard) FROM lake_rows.lesions;
CREATE VIEW marks AS SELECT * EXCLUDE (shard) FROM lake_rows.marks;
CREATE VIEW units AS SELECT * EXCLUDE (shard) FROM lake_rows.units;
"""

_LESION_FEATURES_2 = _LESION_FEATURES.replace(
    "lesion.release_x,", "lesion.body_x, lesion.body_y, lesion.release_x,"
).replace("lesion.source_format,", "lesion.source_format, lesion.finding_site, lesion.finding,")

_LESION_FEATURES_3 = _LESION_FEATURES_2.replace("VIEW lesion_features", "VIEW store.lesion_features_now").replace(
    "lesion.ingest_id\n",
    "lesion.ingest_id, coalesce(lesion.release_x, lesion.body_x) AS location_x,\n"
    "    coalesce(lesion.release_y, lesion.body_y) AS location_y, lesion.release_z AS location_z\n",
)

# Rows of the wide view are kept: a condition on it must cost a scan, not two joins. `lesion_number` is how vectors
# name lesions; it changes when a lesion's rows do.
_KEPT_FEATURES = """
DROP VIEW lesion_features;
CREATE SEQUENCE store.lesion_numbers;
CREATE TABLE lake_rows.lesion_features AS
SELECT nextval('store.lesion_numbers') AS lesion_number, * FROM store.lesion_features_now ORDER BY lesion_id;
CREATE VIEW lesion_features AS SELECT * EXCLUDE (lesion_number) FROM lake_rows.lesion_features;

CREATE VIEW patients AS
SELECT
    patient_id, any_value(sex) AS sex, min(age_years) AS first_age_years, max(age_years) AS last_age_years,
    count(DISTINCT study_id) AS studies, count(*) AS series, max(study_day) - min(study_day) AS days,
    coalesce(any_value(lesions), 0) AS lesions
FROM lake_rows.series
LEFT JOIN (SELECT patient_id, count(*) AS lesions FROM lake_rows.lesions GROUP BY ALL) USING (patient_id)
GROUP BY patient_id;
CREATE VIEW studies AS
SELECT
    patient_id, study_id, any_value(study_index) AS study_index, any_value(study_day) AS study_day,
    any_value(age_years) AS age_years, count(*) AS series, coalesce(any_value(lesions), 0) AS lesions
FROM lake_rows.series
LEFT JOIN (SELECT study_id, count(*) AS lesions FROM lake_rows.lesions GROUP BY ALL) USING (study_id)
GROUP BY patient_id, study_id;
"""

# Vectors are tables of schema `features`, made as feature sets come: their dimension is part of their type.
_RESULTS = """
CREATE SCHEMA features;
CREATE TABLE lake_rows.feature_sets (
    feature_set_id VARCHAR, name VARCHAR, version INTEGER, model_id VARCHAR, dimension INTEGER, metric VARCHAR,
    lesions_version INTEGER, created_at TIMESTAMPTZ, shard INTEGER
);
CREATE TABLE lake_rows.match_edges (
    run VARCHAR, patient_id VARCHAR, kind VARCHAR, from_lesion_id VARCHAR, to_lesion_id VARCHAR, distance DOUBLE,
    confidence DOUBLE, shard INTEGER
);
CREATE TABLE lake_rows.matches (
    run VARCHAR, patient_id VARCHAR, study_id VARCHAR, lesion_id VARCHAR, group_id VARCHAR, state VARCHAR,
    confidence DOUBLE, shard INTEGER
);
CREATE TABLE lake_rows.match_runs (
    run VARCHAR, feature_set_id VARCHAR, t1 DOUBLE, t2 DOUBLE, lesions_version INTEGER, patients INTEGER,
    lesions INTEGER, groups INTEGER, created_at TIMESTAMPTZ, shard INTEGER
);
CREATE TABLE store.feature_sets (
    feature_set_id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, version INTEGER NOT NULL, model_id VARCHAR NOT NULL,
    built_in BOOLEAN NOT NULL, dimension INTEGER NOT NULL, metric VARCHAR NOT NULL, created_at TIMESTAMPTZ NOT NULL,
    lesions_version BIGINT, lesions BIGINT NOT NULL, mean DOUBLE[], sd DOUBLE[], minimum DOUBLE[], maximum DOUBLE[],
    index_kind VARCHAR NOT NULL, vector_folder VARCHAR NOT NULL, checksums MAP(VARCHAR, VARCHAR) NOT NULL,
    signature VARCHAR NOT NULL
);

CREATE VIEW feature_sets AS
SELECT * EXCLUDE (vector_folder, checksums, signature) FROM store.feature_sets;
CREATE VIEW matches AS SELECT * EXCLUDE (shard) FROM lake_rows.matches;
CREATE VIEW match_edges AS SELECT * EXCLUDE (shard) FROM lake_rows.match_edges;
CREATE VIEW match_runs AS SELECT * EXCLUDE (shard) FROM lake_rows.match_runs;
"""

_THRESHOLDS = """
ALTER TABLE lake_rows.feature_sets ADD COLUMN t1 DOUBLE;
ALTER TABLE lake_rows.feature_sets ADD COLUMN t2 DOUBLE;
ALTER TABLE store.feature_sets ADD COLUMN t1 DOUBLE;
ALTER TABLE store.feature_sets ADD COLUMN t2 DOUBLE;
DROP VIEW feature_sets;
CREATE VIEW feature_sets AS
SELECT * EXCLUDE (vector_folder, checksums, signature) FROM store.feature_sets;
"""

# The release's place comes first; the newest model's is for lesions that have none.
_LESION_FEATURES_4 = (
    _LESION_FEATURES_3.replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    .replace(
        "lesion.release_z AS location_z\n",
        "coalesce(lesion.release_z, located.z) AS location_z,\n"
        "    CASE WHEN lesion.release_z IS NULL AND located.z IS NOT NULL THEN located.model_id END AS located_by\n",
    )
    .replace(
        "(series_id, slice_index);",
        "(series_id, slice_index)\nLEFT JOIN store.located_now AS located ON located.lesion_id = lesion.lesion_id;",
    )
)

_LOCATIONS = """
CREATE TABLE lake_rows.slice_heights (
    unit_id VARCHAR, model_id VARCHAR, series_id VARCHAR, slice_index INTEGER, z_mm DOUBLE, height FLOAT,
    fingerprint VARCHAR, shard INTEGER
);
CREATE TABLE lake_rows.series_locations (
    model_id VARCHAR, series_id VARCHAR, slices INTEGER, correlation DOUBLE, reversed BOOLEAN,
    stated_interval_mm DOUBLE, estimated_interval_mm DOUBLE, interval_ratio DOUBLE, wrong_interval BOOLEAN,
    smallest_height DOUBLE, largest_height DOUBLE, body_range VARCHAR, shard INTEGER
);
CREATE TABLE lake_rows.locations (
    model_id VARCHAR, lesion_id VARCHAR, x DOUBLE, y DOUBLE, z DOUBLE, shard INTEGER
);
CREATE TABLE lake_rows.location_models (
    model_id VARCHAR, model_created_at TIMESTAMPTZ, height_per_mm DOUBLE, release_scale DOUBLE, release_offset DOUBLE,
    release_error DOUBLE, release_lesions INTEGER, chest_ends DOUBLE, pelvis_begins DOUBLE, series INTEGER,
    lesions INTEGER, lesions_version INTEGER, created_at TIMESTAMPTZ, shard INTEGER
);
CREATE TABLE lake_rows.labels (
    model_id VARCHAR, lesion_id VARCHAR, round INTEGER, label VARCHAR, score DOUBLE, shard INTEGER
);

CREATE VIEW slice_heights AS SELECT * EXCLUDE (shard) FROM lake_rows.slice_heights;
CREATE VIEW series_locations AS SELECT * EXCLUDE (shard) FROM lake_rows.series_locations;
CREATE VIEW locations AS SELECT * EXCLUDE (shard) FROM lake_rows.locations;
CREATE VIEW location_models AS SELECT * EXCLUDE (shard) FROM lake_rows.location_models;
CREATE VIEW labels AS SELECT * EXCLUDE (shard) FROM lake_rows.labels;

CREATE VIEW store.located_now AS
SELECT lesion_id, model_id, z FROM lake_rows.locations
WHERE model_id = (
    SELECT model_id FROM lake_rows.location_models
    ORDER BY model_created_at DESC, length(model_id) DESC, model_id DESC LIMIT 1
);
DROP VIEW lesion_features;
ALTER TABLE lake_rows.lesion_features ADD COLUMN located_by VARCHAR;
CREATE VIEW lesion_features AS SELECT * EXCLUDE (lesion_number) FROM lake_rows.lesion_features;
"""

# Detections are numbered as lesions are, by the same sequence: vectors name either by a number.
_DETECTIONS = """
CREATE TABLE lake_rows.categories (
    model_id VARCHAR, category INTEGER, name VARCHAR, lesions INTEGER, created_at TIMESTAMPTZ, shard INTEGER
);
CREATE TABLE lake_rows.detection_boxes (
    unit_id VARCHAR, detection_id VARCHAR, slice_index INTEGER, box_xyxy_px DOUBLE[4], score DOUBLE, shard INTEGER
);
CREATE TABLE lake_rows.detections (
    detection_id VARCHAR, unit_id VARCHAR, model_id VARCHAR, series_id VARCHAR, patient_id VARCHAR, study_id VARCHAR,
    slice_index INTEGER, first_slice_index INTEGER, last_slice_index INTEGER, slices INTEGER, box_xyxy_px DOUBLE[4],
    score DOUBLE, category INTEGER, category_model_id VARCHAR, shard INTEGER,
    detection_number BIGINT DEFAULT nextval('store.lesion_numbers')
);
CREATE TABLE lake_rows.detection_series (
    unit_id VARCHAR, model_id VARCHAR, series_id VARCHAR, scope VARCHAR, slices INTEGER, detections INTEGER,
    fingerprint VARCHAR, shard INTEGER
);
CREATE TABLE lake_rows.masks (
    unit_id VARCHAR, method VARCHAR, lesion_id VARCHAR, series_id VARCHAR, slice_index INTEGER, left_px INTEGER,
    top_px INTEGER, columns INTEGER, rows INTEGER, runs INTEGER[], shard INTEGER
);
CREATE TABLE lake_rows.masked_lesions (
    unit_id VARCHAR, method VARCHAR, lesion_id VARCHAR, marked_by VARCHAR, series_id VARCHAR, slice_index INTEGER,
    left_out VARCHAR, long_axis_px DOUBLE[4], short_axis_px DOUBLE[4], long_mm DOUBLE, short_mm DOUBLE,
    area_mm2 DOUBLE, volume_mm3 DOUBLE, slices INTEGER, cut_short BOOLEAN, fingerprint VARCHAR, shard INTEGER
);

CREATE VIEW categories AS SELECT * EXCLUDE (shard) FROM lake_rows.categories;
CREATE VIEW detection_boxes AS SELECT * EXCLUDE (shard) FROM lake_rows.detection_boxes;
CREATE VIEW detection_series AS SELECT * EXCLUDE (shard) FROM lake_rows.detection_series;
CREATE VIEW masks AS SELECT * EXCLUDE (shard) FROM lake_rows.masks;
CREATE VIEW masked_lesions AS SELECT * EXCLUDE (shard) FROM lake_rows.masked_lesions;
CREATE VIEW detections AS SELECT * EXCLUDE (shard, detection_number) FROM lake_rows.detections;
CREATE VIEW store.numbered_detections AS
SELECT
    detection.detection_number AS lesion_number, detection.detection_id AS lesion_id,
    detection.* EXCLUDE (shard, detection_number), category.name AS category_name,
    (detection.box_xyxy_px[1] + detection.box_xyxy_px[3]) / 2 AS center_x_px,
    (detection.box_xyxy_px[2] + detection.box_xyxy_px[4]) / 2 AS center_y_px,
    slice.z_mm, series.study_index, series.study_day, series.sex, series.age_years, series.spacing_x_mm,
    series.spacing_y_mm, series.spacing_z_mm, measured.long_mm, measured.short_mm, measured.volume_mm3
FROM lake_rows.detections AS detection
LEFT JOIN lake_rows.categories AS category
    ON category.model_id = detection.category_model_id AND category.category = detection.category
LEFT JOIN lake_rows.series AS series USING (series_id)
LEFT JOIN lake_rows.slices AS slice USING (series_id, slice_index)
LEFT JOIN (
    SELECT lesion_id, arg_max(long_mm, method) AS long_mm, arg_max(short_mm, method) AS short_mm,
        arg_max(volume_mm3, method) AS volume_mm3
    FROM lake_rows.masked_lesions GROUP BY lesion_id
) AS measured ON measured.lesion_id = detection.detection_id;
CREATE VIEW detection_features AS SELECT * EXCLUDE (lesion_number, lesion_id) FROM store.numbered_detections;
CREATE VIEW lesion_measurements AS
SELECT
    feature.*, measured.method AS mask_method, measured.left_out AS mask_left_out, measured.long_mm AS mask_long_mm,
    measured.short_mm AS mask_short_mm, measured.area_mm2 AS mask_area_mm2, measured.volume_mm3 AS mask_volume_mm3,
    measured.slices AS mask_slices, measured.cut_short AS mask_cut_short
FROM lesion_features AS feature
JOIN lake_rows.masked_lesions AS measured USING (lesion_id);
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the store's schema."""

    number: int
    name: str
    sql: str


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, "tables of the lake", _LAKE_ROWS),
    Migration(2, "wide view of lesions", _LESION_FEATURES),
    Migration(3, "columns and marks of PACS exports", _PACS),
    Migration(4, "wide view of lesions with places in the body", _LESION_FEATURES_2),
    Migration(5, "wide view of lesions with one location", _LESION_FEATURES_3),
    Migration(6, "kept rows of the wide view; patients and studies", _KEPT_FEATURES),
    Migration(7, "feature sets and runs of match", _RESULTS),
    Migration(8, "thresholds of feature sets", _THRESHOLDS),
    Migration(9, "heights, places and labels by models", _LOCATIONS),
    Migration(10, "wide view of lesions with places by models", _LESION_FEATURES_4),
    Migration(11, "categories, detections and masks", _DETECTIONS),
)


def migrate(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Bring a store to this release's schema; the names of the steps that were applied.

    Raises:
        StoreError: a newer release made the store.
    """
    connection.execute(_BOOKKEEPING)
    found = connection.execute("SELECT coalesce(max(number), 0) FROM store.migrations").fetchone()
    present = int(found[0]) if found else 0
    if present > MIGRATIONS[-1].number:
        raise StoreError(
            f"a newer release made this store (its schema is {present}, ours {MIGRATIONS[-1].number})",
            next_step="use that release, or delete the file and run `lesionary sync`",
        )
    applied = []
    for migration in MIGRATIONS[present:]:
        connection.begin()
        try:
            connection.execute(migration.sql)
            connection.execute(
                "INSERT INTO store.migrations (number, name) VALUES (?, ?)", [migration.number, migration.name]
            )
        except BaseException:
            connection.rollback()
            raise
        connection.commit()
        applied.append(migration.name)
    return applied
