"""A real S3 server for the tests: SeaweedFS's own binary out of a wheel, on loopback, its data in a folder of ours.

Why this one, and what it does not prove: docs/decisions/0014-object-store-for-tests.md.
"""

import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

# One for all: this server sets volumes aside for each.
BUCKET = "lesionary-tests"

_SET_PARENT_DEATH_SIGNAL = 1
_HOST = "127.0.0.1"
_START_SECONDS = 60
_ALL_RIGHTS = ["Admin", "Read", "List", "Tagging", "Write"]


@dataclass(frozen=True)
class Credentials:
    """What a client signs with; recognisable, so that a leak of them can be searched for."""

    key_id: str = "AKIAPLANTEDKEYID0001"
    secret: str = "planted/SecretAccessKey+0002planted"  # noqa: S105 - of a server that lives for one test


@dataclass(frozen=True)
class S3Server:
    """A server that runs."""

    port: int
    credentials: Credentials
    folder: Path
    process: subprocess.Popen

    @property
    def endpoint(self) -> str:
        """Where clients connect without anything in between."""
        return f"http://{_HOST}:{self.port}"

    def filesystem(self) -> fs.S3FileSystem:
        """A client of the test's own, past any proxy."""
        return fs.S3FileSystem(
            access_key=self.credentials.key_id,
            secret_key=self.credentials.secret,
            endpoint_override=self.endpoint,
            region="us-east-1",
            allow_bucket_creation=True,
        )


def client_environment(endpoint: str, credentials: Credentials) -> dict[str, str]:
    """The variables a person would set for a store that is not Amazon's."""
    return {
        "AWS_ACCESS_KEY_ID": credentials.key_id,
        "AWS_SECRET_ACCESS_KEY": credentials.secret,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def server_binary() -> Path | None:
    """SeaweedFS as `pip install -e .[dev]` brings it, or one on the path."""
    beside = Path(sys.executable).with_name("weed")
    if beside.is_file():
        return beside
    found = shutil.which("weed")
    return Path(found) if found else None


@contextlib.contextmanager
def s3_server(folder: Path, credentials: Credentials | None = None) -> Iterator[S3Server]:
    """A server in `folder` that takes requests when the block starts and is gone when it ends."""
    binary = server_binary()
    if binary is None:
        raise FileNotFoundError("weed: install the extra `dev`")
    credentials = credentials or Credentials()
    data = folder / "data"
    data.mkdir(parents=True)
    rights = {"accessKey": credentials.key_id, "secretKey": credentials.secret}
    identity = {"name": "lesionary", "credentials": [rights], "actions": _ALL_RIGHTS}
    (folder / "identities.json").write_text(json.dumps({"identities": [identity]}))
    ports = free_ports(8)
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [binary, *_arguments(folder, data, ports)],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={"HOME": str(folder), "PATH": os.environ["PATH"]},
            start_new_session=True,
            preexec_fn=_die_with_the_test,  # noqa: PLW1509 - no thread of ours runs yet
        )
    server = S3Server(ports[6], credentials, folder, process)
    try:
        _wait_until_it_answers(server)
        yield server
    finally:
        # Its data go with it: a polite end would take seconds and keep nothing.
        process.kill()
        process.wait()
        for port in ports:
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left.unlink()


def _die_with_the_test() -> None:
    """A test run that is killed must leave no server behind."""
    ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [one.getsockname()[1] for one in sockets]


def _arguments(folder: Path, data: Path, ports: list[int]) -> list[str]:
    """One process with master, volume server, filer and S3 gateway; loopback only, no telemetry."""
    settings = {
        "dir": data,
        "ip": _HOST,
        "ip.bind": _HOST,
        "master.port": ports[0],
        "master.port.grpc": ports[1],
        "master.telemetry": "false",
        # Alone, it still waits for part of this time before it leads itself.
        "master.electionTimeout": "1s",
        "master.raftBootstrap": "true",
        "master.volumeSizeLimitMB": 256,
        "volume.port": ports[2],
        "volume.port.grpc": ports[3],
        "volume.max": 100,
        "volume.preStopSeconds": 0,
        "filer": "true",
        "filer.port": ports[4],
        "filer.port.grpc": ports[5],
        "filer.localSocket": folder / "filer.sock",
        "s3": "true",
        "s3.port": ports[6],
        "s3.port.grpc": ports[7],
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": folder / "s3.sock",
        "s3.config": folder / "identities.json",
        # A bucket that is not there has to be an error, as on every other store.
        "s3.autoCreateBucket": "false",
    }
    return ["-logtostderr=true", "server", *(f"-{name}={value}" for name, value in settings.items())]


def _wait_until_it_answers(server: S3Server) -> None:
    """Until a bucket can be made and an object written: the gateway listens before its volumes are there."""
    last = "nothing answers"
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{server.endpoint}/status", timeout=2) as answer:  # noqa: S310
                answer.read()
            filesystem = server.filesystem()
            filesystem.create_dir(BUCKET)
            with filesystem.open_output_stream(f"{BUCKET}/started") as sink:
                sink.write(b"yes")
        except (OSError, urllib.error.URLError) as error:
            last = str(error)
            time.sleep(0.1)
        else:
            return
    log = (server.folder / "server.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not start: {last}\n{log}")
