"""A program with everything it started, and its end by SIGKILL, all at once.

Run as a program itself, it is the keeper of another: that one's session ends with whoever started the keeper.
"""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

_LOOK_SECONDS = 0.5


def start_session(command, **options):
    """Start a program in a session of its own, by which all that it starts can be found again."""
    return subprocess.Popen(command, start_new_session=True, **options)


def start_kept_session(command, **options):
    """The same, for what must not outlive this process, however that ends."""
    return start_session([sys.executable, "-S", __file__, *command], stdin=subprocess.PIPE, **options)


def session_pids(session):
    """The processes of a session, whatever groups they were put in."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def kill_session(process):
    """SIGKILL for the program and everything it started, also what is being started meanwhile."""
    _kill_all(process.pid)
    process.wait(30)


def _kill_all(session):
    while victims := [pid for pid in session_pids(session) if pid != os.getpid()]:
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _keep(command):
    """Run a command in this session until it ends, or until nobody holds the other end of our input."""
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as kept:
        while kept.poll() is None:
            if select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:
                _kill_all(os.getpid())
        return kept.wait()


if __name__ == "__main__":
    sys.exit(_keep(sys.argv[1:]))
