"""A lesion on an image that no lake knows: its patch is that of a lesion in the lake; odd files say why not."""

import os
import random

import imagecodecs
import numpy as np
import pytest
from conftest import annotation_row, png_bytes, slice_hu, write_release
from pacs_files import changed, ct, enhanced, picture

from etl.ingest import ingest
from etl.patch_cutting import lesion_patch
from etl.patch_geometry import cut_patch
from etl.phantom.pacs_images import SYNTAXES
from etl.planning import plan_sources
from etl.running import run_here
from etl.single_image import ImageWish, read_lesion
from lesionary.errors import LesionaryError, SourceError, UsageError
from lesionary.lake import Lake
from lesionary.settings import IngestSettings

SIDE = 160
BOX = (12.0, 10.0, 20.0, 22.0)


def pixels_of(lesion):
    (row,) = lesion.patch.to_pylist()
    return np.frombuffer(row["pixels"], "<i2").reshape(3, row["side"], row["side"])


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_png_of_the_release_gives_the_patch_of_the_lake_s_own_lesion(tmp_path):
    row = annotation_row(
        Measurement_coordinates="70, 80, 90, 80, 80, 75, 80, 85",
        Bounding_boxes="65, 70, 95, 90",
        Image_size=f"{SIDE}, {SIDE}",
        Spacing_mm_px_="0.9, 0.9, 1.5",
    )
    source = write_release(tmp_path / "release", {"000001_01_01": range(1, 6)}, [row], SIDE)
    lake = Lake.create(str(tmp_path / "lake"))
    ingest(lake, plan_sources([str(source)], IngestSettings()), IngestSettings(), choose_runner=lambda _: (run_here, 1))
    file = source / "Images_png" / "000001_01_01" / "003.png"
    # One-based in the release, zero-based here.
    box = (69.0, 74.0, 89.0, 84.0)

    found = read_lesion(ImageWish(file, box, spacing_mm=(0.9, 0.9, 1.5)))
    alone = read_lesion(ImageWish(file, box, spacing_mm=(0.9,)))

    own = lesion_patch(lake, "dl-1")
    (patch,) = found.patch.to_pylist()
    assert (patch["side"], tuple(patch["box"]), tuple(patch["extent"])) == (
        own.side, pytest.approx(own.box), pytest.approx(own.extent),
    )  # fmt: skip
    assert (pixels_of(found) == own.pixels).all()
    assert found.slices == 5
    assert (found.hu == slice_hu("000001_01_01", 3, SIDE)).all()
    assert alone.slices == 1
    assert (pixels_of(alone) == own.pixels[1]).all()


def test_neighbours_are_the_files_of_the_series_beside_it(tmp_path):
    # Five millimetres apart: two of them are two fifths of the way.
    files = {f"s{n}": ct(n) for n in range(1, 6)} | {"other": ct(4, series=2), "note": b"none of ours"}
    folder = write(tmp_path / "series", **files)

    found = read_lesion(ImageWish(folder / "s3", BOX))

    slices = [picture(n) for n in (2, 3, 4)]
    weights = np.array([[0.4, 0.6, 0], [0, 1, 0], [0, 0.6, 0.4]])
    expected = cut_patch(slices, weights, BOX, (0.8, 0.8))
    assert found.slices == 3
    assert (pixels_of(found) == expected).all()
    (folder / "s4").write_bytes(ct(4)[:-600])
    assert read_lesion(ImageWish(folder / "s3", BOX)).slices == 2
    assert read_lesion(ImageWish(folder / "other", BOX)).slices == 1


def test_a_frame_of_a_multi_frame_file_has_its_neighbours_in_it(tmp_path):
    folder = write(tmp_path / "frames", many=enhanced(5))

    found = read_lesion(ImageWish(folder / "many", BOX, frame=3))

    assert found.slices == 3
    assert (found.hu == picture(3)).all()
    with pytest.raises(UsageError, match="many: the file holds 5 slices; say which with --slice, 1 to 5"):
        read_lesion(ImageWish(folder / "many", BOX))
    with pytest.raises(UsageError, match="there is no slice 6"):
        read_lesion(ImageWish(folder / "many", BOX, frame=6))


@pytest.mark.parametrize("syntax", sorted(set(SYNTAXES) - {"enhanced"}))
def test_images_of_every_syntax_are_read(tmp_path, syntax):
    folder = write(tmp_path / "compressed", one=ct(1, syntax=syntax))

    assert (read_lesion(ImageWish(folder / "one", BOX)).hu == picture(1)).all()


def test_a_spacing_that_is_typed_is_believed(tmp_path):
    folder = write(tmp_path / "bare", bare=changed(ct(1), PixelSpacing=None), full=ct(2, series=2))

    with pytest.raises(UsageError, match="does not say how large its pixels are; give --spacing-mm"):
        read_lesion(ImageWish(folder / "bare", BOX))
    assert read_lesion(ImageWish(folder / "bare", BOX, spacing_mm=(0.7, 0.8))).spacing_xy_mm == (0.7, 0.8)
    assert read_lesion(ImageWish(folder / "full", BOX, spacing_mm=(2.0,))).spacing_xy_mm == (2.0, 2.0)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 bytes"),
        (b"GIF89a and so on", "is not DICOM|neither"),
        (b"sop_instance_uid,long_x1,long_y1,long_x2,long_y2\n1.2.3,1,2,3,4\n", "marks|DICOM"),
        (ct(1)[:900], "cannot be taken"),
        (ct(1)[:-700], "cannot be taken"),
        (png_bytes(slice_hu("000001_01_01", 1, 64))[:300], "cannot be taken"),
        (imagecodecs.png_encode(np.zeros((64, 64), np.uint8)), "cannot be taken"),
        (imagecodecs.png_encode(np.zeros((64, 64, 3), np.uint16)), "cannot be taken"),
        (changed(ct(1), ImageType=["DERIVED", "SECONDARY"]), "cannot be taken"),
        (changed(ct(1), BurnedInAnnotation="YES"), "cannot be taken"),
    ],
)
def test_files_that_are_no_ct_image_are_refused_in_one_line(tmp_path, data, said):
    folder = write(tmp_path / "odd", file=data)

    with pytest.raises(SourceError, match=said) as refused:
        read_lesion(ImageWish(folder / "file", BOX, spacing_mm=(1.0,)))

    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("file: ")


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "absent", tmp_path / "a\0b"):
        with pytest.raises(SourceError, match="no file|cannot be read"):
            read_lesion(ImageWish(path, BOX, spacing_mm=(1.0,)))


@pytest.mark.parametrize(
    "box",
    [(1, 2, 3), (5, 1, 4, 2), (1, 5, 2, 4), (float("nan"), 1, 2, 3), (40, 1, 50, 9), (-9, 1, -2, 9), (0, 0, 1e300, 1)],
)
def test_boxes_that_lie_nowhere_are_refused(tmp_path, box):
    folder = write(tmp_path / "one", one=ct(1))

    with pytest.raises(UsageError, match="--box"):
        read_lesion(ImageWish(folder / "one", tuple(box)))


@pytest.mark.parametrize("spacing", [(), (0.0,), (-1.0,), (1, 2, 3, 4), (float("inf"), 1.0), (1e9,)])
def test_spacings_that_no_scanner_has_are_refused(tmp_path, spacing):
    folder = write(tmp_path / "one", one=ct(1))

    with pytest.raises(UsageError, match="--spacing-mm"):
        read_lesion(ImageWish(folder / "one", BOX, spacing_mm=spacing))


def test_a_png_holds_one_slice_and_does_not_say_its_spacing(tmp_path):
    folder = write(tmp_path / "png", one=png_bytes(slice_hu("000001_01_01", 1, 64)))

    with pytest.raises(UsageError, match="a PNG holds one slice"):
        read_lesion(ImageWish(folder / "one", BOX, frame=2, spacing_mm=(1.0,)))
    with pytest.raises(UsageError, match="give --spacing-mm"):
        read_lesion(ImageWish(folder / "one", BOX))


@pytest.mark.slow
def test_damaged_files_end_in_a_patch_or_in_one_line(tmp_path):
    rng = random.Random(7)
    folder = tmp_path / "fuzz"
    folder.mkdir()
    seeds = [ct(1), ct(1, syntax="rle"), enhanced(3), png_bytes(slice_hu("000001_01_01", 1, 64))]
    for _ in range(300):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 2, 8))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (folder / "x").write_bytes(bytes(data))
        try:
            lesion = read_lesion(ImageWish(folder / "x", BOX, frame=1, spacing_mm=(1.0,)))
        except LesionaryError as error:
            assert "\n" not in str(error)  # noqa: PT017 (either is right)
        else:
            assert lesion.patch.num_rows == 1
