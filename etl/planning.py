"""What a source is, and its units: a DeepLesion release, a PACS export, or both side by side.

A source is listed once. Files named as a release names them belong to the release; everything else is looked at as a
PACS export, but beside a release only what starts as DICOM does, because a release has strays of its own.
"""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path

from etl.archive import SourceTree
from etl.containers import ArchiveLimits, Member
from etl.deidentify import Pseudonymiser, default_key_file, first_days, load_key
from etl.dicom_fields import looks_like_dicom
from etl.pacs import LookResult, PacsUnit, cut_looks, plan_pacs
from etl.quality import Quarantined, Reason, RefusedError
from etl.release import ReleaseListing, ReleaseUnit, plan_release
from etl.running import RunnerChoice, always_here
from etl.supervision import ChildLimits
from lesionary.errors import SourceError, UsageError
from lesionary.identifiers import DEFAULT_NAMESPACE, PACS_NAMESPACE
from lesionary.settings import IngestSettings

# Enhanced CT keeps a whole series in one file, and a slice outside the patient deflates to nothing.
LIMITS = ArchiveLimits(member_bytes=1 << 30, ratio=1_100.0)

_MAGIC_BYTES = 256
# Looking at a file costs as much as encoding so many bytes of pixels.
_LOOK_COST_BYTES = 8 << 10

# A source of which nothing but this can be said was named by mistake.
_NOTHING = frozenset({Reason.NOT_DICOM, Reason.FILE_EMPTY, Reason.MEDIA_DIRECTORY})

Unit = ReleaseUnit | PacsUnit


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything found in a source, as units ordered by their names."""

    tree: SourceTree
    units: tuple[Unit, ...]
    child_limits: ChildLimits = field(default_factory=ChildLimits)
    key_id: str | None = None
    """Names the key of the pseudonyms; None without any."""
    names: tuple[tuple[str, str, str], ...] = ()
    """Kind, pseudonym and identifier of every name given; for the map that leads back, and nothing else."""

    @property
    def rows_found(self) -> int:
        """Annotation rows and marks."""
        return sum(unit.row_count for unit in self.units)

    @property
    def files_found(self) -> int:
        """Files, the annotation table not counted."""
        return sum(unit.file_count for unit in self.units)

    @property
    def bytes_found(self) -> int:
        """Bytes of images."""
        return sum(unit.byte_count for unit in self.units)


def plan_sources(
    sources: Sequence[str],
    settings: IngestSettings,
    *,
    choose_runner: RunnerChoice = always_here,
    dry_run: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """List a source and cut it into units.

    Args:
        sources: folders, archives and files, local or remote.
        settings: of the ingest.
        choose_runner: what looks at the files of a PACS export.
        dry_run: make no key, and remember no dates.
        progress: told how many files of a PACS export were looked at, and how many there are.

    Raises:
        SourceError: a source does not exist, or there is nothing usable in any.
        UsageError: the key of the pseudonyms cannot be used.
    """
    tree = SourceTree.open(sources, LIMITS)
    listing = ReleaseListing()
    with tree:
        for entry in tree.entries():
            listing.add(entry, tree)
        dicom = [] if settings.annotations_only else _split_off_dicom(tree, listing)
    origin = "\n".join(place.location.url for place in tree.containers)
    units: list[Unit] = []
    if listing.holds_release or settings.annotations_only:
        units += plan_release(
            tree, listing, namespace=settings.namespace or DEFAULT_NAMESPACE,
            origin=hashlib.sha256(origin.encode(errors="surrogateescape")).hexdigest()[:8],
            annotations_only=settings.annotations_only,
        )  # fmt: skip
        refused: list[Quarantined] = []
    else:
        refused = listing.refused
    if not dicom:
        if not units:
            raise _nothing_here(sources)
        return Plan(tree, _ordered(units))
    pseudonymiser = _pseudonymiser(settings, dry_run=dry_run)
    limits = ChildLimits(settings.file_memory_mb << 20, float(settings.file_seconds))
    runner, workers = choose_runner(len(dicom) * _LOOK_COST_BYTES)
    looks = cut_looks(dicom, tree, workers, limits)
    source_name = pseudonymiser.name("source", origin).rsplit("-", 1)[1][:8]
    days = _no_days if dry_run else partial(first_days, key_file(settings))
    results = _told(runner(looks), len(dicom), progress)
    found, names = plan_pacs(results, refused, pseudonymiser, source_name, days)
    if not units and all(one.reason in _NOTHING for unit in found for one in unit.refused) and not names:
        raise _nothing_here(sources)
    return Plan(tree, _ordered([*units, *found]), limits, pseudonymiser.key_id, tuple(names))


def _told(
    results: Iterable[LookResult], total: int, progress: Callable[[int, int], None] | None
) -> Iterator[LookResult]:
    done = 0
    for result in results:
        done += len(result.found) + len(result.refused)
        if progress:
            progress(done, total)
        yield result


def _nothing_here(sources: Sequence[str]) -> SourceError:
    return SourceError(
        "there is neither a DeepLesion release nor any DICOM here",
        where=", ".join(sources),
        next_step="name another folder or archive",
    )


def key_file(settings: IngestSettings) -> Path:
    """Where the key of the pseudonyms lies."""
    return Path(settings.key_file).expanduser() if settings.key_file else default_key_file()


def _ordered(units: Sequence[Unit]) -> tuple[Unit, ...]:
    return tuple(sorted(units, key=lambda unit: unit.unit_id))


def _split_off_dicom(tree: SourceTree, listing: ReleaseListing) -> list[Member]:
    """The files to look at as a PACS export's; the listing keeps a release's strays."""
    if not listing.holds_release:
        dicom, listing.others = listing.others, []
        return dicom
    dicom = [member for member in listing.others if _starts_as_dicom(tree, member)]
    taken = set(dicom)
    listing.others = [member for member in listing.others if member not in taken]
    return dicom


def _starts_as_dicom(tree: SourceTree, member: Member) -> bool:
    try:
        return looks_like_dicom(tree.read_head(member.container, member.name, _MAGIC_BYTES))
    except RefusedError:
        return False


def _pseudonymiser(settings: IngestSettings, *, dry_run: bool) -> Pseudonymiser:
    path = key_file(settings)
    # A dry run leaves nothing behind: without a key, nothing of the source can be in a lake yet.
    key = secrets.token_bytes(32) if dry_run and not path.exists() else load_key(path)
    return Pseudonymiser(settings.namespace or PACS_NAMESPACE, key)


def _no_days(earliest: Mapping[str, date]) -> Mapping[str, date]:
    return earliest


def refuse_key_inside(path: Path, lake_url: str) -> None:
    """Keep the key out of what is shared.

    Raises:
        UsageError: it lies in the lake.
    """
    if path.expanduser().resolve().is_relative_to(Path(lake_url)):
        raise UsageError(
            "the key lies inside the lake, where everybody who may read the lake may read it",
            where="--key-file",
            next_step="name a place outside",
        )
