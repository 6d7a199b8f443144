"""Pseudonyms, days and ages: the only way in which anything that names a person or a visit leaves the ETL.

* A pseudonym is a keyed digest (HMAC-SHA-256) of the identifier and its kind. One key serves images and marks, so
  they still join; without the key nobody can try out identifiers. The key file lies outside the lake, with mode 0600.
* A study's day counts from the patient's first study that was ever taken in. Which date that was is kept beside the
  key, so that later ingests count from the same day; a study older than that has a negative day.
* Everything else is an allow-list: what `lesionary/schema.py` has no column for cannot leave.

Nothing here makes the images themselves anonymous: a face can be rebuilt from a head scan (docs/privacy.md).
"""

import base64
import hashlib
import hmac
import os
import re
import sqlite3
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from lesionary.errors import UsageError
from lesionary.secret_files import SECRET_BYTES, make_secret

# DICOM PS3.15 annex E: the profile and the options that the columns of the lake amount to.
PROFILE: tuple[tuple[str, str], ...] = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113103", "Clean Graphics Option"),
    ("113104", "Clean Structured Content Option"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
OLDEST_AGE_YEARS = 90.0

_PSEUDONYM_BYTES = 10
_PRIVATE_MODE = 0o600
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})", re.ASCII)
_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_YEARS_OF_UNIT: Mapping[str, float] = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}
_KEY_TEXT = re.compile(rf"[0-9a-f]{{{2 * SECRET_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Pseudonymiser:
    """Identifiers to pseudonyms under one key; travels to workers, never into a lake."""

    namespace: str
    key: bytes

    def __repr__(self) -> str:
        """Without the key: it must not stand in a traceback."""
        return f"Pseudonymiser({self.namespace!r})"

    @property
    def key_id(self) -> str:
        """Names the key without giving it away, to tell lakes of different keys apart."""
        return self._digest("key", "")[:8]

    def name(self, kind: str, identifier: str) -> str:
        """The pseudonym of an identifier, with the namespace in front.

        Args:
            kind: patient, study, series, image, report, mark, lesion or tracking; equal texts of two kinds differ.
            identifier: as written.
        """
        return f"{self.namespace}-{self._digest(kind, identifier)}"

    def _digest(self, kind: str, identifier: str) -> str:
        digest = hmac.digest(self.key, f"{kind}\x00{identifier}".encode(errors="surrogatepass"), hashlib.sha256)
        return base64.b32encode(digest[:_PSEUDONYM_BYTES]).decode("ascii").lower()


def default_key_file() -> Path:
    """Where the key lies unless a setting says otherwise: in the person's own configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "lesionary" / "pseudonyms.key"


def load_key(path: Path) -> bytes:
    """The key in a file, made on first use.

    Raises:
        UsageError: the file cannot be read or made, holds no key, or others may read it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        make_secret(path)
        mode = stat.S_IMODE(path.stat().st_mode)
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise UsageError(
            f"the key file cannot be read or made ({type(cause).__name__})",
            where="--key-file",
            next_step="name a file that you alone may read and write",
        ) from None
    if mode & 0o077:
        raise UsageError(
            f"others may read the key file (mode {mode:o})", where="--key-file", next_step="run chmod 600 on it"
        )
    if not _KEY_TEXT.fullmatch(text):
        raise UsageError(
            "the file holds no key", where="--key-file", next_step="name another file, or a new one to be made"
        )
    return bytes.fromhex(text)


def parse_date(text: str | None) -> date | None:
    """A DICOM date, or None."""
    match = _DATE.fullmatch((text or "").strip())
    if match is None:
        return None
    try:
        return date(*map(int, match.groups()))
    except ValueError:
        return None


def sex_of(text: str | None) -> str | None:
    """F or M; None for anything else."""
    return text if text in {"F", "M"} else None


def age_years(age: str | None, birth: str | None, study: str | None) -> float | None:
    """Whole years at the study, from the stated age or the two dates; everybody above 89 is 90."""
    match = _AGE.fullmatch((age or "").strip().upper())
    if match:
        years = int(match[1]) * _YEARS_OF_UNIT[match[2]]
    else:
        born, seen = parse_date(birth), parse_date(study)
        if born is None or seen is None or seen < born:
            return None
        years = (seen - born).days / 365.25
    return min(float(int(years)), OLDEST_AGE_YEARS) if years <= 130 else None


def first_days(key_file: Path, earliest: Mapping[str, date]) -> dict[str, date]:
    """Each patient's day 0: the first study ever taken in under this key.

    Args:
        key_file: the days lie beside it.
        earliest: patient pseudonym to the date of the first study of this ingest.

    Raises:
        UsageError: the days cannot be kept.
    """
    if not earliest:
        return {}
    with _private_database(
        key_file.with_suffix(".days"), "CREATE TABLE IF NOT EXISTS days (patient PRIMARY KEY, day)"
    ) as days:
        rows = [(patient, day.toordinal()) for patient, day in sorted(earliest.items())]
        days.executemany("INSERT OR IGNORE INTO days VALUES (?, ?)", rows)
        return {
            patient: date.fromordinal(day)
            for patient in earliest
            for (day,) in days.execute("SELECT day FROM days WHERE patient = ?", [patient])
        }


def keep_map(path: Path, names: Iterable[tuple[str, str, str]]) -> None:
    """Add (kind, pseudonym, identifier) to a map that leads back, for who may have one.

    Raises:
        UsageError: the map cannot be written.
    """
    with _private_database(path, _MAP) as table:
        table.executemany("INSERT OR IGNORE INTO names VALUES (?, ?, ?)", names)


def look_up(path: Path, key: bytes, pseudonyms: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """The (pseudonym, kind, identifier) of each pseudonym that a map holds and the key confirms.

    Raises:
        UsageError: there is no such map, or it cannot be read.
    """
    if not path.is_file():
        raise UsageError("there is no such map", where="--map", next_step="maps are written by ingest --keep-map")
    with _private_database(path, _MAP) as table:
        for pseudonym in pseudonyms:
            rows = table.execute("SELECT kind, identifier FROM names WHERE pseudonym = ?", [pseudonym]).fetchall()
            for kind, identifier in rows:
                namespaced = Pseudonymiser(pseudonym.split("-", 1)[0], key)
                if hmac.compare_digest(namespaced.name(kind, identifier), pseudonym):
                    yield pseudonym, kind, identifier


def confirmed_names(path: Path, key: bytes) -> dict[str, str]:
    """Every pseudonym of a map that the key confirms, and what it stands for.

    Raises:
        UsageError: there is no such map, or it cannot be read.
    """
    if not path.is_file():
        raise UsageError("there is no such map", where="--uids", next_step="maps are written by ingest --keep-map")
    with _private_database(path, _MAP) as table:
        pseudonyms = [row[0] for row in table.execute("SELECT DISTINCT pseudonym FROM names")]
    return {pseudonym: identifier for pseudonym, _, identifier in look_up(path, key, pseudonyms)}


_MAP = "CREATE TABLE IF NOT EXISTS names (kind, pseudonym, identifier, PRIMARY KEY (pseudonym, kind))"


@contextmanager
def _private_database(path: Path, schema: str) -> Iterator[sqlite3.Connection]:
    """A small database that nobody else may read, in one transaction."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, _PRIVATE_MODE))
        path.chmod(_PRIVATE_MODE)
        with closing(sqlite3.connect(path, timeout=60)) as connection, connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(schema)
            yield connection
    except (OSError, sqlite3.Error) as cause:
        raise UsageError(
            f"the file of {path.suffix or 'names'} cannot be used ({type(cause).__name__})",
            where="--key-file",
            next_step="check your rights to it and the space left",
        ) from None
