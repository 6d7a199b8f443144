"""Reports hold both patient modes, plain numbers only, and read well as markdown."""

import json

import numpy as np
import pytest

from lesionary.errors import UsageError
from store.evaluate import RetrievalSettings, as_record, evaluate_matching, evaluate_retrieval
from store.retrieval_scores import Labelled
from store.score_tables import matching_markdown, retrieval_markdown
from store.truth_pairs import TruthGroups, TruthSummary


@pytest.fixture(scope="module")
def labelled():
    generator = np.random.default_rng(0)
    types = generator.integers(-1, 3, 60)
    vectors = np.eye(4)[types] + 0.2 * generator.standard_normal((60, 4))
    return Labelled(
        vectors.astype(np.float32),
        np.repeat(np.arange(12), 5),
        types,
        generator.random((60, 3)),
        generator.random((60, 2)) * 30,
    )


def matching_report(**changes):
    patients, values = np.zeros(6, np.int64), np.array([0, 0.1, 1, 1.2, 3, 3], np.float32)[:, None]
    facts = {"lesions": 4, "groups": 2, "mentions": 6, "unresolved": 0, "unresolved_examples": (), "across_patients": 0}
    truth = TruthGroups(np.array([0, 0, 1, 1, -1, -1]), TruthSummary(kind="pairs", **(facts | changes)))

    def match(t1, t2):
        return np.concatenate([[0], np.cumsum(np.diff(values[:, 0]) > t2)])

    return evaluate_matching("location", patients, values, truth, match, t1=0.05, t2=0.15)


def table_rows(markdown):
    """First cell of every row of every table, with the other cells."""
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines}


def test_a_report_has_both_modes_and_repeats_what_depends_on_chance(labelled):
    report = evaluate_retrieval("location", labelled, RetrievalSettings(repeats=3, seed=7))

    assert (report.allowed.same_patient, report.excluded.same_patient) == (True, False)
    assert report.clusters.seeds == report.classifier.seeds == (7, 8, 9)
    assert len(report.clusters.purity_percent.values) == 3
    assert report.lesions_of_known_type == (labelled.types >= 0).sum()


def test_reports_become_json_without_nan(labelled):
    unknown = Labelled(
        labelled.vectors,
        np.zeros(60, np.int64),
        np.full(60, -1),
        np.full((60, 3), np.nan),
        np.full((60, 2), np.nan),
    )

    for report in (
        evaluate_retrieval("location", labelled, RetrievalSettings(repeats=1)),
        evaluate_retrieval("location", unknown, RetrievalSettings(repeats=1)),
        matching_report(),
    ):
        again = json.loads(json.dumps(as_record(report), allow_nan=False))
        assert again["feature_set"] == "location"

    empty = as_record(evaluate_retrieval("location", unknown))
    assert empty["excluded"]["queries_without_hit"] == 60
    assert empty["excluded"]["size_percent"]["mean"] is empty["clusters"] is empty["classifier"] is None


def test_retrieval_markdown_prints_the_figures_and_the_size_normaliser(labelled):
    report = evaluate_retrieval("location", labelled, RetrievalSettings(repeats=2, size_normaliser_mm=232))

    text = retrieval_markdown(report)

    rows = table_rows(text)
    assert "Sizes are divided by 232 mm" in text
    assert text.index("| allowed") < text.index("| excluded")
    assert rows["allowed"][0] == f"{report.allowed.precision_at[1]:.3f}"
    assert f"| allowed | {report.allowed.type_percent.mean:.2f} (" in text
    assert f"| excluded | {report.excluded.type_percent.mean:.2f} (" in text
    spread = report.classifier.accuracy_percent
    assert rows["accuracy %"][0] == f"{spread.mean:.1f} ± {spread.sd:.1f}"
    assert [int(cell) for cell in rows["bone"]] == list(report.classifier.confusion[0])


def test_markdown_of_what_cannot_be_known_has_dashes_and_says_why():
    bare = Labelled(
        np.eye(3, dtype=np.float32),
        np.arange(3),
        np.full(3, -1),
        np.full((3, 3), np.nan),
        np.full((3, 2), np.nan),
    )

    text = retrieval_markdown(evaluate_retrieval("size", bare))

    assert "| allowed | – | – | – | 3 | 0 |" in text
    assert "Too few lesions of known type" in text


def test_matching_markdown_prints_the_chosen_point_the_best_and_every_point_of_the_sweep():
    report = matching_report()

    text = matching_markdown(report)

    rows = table_rows(text)
    assert rows["chosen"] == ["0.05", "0.15", "1.000", "0.500", "0.667", "1", "0", "1"]
    assert rows["best F1 of the sweep"][2:5] == ["1.000", "1.000", "1.000"]
    assert f"{report.sweep.auc:.4f}" in text
    assert text.split("## Sweep")[1].count("\n|") == len(report.sweep.points) + 2
    assert "not here" not in text


def test_matching_markdown_names_what_the_truth_could_not_give():
    text = matching_markdown(matching_report(unresolved=2, unresolved_examples=("dl-77",), across_patients=3))

    assert "2 of 6 mentions in the truth are of lesions that are not here (dl-77 …)." in text
    assert "3 pairs across two patients were not used." in text


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (RetrievalSettings(top=0), "number of hits must be at least 1"),
        (RetrievalSettings(repeats=0), "number of repeats"),
        (RetrievalSettings(seed=-1), "seed must be 0 or more"),
        (RetrievalSettings(size_normaliser_mm=0), "size normaliser"),
        (RetrievalSettings(size_normaliser_mm=float("nan")), "size normaliser"),
        (RetrievalSettings(clusters=0), "number of clusters"),
    ],
)
def test_settings_that_make_no_sense_are_refused(labelled, settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        evaluate_retrieval("location", labelled, settings)


def test_one_lesion_is_too_few():
    lone = Labelled(np.zeros((1, 1), np.float32), np.zeros(1, np.int64), np.zeros(1, np.int64), *np.zeros((2, 1, 3)))

    with pytest.raises(UsageError, match="too few to rank: 1"):
        evaluate_retrieval("location", lone)
