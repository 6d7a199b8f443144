"""The commands whose memory is bounded, run inside a limit: the same for the tests and for `campaign.py`."""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from memory.large_lakes import add_lesions
from memory.large_sources import write_folder, write_tar, write_zip
from memory.memory_limit import LimitedRun, run_limited

from lesionary.lake import Lake
from lesionary.provenance import package_root

SOURCES: Mapping[str, tuple[str, Callable[[Path, int], int]]] = {
    "zip": ("source.zip", write_zip),
    "folder": ("source", write_folder),
    "tar": ("source.tar", write_tar),
}
_PLAIN = "from cli.main import main; main()"
# Keeps every slice that it has encoded: what a driver or worker that forgets to let go would do.
UNBOUNDED_INGEST = (
    "import etl.ingest_tasks as tasks\n"
    "kept, encoded = [], tasks._encoded\n"
    "tasks._encoded = lambda rows, ingest_id: kept.append(rows) or encoded(rows, ingest_id)\n"
    "from cli.main import main; main()"
)
# Reads the lake's lesions in one piece instead of shard by shard.
UNBOUNDED_SYNC = (
    "import sys\n"
    "from lesionary.lake import Lake\n"
    "kept = Lake.open(sys.argv[sys.argv.index('--lake') + 1]).read('lesions').to_pylist()\n"
    "from cli.main import main; main()"
)


def ingest_within(
    folder: Path, limit_mb: int, size: int, *options: str, kind: str = "zip", program: str = _PLAIN
) -> tuple[LimitedRun, int]:
    """Ingest a source of `size` bytes inside a limit; how it ended, and how many slices there were."""
    name, write = SOURCES[kind]
    source = folder / name
    slices = write(source, size)
    words = ("ingest", str(source), "--lake", str(folder / "lake"), "--key-file", str(folder / "key"), *options)
    return _run(folder, limit_mb, program, *words), slices


def slices_in(folder: Path) -> int:
    """Slices of the lake that `ingest_within` made."""
    return Lake.open(str(folder / "lake")).snapshot().rows("slices")


def make_lake(folder: Path, lesions: int, first: int = 0) -> None:
    """A lake of lesions without images, or more of them in one that is there."""
    add_lesions(Lake.create(str(folder / "lake")), lesions, first)


def ask_within(folder: Path, limit_mb: int, *words: str, program: str = _PLAIN) -> LimitedRun:
    """Run a command on the lake in a folder inside a limit."""
    return _run(folder, limit_mb, program, *words, "--lake", str(folder / "lake"))


def _run(folder: Path, limit_mb: int, program: str, *words: str) -> LimitedRun:
    path = os.pathsep.join(filter(None, [str(package_root()), os.environ.get("PYTHONPATH")]))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LESIONARY_")}
    return run_limited(
        [sys.executable, "-c", program, *words], limit_mb << 20, environment | {"PYTHONPATH": path}, folder
    )
