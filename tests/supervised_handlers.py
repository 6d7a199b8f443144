"""Handlers for tests of the supervisor: importable by the child by name."""

import os
import signal
import time
from pathlib import Path

from etl.quality import Reason, RefusedError


def troublesome(request):
    """Does to its process what the request says."""
    match request:
        case ("killed", remembered, times):
            # By somebody else, as far as the keeper can tell.
            with Path(remembered).open("a+") as file:
                file.seek(0)
                if len(file.read()) < times:
                    file.write("x")
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
        case "die":
            os.abort()
        case "exit":
            os._exit(3)
        case "hang":
            time.sleep(3600)
        case "eat":
            return len(bytearray(8 << 30))
        case "panic":
            raise BaseException("PHI-IN-A-MESSAGE")  # noqa: TRY002 (as decoders written in Rust do)
        case "recurse":
            return troublesome_deeper()
        case "refuse":
            raise RefusedError(Reason.NOT_CT, "of another kind")
        case "big":
            return bytes(9 << 20)
    return (request, os.getpid())


def troublesome_deeper():
    return troublesome_deeper()
