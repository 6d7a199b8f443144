"""Hostile and broken sources: nothing crashes, nothing escapes, everything is accounted for."""

import contextlib
import io
import os
import pickle
import random
import stat
import struct
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from conftest import png_bytes, slice_hu

from etl.archive import ArchiveLimits, Member, SourceTree
from etl.quality import Quarantined, Reason, RefusedError
from lesionary.errors import SourceError

LIMITS = ArchiveLimits(member_bytes=100_000, ratio=200.0, members=50)
GOOD = "Images_png/000001_01_01/001.png"


@pytest.fixture
def image():
    return png_bytes(slice_hu("000001_01_01", 1, 64))


def entries(*sources, limits=LIMITS):
    with SourceTree.open([str(source) for source in sources], limits) as tree:
        found = list(tree.entries())
    return [one for one in found if isinstance(one, Member)], [one for one in found if isinstance(one, Quarantined)]


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def test_folder_zip_and_single_file_are_walked_in_order(tmp_path, image):
    folder = tmp_path / "a"
    (folder / "Images_png/000001_01_01").mkdir(parents=True)
    (folder / GOOD).write_bytes(image)
    (folder / "DL_info.csv").write_bytes(b"x")
    write_zip(folder / "Images_png_01.zip", [("Images_png/000002_01_01/001.png", image)])

    members, refused = entries(folder, folder / "DL_info.csv")

    assert refused == []
    assert [(one.container, one.name) for one in members] == [
        (0, "DL_info.csv"),
        (0, GOOD),
        (1, ""),
        (2, "Images_png/000002_01_01/001.png"),
    ]


def test_members_are_read_in_place_also_after_pickling(tmp_path, image):
    write_zip(tmp_path / "a.zip", [(GOOD, image)], zipfile.ZIP_DEFLATED)
    with SourceTree.open([str(tmp_path)], LIMITS) as tree:
        (member,) = tree.entries()
        with pickle.loads(pickle.dumps(tree)) as travelled:
            assert travelled.read(member.container, member.name) == image
        assert tree.read(member.container, member.name) == image
    assert sorted(os.listdir(tmp_path)) == ["a.zip"]


@pytest.mark.parametrize(
    "name",
    ["../../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "..\\evil.png", "a\\..\\evil.png", "\\evil"],
)
def test_paths_that_lead_out_are_refused(tmp_path, image, name):
    write_zip(tmp_path / "a.zip", [(name, image), (GOOD, image)])

    members, refused = entries(tmp_path / "a.zip")

    assert [one.name for one in members] == [GOOD]
    assert [one.reason for one in refused] == [Reason.PATH_ESCAPES]
    assert "evil" not in repr(refused)


def test_symbolic_links_in_an_archive_are_refused(tmp_path, image):
    link = zipfile.ZipInfo("Images_png/000001_01_01/002.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    write_zip(tmp_path / "a.zip", [(link, b"/etc/passwd"), (GOOD, image)])

    members, refused = entries(tmp_path)

    assert [one.name for one in members] == [GOOD]
    assert [one.reason for one in refused] == [Reason.SYMBOLIC_LINK]


def test_symbolic_links_in_a_folder_are_not_followed(tmp_path, image):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "001.png").write_bytes(image)
    folder = tmp_path / "release"
    folder.mkdir()
    (folder / "000001_01_01").symlink_to(outside)
    (folder / "file.png").symlink_to("/etc/passwd")
    (folder / "loop").symlink_to(folder)
    os.mkfifo(folder / "pipe")

    members, refused = entries(folder)

    assert members == []
    assert Counter(one.reason for one in refused) == {Reason.SYMBOLIC_LINK: 4}


def test_bombs_are_refused_before_they_inflate(tmp_path):
    bomb = bytes(90_000)
    write_zip(
        tmp_path / "a.zip",
        [("a/ratio.png", bomb), ("a/large.png", os.urandom(120_000))],
        zipfile.ZIP_DEFLATED,
    )

    members, refused = entries(tmp_path)

    assert members == []
    assert [one.reason for one in refused] == [Reason.MEMBER_RATIO, Reason.MEMBER_TOO_LARGE]


def test_member_that_lies_about_its_size_is_refused_while_reading(tmp_path, image):
    path = write_zip(tmp_path / "a.zip", [(GOOD, os.urandom(50_000))], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 100)  # the stated inflated size
    path.write_bytes(data)
    with SourceTree.open([str(path)], LIMITS) as tree, pytest.raises(RefusedError) as caught:
        (member,) = tree.entries()
        tree.read(member.container, member.name)

    assert caught.value.reason is Reason.MEMBER_DAMAGED


def test_overlapping_members_are_refused(tmp_path, image):
    path = write_zip(tmp_path / "a.zip", [("a/001.png", image), ("a/002.png", image), ("a/003.png", image)])
    data = bytearray(path.read_bytes())
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    # The second entry now points into the first one's bytes.
    data[second + 42 : second + 46] = struct.pack("<I", 20)
    path.write_bytes(data)

    members, refused = entries(path)

    assert [one.name for one in members] == ["a/003.png"]
    assert {one.reason for one in refused} == {Reason.MEMBERS_OVERLAP}


def test_repeated_names_are_taken_once_and_it_is_the_first(tmp_path, image):
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(tmp_path / "a.zip", [(GOOD, image), (GOOD, b"later")])
    with SourceTree.open([str(tmp_path)], LIMITS) as tree:
        member, refused = tree.entries()

        assert refused.reason is Reason.DUPLICATE_SLICE
        assert tree.read(member.container, member.name) == image


def test_encrypted_members_are_refused(tmp_path, image):
    path = write_zip(tmp_path / "a.zip", [(GOOD, image)])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)

    assert [one.reason for one in entries(path)[1]] == [Reason.ENCRYPTED]


@pytest.mark.parametrize("kept", [0, 1, 22, 0.3, 0.9, -10])
def test_cut_off_archives_are_refused_as_a_whole(tmp_path, image, kept):
    path = write_zip(tmp_path / "a.zip", [(GOOD, image)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])

    members, refused = entries(path)

    assert members == []
    assert [one.reason for one in refused] == [Reason.ARCHIVE_DAMAGED]


def test_archives_with_too_many_members_are_refused_as_a_whole(tmp_path):
    write_zip(tmp_path / "a.zip", [(f"a/{number}.png", b"x") for number in range(51)])

    assert [one.reason for one in entries(tmp_path)[1]] == [Reason.TOO_MANY_MEMBERS]


def test_archives_inside_archives_are_members_not_archives(tmp_path, image):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr(GOOD, image)
    write_zip(tmp_path / "a.zip", [("inner.zip", inner.getvalue())])

    members, refused = entries(tmp_path)

    assert [one.name for one in members] == ["inner.zip"]
    assert refused == []


def test_absent_source_is_named(tmp_path):
    with pytest.raises(SourceError, match="there is no such file or folder; check the path"):
        SourceTree.open([str(tmp_path / "nowhere")], LIMITS)


def test_file_that_vanished_is_refused_not_fatal(tmp_path, image):
    (tmp_path / "a.png").write_bytes(image)
    tree = SourceTree.open([str(tmp_path)], LIMITS)
    (member,) = tree.entries()
    (tmp_path / "a.png").unlink()

    with pytest.raises(RefusedError) as caught:
        tree.read(member.container, member.name)

    assert caught.value.reason is Reason.FILE_UNREADABLE


def test_five_hundred_mutated_archives_crash_nothing_and_touch_nothing(tmp_path, image):
    rng = random.Random(7)
    original = write_zip(
        tmp_path / "a.zip", [(f"Images_png/000001_01_01/{n:03d}.png", image) for n in range(1, 6)], zipfile.ZIP_DEFLATED
    ).read_bytes()
    before = sorted(os.listdir(tmp_path))
    for _ in range(500):
        data = bytearray(original)
        for _ in range(rng.randint(1, 6)):
            # The directory is where damage does most.
            at = rng.randrange(len(data) - 400, len(data)) if rng.random() < 0.7 else rng.randrange(len(data))
            data[at] = rng.randrange(256)
        (tmp_path / "a.zip").write_bytes(data)
        with SourceTree.open([str(tmp_path / "a.zip")], LIMITS) as tree:
            for entry in tree.entries():
                with contextlib.suppress(RefusedError):
                    if isinstance(entry, Member):
                        tree.read(entry.container, entry.name)

    assert sorted(os.listdir(tmp_path)) == before
    assert not Path("/tmp/evil.png").exists()
