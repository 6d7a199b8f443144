"""Where things lie: a local folder or an object-store URL, opened through pyarrow's file systems.

Credentials and endpoints come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …), which `deltalake`
and pyarrow both read; they never appear in a URL, a setting or a message. How long to wait and how often to try again
is decided in `lesionary/object_stores.py`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from lesionary.errors import UsageError
from lesionary.object_stores import patient_s3

_URL = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]+)://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file system."""

    url: str
    """As given; an absolute path for local places."""
    filesystem: fs.FileSystem
    path: str
    """The same place as `filesystem` names it."""

    @property
    def is_local(self) -> bool:
        """Whether the place is on this machine's disks."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def __reduce__(self) -> tuple[Callable[..., "Location"], tuple[str, fs.FileSystem, str]]:
        """Patience does not travel with pyarrow's file systems: whoever gets the place applies its own."""
        return _arrived, (self.url, self.filesystem, self.path)

    def join(self, *parts: str) -> str:
        """A path below this place, as `filesystem` names it."""
        return "/".join((self.path.rstrip("/"), *parts))


def is_url(text: str) -> bool:
    """Whether the text names a place by scheme, such as s3://bucket/folder."""
    return _URL.match(text) is not None


def open_location(text: str) -> Location:
    """Resolve a path or URL; nothing is read or made.

    Raises:
        UsageError: the scheme is not one that pyarrow can open, or the URL carries credentials.
    """
    match = _URL.match(text)
    if match is None:
        local = str(Path(text).expanduser().absolute())
        return Location(local, fs.LocalFileSystem(), local)
    person, at, _ = text[match.end() :].split("/", 1)[0].rpartition("@")
    # Before an @ other schemes have a container's name, or a person's; a secret stands behind a colon.
    if at and (match["scheme"].lower().startswith("s3") or ":" in person):
        raise UsageError(
            "the URL carries credentials",
            where=f"{match['scheme']}://…",
            next_step="put them into the environment instead, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    try:
        filesystem, path = fs.FileSystem.from_uri(text)
    except (ValueError, OSError, NotImplementedError) as cause:
        raise UsageError(
            f"the place cannot be opened ({type(cause).__name__})",
            where=f"{match['scheme']}://…",
            next_step="check the address and the credentials in the environment, or give a folder",
        ) from cause
    return _arrived(text.rstrip("/"), filesystem, path.rstrip("/"))


def _arrived(url: str, filesystem: fs.FileSystem, path: str) -> Location:
    if isinstance(filesystem, fs.S3FileSystem):
        filesystem = patient_s3(filesystem)
    return Location(url, filesystem, path)
