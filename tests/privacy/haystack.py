"""Looks for planted texts in everything that a run left: each file's bytes, and what is packed in them.

Parquet, Arrow, DuckDB, gzip, zip, tar and PNG are opened and what they hold is looked through too. A file that claims
to be one of these and cannot be opened fails the search: what is not looked at is not known to be clean.
"""

import contextlib
import gzip
import io
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from privacy.needles import needles

_PIECE_BYTES = 4 << 20
_TABLE_BITS = 20
_DEEPEST = 4
_NUMBER_CHARACTERS = 24
_NUMBER_BEFORE = re.compile(rb"(?:^|[^0-9.])[0-9]{1,6}\.[0-9]*$")
_DAMAGED = (pa.ArrowInvalid, zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, OSError)


@dataclass(frozen=True, order=True)
class Found:
    """A planted text, and where it was found."""

    where: str
    text: str


class Searcher:
    """Finds any of many texts in one pass over the bytes."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._needles = needles(texts)
        self._by_start: dict[bytes, list[bytes]] = {}
        for needle in self._needles:
            self._by_start.setdefault(needle[:4], []).append(needle)
        self._starts = np.zeros(1 << _TABLE_BITS, bool)
        self._starts[_hashes(np.frombuffer(b"".join(self._by_start), np.uint8).reshape(-1, 4).T)] = True
        self._longest = max(map(len, self._needles))

    def search(self, data: bytes) -> set[str]:
        """The texts that stand in the data, in whatever form."""
        found: set[str] = set()
        for start in range(0, len(data), _PIECE_BYTES):
            piece = data[start : start + _PIECE_BYTES + self._longest].lower()
            numbers = np.frombuffer(piece, np.uint8)
            if len(numbers) < 4:
                break
            places = np.flatnonzero(self._starts[_hashes([numbers[at : len(numbers) - 3 + at] for at in range(4)])])
            for place in places.tolist():
                for needle in self._by_start.get(piece[place : place + 4], ()):
                    if piece.startswith(needle, place) and not _in_a_fraction(piece, place, needle):
                        found.add(self._needles[needle])
        return found


def _in_a_fraction(piece: bytes, place: int, needle: bytes) -> bool:
    """Whether digits, such as a date's, only stand in a decimal number: a table has millions of those.

    A UID or a time that begins with a date is not one.
    """
    if not needle.isdigit():
        return False
    before = _NUMBER_BEFORE.search(piece[max(0, place - _NUMBER_CHARACTERS) : place])
    return before is not None and piece[place + len(needle) : place + len(needle) + 1] != b"."


def _hashes(four: "Iterable[np.ndarray]") -> np.ndarray:
    first, second, third, fourth = (one.astype(np.uint32) for one in four)
    word = first | (second << np.uint32(8)) | (third << np.uint32(16)) | (fourth << np.uint32(24))
    return (word * np.uint32(2_654_435_761)) >> np.uint32(32 - _TABLE_BITS)


def search_places(
    searcher: Searcher, places: Mapping[str, Path], leave_out: Iterable[Path] = (), *, damaged: bool = False
) -> list[Found]:
    """Every planted text in the files of some folders, in their names, and in where links point.

    Args:
        searcher: knows the texts.
        places: label to folder.
        leave_out: files that are not looked into.
        damaged: what cannot be opened is looked through as it is; so are half-written files, which end in .part.
    """
    left = {path.resolve() for path in leave_out}
    found: set[Found] = set()
    for label, folder in places.items():
        for path in sorted(folder.rglob("*")):
            name = f"{label}/{path.relative_to(folder)}"
            found |= {
                Found(f"the name {name}", text) for text in searcher.search(os.fsencode(path.relative_to(folder)))
            }
            if path.is_symlink():
                found |= {Found(f"the link {name}", text) for text in searcher.search(os.fsencode(path.readlink()))}
            elif path.is_file() and path.resolve() not in left:
                half_written = damaged or path.suffix == ".part"
                for layer, data in layers(name, path.read_bytes(), path, damaged=half_written):
                    found |= {Found(layer, text) for text in searcher.search(data)}
    return sorted(found)


def layers(
    name: str, data: bytes, path: Path | None = None, depth: int = 0, *, damaged: bool = False
) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and those of everything packed in it, each with a label."""
    yield name, data
    if depth == _DEEPEST:
        return
    with contextlib.suppress(*(_DAMAGED if damaged else ())):
        for label, inner in _opened(name, data, path):
            yield from layers(f"{name} → {label}", inner, None, depth + 1, damaged=damaged)


def _opened(name: str, data: bytes, path: Path | None) -> Iterator[tuple[str, bytes]]:
    if data[:2] == b"\x1f\x8b":
        yield "gzip", gzip.decompress(data)
    elif data[:4] == b"PAR1":
        yield "rows", _text_of(pq.read_table(pa.BufferReader(data)))
    elif data[:6] == b"ARROW1":
        yield "rows", _text_of(pa.ipc.open_file(pa.BufferReader(data)).read_all())
    elif data[8:12] == b"DUCK" and path is not None:
        yield "tables", _text_of_database(path)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _png_texts(data)
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for one in archive.namelist():
                yield one, archive.read(one)
    elif data[257:262] == b"ustar" and not name.endswith(".npy"):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for one in archive:
                # Where links point stands in the tar's own bytes.
                if one.isreg():
                    yield one.name, archive.extractfile(one).read()


def _text_of(table: pa.Table) -> bytes:
    """The rows as text; what is binary as it is."""
    binary = [
        field.name for field in table.schema if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)
    ]
    packed = b"".join(bytes(value) for name in binary for value in table[name].to_pylist() if value is not None)
    rows = repr(table.drop_columns(binary).to_pylist()).encode("utf-8", "surrogateescape")
    return rows + repr(table.schema.metadata).encode() + packed


def _text_of_database(path: Path) -> bytes:
    with duckdb.connect(path, read_only=True) as connection:
        names = connection.sql("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        parts = [repr(connection.sql(f'SELECT * FROM "{schema}"."{table}"').fetchall()) for schema, table in names]
        parts += [repr(connection.sql("SELECT sql FROM duckdb_views()").fetchall())]
    assert names, f"{path.name} holds no table"
    return "\n".join(parts).encode("utf-8", "surrogateescape")


def _png_texts(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Compressed text chunks; plain ones are in the file's bytes. And the pixels as they lie in memory."""
    place, packed = 8, b""
    while place + 8 <= len(data):
        size, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        chunk = data[place + 8 : place + 8 + size]
        if kind in {b"zTXt", b"iCCP"}:
            yield kind.decode(), zlib.decompress(chunk.split(b"\0", 1)[1][1:])
        elif kind == b"iTXt":
            keyword, rest = chunk.split(b"\0", 1)
            text = rest[2:].split(b"\0", 2)[2]
            yield "iTXt", keyword + (zlib.decompress(text) if rest[0] else text)
        elif kind == b"IDAT":
            packed += chunk
        place += size + 12
    yield "pixels", zlib.decompress(packed)
