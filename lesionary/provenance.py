"""Which code made a row: a digest of our own Python files, the same on every machine that runs the same code.

The first task of every Ray job compares the worker's digest with the driver's (Ray puts the driver's folder in
front of each worker's path, so the two can silently run different copies), and every run's record keeps it.
"""

import functools
import hashlib
import importlib.util
from pathlib import Path

from lesionary import __version__
from lesionary.errors import CodeMismatchError

PACKAGES: tuple[str, ...] = ("lesionary", "etl", "trainers", "store", "cli")


def package_root() -> Path:
    """The folder that holds the imported packages."""
    return Path(__file__).resolve().parents[1]


@functools.cache
def code_fingerprint() -> str:
    """Digest of every Python file of the five packages, 16 hexadecimal digits."""
    digest = hashlib.sha256(__version__.encode())
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(f"{package}/{path.relative_to(folder).as_posix()}\x00".encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def require_same_code(expected: str) -> None:
    """Make sure that this process runs the code with this fingerprint.

    Raises:
        CodeMismatchError: it does not.
    """
    found = code_fingerprint()
    if found != expected:
        raise CodeMismatchError(
            f"this worker runs code {found}, the driver {expected}",
            where="Ray worker",
            next_step="install the same lesionary wheel on every node and start from an empty folder",
        )
