"""A program with everything it starts, which ends with whoever started it, however that ends."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from faults.processes import signal_tree

_LOOK_SECONDS = 0.5
_KEEPER = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
    "from cluster.kept_session import keep; sys.exit(keep(sys.argv[1:]))"
)


def start_kept_session(command, **options):
    """Start a program, and a keeper of it, in a session of their own."""
    keeper = [sys.executable, "-S", "-c", _KEEPER, *command]
    return subprocess.Popen(keeper, stdin=subprocess.PIPE, start_new_session=True, **options)


def keep(command):
    """Run a command in this session until it ends, or until nobody holds the other end of our input."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as kept:
        while kept.poll() is None:
            if select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
                signal_tree(os.getpid(), signal.SIGKILL, spared={os.getpid()})
        return kept.wait()
