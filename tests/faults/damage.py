"""What can happen to a file on a disk, done to it on purpose, and the files of a lake or a store that it is done to."""

import os
from pathlib import Path

from lesionary.lake import Lake

_PAGE = 4096


def flip_bit(path, rng):
    """One bit, anywhere."""
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data) * 8)
    data[at // 8] ^= 1 << (at % 8)
    path.write_bytes(data)
    return f"bit {at} of {len(data) * 8} flipped"


def truncate(path, rng):
    """The end is lost, all of it or some; at least a byte."""
    size = path.stat().st_size
    left = rng.randrange(size)
    os.truncate(path, left)
    return f"cut from {size} to {left} bytes"


def zero_page(path, rng):
    """A page of zeros where there was something else; the last one counts as well."""
    data = bytearray(path.read_bytes())
    pages = [start for start in range(0, len(data), _PAGE) if any(data[start : start + _PAGE])]
    start = rng.choice(pages)
    data[start : start + _PAGE] = bytes(len(data[start : start + _PAGE]))
    path.write_bytes(data)
    return f"zeros from byte {start}"


def scramble_page(path, rng):
    """A page of noise: a misdirected write."""
    data = bytearray(path.read_bytes())
    start = rng.randrange(0, len(data), _PAGE)
    data[start : start + _PAGE] = rng.randbytes(len(data[start : start + _PAGE]))
    path.write_bytes(data)
    return f"noise from byte {start}"


def delete(path, _rng):
    """Gone."""
    path.unlink()
    return "deleted"


WAYS = {
    "flip_bit": flip_bit,
    "truncate": truncate,
    "zero_page": zero_page,
    "scramble_page": scramble_page,
    "delete": delete,
}


def live_shards(lake_folder):
    """Table to the files of its newest version."""
    lake = Lake.open(str(lake_folder))
    snapshot = lake.snapshot()
    return {
        name: [Path(lake.table_folder(name).path, shard.path) for shard in shards]
        for name, shards in snapshot.shards.items()
        if shards
    }


def log_entries(lake_folder):
    """Table to the entries of its log, oldest first."""
    tables = sorted(Path(lake_folder, "tables").iterdir())
    return {table.name: sorted(table.glob("_delta_log/*.json")) for table in tables}


def store_files(lake_folder):
    """The newest version of the lake's store, and the files of its vectors."""
    link = Path(lake_folder, "features.duckdb")
    vectors = sorted(file for file in link.with_name(f"{link.name}.files").glob("*/*") if file.suffix == ".npy")
    return link.resolve(), vectors
