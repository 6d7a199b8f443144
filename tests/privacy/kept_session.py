"""Some commands one after the other, as `lesionary …` runs them, with a copy kept of Ray's session folder.

    python kept_session.py FOLDER '[["ingest", "SOURCE"], ["sync"]]'

The command itself sweeps the folder away at the end. How each command ended is the last line of what this prints.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import cli.cluster
from cli.main import main

_KEPT = Path(sys.argv[1])


class _Keeping:
    """`shutil` as `cli.cluster` uses it."""

    @staticmethod
    def rmtree(folder: str | Path, *, ignore_errors: bool = False) -> None:
        """Copy what is a file and not a socket, then remove."""
        kept = Path(tempfile.mkdtemp(prefix="session-", dir=_KEPT))
        for path in Path(folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                target = kept / path.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
        shutil.rmtree(folder, ignore_errors=ignore_errors)


cli.cluster.shutil = _Keeping
codes = []
for command in json.loads(sys.argv[2]):
    sys.argv = ["lesionary", *command]
    try:
        main()
    except SystemExit as leaving:
        codes.append(leaving.code or 0)
    except Exception:  # noqa: BLE001 (as the interpreter would)
        sys.excepthook(*sys.exc_info())
        codes.append(1)
    else:
        codes.append(0)
print(json.dumps(codes), flush=True)  # noqa: T201
