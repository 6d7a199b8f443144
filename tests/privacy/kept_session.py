"""`lesionary …` that keeps a copy of Ray's session folder, which the command itself sweeps away at the end.

python kept_session.py FOLDER ingest …
"""

import shutil
import sys
from pathlib import Path

import cli.cluster
from cli.main import main

_KEPT = Path(sys.argv.pop(1))


class _Keeping:
    """`shutil` as `cli.cluster` uses it."""

    @staticmethod
    def rmtree(folder: str | Path, *, ignore_errors: bool = False) -> None:
        """Copy what is a file and not a socket, then remove."""
        for path in Path(folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                target = _KEPT / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        shutil.rmtree(folder, ignore_errors=ignore_errors)


cli.cluster.shutil = _Keeping
main()
