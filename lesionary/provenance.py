"""Which code made a row, and whether a worker would make the same one: the contract between driver and workers.

Ray puts the driver's folder in front of each worker's path and knows nothing of ours, so nodes can silently run other
code, decode with another library, or talk to another object store. Every process that takes work from a driver first
compares its own contract with the driver's, before it unpickles anything:

    code        a digest of our own Python files, the same on every machine that runs the same code
    python      its minor version
    libraries   the versions of those that decode, compute and encode; of a network's only where one runs
    settings    environment variables that change what is computed, or where it is read from and written to

Our own settings are not in it: they are resolved by the driver and travel with each task, and no worker reads any from
its environment. A variable's value may be a secret: what travels is a digest, and messages give its name alone.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lesionary import __version__
from lesionary.errors import CodeMismatchError

PACKAGES: tuple[str, ...] = ("lesionary", "etl", "trainers", "store", "cli")

LIBRARIES: tuple[str, ...] = ("numpy", "scipy", "pyarrow", "imagecodecs", "pydicom", "defusedxml", "deltalake")
NETWORK_LIBRARIES: tuple[str, ...] = ("torch", "torchvision", "safetensors")

VARIABLES: tuple[str, ...] = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "STORAGE_EMULATOR_HOST",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)

_ABSENT = "absent"
_SECRET_DIGITS = 16


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


def worker_contract(*, networks: bool = False) -> str:
    """What this process would make rows with, as JSON that any release can compare.

    Args:
        networks: also the libraries that networks run with; a driver without any may still ingest.
    """
    return _contract((*LIBRARIES, *NETWORK_LIBRARIES) if networks else LIBRARIES, VARIABLES)


def require_same_contract(expected: str, where: str) -> None:
    """Make sure that this process keeps the driver's contract.

    Args:
        expected: of `worker_contract`, by the driver.
        where: this process, as a person would look for it.

    Raises:
        CodeMismatchError: it does not; the sentence names everything that differs.
    """
    wanted = json.loads(expected)
    found = json.loads(_contract(tuple(wanted["libraries"]), tuple(wanted["settings"])))
    if found == wanted:
        return
    differences = [
        f"{what} {found.get(name)} where the driver has {wanted[name]}"
        for name, what in (("code", "lesionary's code"), ("python", "Python"))
        if found.get(name) != wanted[name]
    ]
    differences += [
        f"{name} {found['libraries'][name]} where the driver has {version}"
        for name, version in wanted["libraries"].items()
        if found["libraries"][name] != version
    ]
    differences += [
        f"another value of {name}" for name, value in wanted["settings"].items() if found["settings"][name] != value
    ]
    raise CodeMismatchError(
        f"this worker would not make the same rows: {', '.join(differences)}",
        where=where,
        next_step=f"give every node the same image, and the same environment (its packages lie in {package_root()})",
    )


@functools.cache
def _contract(libraries: Sequence[str], variables: Sequence[str]) -> str:
    return json.dumps(
        {
            "code": code_fingerprint(),
            "python": f"{sys.version_info.major}.{sys.version_info.minor}",
            "libraries": {name: _version(name) for name in libraries},
            "settings": {name: _digest(os.environ.get(name)) for name in variables},
        },
        sort_keys=True,
    )


def _version(library: str) -> str:
    try:
        # After a plus sign stands the hardware it was built for: GPU workers of a driver without one have another.
        return importlib.metadata.version(library).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return _ABSENT


def _digest(value: str | None) -> str:
    return _ABSENT if not value else hashlib.sha256(value.encode()).hexdigest()[:_SECRET_DIGITS]
