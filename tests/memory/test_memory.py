"""Memory that does not grow with the data: commands inside limits that are small beside what they work through.

The full-size runs are `campaign.py`'s and stand in docs/memory.md; here the same code is scaled down. Beside it runs a
variant that forgets to let go, in the same limit: it must fail, or the limit would show nothing.
"""

import pytest
from memory.limited_commands import (
    UNBOUNDED_INGEST,
    UNBOUNDED_SYNC,
    ask_within,
    ingest_within,
    make_lake,
    slices_in,
)

_LIMIT_MB, _SOURCE_MB = 256, 300
_SYNC_LIMIT_MB, _LESIONS = 512, 200_000


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ingest_stays_inside_a_limit_smaller_than_its_source(tmp_path):
    run, slices = ingest_within(tmp_path, _LIMIT_MB, _SOURCE_MB << 20, "--workers", "1")

    assert run.returncode == 0, run
    assert slices_in(tmp_path) == slices
    assert run.kills == 0
    assert run.peak_bytes < run.limit_bytes


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ingest_that_kept_what_it_read_would_not(tmp_path):
    run, _ = ingest_within(tmp_path, _LIMIT_MB, _SOURCE_MB << 20, "--workers", "1", program=UNBOUNDED_INGEST)

    assert run.returncode != 0
    assert run.kills > 0 or run.kind == "rlimit"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sync_stays_inside_a_limit_and_reading_all_at_once_would_not(tmp_path):
    make_lake(tmp_path, _LESIONS)

    unbounded = ask_within(tmp_path, _SYNC_LIMIT_MB, "sync", program=UNBOUNDED_SYNC)
    run = ask_within(tmp_path, _SYNC_LIMIT_MB, "sync")

    assert unbounded.returncode != 0
    assert run.returncode == 0, run
    assert run.peak_bytes < run.limit_bytes
    asked = ask_within(tmp_path, _SYNC_LIMIT_MB, "sql", "--csv", "SELECT count(*) AS lesions FROM lesion_features")
    assert asked.output.split() == ["lesions", str(_LESIONS)]
