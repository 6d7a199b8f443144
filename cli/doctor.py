"""`lesionary doctor`: is this machine, this installation, this lake and this store in order?"""

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.options import DEFAULT_LAKE, Format, JsonOption, LakeOption, StoreOption
from cli.render import write_json, write_rows
from lesionary.errors import LesionaryError

_NEEDED = ("numpy", "pyarrow", "deltalake", "duckdb", "imagecodecs", "pillow", "ray", "typer")
_OPTIONAL = {"torch": "train", "torchvision": "train", "safetensors": "train"}
_ENOUGH_DISK_GB = 10
_ENOUGH_MEMORY_GB = 4
_PACKAGES = ("lesionary", "etl", "trainers", "store", "cli")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    state: str
    """ok, warn or fail."""
    what: str
    found: str
    remedy: str = ""


def doctor(lake: LakeOption = DEFAULT_LAKE, store: StoreOption = None, as_json: JsonOption = False) -> None:
    """Look at the machine, the installation, the lake and the store; exit 1 when something fails."""
    findings = [*_machine(lake), *_installation(), *_lake_and_store(lake, store)]
    if as_json:
        write_json([asdict(finding) for finding in findings])
    else:
        rows = [(one.state, one.what, one.found, one.remedy or None) for one in findings]
        write_rows(("state", "what", "found", "what to do"), rows, Format.TABLE)
    if any(finding.state == "fail" for finding in findings):
        sys.exit(1)


def _machine(lake: str) -> Iterator[Finding]:
    new_enough = sys.version_info >= (3, 11)
    python = ".".join(map(str, sys.version_info[:3]))
    yield Finding("ok" if new_enough else "fail", "Python", python, "" if new_enough else "install 3.11 or newer")
    yield Finding("ok", "cores", str(len(os.sched_getaffinity(0))))
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    little = memory_gb < _ENOUGH_MEMORY_GB
    yield Finding("warn" if little else "ok", "memory", f"{memory_gb:.0f} GB", "use fewer --workers" if little else "")
    if "://" not in lake:
        folder = next(parent for parent in (Path(lake).absolute(), *Path(lake).absolute().parents) if parent.exists())
        free_gb = shutil.disk_usage(folder).free / 1e9
        tight = free_gb < _ENOUGH_DISK_GB
        yield Finding("warn" if tight else "ok", "free disk", f"{free_gb:.0f} GB", "make room" if tight else "")


def _installation() -> Iterator[Finding]:
    for name in _NEEDED:
        try:
            yield Finding("ok", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("fail", name, "missing", "install lesionary again")
    for name, extra in _OPTIONAL.items():
        try:
            yield Finding("ok", name, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding("ok", name, "not installed", f"only for training: pip install 'lesionary[{extra}]'")
    owners = importlib.metadata.packages_distributions()
    strangers = {owner for name in _PACKAGES for owner in owners.get(name, ())} - {"lesionary"}
    yield Finding(
        "fail" if strangers else "ok",
        "package names",
        f"also owned by {', '.join(sorted(strangers))}" if strangers else "ours alone",
        "give lesionary an environment of its own" if strangers else "",
    )


def _lake_and_store(lake: str, store: str | None) -> Iterator[Finding]:
    def look(what: str, call: Callable[[], Finding]) -> Finding:
        try:
            return call()
        except LesionaryError as error:
            return Finding("warn", what, error.what, error.next_step)

    yield look("lake", lambda: _look_at_lake(lake))
    yield look("store", lambda: _look_at_store(lake, store))


def _look_at_lake(lake: str) -> Finding:
    from lesionary.lake import Lake

    snapshot = Lake.open(lake).snapshot()
    found = ", ".join(f"{snapshot.rows(name)} {name}" for name in ("series", "slices", "lesions", "quarantine"))
    return Finding("ok", "lake", found)


def _look_at_store(lake: str, store: str | None) -> Finding:
    from lesionary.lake import Lake
    from store.database import open_reader, store_path

    with open_reader(store_path(lake, store)) as connection:
        rows = connection.execute("SELECT table_name, lake_version FROM store.synced").fetchall()
    versions = Lake.open(lake).snapshot().versions
    behind = sorted(name for name, version in versions.items() if dict(rows).get(name) != version)
    if behind:
        return Finding("warn", "store", f"behind the lake in {', '.join(behind)}", "run `lesionary sync`")
    return Finding("ok", "store", "up to date with the lake")
