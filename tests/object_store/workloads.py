"""What is done to a lake on an object store, here and in the campaign: sources, commands, and what must be equal."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import uuid
from dataclasses import dataclass
from pathlib import Path

from conftest import annotation_row, write_release
from object_store.fault_proxy import ProxyControl
from object_store.s3_server import BUCKET, S3Server, client_environment

from lesionary.lake import Lake
from lesionary.schema import TABLES
from lesionary.upkeep import verify

PROGRAM = "from cli.main import main; main()"

# Two runs differ in who wrote a row and in the times of the files read; pixels are covered by their digests.
_OF_THE_RUN = frozenset({"ingest_id", "pixels", "fingerprint"})

# Strays are in units named after the place they come from.
_OF_THE_PLACE = re.compile(r'(?<="unit_id": ")([a-z]+-[a-z]+)-[0-9a-f]{6,}(?=")')


@dataclass(frozen=True)
class Store:
    """A server behind a proxy."""

    server: S3Server
    proxy: ProxyControl

    def new_place(self, name: str) -> str:
        """A URL nobody used before."""
        return f"s3://{BUCKET}/{name}-{uuid.uuid4().hex}"

    def put_file(self, source: Path, url: str) -> None:
        """A file, past the proxy."""
        with self.server.filesystem().open_output_stream(url.removeprefix("s3://")) as sink:
            sink.write(source.read_bytes())

    def put_folder(self, folder: Path, url: str) -> None:
        """Everything below a folder, past the proxy."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put_file(path, f"{url}/{path.relative_to(folder).as_posix()}")

    def environment(self) -> dict[str, str]:
        """Of a command that goes through the proxy."""
        ours = client_environment(self.proxy.endpoint, self.server.credentials)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return {**inherited, **ours, "OMP_NUM_THREADS": "1"}


def start(store: Store, *arguments: str) -> subprocess.Popen:
    """A command of ours in a process of its own."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=store.environment(),
        start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen, seconds: float = 240) -> tuple[int, str]:
    """Exit code and everything said."""
    said, _ = process.communicate(timeout=seconds)
    return process.returncode, said


def write_sources(folder: Path, series: int, slices: int, side: int = 128) -> dict[str, Path]:
    """One release in three forms, with a quirk or two: folders, a zip, a tar."""
    names = [f"{number:06d}_01_01" for number in range(1, series + 1)]
    rows = [annotation_row(File_name=f"{name}_{slices // 2:03d}.png") for name in names]
    release = write_release(folder / "release", {name: range(1, slices + 1) for name in names}, rows, side)
    (release / "Images_png" / names[1] / "001.png").write_bytes(b"broken")
    (release / "stray.txt").write_text("x")
    shutil.make_archive(str(folder / "release"), "zip", release)
    with tarfile.open(folder / "release.tar", "w") as archive:
        archive.add(release, "release")
    return {"folders": release, "zip": folder / "release.zip", "tar": folder / "release.tar"}


def upload_source(store: Store, source: Path) -> str:
    """A source in a place of its own; its URL."""
    url = f"{store.new_place('source')}/{source.name}"
    if source.is_dir():
        store.put_folder(source, url)
    else:
        store.put_file(source, url)
    return url


def lake_digest(url: str) -> dict[str, str]:
    """Of every row of each table but what differs from run to run, whatever shards they lie in."""
    lake = Lake.open(url)
    digests = {}
    for name, table in TABLES.items():
        if not lake.has_table(name):
            continue
        kept = [column for column in table.column_names if column not in _OF_THE_RUN]
        rows = sorted(
            _OF_THE_PLACE.sub(r"\1", json.dumps(row, default=str)) for row in lake.read(name, columns=kept).to_pylist()
        )
        digests[name] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    return digests


def problems_of(url: str) -> tuple[str, ...]:
    """What `lake verify --deep` has to say."""
    return verify(Lake.open(url), deep=True).problems
