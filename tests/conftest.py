"""What several test files share: a tiny release written by hand, and a Ray cluster for the whole session."""

import json
import os
from pathlib import Path

import imagecodecs
import numpy as np
import pytest

from lesionary.schema import RELEASE_COLUMNS

# A cross of 20 × 10 px around (30, 30), as published: 1-based, padded by 5 px.
BASE_ROW = {
    "File_name": "000001_01_01_003.png",
    "Patient_index": "1",
    "Study_index": "1",
    "Series_ID": "1",
    "Key_slice_index": "3",
    "Measurement_coordinates": "20, 30, 40, 30, 30, 25, 30, 35",
    "Bounding_boxes": "15, 20, 45, 40",
    "Lesion_diameters_Pixel_": "20, 10",
    "Normalized_lesion_location": "0.4, 0.5, 0.6",
    "Coarse_lesion_type": "5",
    "Possibly_noisy": "0",
    "Slice_range": "0, 6",
    "Spacing_mm_px_": "0.8, 0.8, 5",
    "Image_size": "512, 512",
    "DICOM_windows": "-1500, 500",
    "Patient_gender": "F",
    "Patient_age": "61.0",
    "Train_Val_Test": "3",
}


def annotation_row(**changes):
    """A published row with some fields changed; a new file name changes the index columns with it."""
    row = BASE_ROW | changes
    if "File_name" in changes and "Key_slice_index" not in changes:
        parts = Path(changes["File_name"].replace("\\", "/")).stem.replace("/", "_").split("_")
        if len(parts) == 4 and all(part.isdigit() for part in parts):
            numbers = [str(int(part)) for part in parts]
            row |= dict(zip(("Patient_index", "Study_index", "Series_ID", "Key_slice_index"), numbers, strict=True))
            key = int(parts[3])
            row["Slice_range"] = changes.get("Slice_range", f"{key - 3}, {key + 3}")
    return row


def annotation_csv(*rows):
    """A whole table in the published form."""

    def cell(text):
        return f'"{text}"' if "," in text else text

    lines = [",".join(RELEASE_COLUMNS)]
    lines += [",".join(cell(row[name]) for name in RELEASE_COLUMNS) for row in rows]
    return ("\n".join(lines) + "\n").encode()


def slice_hu(series, index, side=512):
    """The image of a slice: the same every time, another for every slice, quick to encode."""
    seed = [int(part) for part in series.split("_")] + [index]
    blocks = np.random.default_rng(seed).integers(-1024, 3071, (8, 8)).astype(np.int16)
    return np.kron(blocks, np.ones((side // 8, side // 8), np.int16))


def png_bytes(hu):
    """A slice as the release stores it."""
    return imagecodecs.png_encode((hu.astype(np.int32) + 32768).astype(np.uint16), level=1)


def write_release(folder, series, rows, side=512):
    """A release in folders: `series` maps names to slice numbers."""
    for name, indices in series.items():
        target = Path(folder, "Images_png", name)
        target.mkdir(parents=True, exist_ok=True)
        for index in indices:
            (target / f"{index:03d}.png").write_bytes(png_bytes(slice_hu(name, index, side)))
    Path(folder, "DL_info.csv").write_bytes(annotation_csv(*rows))
    return Path(folder)


@pytest.fixture
def release(tmp_path):
    """Three series of five slices, four rows, one of them without its image."""
    rows = [
        annotation_row(),
        annotation_row(File_name="000001_02_01_003.png", Patient_age="62.0"),
        annotation_row(File_name="000002_01_01_004.png", Coarse_lesion_type="-1", Train_Val_Test="1"),
        annotation_row(File_name="000003_01_01_003.png"),
    ]
    series = {name: range(1, 6) for name in ("000001_01_01", "000001_02_01", "000002_01_01")}
    return write_release(tmp_path / "release", series, rows)


@pytest.fixture(scope="session")
def official_test_rows():
    """The 4,927 published rows of the official test split, where this checkout lies beside them."""
    path = Path(__file__).parents[2] / "shared" / "data" / "deeplesion" / "DL_info_test.csv"
    if not path.is_file():
        pytest.skip("the published rows are not part of the project and not beside this checkout")
    return path


@pytest.fixture(scope="session")
def ray_cluster():
    """One local Ray for all tests that need it: starting it takes seconds. Its workers find the tests' own modules."""
    from cli.cluster import ray_session

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        with ray_session(workers=2):
            yield


@pytest.fixture(scope="session")
def shared_pacs():
    """Real DICOM files by others, kept beside the checkout and never in it."""
    path = Path(__file__).parents[2] / "shared" / "data" / "pacs"
    if not path.is_dir():
        pytest.skip("the real PACS files are not beside this checkout")
    return path


@pytest.fixture(scope="session")
def phantom_pacs(tmp_path_factory):
    """A small PACS export of the phantom: its folder, and the truth."""
    from etl.phantom.pacs import PacsSettings, write_pacs

    folder = tmp_path_factory.mktemp("pacs")
    write_pacs(folder / "x", PacsSettings(patients=10, seed=3, image_size=96, max_slices_per_series=6), workers=1)
    return folder / "x" / "export", json.loads((folder / "x" / "truth.json").read_text())
