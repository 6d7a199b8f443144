"""Caches are whole or absent, found again by what they were made from, and read without copying."""

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from lesionary import caches
from lesionary.caches import CacheWriter, cache_url, drop_old_caches, find_cache, open_cache, write_part
from lesionary.errors import ArtifactError, InternalError
from lesionary.lake import Lake
from lesionary.locations import Location

SCHEMA = pa.schema([("name", pa.string()), ("data", pa.large_binary())])
RECIPE = {"size": 3, "names": ["a", "b"], "share": 0.5}
VERSIONS = {"lesions": 4, "slices": 2}


@pytest.fixture
def lake(tmp_path):
    return Lake.create(str(tmp_path / "lake"))


def rows(*names):
    return pa.table([list(names), [name.encode() * 3 for name in names]], schema=SCHEMA)


def make(lake, *parts, recipe=RECIPE, versions=VERSIONS, kind="things"):
    with CacheWriter(lake, kind, recipe, versions, SCHEMA) as writer:
        for number, part in enumerate(parts):
            writer.write(number, part)
        return writer.finish({"things": 3})


def test_a_finished_cache_is_found_and_holds_its_parts_in_order(lake):
    assert find_cache(lake, "things", RECIPE, VERSIONS) is None

    with CacheWriter(lake, "things", RECIPE, VERSIONS, SCHEMA) as writer:
        writer.write(1, rows("c"))
        writer.add(write_part(writer.url, 0, rows("a", "b")))  # as a worker does
        made = writer.finish({"things": 3})

    found = find_cache(lake, "things", dict(reversed(RECIPE.items())), VERSIONS)
    assert found.url == made.url
    assert dict(found.record) == dict(made.record)
    assert found.record["counts"] == {"things": 3}
    assert found.record["versions"] == VERSIONS
    assert open_cache(found.url)["name"].to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("kind", "recipe", "versions"),
    [
        ("others", RECIPE, VERSIONS),
        ("things", RECIPE | {"size": 4}, VERSIONS),
        ("things", RECIPE, VERSIONS | {"slices": 3}),
    ],
)
def test_another_kind_recipe_or_version_is_another_cache(lake, kind, recipe, versions):
    made = make(lake, rows("a"))

    assert cache_url(lake, kind, recipe, versions) != made.url
    assert find_cache(lake, kind, recipe, versions) is None


def test_left_without_its_record_it_counts_as_absent_and_can_be_made_again(lake):
    with pytest.raises(RuntimeError), CacheWriter(lake, "things", RECIPE, VERSIONS, SCHEMA) as writer:
        writer.write(0, rows("half"))
        writer.write(7, rows("of it"))
        raise RuntimeError

    assert find_cache(lake, "things", RECIPE, VERSIONS) is None
    with pytest.raises(ArtifactError, match="no finished cache"):
        open_cache(writer.url)
    assert open_cache(make(lake, rows("a")).url)["name"].to_pylist() == ["a"]


def test_an_empty_cache_has_its_columns(lake):
    assert open_cache(make(lake).url).schema.equals(SCHEMA)


def test_values_lie_in_the_mapped_file(lake):
    made = make(lake, rows("a", "b"))
    allocated = pa.total_allocated_bytes()

    table = open_cache(made.url)
    values = np.frombuffer(table["data"].chunk(0).buffers()[2], np.uint8)

    assert pa.total_allocated_bytes() - allocated < 1000
    assert bytes(values) == b"aaabbb"


@pytest.mark.parametrize("name", ["part-00000.arrow", "part-00001.arrow"])
def test_a_part_that_is_missing_or_cut_short_makes_it_absent(lake, name):
    made = make(lake, rows("a"), rows("b"))
    part = Path(made.url, name)
    part.write_bytes(part.read_bytes()[:-10])

    assert find_cache(lake, "things", RECIPE, VERSIONS) is None
    part.unlink()
    assert find_cache(lake, "things", RECIPE, VERSIONS) is None
    with pytest.raises(ArtifactError, match=name):
        open_cache(made.url)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"parts": [{"name": "../x"}], "rows": 1}', '{"parts": 3, "rows": 1}']
)
def test_a_damaged_record_makes_it_absent(lake, text):
    made = make(lake, rows("a"))
    Path(made.url, "cache.json").write_text(text)

    assert find_cache(lake, "things", RECIPE, VERSIONS) is None
    with pytest.raises(ArtifactError, match=r"cache things-[0-9a-f]{16}: "):
        open_cache(made.url)


def test_a_part_that_is_no_arrow_file_is_refused(lake):
    made = make(lake, rows("a"))
    part = Path(made.url, "part-00000.arrow")
    part.write_bytes(b"x" * part.stat().st_size)

    with pytest.raises(ArtifactError, match="cannot be read"):
        open_cache(made.url)


def test_a_record_never_points_outside_its_folder(lake, tmp_path):
    made = make(lake, rows("a"))
    record = json.loads(Path(made.url, "cache.json").read_text())
    record["parts"][0]["name"] = "../../lake.json"
    Path(made.url, "cache.json").write_text(json.dumps(record))

    assert find_cache(lake, "things", RECIPE, VERSIONS) is None


def test_parts_have_the_columns_that_were_announced(lake):
    with CacheWriter(lake, "things", RECIPE, VERSIONS, SCHEMA) as writer, pytest.raises(InternalError):
        writer.write(0, pa.table({"other": [1]}))


def test_a_kind_cannot_lead_out_of_the_folder(lake):
    with pytest.raises(InternalError):
        cache_url(lake, "../x", RECIPE, VERSIONS)


def test_old_caches_go_and_others_stay(lake):
    old, kept = make(lake, rows("a"), versions={"lesions": 3}), make(lake, rows("b"))
    other_kind = make(lake, rows("c"), kind="things-2", versions={"lesions": 3})
    other_recipe = make(lake, rows("d"), recipe={"size": 9})
    mapped = open_cache(old.url)
    half = CacheWriter(lake, "things", {"half": 1}, VERSIONS, SCHEMA)
    half.write(0, rows("h"))
    abandoned = CacheWriter(lake, "things", {"half": 2}, VERSIONS, SCHEMA)
    abandoned.write(0, rows("h"))
    os.utime(Path(abandoned.url, "part-00000.arrow"), (1, 1))

    drop_old_caches(lake, "things", keep=kept.url)

    there = {path.name for path in Path(lake.url, "cache").iterdir()}
    assert there == {Path(url).name for url in (kept.url, other_kind.url, other_recipe.url, half.url)}
    assert mapped["name"].to_pylist() == ["a"]


def test_a_cache_elsewhere_is_copied_once(lake, tmp_path, monkeypatch):
    # The same files, as an object store shows them: not on this machine's disks.
    store = fs.SubTreeFileSystem("/", fs.LocalFileSystem())
    monkeypatch.setattr(caches, "open_location", lambda url: Location(url, store, url.lstrip("/")))
    made = make(lake, rows("a"), rows("b"))

    def opened_in_a_copy():
        names = open_cache(made.url, tmp_path / "copy")["name"].to_pylist()
        return names, [(tmp_path / "copy" / f"part-0000{number}.arrow").stat().st_ino for number in (0, 1)]

    names, files = opened_in_a_copy()
    assert names == ["a", "b"]
    assert opened_in_a_copy() == (names, files)

    (tmp_path / "copy" / "part-00001.arrow").unlink()
    (tmp_path / "copy" / "part-00001.arrow").write_bytes(b"cut")
    assert opened_in_a_copy()[0] == ["a", "b"]
