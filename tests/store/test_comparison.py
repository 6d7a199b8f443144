"""The papers' table: which sets make a row, means over seeds, and what is said of the ordering."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from lesionary.errors import UsageError
from store.comparison import (
    COLUMNS,
    FULL,
    LOCATION,
    PAPER_ROWS,
    ComparisonTable,
    ScoredRow,
    SetScores,
    WantedRow,
    row_of,
    scored_row,
    sets_of_row,
    verdicts_on,
)
from store.comparison_markdown import comparison_markdown
from store.evaluate import RetrievalSettings, evaluate_retrieval
from store.retrieval_scores import Labelled


def named(*set_ids):
    return [SimpleNamespace(feature_set_id=one, name=one.split("@")[0]) for one in set_ids]


def test_a_row_takes_its_seeds_and_the_newest_version_of_each():
    there = named("full@1", "full-s0@1", "full-s0@2", "full-s1@1", "full-s1x@1", "fuller@1", "type-s0@1")
    found = [one.feature_set_id for one in sets_of_row(WantedRow("all", ("full",)), there)]
    assert found == ["full@1", "full-s0@2", "full-s1@1"]


def test_a_version_can_be_named():
    there = named("full-s0@1", "full-s0@2")
    assert [one.feature_set_id for one in sets_of_row(WantedRow("old", ("full-s0@1",)), there)] == ["full-s0@1"]


def test_rows_are_written_with_a_label_or_without():
    assert row_of("full") == WantedRow("full", ("full",))
    assert row_of("all cues=full-s0, full-s1") == WantedRow("all cues", ("full-s0", "full-s1"))
    for wrong in ("", "=full", "all="):
        with pytest.raises(UsageError, match="LABEL=SET"):
            row_of(wrong)


def scores(seed):
    rng = np.random.default_rng(seed)
    types = np.arange(60) % 3
    vectors = (np.eye(3)[types] + rng.normal(0, 0.4, (60, 3))).astype(np.float32)
    labelled = Labelled(vectors, np.arange(60) // 3, types, rng.random((60, 3)), rng.uniform(5, 40, (60, 2)))
    return SetScores(f"set-s{seed}", evaluate_retrieval("set", labelled, RetrievalSettings(repeats=1)), None)


def test_columns_are_means_and_deviations_over_the_sets_of_a_row():
    sets = [scores(seed) for seed in range(3)]
    row = scored_row(WantedRow("three", ("set",)), sets)
    for name, value_of in COLUMNS.items():
        values = [value_of(one) for one in sets]
        if name == "matching_auc":
            assert row.scores[name] is None
            continue
        mean = sum(values) / 3
        assert row.scores[name].mean == pytest.approx(mean)
        assert row.scores[name].sd == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in values) / 2))
    assert scored_row(WantedRow("one", ("set",)), sets[:1]).scores["type_allowed"].sd is None


def line(label, **columns):
    held = dict.fromkeys(COLUMNS)
    held |= {
        name: SimpleNamespace(
            mean=float(np.mean(values)), sd=float(np.std(values, ddof=1)) if len(values) > 1 else None
        )
        for name, values in columns.items()
    }
    return ScoredRow(label, ("x@1",), held, None)


def test_the_ordering_is_judged_with_its_gap_in_deviations():
    full = line(FULL, type_allowed=[20, 22], type_excluded=[33, 31], size_allowed=[14, 15], matching_auc=[0.97, 0.98])
    rival = line("triplet: type", type_allowed=[24, 26], type_excluded=[30, 30.5])
    location = line(LOCATION, type_allowed=[32], type_excluded=[45], size_allowed=[16], matching_auc=[0.96])
    said = {one.claim: one for one in verdicts_on([location, rival, full])}
    first = said["all cues find the type best, same patient allowed"]
    assert (first.holds, first.gap) == (True, pytest.approx(4))
    assert first.sds == pytest.approx(4 / math.sqrt(2 + 2))
    second = said["all cues find the type best, same patient excluded"]
    assert (second.holds, second.gap) == (False, pytest.approx(-1.75))
    assert said["all cues find the size better than location alone, same patient allowed"].holds
    assert said["all cues find the size better than location alone, same patient excluded"].holds is None
    assert said["all cues match better than location alone"].gap == pytest.approx(0.015)


def test_nothing_is_said_of_rows_that_are_not_there():
    assert {one.holds for one in verdicts_on([line(LOCATION, type_allowed=[32])])} == {None}
    assert {one.holds for one in verdicts_on([])} == {None}


def test_an_empty_row_stands_beside_its_command():
    empty = scored_row(PAPER_ROWS[2], [])
    text = comparison_markdown(ComparisonTable((empty,), verdicts_on([empty]), 10, 2, 5, 100.0))
    assert "| triplet: type | – | – | – | – | – | – | – | – |" in text
    assert "`lesionary train triplet --name type-s0 --seed 0 --set cues=type" in text
