"""The DeepLesion release as units of work: what there is, and reading one series of it. Free of Ray.

A unit is one series: its images and its annotation rows. What belongs to no series (rows that do not parse, stray
files, broken archives) forms two units of its own per source, so that sums over units equal everything found.

The plan stays small: images are held as four integers each, not as objects; the full release has 928,020.
"""

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from etl.annotations import AnnotationRow, AnnotationTable, parse_annotations
from etl.archive import SourceTree, safe_label
from etl.containers import Member
from etl.decoding import decode_png16
from etl.quality import Flag, Quarantined, Reason, RefusedError
from lesionary.errors import SourceError

SOURCE_KIND = "deeplesion"

# Raise it when the reading of a release changes in a way that makes rows in existing lakes wrong.
READER_VERSION = 1

# A slice of 4096 × 4096 has 32 MiB of pixels, the published table 8.5 MB; these are read outside the supervised child.
MAX_FILE_BYTES = 64 << 20

_IMAGE = re.compile(r"(?:(?P<folder>.*)/)?(?P<series>\d{6}_\d{2}_\d{2})/(?P<slice>\d{1,4})\.png", re.ASCII)
_TABLE_NAME = "dl_info.csv"
_INTEGERS_PER_FILE = 4


@dataclass(frozen=True, slots=True)
class ReleaseUnit:
    """One series of a release, or what belongs to none; travels to workers."""

    unit_id: str
    namespace: str
    series_key: str | None
    """The series as the release spells it; None for the units that belong to no series."""
    fingerprint: str
    places: tuple[tuple[int, str], ...]
    """Container and folder of the images."""
    files: "array[int]"
    """Four integers an image, by slice: place, digits in its name, slice index, bytes."""
    rows: tuple[AnnotationRow, ...]
    refused: tuple[Quarantined, ...]
    """What planning already knows cannot be taken in."""

    @property
    def image_count(self) -> int:
        """Images to read."""
        return len(self.files) // _INTEGERS_PER_FILE

    @property
    def file_count(self) -> int:
        """Files of the unit, refused ones included."""
        return self.image_count + sum(one.kind == "file" for one in self.refused)

    @property
    def row_count(self) -> int:
        """Annotation rows of the unit, refused ones included."""
        return len(self.rows) + sum(one.kind == "row" for one in self.refused)

    @property
    def byte_count(self) -> int:
        """Bytes of its images in the source."""
        return sum(self.files[_INTEGERS_PER_FILE - 1 :: _INTEGERS_PER_FILE])

    @property
    def may_shrink(self) -> bool:
        """Whether a later state of the source with fewer files replaces it."""
        return self.series_key is None


@dataclass(frozen=True, slots=True)
class SliceRow:
    """One image that was read."""

    series_id: str
    slice_index: int
    z_mm: float | None
    hu: NDArray[np.int16]
    flags: tuple[Flag, ...]


@dataclass(slots=True)
class ReleaseListing:
    """What listing a source collects: a release's files, and others."""

    series: dict[str, "array[int]"] = field(default_factory=dict)
    """Five integers an image: place, digits, slice index, bytes, stamp."""
    places: dict[tuple[int, str], int] = field(default_factory=dict)
    tables: list[Member] = field(default_factory=list)
    others: list[Member] = field(default_factory=list)
    """Files that a release does not have."""
    refused: list[Quarantined] = field(default_factory=list)

    @property
    def holds_release(self) -> bool:
        """Whether there is any part of a release."""
        return bool(self.series or self.tables)

    def add(self, entry: Member | Quarantined, tree: SourceTree) -> None:
        """Sort one entry to where it belongs."""
        if isinstance(entry, Quarantined):
            self.refused.append(entry)
            return
        path = tree.path_of(entry)
        image = _IMAGE.fullmatch(entry.name)
        if image:
            folder = f"{image['folder']}/" if image["folder"] else ""
            place = self.places.setdefault((entry.container, folder), len(self.places))
            digits = len(image["slice"])
            self.series.setdefault(image["series"], array("q")).extend(
                (place, digits, int(image["slice"]), entry.size, entry.stamp)
            )
        elif PurePosixPath(path).name.lower() == _TABLE_NAME or (not entry.name and path.lower().endswith(".csv")):
            self.tables.append(entry)
        else:
            self.others.append(entry)


def plan_release(
    tree: SourceTree, listing: ReleaseListing, *, namespace: str, origin: str, annotations_only: bool = False
) -> list[ReleaseUnit]:
    """Cut a listed release into units; reads the annotation table, no image.

    Args:
        tree: the source.
        listing: of its entries; files of no release are refused as strays.
        namespace: starts every identifier.
        origin: names the source.
        annotations_only: take the table without images.

    Raises:
        SourceError: there is nothing usable in the source.
    """
    annotations = _read_table(tree, listing)
    _require_something(tree, listing, annotations, annotations_only=annotations_only)
    listing.refused += [
        Quarantined("file", safe_label(tree.path_of(entry), entry.container), Reason.STRAY_FILE)
        for entry in listing.others
    ]
    if annotations_only:
        listing.series.clear()
        listing.refused.clear()
    rows: dict[str, list[AnnotationRow]] = {}
    for row in annotations.rows:
        rows.setdefault(row.series_key, []).append(row)
    places = tuple(listing.places)
    units = [
        _series_unit(namespace, key, listing.series.get(key, array("q")), places, rows.get(key, []), listing.refused)
        for key in sorted(rows.keys() | listing.series.keys())
    ]
    units.append(_leftover_unit(f"{namespace}-annotations-{origin}", namespace, annotations.quarantined))
    if not annotations_only:
        units.append(_leftover_unit(f"{namespace}-files-{origin}", namespace, listing.refused))
    return units


def read_images(unit: ReleaseUnit, tree: SourceTree) -> Iterator[SliceRow | Quarantined]:
    """A unit's images, one at a time in the order of their slices; what cannot be read, with the reason."""
    stated_sizes = {row.slice_index: row.image_size for row in unit.rows if row.image_size}
    files = iter(unit.files)
    for place, digits, slice_index, _ in zip(files, files, files, files, strict=True):
        container, folder = unit.places[place]
        name = f"{folder}{unit.series_key}/{slice_index:0{digits}d}.png"
        try:
            hu = decode_png16(tree.read(container, name, MAX_FILE_BYTES))
        except RefusedError as refusal:
            label = f"{unit.series_key}/{slice_index:0{digits}d}.png"
            yield Quarantined("file", label, refusal.reason, refusal.detail)
            continue
        height, width = hu.shape
        differs = stated_sizes.get(slice_index, (width, height)) != (width, height)
        flags = (Flag.IMAGE_SIZE_DIFFERS,) if differs else ()
        yield SliceRow(unit.unit_id, slice_index, slice_z_mm(unit.rows, slice_index), hu, flags)


def slice_z_mm(rows: Sequence[AnnotationRow], slice_index: int) -> float | None:
    """Height of a slice: its index times the interval of the sub-volume that holds it.

    Where no stated sub-volume holds it, the series' interval if it has only one, else None.
    """
    for row in rows:
        interval = row.spacing_mm[2]
        if row.slice_range and interval and row.slice_range[0] <= slice_index <= row.slice_range[1]:
            return slice_index * interval
    intervals = {row.spacing_mm[2] for row in rows if row.spacing_mm[2] is not None}
    return slice_index * intervals.pop() if len(intervals) == 1 else None


def _read_table(tree: SourceTree, listing: ReleaseListing) -> AnnotationTable:
    """The annotation table: the one nearest to the top; further ones are refused."""
    if not listing.tables:
        return AnnotationTable(0, (), ())
    chosen, *others = sorted(listing.tables, key=lambda member: (member.name.count("/"), member.container, member.name))
    listing.refused += [Quarantined("file", safe_label(m.name, m.container), Reason.STRAY_FILE) for m in others]
    try:
        return parse_annotations(tree.read(chosen.container, chosen.name, MAX_FILE_BYTES))
    except RefusedError as refusal:
        raise SourceError(
            f"the annotation table cannot be read ({refusal.reason})",
            where="DL_info.csv",
            next_step="check the file and your rights to it",
        ) from None


def _require_something(
    tree: SourceTree, listing: ReleaseListing, annotations: AnnotationTable, *, annotations_only: bool
) -> None:
    where = ", ".join(place.location.url for place in tree.containers[: tree.source_count])
    if annotations_only and not listing.tables:
        raise SourceError("there is no DL_info.csv here", where=where, next_step="name the file itself")
    if not annotations_only and not listing.series:
        remedy = (
            "add --annotations-only to take DL_info.csv alone" if annotations.found else "name another folder or zip"
        )
        raise SourceError("there are no images <series>/<slice>.png here", where=where, next_step=remedy)


def _series_unit(
    namespace: str,
    key: str,
    listed: "array[int]",
    places: tuple[tuple[int, str], ...],
    rows: Sequence[AnnotationRow],
    refused: list[Quarantined],
) -> ReleaseUnit:
    """One series' unit; second files for one slice are moved to `refused`."""
    integers = iter(listed)
    images = sorted(
        zip(integers, integers, integers, integers, integers, strict=True),
        # The release writes three digits: 007.png is believed before 7.png.
        key=lambda image: (image[2], image[1] != 3, image[0], image[1]),
    )
    digest = hashlib.blake2b(f"{READER_VERSION}\x00{namespace}".encode(), digest_size=16)
    files = array("q")
    for place, digits, slice_index, size, stamp in images:
        if files and files[-2] == slice_index:
            refused.append(Quarantined("file", f"{key}/{slice_index:0{digits}d}.png", Reason.DUPLICATE_SLICE))
            continue
        files.extend((place, digits, slice_index, size))
        digest.update(f"{slice_index},{size},{stamp};".encode())
    for row in rows:
        digest.update(f"{row.number},{row.digest},{','.join(sorted(row.flags))};".encode())
    # Only the places this unit uses: a source may have many folders.
    used = sorted(set(files[::_INTEGERS_PER_FILE]))
    for position in range(0, len(files), _INTEGERS_PER_FILE):
        files[position] = used.index(files[position])
    return ReleaseUnit(
        unit_id=f"{namespace}-{key}",
        namespace=namespace,
        series_key=key,
        fingerprint=digest.hexdigest(),
        places=tuple(places[number] for number in used),
        files=files,
        rows=tuple(rows),
        refused=(),
    )


def _leftover_unit(unit_id: str, namespace: str, refused: Sequence[Quarantined]) -> ReleaseUnit:
    digest = hashlib.blake2b(f"{READER_VERSION}".encode(), digest_size=16)
    for one in refused:
        digest.update(f"{one.kind},{one.member},{one.reason},{one.detail};".encode())
    return ReleaseUnit(unit_id, namespace, None, digest.hexdigest(), (), array("q"), (), tuple(refused))
