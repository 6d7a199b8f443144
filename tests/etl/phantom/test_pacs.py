"""The phantom's PACS export: the same bytes every time, what it says it planted, and formats that others read."""

import io
import json
from collections import Counter
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames

from etl.phantom.pacs import PacsSettings, write_pacs
from etl.phantom.pacs_images import SYNTAXES, DrawnImage, SeriesLook, enhanced_file, image_file
from lesionary.errors import UsageError

SMALL = PacsSettings(patients=4, seed=1, image_size=64, max_slices_per_series=3)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def test_same_settings_give_the_same_bytes_whatever_the_workers(tmp_path):
    write_pacs(tmp_path / "a", SMALL, workers=1)
    write_pacs(tmp_path / "b", SMALL, workers=2)

    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_truth_is_beside_the_export_and_never_in_it(tmp_path):
    summary = write_pacs(tmp_path / "a", SMALL)

    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["export", "truth.json"]
    truth = json.loads((tmp_path / "a" / "truth.json").read_text())
    assert summary.lesions == len(truth["lesions"])
    assert summary.marks == truth["files"]["mark"]


def test_everything_planted_is_really_there(phantom_pacs):
    export, truth = phantom_pacs
    import tarfile
    import zipfile

    def inside(name, data):
        if name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return b"".join(one.encode() + inside(one, archive.read(one)) for one in archive.namelist())
        if name.endswith(".tar.gz"):
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                return b"".join(one.name.encode() + archive.extractfile(one).read() for one in archive)
        if b"1.2.840.10008.1.2.1.99" in data[:600]:
            return data + repr(pydicom.dcmread(io.BytesIO(data))).encode()
        return data

    everything = b"".join(str(name).encode() + inside(str(name), data) for name, data in contents(export).items())

    missing = [text for text in truth["planted"] if text.encode() not in everything]
    assert missing == []
    formats = Counter(name for lesion in truth["lesions"] for name in lesion["formats"])
    assert set(formats) == {"sr", "gsps", "aim"}
    assert {len(lesion["formats"]) for lesion in truth["lesions"]} == {1, 3}


@pytest.mark.parametrize("syntax", sorted(SYNTAXES))
@pytest.mark.parametrize("signed", [True, False])
def test_other_readers_see_the_drawn_pixels(syntax, signed):
    rng = np.random.default_rng(2)
    hu = np.clip(rng.normal(0, 400, (48, 40)), -1024, 3071).astype(np.int16)
    look = SeriesLook(syntax, signed, 0.7, 5.0, "1.2.3", "1.2.4", "1.2.5", (-175.0, 275.0))
    image = DrawnImage("1.2.6", 1, (0.0, 0.0, 0.0), hu)
    maker = enhanced_file(look, [image, image], "1.2.7", lambda _: None, bytes(128)) if syntax == "enhanced" else None
    dataset = pydicom.dcmread(io.BytesIO(maker or image_file(look, image, lambda _: None, bytes(128))))
    # pydicom itself has no decoder for two of them here.
    decoder = {"jpeg-lossless": imagecodecs.jpegsof3_decode, "htj2k": imagecodecs.htj2k_decode}.get(syntax)
    if decoder is not None:
        stored = decoder(next(generate_frames(dataset.PixelData, number_of_frames=1)))
        stored = stored.view(np.int16) if signed else stored
    else:
        stored = dataset.pixel_array[0] if syntax == "enhanced" else dataset.pixel_array

    assert np.array_equal(stored.astype(np.int32) + (0 if signed else -1024), hu)


def test_lossless_jpeg_uses_the_predictor_its_syntax_allows():
    from etl.phantom.jpeg_lossless import jpeg_lossless

    stream = jpeg_lossless(np.random.default_rng(0).integers(0, 4096, (40, 30)).astype(np.uint16), 12)

    scan = stream.index(b"\xff\xda")
    assert stream[scan + 7] == 1


@pytest.mark.parametrize(
    ("changes", "where"),
    [({"patients": 0}, "--patients"), ({"image_size": 8}, "--image-size"), ({"syntax": "jpeg"}, "--syntax")],
)
def test_settings_out_of_range_are_named(tmp_path, changes, where):
    import dataclasses

    with pytest.raises(UsageError, match=where):
        write_pacs(tmp_path / "x", dataclasses.replace(SMALL, **changes))


def test_folder_that_is_not_empty_is_kept_unless_forced(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine").write_text("y")

    with pytest.raises(UsageError, match="not empty"):
        write_pacs(tmp_path / "x", SMALL)
    write_pacs(tmp_path / "x", SMALL, force=True)
    assert (tmp_path / "x" / "mine").read_text() == "y"
