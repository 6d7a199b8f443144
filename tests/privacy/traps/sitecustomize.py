"""Crashes on purpose, in processes of a test that has put this folder on PYTHONPATH.

    LESIONARY_TEST_TRAPS="etl.pacs_files:to_hu:SIGABRT etl.ingest_tasks:write_unit:SIGSEGV"
    LESIONARY_TEST_TRAPPED=FOLDER

The first call of a function anywhere ends its process by the signal, with whatever the process then holds in memory;
later calls work. A file in FOLDER says that it happened, and which core dump the process was allowed.
"""

import functools
import importlib.abc
import importlib.machinery
import os
import resource
import signal
import sys
from types import ModuleType

_TRAPS = {}
for _trap in os.environ.get("LESIONARY_TEST_TRAPS", "").split():
    _module, _function, _signal = _trap.split(":")
    _TRAPS[_module] = (_function, _signal)


def _spring(module: ModuleType, function: str, name: str) -> None:
    whole = getattr(module, function)

    @functools.wraps(whole)
    def trapped(*arguments: object, **options: object) -> object:
        place = os.path.join(os.environ["LESIONARY_TEST_TRAPPED"], f"{module.__name__}.{function}")
        try:
            note = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return whole(*arguments, **options)
        os.write(note, str(resource.getrlimit(resource.RLIMIT_CORE)[0]).encode())
        os.close(note)
        os.kill(os.getpid(), getattr(signal, name))
        return None

    setattr(module, function, trapped)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the usual finders find a module, and sets the trap when it has been executed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name not in _TRAPS:
            return None
        function, signal_name = _TRAPS.pop(name)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            _spring(module, function, signal_name)

        spec.loader.exec_module = executed
        return spec


if _TRAPS:
    sys.meta_path.insert(0, _Finder())
