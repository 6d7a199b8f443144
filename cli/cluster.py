"""The one door to Ray: the only `ray.init` of the project.

Three guards, each against something that was seen to happen (docs/decisions/0001):

* `address="local"` unless a cluster is named: without it Ray joins whatever cluster is recorded on the machine;
* started from the folder that holds our packages: Ray puts the driver's folder in front of every worker's path, so
  a folder called `store` beside the user would otherwise shadow ours;
* the uv hook off: it would upload the current folder and run workers from the copy.
"""

import contextlib
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cli.cluster_watch import ask_for_patience, ending_with_the_cluster
from lesionary.errors import UsageError
from lesionary.provenance import package_root
from lesionary.secret_files import make_secret

_SESSION_PREFIX = "lsn-ray-"

# The kernel cuts socket paths at 107 characters, and Ray adds some 80 to the folder it is given.
_LONGEST_TEMPORARY_FOLDER = 16
_SHORT_TEMPORARY_FOLDER = "/tmp"  # noqa: S108 (the folder made in it is private and has a random name)

_KNOCK_SECONDS = 5.0
_CLIENT = "ray://"

# Plans and small tables travel through the object store, pixels never do.
_OBJECT_STORE_BYTES = 256 << 20


@contextlib.contextmanager
def ray_session(address: str | None = None, workers: int = 0) -> Iterator[None]:
    """A connection to Ray for the duration of the block: a private local one, or the named cluster.

    Args:
        address: a running cluster (`auto`, `ray://…` or host:port); None or `local` = start one here.
        workers: cores a local session offers; 0 = all of this machine's.

    Raises:
        UsageError: the named cluster does not answer.
        InternalError: the cluster was lost meanwhile.
    """
    _silence_ray()
    ask_for_patience()
    import ray

    if address is None or address == "local":
        with _session_folder() as folder:
            _start_locally(folder, workers)
            with ending_with_the_cluster(_head(), "this machine", ray.shutdown):
                yield
        return
    _join(address)
    # Whoever is a cluster's client sees the door it came through, not the head's own address.
    head = address.removeprefix(_CLIENT) if address.startswith(_CLIENT) else _head()
    with ending_with_the_cluster(head, f"--ray-address {address}", ray.shutdown):
        yield


def _head() -> str:
    """Host and port of the connected cluster's head."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


def _join(address: str) -> None:
    """Connect to a cluster that runs.

    Raises:
        UsageError: it does not answer, or not to us.
    """
    import ray

    with contextlib.chdir(package_root()):
        try:
            _require_listener(address)
            with _unheard(), _command_line_kept_back():
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as cause:
            raise UsageError(
                f"the Ray cluster does not answer ({type(cause).__name__})",
                where=f"--ray-address {address}",
                next_step="check the address and RAY_AUTH_TOKEN, or leave the option out to run on this machine",
            ) from cause


def _require_listener(address: str) -> None:
    """Knock before Ray does: it would keep trying for minutes.

    Raises:
        OSError: nobody listens there.
        ValueError: the port is no number.
    """
    host, colon, port = address.rpartition("://")[2].partition(":")
    if colon:
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _start_locally(folder: Path, workers: int) -> None:
    import ray

    _keep_token_private()
    with contextlib.chdir(package_root()), _unheard(), _command_line_kept_back():
        ray.init(
            address="local",
            num_cpus=workers or os.cpu_count(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=str(folder),
        )


def _keep_token_private() -> None:
    """Make the token that a Ray of our own asks callers for, before Ray does: it would let everybody read it.

    Its ports are open on all addresses of the machine, and whoever knows the token runs code as us.
    """
    if os.environ.keys() & {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}:
        return
    path = Path.home() / ".ray" / "auth_token"
    # Where there is no home to write into, Ray says so itself.
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_secret(path)
        path.chmod(0o600)


@contextlib.contextmanager
def _session_folder() -> Iterator[Path]:
    """A private folder for Ray's session files; those of drivers that were killed are swept away first."""
    system = tempfile.gettempdir()
    root = Path(system if len(system) <= _LONGEST_TEMPORARY_FOLDER else _SHORT_TEMPORARY_FOLDER)
    for stale in root.glob(f"{_SESSION_PREFIX}*"):
        owner = stale.name.removeprefix(_SESSION_PREFIX).split("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{_SESSION_PREFIX}{os.getpid()}-", dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _command_line_kept_back() -> Iterator[None]:
    """Ray shows a driver's command line to the whole cluster and keeps it in its files; a path may name a patient."""
    from ray._private import utils

    before = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "lesionary"
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Nothing reaches stderr in the block; Ray's core says there that it was told to say less. Exceptions still do."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _silence_ray() -> None:
    """Settings Ray reads from the environment when it is imported."""
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Every pool of actors is announced on stderr as an error that it is not.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


def cluster_cores() -> int:
    """Cores of the connected cluster, at least one."""
    import ray

    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def cluster_gpus() -> float:
    """GPUs of the connected cluster."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0.0))
