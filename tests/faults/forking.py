"""Commands forked from a process that has imported everything: each is a process of its own as ever, started at once.

Most of a small command's time goes into imports, where no fault is of interest. The interface is `subprocess.Popen`'s,
as far as `faults.processes` uses it.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from faults.processes import ROOT

# What commands import on their way; nothing here may start a thread.
_PRELOADED = (
    "cli.main", "cli.cluster", "cli.training_inputs", "deltalake", "duckdb", "etl.embed", "etl.ingest", "etl.planning",
    "lesionary.repairs", "lesionary.upkeep", "pyarrow.dataset", "store.match_runs", "store.sync",
    "trainers.triplet.features", "trainers.ssbr.loop",
)  # fmt: skip


class ForkedCommand:
    """A command under way."""

    def __init__(self, context, words, cwd):
        self._said = tempfile.NamedTemporaryFile(mode="r", prefix="lesionary-said-")
        self._out = tempfile.NamedTemporaryFile(mode="r", prefix="lesionary-out-")
        self._process = context.Process(target=_become, args=(words, str(cwd), self._out.name, self._said.name))
        self._process.start()

    @property
    def pid(self):
        """Of the driver."""
        return self._process.pid

    @property
    def returncode(self):
        """As `subprocess` gives it."""
        return self._process.exitcode

    def poll(self):
        """Its exit code, None while it runs."""
        return self._process.exitcode

    def kill(self):
        """kill -9."""
        self._process.kill()

    def wait(self, timeout=None):
        """Wait until it ends."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("lesionary", timeout)
        return self._process.exitcode

    def communicate(self, timeout=None):
        """Wait, and give what it wrote to stdout and stderr."""
        self.wait(timeout)
        return Path(self._out.name).read_text(), Path(self._said.name).read_text()


class Forker:
    """Starts commands."""

    def __init__(self):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(_PRELOADED))

    def __call__(self, *words, cwd=None):
        """Start `lesionary WORDS…`."""
        return ForkedCommand(self._context, [str(word) for word in words], cwd or Path.cwd())


def _become(words, cwd, out, said):
    """Be the command, in a session of its own."""
    os.setsid()
    for number, name in ((0, os.devnull), (1, out), (2, said)):
        descriptor = os.open(name, os.O_RDONLY if number == 0 else os.O_WRONLY)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(cwd)
    sys.argv = ["lesionary", *words]
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)
    from cli.main import main

    main()
