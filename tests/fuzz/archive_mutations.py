"""Changes to zips, tars and PNGs that keep checksums right, so that the parser behind them is what is tested."""

import bz2
import gzip
import lzma
import random
import struct
import zlib

from fuzz.mutations import mutated_bytes, nasty_text

# Offset and width of fields in a local header, an entry of the directory, and the end of the directory.
_FIELDS = {
    b"PK\x03\x04": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\x01\x02": ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (38, 4), (42, 4)),
    b"PK\x05\x06": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    b"PK\x06\x06": ((4, 8), (24, 8), (32, 8), (40, 8), (48, 8)),
    b"PK\x06\x07": ((4, 4), (8, 8), (16, 4)),
}  # fmt: skip
_NAMES = (
    b"../x.png", b"/etc/passwd", b"a\\b.png", b"C:x", b"x/", b"\x00", b"a.zip", b"a.tar.gz",
    b"Images_png/000001_01_01/001.png", b"\xff\xfe.png", b"PLANTEDQZ^X.dcm", b"", b"./././a", b"a" * 250,
)  # fmt: skip


def mutated_zip(data: bytes, rng: random.Random) -> bytes:
    """Fields of headers set to nasty values, names replaced, entries repeated, contents changed."""
    if rng.random() < 0.2:
        return mutated_bytes(data, rng)
    copy = bytearray(data)
    places = [(at, mark) for mark in _FIELDS for at in _all(data, mark)]
    if not places:
        return mutated_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, mark = places[rng.randrange(len(places))]
        offset, width = rng.choice(_FIELDS[mark])
        now = int.from_bytes(copy[at + offset : at + offset + width], "little")
        value = rng.choice(
            (0, 1, 8, 9, 12, 14, 0xFFFF, 0xFFFFFFFF, 2**63, now + 1, now - 1, len(data), len(data) - 9, at)
        )
        copy[at + offset : at + offset + width] = (value & ((1 << 8 * width) - 1)).to_bytes(width, "little")
        if mark == b"PK\x01\x02" and rng.random() < 0.3:
            length = int.from_bytes(copy[at + 28 : at + 30], "little")
            copy[at + 46 : at + 46 + length] = rng.choice(_NAMES).ljust(length, b"_")[:length]
        elif rng.random() < 0.15:
            end = next((other for other, _ in sorted(places) if other > at), len(copy))
            copy[at:at] = copy[at:end]
    return bytes(copy)


def _all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0 and len(found) < 200:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


# Offset and width of a tar header's fields.
_TAR_FIELDS = ((0, 100), (100, 8), (108, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155))
_TAR_TYPES = b"0\x001234567LKxgXSDMNVA\xff"
_TAR_VALUES = (
    b"00000000000", b"77777777777", b"-0000000001", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"\xff" * 11 + b"\x00", b"",
    b" ", b"00000000010", b"99999999999", b"\x80\0\0\0\0\0\0\0\0\0\x02\x00",
)  # fmt: skip


def mutated_tar(data: bytes, rng: random.Random) -> bytes:
    """Header fields replaced and blocks moved, repeated and removed; header checksums made right again."""
    if rng.random() < 0.1:
        return mutated_bytes(data, rng)
    blocks = [bytearray(data[at : at + 512].ljust(512, b"\0")) for at in range(0, max(len(data), 1), 512)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(blocks))
        block = blocks[at]
        match rng.randrange(8):
            case 0 | 1 | 2:
                offset, width = rng.choice(_TAR_FIELDS)
                value = rng.choice(_NAMES if width >= 100 else _TAR_VALUES)[:width].ljust(width, b"\0")
                block[offset : offset + width] = value
            case 3:
                block[156] = rng.choice(_TAR_TYPES)
            case 4:
                blocks[at:at] = [bytearray(block) for _ in range(rng.choice((1, 2, 8)))]
            case 5:
                del blocks[at]
                blocks = blocks or [bytearray(512)]
            case 6:
                block[:] = mutated_bytes(bytes(block), rng)[:512].ljust(512, b"\0")
            case 7:
                block[:] = _pax_block(rng)
    return b"".join(map(_with_checksum, blocks))


def _pax_block(rng: random.Random) -> bytes:
    """A record of extended headers; its length is sometimes wrong."""
    names = (
        "path",
        "size",
        "GNU.sparse.map",
        "GNU.sparse.size",
        "GNU.sparse.major",
        "GNU.sparse.name",
        "hdrcharset",
        "mtime",
    )
    text = f" {rng.choice(names)}={nasty_text(rng)[:400]}\n".encode("utf-8", "surrogateescape")
    length = len(text) + len(str(len(text))) + rng.choice((0, 0, 0, 1, -1, 10**9))
    return (str(length).encode() + text)[:512].ljust(512, b"\0")


def _with_checksum(block: bytearray) -> bytes:
    if block[257:262] != b"ustar" and not block[:1].isalnum():
        return bytes(block)
    total = sum(block[:148]) + sum(block[156:]) + 8 * 32
    return bytes(block[:148]) + b"%06o\0 " % total + bytes(block[156:])


_PACKERS = (
    (b"\x1f\x8b", gzip.decompress, lambda data: gzip.compress(data, 1, mtime=0)),
    (b"BZh", bz2.decompress, lambda data: bz2.compress(data, 1)),
    (b"\xfd7zXZ", lzma.decompress, lambda data: lzma.compress(data, preset=0)),
)


def mutated_packed_tar(data: bytes, rng: random.Random) -> bytes:
    """A compressed tar changed inside, and packed again; or changed as it is."""
    if rng.random() < 0.4:
        return mutated_bytes(data, rng)
    for start, unpack, _ in _PACKERS:
        if data.startswith(start):
            try:
                inside = unpack(data)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError):
                break
            return rng.choice(_PACKERS)[2](mutated_tar(inside[: 64 << 10], rng))
    return mutated_bytes(data, rng)


_PNG_KINDS = (
    b"IDAT",
    b"IHDR",
    b"IEND",
    b"PLTE",
    b"tRNS",
    b"iCCP",
    b"zTXt",
    b"iTXt",
    b"sBIT",
    b"gAMA",
    b"abcd",
    b"XXXX",
    b"tIME",
)


def mutated_png(data: bytes, rng: random.Random) -> bytes:
    """Chunks changed, repeated, moved and renamed under right checksums; pixels changed under their compression."""
    if rng.random() < 0.1:
        return mutated_bytes(data, rng)
    chunks, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    if not chunks:
        return mutated_bytes(data, rng)
    number = rng.randrange(len(chunks))
    chunk = chunks[number]
    match rng.randrange(7):
        case 0:
            chunk[0] = rng.choice(_PNG_KINDS)
        case 1:
            chunks.insert(number, [rng.choice(_PNG_KINDS), mutated_bytes(chunk[1], rng)])
        case 2:
            del chunks[number]
        case 3 if chunk[0] == b"IHDR" and len(chunk[1]) == 13:
            width, height = (rng.choice((0, 1, 16, 32, 33, 4096, 4097, 2**31)) for _ in range(2))
            rest = bytes(rng.choice((value, value, rng.randrange(20))) for value in chunk[1][8:])
            chunk[1] = struct.pack(">II", width, height) + rest
        case 4 | 5 if chunk[0] == b"IDAT":
            try:
                inside = zlib.decompressobj().decompress(chunk[1], 1 << 20)
            except zlib.error:
                inside = b""
            chunk[1] = zlib.compress(mutated_bytes(inside, rng), 1)
        case _:
            chunk[1] = mutated_bytes(chunk[1], rng)
    wrong = rng.random() < 0.05
    return data[:8] + b"".join(_chunk(kind, body, wrong) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes, wrong: bool) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ wrong)
