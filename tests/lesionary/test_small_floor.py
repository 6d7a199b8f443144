"""Splits, identifiers, anatomy, artifacts, provenance, locations: the small parts of the floor."""

import re
import threading

import pytest

from lesionary.anatomy import LESION_TYPES, code_from_lesion_type, lesion_type_from_code
from lesionary.artifacts import atomic_file, atomic_write_json, read_json
from lesionary.errors import ArtifactError, UnwritableError, UsageError
from lesionary.identifiers import checked_namespace, new_ingest_id
from lesionary.locations import open_location
from lesionary.splits import split_from_code, split_of_patient


def test_split_shares_are_seventy_fifteen_fifteen():
    parts = [split_of_patient(f"dl-{number:06d}") for number in range(20_000)]

    assert parts.count("train") / 20_000 == pytest.approx(0.70, abs=0.015)
    assert parts.count("val") / 20_000 == pytest.approx(0.15, abs=0.015)


def test_split_of_a_patient_depends_on_nothing_but_name_and_salt():
    assert split_of_patient("dl-000001") == split_of_patient("dl-000001")
    assert len({split_of_patient("dl-000001", salt=str(number)) for number in range(60)}) == 3


def test_split_codes_are_the_releases():
    assert [split_from_code(code) for code in (0, 1, 2, 3, 4)] == [None, "train", "val", "test", None]


def test_lesion_types_keep_the_releases_order():
    assert [lesion_type_from_code(code) for code in (1, 5, 8, -1)] == ["bone", "lung", "pelvis", None]
    assert [code_from_lesion_type(name) for name in (*LESION_TYPES, None)] == [1, 2, 3, 4, 5, 6, 7, 8, -1]
    with pytest.raises(KeyError):
        lesion_type_from_code(9)


@pytest.mark.parametrize("text", ["", "DL", "1st", "a-b", "a/b", "..", "x" * 17])
def test_namespaces_that_could_hide_something_are_refused(text):
    with pytest.raises(UsageError):
        checked_namespace(text)


def test_ingest_names_are_new_every_time():
    names = {new_ingest_id() for _ in range(50)}

    assert len(names) > 45
    assert all(re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{4}", name) for name in names)


def test_file_is_absent_when_writing_fails(tmp_path):
    path = tmp_path / "deep" / "a.json"

    with pytest.raises(RuntimeError), atomic_file(path) as sink:
        sink.write(b"half")
        raise RuntimeError

    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("place", ["file/a.json", "folder", "/proc/a.json"])
def test_file_that_cannot_be_written_is_named_in_a_sentence(tmp_path, place):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    path = tmp_path / place

    with pytest.raises(UnwritableError, match=rf"^{path.name}: the file cannot be written \(.+\); check the folder"):
        atomic_write_json(path, {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "folder"]


def test_old_content_stands_until_the_new_is_whole(tmp_path):
    path = tmp_path / "a.json"
    atomic_write_json(path, {"old": 1})

    with atomic_file(path) as sink:
        sink.write(b'{"new": 2}')
        assert read_json(path) == {"old": 1}

    assert read_json(path) == {"new": 2}


def test_writers_at_once_leave_one_whole_file(tmp_path):
    path = tmp_path / "a.json"
    threads = [threading.Thread(target=atomic_write_json, args=(path, [number] * 2_000)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(read_json(path))) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_damaged_json_is_named(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"{")

    with pytest.raises(ArtifactError, match="a.json: cannot be read"):
        read_json(path)


def test_plain_paths_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    location = open_location("lake")

    assert location.is_local
    assert location.path == str(tmp_path / "lake")
    assert location.join("a", "b") == str(tmp_path / "lake/a/b")


def test_file_urls_are_local(tmp_path):
    assert open_location(f"file://{tmp_path}/x").is_local


@pytest.mark.parametrize("url", ["nosuch://bucket/x", "s3://key:secret@bucket/x"])
def test_urls_we_cannot_or_must_not_open_are_refused_without_repeating_them(url):
    with pytest.raises(UsageError) as caught:
        open_location(url)

    assert "secret" not in str(caught.value)
    assert "bucket/x" not in str(caught.value)
