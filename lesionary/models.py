"""The lake's models: trained weights with a card that says what they were made of.

    <lake>/models/<name>-<n>/weights.safetensors   and other plain files, such as the loss curve
    <lake>/models/<name>-<n>/card.json             written last: a folder without it is no model
    <lake>/models/runs/<run>/                      checkpoints of a run that trains, or did

Numbers count from 1 for each name. Two writers never get the same one: on a disk the folder is made by exactly one of
them; in an object store each writes a claim, looks, and gives way when it sees another's (stores list what was
written before, so of two claims at least one is seen). A number that was given way, or whose writer was killed, stays
unused.
"""

import dataclasses
import hashlib
import json
import math
import os
import platform
import random
import re
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pyarrow import fs

from lesionary import __version__
from lesionary.artifacts import atomic_write_bytes
from lesionary.errors import ArtifactError, LakeError, UsageError
from lesionary.json_text import parse_json
from lesionary.lake import Lake
from lesionary.locations import Location
from lesionary.object_stores import is_of_a_store, read_object, write_object
from lesionary.provenance import code_fingerprint

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
CARD_FORMAT_VERSION = 1

_TRAIN_WORDS = {"categoriser": "categories"}
_MODELS_FOLDER = "models"
_RUNS_FOLDER = "runs"
_CLAIM = "claim-"
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,40}")
_MODEL_ID = re.compile(r"(?P<name>[a-z][a-z0-9_-]{0,40})-(?P<number>[1-9][0-9]{0,8})")
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}")
_FILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,80}")
_MAX_CLAIMS = 1_000
_MAX_PAUSE_S = 0.1


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is and where it came from."""

    model_id: str
    kind: str
    """The trainer: ssbr, triplet, position, …"""
    preset: str
    created_at: str
    """UTC, ISO 8601."""
    settings: dict[str, Any]
    """Rebuild the model and its training."""
    lake: dict[str, int]
    """Versions of the tables it was trained on."""
    data: dict[str, Any]
    """Counts of what it was trained on."""
    metrics: dict[str, Any]
    code: str
    """Digest of the code; see `lesionary/provenance.py`."""
    version: str
    """Of Lesionary."""
    hardware: dict[str, Any]
    seed: int
    weights_sha256: str
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDraft:
    """What a trainer says of a new model; `publish` adds the rest of the card."""

    kind: str
    preset: str
    settings: Mapping[str, Any]
    lake: Mapping[str, int]
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]
    seed: int
    hardware: Mapping[str, Any] | None = None
    """None = of this process."""
    notes: Sequence[str] = ()


def publish(
    lake: Lake, name: str | None, draft: ModelDraft, weights: bytes, files: Mapping[str, bytes] | None = None
) -> ModelCard:
    """Put a model into the lake.

    Args:
        lake: where to.
        name: the model's name; None = its kind.
        draft: what it is.
        weights: content of a safetensors file.
        files: further plain files, such as "curve.json".

    Raises:
        UsageError: the name, or that of a file, is not allowed.
        LakeError: the lake cannot be written.
    """
    name = checked_model_name(draft.kind if name is None else name)
    for file_name in files or {}:
        if not _FILE.fullmatch(file_name) or file_name in {WEIGHTS_FILE, CARD_FILE} or file_name.startswith(_CLAIM):
            raise UsageError(f"a model holds no file named {file_name!r}")
    try:
        model_id = _claim(lake, name)
        card = ModelCard(
            model_id=model_id,
            kind=draft.kind,
            preset=draft.preset,
            created_at=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            settings=_plain(draft.settings),
            lake={table: int(version) for table, version in draft.lake.items()},
            data=_plain(draft.data),
            metrics=_plain(draft.metrics),
            code=code_fingerprint(),
            version=__version__,
            hardware=_plain(hardware_record() if draft.hardware is None else draft.hardware),
            seed=draft.seed,
            weights_sha256=hashlib.sha256(weights).hexdigest(),
            notes=list(draft.notes),
        )
        for file_name, content in {WEIGHTS_FILE: weights, **(files or {})}.items():
            _write(lake, (model_id, file_name), content)
        text = json.dumps({"format": CARD_FORMAT_VERSION, **dataclasses.asdict(card)}, indent=2, allow_nan=False)
        _write(lake, (model_id, CARD_FILE), (text + "\n").encode())
    except OSError as cause:
        raise LakeError(
            f"the model cannot be written ({type(cause).__name__})", where=lake.url, next_step="check your rights to it"
        ) from cause
    return card


def list_models(lake: Lake, kind: str | None = None) -> list[ModelCard]:
    """The lake's models, oldest first; of one kind, or all.

    Raises:
        ArtifactError: a card is damaged.
    """
    cards = [card for model_id in _folders(lake) if (card := _read_card(lake, model_id)) is not None]
    wanted = [card for card in cards if kind is None or card.kind == kind]
    return sorted(wanted, key=lambda card: (card.created_at, _split(card.model_id)))


def find_model(lake: Lake, wanted: str | None, kind: str | None = None) -> ModelCard:
    """A model by its id, or the newest of a name, or the newest of its kind.

    Args:
        lake: where to look.
        wanted: an id such as "ssbr-2", a name, or None for the newest.
        kind: what kind it must be; None = any.

    Raises:
        UsageError: there is none, or it is of another kind.
        ArtifactError: its card is damaged.
    """
    label = f"{kind} model" if kind else "model"
    if wanted is not None and _MODEL_ID.fullmatch(wanted) and (card := _read_card(lake, wanted)) is not None:
        if kind is not None and card.kind != kind:
            raise UsageError(f"{wanted} is a {card.kind} model, a {label} is needed", next_step=_known(lake, kind))
        return card
    cards = list_models(lake, kind)
    if wanted is not None:
        named = [card for card in cards if _split(card.model_id)[0] == wanted]
        if not named:
            raise UsageError(f"the lake has no {label} {wanted!r}", where=lake.url, next_step=_known(lake, kind))
        return max(named, key=lambda card: _split(card.model_id)[1])
    if not cards:
        raise UsageError(f"the lake has no {label} yet", where=lake.url, next_step=_known(lake, kind))
    return cards[-1]


def read_weights(lake: Lake, card: ModelCard) -> bytes:
    """A model's weights, as they were published.

    Raises:
        ArtifactError: they are missing or differ from what the card says.
    """
    data = read_model_file(lake, card, WEIGHTS_FILE)
    if hashlib.sha256(data).hexdigest() != card.weights_sha256:
        raise ArtifactError(
            "the weights are not what was published (their digest differs)",
            where=card.model_id,
            next_step="train the model again",
        )
    return data


def read_model_file(lake: Lake, card: ModelCard, file_name: str) -> bytes:
    """A file of a model.

    Raises:
        ArtifactError: it is missing or cannot be read.
        OSError: the object store fails.
    """
    try:
        return read_object(lake.location.filesystem, _path(lake, card.model_id, file_name))
    except OSError as cause:
        if is_of_a_store(cause):
            raise
        raise ArtifactError(
            f"{file_name} cannot be read ({type(cause).__name__})",
            where=card.model_id,
            next_step="train the model again",
        ) from cause


def model_files(lake: Lake, card: ModelCard) -> list[str]:
    """Names of a model's files, the card's among them.

    Raises:
        ArtifactError: they cannot be listed.
    """
    try:
        infos = lake.location.filesystem.get_file_info(fs.FileSelector(_path(lake, card.model_id)))
    except OSError as cause:
        raise ArtifactError(f"its files cannot be listed ({type(cause).__name__})", where=card.model_id) from cause
    return sorted(info.base_name for info in infos if _FILE.fullmatch(info.base_name) and info.size is not None)


def drop_model(lake: Lake, card: ModelCard) -> None:
    """Remove a model, its card first, so that half of one is never found. Its number is free again.

    Raises:
        LakeError: it cannot be removed.
    """
    try:
        lake.location.filesystem.delete_file(_path(lake, card.model_id, CARD_FILE))
        lake.location.filesystem.delete_dir(_path(lake, card.model_id))
    except OSError as cause:
        raise LakeError(
            f"the model cannot be removed ({type(cause).__name__})",
            where=card.model_id,
            next_step="check your rights to the lake",
        ) from cause


def run_folder(lake: Lake, run: str) -> Location:
    """Where the checkpoints of a run go.

    Raises:
        UsageError: the name is not allowed.
    """
    if not _RUN.fullmatch(run):
        raise UsageError(
            "a run's name is 1 to 81 letters, digits, dots, dashes and underscores, starting with a letter or digit",
            where="--run",
        )
    return _folder(lake, _RUNS_FOLDER, run)


def runs_folder(lake: Lake) -> Location:
    """Where the lake's runs lie."""
    return _folder(lake, _RUNS_FOLDER)


def checked_model_name(name: str) -> str:
    """The name itself, if a model may have it.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name) or name == _RUNS_FOLDER:
        raise UsageError(
            "a model's name is 1 to 41 lower-case letters, digits, dashes and underscores, starting with a letter",
            where=repr(name),
            next_step="for example `triplet` or `ct-all`",
        )
    return name


def train_word(kind: str) -> str:
    """What `lesionary train` calls a kind of model."""
    return _TRAIN_WORDS.get(kind, kind)


def hardware_record() -> dict[str, Any]:
    """What this process runs on; names GPUs only where the caller has loaded PyTorch already."""
    record: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        record["torch"] = str(torch.__version__)
        record["threads"] = torch.get_num_threads()
        record["gpus"] = [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]
    return record


def _claim(lake: Lake, name: str) -> str:
    """A number that no other writer has or will get, as a model id."""
    taken = [number for other, number in map(_split, _folders(lake)) if other == name]
    number = max(taken, default=0) + 1
    for _ in range(_MAX_CLAIMS):
        model_id = f"{name}-{number}"
        if _claim_local(lake, model_id) if lake.location.is_local else _claim_remote(lake, model_id):
            return model_id
        number += 1
        if not lake.location.is_local:
            # Whoever gave way to each other should not meet again at the next number.
            time.sleep(random.uniform(0, _MAX_PAUSE_S))  # noqa: S311 - no secret
    raise LakeError("no free number for the model was found", where=lake.url, next_step="try again")


def _claim_local(lake: Lake, model_id: str) -> bool:
    folder = Path(_path(lake, model_id))
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _claim_remote(lake: Lake, model_id: str) -> bool:
    filesystem = lake.location.filesystem
    claim = f"{_CLAIM}{secrets.token_hex(8)}"
    _write(lake, (model_id, claim), b"")
    infos = filesystem.get_file_info(fs.FileSelector(_path(lake, model_id)))
    if [info.base_name for info in infos] == [claim]:
        return True
    filesystem.delete_file(_path(lake, model_id, claim))
    return False


def _write(lake: Lake, place: tuple[str, ...], content: bytes) -> None:
    path = _path(lake, *place)
    if lake.location.is_local:
        atomic_write_bytes(Path(path), content)
        return
    # Object stores have no folders, and show an object once it is whole; other file systems need the folder first.
    lake.location.filesystem.create_dir(_path(lake, *place[:-1]), recursive=True)
    write_object(lake.location.filesystem, path, content)


def _folders(lake: Lake) -> list[str]:
    """Folders of models, finished or not."""
    try:
        infos = lake.location.filesystem.get_file_info(fs.FileSelector(_path(lake), allow_not_found=True))
    except OSError as cause:
        raise LakeError(
            f"the lake's models cannot be listed ({type(cause).__name__})",
            where=lake.url,
            next_step="check the place and your rights to it",
        ) from cause
    return [
        info.base_name for info in infos if info.type == fs.FileType.Directory and _MODEL_ID.fullmatch(info.base_name)
    ]


def _read_card(lake: Lake, model_id: str) -> ModelCard | None:
    """A model's card; None where the folder holds none."""
    try:
        system = lake.location.filesystem
        content = parse_json(read_object(system, _path(lake, model_id, CARD_FILE)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as cause:
        if is_of_a_store(cause):
            # Nobody should remove a model for that.
            raise
        raise _damaged_card(model_id) from cause
    if not isinstance(content, dict):
        raise _damaged_card(model_id)
    if content.get("format") != CARD_FORMAT_VERSION:
        raise ArtifactError(
            f"the card has format {content.get('format')!r}, this release reads {CARD_FORMAT_VERSION}",
            where=model_id,
            next_step="use the release that made it",
        )
    fields = {one.name: content.get(one.name) for one in dataclasses.fields(ModelCard)}
    kinds: dict[str, type] = dict.fromkeys(fields, str) | dict.fromkeys(
        ("settings", "lake", "data", "metrics", "hardware"), dict
    )
    kinds |= {"seed": int, "notes": list}
    if any(type(fields[name]) is not kind for name, kind in kinds.items()) or fields["model_id"] != model_id:
        raise _damaged_card(model_id)
    return ModelCard(**fields)  # type: ignore[arg-type]


def _damaged_card(model_id: str) -> ArtifactError:
    return ArtifactError(
        f"{CARD_FILE} is not a model's card", where=model_id, next_step="remove the folder from the lake's models"
    )


def _known(lake: Lake, kind: str | None) -> str:
    known = [card.model_id for card in list_models(lake, kind)]
    if known:
        return f"there are {', '.join(known)}"
    return f"train one with `lesionary train {train_word(kind) if kind else 'KIND'}`"


def _split(model_id: str) -> tuple[str, int]:
    name, _, number = model_id.rpartition("-")
    return name, int(number)


def _folder(lake: Lake, *parts: str) -> Location:
    path = _path(lake, *parts)
    url = path if lake.location.is_local else "/".join((lake.url.rstrip("/"), _MODELS_FOLDER, *parts))
    return Location(url, lake.location.filesystem, path)


def _path(lake: Lake, *parts: str) -> str:
    return lake.location.join(_MODELS_FOLDER, *parts)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values only: NaN and infinity become null, NumPy's numbers Python's."""
    return {str(name): _plain_value(value) for name, value in values.items()}


def _plain_value(value: object) -> object:
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, (list, tuple)):
        return [_plain_value(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()
