"""Hostile and broken sources: nothing crashes, nothing escapes, everything is accounted for."""

import contextlib
import io
import os
import pickle
import random
import stat
import struct
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from conftest import png_bytes, slice_hu

from etl.archive import SourceTree
from etl.containers import ArchiveLimits, Container, Member
from etl.quality import Quarantined, Reason, RefusedError
from lesionary.errors import SourceError
from lesionary.locations import Location

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


def nested_zip(image, depth):
    data, name = image, GOOD
    for _ in range(depth):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, data)
        data, name = packed.getvalue(), "inner.zip"
    return data


def test_archives_inside_archives_are_opened_to_the_third_level(tmp_path, image):
    (tmp_path / "three.zip").write_bytes(nested_zip(image, 3))
    (tmp_path / "two").mkdir()
    (tmp_path / "two/four.zip").write_bytes(nested_zip(image, 4))

    with SourceTree.open([str(tmp_path)], LIMITS) as tree:
        found = list(tree.entries())
        members = [one for one in found if isinstance(one, Member)]
        read = [pickle.loads(pickle.dumps(tree)).read(one.container, one.name) for one in members]

    assert [one.name for one in members] == [GOOD]
    assert read == [image]
    assert [one.reason for one in found if isinstance(one, Quarantined)] == [Reason.NESTED_TOO_DEEP]


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_tars_are_read_member_by_member(tmp_path, image, suffix):
    path = tmp_path / f"a.{suffix}"
    mode = {"tar": "w", "tgz": "w:gz"}.get(suffix, f"w:{suffix.removeprefix('tar.')}")
    with tarfile.open(path, mode) as archive:
        for name in (GOOD, "other/x"):
            info = tarfile.TarInfo(name)
            info.size = len(image)
            archive.addfile(info, io.BytesIO(image))
        folder = tarfile.TarInfo("empty")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)

    with SourceTree.open([str(path)], LIMITS) as tree:
        members = list(tree.entries())
        assert [one.name for one in members] == [GOOD, "other/x"]
        assert [tree.read(one.container, one.name) for one in members] == [image, image]
        assert tree.read_range(0, GOOD, 8, 4) == image[8:12]


def tar_info(name, size=0, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, target
    return info


def test_tar_tricks_are_refused_each_for_its_own_reason(tmp_path, image):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tar_info("../evil", 3), io.BytesIO(b"abc"))
        archive.addfile(tar_info("/etc/evil", 3), io.BytesIO(b"abc"))
        archive.addfile(tar_info("link", 0, tarfile.SYMTYPE, "/etc/passwd"))
        archive.addfile(tar_info("device", 0, tarfile.CHRTYPE))
        archive.addfile(tar_info("large", 200_000), io.BytesIO(bytes(200_000)))
        archive.addfile(tar_info(GOOD, len(image)), io.BytesIO(image))
        archive.addfile(tar_info(GOOD, len(image)), io.BytesIO(image))
    cut = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "b").mkdir()
    (tmp_path / "b/cut.tar").write_bytes(cut[: len(cut) - len(cut) % 512 - 30 * 512])

    members, refused = entries(tmp_path / "a.tar")

    assert [one.name for one in members] == [GOOD]
    assert [one.reason for one in refused] == [
        Reason.PATH_ESCAPES,
        Reason.PATH_ESCAPES,
        Reason.SYMBOLIC_LINK,
        Reason.SYMBOLIC_LINK,
        Reason.MEMBER_TOO_LARGE,
        Reason.DUPLICATE_SLICE,
    ]
    with contextlib.suppress(RefusedError):
        entries(tmp_path / "b")


def test_compressed_tar_that_inflates_beyond_the_limit_is_refused_as_a_whole(tmp_path):
    with tarfile.open(tmp_path / "bomb.tar.gz", "w:gz") as archive:
        archive.addfile(tar_info("zeros", 90 << 20), io.BytesIO(bytes(90 << 20)))

    members, refused = entries(tmp_path, limits=ArchiveLimits(archive_bytes=1 << 20))

    assert members == []
    assert [one.reason for one in refused] == [Reason.MEMBER_TOO_LARGE]


def test_archive_member_without_a_name_is_refused(tmp_path, image):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), image)

    members, refused = entries(tmp_path / "b.zip")

    assert members == []
    assert [one.reason for one in refused] == [Reason.PATH_ESCAPES]


def test_remote_place_that_cannot_be_listed_is_one_clear_error(tmp_path):
    class Refusing:
        def get_file_info(self, selector):
            raise OSError("secret-host refused")

    tree = SourceTree([Container(Location("s3://bucket/x", Refusing(), "bucket/x"))], LIMITS)

    with pytest.raises(SourceError, match="cannot be listed \\(OSError\\); check the connection") as caught:
        list(tree.entries())
    assert "secret-host" not in str(caught.value)


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
