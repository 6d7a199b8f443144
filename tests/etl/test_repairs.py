"""A damaged lake is repaired: what is lost goes, the commands that made it put it back, nothing else is touched."""

import random
from pathlib import Path

import pyarrow as pa
import pytest
from conftest import annotation_row, write_release
from faults.damage import WAYS, live_shards, log_entries
from faults.digests import content_digest

from etl.ingest import ingest
from etl.planning import plan_sources
from lesionary.errors import LakeError
from lesionary.lake import Lake
from lesionary.repairs import repair
from lesionary.results import write_results
from lesionary.schema import MATCH_RUNS, MATCHES, TABLES
from lesionary.settings import IngestSettings
from lesionary.slices import SliceReader
from lesionary.upkeep import verify

SIDE, SEED = 64, 20_261_127
SERIES = [f"{patient:06d}_01_01" for patient in range(1, 5)]


def take_in(lake, source):
    return ingest(lake, plan_sources([str(source)], IngestSettings()), IngestSettings())


@pytest.fixture
def source(tmp_path):
    rows = [annotation_row(File_name=f"{name}_003.png", Image_size=f"{SIDE}, {SIDE}") for name in SERIES]
    release = write_release(tmp_path / "release", {name: range(1, 4) for name in SERIES}, rows, SIDE)
    (release / "Images_png" / SERIES[0] / "002.png").write_bytes(b"broken")
    return release


@pytest.fixture
def lake(tmp_path, source):
    """Two ingests: the second one brought one more series, so that every table has two shards."""
    lake = Lake.create(str(tmp_path / "lake"))
    last = source / "Images_png" / SERIES[-1]
    last.rename(tmp_path / "later")
    take_in(lake, source)
    (tmp_path / "later").rename(last)
    take_in(lake, source)
    return lake


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", ["slices", "series", "lesions", "quarantine", "units"])
def test_a_damaged_shard_is_named_taken_out_and_brought_back_by_the_same_ingest(lake, source, table, way):
    whole = content_digest(lake)
    file = live_shards(lake.url)[table][0]
    what = WAYS[way](file, random.Random(SEED))

    assert any(file.name in problem for problem in verify(lake).problems), what
    report = repair(lake)
    brought = take_in(lake, source)

    assert [file.name in problem for problem in report.shards] == [True], what
    assert 0 < brought.units_written < brought.units_found or table in {"units", "quarantine"}, what
    assert verify(lake, deep=True).problems == (), what
    assert content_digest(lake) == whole, f"{what}, seed {SEED}"
    assert repair(lake).nothing_done


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("table", "entry"), [("lesions", -1), ("series", 1), ("units", 1), ("slices", 0)])
def test_a_damaged_log_goes_back_to_what_can_be_read_and_the_same_ingest_brings_the_rest(
    lake, source, table, entry, way
):
    whole = content_digest(lake)
    file = log_entries(lake.url)[table][entry]
    what = WAYS[way](file, random.Random(SEED + 1))

    report = repair(lake)
    take_in(lake, source)

    assert verify(lake, deep=True).problems == (), what
    assert content_digest(lake) == whole, f"{what}, {file.name}, seed {SEED + 1}"
    if report.logs:
        assert {name.split("/")[0] for name in report.logs} == {table}
        assert file.with_name(f"{file.name}.damaged").exists() or way == "delete"


def test_a_damaged_log_is_one_sentence_that_names_the_way_out(lake):
    log_entries(lake.url)["lesions"][-1].write_bytes(b"")
    log_entries(lake.url)["lesions"][0].write_bytes(b"{")

    with pytest.raises(LakeError, match="log of table lesions cannot be read.*run `lesionary lake repair`"):
        lake.snapshot()


def test_a_log_that_opens_and_cannot_be_committed_to_is_repaired(lake, source):
    whole = content_digest(lake)
    entry = log_entries(lake.url)["units"][-1]
    torn = entry.read_text().replace(
        '{"txn":{"appId":"lesionary-writers","version":', '{"txn":{"appId":"lesionary-writers","vers'
    )
    entry.write_text(torn)

    report = repair(lake)
    take_in(lake, source)

    assert report.logs
    assert content_digest(lake) == whole


def test_a_whole_lake_is_left_alone(lake):
    before = lake.snapshot()

    assert repair(lake).nothing_done
    assert lake.snapshot() == before


def test_reading_a_damaged_shard_names_it(lake):
    file = live_shards(lake.url)["lesions"][0]
    WAYS["zero_page"](file, random.Random(SEED))
    with pytest.raises(LakeError, match=f"table lesions is missing or damaged \\({file.name}\\)"):
        lake.read("lesions")


def test_a_flipped_bit_of_any_slice_is_never_read_as_an_image(lake):
    with SliceReader(lake) as reader:
        whole = {name: reader.read(f"dl-{name}", 3) for name in SERIES}
    rng = random.Random(SEED)
    for _ in range(20):
        file = rng.choice(live_shards(lake.url)["slices"])
        content = file.read_bytes()
        what = WAYS["flip_bit"](file, rng)
        refused = 0
        with SliceReader(lake) as reader:
            for name, image in whole.items():
                try:
                    assert (reader.read(f"dl-{name}", 3) == image).all(), what
                except LakeError:
                    refused += 1
        file.write_bytes(content)
        assert refused <= len(SERIES)


def matches_of(run):
    row = dict.fromkeys(MATCHES.column_names, "x") | {"run": run, "confidence": 1.0}
    described = dict.fromkeys(MATCH_RUNS.column_names, "x") | dict.fromkeys(
        ("t1", "t2", "lesions_version", "patients", "lesions", "groups"), 1
    )
    described |= {"run": run, "created_at": 0}
    return {
        "matches": [pa.Table.from_pylist([row], schema=MATCHES.schema)],
        "match_runs": [pa.Table.from_pylist([described], schema=MATCH_RUNS.schema)],
    }


def test_results_that_lost_rows_go_with_what_describes_them_and_others_stay(lake):
    for run in ("mine", "yours"):
        write_results(lake, run, matches_of(run))
    lost = next(shard for shard in lake.shards("matches")[1] if shard.low_unit == "mine")
    Path(lake.table_folder("matches").join(lost.path)).unlink()

    report = repair(lake)

    assert report.results == {"matches": ("mine",), "match_runs": ("mine",)}
    assert report.units == ()
    assert [lake.read(name)["run"].to_pylist() for name in ("matches", "match_runs")] == [["yours"], ["yours"]]


@pytest.mark.parametrize("table", ["quarantine", "lesions", "series", "slices"])
def test_a_flipped_bit_of_a_shard_is_refused_or_makes_no_difference(lake, table):
    columns = [name for name in TABLES[table].column_names if name != "pixels"]
    file = live_shards(lake.url)[table][0]
    content, whole = file.read_bytes(), lake.read(table, columns=columns)
    rng, refused = random.Random(SEED), 0
    for _ in range(120):
        what = WAYS["flip_bit"](file, rng)
        try:
            assert lake.read(table, columns=columns) == whole, f"{what}, seed {SEED}"
        except LakeError:
            refused += 1
        file.write_bytes(content)
    assert refused > 0
