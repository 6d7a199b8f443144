"""Sources, lakes to start from, and operations that faults are put into, with what each comes to undisturbed."""

import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
from conftest import annotation_row, write_release
from faults.digests import content_digest, vectors_of
from faults.processes import run_command, start_command, wait_for
from faults.watching import Watch

from lesionary.lake import Lake
from lesionary.models import list_models, read_weights
from store.database import open_reader

SIDE = 64
# What a network says of a patch depends in the last bits on the patches beside it.
_VECTOR_TOLERANCE = 1e-4

EMBED = ("embed", "--features", "multi-scale", "--backbone", "narrow", "--weights", "none", "--precision", "fp32")
# Columns that follow from which sync took a row, or from when it was computed.
_OF_THE_STORE = frozenset(
    {"shard", "created_at", "lesion_number", "lesions_version", "feature_set_id", "model_id", "version"}
)


def ingest(source, *more):
    """The words of a small ingest; `{sources}` is filled in."""
    return ("ingest", f"{{sources}}/{source}", "--commit-seconds", "1", "--shard-mb", "1", *more)


HERE, ON_RAY = ("--workers", "1"), ("--workers", "2", "--ray-address", "local")
OLD, NEW = ingest("old", *HERE), ingest("new", *HERE)
PACS = ingest("pacs/export", "--key-file", "{sources}/key", *HERE)
TALL = ingest("tall", *HERE)
TRAIN = (
    "train", "ssbr", "--preset", "smoke", "--threads", "1", "--workers", "1", "--steps", "12", "--run", "r",
    "--set", "checkpoint_every=3", "--set", "input_px=32",
)  # fmt: skip


@dataclass(frozen=True)
class Operation:
    """A command that faults are put into."""

    name: str
    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    """Commands that made the lake it starts from."""
    parts: tuple[str, ...] = ()
    """What runs beside the driver: text in the command lines of processes that may be killed on their own."""
    rival: tuple[str, ...] | None = None
    """What another person runs meanwhile; the same command unless given. It leaves the outcome as it is."""


OPERATIONS = {
    one.name: one
    for one in (
        Operation("ingest", NEW),
        Operation("ingest more", NEW, (OLD, ("sync",))),
        Operation("ingest on ray", ingest("new", *ON_RAY), parts=("ray::", "raylet")),
        Operation("ingest pacs", PACS, parts=("etl.supervised",)),
        Operation("sync", ("sync",), (OLD, EMBED, ("sync",), NEW, EMBED)),
        Operation("match", ("match", "--all"), (OLD, NEW, ("sync",)), rival=("sync",)),
        Operation("embed", EMBED, (OLD, EMBED, NEW)),
        Operation("train", TRAIN, (TALL, ("sync",)), rival=("sync",)),
    )
}


@dataclass(frozen=True)
class Outcome:
    """What a folder holds, as far as it must be the same whatever happened on the way."""

    content: str
    vectors: dict = field(repr=False)
    store: dict
    weights: tuple

    def differs_from(self, other):
        """What is not the same, in words; empty if nothing."""
        found = [name for name in ("content", "weights") if getattr(self, name) != getattr(other, name)]
        tables = sorted(self.store.keys() | other.store.keys())
        found += [f"store's {name}" for name in tables if self.store.get(name) != other.store.get(name)]
        return ", ".join(found + ([] if same_vectors(self.vectors, other.vectors) else ["vectors"]))


def same_vectors(ours, others):
    """Whether two mappings of lesions to vectors agree."""
    return ours.keys() == others.keys() and all(
        np.allclose(ours[one], others[one], atol=_VECTOR_TOLERANCE) for one in ours
    )


def outcome_of(folder):
    """What a folder holds now."""
    lake = Lake.open(str(folder / "lake"))
    return Outcome(content_digest(lake, renumbered=True), **answers_of(folder))


def answers_of(folder, *, store_too=True):
    """What people get out of a folder: vectors, rows of the store, models."""
    lake = Lake.open(str(folder / "lake"))
    return {
        "vectors": newest_vectors(lake),
        "store": store_rows(folder / "lake" / "features.duckdb") if store_too else {},
        "weights": tuple((card.kind, read_weights(lake, card)) for card in list_models(lake)),
    }


def newest_vectors(lake):
    """Vectors of the feature set that was described last; none where there is none."""
    sets = lake.read("feature_sets").to_pylist() if lake.has_table("feature_sets") else []
    newest = max(sets, key=lambda one: one["created_at"], default=None)
    return vectors_of(lake, newest["feature_set_id"]) if newest else {}


def store_rows(path):
    """Table of the store to its number of rows and a digest of them, in no order; empty without a store."""
    if not path.exists():
        return {}
    found = {}
    with open_reader(path) as connection:
        tables = connection.execute(
            "SELECT table_name, list(column_name) FROM information_schema.columns WHERE table_schema = 'lake_rows' "
            "GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        for name, columns in tables:
            kept = [f'"{one}"' for one in sorted(columns) if one not in _OF_THE_STORE and "ingest_id" not in one]
            row = f"SELECT count(*), bit_xor(hash(row({', '.join(kept)}))) FROM lake_rows.{name}"
            found[name] = connection.execute(row).fetchone()
    return found


@dataclass(frozen=True)
class Calm:
    """An operation left alone: where it ran, what it came to, and the changes on the way."""

    folder: Path
    outcome: Outcome
    events: list


class World:
    """A folder of sources and of lakes, made once, copied for every run."""

    def __init__(self, folder, start=start_command):
        self.folder = Path(folder)
        self._start = start
        self.sources = self.folder / "sources"
        self.before = cache(self._before)
        self.calm = cache(self._calm)

    def make_sources(self):
        """Two states of a release, the newer larger and partly corrected; a PACS export; series as tall as a trunk."""
        names = [f"{patient:06d}_{study:02d}_01" for patient in range(1, 6) for study in (1, 2)]
        write_release(self.sources / "tall", {name: range(1, 29) for name in names}, [_row(names[0], 20)], SIDE)
        for state, series in (("old", names[:6]), ("new", names)):
            rows = [_row(name, at, corrected=state == "new" and n % 3 == 0) for n, name in enumerate(series)
                    for at in (20, 40)]  # fmt: skip
            release = write_release(self.sources / state, {name: range(1, 13) for name in series}, rows, SIDE)
            (release / "Images_png" / series[1] / "005.png").write_bytes(b"broken")
            (release / "stray.txt").write_text("x")
        done = run_command(
            "phantom", "pacs", "pacs", "--patients", 4, "--seed", 3, "--image-size", SIDE, "--max-slices-per-series", 5,
            cwd=self.sources,
        )  # fmt: skip
        assert done.code == 0, done.said

    def words(self, words):
        """Words of a command with the sources filled in."""
        return [word.format(sources=self.sources) for word in words]

    def start(self, words, folder):
        """Start a command in a run's folder."""
        return self._start(*self.words(words), cwd=folder)

    def run(self, words, folder, seconds=300):
        """Run a command in a run's folder."""
        return wait_for(self.start(words, folder), seconds)

    def fresh(self, operation, folder, *, filled=False):
        """A folder as it is before the operation; with `filled`, after it where there is nothing before."""
        shutil.rmtree(folder, ignore_errors=True)
        empty = filled and not operation.before
        shutil.copytree(self.calm(operation).folder if empty else self.before(operation.before), folder, symlinks=True)
        return folder

    def _before(self, commands):
        earlier = self.before(commands[:-1]) if commands else None
        folder = self.folder / f"before-{len(list(self.folder.glob('before-*')))}"
        if earlier is None:
            folder.mkdir(parents=True)
            return folder
        shutil.copytree(earlier, folder, symlinks=True)
        done = self.run(commands[-1], folder)
        assert done.code == 0, done.said
        return folder

    def _calm(self, operation):
        """What the operation comes to undisturbed, and the events on the way."""
        folder = self.fresh(operation, self.folder / f"calm-{operation.name.replace(' ', '-')}")
        process = self.start(operation.words, folder)
        with Watch(folder) as watch:
            events = list(watch.until_end_of(process))
        done = wait_for(process)
        assert done.code == 0, done.said
        return Calm(folder, outcome_of(folder), events)


def rerun_words(operation, folder):
    """The same command again, as its own message asks for it."""
    begun = (folder / "lake" / "models" / "runs" / "r" / "run.json").exists()
    return (*operation.words, "--resume") if operation.words is TRAIN and begun else operation.words


def _row(name, at, *, corrected=False):
    return annotation_row(
        File_name=f"{name}_{3 if at < 30 else 4:03d}.png",
        Measurement_coordinates=f"{at}, 30, {at + 14}, 30, {at + 7}, 26, {at + 7}, 34",
        Bounding_boxes=f"{at - 5}, 21, {at + 19}, 39",
        Lesion_diameters_Pixel_="14, 8",
        Normalized_lesion_location=f"0.{at}, 0.5, 0.{'7' if corrected else '6'}",
        Coarse_lesion_type="6" if corrected else "5",
        Image_size=f"{SIDE}, {SIDE}",
        Spacing_mm_px_="1, 1, 5",
    )
