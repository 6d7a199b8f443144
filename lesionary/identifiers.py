"""Names of things: every identifier starts with its source's namespace, so that sources cannot collide.

dl-000001            patient 1 of the release ingested under the namespace "dl"
dl-000001_02         that patient's second study
dl-000001_02_01      its first series
dl-4711              the lesion of row 4711 of DL_info.csv (other datasets index by this number)
pacs-mfrggzdfmztwq2lk a patient, study, series, … of a PACS export: a keyed digest of its identifier
20261120T221500-9f3a an ingest: when it started (UTC) and four random digits
detector-1/dl-000001_02_01/3  the third detection of a model in a series
"""

import re
import secrets
from datetime import UTC, datetime

from lesionary.errors import UsageError

DEFAULT_NAMESPACE = "dl"
PACS_NAMESPACE = "pacs"
# Vectors of detections have feature sets of their own, named after the set of marked lesions with this behind it.
_DETECTIONS_SUFFIX = "-detections"
_NAMESPACE = re.compile(r"[a-z][a-z0-9]{0,15}")
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,199}")


def checked_namespace(text: str) -> str:
    """The namespace itself, if it may start identifiers.

    Raises:
        UsageError: it is not 1-16 lower-case letters and digits starting with a letter.
    """
    if not _NAMESPACE.fullmatch(text):
        raise UsageError(
            "a namespace is 1 to 16 lower-case letters and digits, starting with a letter",
            where="--namespace",
            next_step="for example `dl` or `phantom2`",
        )
    return text


def names_a_file(identifier: str) -> bool:
    """Whether a file may be called like that: ours all do, and none leads to another folder."""
    return _FILE_NAME.fullmatch(identifier) is not None


def new_ingest_id() -> str:
    """A name for one run of ingest; sorts by time of start."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"


def detections_set(name: str) -> str:
    """The name of the feature set that holds detections' vectors, where the one named holds marked lesions'."""
    return f"{name}{_DETECTIONS_SUFFIX}"


def holds_detections(name: str) -> bool:
    """Whether a feature set of this name holds vectors of detections."""
    return name.endswith(_DETECTIONS_SUFFIX)


def is_detection(name: str) -> bool:
    """Whether a name is a detection's, rather than a marked lesion's."""
    return "/" in name
