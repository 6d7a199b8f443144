"""A file that holds a secret of its owner alone: the pseudonyms' key, the token that a cluster asks for."""

import os
import secrets
from pathlib import Path

SECRET_BYTES = 32

_PRIVATE_MODE = 0o600


def make_secret(path: Path) -> None:
    """Write a new secret, in hexadecimal, unless the file is there; whoever comes second finds the first one's whole.

    Raises:
        OSError: the folder is missing, or cannot be written.
    """
    if path.exists():
        return
    own = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE), "w") as sink:
        sink.write(secrets.token_hex(SECRET_BYTES) + "\n")
        sink.flush()
        os.fsync(sink.fileno())
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()
