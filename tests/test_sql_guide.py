"""The questions of docs/sql.md on the lake that the page itself describes, against plain Python over plain rows."""

import io
import math
import os
import statistics
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
from small_stores import make_store
from sql_guide import PAGE, QUESTIONS, answer_in, as_dictionaries, grouped, make_guide_store, write_answer

from cli.options import Format
from cli.render import write_rows
from lesionary.errors import StoreError
from store.database import open_reader, open_writer
from store.queries import ask


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_guide_store(tmp_path_factory.mktemp("guide"))


@pytest.fixture(scope="module")
def connection(store):
    with open_reader(store) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows(connection):
    """Rows of a view as dictionaries, by nothing cleverer than SELECT *."""

    def read(table):
        return as_dictionaries(ask(connection, f"SELECT * FROM {table}"))

    return read


@pytest.fixture(scope="module")
def answer(connection):
    """The rows of a question's answer, found by the beginning of its words."""
    return lambda words: answer_in(connection, words)


def sightings(rows, run="location"):
    """Every measurement of a run: its lesion's group, and its own row."""
    features = {row["lesion_id"]: row for row in rows("lesion_features")}
    return [
        features[row["lesion_id"]] | {"group_id": row["group_id"], "state": row["state"]}
        for row in rows("matches")
        if row["run"] == run and row["lesion_id"] is not None
    ]


def sizes(rows, value):
    """The mean of a value for each lesion and study: {group: {study index: (mean, a row)}}."""
    by_group = defaultdict(dict)
    for (group, study), seen in grouped(sightings(rows), "group_id", "study_index").items():
        by_group[group][study] = (statistics.fmean(row[value] for row in seen), seen[0])
    return by_group


# The page itself.


def test_page_asks_at_least_twenty_questions_each_once():
    assert len({question.words for question in QUESTIONS}) == len(QUESTIONS) >= 20
    assert all(question.words.endswith("?") for question in QUESTIONS)


def test_no_sql_of_the_page_is_left_unasked():
    assert PAGE.read_text().count("```sql") == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=[question.words for question in QUESTIONS])
def test_answer_on_the_page_is_the_answer(connection, question):
    asked = ask(connection, question.sql)
    found = list(asked.rows)
    out = io.StringIO()
    write_rows(asked.columns, found, Format.TABLE, out)
    if os.environ.get("WRITE_ANSWERS"):
        write_answer(question, out.getvalue())

    assert found
    assert question.printed.splitlines()[0].split() == list(asked.columns)
    assert question.printed == out.getvalue(), "WRITE_ANSWERS=1 puts this into the page; read what changed"


@pytest.mark.parametrize("sql", ["PIVOT lesions ON split USING count(*)", "CREATE TABLE mine AS FROM lesions"])
def test_page_is_right_that_the_store_refuses(connection, sql):
    with pytest.raises(StoreError):
        ask(connection, sql)


def test_page_is_right_about_days_and_places_of_both_sources(rows):
    by_source = grouped(rows("lesion_features"), "source")

    assert all(row["study_day"] is None for row in by_source["deeplesion",])
    assert all(row["study_day"] is not None and row["location_z"] is None for row in by_source["pacs",])


# Answers, worked out once more.


def test_medians_by_type_and_sex(rows, answer):
    found = {row["lesion_type"]: row for row in answer("How large are the lesions of each type")}
    by_hand = grouped(rows("lesion_features"), "lesion_type", "sex")

    for (kind, sex), members in by_hand.items():
        row = found[kind or "unknown"]
        assert row[f"{sex}_n"] == len(members)
        assert row[f"{sex}_median_mm"] == pytest.approx(statistics.median(m["long_mm"] for m in members), abs=0.051)
    assert sum(row["F_n"] + row["M_n"] for row in found.values()) == len(rows("lesion_features"))


def test_largest_liver_lesions_are_of_different_patients_and_none_is_larger(rows, answer):
    best = {}
    for row in rows("lesion_features"):
        if row["lesion_type"] == "liver" and row["age_years"] is not None and not row["possibly_noisy"]:
            band = 20 * int(row["age_years"] // 20)
            key = band, row["patient_id"]
            best[key] = max(best.get(key, (0, "")), (row["long_mm"], row["lesion_id"]))
    by_hand = []
    for band in sorted({band for band, _ in best}):
        of_band = sorted(((size, name) for (b, _), (size, name) in best.items() if b == band), reverse=True)
        by_hand += [(band, name, size) for size, name in of_band[:2]]

    found = answer("What are the largest liver lesions")

    assert [(row["age_from"], row["lesion_id"]) for row in found] == [entry[:2] for entry in by_hand]
    assert [row["long_mm"] for row in found] == pytest.approx([entry[2] for entry in by_hand], abs=0.051)


def test_shapes_beyond_the_fence(rows, answer):
    features = [row for row in rows("lesion_features") if row["short_over_long"] is not None]
    usual = [row["short_over_long"] for row in features if row["short_over_long"] <= 1]
    first, _, third = statistics.quantiles(usual, n=4, method="inclusive")
    by_hand = {
        row["lesion_id"]
        for row in features
        if row["short_over_long"] < first - 1.5 * (third - first) or "short_exceeds_long" in row["flags"]
    }

    assert {row["lesion_id"] for row in answer("Which lesions have an unusual shape")} == by_hand


def test_intervals_between_studies(rows, answer):
    sources = {row["patient_id"]: row["source"] for row in rows("series")}
    days, years = defaultdict(list), defaultdict(list)
    for (patient,), studies in grouped(rows("studies"), "patient_id").items():
        studies.sort(key=lambda row: row["study_index"])
        for earlier, later in pairwise(studies):
            source = sources[patient]
            years[source].append(later["age_years"] - earlier["age_years"])
            if later["study_day"] is not None:
                days[source].append(later["study_day"] - earlier["study_day"])

    for row in answer("How long is it from one study"):
        source = row["source"]
        assert (row["gaps"], row["with_days"]) == (len(years[source]), len(days[source]))
        assert row["median_days"] == (statistics.median(days[source]) if days[source] else None)
        assert row["of_0_years"] == years[source].count(0)
        assert row["backwards"] == sum(year < 0 for year in years[source])


def test_largest_lesion_known_on_a_day(rows, answer):
    by_hand = []
    for (patient,), seen in sorted(grouped(rows("lesion_features"), "patient_id").items()):
        days = {row["study_day"] for row in seen}
        if None in days or max(days) == 0:
            continue
        for day in (day for day in (0, 100, 200) if day <= max(days)):
            known = max(one for one in days if one <= day)
            by_hand.append((patient, day, known, max(row["long_mm"] for row in seen if row["study_day"] == known)))

    found = answer("How large was a patient's largest")

    assert [tuple(row.values())[:3] for row in found] == [entry[:3] for entry in by_hand]
    assert [row["largest_mm"] for row in found] == pytest.approx([entry[3] for entry in by_hand], abs=0.051)


def test_sums_of_diameters(rows, answer):
    sums, counts = defaultdict(float), Counter()
    for group, studies in sizes(rows, "long_mm").items():
        for study, (mean, _) in studies.items():
            sums[group.rpartition(".")[0], study] += mean
            counts[group.rpartition(".")[0], study] += 1

    found = answer("What is the sum of diameters")

    for row in found:
        key = row["patient_id"], row["study"]
        earlier = [sums[one] for one in sums if one[0] == key[0] and one[1] < key[1]]
        percent = 100 * (sums[key] / min(earlier) - 1) if earlier else None
        assert (row["lesions"], row["sum_mm"]) == (counts[key], pytest.approx(sums[key], abs=0.051))
        assert row["percent_over_smallest"] == (percent if percent is None else pytest.approx(percent, abs=0.51))
    assert {row["patient_id"] for row in found} == {
        patient for patient, studies in Counter(patient for patient, _ in sums).items() if studies >= 4
    }


def test_states_of_each_run(rows, answer):
    matches = rows("matches")

    for row in answer("What did a run of match find"):
        of_run = [one for one in matches if one["run"] == row["run"]]
        of_state = [one for one in of_run if one["state"] == row["state"]]
        assert row["rows"] == len(of_state)
        assert row["measurements"] == (0 if row["state"] == "vanished" else len(of_state))
        assert row["lesions"] == len({one["group_id"] for one in of_state})
        assert row["percent"] == pytest.approx(100 * len(of_state) / len(of_run), abs=0.051)


def test_lesions_seen_in_every_study(rows, answer):
    studies = {row["patient_id"]: row["studies"] for row in rows("patients")}
    seen = {(group.rpartition(".")[0], group): len(of_group) for group, of_group in sizes(rows, "long_mm").items()}
    by_hand = [(n, patient, group) for (patient, group), n in seen.items() if n == studies[patient] > 1]
    by_hand.sort(key=lambda one: (-one[0], one[1], one[2]))

    found = answer("Which lesions were seen in every study")

    assert [(row["studies"], row["patient_id"], row["group_id"]) for row in found] == by_hand[: len(found)]


def test_new_lesions_of_each_study(rows, answer):
    index = {row["study_id"]: row["study_index"] for row in rows("studies")}
    of_run = [row for row in rows("matches") if row["run"] == "location"]
    by_hand = {}
    for (patient, study), members in grouped(of_run, "patient_id", "study_id").items():
        groups = defaultdict(set)
        for row in members:
            groups[row["state"]].add(row["group_id"])
        marked = {row["group_id"] for row in members if row["lesion_id"]}
        by_hand[patient, index[study]] = (len(marked), len(groups["new"]), len(groups["vanished"]))

    found = answer("How many lesions are new")

    assert all(by_hand[row["patient_id"], row["study"]] == tuple(row.values())[2:] for row in found)
    assert found[0]["new"] == max(new for _, new, _ in by_hand.values())


def test_growth_is_the_sum_of_changes_over_the_sum_of_years(rows, answer):
    grown = defaultdict(list)
    for group, studies in sizes(rows, "long_mm").items():
        (first, first_row), (last, last_row) = studies[min(studies)], studies[max(studies)]
        years = last_row["age_years"] - first_row["age_years"]
        if years > 0:
            grown[group.rpartition(".")[0]].append((last - first, years))
    grown["all"] = [one for patient in list(grown) for one in grown[patient]]
    patient_years = {patient: max(years for _, years in changes) for patient, changes in grown.items()}
    patient_years["all"] = sum(years for patient, years in patient_years.items() if patient != "all")

    found = answer("How fast do lesions grow")

    assert [row["patient"] for row in found] == [*sorted(patient for patient in grown if patient != "all"), "all"]
    for row in found:
        millimetres, years = map(sum, zip(*grown[row["patient"]], strict=True))
        assert row["lesions"] == len(grown[row["patient"]])
        assert row["mm_per_lesion_year"] == pytest.approx(millimetres / years, abs=0.006)
        assert row["mm_per_patient_year"] == pytest.approx(millimetres / patient_years[row["patient"]], abs=0.006)


def test_doubling_times_are_those_of_the_volume(rows, answer):
    by_hand = {}
    for group, studies in sizes(rows, "ellipse_area_mm2").items():
        (first, first_row), (last, last_row) = studies[min(studies)], studies[max(studies)]
        days = 365.25 * (last_row["age_years"] - first_row["age_years"])
        times = (math.sqrt(last) / math.sqrt(first)) ** 3
        if days > 0 and not 0.75 <= times <= 1.25:
            by_hand[group] = days / math.log2(times)

    found = {row["group_id"]: row["doubling_days"] for row in answer("In what time do lesions double")}

    assert found == {group: pytest.approx(days, abs=0.51) for group, days in by_hand.items()}


def test_steps_of_a_fifth_and_5_mm(rows, answer):
    by_hand = set()
    for group, studies in sizes(rows, "long_mm").items():
        in_time = sorted(studies)
        for earlier, later in pairwise(in_time):
            before, after = studies[earlier][0], studies[later][0]
            if after >= 1.2 * before and after - before >= 5:
                by_hand.add((group, earlier, later))

    found = answer("Which lesions grew by a fifth")

    assert {(row["group_id"], row["earlier_study"], row["study"]) for row in found} == by_hand


def test_agreement_of_two_runs(rows, answer):
    groups = {run: {} for run in ("location", "by-size")}
    for row in rows("matches"):
        if row["lesion_id"]:
            groups[row["run"]][row["lesion_id"]] = row["group_id"]
    both = sorted(groups["location"].keys() & groups["by-size"].keys())
    pairs = {
        run: {(a, b) for a in both for b in both if a < b and of_run[a] == of_run[b]} for run, of_run in groups.items()
    }
    place, size = pairs["location"], pairs["by-size"]

    assert tuple(answer("Do two runs of match agree")[0].values()) == (
        len(place | size), len(place & size), len(place - size), len(size - place),
    )  # fmt: skip


def test_differences_of_lesions_measured_twice_on_a_day(rows, answer):
    apart, relative = [], []
    read = [row for row in sightings(rows) if "duplicate_row" not in row["flags"]]
    for seen in grouped(read, "group_id", "study_id").values():
        for number, one in enumerate(seen):
            for other in seen[number + 1 :]:
                if one["series_id"] != other["series_id"]:
                    apart.append(one["long_mm"] - other["long_mm"])
                    relative.append(200 * abs(apart[-1]) / (one["long_mm"] + other["long_mm"]))

    (found,) = answer("How well do two measurements")

    assert found["pairs"] == len(apart)
    assert found["median_apart_mm"] == pytest.approx(statistics.median(map(abs, apart)), abs=0.006)
    assert found["repeatability_mm"] == pytest.approx(
        1.96 * math.sqrt(statistics.fmean(x * x for x in apart)), abs=0.006
    )
    assert found["median_apart_percent"] == pytest.approx(statistics.median(relative), abs=0.051)


def test_flags_ranked(rows, answer):
    lesions = rows("lesions")
    by_hand = Counter(flag for row in lesions for flag in row["flags"])

    for row, (flag, count) in zip(
        answer("Which flags"), sorted(by_hand.items(), key=lambda one: (-one[1], one[0])), strict=False
    ):
        assert (row["flag"], row["lesions"]) == (flag, count)
        assert row["percent"] == pytest.approx(100 * count / len(lesions), abs=0.051)


def test_quarantined_inputs_are_all_told(rows, answer):
    found = Counter()
    for row in answer("Why were inputs left out"):
        found[row["kind"], row["reason"]] += row["inputs"]

    assert found == Counter((row["kind"], row["reason"]) for row in rows("quarantine"))


def test_lesions_and_images_of_each_part(rows, answer):
    found = {row["part"]: row for row in answer("How many lesions and images")}

    for (split,), members in grouped(rows("lesions"), "split").items():
        row = found.pop(split or "none")
        images = {(one["series_id"], one["slice_index"]) for one in members}
        patients = {one["patient_id"] for one in members}
        assert (row["lesions"], row["images"], row["patients"]) == (len(members), len(images), len(patients))
    assert not found


def test_nearest_lesions_of_other_patients(connection, rows, answer):
    vectors = dict(ask(connection, 'SELECT lesion_id, vector FROM features."location+size"').rows)
    features = {row["lesion_id"]: row for row in rows("lesion_features")}
    asked = min(name for name in vectors if features[name]["lesion_type"] == "liver")
    distances = sorted(
        (math.dist(vectors[asked], vector), name)
        for name, vector in vectors.items()
        if features[name]["patient_id"] != features[asked]["patient_id"]
    )

    found = answer("Which lesions of other patients")

    assert {row["asked"] for row in found} == {asked}
    assert [row["lesion_id"] for row in found] == [name for _, name in distances[:5]]
    assert [row["distance"] for row in found] == pytest.approx([one for one, _ in distances[:5]], abs=0.0006)


def test_statistics_of_feature_sets_are_those_of_their_vectors(connection, answer):
    for row in answer("How are the numbers of each feature set"):
        vectors = ask(connection, f'SELECT vector FROM features."{row["feature_set_id"]}"')
        numbers = [vector[row["number"] - 1] for (vector,) in vectors.rows]
        assert row["lesions"] == len(numbers)
        assert (row["mean"], row["sd"], row["smallest"], row["largest"]) == pytest.approx(
            (statistics.fmean(numbers), statistics.pstdev(numbers), min(numbers), max(numbers)), abs=0.0006
        )


# What the phantoms do not show.


def test_counts_that_do_not_add_up_are_seen(answer, tmp_path):
    assert all(row["whole"] for row in answer("Do the counts add up"))
    copy = make_store(tmp_path / "s.duckdb", [{}])
    with open_writer(copy) as writer:
        writer.execute("UPDATE lake_rows.series SET source = 'pacs'")
        writer.execute(
            "INSERT INTO lake_rows.units (unit_id, source, rows_found, rows_accepted, rows_flagged, rows_quarantined, "
            "files_found, files_accepted, files_flagged, files_quarantined, slices, lesions) "
            "VALUES ('u', 'pacs', 1, 1, 0, 0, 0, 0, 0, 0, 0, 2)"
        )

    with open_reader(copy) as opened:
        (row,) = answer_in(opened, "Do the counts add up")

    assert (row["lesions"], row["lesions_there"], row["whole"]) == (2, 1, False)


def test_patient_in_two_parts_is_seen(tmp_path):
    lesions = [
        {"lesion_id": "t-1", "split": "train"},
        {"lesion_id": "t-2", "split": "test"},
        {"lesion_id": "t-3", "split": "test", "patient_id": "t-p2", "series_id": "t-p2_01_01"},
    ]

    with open_reader(make_store(tmp_path / "s.duckdb", lesions)) as opened:
        found = answer_in(opened, "How many lesions and images")

    assert {row["part"]: (row["patients"], row["leaking"]) for row in found} == {"train": (1, 1), "test": (2, 1)}


@pytest.mark.parametrize(
    ("first", "last", "years"),
    [
        ({"study_day": 0}, {"study_day": 73}, 73 / 365.25),
        ({"study_day": -73}, {"study_day": 0}, 73 / 365.25),
        ({"age_years": 60.0}, {"age_years": 62.0}, 2.0),
    ],
    ids=["days", "days-before-the-first", "ages"],
)
def test_growth_takes_days_where_there_are_days(tmp_path, first, last, years):
    later = {"lesion_id": "t-2", "study_id": "t-p1_02", "series_id": "t-p1_02_01", "study_index": 2}
    path = make_store(tmp_path / "s.duckdb", [first, later | last | {"long_mm": 40.0, "short_mm": 20.0}])
    with open_writer(path) as writer:
        writer.execute(
            "INSERT INTO lake_rows.matches SELECT 'location', patient_id, study_id, lesion_id, 't-p1.g1', "
            "'baseline', NULL, 1 FROM lake_rows.lesions"
        )

    with open_reader(path) as opened:
        growth = answer_in(opened, "How fast do lesions grow")
        (doubling,) = answer_in(opened, "In what time do lesions double")

    assert [row["mm_per_lesion_year"] for row in growth] == pytest.approx([20 / years] * 2, abs=0.006)
    # From 20 × 10 to 40 × 20 mm: eight times the volume, three doublings.
    assert doubling["doubling_days"] == pytest.approx(365.25 * years / 3, abs=0.6)
