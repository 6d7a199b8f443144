"""Algorithm 1 over all patients at once: against a plain loop, and state by state."""

import math

import match_oracle
import numpy as np
import pytest

from store import match_pairs, matching
from store.matching import EdgeKind, Sightings, State, Thresholds, match


def sightings(patients, studies, vectors):
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim == 1:
        vectors = vectors[:, None]
    return Sightings(np.asarray(patients, dtype=np.int64), np.asarray(studies, dtype=np.int64), vectors)


def one_patient(*studies):
    """Each study a list of numbers: lesions that have one feature."""
    times = [time for time, values in enumerate(studies) for _ in values]
    return sightings([7] * len(times), times, [value for values in studies for value in values])


def states(matching):
    return [State(code).name.lower() for code in matching.state]


def edges(matching):
    found = matching.edges
    return {
        (int(a), int(b), EdgeKind(kind).name.lower()): (float(distance), float(sure))
        for a, b, distance, sure, kind in zip(
            found.from_row, found.to_row, found.distance, found.confidence, found.kind, strict=True
        )
    }


def kinds(matching):
    return sorted(edges(matching))


def vanished(matching):
    lost = matching.vanished
    return list(zip(lost.patient.tolist(), lost.group.tolist(), lost.study.tolist(), strict=True))


def random_case(seed):
    """A few patients, rows in any order; in half of the cases on a grid where distances are often equal."""
    random = np.random.default_rng(seed)
    rows = []
    for patient in random.permutation(9)[: random.integers(1, 7)] - 4:
        for study in random.permutation(12)[: random.integers(1, 6)] - 3:
            rows += [(patient, study)] * random.integers(0, 7)
    random.shuffle(rows)
    dimension = int(random.integers(1, 6))
    codes = np.array(rows, dtype=np.int64).reshape(-1, 2)
    if seed % 2:
        # Means of up to six multiples of 60 are whole: equal distances are equal in any arithmetic.
        vectors = 60.0 * random.integers(0, 5, (len(rows), dimension))
        t1, t2 = (float(value) for value in random.choice([0, 60, 61, 85, 120, 180], 2))
    else:
        vectors = random.normal(size=(len(rows), dimension))
        copied = random.random(len(rows)) < 0.2
        vectors[copied] = vectors[random.integers(0, max(1, len(rows)), int(copied.sum()))]
        t1, t2 = (float(value) for value in random.uniform(0, 2, 2))
    return sightings(codes[:, 0], codes[:, 1], vectors.astype(np.float32)), Thresholds(t1, t2)


def check_agreement(seen, thresholds):
    plain = match_oracle.match_plainly(
        seen.patients.tolist(), seen.studies.tolist(), seen.vectors.tolist(), thresholds.t1, thresholds.t2
    )
    ours = match(seen, thresholds)
    assert ours.node.tolist() == numbers(plain.nodes, len(seen.patients))
    assert ours.group.tolist() == numbers(plain.groups, len(seen.patients))
    assert states(ours) == [plain.state[row] for row in range(len(seen.patients))]
    assert vanished(ours) == plain.vanished
    assert ours.confidence == pytest.approx(
        [plain.confidence[row] for row in range(len(seen.patients))], abs=1e-9, nan_ok=True
    )
    found = edges(ours)
    assert found.keys() == plain.edges.keys()
    assert len(found) == ours.edges.kind.size
    for edge, measured in plain.edges.items():
        assert found[edge] == pytest.approx(measured, abs=1e-9)
    return plain


def numbers(parts, count):
    """Tuples of rows → the number of the tuple for each row."""
    number_of = {row: number for number, rows in enumerate(parts) for row in rows}
    return [number_of[row] for row in range(count)]


@pytest.mark.parametrize("block", range(10))
def test_agrees_with_a_plain_loop_on_random_cases(block):
    met = set()
    for seed in range(100 * block, 100 * block + 100):
        plain = check_agreement(*random_case(seed))
        met |= (
            set(plain.state.values()) | {kind for *_, kind in plain.edges} | ({"vanished"} if plain.vanished else set())
        )

    assert met >= {"baseline", "new", "persistent", "merged", "split", "vanished", "same_study", "same_lesion"}


def test_agrees_with_a_plain_loop_when_patients_come_in_many_batches(monkeypatch):
    monkeypatch.setattr(matching, "_BATCH_PAIRS", 20)
    for seed in range(100):
        check_agreement(*random_case(seed))


def test_agrees_with_a_plain_loop_when_distances_are_estimated_first(monkeypatch):
    monkeypatch.setattr(match_pairs, "_FEW_DIMENSIONS", 0)
    for seed in range(200):
        check_agreement(*random_case(seed))


@pytest.mark.parametrize("scale", [1e-25, 1e-19, 1e-3, 1e3, 1e19, 1e25])
def test_estimates_of_any_scale_leave_the_answer_alone(monkeypatch, scale):
    monkeypatch.setattr(match_pairs, "_FEW_DIMENSIONS", 0)
    for seed in range(0, 60, 2):
        seen, thresholds = random_case(seed)
        vectors = (seen.vectors + 1000).astype(np.float32) * np.float32(scale)
        scaled = Thresholds(thresholds.t1 * scale, thresholds.t2 * scale)
        estimated = match(Sightings(seen.patients, seen.studies, vectors), scaled)
        with monkeypatch.context() as measuring:
            measuring.setattr(match_pairs, "_FEW_DIMENSIONS", 16)
            measured = match(Sightings(seen.patients, seen.studies, vectors), scaled)
        assert kinds(estimated) == kinds(measured)
        assert estimated.edges.distance == pytest.approx(measured.edges.distance, abs=0, rel=1e-9)
        assert estimated.edges.confidence == pytest.approx(measured.edges.confidence, abs=0, rel=1e-9)
        assert estimated.node.tolist() == measured.node.tolist()
        assert estimated.group.tolist() == measured.group.tolist()
        assert estimated.state.tolist() == measured.state.tolist()


def test_agrees_with_a_plain_loop_on_long_vectors():
    random = np.random.default_rng(5)
    centers = random.normal(size=(12, 300))
    rows = [(patient, study) for patient in range(3) for study in range(4) for _ in range(6)]
    vectors = centers[random.integers(0, 12, len(rows))] + random.normal(scale=0.3, size=(len(rows), 300))

    check_agreement(sightings(*zip(*rows, strict=True), vectors), Thresholds(7.5, 9.0))


@pytest.mark.parametrize("seed", range(0, 40, 2))
def test_the_order_of_rows_does_not_matter(seed):
    seen, thresholds = random_case(seed)
    # Copied vectors are ties, which the order of rows may decide: one step apart they are none.
    apart = np.arange(seen.vectors.size, dtype=np.float32).reshape(seen.vectors.shape) * np.float32(1e-4)
    seen = sightings(seen.patients, seen.studies, seen.vectors + apart)
    shuffle = np.random.default_rng(seed + 1).permutation(len(seen.patients))

    straight = match(seen, thresholds)
    shuffled = match(sightings(seen.patients[shuffle], seen.studies[shuffle], seen.vectors[shuffle]), thresholds)

    def partition(found, rows):
        return {frozenset(rows[found == number].tolist()) for number in np.unique(found)}

    here = np.arange(len(shuffle))
    assert partition(straight.node, here) == partition(shuffled.node, shuffle)
    assert partition(straight.group, here) == partition(shuffled.group, shuffle)
    assert straight.state[shuffle].tolist() == shuffled.state.tolist()
    assert straight.confidence[shuffle] == pytest.approx(shuffled.confidence, nan_ok=True)
    assert sorted(straight.edges.distance) == pytest.approx(sorted(shuffled.edges.distance))
    assert straight.vanished.study.size == shuffled.vanished.study.size


def test_nothing_gives_nothing():
    found = match(sightings([], [], np.zeros((0, 3))), Thresholds(1.0, 1.0))

    assert found.node.size == found.group.size == found.state.size == found.edges.kind.size == 0
    assert found.vanished.group.size == 0


def test_a_single_study_is_all_baseline():
    found = match(one_patient([0.0, 0.5, 9.0]), Thresholds(1.0, 5.0))

    assert states(found) == ["baseline"] * 3
    assert found.group.tolist() == [0, 0, 1]
    assert kinds(found) == [(0, 1, "same_study")]
    assert np.isnan(found.confidence).all()
    assert vanished(found) == []


def test_series_of_one_study_are_one_lesion_and_its_mean_is_what_matches():
    found = match(one_patient([0.0, 0.8, 1.6], [2.6]), Thresholds(1.0, 1.9))

    # The ends are 1.6 apart and connected through the middle; 2.6 is 1.8 from the mean, more from the first.
    assert found.node.tolist() == [0, 0, 0, 1]
    assert found.group.tolist() == [0, 0, 0, 0]
    assert states(found) == ["baseline"] * 3 + ["persistent"]
    assert edges(found)[0, 3, "same_lesion"] == pytest.approx((1.8, math.sqrt(1 - 1.8 / 3.8)))


def test_a_distance_of_exactly_t1_does_not_merge_and_one_of_exactly_t2_links():
    found = match(one_patient([0.0, 1.0], [3.0]), Thresholds(1.0, 2.0))

    assert found.node.tolist() == [0, 1, 2]
    assert kinds(found) == [(1, 2, "same_lesion")]


def test_lesions_are_found_again_across_a_study_that_missed_them():
    found = match(one_patient([0.0, 9.0], [9.1], [0.1, 9.0]), Thresholds(0.5, 1.0))

    assert found.group.tolist() == [0, 1, 1, 0, 1]
    assert states(found) == ["baseline", "baseline", "persistent", "persistent", "persistent"]
    assert vanished(found) == []


def test_only_the_nearest_of_both_sides_is_kept():
    found = match(one_patient([0.0], [0.3, 0.4]), Thresholds(0.05, 1.0))

    assert found.group.tolist() == [0, 0, 1]
    assert kinds(found) == [(0, 1, "same_lesion"), (0, 2, "split")]


def test_of_equal_distances_the_lowest_row_is_kept():
    found = match(one_patient([0.0], [1.0, -1.0]), Thresholds(0.5, 1.0))

    assert found.group.tolist() == [0, 0, 1]
    assert edges(found)[0, 1, "same_lesion"] == (1.0, 0.5)


def test_a_lesion_far_from_all_is_new():
    found = match(one_patient([0.0], [0.1, 5.0]), Thresholds(0.05, 1.0))

    assert states(found) == ["baseline", "persistent", "new"]
    assert math.isnan(found.confidence[2])


def test_a_lesion_that_ends_far_from_all_vanishes_once_at_the_next_study():
    found = match(one_patient([0.0, 5.0], [0.1], [0.2]), Thresholds(0.05, 1.0))

    assert vanished(found) == [(7, 1, 1)]


def test_a_lesion_in_the_last_study_has_not_vanished():
    found = match(one_patient([0.0], [5.0]), Thresholds(0.05, 1.0))

    assert vanished(found) == [(7, 0, 1)]
    assert states(found) == ["baseline", "new"]


def test_two_lesions_that_become_one_are_merged_and_none_vanishes():
    found = match(one_patient([0.0, 1.0], [0.4]), Thresholds(0.1, 1.0))

    assert states(found) == ["baseline", "baseline", "merged"]
    assert found.group.tolist() == [0, 1, 0]
    assert kinds(found) == [(0, 2, "same_lesion"), (1, 2, "merged")]
    assert vanished(found) == []
    # Closeness .7, and 0.4 is nearer to the same node than 0.6.
    assert found.confidence[1] == pytest.approx(math.sqrt(0.7 * 0.4))


def test_one_lesion_that_becomes_two_is_split():
    found = match(one_patient([0.4], [0.0, 1.0]), Thresholds(0.1, 1.0))

    assert states(found) == ["baseline", "persistent", "split"]
    assert found.group.tolist() == [0, 0, 1]
    assert kinds(found) == [(0, 1, "same_lesion"), (0, 2, "split")]


def test_a_group_that_starts_only_then_takes_nothing_in():
    # 1.0's nearest, 0.5, comes out of 0.1, which goes on as 0.0.
    found = match(one_patient([0.1, 1.0], [0.0, 0.5]), Thresholds(0.05, 0.8))

    assert states(found) == ["baseline", "baseline", "persistent", "split"]
    assert kinds(found) == [(0, 2, "same_lesion"), (0, 3, "split")]
    assert vanished(found) == [(7, 1, 1)]


def test_patients_never_match_each_other():
    found = match(sightings([1, 2, 1, 2], [1, 2, 2, 1], [0.0, 0.0, 9.0, 9.0]), Thresholds(1.0, 1.0))

    assert found.group.tolist() == [0, 3, 1, 2]
    assert kinds(found) == []


def test_codes_may_be_any_integers():
    seen, thresholds = random_case(40)
    ends = np.array([np.iinfo(np.int64).min, -5, -4, -3, -2, -1, 0, 1, 2, np.iinfo(np.int64).max])
    spread = sightings(ends[seen.patients + 5], seen.studies * 10**15, seen.vectors)

    assert match(spread, thresholds).group.tolist() == match(seen, thresholds).group.tolist()


def test_thresholds_of_zero_link_what_is_equal():
    found = match(one_patient([1.0, 1.0], [1.0]), Thresholds(0.0, 0.0))

    assert found.node.tolist() == [0, 1, 2]
    assert found.group.tolist() == [0, 1, 0]
    assert edges(found)[0, 2, "same_lesion"] == (0.0, math.sqrt(0.5))


def test_endless_thresholds_make_one_node_a_study():
    found = match(one_patient([0.0, 50.0], [1e9]), Thresholds(math.inf, math.inf))

    assert found.node.tolist() == [0, 0, 1]
    assert found.confidence.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_vectors_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="row 2 has a value that is not finite"):
        match(one_patient([0.0, 1.0], [value]), Thresholds(1.0, 1.0))


@pytest.mark.parametrize("thresholds", [(-0.1, 1.0), (0.1, -1.0), (math.nan, 1.0), (1.0, math.nan)])
def test_thresholds_below_zero_are_refused(thresholds):
    with pytest.raises(ValueError, match="t[12]: a distance cannot be"):
        Thresholds(*thresholds)


def test_arrays_that_do_not_fit_each_other_are_refused():
    with pytest.raises(ValueError, match="studies need one code for each of the 2 rows"):
        match(sightings([1, 1], [1], [0.0, 1.0]), Thresholds(1.0, 1.0))
    with pytest.raises(ValueError, match="one vector a row"):
        match(Sightings(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.float32)), Thresholds(1.0, 1.0))
