"""What an export is made of: series with their lesions, read from one state of the lake, and a folder to write into."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from lesionary.artifacts import atomic_write_json, read_json
from lesionary.errors import LakeError, UsageError
from lesionary.identifiers import names_a_file
from lesionary.lake import Lake
from lesionary.recist import FIRST_CENTERS
from lesionary.schema import COORDINATE_COLUMNS

# Left in every folder that an export wrote, so that --force removes no others.
_MARKER = ".lesionary-export.json"

Progress = Callable[[int, int], None]
"""Called with series done and series to do."""


@dataclass(frozen=True, slots=True)
class Lesion:
    """A lesion's row of the lake."""

    row: Mapping[str, object]

    @property
    def lesion_id(self) -> str:
        """Its name."""
        return str(self.row["lesion_id"])

    @property
    def slice_index(self) -> int:
        """Its key slice."""
        return int(str(self.row["slice_index"]))

    @property
    def has_short_axis(self) -> bool:
        """Whether it has both diameters."""
        return all(self.row[name] is not None for name in COORDINATE_COLUMNS)

    def points(self, convention: str) -> NDArray[np.float64]:
        """The ends of its axes, (4, 2) or (2, 2) for a single length, counted as a convention counts."""
        values = [float(str(self.row[name])) for name in COORDINATE_COLUMNS if self.row[name] is not None]
        shift = FIRST_CENTERS[convention] - FIRST_CENTERS[str(self.row["coord_convention"])]
        return np.array(values).reshape(-1, 2) + shift

    def number(self, column: str) -> float | None:
        """A number of its row."""
        value = self.row[column]
        return float(value) if isinstance(value, int | float) else None


@dataclass(frozen=True, slots=True)
class Series:
    """A series' row of the lake, its slices without pixels, and its lesions."""

    row: Mapping[str, object]
    slices: Mapping[int, Mapping[str, object]]
    """By slice index, ascending."""
    lesions: tuple[Lesion, ...]

    @property
    def series_id(self) -> str:
        """Its name."""
        return str(self.row["series_id"])

    def number(self, column: str) -> float | None:
        """A number of its row."""
        value = self.row[column]
        return float(value) if isinstance(value, int | float) else None

    def stretches(self) -> list[range]:
        """Slice indices without a gap."""
        stretches: list[range] = []
        for index in self.slices:
            if stretches and index == stretches[-1].stop:
                stretches[-1] = range(stretches[-1].start, index + 1)
            else:
                stretches.append(range(index, index + 1))
        return stretches


@dataclass(frozen=True, slots=True)
class Choice:
    """Which part of a lake is wanted; empty = all."""

    patients: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()


_SLICE_COLUMNS = ("series_id", "slice_index", "z_mm", "image_id", "frame_number", "position_xyz_mm")


def chosen_series(lake: Lake, choice: Choice) -> list[Series]:
    """The series of the lake that are wanted, by patient, study and name.

    Raises:
        LakeError: there are none, or one has a name that cannot be a file's.
    """
    where = pc.field("patient_id").isin(list(choice.patients)) if choice.patients else None
    rows = lake.read("series", where=where).to_pylist()
    lesions: dict[str, list[Lesion]] = {}
    for row in lake.read("lesions", where=where).to_pylist():
        if not choice.splits or row["split"] in choice.splits:
            lesions.setdefault(row["series_id"], []).append(Lesion(row))
    if choice.splits:
        rows = [row for row in rows if row["series_id"] in lesions]
    if not rows:
        raise LakeError("nothing in the lake matches", where=lake.url, next_step="ask for less, or ingest first")
    # Others may write into the lake as well, and exports call files after what stands there.
    if not all(names_a_file(str(row[column])) for row in rows for column in ("series_id", "study_id")):
        raise LakeError(
            "a series or study has a name that ingest never gives",
            where=lake.url,
            next_step="look at who else writes into this lake; nothing was exported",
        )
    rows.sort(key=lambda row: (row["patient_id"], _first(row["study_day"]), row["study_id"], row["series_id"]))
    slices = _slices(lake)
    return [
        Series(
            row,
            slices.get(row["series_id"], {}),
            tuple(sorted(lesions.get(row["series_id"], ()), key=lambda one: (one.slice_index, one.lesion_id))),
        )
        for row in rows
    ]


def _first(day: int | None) -> float:
    return float("inf") if day is None else day


def _slices(lake: Lake) -> dict[str, dict[int, Mapping[str, object]]]:
    found: dict[str, dict[int, Mapping[str, object]]] = {}
    order = [("series_id", "ascending"), ("slice_index", "ascending")]
    rows = lake.read("slices", columns=_SLICE_COLUMNS).sort_by(order)
    for row in rows.to_pylist():
        found.setdefault(row["series_id"], {})[row["slice_index"]] = row
    return found


def prepare_folder(folder: Path, kind: str, *, force: bool) -> None:
    """Make an empty folder for an export.

    Raises:
        UsageError: it holds other files, or an export and `force` is not given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / _MARKER
    if any(folder.iterdir()):
        if not force or not marker.is_file():
            raise UsageError(
                "the folder is not empty",
                where=str(folder),
                next_step="choose another, or replace an export of ours in it with --force",
            )
        written = read_json(marker)
        entries = written.get("entries", []) if isinstance(written, dict) else []
        for name in entries:
            _remove(folder, str(name))
        if leftovers := [path.name for path in folder.iterdir() if path != marker]:
            raise UsageError(
                f"the folder also holds {len(leftovers)} other files or folders",
                where=str(folder),
                next_step="choose another folder",
            )
    atomic_write_json(marker, {"kind": kind, "entries": []})


def _remove(folder: Path, name: str) -> None:
    path = folder / name
    if path.parent != folder:
        return
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def seal_folder(folder: Path, kind: str) -> None:
    """Remember what an export wrote at the top of its folder."""
    entries = sorted(path.name for path in folder.iterdir() if path.name != _MARKER)
    atomic_write_json(folder / _MARKER, {"kind": kind, "entries": entries})


def with_progress(series: Sequence[Series], progress: Progress | None) -> Iterator[Series]:
    """The series one by one, telling how far they are."""
    for done, one in enumerate(series):
        if progress:
            progress(done, len(series))
        yield one
    if progress:
        progress(len(series), len(series))
