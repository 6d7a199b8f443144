"""Every failure a person can cause or meet, as one tree.

    LesionaryError
    ├── UserError                what the person asked for cannot be done (exit code 2)
    │   ├── UsageError           a setting, option or argument is wrong
    │   ├── SourceError          an input to ingest cannot be opened at all
    │   ├── LakeError            a lake is missing, of another version, or damaged
    │   ├── StoreError           the feature store is missing, locked or refuses the query
    │   ├── UnwritableError      a file cannot be written where it was asked for
    │   ├── UnknownLesionError   a lesion that is not in the store
    │   ├── ArtifactError        a file we wrote cannot be trusted any more
    │   └── TrainingError        training cannot go on: a loss or gradient is no number any more
    └── InternalError            our own fault (exit code 1)
        ├── CommitConflictError  another writer won the race too many times
        └── CodeMismatchError    a Ray worker runs other code than the driver

A sentence says what, where and what to do next. Instances keep their fields and survive pickling: a Ray worker
raises them and the driver receives them; a class that cannot be rebuilt reaches the driver as something that no
`except` of ours would catch. Bad *data* is not here: it becomes a quarantine row (`etl/quality.py`).
"""

from collections.abc import Callable
from typing import Self


def _rebuild(kind: type["LesionaryError"], what: str, where: str, next_step: str) -> "LesionaryError":
    return kind(what, where=where, next_step=next_step)


class LesionaryError(Exception):
    """Root of the tree: `what` happened, `where`, and what to do `next_step`."""

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        self.what = what
        self.where = where
        self.next_step = next_step
        super().__init__(self.sentence)

    @property
    def sentence(self) -> str:
        """One line: where, what, what to do next."""
        place = f"{self.where}: " if self.where else ""
        remedy = f"; {self.next_step}" if self.next_step else ""
        line = " ".join(f"{place}{self.what}{remedy}".split())
        # Names out of foreign files may hold what moves a terminal's cursor, or cannot be encoded at all.
        return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in line)

    def __reduce__(self) -> tuple[Callable[..., "LesionaryError"], tuple[type[Self], str, str, str]]:
        """Rebuild from the fields: exceptions would otherwise be rebuilt from their sentence alone."""
        return _rebuild, (type(self), self.what, self.where, self.next_step)


class UserError(LesionaryError):
    """What the person asked for cannot be done as asked."""

    exit_code = 2


class UsageError(UserError, ValueError):
    """A setting, option or argument is wrong."""


class SourceError(UserError, OSError):
    """An input to ingest cannot be opened at all."""

    def __str__(self) -> str:
        return self.sentence


class LakeError(UserError):
    """A lake is missing, of another version, or damaged."""


class StoreError(UserError):
    """The feature store is missing, locked, or refuses the query."""


class UnwritableError(UserError, OSError):
    """A file cannot be written where it was asked for."""

    def __str__(self) -> str:
        return self.sentence


class UnknownLesionError(UserError, LookupError):
    """A lesion that is not in the store."""


class ArtifactError(UserError):
    """A file written by us cannot be trusted any more."""


class TrainingError(UserError):
    """Training cannot go on: with these data and settings a loss, a gradient or a weight is no number any more."""


class InternalError(LesionaryError, RuntimeError):
    """Our own fault, or the machine's."""


class CommitConflictError(InternalError):
    """Another writer won the race for the same table too many times."""


class CodeMismatchError(InternalError):
    """A Ray worker runs other code than the driver."""
