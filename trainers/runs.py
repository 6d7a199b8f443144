"""A run: one training under a name, in the lake's `models/runs/<run>/`, which can be stopped and gone on with.

    inputs/              files that the training starts from, such as weights
    run.json             what is trained, from which inputs, with which settings; the run exists once it is written
    driver.json          which driver has the run now; a worker of an older one stops at its next checkpoint or its end
    checkpoints/<step>/  the newest two (trainers/places.py)
    final/               what came out: the weights and other files
    result.json          what was measured, and the digests of final/; it makes the run a finished one
    published.json       which model was made of it

The folder is the only truth about a run: with Ray and without, the same files stand in the same places, so a run
that was started one way can be gone on with the other way. Needs neither torch nor Ray.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from pyarrow import fs

from lesionary.artifacts import atomic_write_bytes
from lesionary.errors import ArtifactError, InternalError, LesionaryError, UnwritableError, UsageError
from lesionary.json_text import parse_json
from lesionary.locations import Location
from lesionary.object_stores import is_of_a_store, read_object, upload_file, write_object
from lesionary.provenance import code_fingerprint
from lesionary.remote_files import download_file

_RECORD, _DRIVER, _RESULT, _LOCK = "run.json", "driver.json", "result.json", ".lock"
_PUBLISHED = "published.json"
_FINAL, _INPUTS = "final", "inputs"
CHECKPOINTS = "checkpoints"

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,80}", re.ASCII)

# The file that completes a checkpoint; the same as in a folder (trainers/places.py).
_COMPLETE = "metrics.json"

# A result holds a curve and metrics; more than this is not ours.
_MAX_JSON_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What a run trains. A run is gone on with as it was begun: the job is read from here, not from the flags."""

    kind: str
    entry: str
    job: Mapping[str, Any]
    about: Mapping[str, Any] = field(default_factory=dict)
    """What is kept for the model's card."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Files in inputs/, and their SHA-256; each stands in the job under its name as a path that the worker can read."""
    code: str = field(default_factory=code_fingerprint)
    created_at: str = field(default_factory=lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a finished run gave back."""

    returned: Mapping[str, Any]
    """What the trainer measured."""
    files: Mapping[str, str]
    """Names of the files in final/, and their SHA-256."""
    finished_at: str


class Run:
    """A run in the lake. Holds nothing open; pickles, so that workers can take it along."""

    def __init__(self, name: str, location: Location) -> None:
        self.name = name
        self.location = location
        self._token = ""

    @classmethod
    def begin(cls, name: str, location: Location, record: RunRecord, inputs: Mapping[str, bytes] | None = None) -> Self:
        """Make a run.

        Args:
            name: what it is called.
            location: its folder.
            record: what it trains.
            inputs: content of files that the training starts from, by their names in the job.

        Raises:
            UsageError: there is one of this name.
            UnwritableError: the lake takes no files.
        """
        run = cls(name, location)
        if run.exists():
            raise cls.taken(name)
        for key, content in (inputs or {}).items():
            run._write_bytes(f"{_INPUTS}/{key}", content)
        digests = {key: hashlib.sha256(content).hexdigest() for key, content in (inputs or {}).items()}
        run._write(_RECORD, asdict(replace(record, inputs=digests)))
        return run

    @classmethod
    def resume(cls, name: str, location: Location) -> Self:
        """Take up a run that was begun.

        Raises:
            UsageError: there is none of this name.
        """
        run = cls(name, location)
        if not run.exists():
            raise UsageError(
                f"there is no run {name}", where="--resume", next_step="leave --resume out to begin one of this name"
            )
        return run

    @staticmethod
    def taken(name: str) -> UsageError:
        """What to say where a new run would have an old one's name."""
        return UsageError(
            f"there is a run {name}", where="--run", next_step="add --resume to go on with it, or name another"
        )

    def exists(self) -> bool:
        """Whether the run was begun."""
        return self._has(_RECORD)

    def record(self) -> RunRecord:
        """What it trains.

        Raises:
            ArtifactError: the record cannot be read.
        """
        try:
            record = RunRecord(**self._read(_RECORD))
        except TypeError as cause:
            raise self._damaged(_RECORD) from cause
        texts = (record.kind, record.entry, record.code, record.created_at)
        tables = (record.job, record.about, record.inputs)
        if not all(isinstance(one, str) for one in texts) or not all(isinstance(one, dict) for one in tables):
            raise self._damaged(_RECORD)
        # Inputs are copied under these names: none may lead elsewhere.
        if not all(_FILE_NAME.fullmatch(name) for name in record.inputs):
            raise self._damaged(_RECORD)
        return record

    def result(self) -> RunResult | None:
        """What it gave back; None while it is unfinished.

        Raises:
            ArtifactError: the result cannot be read.
        """
        if not self._has(_RESULT):
            return None
        try:
            result = RunResult(**self._read(_RESULT))
        except TypeError as cause:
            raise self._damaged(_RESULT) from cause
        if not isinstance(result.returned, dict) or not isinstance(result.files, dict):
            raise self._damaged(_RESULT)
        return result

    @contextlib.contextmanager
    def driven(self) -> Iterator[None]:
        """Be the driver of the run for the duration of the block.

        Raises:
            UsageError: another process of this machine drives it now.
        """
        with self._locked():
            self._token = secrets.token_hex(8)
            self._write(_DRIVER, {"token": self._token})
            yield

    def require_driver(self) -> None:
        """Make sure that the driver still has the run which this copy of it came from: the workers of one that was
        killed live on for a while.

        Raises:
            UsageError: the run's folder is not where the driver sees it.
            InternalError: another driver took the run over.
        """
        if not self._has(_DRIVER):
            raise UsageError(
                "this worker does not see the run's folder",
                where=self.location.url,
                next_step="use a lake that every node reaches: an object store, or a shared folder",
            )
        if self._read(_DRIVER).get("token") != self._token:
            raise InternalError("another driver went on with this run", where=f"run {self.name}")

    def finish(self, out: Path, returned: Mapping[str, Any]) -> None:
        """Keep what came out and what was measured; from then on the run is finished.

        Raises:
            UsageError: the run's folder is not where the driver sees it.
            InternalError: what was returned is no JSON, or another driver took the run over.
            UnwritableError: the lake takes no files.
        """
        # Much may lie between the last checkpoint and this, such as an evaluation.
        self.require_driver()
        digests = {path.name: _sha256(path) for path in sorted(out.iterdir()) if path.is_file()}
        result = RunResult(returned, digests, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
        with _naming_the_run(self.name):
            self._upload(out, self.location.join(_FINAL))
        self._write(_RESULT, asdict(result))

    def read_final(self, name: str) -> bytes:
        """The content of a file that came out, as it was when the run finished.

        Raises:
            ArtifactError: it is missing or changed.
        """
        result = self.result()
        return self._read_checked(f"{_FINAL}/{name}", result.files.get(name) if result else None)

    def fetch_inputs(self, folder: Path) -> dict[str, str]:
        """Copy the files that the training starts from into a folder; their names in the job, and paths.

        Raises:
            ArtifactError: one is missing or changed.
        """
        fetched: dict[str, str] = {}
        for key, digest in self.record().inputs.items():
            (folder / key).write_bytes(self._read_checked(f"{_INPUTS}/{key}", digest))
            fetched[key] = str(folder / key)
        return fetched

    def _read_checked(self, path: str, digest: str | None) -> bytes:
        data = self._content(path)
        if hashlib.sha256(data).hexdigest() != digest:
            raise self._damaged(path)
        return data

    def published(self) -> str | None:
        """The model that was made of the run.

        Raises:
            ArtifactError: the file that names it cannot be read.
        """
        if not self._has(_PUBLISHED):
            return None
        model_id = self._read(_PUBLISHED).get("model_id")
        if not isinstance(model_id, str):
            raise self._damaged(_PUBLISHED)
        return model_id

    def set_published(self, model_id: str) -> None:
        """Say which model was made of the run, and drop what only a training needs.

        Raises:
            UnwritableError: the lake takes no files.
        """
        self._write(_PUBLISHED, {"model_id": model_id})
        self.forget_files()

    def forget_files(self) -> None:
        """Drop checkpoints, inputs and final files: a model made of them has what counts. Record and result stay."""
        for folder in (CHECKPOINTS, _INPUTS, _FINAL):
            self._delete_folder(self.location.join(folder))

    def forget_foreign(self, name: str) -> None:
        """Drop a file that another program keeps in the run's folder, if it is there."""
        with contextlib.suppress(OSError):
            self.location.filesystem.delete_file(self.location.join(name))

    # Checkpoints in an object store; a local folder's are kept by `trainers.places.Alone`.

    def newest_step(self) -> int | None:
        """Step of the newest whole checkpoint."""
        return max(self._steps(), default=None)

    def fetch_checkpoint(self, step: int, folder: Path) -> Path:
        """A local copy of a checkpoint.

        Raises:
            ArtifactError: it cannot be read.
        """
        target = folder / str(step)
        try:
            target.mkdir(parents=True, exist_ok=True)
            for info in self.location.filesystem.get_file_info(fs.FileSelector(self.checkpoint_path(step))):
                if info.is_file:
                    download_file(self.location.filesystem, info.path, target / info.base_name)
        except OSError as cause:
            if is_of_a_store(cause):
                # Nothing is damaged: the run can be gone on with.
                raise
            raise self._damaged(f"checkpoint {step}") from cause
        return target

    def keep_checkpoint(self, folder: Path, metrics: Mapping[str, Any], keep: int) -> None:
        """Upload a checkpoint, what completes it last, and drop all but the newest.

        Raises:
            UnwritableError: the place takes no files.
        """
        step = int(metrics["step"])
        with _naming_the_run(self.name):
            self._upload(folder, self.checkpoint_path(step))
            self._write(f"{CHECKPOINTS}/{step}/{_COMPLETE}", metrics)
            for old in sorted(self._steps())[:-keep]:
                self._delete_folder(self.checkpoint_path(old))

    def checkpoint_path(self, step: int) -> str:
        """Where a checkpoint lies, as the lake's file system names it."""
        return self.location.join(CHECKPOINTS, str(step))

    def _steps(self) -> list[int]:
        selector = fs.FileSelector(self.location.join(CHECKPOINTS), recursive=True, allow_not_found=True)
        found = (info.path.split("/")[-2:] for info in self.location.filesystem.get_file_info(selector))
        return [int(step) for step, name in found if name == _COMPLETE and step.isdecimal()]

    def _upload(self, folder: Path, target: str) -> None:
        system = self.location.filesystem
        self._delete_folder(target)
        system.create_dir(target, recursive=True)
        for path in (path for path in folder.iterdir() if path.is_file()):
            upload_file(path, system, f"{target}/{path.name}")

    def _delete_folder(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.location.filesystem.delete_dir(path)

    def _has(self, name: str) -> bool:
        info = self.location.filesystem.get_file_info(self.location.join(name))
        return bool(info.type == fs.FileType.File)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            value = parse_json(self._content(name, _MAX_JSON_BYTES))
        except ValueError as cause:
            raise self._damaged(name) from cause
        if not isinstance(value, dict):
            raise self._damaged(name)
        return value

    def _content(self, name: str, at_most: int | None = None) -> bytes:
        try:
            return read_object(self.location.filesystem, self.location.join(name), at_most)
        except OSError as cause:
            if is_of_a_store(cause):
                # Nothing is damaged: the run can be gone on with.
                raise
            raise self._damaged(name) from cause

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        try:
            text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as cause:
            raise InternalError(f"what would be written is no JSON ({cause})", where=f"{self.name}/{name}") from cause
        self._write_bytes(name, f"{text}\n".encode())

    def _write_bytes(self, name: str, content: bytes) -> None:
        system, target = self.location.filesystem, self.location.join(name)
        with _naming_the_run(self.name):
            if self.location.is_local:
                atomic_write_bytes(Path(target), content)
                return
            # An object store shows a file once it is whole; other file systems need the folder first.
            system.create_dir(target.rpartition("/")[0], recursive=True)
            write_object(system, target, content)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if not self.location.is_local:
            yield
            return
        with _naming_the_run(self.name):
            Path(self.location.path).mkdir(parents=True, exist_ok=True)
            lock = Path(self.location.path, _LOCK).open("ab")  # noqa: SIM115 (closed below; a failure to open is named)
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as cause:
                raise UsageError(
                    f"run {self.name} is being trained by another process",
                    where="--run",
                    next_step="wait for it, stop it, or name another run",
                ) from cause
            yield

    def _damaged(self, what: str) -> ArtifactError:
        return ArtifactError(
            f"{what} is missing or not what was written",
            where=f"run {self.name}",
            next_step="begin the training again under another --run",
        )


def require_torch() -> None:
    """Make sure that PyTorch is installed: it is an extra.

    Raises:
        UsageError: it is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise UsageError("training needs PyTorch, which is not installed", next_step="pip install 'lesionary[train]'")


def new_run_name(kind: str) -> str:
    """A name that no other run has, such as ssbr-20260131-175900-3f."""
    return f"{kind}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _naming_the_run(name: str) -> Iterator[None]:
    try:
        yield
    except LesionaryError:
        raise
    except OSError as cause:
        raise UnwritableError(
            f"the run cannot be kept ({cause.strerror or type(cause).__name__})",
            where=f"run {name}",
            next_step="check the lake, its space and your rights to it",
        ) from cause
