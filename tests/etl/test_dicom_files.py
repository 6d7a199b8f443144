"""Every kind of bad input seen in exports, through a whole ingest: each ends where it should, and costs no other."""

import gzip
import io
import struct
import zlib

import numpy as np
import pydicom
import pytest
from pacs_files import adds_up, changed, ct, enhanced, mine, picture, reasons, set_syntax, uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from etl.quality import Flag, Reason
from lesionary.schema import TABLES
from lesionary.slices import SliceReader


def without_preamble(data):
    return data[132:]


def dataset_only(data):
    """No preamble, no magic, no meta group: what old exporters write."""
    length = struct.unpack_from("<I", data, 140)[0]
    return data[144 + length :]


def test_things_that_are_no_dicom_are_told_apart(tmp_path):
    medium = changed(ct())
    medium = medium.replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.1.3.10\0\0\0\0\0\0")

    found = reasons(tmp_path, b"", b"hello", gzip.compress(ct()), b"\x89PNG\r\n\x1a\n" + bytes(200), medium)

    assert found == {Reason.FILE_EMPTY: 1, Reason.NOT_DICOM: 3, Reason.MEDIA_DIRECTORY: 1}


def test_text_and_zip_are_not_forced_into_dicom(tmp_path):
    text = b"\x08\x00 this looks a little like a tag but is none" * 20

    assert reasons(tmp_path, text) == {Reason.NOT_DICOM: 1}


@pytest.mark.parametrize("strip", [without_preamble, dataset_only])
def test_file_without_preamble_is_read_when_its_tags_look_right(tmp_path, strip):
    lake, summary = mine(tmp_path, {"a": strip(ct())})

    assert summary.tally.counts["files_accepted"] == 1
    assert lake.read("slices").num_rows == 1


def test_file_that_does_not_state_its_transfer_syntax_is_refused(tmp_path):
    data = ct()
    place = data.index(b"\x02\x00\x10\x00UI")
    length = struct.unpack_from("<H", data, place + 6)[0]

    assert reasons(tmp_path, data[:place] + data[place + 8 + length :]) == {Reason.TRANSFER_SYNTAX_MISSING: 1}


def test_truncated_pixels_are_refused_and_never_padded(tmp_path):
    assert reasons(tmp_path, ct()[:-100], ct(2, series=2)[:-1]) == {Reason.PIXELS_TRUNCATED: 2}


def test_image_without_pixels_is_refused(tmp_path):
    dataset = pydicom.dcmread(io.BytesIO(ct()))
    del dataset.PixelData
    sink = io.BytesIO()
    dataset.save_as(sink)

    assert reasons(tmp_path, sink.getvalue()) == {Reason.PIXELS_MISSING: 1}


@pytest.mark.parametrize("syntax", ["explicit", "rle", "jpeg-2000"])
def test_giant_size_is_refused_before_anything_is_decoded(tmp_path, syntax):
    giant = changed(ct(syntax=syntax), Rows=65535, Columns=65535)

    assert reasons(tmp_path, giant) == {Reason.IMAGE_TOO_LARGE: 1}


def test_deflated_bomb_is_stopped_at_its_limit(tmp_path):
    deflated = ct(syntax="deflated")
    start = 144 + struct.unpack_from("<I", deflated, 140)[0]
    machine = zlib.compressobj(9, wbits=-15)
    bomb = machine.compress(bytes(600 << 20)) + machine.flush()

    assert reasons(tmp_path, deflated[:start] + bomb) == {Reason.DEFLATE_BOMB: 1}


def test_png_bomb_beside_dicom_is_not_even_opened(tmp_path):
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 30_000, 30_000, 16, 0, 0, 0, 0)

    assert reasons(tmp_path, header + bytes(5000)) == {Reason.NOT_DICOM: 1}


def nested(depth):
    """Sequences of undefined length, one in the other, as bytes: pydicom cannot write so many."""
    start, end = b"", b""
    for _ in range(depth):
        start += b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
        end = b"\xfe\xff\x0d\xe0\0\0\0\0" + b"\xfe\xff\xdd\xe0\0\0\0\0" + end
    return start + end


@pytest.mark.parametrize("depth", [200, 5000])
def test_deep_nesting_costs_one_file(tmp_path, depth):
    data = ct()
    place = data.index(b"\x10\x00\x10\x00PN")

    found = reasons(tmp_path, data[:place] + nested(depth) + data[place:])

    assert found in ({Reason.NESTING_TOO_DEEP: 1}, {})


def test_stray_delimiter_costs_one_file_at_most(tmp_path):
    data = ct()
    place = data.index(b"\x10\x00\x10\x00PN")
    stray = data[:place] + b"\xfe\xff\x0d\xe0\0\0\0\0" + data[place:]

    assert sum(reasons(tmp_path, stray).values()) <= 1


def test_broken_numbers_become_null_or_cost_the_image_they_place(tmp_path):
    data = ct()
    thickness = data.replace(b"\x18\x00\x50\x00DS\x02\x005 ", b"\x18\x00\x50\x00DS\x02\x001A")
    assert thickness != data
    lake, summary = mine(
        tmp_path, {"a": thickness, "b": ct(2, series=2).replace(b"-12.8\\-12.8\\90 ", b"-12.8\\-12.8\\9A ")}
    )

    assert summary.tally.reasons == {Reason.GEOMETRY_MISSING: 1}
    assert lake.read("series")["slice_thickness_mm"].to_pylist() == [None]


@pytest.mark.parametrize("charset", ["NO SUCH CHARSET", "ISO_IR 192", "ISO 2022 IR 87"])
def test_unknown_or_lying_character_set_does_not_kill_the_file(tmp_path, charset):
    data = (
        changed(ct()).replace(b"DOE^JANE", b"D\xd6\xff\x1b$BE ").replace(b"ISO_IR 192", charset.encode().ljust(10)[:10])
    )

    _, summary = mine(tmp_path, {"a": data})

    assert summary.tally.counts["files_accepted"] == 1


def test_values_without_rescale_are_not_taken_for_hu(tmp_path):
    without = changed(ct(), RescaleSlope=None)
    other = changed(ct(2, series=2), RescaleType="US")

    assert reasons(tmp_path, without, other) == {Reason.RESCALE_MISSING: 2}


def test_enhanced_file_gives_its_frames_with_their_own_places(tmp_path):
    lake, summary = mine(tmp_path, {"e": enhanced(4)})

    rows = lake.read("slices").sort_by("slice_index").to_pylist()
    assert summary.tally.counts["files_accepted"] == 4
    assert [row["frame_number"] for row in rows] == [1, 2, 3, 4]
    assert [row["position_xyz_mm"][2] for row in rows] == [95.0, 90.0, 85.0, 80.0]
    (series,) = lake.read("series").to_pylist()
    assert (series["regular_spacing"], series["spacing_z_mm"]) == (True, 5.0)
    with SliceReader(lake) as reader:
        assert np.array_equal(reader.read(series["series_id"], 3), picture(3))


def test_enhanced_file_without_a_group_for_each_frame_is_refused(tmp_path):
    dataset = pydicom.dcmread(io.BytesIO(enhanced(3)))
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:2]
    sink = io.BytesIO()
    dataset.save_as(sink)

    assert reasons(tmp_path, sink.getvalue()) == {Reason.GEOMETRY_MISSING: 1}


def test_same_image_twice_is_taken_once(tmp_path):
    lake, summary = mine(tmp_path, {"a": ct(), "b/c": ct(), "d": ct(syntax="rle")})

    assert summary.tally.reasons == {Reason.DUPLICATE_FILE: 2}
    assert lake.read("slices").num_rows == 1


def test_one_name_for_two_images_makes_neither_believable(tmp_path):
    same_place = ct(hu=picture(7))
    lake, summary = mine(tmp_path, {"a": ct(), "b": same_place, "c": ct(2), "d": ct(2, z=-300.0), "e": ct(3)})

    assert summary.tally.reasons == {Reason.AMBIGUOUS_SOP: 4}
    assert lake.read("slices").num_rows == 1
    assert adds_up(summary.tally.counts)


def test_one_series_uid_with_several_scans_becomes_several_series(tmp_path):
    turned = changed(ct(5), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    files = {"a": ct(1), "b": ct(2), "sagittal": turned, "matrix": ct(6, hu=picture(1, 48))}

    lake, _ = mine(tmp_path, files)

    rows = lake.read("series").to_pylist()
    assert sorted((row["slice_count"], row["rows"], row["axial"], row["mixed_orientation"]) for row in rows) == [
        (1, 32, False, True),
        (1, 48, True, True),
        (2, 32, True, True),
    ]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, Reason.NOT_AXIAL_IMAGE),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, Reason.NOT_AXIAL_IMAGE),
        ({"ImageType": ["ORIGINAL", "SECONDARY", "OTHER"]}, Reason.NOT_AXIAL_IMAGE),
        ({"ImageType": None}, Reason.NOT_AXIAL_IMAGE),
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, Reason.NOT_CT),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, Reason.NOT_CT),
        ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, Reason.UNSUPPORTED_ANNOTATION),
        ({"PhotometricInterpretation": "RGB"}, Reason.PHOTOMETRIC_UNSUPPORTED),
        ({"ImagePositionPatient": None}, Reason.GEOMETRY_MISSING),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, Reason.GEOMETRY_MISSING),
        ({"BitsAllocated": 32}, Reason.PIXEL_FORMAT),
    ],
)
def test_what_is_no_axial_ct_image_is_left_out_with_a_reason(tmp_path, elements, reason):
    data = changed(ct(), **elements)
    if "SOPClassUID" in elements:
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.file_meta.MediaStorageSOPClassUID = elements["SOPClassUID"]
        sink = io.BytesIO()
        dataset.save_as(sink)
        data = sink.getvalue()

    assert reasons(tmp_path, data) == {reason: 1}


def test_private_annotation_names_its_maker_and_nothing_else(tmp_path):
    data = changed(ct(), SOPClassUID="1.3.12.2.1107.5.99.424242")
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.file_meta.MediaStorageSOPClassUID = "1.3.12.2.1107.5.99.424242"
    sink = io.BytesIO()
    dataset.save_as(sink)

    lake, _ = mine(tmp_path, {"good": ct(2), "a": sink.getvalue()})

    assert lake.read("quarantine")["detail"].to_pylist() == ["private class of 1.3.12.2.1107"]
    assert "424242" not in "".join(repr(lake.read(name).to_pylist()) for name in TABLES)


def test_original_axial_image_made_later_is_taken_with_a_flag(tmp_path):
    _, summary = mine(tmp_path, {"a": changed(ct(), ImageType=["ORIGINAL", "SECONDARY", "AXIAL"])})

    assert summary.tally.flags == {Flag.SECONDARY_IMAGE: 1}


def test_padding_becomes_air_also_where_its_sign_is_written_wrong(tmp_path):
    hu = picture(1)
    hu[:4] = -2000
    data = changed(ct(hu=hu))
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.add_new(0x00280120, "US", 63536)
    sink = io.BytesIO()
    dataset.save_as(sink)

    lake, _ = mine(tmp_path, {"a": sink.getvalue()})

    (series,) = lake.read("series")["series_id"].to_pylist()
    with SliceReader(lake) as reader:
        read = reader.read(series, 1)
    assert np.array_equal(read[:4], np.full((4, 32), -1024))
    assert np.array_equal(read[4:], hu[4:])


def test_monochrome1_is_shown_inverted_and_means_the_same(tmp_path):
    lake, _ = mine(tmp_path, {"a": changed(ct(), PhotometricInterpretation="MONOCHROME1")})

    (series,) = lake.read("series")["series_id"].to_pylist()
    with SliceReader(lake) as reader:
        assert np.array_equal(reader.read(series, 1), picture(1))


def test_signs_that_the_codestream_denies_follow_the_header(tmp_path):
    unsigned_stream = changed(
        ct(syntax="jpeg-2000", signed=False, hu=np.maximum(picture(1), -900)), PixelRepresentation=1
    )
    unsigned_stream = changed(unsigned_stream, BitsStored=16, HighBit=15)

    _, summary = mine(tmp_path, {"a": unsigned_stream})

    assert summary.tally.flags == {Flag.SIGNS_CORRECTED: 1}


def test_values_beyond_sixteen_bits_are_cut_and_said_so(tmp_path):
    _, summary = mine(tmp_path, {"a": changed(ct(), RescaleSlope="100")})

    assert summary.tally.flags == {Flag.PIXELS_CLIPPED: 1}


def test_fractional_slope_rounds_to_whole_hu(tmp_path):
    lake, _ = mine(tmp_path, {"a": changed(ct(), RescaleSlope="0.5", RescaleIntercept="10.25")})

    (series,) = lake.read("series")["series_id"].to_pylist()
    with SliceReader(lake) as reader:
        assert np.array_equal(reader.read(series, 1), np.rint(picture(1) * 0.5 + 10.25).astype(np.int16))


def test_bits_that_do_not_belong_to_the_pixel_are_ignored(tmp_path):
    data = ct(signed=False)
    dataset = pydicom.dcmread(io.BytesIO(data))
    stored = np.frombuffer(dataset.PixelData, "<u2") | np.uint16(0xF000)
    dataset.PixelData = stored.tobytes()
    sink = io.BytesIO()
    dataset.save_as(sink)

    lake, _ = mine(tmp_path, {"a": sink.getvalue()})

    (series,) = lake.read("series")["series_id"].to_pylist()
    with SliceReader(lake) as reader:
        assert np.array_equal(reader.read(series, 1), picture(1))


def test_image_without_spacing_is_taken_and_flagged(tmp_path):
    lake, summary = mine(tmp_path, {"a": changed(ct(), PixelSpacing=None)})

    assert summary.tally.flags == {Flag.SPACING_INVALID: 1}
    assert lake.read("series")["spacing_x_mm"].to_pylist() == [None]


def test_lossy_jpeg_is_no_syntax_for_ct(tmp_path):
    data = set_syntax(ct(syntax="jpeg-lossless"), "1.2.840.10008.1.2.4.50")

    assert reasons(tmp_path, data) == {Reason.COMPRESSION_UNSUPPORTED: 1}


def test_sequence_in_a_plain_ct_does_not_disturb_it(tmp_path):
    dataset = pydicom.dcmread(io.BytesIO(ct()))
    item = Dataset()
    item.ReferencedSOPInstanceUID = uid(9, 9)
    dataset.ReferencedImageSequence = Items([item] * 50)
    sink = io.BytesIO()
    dataset.save_as(sink)

    _, summary = mine(tmp_path, {"a": sink.getvalue()})

    assert summary.tally.counts["files_accepted"] == 1


def test_header_longer_than_the_first_read_is_read_again(tmp_path):
    dataset = pydicom.dcmread(io.BytesIO(ct()))
    block = dataset.private_block(0x0009, "MAKER", create=True)
    block.add_new(1, "OB", bytes(200_000))
    sink = io.BytesIO()
    dataset.save_as(sink)

    _, summary = mine(tmp_path, {"a": sink.getvalue()})

    assert summary.tally.counts["files_accepted"] == 1
