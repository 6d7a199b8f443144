"""A PACS export as a whole: every planted lesion once, formats that agree, nobody's identity, nothing done twice."""

import dataclasses
import json
import os
import sqlite3
import stat
import subprocess
import sys
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from pacs_files import adds_up, changed, ct, mine, take_in, uid

from etl.deidentify import Pseudonymiser, load_key, look_up
from etl.ingest import ingest, units_to_do
from etl.planning import plan_sources
from etl.quality import Flag, Reason
from lesionary.errors import SourceError
from lesionary.lake import Lake
from lesionary.schema import COORDINATE_COLUMNS, TABLES
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from store.database import open_reader


@pytest.fixture(scope="module")
def mined(phantom_pacs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mined")
    lake = Lake.create(str(folder / "lake"))
    summary = take_in(lake, phantom_pacs[0], folder)
    return lake, summary, Pseudonymiser("pacs", load_key(folder / "secret" / "key")), folder


def check_lesions(lake, truth, names):
    """Every planted lesion once, at its place, with its lengths; the worst distances."""
    lesions = lake.read("lesions").to_pylist()
    assert len(lesions) == len(truth["lesions"])
    slices = lake.read("slices", columns=["series_id", "slice_index", "image_id", "frame_number"]).to_pylist()
    places = {(row["image_id"], row["frame_number"]): (row["series_id"], row["slice_index"]) for row in slices}
    found = {}
    for lesion in lesions:
        found.setdefault((lesion["series_id"], lesion["slice_index"]), []).append(lesion)
    worst_px = worst_mm = 0.0
    for planted in truth["lesions"]:
        place = places[names.name("image", planted["sop_uid"]), planted["frame_number"]]

        def distance(lesion, points=planted["points_half_based"]):
            return max(abs(lesion[name] - value) for name, value in zip(COORDINATE_COLUMNS, points, strict=True))

        lesion = min(found[place], key=distance)
        found[place].remove(lesion)
        worst_px = max(worst_px, distance(lesion))
        worst_mm = max(worst_mm, *(abs(lesion[name] - planted[name]) for name in ("long_mm", "short_mm")))
        assert lesion["patient_id"] == names.name("patient", planted["patient_id"])
        assert lesion["study_id"] == names.name("study", planted["study_uid"])
        coded = {"sr", "aim"} & set(planted["formats"])
        assert lesion["lesion_type"] == (planted["lesion_type"] if coded else None)
    return worst_px, worst_mm


def test_every_planted_lesion_is_found_once_at_its_place(mined, phantom_pacs):
    lake, _, names, _ = mined

    worst_px, worst_mm = check_lesions(lake, phantom_pacs[1], names)

    assert worst_px < 0.01
    assert worst_mm < 0.1


def test_everything_found_is_accounted_for(mined, phantom_pacs):
    _, summary, _, _ = mined
    files = phantom_pacs[1]["files"]

    assert adds_up(summary.tally.counts)
    assert summary.tally.counts["rows_found"] == files["mark"]
    assert summary.tally.reasons[Reason.DUPLICATE_FILE] == files["duplicate"]
    assert summary.tally.reasons[Reason.NOT_CT] == files["secondary_capture"]


def test_marks_of_one_lesion_agree_whatever_their_format(mined):
    marks = mined[0].read("marks").to_pylist()
    by_id = {mark["mark_id"]: mark for mark in marks}
    copies = [mark for mark in marks if mark["duplicate_of"]]

    assert {mark["source_format"] for mark in copies} == {"aim", "gsps"}
    for mark in copies:
        original = by_id[mark["duplicate_of"]]
        points = [[one[name] for name in COORDINATE_COLUMNS] for one in (mark, original)]
        assert np.allclose(points[0], points[1], atol=0.01)
        assert mark["long_mm"] == pytest.approx(original["long_mm"], abs=0.1)
        assert mark["lesion_id"] is None
        assert mark["flags"] == [Flag.DUPLICATE_MARK]
    lengths = [mark["stated_ratio"] for mark in marks if mark["stated_ratio"] is not None]
    assert min(lengths) > 0.98
    assert max(lengths) < 1.02


def test_series_have_the_geometry_they_were_drawn_with(mined, phantom_pacs):
    lake = mined[0]
    slices = lake.read("slices", columns=["series_id", "slice_index", "position_xyz_mm", "z_mm"]).to_pylist()
    by_series = {}
    for row in slices:
        by_series.setdefault(row["series_id"], []).append(row)
    rows = lake.read("series").to_pylist()
    drawn = sorted(tuple(one["positions_z_mm"]) for one in phantom_pacs[1]["series"])
    read = sorted(
        tuple(row["position_xyz_mm"][2] for row in sorted(group, key=lambda row: row["slice_index"]))
        for group in by_series.values()
    )

    assert read == drawn
    assert {row["axial"] for row in rows} == {True}
    assert {row["tilt_deg"] for row in rows} <= {0.0, None}
    assert max(row["age_years"] for row in rows) == 90.0


def test_pixels_are_the_drawn_ones_in_every_syntax(mined, phantom_pacs):
    import hashlib

    lake = mined[0]
    drawn = {tuple(one["pixel_sha256"]): one["syntax"] for one in phantom_pacs[1]["series"]}
    seen = Counter()
    with SliceReader(lake) as reader:
        for row in lake.read("series").to_pylist():
            digests = tuple(
                hashlib.sha256(reader.read(row["series_id"], index).astype("<i2").tobytes()).hexdigest()
                for index in reader.slice_indices(row["series_id"])
            )
            seen[drawn[digests]] += 1

    assert sum(seen.values()) == len(phantom_pacs[1]["series"])
    assert len(seen) == 10


def test_lesions_know_their_place_in_the_body(mined):
    lesions = mined[0].read("lesions").to_pylist()

    assert all(0.0 <= lesion["body_x"] <= 1.0 and 0.0 <= lesion["body_y"] <= 1.0 for lesion in lesions)
    assert len({round(lesion["body_x"], 2) for lesion in lesions}) > 5


def test_studies_have_days_from_the_first_one(mined, phantom_pacs):
    lake, _, names, _ = mined
    dates = {}
    for lesion in phantom_pacs[1]["lesions"]:
        day = date(*(int(lesion["study_date"][a:b]) for a, b in ((0, 4), (4, 6), (6, 8))))
        dates.setdefault(lesion["patient_id"], {})[lesion["study_uid"]] = day
    expected = {
        names.name("study", study): ((day - min(own.values())).days, 1 + sorted(own.values()).index(day))
        for own in dates.values()
        for study, day in own.items()
    }

    found = {row["study_id"]: (row["study_day"], row["study_index"]) for row in lake.read("series").to_pylist()}

    assert found == expected
    assert len(set(found.values())) > 2


def test_second_ingest_does_nothing(mined, phantom_pacs):
    lake, _, _, folder = mined

    again = take_in(lake, phantom_pacs[0], folder)

    assert (again.units_written, again.slices_written) == (0, 0)
    assert again.units_skipped == again.units_found


def bytes_below(*folders):
    return b"\n".join(
        path.name.encode() + b"\n" + path.read_bytes()
        for folder in folders
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file() and not path.is_socket()
    )


def test_not_one_planted_identifier_comes_out(phantom_pacs, tmp_path):
    """Lake, store, logs, records, errors and exports, from a run of the command as people run it."""
    environment = os.environ | {
        "LESIONARY_LAKE": str(tmp_path / "lake"),
        "LESIONARY_INGEST_KEY_FILE": str(tmp_path / "k"),
    }
    said = b""
    for arguments in (
        ["--debug", "ingest", str(phantom_pacs[0])],
        ["sync"],
        ["sql", "--json", "SELECT * FROM quarantine"],
        ["export", "deeplesion", str(tmp_path / "out/deeplesion")],
        ["export", "nifti", "--uncompressed", str(tmp_path / "out/nifti")],
        ["export", "coco", "--pictures", str(tmp_path / "out/coco")],
        ["export", "sr", str(tmp_path / "out/sr")],
        ["show", "no-such-lesion"],
    ):
        done = subprocess.run(
            [sys.executable, "-c", "from cli.main import main; main()", *arguments],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == (2 if "no-such-lesion" in arguments else 0), done.stderr
        said += done.stdout + done.stderr
    # Parquet compresses: the rows themselves are looked through as well.
    lake = Lake.open(str(tmp_path / "lake"))
    columns = {name: [c for c in table.column_names if c != "pixels"] for name, table in TABLES.items()}
    rows = "".join(repr(lake.read(name, columns=columns[name]).to_pylist()) for name in TABLES).encode()
    with open_reader(tmp_path / "lake" / "features.duckdb") as connection:
        views = connection.sql(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'"
        ).fetchall()
        stored = b"".join(repr(connection.sql(f"SELECT * FROM {name}").fetchall()).encode() for (name,) in views)
    everything = said.replace(str(phantom_pacs[0]).encode(), b"") + rows + stored
    everything += bytes_below(tmp_path / "lake", tmp_path / "out")

    found = [text for text in phantom_pacs[1]["planted"] if text.encode() in everything]

    assert len(phantom_pacs[1]["planted"]) > 300
    assert found == []
    assert b"PLANTED" not in everything


def test_key_and_days_are_private_and_outside_the_lake(mined):
    lake, _, _, folder = mined

    assert {path.name for path in (folder / "secret").iterdir()} == {"key", "key.days"}
    for path in (folder / "secret").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(folder / "secret" / "key").hex().encode() not in bytes_below(lake.url)


def test_later_ingest_counts_days_from_the_study_seen_first(tmp_path):
    def study(number, day):
        return changed(ct(1, study=number), StudyDate=day)

    lake, _ = mine(tmp_path, {"first": study(1, "20200310")})
    take_in(lake, _folder(tmp_path / "later", {"a": study(2, "20200320")}), tmp_path)
    take_in(lake, _folder(tmp_path / "older", {"a": study(3, "20200301")}), tmp_path)

    assert sorted(lake.read("series")["study_day"].to_pylist()) == [-9, 0, 10]


def _folder(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_kept_map_leads_back_and_only_with_the_key(phantom_pacs, tmp_path):
    from etl.deidentify import keep_map

    settings = IngestSettings(key_file=str(tmp_path / "key"))
    plan = plan_sources([str(phantom_pacs[0])], settings)
    keep_map(tmp_path / "map", plan.names)
    key = load_key(tmp_path / "key")
    identifier = phantom_pacs[1]["lesions"][0]["patient_id"]
    pseudonym = Pseudonymiser("pacs", key).name("patient", identifier)

    assert list(look_up(tmp_path / "map", key, [pseudonym])) == [(pseudonym, "patient", identifier)]
    assert list(look_up(tmp_path / "map", bytes(32), [pseudonym])) == []
    assert stat.S_IMODE((tmp_path / "map").stat().st_mode) == 0o600
    with sqlite3.connect(tmp_path / "map") as connection:
        assert connection.execute("SELECT count(*) FROM names").fetchone()[0] == len(plan.names)


def test_other_key_gives_other_names_and_so_other_units(phantom_pacs, tmp_path):
    plans = [plan_sources([str(phantom_pacs[0])], IngestSettings(key_file=str(tmp_path / key))) for key in "ab"]

    assert not {unit.unit_id for unit in plans[0].units} & {unit.unit_id for unit in plans[1].units}


def test_dry_run_makes_no_key(phantom_pacs, tmp_path):
    plan = plan_sources([str(phantom_pacs[0])], IngestSettings(key_file=str(tmp_path / "key")), dry_run=True)

    assert plan.files_found > 0
    assert list(tmp_path.iterdir()) == []


def test_images_without_their_reports_do_not_take_marks_away(phantom_pacs, tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    folder = tmp_path / "export"
    plain = next(path for path in sorted(phantom_pacs[0].iterdir()) if path.is_dir() and path.name != "archive")
    import shutil

    shutil.copytree(plain, folder)
    take_in(lake, folder, tmp_path)
    before = lake.read("lesions").num_rows
    for reports in folder.rglob("REPORTS"):
        shutil.rmtree(reports)

    again = take_in(lake, folder, tmp_path)

    assert before > 0
    assert lake.read("lesions").num_rows == before
    assert again.slices_written == 0
    assert again.units_kept > 0


def test_marks_without_their_images_are_kept_as_orphans(phantom_pacs, tmp_path):
    plain = next(path for path in sorted(phantom_pacs[0].iterdir()) if path.is_dir() and path.name != "archive")
    report = next(plain.rglob("REPORTS"))

    lake, summary = mine(tmp_path, {path.name: path.read_bytes() for path in report.iterdir()})

    marks = lake.read("marks").to_pylist()
    assert marks
    assert all(Flag.ORPHAN_MARK in mark["flags"] and mark["series_id"] is None for mark in marks)
    assert lake.read("lesions").num_rows == 0
    assert adds_up(summary.tally.counts)


def test_report_twice_is_read_once_and_two_under_one_name_not_at_all(tmp_path):
    from sr_documents import LENGTH, LONG_POINTS, as_bytes, axis, group, report

    one = as_bytes(report(group(axis(LENGTH, "30", LONG_POINTS))))
    other = as_bytes(report(group(axis(LENGTH, "31", LONG_POINTS))))
    copies, _ = mine(tmp_path / "copies", {"image": ct(), "a": one, "b": one})
    lake, summary = mine(tmp_path / "differ", {"image": ct(), "a": one, "b": other})

    assert copies.read("marks").num_rows == 1
    assert summary.tally.reasons == {Reason.AMBIGUOUS_SOP: 2}
    assert lake.read("marks").num_rows == 0


def test_release_and_export_in_one_folder_are_both_taken(tmp_path, release):
    (release / "stray.dcm").write_bytes(ct())
    (release / "notes.txt").write_text("stray")
    lake = Lake.create(str(tmp_path / "lake"))

    summary = take_in(lake, release, tmp_path)

    assert set(lake.read("series")["source"].to_pylist()) == {"deeplesion", "pacs"}
    assert summary.tally.reasons[Reason.STRAY_FILE] == 1


def test_folder_without_anything_of_ours_is_an_error_not_an_ingest(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "letter.txt").write_text("Dear colleague")

    with pytest.raises(SourceError, match="neither a DeepLesion release nor any DICOM"):
        plan_sources([str(tmp_path / "x")], IngestSettings(key_file=str(tmp_path / "key")))


def test_real_exports_reconcile(shared_pacs, tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))

    summary = take_in(lake, shared_pacs, tmp_path)

    assert adds_up(summary.tally.counts)
    assert summary.tally.counts["files_found"] == sum(path.is_file() for path in shared_pacs.rglob("*"))
    assert summary.tally.reasons[Reason.MARK_INVALID] == 4


def test_real_aim_marks_show_how_wrong_stated_lengths_are(shared_pacs, tmp_path):
    lake = Lake.create(str(tmp_path / "lake"))
    take_in(lake, shared_pacs / "aim", tmp_path)
    spacing = {row["series_id"]: row["spacing_x_mm"] for row in lake.read("series").to_pylist()}
    marks = lake.read("marks").to_pylist()

    # All lengths were computed with the spacing of one image, so every ratio is that over the image's own.
    for mark in marks:
        assert mark["stated_ratio"] == pytest.approx(0.691406 / spacing[mark["series_id"]], abs=2e-5)
    wrong = [mark for mark in marks if Flag.STATED_LENGTH_DIFFERS in mark["flags"]]
    assert (len(marks), len(wrong), lake.read("lesions").num_rows) == (20, 16, 10)
    assert {round(mark["stated_long"], 3): round(mark["long_mm"], 3) for mark in marks}[30.563] == 22.447


def test_units_of_an_interrupted_run_are_done_again(phantom_pacs, tmp_path, monkeypatch):
    lake = Lake.create(str(tmp_path / "lake"))
    settings = IngestSettings(key_file=str(tmp_path / "key"), commit_seconds=1)
    plan = plan_sources([str(phantom_pacs[0])], settings)
    monkeypatch.setattr("etl.ingest_tasks._SMALLEST_TASK_BYTES", 1)
    hurried = dataclasses.replace(settings)
    object.__setattr__(hurried, "commit_seconds", 0)

    def stops(tasks):
        for number, task in enumerate(tasks):
            if number == 2:
                raise KeyboardInterrupt
            yield task.run()

    with pytest.raises(KeyboardInterrupt):
        ingest(lake, plan, hurried, choose_runner=lambda _: (stops, 8))
    left = len(units_to_do(lake, plan))
    ingest(lake, plan, settings)

    assert 0 < left < len(plan.units)
    assert units_to_do(lake, plan) == []
    assert lake.read("lesions").num_rows == len(phantom_pacs[1]["lesions"])


@pytest.mark.ray
def test_ray_gives_the_same_rows_as_this_process(mined, phantom_pacs, tmp_path, ray_cluster):
    from etl.ingest_job import run_on_ray

    here, _, _, folder = mined
    settings = IngestSettings(key_file=str(folder / "secret" / "key"))
    there = Lake.create(str(tmp_path / "lake"))

    def on_ray(_bytes):
        return run_on_ray, 2

    ingest(there, plan_sources([str(phantom_pacs[0])], settings, choose_runner=on_ray), settings, choose_runner=on_ray)

    for name in TABLES:
        columns = [c for c in TABLES[name].column_names if c not in {"ingest_id", "pixels"}]
        rows = [sorted(map(repr, lake.read(name, columns=columns).to_pylist())) for lake in (here, there)]
        assert rows[0] == rows[1], name
    logs = bytes_below(ray_session_folder())
    assert b"raylet" in logs
    assert [text for text in phantom_pacs[1]["planted"] if text.encode() in logs] == []


def ray_session_folder():
    """Where Ray keeps the logs and records of this session."""
    import ray

    return ray._private.worker._global_node.get_session_dir_path()


def test_record_names_the_profile_and_the_key_without_giving_it_away(mined):
    lake, summary, names, _ = mined

    record = json.loads(Path(lake.url, "ingests", f"{summary.ingest_id}.json").read_text())

    assert record["deidentification"]["key_id"] == names.key_id
    assert "113100" in {item["code"] for item in record["deidentification"]["profile"]}
    assert uid(1, 1) not in json.dumps(record)


@pytest.mark.slow
def test_forty_patients_in_mixed_syntaxes(tmp_path):
    from etl.phantom.pacs import PacsSettings, write_pacs

    write_pacs(tmp_path / "x", PacsSettings(patients=40, seed=11, image_size=128, max_slices_per_series=12), workers=2)
    truth = json.loads((tmp_path / "x" / "truth.json").read_text())
    lake = Lake.create(str(tmp_path / "lake"))
    summary = take_in(lake, tmp_path / "x" / "export", tmp_path)

    worst_px, worst_mm = check_lesions(lake, truth, Pseudonymiser("pacs", load_key(tmp_path / "secret" / "key")))

    assert worst_px < 0.01
    assert worst_mm < 0.1
    assert adds_up(summary.tally.counts)
    assert len(truth["lesions"]) > 100
