"""Tables over feature sets: rows by name and seed, mean ± sd against an oracle, orderings by hand, what is missing."""

import json
import statistics
from dataclasses import asdict, replace

import numpy as np
import pytest
from small_stores import make_store

from lesionary.anatomy import LESION_TYPES
from lesionary.errors import StoreError, UsageError, UserError
from store.database import open_reader
from store.evaluate import RetrievalSettings, evaluate_retrieval
from store.evaluation_inputs import evaluate_marks, labelled_lesions
from store.evaluation_table import TableSettings, evaluate_table, over_sets
from store.features import find_set, list_sets
from store.matching import Sightings, Thresholds
from store.table_claims import COLUMNS, claims_of, compare, ordering_holds
from store.table_markdown import best_row, table_markdown, verdict
from store.table_matching import marks_with_truth, t1_grid
from store.table_rows import FULL, LOCATION, MULTI_SCALE, PAPER_ROWS, expected_rows, named_rows, with_expected
from store.type_scores import Spread, spread

PATIENTS, PER_PATIENT = 12, 6
FEW = TableSettings(RetrievalSettings(repeats=1))


def lesions():
    generator = np.random.default_rng(0)
    rows = []
    for patient in range(PATIENTS):
        for at in range(PER_PATIENT):
            kind = int(generator.integers(0, 3))
            lesion, study = f"t-{patient:02d}{at}", at // 3 + 1
            x, y, z = (kind / 3 + generator.random(3) * 0.2).round(6).tolist()
            rows.append(
                {
                    "lesion_id": lesion, "patient_id": f"t-p{patient:02d}", "study_id": f"t-p{patient:02d}_{study}",
                    "series_id": f"t-p{patient:02d}_{study}", "study_index": study, "lesion_type": LESION_TYPES[kind],
                    "long_mm": float(generator.integers(10, 60)), "short_mm": 8.0,
                    "split": "test" if patient % 2 else "train",
                    "release_x": x, "release_y": y, "release_z": z,
                }
            )  # fmt: skip
    return rows


def vectors(rows, spread_of_noise, seed, lacking=()):
    """Vectors that tell types apart, less so the more noise there is."""
    generator = np.random.default_rng([seed, 7])
    found = {}
    for row in rows:
        one = np.zeros(4)
        one[LESION_TYPES.index(row["lesion_type"])] = 1.0
        found[row["lesion_id"]] = one + spread_of_noise * generator.standard_normal(4)
    return {name: vector for name, vector in found.items() if name not in lacking}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    rows = lesions()
    sets = {f"full-s{seed}": vectors(rows, 0.05 + 0.2 * seed, seed) for seed in range(3)}
    sets["noise"] = vectors(rows, 5.0, 9, lacking={"t-000", "t-001"})
    sets["type-s1"] = vectors(rows, 0.4, 5)
    sets["equal"] = {row["lesion_id"]: np.ones(4) for row in rows}
    path = tmp_path_factory.mktemp("table") / "features.duckdb"
    make_store(
        path, [*rows, {"lesion_id": "t-bare", "patient_id": "t-p99", "series_id": "bare", "release_z": None}], sets
    )
    truth = path.with_name("truth.csv")
    groups = "".join(f"{row['lesion_id']},{int(row['lesion_id'][-1]) % 3}\n" for row in rows)
    truth.write_text("lesion_id,group\n" + groups)
    return path


@pytest.fixture
def store(path):
    with open_reader(path) as connection:
        yield path, connection


def evaluated(store, *texts, settings=FEW, expect=(), seeds=3):
    path, connection = store
    known = list_sets(connection)
    rows = with_expected(named_rows(texts, known), expected_rows(expect), known, seeds)
    return evaluate_table(connection, path, rows, settings)


def row_of(report, name):
    (found,) = [row for row in report.rows if row.name == name]
    return found


def test_sets_of_seeds_are_one_row_and_others_rows_of_their_own(store):
    known = list_sets(store[1])

    by_name = {
        text: [(row.name, [one.feature_set_id for one in row.sets]) for row in named_rows([text], known)]
        for text in (
            "full-s0", "full-s1@1", "full", "location,size", "mine=noise,equal", "a= full ",
            "full-s2,noise,full-s0",
        )
    }  # fmt: skip

    every = [f"full-s{seed}@1" for seed in range(3)]
    assert by_name == {
        "full-s0": [("full", every[:1])],
        "full-s1@1": [("full", every[1:2])],
        "full": [("full", every)],
        "location,size": [("location", ["location@1"]), ("size", ["size@1"])],
        "mine=noise,equal": [("mine", ["noise@1", "equal@1"])],
        "a= full ": [("a", every)],
        "full-s2,noise,full-s0": [("full", [every[2], every[0]]), ("noise", ["noise@1"])],
    }
    assert [row.name for row in named_rows(["x=noise", "location", "x=noise,equal"], known)] == ["x", "location"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nothing", "the store has no feature set 'nothing'; it has equal, full-s0, full-s1"),
        ("location,", "the store has no feature set ''"),
        ("mine=location,nothing", "'nothing'"),
        ("=location", "a row's name is 1 to 63 printable characters"),
        ("a\nb=location", "a row's name is"),
        ("full-s7", "'full-s7'"),
        ("location@7", "'location@7'"),
    ],
)
def test_names_that_nobody_knows_are_refused_in_one_line(store, text, sentence):
    with pytest.raises(UsageError) as caught:
        named_rows([text], list_sets(store[1]))

    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_row_is_the_mean_and_standard_deviation_of_its_sets(store):
    path, connection = store

    report = evaluated(store, "full", "location")

    values = {column.key: [] for column in COLUMNS}
    for seed in range(3):
        found = find_set(connection, f"full-s{seed}")
        labelled = labelled_lesions(connection, path, found, "location_z IS NOT NULL", None)
        alone = evaluate_retrieval("x", labelled, RetrievalSettings(repeats=1))
        for mode in ("allowed", "excluded"):
            for name in ("type", "location", "size"):
                values[f"{name}_error_{mode}"].append(getattr(getattr(alone, mode), f"{name}_percent").mean)
        values["purity_percent"].append(alone.clusters.purity_percent.mean)
        values["nmi_percent"].append(alone.clusters.nmi_percent.mean)
        values["accuracy_percent"].append(alone.classifier.accuracy_percent.mean)
    figures = row_of(report, "full").figures
    for key, per_seed in values.items():
        if not per_seed:
            assert figures[key] is None
            continue
        assert figures[key].mean == pytest.approx(statistics.mean(per_seed))
        assert figures[key].sd == pytest.approx(statistics.stdev(per_seed))
        assert figures[key].values == pytest.approx(per_seed)
    assert figures["type_error_allowed"].sd > 0
    # One set has no standard deviation.
    assert row_of(report, "location").figures["type_error_allowed"].sd is None


def test_a_row_takes_the_set_of_its_own_name_and_those_of_its_seeds_but_built_in_sets_stand_alone(tmp_path):
    rows = lesions()[:4]
    sets = {
        name: vectors(rows, 1.0, 0) for name in ("mine", "mine-s0", "mine-s2", "mine-s10", "location-s0", "mine-sx")
    }
    path = make_store(tmp_path / "features.duckdb", rows, sets)
    with open_reader(path) as connection:
        known = list_sets(connection)

    def held(text):
        return [(row.name, [one.name for one in row.sets]) for row in named_rows([text], known)]

    assert held("mine") == [("mine", ["mine", "mine-s0", "mine-s2", "mine-s10"])]
    assert held("mine@1") == [("mine@1", ["mine"])]
    assert held("location") == [("location", ["location"])]
    (expected,) = with_expected([], expected_rows(["location"]), known, 3)
    assert [one.name for one in expected.sets] == ["location"]


def test_figures_that_no_set_has_are_none_and_others_are_means_of_those_that_have_one():
    assert over_sets([]) is over_sets([None, None]) is None
    assert over_sets([1.0, None, 4.0]) == spread([1.0, 4.0])
    assert over_sets([None, 2.0]) == Spread(2.0, None, (2.0,))


def test_every_set_is_scored_on_the_lesions_that_all_of_them_have(store):
    alone, together = evaluated(store, "location"), evaluated(store, "location", "noise")

    assert alone.lesions == PATIENTS * PER_PATIENT
    assert together.lesions == PATIENTS * PER_PATIENT - 2
    assert together.lesions_asked == PATIENTS * PER_PATIENT + 1
    assert {one.retrieval.lesions for one in together.sets} == {together.lesions}
    assert {one.feature_set: one.lesions_with_vector for one in together.sets} == {"location@1": 72, "noise@1": 70}
    assert "3 more lack a vector in one of the sets" in table_markdown(together)


def test_matching_is_scored_on_the_same_lesions_and_gives_curves(store):
    path, _ = store
    settings = replace(FEW, truth=path.with_name("truth.csv"))

    report = evaluated(store, "location", "noise", "full", settings=settings)

    curves = {one.feature_set: one.matching for one in report.sets}
    assert report.truth.lesions == report.lesions == 70
    assert (curves["location@1"].t1, curves["location@1"].t1_from) == (0.03, "recorded")
    assert (curves["noise@1"].t1, curves["noise@1"].t1_from) == (0.0, "none")
    aucs = [curves[f"full-s{seed}@1"].auc for seed in range(3)]
    assert row_of(report, "full").figures["matching_auc"] == spread(aucs)
    recalls = [recall for _, recall, _ in curves["location@1"].points]
    assert max(recalls) == pytest.approx(curves["location@1"].last_recall)

    given = evaluated(store, "location", settings=replace(settings, t1=0.001))
    assert (given.sets[0].matching.t1, given.sets[0].matching.t1_from) == (0.001, "given")


def test_t1_is_chosen_alike_for_every_set_on_patients_that_are_not_scored(store):
    path, connection = store
    truth = path.with_name("truth.csv")
    chosen = replace(FEW, truth=truth, where="split = 'test'", t1_where="split = 'train'")

    report = evaluated(store, "location", "noise", settings=chosen)

    for one in report.sets:
        found = find_set(connection, one.feature_set)
        ids = frozenset(row["lesion_id"] for row in lesions()) - {"t-000", "t-001"}
        others = marks_with_truth(connection, path, found, ids, "split = 'train'", None, truth, None)
        areas = {
            t1: evaluate_marks("x", others.sightings, others.truth, Thresholds(t1, 0.0)).sweep.auc or 0.0
            for t1 in t1_grid(others.sightings)
        }
        assert one.matching.t1_from == "chosen"
        assert one.matching.t1 == min(t1 for t1, area in areas.items() if area == max(areas.values()))
        # Chosen on some patients, used on the others.
        alone = evaluated(store, "location", "noise", settings=replace(chosen, t1=one.matching.t1, t1_where=None))
        assert (
            one.matching.points == next(two for two in alone.sets if two.feature_set == one.feature_set).matching.points
        )
    assert "the largest area on other patients, `split = 'train'`" in table_markdown(report)
    unlike = table_markdown(evaluated(store, "location", "noise", settings=replace(chosen, t1_where=None)))
    assert "T1 is not chosen alike" in unlike


def test_choosing_t1_on_patients_that_are_scored_is_refused(store):
    truth = store[0].with_name("truth.csv")

    for changes, sentence in (
        ({"t1_where": "split = 'test'"}, "6 are both"),
        ({"t1_where": "patient_id <= 't-p01'"}, "1 are both"),
        ({"t1_where": "split = 'train'", "t1": 0.1}, "T1 is given or chosen"),
        ({"t1_where": "long_mm > 1e6"}, "--t1-where: no lesion is left"),
    ):
        with pytest.raises(UserError, match=sentence):
            evaluated(store, "location", settings=replace(FEW, truth=truth, where="split = 'test'", **changes))


def test_t1_is_tried_at_nothing_and_at_quantiles_of_the_distances_within_a_study():
    patients, studies = np.array([0, 0, 0, 0, 1]), np.array([1, 1, 2, 2, 1])
    values = np.array([[0.0], [1.0], [0.0], [3.0], [50.0]], np.float32)

    grid = t1_grid(Sightings(patients, studies, values))

    assert grid[0] == 0.0
    # 1 and 3 are the only distances within a study.
    shares = [0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.09, 0.1, 0.12, 0.15, 0.2, 0.3]
    assert grid[1:] == pytest.approx(np.quantile([1.0, 3.0], shares))
    assert t1_grid(Sightings(patients[3:], studies[3:], values[3:])) == [0.0]


def test_true_pairs_are_counted_and_those_of_one_study_among_them(store):
    path, _ = store

    report = evaluated(store, "location", settings=replace(FEW, truth=path.with_name("truth.csv")))

    # Of each patient's six lesions three pairs are one, each across both studies.
    assert (report.true_pairs, report.true_pairs_of_a_study) == (3 * PATIENTS, 0)


def test_matching_without_a_condition_equals_what_evaluate_matching_says(store):
    from store.evaluation_inputs import evaluate_matching_in_store
    from store.match_runs import MatchSettings

    path, connection = store
    truth = path.with_name("truth.csv")

    report = evaluated(store, "location", settings=replace(FEW, truth=truth))

    found = find_set(connection, "location")
    alone = evaluate_matching_in_store(connection, path, found, truth, MatchSettings("location"))
    assert report.sets[0].matching.auc == alone.sweep.auc
    assert report.sets[0].matching.best_f1 == alone.sweep.best.scores.f1


def test_rows_that_are_not_there_stand_empty_beside_their_command(store):
    report = evaluated(store, expect=["paper"], seeds=2)

    rows = {row.name: row for row in report.rows}
    assert list(rows) == [row.name for row in PAPER_ROWS]
    assert rows["location"].feature_sets == ("location@1",)
    # More seeds than were asked for are all taken.
    assert rows["full"].feature_sets == tuple(f"full-s{seed}@1" for seed in range(3))
    assert rows["full"].command is None
    partly = rows["type"]
    assert partly.feature_sets == ("type-s1@1",)
    assert partly.missing == ("type-s0",)
    assert partly.command == (
        "lesionary train triplet --name type-s0 --seed 0 --set cues=type && lesionary embed --model type-s0"
    )
    empty = rows["one-scale"]
    assert (empty.feature_sets, empty.figures) == ((), {})
    assert empty.command.startswith("for seed in 0 1; do lesionary train triplet --name one-scale-s$seed")
    text = table_markdown(report)
    assert "| one-scale: triplet: all, one scale | 0 of 2 | – | – | – |" in text
    assert f"`{empty.command}`" in text
    assert "for seed in 0 1 2" not in text


def test_rows_that_are_named_stand_at_their_expected_place_and_others_behind(store):
    known = list_sets(store[1])

    rows = with_expected(
        named_rows(["noise", "type=equal"], known), expected_rows(["other,location", "type"]), known, 3
    )

    assert [row.name for row in rows] == ["other", "location", "type", "noise"]
    assert rows[0].command == "lesionary features import other FILE.parquet --model NAME"
    assert [one.feature_set_id for one in rows[2].sets] == ["equal@1"]
    assert rows[2].missing == ()
    assert rows[2].title == "triplet: type"


def test_a_built_in_set_without_a_lesion_is_not_there(tmp_path):
    path = tmp_path / "features.duckdb"
    placeless = [
        {"lesion_id": f"t-{at}", "patient_id": f"p{at}", "series_id": f"s{at}", "release_z": None} for at in range(4)
    ]
    make_store(path, placeless)
    with open_reader(path) as connection:
        report = evaluated((path, connection), expect=["location,multi-scale"])

    assert [row.feature_sets for row in report.rows] == [(), ()]
    assert report.lesions == 0
    assert report.ordering_holds is None
    assert "cannot be told yet" in table_markdown(report)
    json.dumps(asdict(report), allow_nan=False)


def figures(**values):
    """A row's figures by hand: mean, or (mean, sd)."""
    rows = {key: value if isinstance(value, tuple) else (value, None) for key, value in values.items()}
    return {key: Spread(mean, sd, (mean,)) for key, (mean, sd) in rows.items()}


def paper():
    """The published rows of the paper's Table 1, with a matching area that the paper has only as a figure."""

    def row(kind, place, size, purity, nmi, accuracy, auc):
        errors = {f"{name}_error_{mode}": value for name, value in (("type", kind), ("location", place), ("size", size))
                  for mode in ("allowed", "excluded")}  # fmt: skip
        return figures(**errors, purity_percent=purity, nmi_percent=nmi, accuracy_percent=accuracy, matching_auc=auc)

    return {
        MULTI_SCALE: row(15.2, 9.6, 6.9, 58.7, 35.8, 86.2, 0.7),
        LOCATION: row(22.4, 2.5, 8.8, 51.6, 32.6, 59.7, 0.8),
        FULL: row(8.5, 7.2, 5.1, 86.0, 72.4, 90.5, 0.9),
    }


def test_the_papers_own_rows_hold_every_claim():
    claims = claims_of(paper())

    assert [claim.holds for claim in claims] == [True] * 6
    assert ordering_holds(claims) is True
    first = claims[0].comparisons[0]
    assert (first.other, first.gap, first.sd, first.gap_in_sd) == (MULTI_SCALE, pytest.approx(6.7), None, None)


@pytest.mark.parametrize(
    ("row", "changes", "fails"),
    [
        (MULTI_SCALE, {"type_error_allowed": 8.0}, 0),
        (LOCATION, {"type_error_excluded": 8.5}, 0),
        (FULL, {"size_error_excluded": 8.9}, 1),
        (FULL, {"matching_auc": 0.8}, 2),
    ],
)
def test_the_ordering_fails_where_a_row_says_otherwise_and_equal_is_not_better(row, changes, fails):
    rows = paper()
    rows[row] = rows[row] | figures(**changes)

    claims = claims_of(rows)

    assert [place for place, claim in enumerate(claims[:3]) if claim.holds is False] == [fails]
    assert ordering_holds(claims) is False


def test_the_ordering_is_not_known_while_a_row_or_a_figure_is_missing():
    rows = paper()

    without_location = claims_of({name: row for name, row in rows.items() if name != LOCATION})
    alone = claims_of({FULL: rows[FULL]})
    unmatched = claims_of(
        {name: {key: value for key, value in row.items() if key != "matching_auc"} for name, row in rows.items()}
    )

    assert [claim.holds for claim in without_location[:3]] == [True, None, None]
    assert [claim.holds for claim in alone] == [None] * 6
    assert ordering_holds(without_location) is ordering_holds(alone) is ordering_holds(unmatched) is None
    assert ordering_holds(claims_of({})) is None


def test_gaps_are_told_in_units_of_the_standard_deviation_of_the_difference():
    rows = {
        "a": figures(type_error_allowed=(8.0, 0.4), matching_auc=(0.9, 0.0)),
        "b": figures(type_error_allowed=(10.0, 0.3), matching_auc=(0.7, 0.0)),
        "c": figures(type_error_allowed=7.0),
    }

    better = compare("type_error_allowed", rows, "a", "b")
    worse = compare("type_error_allowed", rows, "a", "c")
    steady = compare("matching_auc", rows, "a", "b")

    assert (better.gap, better.sd, better.gap_in_sd, better.holds) == (2.0, 0.5, 4.0, True)
    assert (worse.gap, worse.sd, worse.gap_in_sd, worse.holds) == (-1.0, 0.4, -2.5, False)
    assert (steady.gap, steady.sd, steady.gap_in_sd) == (pytest.approx(0.2), 0.0, None)
    assert compare("matching_auc", rows, "a", "c") is compare("matching_auc", rows, "a", "d") is None


def test_markdown_says_what_holds_and_makes_the_best_mean_bold(store):
    path, _ = store
    settings = replace(FEW, truth=path.with_name("truth.csv"), where="split = 'test'")

    report = evaluated(store, "location", "full", "noise", settings=settings)
    text = table_markdown(report)

    assert "36 lesions (36 of known type) of 6 patients with --where `split = 'test'`" in text
    means = {row.name: row.figures["type_error_allowed"].mean for row in report.rows}
    best = min(means, key=means.get)
    assert best_row(report.rows, COLUMNS[0]) == best != "full"
    full = row_of(report, "full").figures["type_error_allowed"]
    assert f"| full | 3 | {full.mean:.1f} ± {full.sd:.1f} |" in text
    assert f"| {best} | 1 | **{means[best]:.1f}** |" in text
    assert "full triplet is best on type | type error %, same patient allowed | full" in text
    assert ("holds here" in text) == (report.ordering_holds is True)
    assert "## What is not there" not in text
    assert best_row(report.rows[:1], COLUMNS[0]) is None


def test_a_lead_of_less_than_one_standard_deviation_is_called_a_tie(store):
    report = evaluated(store, "noise")
    rows = paper()
    rows[FULL] = rows[FULL] | figures(type_error_excluded=(15.0, 0.5), type_error_allowed=(8.5, 0.5))
    claims = claims_of(rows)

    said = verdict(replace(report, claims=claims, ordering_holds=ordering_holds(claims)))

    assert "holds here: the full triplet is best on type" in said
    assert said.endswith("no more than a tie: type error %, same patient excluded, full against multi-scale.")
    firm = claims_of(paper())
    assert "tie" not in verdict(replace(report, claims=firm, ordering_holds=ordering_holds(firm)))


def test_one_set_alone_is_a_table_too(store):
    report = evaluated(store, "noise")

    assert [row.name for row in report.rows] == ["noise"]
    assert "cannot be told yet: the full triplet is best on type" in table_markdown(report)
    json.dumps(asdict(report), allow_nan=False)


def test_sets_that_tell_nothing_apart_are_scored_all_the_same(store):
    report = evaluated(store, "equal", "location")

    assert row_of(report, "equal").figures["type_error_allowed"].mean > 0
    json.dumps(asdict(report), allow_nan=False)


def test_a_condition_that_leaves_too_little_is_refused(store):
    for where, kind, sentence in (
        ("lesion_id = 't-001'", StoreError, "none of the 1 lesions has a vector in feature set noise@1"),
        ("lesion_id = 't-002'", UsageError, "too few to rank: 1"),
        ("long_mm > 1e6", StoreError, "no lesion is left"),
    ):
        with pytest.raises(kind, match=sentence):
            evaluated(store, "location", "noise", settings=replace(FEW, where=where))


def test_sets_without_a_lesion_in_common_are_refused(tmp_path):
    path = tmp_path / "features.duckdb"
    rows = lesions()[:8]
    vector = {row["lesion_id"]: [1.0, 0.0] for row in rows}
    names = sorted(vector)
    halves = {"one": {name: vector[name] for name in names[:4]}, "two": {name: vector[name] for name in names[4:]}}
    make_store(path, rows, halves)

    with open_reader(path) as connection, pytest.raises(StoreError) as caught:
        evaluated((path, connection), "one", "two")

    assert "no lesion has a vector in every feature set (one@1 4, two@1 4)" in str(caught.value)
