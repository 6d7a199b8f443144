"""Pseudonyms, days and ages, one by one."""

import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etl.deidentify import Pseudonymiser, age_years, first_days, load_key, parse_date, sex_of
from etl.planning import refuse_key_inside
from lesionary.errors import UsageError


def test_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "deep" / "key"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_key(path), range(16)))

    assert len(keys) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_key_that_others_may_read_is_refused(tmp_path):
    load_key(tmp_path / "key")
    (tmp_path / "key").chmod(0o644)

    with pytest.raises(UsageError, match="others may read the key file \\(mode 644\\); run chmod 600"):
        load_key(tmp_path / "key")


def test_file_that_is_no_key_is_refused(tmp_path):
    (tmp_path / "key").write_text("password")
    (tmp_path / "key").chmod(0o600)

    with pytest.raises(UsageError, match="the file holds no key"):
        load_key(tmp_path / "key")


def test_key_inside_the_lake_is_refused(tmp_path):
    with pytest.raises(UsageError, match="inside the lake"):
        refuse_key_inside(tmp_path / "lake" / "key", str(tmp_path / "lake"))


@given(st.text(), st.text())
def test_names_are_stable_and_differ_by_identifier_kind_key_and_namespace(one, other):
    names = Pseudonymiser("pacs", b"k" * 32)

    assert names.name("patient", one) == Pseudonymiser("pacs", b"k" * 32).name("patient", one)
    assert (names.name("patient", one) == names.name("patient", other)) == (one == other)
    assert names.name("patient", one) != names.name("study", one)
    assert names.name("patient", one) != Pseudonymiser("pacs", b"x" * 32).name("patient", one)
    assert names.name("patient", one).startswith("pacs-")


def test_key_does_not_show_in_a_traceback():
    assert "k" * 8 not in repr(Pseudonymiser("pacs", b"k" * 32))


@pytest.mark.parametrize(
    ("age", "birth", "study", "years"),
    [
        ("061Y", None, None, 61.0),
        ("089Y", None, None, 89.0),
        ("090Y", None, None, 90.0),
        ("104Y", None, None, 90.0),
        ("018M", None, None, 1.0),
        ("006W", None, None, 0.0),
        (None, "19500601", "20200531", 69.0),
        (None, "19200101", "20200531", 90.0),
        (None, "20200101", "19500101", None),
        ("999Y", None, None, None),
        ("old", "1950", "2020", None),
        (None, None, None, None),
    ],
)
def test_ages_are_whole_years_and_capped_above_89(age, birth, study, years):
    assert age_years(age, birth, study) == years


def test_dates_and_sexes_that_do_not_parse_are_null():
    assert parse_date("20200230") is parse_date("Jane") is parse_date("") is parse_date(None) is None
    assert parse_date("2020.02.29") == date(2020, 2, 29)
    assert (sex_of("F"), sex_of("O"), sex_of(None)) == ("F", None, None)


def test_first_day_stays_the_first_that_was_seen(tmp_path):
    first = first_days(tmp_path / "key", {"p": date(2020, 1, 5), "q": date(2021, 1, 1)})
    later = first_days(tmp_path / "key", {"p": date(2019, 1, 5), "r": date(2022, 1, 1)})

    assert first == {"p": date(2020, 1, 5), "q": date(2021, 1, 1)}
    assert later == {"p": date(2020, 1, 5), "r": date(2022, 1, 1)}
