"""Object stores: one policy for how long to wait and how often to try again, for pyarrow's client and deltalake's.

Both clients try a request again by themselves, each by rules of its own, and neither does so always: deltalake hands
on a download that was cut, and a commit whose answer was lost. `persistently` goes round such an operation as a
whole, so it is for operations that may be done twice. A commit may not; `lesionary/commits.py` looks whether it was
done instead.
"""

import contextlib
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow import fs

from lesionary.artifacts import reason_of
from lesionary.settings import require_ranges, resolve

Result = TypeVar("Result")

BLOCK_BYTES = 8 << 20
"""What is copied at a time."""

_LONGEST_PAUSE_S = 2.0
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_A_STORE_SPEAKS = re.compile(r"AWS Error|Generic (S3|GCS|MicrosoftAzure) error|google::cloud|Azure|Error performing")

# What a store says when asking again would only bring the same answer.
_FINAL_ANSWERS = {
    "the store refuses the key or its signature": r"InvalidAccessKeyId|INVALID_ACCESS_KEY_ID|SignatureDoesNotMatch"
    r"|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|\bExpiredToken|InvalidToken|401 Unauthorized",
    "the store denies access": r"AccessDenied|ACCESS_DENIED|403 Forbidden|HTTP status 403",
    "there is no such bucket": r"NoSuchBucket|NO_SUCH_BUCKET",
    "the bucket's name or region is wrong": r"InvalidBucketName|PermanentRedirect|AuthorizationHeaderMalformed",
    "there are no credentials": r"(?i)missing credentials|credentials? provider|no credentials|instance metadata",
}
_OTHER_ANSWERS = {
    "the store cannot be reached": r"(?i)connection refused|could not connect|couldn't connect|couldn't resolve"
    r"|dns error|curlCode: (6|7),|error trying to connect|error sending request",
    "the store does not answer in time": r"(?i)timed? ?out|curlCode: 28,",
    "the store is too busy": r"SlowDown|SLOW_DOWN|THROTTL|TooManyRequests|503 Service",
    "the connection broke off": r"(?i)connection reset|body|curlCode: (18|52|55|56),|end of file|closed before",
}


@dataclass(frozen=True, slots=True)
class ObjectStoreSettings:
    """How patient this process is with an object store."""

    attempts: int = 8
    """How often a request, or an operation of several, is tried before it has failed."""
    request_seconds: int = 30
    """Silence longer than this ends a request, which is then tried again."""
    connect_seconds: int = 5
    """A connection that takes longer is given up and tried again."""
    patience_seconds: int = 60
    """After this nothing is tried again."""

    def __post_init__(self) -> None:
        """Refuse what could not run.

        Raises:
            UsageError: a value is out of its range.
        """
        require_ranges(
            self,
            ("attempts", 1, 100),
            ("request_seconds", 1, 3_600),
            ("connect_seconds", 1, 3_600),
            ("patience_seconds", 0, 86_400),
        )


def object_store_settings() -> ObjectStoreSettings:
    """Of this process, from its environment and `lesionary.toml`."""
    return resolve(ObjectStoreSettings, "object_store", flags={}, environment=os.environ).value


def patient_s3(filesystem: fs.S3FileSystem) -> fs.S3FileSystem:
    """The same store, asked with our patience. Neither options nor pickles hold credentials of the environment."""
    settings = object_store_settings()
    # What pickle would keep is every option there is, but for the patience, which it forgets.
    _, (options,) = filesystem.__reduce__()
    ours = {
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=settings.attempts),
        "request_timeout": float(settings.request_seconds),
        "connect_timeout": float(settings.connect_seconds),
        # A small object is one put instead of the three requests of an upload in parts.
        "allow_delayed_open": True,
    }
    return fs.S3FileSystem(**{**options, **ours})


def delta_options(filesystem: fs.FileSystem) -> dict[str, str]:
    """What deltalake is told of a store, beyond the credentials that it takes from the environment itself."""
    if isinstance(filesystem, fs.LocalFileSystem):
        return {}
    settings = object_store_settings()
    options = {
        "max_retries": str(settings.attempts - 1),
        "retry_timeout": f"{settings.patience_seconds}s",
        "timeout": f"{settings.request_seconds}s",
        "connect_timeout": f"{settings.connect_seconds}s",
    }
    if isinstance(filesystem, fs.S3FileSystem):
        _, (ours,) = filesystem.__reduce__()
        options["aws_region"] = filesystem.region
        if endpoint := ours["endpoint_override"]:
            address = endpoint if "://" in endpoint else f"{ours['scheme']}://{endpoint}"
            options["aws_endpoint_url"] = address
            options["aws_allow_http"] = str(address.startswith("http://")).lower()
    return options


def persistently(filesystem: fs.FileSystem, action: Callable[[], Result]) -> Result:
    """Do what may be done twice, again and again while the store fails in ways that pass.

    Raises:
        OSError or DeltaError: it went on failing, or fails in a way that does not pass.
    """
    if isinstance(filesystem, fs.LocalFileSystem):
        return action()
    settings = object_store_settings()
    until = time.monotonic() + settings.patience_seconds
    for attempt in range(1, settings.attempts + 1):
        try:
            return action()
        except (FileNotFoundError, TableNotFoundError):
            raise
        except (OSError, DeltaError, pa.ArrowInvalid) as error:
            if attempt == settings.attempts or time.monotonic() > until or not may_pass(error):
                raise
        pause(attempt)
    raise AssertionError("the last attempt returns or raises")


def pause(attempt: int) -> None:
    """Wait before trying again; with full jitter, because clients that failed together must not come back together."""
    time.sleep(random.uniform(0, min(_LONGEST_PAUSE_S, 0.05 * 2**attempt)))  # noqa: S311


def may_pass(error: BaseException) -> bool:
    """Whether the same request may do better a little later."""
    return not any(re.search(pattern, str(error)) for pattern in _FINAL_ANSWERS.values())


def is_of_a_store(error: BaseException) -> bool:
    """Whether an error comes from an object store's client, rather than from what was read through it."""
    return isinstance(error, (OSError, DeltaError)) and _A_STORE_SPEAKS.search(str(error)) is not None


def without_credentials(text: str) -> str:
    """A text in which the environment's credentials are blotted out: stores repeat key ids in their answers."""
    for name in _CREDENTIALS:
        if value := os.environ.get(name):
            text = text.replace(value, f"[{name}]")
    return text


def trouble(error: BaseException) -> str:
    """What an error comes down to, a store's or a disk's; a store's own text holds addresses and key ids."""
    for meaning, pattern in {**_FINAL_ANSWERS, **_OTHER_ANSWERS}.items():
        if re.search(pattern, str(error)):
            return meaning
    return reason_of(error)


@contextlib.contextmanager
def whole_object(filesystem: fs.FileSystem, path: str) -> Iterator[pa.NativeFile]:
    """A stream whose object stays only when the block ends well.

    Left by an exception, pyarrow's own streams publish what they have got by then.
    """
    sink = filesystem.open_output_stream(path)
    try:
        yield sink
        sink.close()
    except BaseException:
        for undo in (sink.close, lambda: filesystem.delete_file(path)):
            with contextlib.suppress(OSError):
                undo()
        raise


def write_object(filesystem: fs.FileSystem, path: str, content: bytes) -> None:
    """Put a small object, whole or not at all.

    Raises:
        OSError: the store does not take it.
    """

    def put() -> None:
        with filesystem.open_output_stream(path) as sink:
            sink.write(content)

    persistently(filesystem, put)


def upload_file(source: Path, filesystem: fs.FileSystem, path: str) -> None:
    """Put a file of this machine, whole or not at all.

    Raises:
        OSError: the store does not take it.
    """

    def put() -> None:
        with source.open("rb") as stream, whole_object(filesystem, path) as sink:
            shutil.copyfileobj(stream, sink, BLOCK_BYTES)

    persistently(filesystem, put)


def read_object(filesystem: fs.FileSystem, path: str, at_most: int | None = None) -> bytes:
    """An object's content, or its beginning.

    Raises:
        OSError: the store does not give it.
    """

    def get() -> bytes:
        with filesystem.open_input_stream(path) as stream:
            content: bytes = stream.read(at_most)
        return content

    return persistently(filesystem, get)
