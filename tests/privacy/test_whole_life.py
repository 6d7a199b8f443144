"""Nobody's identity, over the whole life of an export: everything a run leaves is searched for everything planted.

One life: an export and a release with names in every place (`planted_export.py`) are ingested here and on Ray, with
debug logs of ours and of Ray's, with mistakes made on purpose, a decoder and a Ray worker and the driver crashing with
the export in memory; then sync, questions, pictures, exports, trainings, and what models say. `haystack.py` opens
what was left.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from privacy.haystack import Searcher, search_places
from privacy.planted_export import PlantedExport, plant_export, plant_release

from lesionary.provenance import package_root
from store.database import open_reader

_HERE = Path(__file__).parent
_SMOKE = ("--preset", "smoke", "--threads", "1", "--steps", "2")
_DECODER, _WORKER, _DRIVER = "etl.pacs_files:to_hu", "etl.ingest_tasks:write_unit", "etl.pacs:_files_unit"


@dataclass
class Life:
    """What was lived, and what is left of it."""

    folder: Path
    export: PlantedExport
    release: PlantedExport
    said: dict[str, bytes] = field(default_factory=dict)
    codes: dict[str, list[int]] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        return [*self.export.texts, *self.release.texts]

    def run(self, stage: str, *commands: tuple[object, ...], lake: str = "lake", traps: str = "") -> None:
        """Some commands in one process, that may dump as much core as it likes."""
        for name in ("work", "temporary", "home", "sessions", "trapped"):
            (self.folder / name).mkdir(exist_ok=True)
        typed = [[str(word) for word in command] for command in commands]
        done = subprocess.run(
            ["sh", "-c", 'ulimit -c unlimited 2>/dev/null; exec "$@"', "sh",
             sys.executable, str(_HERE / "kept_session.py"), str(self.folder / "sessions"), json.dumps(typed)],
            env=self._environment(lake, traps), cwd=self.folder / "work", capture_output=True, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        # People see on their own terminal what they have typed.
        for word in sorted({word for command in typed for word in command}, key=len, reverse=True):
            said = said.replace(word.encode("utf-8", "surrogateescape"), b"") if "PLANTEDX" in word else said
        self.said[stage] = said
        last = done.stdout.decode().strip().splitlines()[-1:] if done.returncode == 0 else []
        self.codes[stage] = json.loads(last[0]) if last else [done.returncode]

    def _environment(self, lake: str, traps: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LESIONARY_", "RAY_"))}
        path = os.pathsep.join(filter(None, [str(_HERE / "traps"), str(package_root()), os.environ.get("PYTHONPATH")]))
        return kept | {
            "PYTHONPATH": path,
            "PYTHONFAULTHANDLER": "1",
            "OMP_NUM_THREADS": "1",
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "temporary"),
            "XDG_CONFIG_HOME": str(self.folder / "private"),
            "LESIONARY_LAKE": str(self.folder / lake),
            "LESIONARY_TEST_TRAPS": traps,
            "LESIONARY_TEST_TRAPPED": str(self.folder / "trapped"),
            # Everything that Ray can write of itself.
            "RAY_BACKEND_LOG_LEVEL": "debug",
            "RAY_enable_export_api_write": "1",
            "RAY_event_level": "info",
        }

    def places(self) -> dict[str, Path]:
        """Everything but the sources, and what is private by design: the key, the days, the map."""
        left = self.folder / "said"
        left.mkdir(exist_ok=True)
        for stage, said in self.said.items():
            (left / stage).write_bytes(said)
        own = {"sources", "private"}
        return {path.name: path for path in sorted(self.folder.iterdir()) if path.is_dir() and path.name not in own}


@pytest.fixture(scope="module")
def life(phantom_pacs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("life")
    sources = folder / "sources"
    lived = Life(folder, plant_export(sources, phantom_pacs[0], phantom_pacs[1]["planted"]), plant_release(sources))
    source, release = lived.export.source, lived.release.source
    lived.run("crashed driver", ("--debug", "ingest", source), traps=f"{_DRIVER}:SIGABRT")
    lived.run(
        "ingest", ("--debug", "ingest", source, "--json", "--keep-map", folder / "private" / "map"),
        ("--debug", "ingest", release), ("--debug", "sync"), ("ingest", source, "--dry-run"),
    )  # fmt: skip
    lived.run(
        "ray", ("--debug", "ingest", source, release, "--ray-address", "local", "--workers", 2), ("sync",),
        lake="lake of ray", traps=f"{_DECODER}:SIGSEGV {_WORKER}:SIGABRT",
    )  # fmt: skip
    _mistakes(lived)
    _questions(lived)
    _learning(lived)
    return lived


def _mistakes(life: Life) -> None:
    source = life.export.source
    odd = life.release.source.parent
    (odd / "letters").mkdir()
    (odd / "letters" / "PLANTEDX.txt").write_bytes(b"Dear colleague")
    (odd / "table").mkdir()
    (odd / "table" / "DL_info.csv").write_text("PLANTEDX,File_name\nPLANTEDX,PLANTEDX\n")
    (odd / "broken.toml").write_text('[ingest]\nworkers = "PLANTEDX"\n')
    life.run(
        "mistakes",
        ("--debug", "ingest", source / "PLANTEDX gone"),
        ("--debug", "ingest", odd / "letters"),
        ("--debug", "ingest", odd / "table", "--annotations-only"),
        ("--debug", "ingest", source, "--annotations-only"),
        ("--debug", "ingest", source / "report.pdf"),
        ("--debug", "ingest", next(source.glob("PLANTEDX broken zip name.zip"))),
        ("--debug", "ingest", source, "--config", odd / "broken.toml"),
        ("--debug", "ingest", f"s3://PLANTEDX:secret@bucket{source}"),
        ("--debug", "ingest", source, "--namespace", "Not A Namespace"),
        ("--debug", "ingest", source, "--workers", "many"),
        ("--debug", "ingest", source, "--lake", life.folder / "sources"),
        ("--debug", "show", "no-such-lesion"),
        ("--debug", "sql", f"SELECT * FROM '{source}/odd/marks.csv'"),
        lake="lake of mistakes",
    )


def _questions(life: Life) -> None:
    with open_reader(life.folder / "lake" / "features.duckdb") as connection:
        wanted = (
            "SELECT lesion_id, patient_id FROM lesion_features WHERE source = 'pacs' AND image_available AND {} LIMIT 1"
        )
        lesion, patient = connection.sql(wanted.format("long_mm > 0 ORDER BY lesion_id")).fetchall()[0]
    out = life.folder / "out"
    life.run(
        "questions",
        *(("sql", "--json", f"SELECT * FROM {table}") for table in ("quarantine", "marks", "units", "series")),
        ("show", lesion, "--picture", out / "lesion.png"), ("show", lesion, "--json"),
        ("similar", lesion, "--feature-set", "size", "--picture", out / "similar.png"),
        ("map", "--feature-set", "size", "--method", "pca", "--picture", out / "map.png"),
        ("patients", "similar", patient, "--feature-set", "size"),
        ("response", patient, "--feature-set", "size", "--chart", out / "response.png"),
        ("features", "list", "--json"),
        ("export", "deeplesion", out / "deeplesion"), ("export", "nifti", out / "nifti"),
        ("export", "coco", "--pictures", out / "coco"), ("export", "sr", out / "sr"),
        ("lake", "history"), ("lake", "verify", "--deep"), ("doctor",),
    )  # fmt: skip


def _learning(life: Life) -> None:
    out = life.folder / "out"
    life.run(
        "learning",
        ("--debug", "train", "position", *_SMOKE),
        ("train", "triplet", *_SMOKE, "--weights=position", "--set=cues=type"), ("embed",),
        ("train", "categories", *_SMOKE, *(f"--set={one}" for one in ("max_rounds=1", "least_k=2", "input_px=32"))),
        ("categorise", "show", "--picture", out / "categories.png"),
        ("train", "detector", *_SMOKE, "--set", "categories=categoriser"), ("detect", "--min-score", "0.001"),
        ("embed", "--detections", "detector"), ("measure",), ("measure", "--detections", "detector"), ("sync",),
        ("models", "list", "--json"), ("models", "describe", "triplet"), ("models", "export", "triplet", out / "model"),
        ("evaluate", "retrieval", "--feature-set", "size", "--report", out / "report"),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_the_life_was_lived_as_meant(life):
    assert life.codes == {
        "crashed driver": [-6],
        "ingest": [0] * len(life.codes["ingest"]),
        "ray": [0, 0],
        "mistakes": [2] * len(life.codes["mistakes"]),
        "questions": [0] * len(life.codes["questions"]),
        "learning": [0] * len(life.codes["learning"]),
    }, b"\n".join(life.said.values()).decode(errors="replace")[-5_000:]
    assert b"child_died 1" in life.said["ray"]
    assert list((life.folder / "sessions").rglob("event_EXPORT_DRIVER_JOB.log"))


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_crashes_left_no_core_dump(life):
    trapped = {path.name: path.read_text() for path in (life.folder / "trapped").iterdir()}

    assert set(trapped) == {trap.replace(":", ".") for trap in (_DECODER, _WORKER, _DRIVER)}
    assert set(trapped.values()) <= {"0", "1"}
    # Where the kernel writes files, it writes them into the folder that a process runs in: Ray's run in the packages'.
    assert [*life.folder.rglob("core"), *life.folder.rglob("core.*"), *package_root().glob("core*")] == []


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_no_planted_identifier_is_in_anything_left(life):
    found = search_places(Searcher(life.texts), life.places())

    assert len(life.texts) > 700
    assert [f"{one.text!r} in {one.where}" for one in found] == []


@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_every_planted_text_would_have_been_found(life):
    """In the sources themselves, and in the one file that leads back because somebody asked for it."""
    sources = search_places(Searcher(life.texts), {"sources": life.folder / "sources"}, damaged=True)
    kept = search_places(Searcher(life.texts), {"private": life.folder / "private"})

    assert set(life.texts) - {one.text for one in sources} == set()
    assert len({one.text for one in kept}) > 100
