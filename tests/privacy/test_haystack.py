"""The search itself: it finds a text wherever and however it is hidden, and nothing where there is nothing."""

import base64
import gzip
import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile
import zlib
from urllib.parse import quote

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from privacy.haystack import Searcher, search_places

HIDDEN = "Müller^Jörg ZQ-4711"
FORMS = {
    "plain": HIDDEN.encode(),
    "upper case": HIDDEN.upper().encode(),
    "latin-1": HIDDEN.encode("latin-1"),
    "utf-16": HIDDEN.encode("utf-16"),
    "percent": quote(HIDDEN).encode(),
    "json": json.dumps({"a": HIDDEN}).encode(),
    "python": ascii([HIDDEN]).encode(),
    "base64": base64.b64encode(b"x" + HIDDEN.encode() + b"yz"),
    "hexadecimal": HIDDEN.encode().hex().encode(),
    "pickle": pickle.dumps({"name": HIDDEN}),
    "backwards": HIDDEN.encode()[::-1],
    "a digest anybody can compute": hashlib.sha256(HIDDEN.encode()).hexdigest().encode(),
}


def noise(seed=1, size=100_000):
    return np.random.default_rng(seed).bytes(size)


def zipped(data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", data)
    return buffer.getvalue()


def tarred(data):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        info = tarfile.TarInfo("a")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def parquet(text):
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [text] * 3, "b": [b"x"] * 3}), sink, compression="zstd")
    return sink.getvalue()


def png(text):
    def chunk(kind, content):
        return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")

    header = b"\0\0\0\1\0\0\0\1\x08\0\0\0\0"
    texts = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + texts + chunk(b"IDAT", zlib.compress(b"\0\0"))


PACKED = {
    "gzip": lambda text: gzip.compress(text.encode()),
    "zip": lambda text: zipped(text.encode()),
    "tar.gz": lambda text: tarred(text.encode()),
    "zip in tar.gz": lambda text: tarred(zipped(text.encode())),
    "parquet": parquet,
    "png": lambda text: png(text.encode()),
}


@pytest.mark.parametrize("form", FORMS)
def test_text_is_found_in_every_form(form):
    hidden = noise() + FORMS[form] + noise(2)

    assert Searcher([HIDDEN, "another one"]).search(hidden) == {HIDDEN}


@pytest.mark.parametrize("kind", PACKED)
def test_text_is_found_inside_what_packs_it(tmp_path, kind):
    (tmp_path / "file").write_bytes(PACKED[kind](HIDDEN))
    (tmp_path / "clean").write_bytes(PACKED[kind]("nobody"))

    found = search_places(Searcher([HIDDEN]), {"here": tmp_path})

    assert {one.text for one in found} == {HIDDEN}
    assert {one.where.split(" →")[0] for one in found} == {"here/file"}


def test_text_is_found_in_names_links_and_databases(tmp_path):
    (tmp_path / f"{HIDDEN}.log").write_bytes(b"")
    (tmp_path / "link").symlink_to(f"/data/{HIDDEN}/export")
    with duckdb.connect(tmp_path / "store") as connection:
        connection.execute("CREATE SCHEMA s; CREATE TABLE s.t AS SELECT ? AS a FROM range(5000)", [HIDDEN])

    found = search_places(Searcher([HIDDEN]), {"here": tmp_path})

    assert {one.where for one in found} >= {f"the name here/{HIDDEN}.log", "the link here/link", "here/store → tables"}


def test_text_across_the_edge_of_a_piece_is_found():
    for before in range((4 << 20) - 12, (4 << 20) + 1):
        assert Searcher([HIDDEN]).search(b"\0" * before + HIDDEN.encode()) == {HIDDEN}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("20170303", True), ("a20170303113000", True), ("2.25.20170303", True), ("1.2.20170303.7", True),
        ("[0.20170303]", False), (" -0.1720170303e-05", False), ("0.20170303.1", True), ("20170303.5", True),
    ],
)  # fmt: skip
def test_date_counts_unless_it_is_part_of_a_fraction(text, found):
    assert Searcher(["20170303"]).search(b" ".join([noise(), text.encode(), b""])) == ({"20170303"} if found else set())


def test_nothing_is_found_where_nothing_is():
    searcher = Searcher([HIDDEN, "2.25.1234567890123", "19540312", *(f"PLANTED {number:05d}" for number in range(500))])

    assert searcher.search(noise(3, 4_000_000) + b"planted 0x001 2.25.12345 1954-3-12") == set()


def test_file_that_only_claims_to_be_packed_fails_the_search(tmp_path):
    (tmp_path / "odd.parquet").write_bytes(b"PAR1" + os.urandom(50))

    with pytest.raises(pa.ArrowInvalid):
        search_places(Searcher([HIDDEN]), {"here": tmp_path})
