"""The published text form of a row."""

import csv
import io

from etl.phantom.release_table import ReleaseRow, cells, table_text
from lesionary.schema import RELEASE_COLUMNS


def make_row(**changes: object) -> ReleaseRow:
    values: dict[str, object] = {
        "series_name": "000012_03_01",
        "patient_index": 12,
        "study_index": 3,
        "series_index": 1,
        "slice_index": 7,
        "points": (100.0, 200.0, 130.0, 240.0, 107.0, 226.0, 123.0, 214.0),
        "location_xyz": (0.5, 0.25, 1 / 3),
        "type_code": 4,
        "noisy": False,
        "slice_range": (1, 13),
        "spacing_xyz_mm": (0.8164062, 0.8164062, 5.0),
        "image_size_px": 512,
        "window_low_high_hu": (-175.0, 275.0),
        "sex": "F",
        "age_years": 62.0,
        "split_code": 3,
        "lesion_id": "000012-02",
        "true_type": "liver",
        "true_height": 0.33,
        "growth": 1.0,
    }
    return ReleaseRow(**(values | changes))  # type: ignore[arg-type]


def test_a_row_is_written_as_the_release_writes_it() -> None:
    assert dict(zip(RELEASE_COLUMNS, cells(make_row()), strict=True)) == {
        "File_name": "000012_03_01_007.png",
        "Patient_index": "12",
        "Study_index": "3",
        "Series_ID": "1",
        "Key_slice_index": "7",
        "Measurement_coordinates": "100, 200, 130, 240, 107, 226, 123, 214",
        "Bounding_boxes": "95, 195, 135, 245",
        "Lesion_diameters_Pixel_": "50, 20",
        "Normalized_lesion_location": "0.5, 0.25, 0.333333",
        "Coarse_lesion_type": "4",
        "Possibly_noisy": "0",
        "Slice_range": "1, 13",
        "Spacing_mm_px_": "0.816406, 0.816406, 5",
        "Image_size": "512, 512",
        "DICOM_windows": "-175, 275",
        "Patient_gender": "F",
        "Patient_age": "62.0",
        "Train_Val_Test": "3",
    }


def test_only_cells_with_a_comma_are_quoted() -> None:
    line = table_text([make_row()]).splitlines()[1]

    assert line.startswith('000012_03_01_007.png,12,3,1,7,"100, 200, ')
    assert line.endswith(',"512, 512","-175, 275",F,62.0,3')


def test_numbers_carry_six_significant_digits() -> None:
    text = table_text([make_row(points=(90.02041, 12.0, 90.5, 1234.5678, 80.0, 50.0, 99.0, 50.0))])

    coordinates = next(csv.DictReader(io.StringIO(text)))["Measurement_coordinates"]
    assert coordinates == "90.0204, 12, 90.5, 1234.57, 80, 50, 99, 50"


def test_what_is_missing_is_written_as_nan() -> None:
    nan = float("nan")

    written = cells(make_row(age_years=nan, spacing_xyz_mm=(0.8, 0.8, nan)))

    assert written[RELEASE_COLUMNS.index("Patient_age")] == "NaN"
    assert written[RELEASE_COLUMNS.index("Spacing_mm_px_")] == "0.8, 0.8, NaN"
