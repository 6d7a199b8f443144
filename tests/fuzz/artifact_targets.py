"""Targets: what a training reads back or starts from. Checkpoints, weights, the history of refinements, vectors."""

import hashlib
import io
import json
import lzma
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from fuzz.archive_mutations import mutated_zip
from fuzz.contract import Target, require, scratch, scratch_file
from fuzz.json_targets import check_error
from fuzz.mutations import joined, mutated_bytes, mutated_json, mutated_part, parts_of
from torch import nn

from lesionary.errors import ArtifactError, SourceError
from store import feature_files
from trainers.checkpoint import (
    RECORD_FILE,
    TENSORS_FILE,
    TrainingState,
    load_state,
    pack_training,
    unpack_training,
    weights_bytes,
)  # fmt: skip
from trainers.rounds import HISTORY_FILE, History, RoundLabels
from trainers.weights import load_weights_bytes

_TYPES = (
    "F32", "F16", "BF16", "F64", "I64", "I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "U16",
    "U64", "C64", "X", "",
)  # fmt: skip


def _trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    net = nn.Linear(2, 1)
    return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def run_checkpoint(data: bytes) -> None:
    """A checkpoint's two files; the digest is set right, or nothing behind it would ever be reached."""
    record, tensors = parts_of(data, 2)
    try:
        held = json.loads(record)
        if isinstance(held, dict) and held.get("sha256") == "right":
            record = json.dumps(held | {"sha256": hashlib.sha256(tensors).hexdigest()}).encode()
    except (ValueError, RecursionError):
        pass
    scratch_file(RECORD_FILE, record)
    scratch_file(TENSORS_FILE, tensors)
    net, optimizer = _trained()
    try:
        found, about = load_state(scratch())
        state = unpack_training(net, optimizer, found, about, "checkpoint 1")
    except ArtifactError as error:
        check_error(error)
        return
    require(isinstance(state.steps_done, int) and isinstance(state.extra, dict), "the state")
    require(all(bool(torch.isfinite(one).all()) for one in net.state_dict().values()), "weights")


def checkpoint_seeds() -> list[bytes]:
    net, optimizer = _trained()
    with torch.no_grad():
        for at, one in enumerate(net.parameters()):
            one.fill_(0.5 + at)
    net(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    tensors, record = pack_training(net, optimizer, TrainingState(3, {"curve": [[1, 0.5]]}))
    about = {"format": 1, "sha256": "right", "record": record}
    return [joined(json.dumps(about).encode(), weights_bytes(tensors))]


def mutated_safetensors(data, rng):
    """The header as JSON, with its length set right again; or the tensors."""
    if len(data) < 10 or rng.random() < 0.15:
        return mutated_bytes(data, rng)
    size = min(struct.unpack_from("<Q", data)[0], len(data) - 8)
    header, body = data[8 : 8 + size], data[8 + size :]
    match rng.randrange(4):
        case 0 | 1:
            header = mutated_json(header, rng)
        case 2:
            for kind in _TYPES[:3]:
                header = header.replace(f'"{kind}"'.encode(), f'"{rng.choice(_TYPES)}"'.encode(), 1)
        case _:
            body = mutated_bytes(body, rng)
    return struct.pack("<Q", len(header)) + header + body


def run_weights(data: bytes) -> None:
    """Weights from outside: safetensors, or a state dict of torch.save."""
    try:
        found = load_weights_bytes(data)
    except ArtifactError as error:
        check_error(error)
        return
    require(
        found and all(isinstance(name, str) and isinstance(one, torch.Tensor) for name, one in found.items()), "names"
    )


def weights_seeds() -> list[bytes]:
    tensors = {"a.weight": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16)}
    seeds = [safetensors.torch.save(tensors)]
    for held in (tensors, {"state_dict": tensors, "epoch": 3}):
        sink = io.BytesIO()
        torch.save(held, sink)
        seeds.append(sink.getvalue())
    sink = io.BytesIO()
    torch.save(tensors, sink, _use_new_zipfile_serialization=False)
    return [*seeds, sink.getvalue()]


def mutated_weights(data, rng):
    if data[:2] == b"PK":
        return _mutated_members(data, rng) if rng.random() < 0.6 else mutated_zip(data, rng)
    return mutated_safetensors(data, rng) if data[8:9] == b"{" else mutated_bytes(data, rng)


def _mutated_members(data, rng):
    """What a zip holds, changed under right checksums."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError, struct.error, zlib.error, lzma.LZMAError):
        return mutated_bytes(data, rng)
    if not held:
        return mutated_bytes(data, rng)
    at = rng.randrange(len(held))
    name, content = held[at]
    held[at] = (name, mutated_bytes(content, rng)) if rng.random() < 0.9 else (name + "x", content)
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, content in dict(held).items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return sink.getvalue()


def run_history(data: bytes) -> None:
    """What a checkpoint keeps of earlier rounds."""
    scratch_file(HISTORY_FILE, data)
    try:
        found = History.read(scratch(), 3)
    except ArtifactError as error:
        check_error(error)
        return
    require(all(one.types.shape == (3,) and one.probability.shape == (3,) for one in found.labels), "labels")


def history_seeds() -> list[bytes]:
    first = RoundLabels(0, np.zeros(3, np.int64), np.ones(3))
    second = RoundLabels(1, np.array([2, -1, 0]), np.array([0.5, 0.0, 1.0]))
    seeds = []
    for labels in ((first,), (first, second)):
        with tempfile.TemporaryDirectory() as folder:
            History(labels, tuple({"a": one.number} for one in labels), ([1, 2.0],), 3.5).write(Path(folder))
            seeds.append(Path(folder, HISTORY_FILE).read_bytes())
    return seeds


def run_vectors(data: bytes) -> None:
    """A Parquet file of somebody's vectors, up to where they would be written into the lake."""
    path = scratch_file("vectors.parquet", data)
    try:
        dimension, count = feature_files._checked(path)
        parts = list(feature_files._parts(path, "x@1"))
    except SourceError as error:
        check_error(error)
        return
    require(1 <= dimension <= 16_384 and count == sum(part.num_rows for part in parts) > 0, "counts")


def vectors_seeds() -> list[bytes]:
    seeds = []
    for numbers, options in ((pa.float32(), {"compression": "none"}), (pa.float64(), {"version": "1.0"})):
        table = pa.table({
            "lesion_id": pa.array(["dl-1", "dl-2"]), "vector": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(numbers)),
        })  # fmt: skip
        sink = io.BytesIO()
        pq.write_table(table, sink, **options)
        seeds.append(sink.getvalue())
    return seeds


TARGETS = (
    Target(
        "checkpoint", "trainers.checkpoint.{load_state, unpack_training}", run_checkpoint, checkpoint_seeds,
        mutated_part(mutated_json, mutated_safetensors), 4096,
    ),
    Target("weights", "trainers.weights.load_weights_bytes", run_weights, weights_seeds, mutated_weights, 4096),
    Target("history", "trainers.rounds.History.read", run_history, history_seeds, mutated_weights, 4096),
    Target("vectors", "store.feature_files.import_set", run_vectors, vectors_seeds, mutated_bytes, 4096),
)  # fmt: skip
